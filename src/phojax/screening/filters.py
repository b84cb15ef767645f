"""Which candidates of a screening are computed at all.

A crystal is kept that holds the mobile ion, is an insulator (band gap above 0) and a compound
(formation energy below 0, both limits excluded). What a source does not say about a crystal
rejects nothing unless that is asked for: it is named, so that the crystal is not taken for one
that passed.
"""

import math
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from phojax.checks import InputError, fail
from phojax.screening.candidates import BAND_GAP, FORMATION_ENERGY, Candidate
from phojax.symmetry import primitive_cell


@dataclass(frozen=True)
class Filters:
    """Limits, None for none.

    Attributes:
        mobile: Element that has to be there.
        band_gap_above: eV, the limit itself excluded.
        formation_energy_below: eV/atom, the limit itself excluded.
        atoms_max: In the primitive cell, this number included.
        excluded: Elements that must not be there.
        require_metadata: Reject what lacks a number that a limit is set for.
        symmetry_tolerance: Å, of the primitive cell.
    """

    mobile: str = "Na"
    band_gap_above: float | None = 0.0
    formation_energy_below: float | None = 0.0
    atoms_max: int | None = None
    excluded: tuple[str, ...] = ()
    require_metadata: bool = False
    symmetry_tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Raise InputError for limits that mean nothing."""
        for symbol in (self.mobile, *self.excluded):
            if symbol not in atomic_numbers or symbol == "X":
                raise fail(f"element {symbol!r} in the filters", "a chemical symbol such as Na")
        if self.mobile in self.excluded:
            raise fail(f"{self.mobile} is both mobile and excluded", "one or the other")
        if self.band_gap_above is not None and not 0 <= self.band_gap_above < 100:
            raise fail(f"band gap above {self.band_gap_above} eV", "0 eV or more, or None")
        if self.formation_energy_below is not None and not math.isfinite(
            self.formation_energy_below
        ):
            raise fail(f"formation energy below {self.formation_energy_below}", "eV/atom, or None")
        if self.atoms_max is not None and not self.atoms_max >= 1:
            raise fail(f"at most {self.atoms_max} atoms", "1 or more, or None")
        if not self.symmetry_tolerance > 0:
            raise fail(f"symmetry tolerance {self.symmetry_tolerance} Å", "a positive length")


def rejection(candidate: Candidate, filters: Filters) -> str:
    """Return why a candidate is not computed, "" where it is.

    The order of the reasons is fixed: not readable, elements, band gap, formation energy, size,
    missing metadata.
    """
    if candidate.structure is None:
        return f"not usable: {candidate.error or 'no structure'}"
    symbols = set(candidate.structure.symbols)
    if filters.mobile not in symbols:
        return f"no {filters.mobile}"
    unwanted = [s for s in filters.excluded if s in symbols]
    if unwanted:
        return f"holds {', '.join(unwanted)}"
    gap = known(candidate, BAND_GAP)
    if filters.band_gap_above is not None and gap is not None and gap <= filters.band_gap_above:
        return f"band gap {gap:g} eV"
    energy, limit = known(candidate, FORMATION_ENERGY), filters.formation_energy_below
    if limit is not None and energy is not None and energy >= limit:
        return f"formation energy {energy:g} eV/atom"
    too_many = _too_many_atoms(candidate, filters)
    if too_many:
        return too_many
    missing = unknown(candidate, filters)
    return f"not known: {', '.join(missing)}" if missing and filters.require_metadata else ""


def unknown(candidate: Candidate, filters: Filters) -> tuple[str, ...]:
    """Return the metadata that limits are set for and the source does not have."""
    asked = (
        (BAND_GAP, filters.band_gap_above),
        (FORMATION_ENERGY, filters.formation_energy_below),
    )
    return tuple(key for key, limit in asked if limit is not None and known(candidate, key) is None)


def known(candidate: Candidate, key: str) -> float | None:
    """Return a number of the metadata; None where it is missing, no number, or not finite."""
    value = candidate.metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None


def _too_many_atoms(candidate: Candidate, filters: Filters) -> str:
    crystal, most = candidate.structure, filters.atoms_max
    if crystal is None or most is None or len(crystal) <= most:
        return ""
    try:
        count = len(primitive_cell(crystal, filters.symmetry_tolerance))
    except InputError as error:
        return f"no primitive cell: {error}"
    return f"{count} atoms in the primitive cell" if count > most else ""
