"""Energy and forces of CHGNet: phojax beside the chgnet package, interleaved in one run.

    python benchmarks/energy_forces.py

Both in float32 on all cores, each with its own graph made anew, as a step of molecular dynamics
needs it. Best of n, because anything else on the machine only adds time.
"""

import os
import time
import warnings

import jax
import jax.numpy as jnp
from ase.build import bulk

from phojax.forces import energy_and_forces
from phojax.potentials.chgnet import chgnet
from phojax.structure import structure

REPEATS = 8


def rattled_salt(repeat: tuple[int, int, int]):
    """Return rock salt, 8 atoms times `repeat`, every coordinate moved by about 0.05 Å."""
    atoms = bulk("NaCl", "rocksalt", a=5.69, cubic=True) * repeat
    atoms.rattle(0.05, seed=1)
    return atoms


def ours(atoms):
    """Return a function that makes the graph, energy and forces of these atoms."""
    potential = chgnet().astype(jnp.float32)
    crystal = jax.tree.map(
        lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        structure(atoms.cell[:], atoms.positions, atoms.numbers),
    )
    capacity = potential.capacity(crystal)

    @jax.jit
    def step(potential, crystal):
        return energy_and_forces(potential, crystal, potential.graph(crystal, capacity))

    return lambda: jax.block_until_ready(step(potential, crystal))


def theirs(atoms):
    """Return the same of the chgnet package, or None where it cannot be imported."""
    try:
        import torch
        from chgnet.model.model import CHGNet
        from pymatgen.io.ase import AseAtomsAdaptor
    except ImportError:
        return None
    torch.set_num_threads(os.cpu_count() or 1)
    model = CHGNet.load(use_device="cpu", verbose=False)
    crystal = AseAtomsAdaptor.get_structure(atoms)  # type: ignore[arg-type]
    return lambda: model.predict_graph(model.graph_converter(crystal), task="ef")


def interleaved(functions, repeats: int = REPEATS) -> list[tuple[float, float]]:
    """Return the best wall and CPU time of each function in ms, called in turn."""
    best = [(float("inf"), float("inf"))] * len(functions)
    for f in functions:
        f()
    for _ in range(repeats):
        for k, f in enumerate(functions):
            wall, cpu = time.perf_counter(), time.process_time()
            f()
            spent = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
            best[k] = min(best[k][0], spent[0]), min(best[k][1], spent[1])
    return best


def main() -> list[tuple[str, str]]:
    """Return pairs of a name and a figure, one per size."""
    warnings.simplefilter("ignore")
    figures = []
    for repeat in ((2, 2, 3), (2, 3, 4)):
        atoms = rattled_salt(repeat)
        name = f"CHGNet graph, energy, forces, {len(atoms)} atoms, float32, wall (CPU) ms"
        functions = [ours(atoms), theirs(atoms)]
        if functions[1] is None:
            ((wall, cpu),) = interleaved(functions[:1])
            figures.append((name, f"phojax {wall:.0f} ({cpu:.0f}), chgnet not measured"))
            continue
        (wall, cpu), (wall2, cpu2) = interleaved(functions)
        figures.append(
            (
                name,
                f"phojax {wall:.0f} ({cpu:.0f}), chgnet {wall2:.0f} ({cpu2:.0f}), "
                f"ratio {wall2 / wall:.1f} ({cpu2 / cpu:.1f})",
            )
        )
    return figures


if __name__ == "__main__":
    for title, figure in main():
        print(f"{title}: {figure}")
