"""Reports and progress as text."""
