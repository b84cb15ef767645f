"""Crystals with known answers, shared by the tests (ASE and numpy only).

Every crystal is an `ase.Atoms`; `parts` gives what `phojax.structure.structure` takes.
"""

import numpy as np
from ase import Atoms
from ase.build import bulk

MADELUNG = {
    "rocksalt": 1.747564594633182,
    "cesiumchloride": 1.762674773070988,
    "zincblende": 1.638055053388789,
}
"""Madelung constants referred to the nearest-neighbour distance (Sakamoto, J. Chem. Phys. 28,
164 (1958), extended; Kittel, ch. 3, gives the first six digits)."""

NEAREST = {"rocksalt": 1 / 2, "cesiumchloride": np.sqrt(3) / 2, "zincblende": np.sqrt(3) / 4}
"""Nearest-neighbour distance in units of the cubic lattice constant."""

LJ_FCC_A12, LJ_FCC_A6 = 12.13188, 14.45392
"""Σ (R/r)ⁿ over the fcc lattice, R the nearest-neighbour distance (Kittel, ch. 3, eq. 13)."""

LJ_FCC_SPACING = (2 * LJ_FCC_A12 / LJ_FCC_A6) ** (1 / 6)
"""Equilibrium nearest-neighbour distance of the Lennard-Jones fcc crystal in σ (1.09)."""

LJ_FCC_ENERGY = -(LJ_FCC_A6**2) / (2 * LJ_FCC_A12)
"""Its energy per atom in ε (-8.61)."""


def parts(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cell, positions and numbers."""
    return np.array(atoms.cell), atoms.get_positions(), atoms.get_atomic_numbers()


def salt(kind: str = "rocksalt", a: float = 5.64, cubic: bool = False) -> Atoms:
    """Return NaCl in one of the structures of `MADELUNG`."""
    return bulk("NaCl", kind, a=a, cubic=cubic)


def fcc(symbol: str = "Ar", a: float = 5.31, cubic: bool = False) -> Atoms:
    """Return a face-centred cubic crystal."""
    return bulk(symbol, "fcc", a=a, cubic=cubic)


def chain(count: int = 8, spacing: float = 1.5) -> Atoms:
    """Return a chain of argon along x, 20 Å from its images.

    With springs k between neighbours λ_n m = 2k (1 - cos(2π n / count)), n = 0 … count - 1.
    """
    x = spacing * np.arange(count)[:, None] * np.array([1.0, 0.0, 0.0])
    return Atoms(f"Ar{count}", positions=x, cell=[count * spacing, 20.0, 20.0], pbc=True)


def rattled(atoms: Atoms, amplitude: float = 0.1, strain: float = 0.02, seed: int = 0) -> Atoms:
    """Return a copy without symmetry: random displacements (Å) and a random strain."""
    rng = np.random.default_rng(seed)
    copy = atoms.copy()
    copy.set_cell(copy.cell @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
    copy.positions += amplitude * rng.normal(size=copy.positions.shape)
    return copy


def random_crystal(count: int, edge: float, seed: int) -> Atoms:
    """Return atoms anywhere, outside the cell as well, in a random triclinic cell."""
    rng = np.random.default_rng(seed)
    cell = edge * (np.eye(3) + 0.4 * rng.uniform(-1, 1, size=(3, 3)))
    positions = rng.uniform(-1.2, 1.7, size=(count, 3)) @ cell
    return Atoms(numbers=rng.choice([11, 17], count), positions=positions, cell=cell, pbc=True)


def layered_salt() -> Atoms:
    """Return 8 atoms of NaCl in a tetragonal cell, its flat layers moved along z: P4mm.

    A potential that prefers rocksalt drives it back to Fm-3m.
    """
    atoms = salt(cubic=True)
    atoms.set_cell(np.diag([5.5, 5.5, 5.9]), scale_atoms=True)
    upper = atoms.get_scaled_positions()[:, 2] > 0.25
    sodium = atoms.numbers == 11
    atoms.positions[:, 2] += np.where(sodium, 0.1, -0.05) * np.where(upper, 1.5, 1.0)
    return atoms
