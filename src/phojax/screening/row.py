"""One crystal to its record: every scalar with its unit in the key, and what there is to doubt."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np
from ase.formula import Formula

from phojax.bloch import exact
from phojax.descriptors.structural import structural_descriptors
from phojax.force_constants import ForceConstants
from phojax.force_constants.sum_rules import Residuals, enforced
from phojax.nac import BornCharges, is_neutral, neutral
from phojax.potentials.contract import Potential
from phojax.screening.analysis import Analysis, analysed
from phojax.screening.prepare import Prepared, Report, check_mobile, prepared
from phojax.screening.sections import (
    acoustic_record,
    coupling_record,
    displacement_record,
    dos_record,
    mode_arrays,
    spectrum_record,
    thermal_record,
)
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.screening.trust import (
    derivative_record,
    relaxation_flags,
    relaxation_record,
    width_sensitivity,
)
from phojax.screening.user import user_descriptors
from phojax.structure import Structure
from phojax.symmetry import SpaceGroup, space_group

_WRONG = 0.01  # residual of given force constants, relative to the largest


@dataclass(frozen=True)
class PhononRow:
    """The result for one crystal.

    Attributes:
        record: Scalars, settings, flags; plain Python, ready for JSON.
        arrays: For modes.npz.
        analysis: Everything behind the record.
        force_constants: As used.
        structure: The primitive cell they belong to (relaxed where that was asked for).
        group: Its space group.
    """

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    analysis: Analysis
    force_constants: ForceConstants
    structure: Structure
    group: SpaceGroup


def row_from_potential(
    name: str,
    crystal: Structure,
    potential: Potential,
    settings: PhononSettings,
    report: Report = lambda stage, done, of: None,
    checkpoint: Checkpoint | None = None,
    workers: int | None = None,
) -> PhononRow:
    """Return the row of a structure with a potential.

    Args:
        name: Of the crystal.
        crystal: As read, any cell.
        potential: In float64.
        settings: Of the calculation.
        report: Called with the stage and how much of it is done.
        checkpoint: Where finished parts are kept and found again.
        workers: Evaluations at a time (see `hessian`).

    Raises:
        InputError: bad input (elements, mobile ion), or a potential that returns NaN.
    """
    made = prepared(crystal, potential, settings, report, checkpoint, workers)
    report("modes and descriptors", 0, 0)
    found = None
    if settings.exact:
        constants = made.main.force_constants
        source = exact(potential, constants.supercell.primitive)
        found = analysed(constants, made.group, settings, source=source)
    return row_of_prepared(name, made, potential, settings, found)


def row_of_prepared(
    name: str,
    made: Prepared,
    potential: Potential,
    settings: PhononSettings,
    found: Analysis | None = None,
) -> PhononRow:
    """Return the row of a crystal whose force constants a potential has given.

    Args:
        name: Of the crystal.
        made: Its force constants and the way to them.
        potential: That made them.
        settings: Of the calculation.
        found: The analysis of them, where that was done with others'; made here by default.
    """
    origin = {
        "source": "potential",
        "potential": potential.name,
        "potential_provenance": potential.provenance,
    }
    flags, notes = relaxation_flags(made.relaxation, settings)
    found = found or analysed(made.main.force_constants, made.group, settings)
    sensitivity = width_sensitivity(made, found, settings, flags, notes)
    row = _row(
        name, made.main.force_constants, made.group, settings, origin,
        made.main.residuals, flags, notes, found=found,
    )  # fmt: skip
    row.record["relaxation"] = relaxation_record(made.relaxation)
    row.record["force_constants"] |= derivative_record(made, potential, flags, notes)
    row.record.update(sensitivity)
    notes.append(f"{potential.name} gives no Born charges: no non-analytic term (LO-TO splitting)")
    return row


def row_from_force_constants(
    name: str,
    constants: ForceConstants,
    settings: PhononSettings,
    source: str = "",
    born: BornCharges | None = None,
    notes: tuple[str, ...] = (),
) -> PhononRow:
    """Return the row of a crystal whose force constants are given (from phonopy's files, say).

    Args:
        name: Of the crystal.
        constants: Raw or symmetrised.
        settings: Of the calculation; what concerns potentials is not used.
        source: What made them.
        born: Born charges, for the non-analytic term; as read.
        notes: Remarks of the reader, passed on.

    Raises:
        InputError: no mobile ion.
    """
    crystal = constants.supercell.primitive
    check_mobile(crystal, settings.mobile)
    group = space_group(crystal, settings.symmetry_tolerance)
    symmetric, residuals = enforced(constants)
    flags: list[str] = []
    remarks = list(notes)
    largest = float(np.abs(np.asarray(constants.values)).max())
    for flag, what, residual in (
        ("force_constants_asymmetric", "are not symmetric under exchange", residuals.permutation),
        ("force_constants_break_sum_rule", "break the sum rule", residuals.translation),
    ):
        if residual > _WRONG * largest:
            flags.append(flag)
            remarks.append(
                f"the force constants {what} by {residual:.2g} eV/Å² (largest {largest:.2g}): "
                "check the forces they come from"
            )
    charges, nac = _charges(born, group, settings, flags, remarks)
    origin = {"source": "force constants", "program": source}
    used = symmetric if settings.sum_rules else constants
    row = _row(name, used, group, settings, origin, residuals, flags, remarks, charges)
    row.record["nac"] = nac
    row.record["force_constants"]["sum_rules_enforced"] = settings.sum_rules
    return row


def _charges(
    born: BornCharges | None,
    group: SpaceGroup,
    settings: PhononSettings,
    flags: list[str],
    notes: list[str],
) -> tuple[BornCharges | None, dict[str, Any] | None]:
    """Return the charges to use, made neutral and symmetric, and what that took."""
    if born is None:
        notes.append("no Born charges: no non-analytic term (LO-TO splitting)")
        return None, None
    if not settings.nac:
        flags.append("nac_not_applied")
        notes.append(
            "Born charges are given, but the non-analytic term was not asked for: "
            "longitudinal optic modes near Γ are too low"
        )
        return None, None
    charges, removed = neutral(born, group)
    if not is_neutral(removed):
        flags.append("born_charges_not_neutral")
        notes.append(
            f"Born charges add up to {removed['neutrality']:.2g} e; the excess was taken from "
            "all atoms alike"
        )
    if born.method == "wang":
        notes.append("the file asks for Wang's interpolation of dipoles; Gonze and Lee's was used")
    removed_e = {f"{name}_removed_e": value for name, value in removed.items()}
    return charges, {"method": "Gonze-Lee", **removed_e}


def _row(
    name, constants, group: SpaceGroup, settings, origin, residuals: Residuals, flags, notes,
    born: BornCharges | None = None, found: Analysis | None = None,
):  # fmt: skip
    found = found or analysed(constants, group, settings, born)
    crystal = constants.supercell.primitive
    record: dict[str, Any] = {
        "name": name,
        "formula": _formula(crystal),
        **origin,
        "mobile": settings.mobile,
        "atoms": len(crystal),
        "space_group": group.symbol,
        "space_group_number": group.number,
        "volume_A3": float(crystal.volume),
        "cell_A": np.asarray(crystal.cell).tolist(),
        "force_constants": {
            "supercell": [list(row) for row in constants.supercell.matrix],
            "supercell_atoms": len(crystal) * constants.supercell.images.shape[0],
            "residual_permutation_eV_A2": residuals.permutation,
            "residual_translation_eV_A2": residuals.translation,
        },
        "interpolated": found.held.exact is None,
        "nac_applied": born is not None,
    }
    record |= spectrum_record(found, settings, flags, notes)
    record |= displacement_record(found, settings)
    record |= dos_record(found)
    record |= coupling_record(found, settings)
    record |= thermal_record(found, settings)
    record |= acoustic_record(found, settings, record["stable"], notes)
    structural = asdict(structural_descriptors(crystal, settings.mobile))
    record["structural"] = structural
    record["descriptors"] = user_descriptors(settings.descriptors, found, settings, flags, notes)
    record |= {
        "settings": settings.as_dict(),
        "seed": settings.seed,
        "versions": versions(),
        "flags": flags,
        "notes": notes,
    }
    return PhononRow(record, mode_arrays(found, settings), found, constants, crystal, group)


def _formula(crystal: Structure) -> str:
    return Formula.from_list(crystal.symbols).reduce()[0].format("metal")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version(), "device": jax.devices()[0].device_kind}
    for package in ("phojax", "jax", "jaxlib", "numpy", "phonopy", "symfc", "spglib",
        "seekpath", "chgnet",
    ):  # fmt: skip
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
