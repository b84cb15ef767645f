"""The command line: parses, calls, writes."""

from phojax.cli.main import main, program

__all__ = ["main", "program"]
