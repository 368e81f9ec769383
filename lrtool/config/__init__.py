"""Configurations: YAML with positions, the schema, problems, how values are spelled."""
