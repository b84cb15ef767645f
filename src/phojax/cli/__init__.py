"""The command line: parses, calls, writes."""

from phojax.cli.main import main

__all__ = ["main"]
