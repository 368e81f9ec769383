"""A configuration: its schema, YAML with positions, spelling."""
