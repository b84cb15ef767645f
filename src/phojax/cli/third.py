"""Third-order force constants of a finished row: computed on request, and their files."""

import pathlib

from phojax.force_constants.shells import third_order_cutoff
from phojax.force_constants.third_container import ThirdOrder
from phojax.force_constants.third_order import third_order_by_autodiff
from phojax.io.third_order_files import write_fc3_hdf5, write_shengbte_third
from phojax.potentials.contract import Potential
from phojax.screening.prepare import DISPLACEMENT
from phojax.screening.row import PhononRow
from phojax.screening.store import Checkpoint

THIRD_ORDER_FILES = ("fc3.hdf5", "FORCE_CONSTANTS_3RD")


def third_order_of(
    row: PhononRow,
    potential: Potential,
    cutoff: float | None,
    report,
    checkpoint: Checkpoint,
    workers: int | None = None,
) -> ThirdOrder:
    """Return third-order force constants of the crystal of a row, and tell of them in its record.

    By automatic differentiation; by differences over 0.01 Å for a potential that is rough (its
    third derivative at a point is that of its ripples) or has no third derivatives.
    """
    cells = row.force_constants.supercell
    if cutoff is None:
        cutoff = third_order_cutoff(cells)
    plain = potential.smoothing_width == 0 and potential.derivatives in (None, 3)
    done = checkpoint.load("third")

    def on_part(part: int, of: int) -> None:
        if part:
            checkpoint.save("third", **done)
        report("third order", part, of)

    found = third_order_by_autodiff(
        potential, cells, row.group, cutoff=cutoff, step=None if plain else DISPLACEMENT,
        workers=workers, on_part=on_part, done=done,
    )  # fmt: skip
    left = found.residuals
    row.record["third_order"] = {
        "method": "autodiff" if found.step is None else "displacements",
        "displacement_A": found.step,
        "cutoff_A": cutoff,
        "columns": found.columns,
        "removed_permutation_eV_A3": left.permutation,
        "removed_translation_eV_A3": left.translation,
        "left_out_by_cutoff_eV_A3": left.left_out,
    }
    if not plain:
        row.record["notes"].append(
            f"third order by differences over {DISPLACEMENT:g} Å: {potential.name} is rough on a "
            "smaller scale, or has no third derivatives"
        )
    return found.third_order


def write_third_order(folder: pathlib.Path, constants: ThirdOrder) -> None:
    """Write `THIRD_ORDER_FILES`; the phonopy.yaml that goes with them is written elsewhere."""
    write_fc3_hdf5(folder / "fc3.hdf5", constants)
    write_shengbte_third(folder / "FORCE_CONSTANTS_3RD", constants)
