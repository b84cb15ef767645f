"""`python -m phojax` is the command line."""

import sys

from phojax.cli import main

sys.exit(main())
