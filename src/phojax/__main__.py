"""`python -m phojax` is the command line."""

from phojax.cli import program

program()
