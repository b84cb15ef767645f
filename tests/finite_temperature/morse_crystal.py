"""An ordered close-packed crystal Na Cl3 (L1₂) with one Morse potential for all pairs.

The pairs reach two shells and the switch lies between shells, so other programs' Morse potentials
with their own switch have the same energy near its minima.
"""

import numpy as np
from ase import Atoms

from phojax.potentials.pair import morse

DEPTH, WIDTH, LENGTH = 0.35, 1.4, 2.85
ONSET, CUTOFF = 4.15, 4.6
PARAMETERS = (DEPTH, WIDTH, LENGTH)
PAIRS = [("Na", "Na"), ("Na", "Cl"), ("Cl", "Cl")]


def model():
    return morse(dict.fromkeys(PAIRS, PARAMETERS), cutoff=CUTOFF, onset=ONSET)


def parameter_file() -> dict:
    """Return the same potential as a parameter file for the command line."""
    pairs = [{"form": "morse", "elements": list(pair), "depth": DEPTH, "width": WIDTH,
              "length": LENGTH} for pair in PAIRS]  # fmt: skip
    return {"cutoff": CUTOFF, "onset": ONSET, "pairs": pairs}


def unit(a: float = 3.925) -> Atoms:
    """Return the cell of four atoms."""
    fractional = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return Atoms("NaCl3", scaled_positions=fractional, cell=np.eye(3) * a, pbc=True)


def wrapped(x: np.ndarray, cell: np.ndarray) -> np.ndarray:
    f = x @ np.linalg.inv(cell)
    return (f - np.floor(f)) @ cell
