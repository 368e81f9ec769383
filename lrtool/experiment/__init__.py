"""A configuration made real: read, built, tried on one batch, its failures explained."""
