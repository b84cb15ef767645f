"""Phonons from force constants beside phonopy, in one run on the same cores.

    OMP_NUM_THREADS=1 python benchmarks/phonons.py --data FOLDER [--mesh 16]

FOLDER holds phonopy's NaMgF3 (phono3py_params_NaMgF3.yaml.xz, fc2_NaMgF3.hdf5). Results are on the
full mesh; both sides may use symmetry. phonopy runs its Rust core and its own use of symmetry where
it has one (total DOS); its loops over temperatures are its own. Times are the best of the
repetitions, compilation left out and given apart.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import time

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import phonopy
from phonopy import Phonopy

from phojax.brillouin import gamma_mesh
from phojax.descriptors.displacements import displacement_tensors
from phojax.descriptors.dos import species_groups
from phojax.descriptors.tetrahedra import orbit_means, tetrahedron_curves, tetrahedron_neighbours
from phojax.dynmat import dynamical_matrices, interpolation
from phojax.io.phonopy_files import read_phonopy
from phojax.modes import Modes, atomic_weights
from phojax.nac import dipoles, neutral
from phojax.screening.analysis import subject_of
from phojax.screening.eigenpairs import modes_on
from phojax.screening.mode_table import Points, described, solved_modes
from phojax.screening.settings import PhononSettings
from phojax.stars import unfolded, unfolded_by_atom, unfolded_modes
from phojax.symmetry import space_group, symmetrized_tensors
from phojax.units import eigenvalue_from_THz

TEMPERATURES = np.linspace(100, 1000, 10)
GRID_POINTS = 201
FLOOR_THZ = 0.01


def best(work, repeat):
    """Return (first, best) wall times in s, the best CPU time in s and the result."""
    walls, cpus, out = [], [], None
    for _ in range(repeat + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        out = work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return walls[0], min(walls[1:]), min(cpus[1:]), out


class Ours:
    """phojax on the irreducible points, results on the full mesh."""

    def __init__(self, folder: pathlib.Path, n: int) -> None:
        read = read_phonopy(
            folder / "phono3py_params_NaMgF3.yaml.xz",
            force_constants=folder / "fc2_NaMgF3.hdf5",
        )
        self.crystal = read.force_constants.supercell.primitive
        self.group = space_group(self.crystal, 1e-5)
        self.mesh = gamma_mesh((n, n, n), self.group)
        born, _ = neutral(read.born, self.group)
        self.plain = interpolation(read.force_constants)
        self.polar = interpolation(read.force_constants, dipoles(born, self.crystal))
        self.settings = PhononSettings(temperatures=tuple(TEMPERATURES))
        q = self.mesh.q
        self.points = Points(q, self.mesh.weights[None], np.zeros(q.shape))
        self.floor = float(eigenvalue_from_THz(jnp.asarray(FLOOR_THZ)))

    def modes(self, held):
        """Modes on the full mesh with eigenvectors."""
        found = modes_on(held, self.mesh)
        return found, unfolded_modes(found, self.mesh, self.group)

    def tensors(self, found):
        """U at ten temperatures."""
        kept = found.eigenvalues > self.floor
        U = jax.jit(displacement_tensors)(found, jnp.asarray(TEMPERATURES), kept)
        return np.stack([symmetrized_tensors(u, self.group) for u in np.asarray(U)])

    def densities(self, found, grid=None):
        """Total DOS and the DOS of every atom."""
        nu = np.asarray(found.frequencies_THz)
        grid = jnp.linspace(nu.min(), nu.max(), GRID_POINTS) if grid is None else grid
        _, members = species_groups(self.crystal)
        groups = jnp.concatenate([members, orbit_means(self.group)]).astype(float)
        neighbours = tetrahedron_neighbours(self.mesh, self.crystal)
        curves = _curves(found, neighbours, grid, groups)
        return np.asarray(curves)

    def everything(self, held):
        """All of the table, and the descriptors of every mode, at every point of the full mesh."""
        subject = subject_of(held, self.settings)[0]
        [found] = solved_modes(
            [subject], [self.points], self.settings.temperatures, self.floor, eigenvectors=True
        )
        table = found.table
        modes = Modes(
            jnp.asarray(self.mesh.q), jnp.asarray(self.mesh.weights),
            jnp.asarray(table.eigenvalues), jnp.asarray(found.eigenvectors), self.crystal,
            held.free,
        )  # fmt: skip
        full = unfolded_modes(modes, self.mesh, self.group)
        U = np.stack([symmetrized_tensors(u, self.group) for u in found.tensors[0]])
        scalars = [
            unfolded(x, self.mesh)
            for x in (table.participation, table.participation_mass_weighted, table.coupling)
        ]
        msd = [unfolded_by_atom(u, self.mesh, self.group) for u in table.displacements]
        return full, U, self.densities(modes), scalars, msd


@jax.jit
def _curves(found, neighbours, grid, groups):
    share = atomic_weights(found) @ groups.T * found.weights[:, None, None]
    return tetrahedron_curves(found.frequencies_THz, share, neighbours, grid)


class Theirs:
    """phonopy."""

    def __init__(self, folder: pathlib.Path, n: int, nac: bool) -> None:
        read = phonopy.load(
            folder / "phono3py_params_NaMgF3.yaml.xz", produce_fc=False, log_level=0
        )
        self.phonon = Phonopy(
            read.unitcell, supercell_matrix=read.supercell_matrix, primitive_matrix="P",
            log_level=0,
        )  # fmt: skip
        if nac:
            self.phonon.nac_params = read.nac_params
        with h5py.File(folder / "fc2_NaMgF3.hdf5") as file:
            self.phonon.force_constants = file["force_constants"][()]
        self.n = [n, n, n]

    def modes(self):
        """Modes on the full mesh with eigenvectors."""
        self.phonon.run_mesh(
            self.n, is_gamma_center=True, is_mesh_symmetry=False, with_eigenvectors=True
        )
        return self.phonon.mesh

    def tensors(self):
        """U and its diagonal at ten temperatures."""
        self.phonon.run_thermal_displacements(temperatures=TEMPERATURES, freq_min=FLOOR_THZ)
        self.phonon.run_thermal_displacement_matrices(temperatures=TEMPERATURES, freq_min=FLOOR_THZ)
        return self.phonon.thermal_displacement_matrices.thermal_displacement_matrices

    def total(self):
        """Total DOS by tetrahedra, from the irreducible points, which phonopy can use here."""
        self.phonon.run_mesh(self.n, is_gamma_center=True)
        self.phonon.run_total_dos()
        return self.phonon.total_dos.frequency_points, self.phonon.total_dos.dos

    def projected(self):
        """DOS of every atom by tetrahedra; phonopy needs the full mesh for it."""
        self.phonon.run_projected_dos()
        return self.phonon.projected_dos.frequency_points, self.phonon.projected_dos.projected_dos


def descriptor_share(ours: Ours, held, repeat: int) -> tuple[float, float]:
    """Return the CPU times of all descriptors given eigenpairs and of the bare eigh, s."""
    subject = subject_of(held, ours.settings)[0]
    D = jax.jit(dynamical_matrices)(held, jnp.asarray(ours.mesh.q))
    eigh = jax.jit(lambda D: jnp.linalg.eigh(D, symmetrize_input=False))
    _, _, floor, (values, E) = best(lambda: jax.block_until_ready(eigh(D)), repeat)
    E = jnp.asarray(np.ascontiguousarray(np.swapaxes(E, -1, -2)))
    T = jnp.asarray([300.0])
    _, _, used, _ = best(
        lambda: jax.block_until_ready(
            described(subject, jnp.asarray(ours.mesh.q), values, E, T, ours.floor)
        ),
        repeat,
    )
    return used, floor


def main() -> None:
    """Print the table, and JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--mesh", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    ours = Ours(options.data, options.mesh)
    plain, polar = (Theirs(options.data, options.mesh, nac) for nac in (False, True))
    rows: list[dict] = []

    def row(name, mine, theirs, check=None):
        first, wall, cpu, result = best(mine, options.repeat)
        peer = [_once(work) for work in theirs]
        entry = {
            "work": name, "phojax_s": wall, "phojax_cpu_s": cpu, "phojax_first_s": first,
            "phonopy_s": sum(p[0] for p in peer), "phonopy_cpu_s": sum(p[1] for p in peer),
        }  # fmt: skip
        entry["ratio"] = entry["phonopy_s"] / wall
        entry["cpu_ratio"] = entry["phonopy_cpu_s"] / cpu
        if check is not None:
            entry["difference"] = check(result, [p[2] for p in peer])
        rows.append(entry)
        print(
            f"{name:44s} {wall:8.2f} {entry['phonopy_s']:8.2f} {entry['ratio']:7.1f}×  "
            f"CPU {cpu:6.2f} {entry['phonopy_cpu_s']:7.2f} {entry['cpu_ratio']:7.1f}×  "
            f"first {first:5.1f}  {entry.get('difference', '')}",
            flush=True,
        )
        return result

    print(f"{'work':44s} {'phojax s':>8s} {'phonopy s':>8s}   ratio")

    def frequencies(result, peer):
        nu = np.sort(np.asarray(result[1].frequencies_THz)[1:], axis=1)
        other = peer[0].qpoints
        order = _matched(np.asarray(result[1].q), other)
        return f"max |Δν| {np.abs(nu - peer[0].frequencies[order][1:]).max():.1e} THz"

    found, _ = row(
        "D(q) + eigenvectors", lambda: ours.modes(ours.plain), [plain.modes], frequencies
    )
    row("the same with Gonze-Lee", lambda: ours.modes(ours.polar), [polar.modes], frequencies)
    row(
        "U at 10 temperatures + tensors", lambda: ours.tensors(found), [plain.tensors],
        lambda U, peer: f"max |ΔU|/U {np.abs(U - peer[0]).max() / np.abs(U).max():.1e}",
    )  # fmt: skip

    def densities(_, peer):
        grid, projected = peer[0]
        ours_there = ours.densities(found, jnp.asarray(grid))
        atoms = np.abs(ours_there[-len(projected) :] - projected).max() / projected.max()
        grid, total = peer[1]
        whole = np.abs(ours.densities(found, jnp.asarray(grid))[0] - total).max() / total.max()
        # phonopy's projected curves are of the full mesh, whose tetrahedra break the symmetry.
        return f"max |Δg|/g total {whole:.1e}, of atoms {atoms:.1e}"

    row(
        "total + projected DOS, tetrahedron", lambda: ours.densities(found),
        [plain.projected, plain.total], densities,
    )  # fmt: skip
    done = ["phonopy_s", "phonopy_cpu_s"]
    peer = {key: sum(r[key] for r in rows[1:]) for key in done}
    first, wall, cpu, _ = best(lambda: ours.everything(ours.polar), options.repeat)
    entry = {
        "work": "everything with Gonze-Lee, and mode descriptors", "phojax_s": wall,
        "phojax_cpu_s": cpu, "phojax_first_s": first, **peer,
        "ratio": peer["phonopy_s"] / wall, "cpu_ratio": peer["phonopy_cpu_s"] / cpu,
    }  # fmt: skip
    rows.append(entry)
    print(
        f"{entry['work']:44s} {wall:8.2f} {peer['phonopy_s']:8.2f} {entry['ratio']:7.1f}×  "
        f"CPU {cpu:6.2f} {peer['phonopy_cpu_s']:7.2f} {entry['cpu_ratio']:7.1f}×  first {first:.1f}"
    )
    described_s, eigh_s = descriptor_share(ours, ours.plain, options.repeat)
    print(
        f"all descriptors of {len(ours.mesh.q)} q given eigenpairs {described_s:.3f} CPU s, "
        f"bare eigh {eigh_s:.3f} CPU s: {described_s / eigh_s:.2f}×"
    )
    about = {
        "cpus": os.cpu_count(), "load": os.getloadavg(), "device": jax.devices()[0].device_kind,
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d %H:%M"),
        **{p: importlib.metadata.version(p) for p in ("phojax", "jax", "numpy", "phonopy")},
    }  # fmt: skip
    print(json.dumps(about))
    if options.json:
        text = {"about": about, "rows": rows, "described_s": described_s, "eigh_s": eigh_s}
        options.json.write_text(json.dumps(text, indent=1))


def _once(work):
    wall, cpu = time.perf_counter(), time.process_time()
    out = work()
    return time.perf_counter() - wall, time.process_time() - cpu, out


def _matched(q, other):
    """Return for each q the row of `other` that is the same point."""

    def key(points):
        return np.rint(np.mod(points, 1 - 1e-9) * 4096).astype(int) @ [1, 10**5, 10**10]

    order = np.argsort(key(other))
    return order[np.searchsorted(key(other)[order], key(q))]


if __name__ == "__main__":
    main()
