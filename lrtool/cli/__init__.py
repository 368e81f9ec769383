"""The command line: what a person types, exit codes, streams, signals."""
