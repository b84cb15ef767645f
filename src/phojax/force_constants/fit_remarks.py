"""What is unusual about displacements, forces and what was fitted to them, in words.

A fit scales with the forces: forces in other units fit as well as the right ones. They show only
where one set mixes units (single snapshots fit badly, and by which factor), or in frequencies that
no crystal has. Nothing is converted here.
"""

import numpy as np
from jaxtyping import Float

from phojax.force_constants.basis import SymmetryAdaptedBasis
from phojax.force_constants.container import ForceConstants
from phojax.force_constants.displacements import DisplacementSet
from phojax.units import THZ

_UNITS = {25.711: "Ry/bohr", 27.211: "hartree or hartree/Å", 51.422: "hartree/bohr"}
_FREQUENCIES = (0.5, 140.0)  # THz; of one atom among fixed ones, from solid xenon to H2
_POOR = 0.5  # share of ‖F‖² below which a fit is no description of the forces


def remarks(
    given: DisplacementSet,
    left: Float[np.ndarray, "snapshot atom 3"],
    basis: SymmetryAdaptedBasis,
    second: ForceConstants | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what speaks against forces or displacements themselves, and what else is unusual.

    Args:
        given: Displacements (Å) and forces (eV/Å).
        left: F - A x, eV/Å.
        basis: What was fitted.
        second: Φ found, eV/Å².
    """
    F = np.asarray(given.forces)
    doubts = (
        _work(given.displacements, F),
        _poor(F, left),
        _other_units(F, left),
        _frequencies(second),
    )
    others = _net_force(F), _shifted(given.displacements), _at_rest(left, F, basis)
    return tuple(filter(None, doubts)), tuple(filter(None, others))


def _work(u, F) -> str:
    correlation = float((u * F).sum() / np.sqrt((u**2).sum() * (F**2).sum()))
    if correlation < 0:
        return ""
    return (
        f"Forces point along the displacements (correlation {correlation:.2f}; a crystal at rest "
        "pulls its atoms back): a sign, an order of atoms or of snapshots may be wrong"
    )


def _poor(F, left) -> str:
    explained = 1 - float((left**2).sum() / (F**2).sum())
    if explained >= _POOR:
        return ""
    return (
        f"The fit explains {explained:.1%} of the squared forces: forces and displacements may "
        "not belong together (order of atoms or snapshots, another cell), or cutoffs are too short"
    )


def _other_units(F, left) -> str:
    """Name snapshots that fit badly, and where it fits the factor that separates them."""
    error = np.sqrt((left**2).mean((1, 2)))
    size = np.sqrt((F**2).mean((1, 2)))
    middle, typical = np.median(error), np.median(size)
    odd = np.flatnonzero((error > 5 * middle) & (error > 0.2 * typical))
    # A few snapshots of other units spoil the fit of all: sizes tell them apart as well.
    ratio = np.maximum(size / typical, typical / np.maximum(size, 1e-300))
    odd = np.union1d(odd, np.flatnonzero(ratio > 8))
    if not len(odd):
        return ""
    factor = float(np.median(ratio[odd]))
    unit = min(_UNITS, key=lambda known: abs(np.log(known / factor)))
    told = ""
    if abs(np.log(unit / factor)) < 0.25:
        told = f"; {unit:.1f} lies between {_UNITS[unit]} and eV/Å"
    which = ", ".join(map(str, (odd[:8] + 1).tolist())) + (" …" if len(odd) > 8 else "")
    return (
        f"{len(odd)} of {len(F)} snapshots ({which}) fit badly or have forces of another size, "
        f"by a factor of {factor:.1f}{told}"
    )


def _frequencies(second: ForceConstants | None) -> str:
    if second is None:
        return ""
    n, copies = len(second.supercell.primitive), len(second.supercell.images)
    own = np.asarray(second.values)[np.arange(n), np.arange(n) * copies]
    values = np.linalg.eigvalsh((own + np.swapaxes(own, 1, 2)) / 2)
    masses = np.asarray(second.supercell.primitive.masses)
    highest = float((values[:, -1] / masses).max())
    low, high = _FREQUENCIES
    ordinary = np.sign(highest) * np.sqrt(abs(highest)) * THZ
    if low <= ordinary <= high:
        return ""
    return (
        f"An atom among fixed neighbours would vibrate at {ordinary:.3g} THz at most, outside "
        f"{low:g} to {high:g} THz: forces may not be in eV/Å, or displacements not in Å "
        "(Ry/bohr is 25.7, hartree/bohr 51.4 eV/Å)"
    )


def _net_force(F) -> str:
    net = np.abs(F.mean(axis=1)).max(axis=1)
    size = np.sqrt((F**2).mean())
    if net.max() <= 0.02 * size:
        return ""
    return (
        f"The forces of snapshot {int(net.argmax()) + 1} do not add up to 0 ({net.max():.2g} eV/Å "
        f"per atom, the root mean square being {size:.2g}): the calculation is not converged, or "
        "atoms are missing. The sum rule leaves that part unexplained"
    )


def _shifted(u) -> str:
    center = u.mean(axis=1, keepdims=True)
    mean = np.linalg.norm(center[:, 0], axis=1)
    # Independent displacements leave a mean of about u/√N; one moved atom leaves u/N.
    usual = np.sqrt(((u - center) ** 2).sum(-1).mean(axis=1) / u.shape[1])
    far = mean > 5 * usual
    if not far.any():
        return ""
    return (
        f"{int(far.sum())} snapshots are shifted as a whole (up to {mean.max():.2g} Å): harmless, "
        "since force constants obey the sum rule"
    )


def _at_rest(left, F, basis: SymmetryAdaptedBasis) -> str:
    """Name what is left on average; a third order that is fitted as well hides much of it."""
    if 1 in basis.orders:
        return ""
    n = len(basis.supercell.primitive)
    rest = left.reshape(len(left), n, -1, 3).mean(axis=(0, 2))
    samples = F.size / (3 * n)
    error = np.sqrt((left**2).mean() / samples)
    largest = float(np.abs(rest).max())
    if largest <= max(6 * error, 0.01 * np.sqrt((F**2).mean())):
        return ""
    return (
        f"On average {largest:.2g} eV/Å are left on an atom: the undisplaced crystal has forces, "
        "or odd orders beyond the third matter. Relax it, subtract its forces, or give the basis "
        "residual_forces=True"
    )
