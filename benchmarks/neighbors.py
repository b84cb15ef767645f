"""Neighbour lists and pair forces on the device, against the number of atoms, beside jax-md.

    python benchmarks/neighbors.py

fcc argon, cutoff 8.5 Å with a skin of 1 Å, float64. A list made anew: a table, as pair potentials
use it, and jax-md's `partition.neighbor_list` in its two formats. Energy and forces at a given
list: phojax's Lennard-Jones beside jax-md's. All in turns; the best of several turns counts,
because anything else on the machine only adds time. jax-md takes the nearest image alone: below
19 Å it finds fewer pairs, so it is left out there.
"""

import time
import warnings
from dataclasses import replace

import jax

jax.config.update("jax_enable_x64", True)
import numpy as np  # noqa: E402
from ase.build import bulk  # noqa: E402

from phojax.forces import energy_and_forces  # noqa: E402
from phojax.neighbors import neighbor_list, pair_capacity  # noqa: E402
from phojax.potentials.pair import lennard_jones  # noqa: E402
from phojax.structure import structure  # noqa: E402

SIGMA, EPSILON, SKIN = 3.40, 0.0104, 1.0
CUTOFF = 2.5 * SIGMA


def argon(cells: int):
    """Return fcc argon of 4·cells³ atoms, moved by about 0.1 Å."""
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * ((cells,) * 3)
    atoms.rattle(0.1, seed=1)
    return structure(atoms.cell[:], atoms.positions, atoms.numbers)


def interleaved(calls: dict, repeats: int = 8) -> dict[str, float]:
    """Return the best CPU time in ms of each jitted call, one after the other in turns."""
    compiled = {name: (jax.jit(f), given) for name, (f, given) in calls.items()}
    best = dict.fromkeys(calls, np.inf)
    for _ in range(repeats + 1):
        for name, (f, given) in compiled.items():
            begin = time.process_time()
            jax.block_until_ready(f(*given))
            best[name] = min(best[name], 1e3 * (time.process_time() - begin))
    return best


def rebuilds(crystal) -> dict:
    """Return the calls that make lists anew."""
    capacity = pair_capacity(crystal, CUTOFF + SKIN, table=True)
    direct = capacity._replace(bins=(0, 0, 0))
    made = {"phojax": (lambda c: neighbor_list(c, CUTOFF + SKIN, capacity), (crystal,))}
    if any(capacity.bins):
        made["phojax, all"] = (lambda c: neighbor_list(c, CUTOFF + SKIN, direct), (crystal,))
    return made | {
        f"jax-md {name}": (lambda x, n: n.update(x).idx, (crystal.positions, lists))
        for name, (lists, _) in _jax_md(crystal, skin=0.0, cutoff=CUTOFF + SKIN).items()
    }


def evaluations(crystal) -> dict:
    """Return the calls for energy and forces at a given list."""
    made = lennard_jones({("Ar", "Ar"): (EPSILON, SIGMA)}, cutoff=CUTOFF, onset=0.8 * CUTOFF)
    assert made.with_skin is not None
    potential = made.with_skin(SKIN)
    graph = jax.jit(potential.graph, static_argnums=1)(crystal, potential.capacity(crystal))
    assert not graph.overflow

    def ours(x, graph):
        return energy_and_forces(potential, replace(crystal, positions=x), graph)

    calls = {"phojax": (ours, (crystal.positions, graph))}
    for name, (lists, energy) in _jax_md(crystal, skin=SKIN, cutoff=CUTOFF).items():

        def theirs(x, lists, energy=energy):
            return jax.value_and_grad(energy)(x, neighbor=lists)

        calls[f"jax-md {name}"] = (theirs, (crystal.positions, lists))
    return calls


def _jax_md(crystal, skin: float, cutoff: float) -> dict:
    """Return jax-md's lists and its energies from them, by format."""
    from jax_md import energy, partition, space

    side = float(crystal.cell[0, 0])
    if side < 2 * (CUTOFF + SKIN):
        return {}
    displacement, _ = space.periodic(side)
    found = {}
    for format in (partition.OrderedSparse, partition.Dense):
        lists, of = energy.lennard_jones_neighbor_list(
            displacement, side, sigma=SIGMA, epsilon=EPSILON, r_onset=2.0,
            r_cutoff=cutoff / SIGMA, dr_threshold=skin, format=format,
        )  # fmt: skip
        found[format.name] = (lists.allocate(crystal.positions), of)
    return found


def main() -> list[tuple[str, str]]:
    """Return pairs of a name and a figure."""
    warnings.simplefilter("ignore")
    rows = []
    for title, calls in (("list made anew", rebuilds), ("energy and forces", evaluations)):
        for cells in (3, 4, 5, 6, 8):
            crystal = argon(cells)
            best = interleaved(calls(crystal))
            told = ", ".join(f"{name} {ms:.2f}" for name, ms in best.items())
            rows.append((f"{title}, {len(crystal)} atoms, ms CPU", told))
            print(*rows[-1], sep=": ", flush=True)
    return rows


if __name__ == "__main__":
    main()
