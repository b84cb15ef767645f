"""EquiformerV2 in JAX beside the official code on torch, one model in the same file.

    python benchmarks/equiformer_v2.py FOLDER [--models 31M …] [--atoms 16 …] [--columns]

Checkpoints of the published architectures with seeded random weights are written to FOLDER once.
Each side runs in a process of its own, in float32, both with energy, forces and stress and graphs
made anew. CPU time stands beside wall time because other work on the machine lengthens the latter;
threads of torch that wait count as CPU time, so that on a busy machine it is best given one
(`--threads 1`). The peak is that of the process, compilation included. `--columns` adds columns of
the Jacobian: four tangents together in JAX, and by the bridge to the official code.

Needs torch and fairchem-core 1.10.0 (see the README) for the files and for the peer.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
from ase import Atoms

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODELS = {
    "31M": {},
    "86M": {"num_layers": 10, "lmax_list": [6], "mmax_list": [4]},
    "153M": {"num_layers": 20, "lmax_list": [6], "mmax_list": [3]},
}
CELLS = {16: (1, 1, 1), 80: (5, 1, 1), 192: (3, 2, 2)}
TOGETHER = 4


def crystal(atoms: int) -> Atoms:
    """Return cubic Na3PS4 (a = 7 Å), every coordinate moved by about 0.05 Å."""
    x, parts = 0.1685, []
    for shift in ((0, 0, 0), (0.5, 0.5, 0.5)):
        parts += [("Na", p, shift) for p in ((0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))]
        parts += [("P", (0, 0, 0), shift)]
        parts += [("S", p, shift) for p in ((x, x, x), (-x, -x, x), (-x, x, -x), (x, -x, -x))]
    places = [np.add(p, shift) % 1.0 for _, p, shift in parts]
    made = Atoms([s for s, _, _ in parts], scaled_positions=places, cell=[7.0] * 3, pbc=True)
    made = made.repeat(CELLS[atoms])
    made.rattle(0.05, seed=1)
    return made


def written(folder: pathlib.Path, model: str) -> pathlib.Path:
    """Return a checkpoint of that size, written where it is not there."""
    file = folder / f"eqV2_{model}_seeded.pt"
    if not file.exists():
        sys.path[:0] = [str(ROOT / "tests" / "potentials")]
        import tiny_equiformer as tiny

        tiny.written(file, smooth=True, **(tiny.LARGE | MODELS[model]))
    return file


def timed(f, repeats: int):
    """Return the result of f, and the least wall and CPU seconds."""
    spent = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        found = f()
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    return found, [min(x) for x in zip(*spent, strict=True)]


def ours(file: pathlib.Path, atoms: Atoms, repeats: int, columns: bool) -> dict:
    """Return what JAX gives and takes."""
    from dataclasses import replace

    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from phojax.convert import structure_from_ase
    from phojax.forces import energy_and_forces, energy_forces_stress
    from phojax.potentials.equiformer_v2 import equiformer_v2

    potential = equiformer_v2(file, dtype="float32")
    structure = structure_from_ase(atoms)
    capacity = potential.capacity(structure)

    def compiled(f, *arguments):
        start = time.process_time()
        program = jax.jit(f).lower(*arguments).compile()
        spent = time.process_time() - start
        return lambda: jax.block_until_ready(program(*arguments)), spent

    def all_three(potential, structure):
        graph = potential.graph(structure, capacity)
        return energy_forces_stress(potential, structure, graph), graph.overflow

    call, spent = compiled(all_three, potential, structure)
    call()
    ((E, F, stress), overflow), seconds = timed(call, repeats)
    assert not overflow
    found = {"seconds": seconds, "compile_cpu": spent, "edges": None, "values": [
        float(E), np.asarray(F).tolist(), np.asarray(stress).tolist()]}  # fmt: skip
    graph = jax.jit(lambda s: potential.graph(s, capacity))(structure)
    found["edges"] = int(graph.neighbors.mask.sum())
    if columns:

        def changes(potential, structure, tangents):
            graph = potential.graph(structure, capacity)

            def forces(x):
                return energy_and_forces(potential, replace(structure, positions=x), graph)[1]

            def change(t):
                return jax.jvp(forces, (structure.positions,), (t,))[1]

            return jax.vmap(change)(tangents)

        tangents = jnp.eye(3 * len(atoms))[:TOGETHER].reshape(TOGETHER, -1, 3)
        call, spent = compiled(changes, potential, structure, tangents)
        call()
        _, seconds = timed(call, max(1, repeats - 1))
        found["column"] = [x / TOGETHER for x in seconds]
        found["column_compile_cpu"] = spent
    return found


def theirs(file: pathlib.Path, atoms: Atoms, repeats: int, columns: bool, threads: int) -> dict:
    """Return what the official calculator gives and takes."""
    import torch

    sys.path[:0] = [str(ROOT / "tests" / "potentials")]
    import tiny_equiformer as tiny

    torch.set_num_threads(threads)
    calculator = tiny.official_calculator(file)

    def call():
        torch.manual_seed(0)
        calculator.results = {}
        calculator.calculate(atoms, ["energy"], [])
        return calculator.results

    results, seconds = timed(call, repeats)
    values = [np.asarray(results[name]).tolist() for name in ("energy", "forces", "stress")]
    found = {"seconds": seconds, "values": values}
    if columns:
        from phojax.potentials.equiformer.checkpoint import checkpoint
        from phojax.potentials.equiformer.model import Equiformer

        del calculator
        model = Equiformer(checkpoint(file), dtype="float32")
        at = torch.tensor(atoms.numbers), torch.tensor(np.array(atoms.cell))
        x = torch.tensor(atoms.positions)
        graph = model.graph(*at, x)

        def forces(x):
            return model.predict(*at, x, stress=False, graph=graph)[1]

        tangents = torch.eye(x.numel(), dtype=x.dtype)[:TOGETHER].view(TOGETHER, -1, 3)

        def changes():
            with torch.no_grad():
                return torch.vmap(lambda t: torch.func.jvp(forces, (x,), (t,))[1])(tangents)

        _, seconds = timed(changes, 1)
        found["column"] = [x / TOGETHER for x in seconds]
    return found


def in_process(side: str, *given) -> dict:
    """Return the result of one side, run in a process of its own."""
    command = [sys.executable, __file__, "--side", side, *map(str, given)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    return json.loads(run.stdout.splitlines()[-1])


def off(mine, other) -> float:
    """Return the largest difference, relative to the largest value."""
    mine, other = np.asarray(mine, float).ravel(), np.asarray(other, float).ravel()
    return float(np.abs(mine - other).max() / np.abs(other).max())


def main() -> None:
    """Run the sides in turn and print a line of a table for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--models", nargs="+", default=["31M"], choices=MODELS)
    parser.add_argument("--atoms", nargs="+", type=int, default=[16], choices=CELLS)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--columns", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--side", choices=("ours", "theirs"))
    given = parser.parse_args()
    if given.side:
        file = written(given.folder, given.models[0])
        asked = (file, crystal(given.atoms[0]), given.repeats, given.columns)
        found = ours(*asked) if given.side == "ours" else theirs(*asked, given.threads)
        found["GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found))
        return
    more = ["--columns"] if given.columns else []
    for model in given.models:
        written(given.folder, model)
        for atoms in given.atoms:
            arguments = (given.folder, "--models", model, "--atoms", atoms, "--repeats",
                         given.repeats, "--threads", given.threads, *more)  # fmt: skip
            a, b = in_process("ours", *arguments), in_process("theirs", *arguments)
            differences = [off(x, y) for x, y in zip(a["values"], b["values"], strict=True)]
            for side, found in (("ours", a), ("theirs", b)):
                print(model, atoms, side, {k: v for k, v in found.items() if k != "values"})
            print(model, atoms, "energy, forces, stress differ by", differences)
            print("load of the machine", os.getloadavg(), flush=True)


if __name__ == "__main__":
    main()
