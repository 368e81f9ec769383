"""Experiment trackers that others have."""
