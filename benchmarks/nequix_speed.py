"""Energy, forces and Hessian-vector products of Nequix: phojax beside the nequix package.

    python benchmarks/nequix_speed.py [file.nqx]

Interleaved in one run; phojax makes its graph anew at every call, the package's is made once.
Both give energy, forces and stress. Best of n, because anything else on the machine only adds time.
"""

import sys
import time
from dataclasses import replace

import ase.neighborlist
import jax
import jax.numpy as jnp
import numpy as np
from energy_forces import interleaved, rattled_salt

from phojax.forces import energy_and_forces, energy_forces_stress
from phojax.potentials.nequix import nequix
from phojax.structure import structure

SIZES = ((2, 2, 2), (2, 3, 4))
PRECISIONS = ("float32", "float64")


def compiled(f, *arguments):
    """Return f compiled for these arguments, as a function of none, and the CPU seconds spent."""
    start = time.process_time()
    program = jax.jit(f).lower(*arguments).compile()
    spent = time.process_time() - start
    return lambda: jax.block_until_ready(program(*arguments)), spent


def ours(potential, atoms, dtype):
    """Return (function, CPU seconds to compile it) of energy, forces, stress, and of a row of Φ."""
    potential = potential.astype(dtype)
    crystal = jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        structure(atoms.cell[:], atoms.positions, atoms.numbers),
    )
    capacity = potential.capacity(crystal)

    def step(potential, crystal):
        return energy_forces_stress(potential, crystal, potential.graph(crystal, capacity))

    def row(potential, crystal):
        graph = potential.graph(crystal, capacity)

        def gradient(x):
            return -energy_and_forces(potential, replace(crystal, positions=x), graph)[1]

        along = jnp.zeros_like(crystal.positions).at[0, 0].set(1)
        return jax.jvp(gradient, (crystal.positions,), (along,))[1]

    return compiled(step, potential, crystal), compiled(row, potential, crystal)


def theirs(file, atoms, dtype):
    """Return the same of the package, or None where it cannot be imported."""
    try:
        import equinox
        import jraph
        from nequix.model import load_model
    except ImportError:
        return None
    with jax.enable_x64(False):
        model, config = load_model(file)
    model = jax.tree.map(lambda x: x.astype(dtype) if equinox.is_inexact_array(x) else x, model)
    i, j, shifts = ase.neighborlist.primitive_neighbor_list(
        "ijS", atoms.pbc, np.array(atoms.cell), atoms.positions, config["cutoff"]
    )
    known = sorted(config["atomic_numbers"])
    graph = jraph.GraphsTuple(
        n_node=np.array([len(atoms)], np.int32),
        n_edge=np.array([len(i)], np.int32),
        nodes={
            "species": np.array([known.index(z) for z in atoms.numbers], np.int32),
            "positions": atoms.positions.astype(dtype),
            "forces": None,
        },
        edges={"shifts": shifts.astype(dtype)},
        senders=j.astype(np.int32),
        receivers=i.astype(np.int32),
        globals={"cell": np.array(atoms.cell)[None].astype(dtype), "energy": None, "stress": None},
    )
    # As its calculator pads.
    edges, nodes = -(-int(np.ceil(len(i) * 1.1)) // 64) * 64, (len(atoms) + 8) // 8 * 8
    graph = jraph.pad_with_graphs(graph, n_node=nodes, n_edge=edges, n_graph=2)
    parts, static = equinox.partition(model, equinox.is_array)

    def step(parts, graph):
        return equinox.combine(parts, static)(graph)

    def row(parts, graph):
        def forces(x):
            moved = graph._replace(nodes={**graph.nodes, "positions": x})
            return equinox.combine(parts, static)(moved)[1]

        x = graph.nodes["positions"]
        return jax.jvp(forces, (x,), (jnp.zeros_like(x).at[0, 0].set(1),))[1]

    graph = jax.tree.map(jnp.asarray, graph)
    return compiled(step, parts, graph), compiled(row, parts, graph)


def main(file=None, sizes=SIZES, precisions=PRECISIONS, repeats: int = 5) -> list[tuple[str, str]]:
    """Return pairs of a name and a figure."""
    jax.config.update("jax_enable_x64", True)
    potential = nequix(file) if file else nequix()
    figures = []
    for size in sizes:
        atoms = rattled_salt(size)
        for dtype in precisions:
            mine, other = ours(potential, atoms, dtype), file and theirs(file, atoms, dtype)
            for k, what in enumerate(("energy, forces, stress", "Hessian-vector product")):
                sides = [("phojax", mine[k])] + ([("nequix", other[k])] if other else [])
                times = interleaved([f for _, (f, _) in sides], repeats)
                figures.append((
                    f"Nequix {what}, {len(atoms)} atoms, {dtype}, wall (CPU) ms; CPU s to compile",
                    ", ".join(
                        f"{name} {wall:.0f} ({cpu:.0f}); {spent:.0f}"
                        for (name, (_, spent)), (wall, cpu) in zip(sides, times, strict=True)
                    ),
                ))  # fmt: skip
                print(*figures[-1], sep=": ", flush=True)
    return figures


if __name__ == "__main__":
    main(*sys.argv[1:2])
