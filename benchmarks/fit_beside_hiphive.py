"""Fits of second- and third-order force constants: phojax beside hiPhive, on the same sets.

    OMP_NUM_THREADS=2 python benchmarks/fit_beside_hiphive.py PEER [FOLDER]

PEER is the interpreter of an environment with hiPhive (which pins its own numpy; `-` for none);
FOLDER holds symfc's published sets (dfset_NaCl_222_rd.xz and supercells.json), without it only the
made crystal is run. Both programs get the same cutoffs, the same supercells to learn from and the
same supercells held out. Times are wall and CPU seconds of everything from displacements to force
constants, the second of two runs in one process (the first one compiles).
"""

import json
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

OURS = (
    ("least squares", {}),
    ("ridge", {}),
    ("l1", {}),
    ("l1", {"refit": True, "rule": "one standard error"}),
)
THEIRS = ("least-squares", "ridge", "lasso", "ardr", "rfe")


def clocks() -> np.ndarray:
    """Return wall and CPU seconds; other work on the machine adds to the first alone."""
    return np.array([time.perf_counter(), time.process_time()])


def peer(source: str, target: str) -> None:
    """Run in hiPhive's environment: fit what `source` (npz) holds, write figures to `target`."""
    from ase import Atoms
    from hiphive import ClusterSpace, StructureContainer
    from trainstation import Optimizer

    data = np.load(source)
    parts = {k: data[k] for k in data.files}
    unit = Atoms(
        parts["unit_numbers"], positions=parts["unit_positions"], cell=parts["unit_cell"], pbc=True
    )
    ideal = Atoms(parts["numbers"], positions=parts["positions"], cell=parts["cell"], pbc=True)
    train = int(parts["train"])
    out = {}
    for _ in range(2):
        begin = clocks()
        space = ClusterSpace(unit, parts["cutoffs"].tolist())
        container = StructureContainer(space)
        for u, F in zip(parts["displacements"], parts["forces"], strict=True):
            atoms = ideal.copy()
            atoms.new_array("displacements", u)
            atoms.new_array("forces", F)
            container.add_structure(atoms)
            if len(container) == train:
                A, F_train = container.get_fit_data()
                built = clocks() - begin
        A_test, F_test = container.get_fit_data(list(range(train, len(container))))
        for method in THEIRS:
            try:
                begin = clocks()
                optimizer = Optimizer((A, F_train), fit_method=method, train_size=1.0)
                optimizer.train()
                spent = clocks() - begin
                x = optimizer.parameters
            except Exception as error:
                out[method] = f"{type(error).__name__}: {error}"
                continue
            left = F_test - A_test @ x
            out[method] = {
                "unknowns": A.shape[1],
                "nonzero": int(np.count_nonzero(x)),
                "error": float(np.sqrt((left**2).mean())),
                "seconds": float((built + spent)[0]),
                "cpu": float((built + spent)[1]),
            }
    pathlib.Path(target).write_text(json.dumps(out))


def ours(given, group, cutoffs, train: int, held: int) -> list[tuple[str, dict]]:
    """Return the figures of phojax."""
    from dataclasses import replace

    from phojax.force_constants.basis import symmetry_adapted_basis
    from phojax.force_constants.equations import predicted_forces
    from phojax.force_constants.fit import fitted

    part = replace(given, displacements=given.displacements[:train], forces=given.forces[:train])
    out = []
    for method, options in OURS:
        name = method + (", refitted" if options else "")
        try:
            for _ in range(2):
                begin = clocks()
                basis = symmetry_adapted_basis(given.supercell, group, (2, 3), cutoffs)
                found = fitted(part, basis, method, **options)
                spent = clocks() - begin
        except ValueError as error:
            out.append((name, str(error)[:90]))
            continue
        left = given.forces[-held:] - predicted_forces(
            given.displacements[-held:], basis, found.coefficients
        )
        figures = {
            "unknowns": found.unknowns,
            "nonzero": sum(found.nonzero.values()),
            "error": float(np.sqrt((left**2).mean())),
            "seconds": float(spent[0]),
            "cpu": float(spent[1]),
        }
        out.append((name, figures))
    return out


def theirs(interpreter: str, given, cutoffs, train: int, held: int) -> list[tuple[str, dict]]:
    """Return the figures of hiPhive, run by its own interpreter."""
    if interpreter == "-":
        return []
    cells = given.supercell
    big = cells.structure
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.npz", f"{folder}/out.json"
        np.savez(
            source,
            unit_numbers=np.asarray(cells.primitive.numbers),
            unit_positions=np.asarray(cells.primitive.positions),
            unit_cell=np.asarray(cells.primitive.cell),
            numbers=np.asarray(big.numbers),
            positions=np.asarray(big.positions),
            cell=np.asarray(big.cell),
            cutoffs=np.array([cutoffs[2], cutoffs[3]]),
            displacements=np.concatenate(
                [given.displacements[:train], given.displacements[-held:]]
            ),
            forces=np.concatenate([given.forces[:train], given.forces[-held:]]),
            train=train,
        )
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        command = [interpreter, __file__, "--peer", source, target]
        done = subprocess.run(
            command, env={**os.environ, **threads}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return [("hiPhive", (done.stderr.strip().splitlines() or ["failed"])[-1][:90])]
        return list(json.loads(pathlib.Path(target).read_text()).items())


def published(folder: str):
    """Return symfc's NaCl set (64 atoms, 20 supercells of density-functional forces) and group."""
    from phojax.force_constants.displacements import DisplacementSet
    from phojax.structure import structure, supercell
    from phojax.symmetry import space_group

    entry = json.loads((pathlib.Path(folder) / "supercells.json").read_text())["NaCl_222"]
    cell, numbers = np.array(entry["cell"]), np.array(entry["numbers"])
    positions, home = np.array(entry["scaled_positions"]) @ cell, entry["p2s_map"]
    primitive = (1 - np.eye(3)) / 4 @ cell
    crystal = structure(primitive, positions[home], numbers[home])
    cells = supercell(crystal, np.rint(cell @ np.linalg.inv(primitive)).astype(int))
    apart = (np.asarray(cells.structure.positions)[:, None] - positions) @ np.linalg.inv(cell)
    order = np.linalg.norm((apart - np.rint(apart)) @ cell, axis=-1).argmin(axis=1)
    with lzma.open(pathlib.Path(folder) / "dfset_NaCl_222_rd.xz") as stream:
        rows = np.loadtxt(stream).reshape(-1, len(numbers), 6)[:, order]
    return DisplacementSet(cells, rows[..., :3], rows[..., 3:], 0.03), space_group(crystal)


def made(count: int = 16, noise: float = 1e-3):
    """Return tetragonal Na3PS4 (128 atoms) with Morse forces and noise, at rest by subtraction."""
    from dataclasses import replace

    from ase.spacegroup import crystal as ase_crystal

    from phojax.force_constants.displacements import computed_forces, random_displacements
    from phojax.potentials.pair import morse
    from phojax.structure import structure, supercell
    from phojax.symmetry import primitive_cell, space_group, symmetrized

    pairs = {
        ("Na", "S"): (0.4, 1.3, 2.8),
        ("S", "S"): (0.1, 1.0, 3.6),
        ("P", "S"): (1.5, 1.6, 2.05),
    }
    sites = [(0, 0, 0), (0, 0.5, 0.09), (0, 0, 0.5), (0.31, 0.35, 0.16)]
    atoms = ase_crystal(
        ["Na", "Na", "P", "S"], sites, spacegroup=114, cellpar=[6.95, 6.95, 7.08, 90, 90, 90]
    )
    crystal = primitive_cell(structure(atoms.cell[:], atoms.positions, atoms.numbers))
    group = space_group(crystal, 1e-3)
    cells = supercell(symmetrized(crystal, group), [2, 2, 2])
    potential = morse({**pairs, ("Na", "Na"): (0.05, 1.1, 3.4)}, cutoff=5.5)
    given = random_displacements(cells, count, 0.03)
    still = replace(given, displacements=0 * given.displacements[:1])
    rest = computed_forces(potential, still).forces
    F = computed_forces(potential, given).forces - rest
    F = F + noise * np.random.default_rng(1).normal(size=F.shape)
    return replace(given, forces=F), group


def main(interpreter: str, folder: str | None) -> None:
    """Print one table."""
    cases = []
    if folder:
        cases += [("NaCl, 64 atoms", *published(folder), {2: 5.6, 3: 5.0}, (1, 4, 15), 5)]
    cases += [("Na3PS4, 128 atoms", *made(), {2: 5.6, 3: 2.95}, (4, 12), 4)]
    print(f"{'set':20s}{'from':>5s} {'program, method':32s}{'unknowns':>9s}{'not 0':>7s}"
          f"{'held-out meV/Å':>16s}{'s':>8s}{'CPU s':>8s}")  # fmt: skip
    for name, given, group, cutoffs, sizes, held in cases:
        for train in sizes:
            # What is held out is the same for all sizes: the end of the set.
            for program, rows in (
                ("phojax", ours(given, group, cutoffs, train, held)),
                ("hiPhive", theirs(interpreter, given, cutoffs, train, held)),
            ):
                for what, v in rows:
                    head = f"{name:20s}{train:5d} {program + ' ' + what:32s}"
                    if isinstance(v, str):
                        print(f"{head} {v}", flush=True)
                        continue
                    print(f"{head}{v['unknowns']:9d}{v['nonzero']:7d}{1e3 * v['error']:16.4f}"
                          f"{v['seconds']:8.2f}{v['cpu']:8.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "--peer":
        peer(*sys.argv[2:])
    else:
        import jax

        jax.config.update("jax_enable_x64", True)
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
