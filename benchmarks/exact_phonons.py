"""D(q) from the primitive cell beside the supercell: seconds and memory of one result.

    python benchmarks/exact_phonons.py [--potential chgnet] [--cells 2 3 4] [--atoms 2 16 40]

Both routes give the force constants of an n×n×n supercell, which are equal (tests/test_bloch.py);
each runs in a process of its own, once for the compiler and once for the clock. Crystals: rock
salt (2 atoms, 48 operations), tetragonal Na3PS4 (16 atoms), and twice NaMgF3 with its atoms
displaced (40 atoms, no symmetry).
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import jax
import numpy as np
from ase.spacegroup import crystal as ase_crystal

from phojax.bloch_supercell import exact_force_constants, independent_columns
from phojax.convert import structure_from_ase
from phojax.force_constants.hessian import hessian
from phojax.force_constants.reduction import independent_displacements
from phojax.potentials.catalogue import potential
from phojax.structure import supercell
from phojax.symmetry import primitive_cell, space_group, symmetrized

ROUTES = ("exact", "supercell")


def crystal(atoms: int):
    """Return one of the crystals, its symmetry exact."""
    if atoms == 2:
        made = ase_crystal(["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225,
                           cellpar=[5.64] * 3 + [90] * 3)  # fmt: skip
    elif atoms == 16:  # Chu et al., Sci. Rep. 6, 33733 (2016)
        made = ase_crystal(
            ["Na", "Na", "P", "S"],
            [(0, 0, 0), (0, 0.5, 0.0852), (0, 0, 0.5), (0.3125, 0.3372, 0.1649)],
            spacegroup=114, cellpar=[6.952, 6.952, 7.0757, 90, 90, 90],
        )  # fmt: skip
    else:  # an orthorhombic perovskite, near NaMgF3
        made = ase_crystal(
            ["Na", "Mg", "F", "F"],
            [(0.04, 0.25, 0.99), (0, 0, 0.5), (0.47, 0.25, 0.09), (0.3, 0.05, 0.7)],
            spacegroup=62, cellpar=[5.49, 7.69, 5.36, 90, 90, 90],
        ).repeat((2, 1, 1))  # fmt: skip
        made.rattle(0.02, seed=0)
    found = structure_from_ase(made)
    if atoms < 40:
        found = primitive_cell(found, 1e-3)
    return symmetrized(found, space_group(found, 1e-3))


def one(route: str, name: str, atoms: int, n: int) -> dict:
    """Measure one route in this process."""
    jax.config.update("jax_enable_x64", True)
    model, given = potential(name), crystal(atoms)
    group, cells = space_group(given, 1e-3), supercell(given, (n, n, n))
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        if route == "exact":
            exact_force_constants(model, cells, group)
        else:
            hessian(model, cells, group)
        seconds.append(time.perf_counter() - begin)
    rows = len(independent_displacements(cells, group))
    exact_work = independent_columns(cells, group).work
    work = exact_work if route == "exact" else rows * atoms * n**3
    return {
        "cold_s": seconds[0], "warm_s": seconds[1], "work": work,
        "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip


def main() -> list[tuple[str, str]]:
    """Print a table; return (what, figure) pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--potential", default="chgnet")
    parser.add_argument("--cells", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--atoms", type=int, nargs="+", default=[2, 16, 40])
    parser.add_argument("--largest", type=int, default=600, help="atoms of a supercell that is run")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args() if __name__ == "__main__" else parser.parse_args([])
    if options.one:
        route, atoms, n = options.one[0], int(options.one[1]), int(options.one[2])
        print(json.dumps(one(route, options.potential, atoms, n)))
        return []
    figures = []
    print(
        "| atoms | cells | exact: s warm (cold), GiB | supercell: the same | exact is faster by |"
    )
    print("|---|---|---|---|---|", flush=True)
    for atoms in options.atoms:
        for n in options.cells:
            found = {}
            for route in ROUTES:
                if route == "supercell" and atoms * n**3 > options.largest:
                    continue
                command = [sys.executable, __file__, "--potential", options.potential, "--one",
                           route, str(atoms), str(n)]  # fmt: skip
                run = subprocess.run(command, capture_output=True, text=True, check=False)
                if run.returncode == 0:
                    found[route] = json.loads(run.stdout.strip().splitlines()[-1])
            cells = [
                f"{f['warm_s']:.2f} ({f['cold_s']:.0f}), {f['GiB']:.1f}" if (f := found.get(route))
                else "not run" for route in ROUTES
            ]  # fmt: skip
            ratio = ""
            if len(found) == 2:
                value = found["supercell"]["warm_s"] / found["exact"]["warm_s"]
                work = found["supercell"]["work"] / found["exact"]["work"]
                ratio = f"{value:.2f}× (rows × atoms: {work:.2f}×)"
                figures.append((f"D(q), {atoms} atoms, {n}³: exact faster by", ratio))
            print(f"| {atoms} | {n}³ | {' | '.join(cells)} | {ratio} |", flush=True)
    return figures


if __name__ == "__main__":
    np.set_printoptions(precision=3)
    main()
