"""A configuration: YAML with places, its schema, problems, spelling."""
