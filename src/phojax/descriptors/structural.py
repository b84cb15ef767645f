"""Structural descriptors: what of a crystal needs no phonons. Host side, plain numbers.

    packing fraction    Σ_i (4π/3) r_i³ / V                                          (1)

with r_i the mean ionic radius of the species (pymatgen's table) at the oxidation state found
here, and its atomic radius where there is none. Overlaps of the spheres are counted twice.

Oxidation states are guesses. Tried in turn: bond valences (pymatgen's `BVAnalyzer`, O'Keefe and
Brese, J. Am. Chem. Soc. 113, 3226 (1991)), charge neutrality of the composition with common
states, and with all known ones. Which one it was, and the states, are part of the result.

Valence electrons are those outside the noble-gas core of the free atom, counted in two ways:
all of them (Br 17, as in the Magpie features), or without the filled d shell beneath p and the
filled f shell beneath d or p electrons (Br 7, Zn 12, Hf 4: the group number of the main groups).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from phojax.checks import fail
from phojax.convert import ase_atoms, pymatgen_structure
from phojax.structure import Structure

CUTOFF = 3.5
"""Radius for neighbours and bonds in Å."""


@dataclass(frozen=True)
class StructuralDescriptors:
    """Numbers of one crystal; None where one could not be had, with the reason in `notes`.

    Attributes:
        volume_A3: Of the cell given.
        volume_per_atom_A3: Mean volume of an atom.
        number_density_per_A3: Atoms per Å³.
        packing_fraction: Of eq. (1).
        radii_A: For each species the radius used in eq. (1).
        radii_kind: For each species "ionic" or "atomic".
        oxidation_states: For each species the mean state; empty where none was found.
        oxidation_states_from: "bond valence", "composition", "composition, rare states" or
            "none".
        neighbors_within_cutoff: Mean number of atoms (or of those of one species, on request)
            around a mobile ion.
        neighbors_crystalnn: Mean coordination number of a mobile ion by pymatgen's `CrystalNN`.
        mean_bond_length_A: Of all pairs of atoms within the cutoff.
        mean_electronegativity: Pauling's, over atoms.
        mean_atomic_number: Over atoms.
        mean_valence_electrons: Over atoms, without filled inner d and f shells.
        mean_electrons_outside_core: Over atoms, with them.
        cutoff_A: For neighbours and bonds.
        notes: What is missing or was replaced, and remarks of pymatgen, a sentence each.
    """

    volume_A3: float
    volume_per_atom_A3: float
    number_density_per_A3: float
    packing_fraction: float | None
    radii_A: dict[str, float]
    radii_kind: dict[str, str]
    oxidation_states: dict[str, float]
    oxidation_states_from: str
    neighbors_within_cutoff: float | None
    neighbors_crystalnn: float | None
    mean_bond_length_A: float | None
    mean_electronegativity: float | None
    mean_atomic_number: float
    mean_valence_electrons: float | None
    mean_electrons_outside_core: float | None
    cutoff_A: float
    notes: tuple[str, ...]


def structural_descriptors(
    crystal: Structure,
    mobile: str | None = None,
    *,
    cutoff: float = CUTOFF,
    neighbor_species: str | None = None,
) -> StructuralDescriptors:
    """Return the structural descriptors of a crystal (D8 of the definitions).

    Missing data never raise: the value is None and a note says why.

    Args:
        crystal: Concrete; any cell, the results per cell excepted.
        mobile: Symbol of the mobile ion; without one, its neighbours are None.
        cutoff: Å.
        neighbor_species: Count only neighbours of this element within the cutoff.

    Raises:
        InputError: pymatgen is not installed, padding atoms, a mobile ion or neighbour species
            that is not in the crystal, a cutoff that is not positive.
    """
    symbols = crystal.symbols
    for name, given in (("mobile ion", mobile), ("neighbour species", neighbor_species)):
        if given is not None and given not in symbols:
            raise fail(f"{name} {given}", f"one of {', '.join(sorted(set(symbols)))}")
    if not (math.isfinite(cutoff) and cutoff > 0):
        raise fail(f"cutoff {cutoff} Å", "a positive number")
    notes: list[str] = []
    peer = pymatgen_structure(crystal)
    volume, count = float(crystal.volume), len(symbols)
    elements = {site.specie.symbol: site.specie for site in peer}

    states, states_from = _heard(notes, lambda: _oxidation_states(peer))
    if states is None:
        notes.append("no oxidation states found")
    by_species = _means(symbols, states)
    radii = {s: _radius(e, by_species.get(s), notes) for s, e in elements.items()}
    ions = np.array([radii[s][0] or np.nan for s in symbols])
    packing = _number(np.sum(4 / 3 * np.pi * ions**3) / volume)

    around, bond = _within(crystal, mobile, cutoff, neighbor_species)
    if bond is None:
        notes.append(f"no two atoms within {cutoff:g} Å: no bond length")
    nearest = None
    if mobile is not None:
        sites = [i for i, s in enumerate(symbols) if s == mobile]
        nearest = _heard(notes, lambda: _crystalnn(peer, states, sites, notes))

    def mean(name: str, value: Callable[[Any], float]) -> float | None:
        return _heard(notes, lambda: _element_mean(name, symbols, elements, value, notes))

    return StructuralDescriptors(
        volume_A3=volume,
        volume_per_atom_A3=volume / count,
        number_density_per_A3=count / volume,
        packing_fraction=packing,
        radii_A={s: r for s, (r, _) in radii.items() if r is not None},
        radii_kind={s: kind for s, (r, kind) in radii.items() if r is not None},
        oxidation_states=by_species,
        oxidation_states_from=states_from,
        neighbors_within_cutoff=around,
        neighbors_crystalnn=nearest,
        mean_bond_length_A=bond,
        mean_electronegativity=mean("electronegativity", lambda e: e.X),
        mean_atomic_number=float(np.mean(np.asarray(crystal.numbers))),
        mean_valence_electrons=mean("electron configuration", valence_electrons),
        mean_electrons_outside_core=mean(
            "electron configuration", lambda e: valence_electrons(e, inner_shells=True)
        ),
        cutoff_A=float(cutoff),
        notes=tuple(dict.fromkeys(notes)),
    )


def valence_electrons(element: Any, inner_shells: bool = False) -> int:
    """Return the electrons outside the noble-gas core of a `pymatgen.core.Element`.

    Args:
        element: Or anything with its `Z` and `full_electronic_structure`.
        inner_shells: Count the filled d shell beneath p and the filled f shell beneath d or p.
    """
    core = max((z for z in _NOBLE if z < element.Z), default=0)
    outer, left = [], core
    for _, shell, electrons in element.full_electronic_structure:
        # Shells come in the order in which they are filled, so the core comes first.
        if left > 0:
            left -= electrons
        else:
            outer.append((shell, electrons))
    shells = {shell for shell, _ in outer}
    total = 0
    for shell, electrons in outer:
        inner = (shell == "d" and electrons == 10 and "p" in shells) or (
            shell == "f" and electrons == 14 and bool(shells & {"d", "p"})
        )
        total += electrons if inner_shells or not inner else 0
    return total


_NOBLE = tuple(atomic_numbers[s] for s in ("He", "Ne", "Ar", "Kr", "Xe", "Rn"))


def _heard(notes: list[str], compute: Callable[[], Any]) -> Any:
    """Return compute(); what pymatgen warns of is kept as notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = compute()
    for warning in caught:
        # pymatgen's deprecations concern its own code.
        if not issubclass(warning.category, (DeprecationWarning, FutureWarning)):
            text = " ".join(str(warning.message).split())
            notes.append(f"pymatgen: {text}")
    return result


def _oxidation_states(peer: Any) -> tuple[list[float] | None, str]:
    """Return the state of each atom, or None, and how it was found."""
    from pymatgen.analysis.bond_valence import BVAnalyzer

    try:
        states = np.asarray(BVAnalyzer().get_valences(peer), float)
        return states.tolist(), "bond valence"
    except Exception:  # pymatgen raises ValueError and, on odd sites, others
        pass
    # Among the rare states are those of sodides and chlorine oxides: Na⁻ and Cl²⁺ in Na2Cl.
    polar = sorted(peer.composition.elements, key=lambda e: e.X)
    first, last = polar[0].symbol, polar[-1].symbol
    for name, every in (("composition", False), ("composition, rare states", True)):
        try:
            found = peer.composition.oxi_state_guesses(max_sites=-1, all_oxi_states=every)
        except Exception:
            continue
        for states in found:
            if states[first] > 0 > states[last]:
                return [float(states[site.specie.symbol]) for site in peer], name
    return None, "none"


def _means(symbols: list[str], states: list[float] | None) -> dict[str, float]:
    if states is None:
        return {}
    values = np.asarray(states)
    return {s: float(values[np.array(symbols) == s].mean()) for s in dict.fromkeys(symbols)}


def _radius(element: Any, state: float | None, notes: list[str]) -> tuple[float | None, str]:
    """Return the radius in Å and its kind; atomic where there is no ionic one."""
    table = element.ionic_radii
    if state in table:
        return float(table[state]), "ionic"
    atomic = _number(element.atomic_radius) if element.atomic_radius is not None else None
    what = "no oxidation state" if state is None else f"no ionic radius of {state:+.3g}"
    remedy = "atomic radius used" if atomic else "no atomic radius either: no packing fraction"
    notes.append(f"{element.symbol}: {what}; {remedy}")
    return atomic, "atomic"


def _within(
    crystal: Structure, mobile: str | None, cutoff: float, species: str | None
) -> tuple[float | None, float | None]:
    """Return the mean number of neighbours of the mobile ion, and the mean length of pairs."""
    i, j, d = neighbor_list("ijd", ase_atoms(crystal), float(cutoff), self_interaction=False)
    symbols = np.array(crystal.symbols)
    around = None
    if mobile is not None:
        counted = symbols[i] == mobile
        if species is not None:
            counted &= symbols[j] == species
        around = float(counted.sum() / np.sum(symbols == mobile))
    return around, float(d.mean()) if len(d) else None


def _crystalnn(
    peer: Any, states: list[float] | None, sites: list[int], notes: list[str]
) -> float | None:
    """Return the mean coordination number of sites."""
    from pymatgen.analysis.local_env import CrystalNN

    if states is not None:
        # With them CrystalNN takes ionic radii, as its documentation recommends.
        peer = peer.copy()
        peer.add_oxidation_state_by_site(states)
    finder = CrystalNN()
    try:
        return _number(np.mean([finder.get_cn(peer, i) for i in sites]))
    except Exception as error:  # Voronoi cells that do not close raise in several ways
        notes.append(f"CrystalNN fails with {type(error).__name__}: {error}")
        return None


def _element_mean(
    name: str,
    symbols: list[str],
    elements: dict[str, Any],
    value: Callable[[Any], float],
    notes: list[str],
) -> float | None:
    """Return the mean over atoms; None, and a note, where an element has no value."""
    values: dict[str, float] = {}
    missing = []
    for symbol, element in elements.items():
        try:
            values[symbol] = float(value(element))
        except Exception:  # elements without data raise as they like
            values[symbol] = math.nan
        if not math.isfinite(values[symbol]):
            missing.append(symbol)
    if missing:
        notes.append(f"no {name} of {', '.join(missing)}")
        return None
    return float(np.mean([values[s] for s in symbols]))


def _number(value: Any) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None
