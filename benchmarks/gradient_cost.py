"""What the gradient of the MSD costs, in units of the MSD itself; symmetry is used on neither side.

    python benchmarks/gradient_cost.py [--potential chgnet] [--atoms 8 16 64] [--mesh 2 1 1]

The gradient is that of the mean squared displacement of Na with respect to all positions, the
strain, the masses and all parameters of the potential, the relaxation within it. Both sides take
the exact D(q) of the cell, half the mesh by time reversal; once for the compiler, then for the
clock, the MSD alone before and after the gradient: the shorter time counts. On a CPU it is the time
of all threads, which other work disturbs least. Crystals: the cubic cell of
NaCl, and multiples of it, its atoms displaced by 0.02 Å first and not relaxed after: the cost is
the same.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import jax
import numpy as np
from ase.build import bulk

from phojax.brillouin import gamma_mesh
from phojax.convert import structure_from_ase
from phojax.gradients.route import by_waves
from phojax.gradients.total import value_and_gradient, vibrations
from phojax.implicit import minimum_at
from phojax.potentials.catalogue import potential

CELLS = {8: (1, 1, 1), 16: (2, 1, 1), 32: (2, 2, 1), 64: (2, 2, 2), 96: (3, 2, 2)}


def msd(found):
    """Return the MSD of Na at 300 K."""
    return found.msd(found.crystal.numbers == 11, 300.0)


def measured(name: str, atoms: int, divisions) -> dict:
    """Return seconds of both sides, compiled, and the peak memory of the process in GiB."""
    jax.config.update("jax_enable_x64", True)
    made = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(CELLS[atoms])
    made.rattle(0.02, seed=0)
    crystal = structure_from_ase(made)
    model = potential(name).astype("float64")
    here = minimum_at(model, crystal)
    mesh = gamma_mesh(divisions, None)
    route = by_waves(model, crystal, mesh)

    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter

    def seconds(work):
        work()
        begin = clock()
        found = work()
        return clock() - begin, found

    def value():
        return float(msd(vibrations(here, route)))

    plain, expected = seconds(value)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    both, found = seconds(lambda: value_and_gradient(msd, here, route))
    begin = clock()
    value()
    plain = min(plain, clock() - begin)
    np.testing.assert_allclose(found.value, expected, rtol=1e-10)
    return {
        "rows": len(route), "msd_s": plain, "gradient_s": both, "products": found.solve.products,
        "converged": found.solve.converged, "msd_GiB": memory,
        "gradient_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip


def main() -> list[tuple[str, str]]:
    """Print a table; return (what, figure) pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--potential", default="chgnet")
    parser.add_argument("--atoms", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--mesh", type=int, nargs=3, default=[2, 1, 1])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args() if __name__ == "__main__" else parser.parse_args([])
    if options.one:
        print(json.dumps(measured(options.potential, options.one, options.mesh)))
        return []
    print("| atoms | rows | MSD: s, GiB | with its gradient: s, GiB | ratio | products of K |")
    print("|---|---|---|---|---|---|", flush=True)
    figures = []
    for atoms in options.atoms:
        command = [
            sys.executable, __file__, "--potential", options.potential, "--one", str(atoms),
            "--mesh", *map(str, options.mesh),
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"| {atoms} | failed: {run.stderr.strip().splitlines()[-1:]} |", flush=True)
            continue
        f = json.loads(run.stdout.strip().splitlines()[-1])
        ratio = f"{f['gradient_s'] / f['msd_s']:.2f}×"
        print(
            f"| {atoms} | {f['rows']} | {f['msd_s']:.2f}, {f['msd_GiB']:.1f} | "
            f"{f['gradient_s']:.2f}, {f['gradient_GiB']:.1f} | {ratio} | {f['products']}"
            f"{'' if f['converged'] else ', unconverged'} |",
            flush=True,
        )
        figures.append((f"gradient of the MSD, {atoms} atoms, times the MSD", ratio))
    return figures


if __name__ == "__main__":
    main()
