"""On the command line XLA logs errors alone that end something; imported before JAX.

Of every function that was kept from an earlier process it would say that hints on tuning are not
instructions of this processor.
"""

import os
import pathlib
import sys

if pathlib.Path(sys.argv[0] if sys.argv else "").name in ("phojax", "-m"):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
