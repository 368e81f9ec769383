"""A configuration made real: built, tried on one batch, its failures in words."""
