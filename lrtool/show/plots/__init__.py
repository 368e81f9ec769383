"""Reports as figures."""
