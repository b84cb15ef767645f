"""The files of a crystal's phonons: structure, force constants that phonopy opens, arrays."""

import pathlib
from typing import Any

from phojax.io.phonopy_files import write_phonopy
from phojax.io.records import write_modes
from phojax.io.structures import write_structure
from phojax.screening.row import PhononRow


def write_row_files(folder: pathlib.Path, row: PhononRow, born: Any = None) -> None:
    """Write all of a row but its record.

    Args:
        folder: Made where it is not there.
        row: The phonons.
        born: As `write_phonopy` takes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_structure(folder / "structure.cif", row.structure)
    write_structure(folder / "structure.extxyz", row.structure)
    write_phonopy(folder, row.force_constants, born=born)
    write_modes(folder / "modes.npz", row.arrays)


__all__ = ["write_row_files"]
