"""The command line: what a person types, exit codes, streams, signals."""

from lrtool.cli.app import main

__all__ = ["main"]
