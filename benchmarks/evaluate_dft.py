"""Potentials against DFT forces: NaCl, SiO2, SnO2, by `phojax evaluate`.

    python benchmarks/evaluate_dft.py ORACLES OUT --potential chgnet nequix:FILE …

ORACLES holds phonopy's examples (NaCl/, SnO2/: single displacements) and symfc's (symfc/: random
displacements of NaCl and SiO2), which are brought into one form first.
"""

import argparse
import json
import lzma
import pathlib
import shutil
import sys

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phojax.cli import main

SETS = {"NaCl_222": "NaCl-random", "SiO2_221": "SiO2-random"}


def inputs(oracles: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
    """Write each set as phonopy files in a folder of its own; return the YAML files."""
    files = []
    cells = json.loads((oracles / "symfc" / "supercells.json").read_text())
    for label, name in SETS.items():
        cell = cells[label]
        phonon = Phonopy(
            PhonopyAtoms(
                cell=cell["cell"],
                scaled_positions=cell["scaled_positions"],
                numbers=cell["numbers"],
            ),
            np.eye(3, dtype=int),
            primitive_matrix="auto",
            log_level=0,
        )
        with lzma.open(oracles / "symfc" / f"dfset_{label}_rd.xz") as file:
            table = np.loadtxt(file).reshape(-1, len(phonon.supercell), 6)
        phonon.dataset = {"displacements": table[..., :3], "forces": table[..., 3:]}
        files.append(folder / f"{name}.yaml")
        phonon.save(files[-1], settings={"force_sets": True, "displacements": True})
    for name in ("NaCl", "SnO2"):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        files.append(place / f"{name}-single.yaml")
        shutil.copy(oracles / name / f"phonopy_disp_{name}.yaml", files[-1])
        shutil.copy(oracles / name / f"FORCE_SETS_{name}", place / "FORCE_SETS")
    return [renamed(file) for file in files]


def renamed(file: pathlib.Path) -> pathlib.Path:
    """phonopy's files are recognised by their names."""
    return file.rename(file.with_name(f"phonopy_{file.name}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("oracles", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--potential", nargs="+", required=True)
    options = parser.parse_args()
    folder = options.out / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    files = inputs(options.oracles, folder)
    sys.exit(
        main(["evaluate", *map(str, files), "--potential", *options.potential, "--temperature",
              "300", "--out", str(options.out)])
    )  # fmt: skip
