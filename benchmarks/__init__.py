"""Benchmarks of lrtool: they judge it, and write nothing of it."""
