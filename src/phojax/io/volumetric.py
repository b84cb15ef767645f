"""Densities on grids, written for VESTA and others: CHGCAR of VASP and Gaussian cube.

CHGCAR holds density times volume of the cell, x fastest; cube holds 1/Bohr³, z fastest, with
lengths in Bohr, as Gaussian defines it (ASE and pymatgen return these numbers as they are). Both
name the atoms; the grid starts at the origin of the cell.
"""

import os

import numpy as np
from ase import units
from ase.data import chemical_symbols
from jaxtyping import Float

from phojax.checks import fail
from phojax.io.atomic import replacing
from phojax.md.density import IonDensity
from phojax.structure import Structure


def write_chgcar(path: str | os.PathLike, density: IonDensity, crystal: Structure) -> None:
    """Write a density as CHGCAR, with the atoms of `crystal` sorted by element.

    Args:
        path: File.
        density: 1/Å³ on a grid.
        crystal: Atoms to show, in the same cell.

    Raises:
        InputError: a crystal with another cell.
    """
    _check_cell(density, crystal)
    numbers = np.asarray(crystal.numbers)
    order = np.argsort(numbers, kind="stable")
    kinds, counts = np.unique(numbers, return_counts=True)
    place = np.asarray(crystal.positions, float) @ np.linalg.inv(density.cell)
    lines = [
        f"number density of {chemical_symbols[density.number]} times volume",
        "   1.00000000000000",
        *(_row(v, "%21.16f") for v in density.cell),
        " ".join(f"{chemical_symbols[z]:>4s}" for z in kinds),
        " ".join(f"{n:4d}" for n in counts),
        "Direct",
        *(_row(r, "%19.16f") for r in place[order]),
        "",
        " ".join(f"{n:4d}" for n in density.values.shape),
    ]
    volume = abs(np.linalg.det(density.cell))
    values = density.values.ravel(order="F") * volume
    with replacing(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
        _write_values(file, values, 5, " %.11E")


def write_cube(path: str | os.PathLike, density: IonDensity, crystal: Structure) -> None:
    """Write a density as a Gaussian cube file, in 1/Bohr³; arguments as for `write_chgcar`."""
    _check_cell(density, crystal)
    shape = density.values.shape
    steps = density.cell / np.array(shape)[:, None] / units.Bohr
    place = np.asarray(crystal.positions, float) / units.Bohr
    lines = [
        f"number density of {chemical_symbols[density.number]} in 1/Bohr^3, lengths in Bohr",
        "OUTER LOOP: X, MIDDLE LOOP: Y, INNER LOOP: Z",
        f"{len(crystal):5d}" + _row(np.zeros(3), "%18.12f"),
        *(f"{n:5d}" + _row(v, "%18.12f") for n, v in zip(shape, steps, strict=True)),
        *(
            f"{z:5d}" + _row([float(z), *r], "%18.12f")
            for z, r in zip(np.asarray(crystal.numbers).tolist(), place.tolist(), strict=True)
        ),
    ]
    with replacing(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
        rows = (density.values * units.Bohr**3).reshape(-1, shape[2])
        for row in rows:  # each run along z starts on a line of its own
            _write_values(file, row, 6, " %.10E")


def _check_cell(density: IonDensity, crystal: Structure) -> None:
    if not np.allclose(np.asarray(crystal.cell), density.cell, rtol=1e-3, atol=1e-3):
        raise fail("a crystal with another cell than the density", "the cell of the run")


def _row(values: Float[np.ndarray, " n"] | list[float], form: str) -> str:
    return " " + " ".join(form % float(v) for v in values)


def _write_values(file, values: Float[np.ndarray, " n"], per_line: int, form: str) -> None:
    whole = len(values) // per_line * per_line
    line = form * per_line + "\n"
    step = per_line * 4096
    for first in range(0, whole, step):
        some = values[first : min(first + step, whole)]
        file.write((line * (len(some) // per_line)) % tuple(some.tolist()))
    if whole < len(values):
        file.write((form * (len(values) - whole) + "\n") % tuple(values[whole:].tolist()))
