"""From names and import paths to torch objects."""
