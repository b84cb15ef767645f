"""Structures that are one crystal: the same up to cell, origin, orientation and rounding.

Two crystals are compared by pymatgen's StructureMatcher (S. P. Ong et al., Comput. Mater. Sci. 68,
314 (2013)): their reduced cells agree in lengths and angles, and no atom is farther from its
partner than a share of (V/N)^(1/3), V/N the volume per atom. Mirror images count as one crystal;
their phonons are the same.

A crystal that is missed as a duplicate costs one calculation, one taken for a duplicate is lost.
Hence, other than StructureMatcher by default:

- The limits are narrow: 3 % in lengths (PBE is 1 to 2 % off experiment), 2°, and
  0.03 (V/N)^(1/3), about 0.08 Å. Its own (20 %, 5°, 0.3) make one of phases that differ by a soft
  mode, which is what is looked for here.
- Cells are not scaled to one volume: phonons depend on it, and a dense phase of the same pattern
  is another phase.
- Primitive cells are spglib's at 0.01 Å; pymatgen's merges atoms up to 0.25 Å from a translation,
  and with it a distorted superstructure and its parent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phojax.checks import InputError, fail
from phojax.convert import pymatgen_structure
from phojax.structure import Structure
from phojax.symmetry import primitive_cell

_SYMMETRY = 0.01  # Å
_SAME_MASS = 0.01  # relative: tables differ by 4e-4, isotopes by more than this


def duplicate_of(
    structures: Sequence[Structure],
    *,
    length: float = 0.03,
    site: float = 0.03,
    angle: float = 2.0,
    remark: Callable[[str], None] = lambda text: None,
) -> list[int | None]:
    """Return for every structure the index of the first one that it repeats, None for the first.

    A structure is compared with those before it that repeat none, of the same reduced formula,
    isotopes (masses to 1 %) and number of atoms in the primitive cell.

    Args:
        structures: Any cells.
        length: Relative difference of lattice vectors.
        site: Distance of partners at most, in units of (V/N)^(1/3).
        angle: Degrees between lattice vectors.
        remark: Told where a comparison fails; such a structure is none's duplicate.

    Raises:
        InputError: tolerances that are not positive.
    """
    for name, value, most in (("length", length, 1), ("site", site, 1), ("angle", angle, 45)):
        if not 0 < value < most:
            raise fail(f"tolerance {name} is {value}", f"a number between 0 and {most}")
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(
        ltol=length, stol=site, angle_tol=angle, primitive_cell=False, scale=False
    )
    formulas: dict[tuple, list[int]] = {}
    for k, crystal in enumerate(structures):
        formulas.setdefault(_formula(crystal), []).append(k)
    found: list[int | None] = [None] * len(structures)
    for members in formulas.values():
        if len(members) == 1:
            continue
        firsts: list[tuple[int, Any]] = []
        for k in members:
            reduced = _reduced(structures[k], k, remark)
            if reduced is None:
                continue
            for other, seen in firsts:
                if not _same_masses(structures[other], structures[k]):
                    continue
                if len(seen) == len(reduced) and _same(matcher, seen, reduced, other, k, remark):
                    found[k] = other
                    break
            else:
                firsts.append((k, reduced))
    return found


def _formula(crystal: Structure) -> tuple:
    numbers, counts = np.unique(np.asarray(crystal.numbers), return_counts=True)
    return tuple(numbers.tolist()), tuple((counts // np.gcd.reduce(counts)).tolist())


def _same_masses(first: Structure, second: Structure) -> bool:
    """Return whether crystals of one formula have the same mean mass of every element."""
    means = []
    for crystal in (first, second):
        numbers, masses = np.asarray(crystal.numbers), np.asarray(crystal.masses)
        means.append(np.array([masses[numbers == z].mean() for z in np.unique(numbers)]))
    return bool(np.allclose(means[0], means[1], rtol=_SAME_MASS))


def _reduced(crystal: Structure, k: int, remark: Callable[[str], None]) -> Any:
    """Return the Niggli-reduced primitive cell, sites sorted by element; None where it fails."""
    try:
        primitive = primitive_cell(crystal, _SYMMETRY)
    except InputError:
        primitive = crystal  # spglib finds no symmetry: compared as it is
    try:
        cell = pymatgen_structure(primitive)
        return cell.get_reduced_structure("niggli").get_sorted_structure()
    except Exception as error:  # pymatgen's reduction fails in several ways
        remark(f"structure {k} was compared with none ({type(error).__name__}: {error})")
        return None


def _same(
    matcher: Any, first: Any, second: Any, i: int, k: int, remark: Callable[[str], None]
) -> bool:
    try:
        return bool(matcher.fit(first, second, skip_structure_reduction=True))
    except Exception as error:  # one pair that fails is no reason to stop a screening
        remark(f"structures {i} and {k} could not be compared ({type(error).__name__}: {error})")
        return False
