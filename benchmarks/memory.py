"""Peak memory of large crystals: 200 atoms on an 8³ mesh, and force constants of 1408 atoms.

    OMP_NUM_THREADS=1 python benchmarks/memory.py {bands,supercell}

Crystals without symmetry, bound by springs between neighbours: as hard as such sizes get.
"""

import argparse
import resource
import time

import jax
import numpy as np
from ase.neighborlist import primitive_neighbor_list

from phojax.force_constants.container import ForceConstants, force_constants
from phojax.force_constants.sum_rules import cell_index
from phojax.screening.analysis import analysed
from phojax.screening.settings import PhononSettings
from phojax.structure import structure, supercell
from phojax.symmetry import space_group

_CUTOFF = 4.5  # Å


def sprung(atoms: int, matrix: tuple[int, int, int], seed: int = 0) -> ForceConstants:
    """Return the force constants of a disordered crystal with springs on a supercell."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cell = 3.0 * side * np.eye(3) + rng.normal(0, 0.2, (3, 3))
    x = (sites[:atoms] + rng.uniform(-0.1, 0.1, (atoms, 3))) / side @ cell
    crystal = structure(cell, x, rng.choice([11, 15, 16], atoms))
    cells = supercell(crystal, matrix)
    i, j, images, d = primitive_neighbor_list("ijSD", (True,) * 3, cell, x, _CUTOFF)
    length = np.linalg.norm(d, axis=1)
    n = d / length[:, None]
    strength = 3 * np.exp(-(length - 3))[:, None, None]
    k = strength * (0.1 * np.eye(3) + 0.9 * n[:, :, None] * n[:, None])
    copies = len(cells.images)
    values = np.zeros((atoms, atoms * copies, 3, 3))
    np.add.at(values, (i, j * copies + cell_index(cells, images)), -k)
    home = int(cell_index(cells, np.zeros(3, int)))
    np.add.at(values, (i, i * copies + home), k)
    return force_constants(jax.numpy.asarray(values), cells)


def main() -> None:
    """Analyse one of the two and print its time and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=("bands", "supercell"))
    case = parser.parse_args().case
    jax.config.update("jax_enable_x64", True)
    begin = time.perf_counter()
    constants = sprung(200, (1, 1, 1)) if case == "bands" else sprung(22, (4, 4, 4))
    crystal = constants.supercell.primitive
    settings = PhononSettings(mesh=(8, 8, 8))
    found = analysed(constants, space_group(crystal), settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    nu = found.on_mesh.frequencies_THz
    print(
        f"{len(crystal)} atoms, supercell of {constants.values.shape[1]}, {len(found.mesh.q)} q of "
        f"{found.mesh.divisions} and {len(found.path.q)} on the path: {nu.min():.2f} to "
        f"{nu.max():.2f} THz, {time.perf_counter() - begin:.0f} s, peak memory {peak:.1f} GiB"
    )


if __name__ == "__main__":
    main()
