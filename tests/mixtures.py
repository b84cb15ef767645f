"""A crystal that stays stable while one element takes another's place, cheap to compile."""

import numpy as np

from phojax.potentials.pair import morse
from phojax.structure import structure

_PAIRS = {
    ("Na", "Na"): (0.35, 1.4, 2.85), ("Na", "Cl"): (0.35, 1.4, 2.85),
    ("Cl", "Cl"): (0.35, 1.4, 2.85), ("Na", "Br"): (0.28, 1.35, 2.95),
    ("Br", "Cl"): (0.31, 1.4, 2.9), ("Br", "Br"): (0.28, 1.35, 2.95),
}  # fmt: skip


def mixable_pairs():
    """Return a potential for Na, Cl and Br, and ordered close-packed NaCl (L1₀) in it.

    With Br it is softer and larger. One kind of atoms only in NaCl but for their masses, so its
    cell is cubic there and tetragonal in mixtures.
    """
    side, height = 3.9 / np.sqrt(2), 3.9
    centre = [side / 2, side / 2, height / 2]
    crystal = structure(np.diag([side, side, height]), [[0, 0, 0], centre], [11, 17])
    return morse(_PAIRS, cutoff=4.6, onset=4.15), crystal
