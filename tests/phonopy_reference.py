"""phonopy objects as references: built on the spot, or read from the shared data."""

import pathlib

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import phonopy
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phojax.force_constants.container import ForceConstants, force_constants
from phojax.modes import Modes, degenerate_blocks, eigenpairs_at, modes, with_eigenvectors
from phojax.structure import structure, supercell
from phojax.units import THZ

solved = jax.jit(modes, static_argnames=("chunk",))
"""`modes`, compiled: the tests call it on few shapes."""


def converted(reference: Phonopy) -> ForceConstants:
    """Return the force constants of a phonopy object on phojax's cells, matched by position."""
    p = reference.primitive
    cell = np.asarray(p.cell)
    ours = structure(cell, p.scaled_positions @ cell, p.numbers, p.masses)
    big = np.asarray(reference.supercell.cell)
    sc = supercell(ours, np.rint(big @ np.linalg.inv(cell)).astype(int))
    rows = np.asarray(p.p2s_map)
    values = np.asarray(reference.force_constants)
    values = values[rows] if values.shape[0] == values.shape[1] else values
    theirs = np.asarray(reference.supercell.scaled_positions)
    mine = np.asarray(sc.structure.positions) @ np.linalg.inv(big)
    start = np.asarray(ours.positions) @ np.linalg.inv(big)
    out = np.empty((len(rows), len(mine), 3, 3))
    for i, row in enumerate(rows):
        apart = (mine - start[i])[:, None] - (theirs - theirs[row])[None]
        apart -= np.rint(apart)
        match = np.argmin(np.linalg.norm(apart @ big, axis=-1), axis=1)
        assert len(set(match)) == len(mine)
        out[i] = values[i, match]
    return force_constants(jnp.asarray(out), sc)


def constants_ratio() -> float:
    """Return phonopy's THz per √(eV/Å²/amu) over ours: both carry CODATA of different years."""
    return get_physical_units().DefaultToTHz / THZ


def gamma_mesh(n) -> np.ndarray:
    """Return a Γ-centred mesh, all points, fractional."""
    n = (n, n, n) if np.ndim(n) == 0 else n
    axes = [np.arange(k) / k for k in n]
    q = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return q - np.rint(q)


def springs(cell: PhonopyAtoms, matrix, primitive="P", *, cutoff, seed=0) -> Phonopy:
    """Return a phonopy object whose force constants are those of random springs.

    Every pair of species and distance has its longitudinal and transverse constant, so the
    force constants have the symmetry of the crystal and obey the sum rule, exactly.
    """
    out = Phonopy(cell, supercell_matrix=matrix, primitive_matrix=primitive, log_level=0)
    s = out.supercell
    x, box = np.asarray(s.scaled_positions), np.asarray(s.cell)
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    apart = (x[None, :, None] - x[:, None, None] + steps) @ box
    distance = np.linalg.norm(apart, axis=-1)
    i, j, L = np.nonzero((distance < cutoff) & (distance > 1e-6))
    d, n = distance[i, j, L], apart[i, j, L] / distance[i, j, L][:, None]
    Z = np.asarray(s.numbers)
    kinds = np.stack([np.minimum(Z[i], Z[j]), np.maximum(Z[i], Z[j]), np.rint(d * 1e4)], -1)
    _, kind = np.unique(kinds, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    strength = rng.uniform(1.0, 3.0, kind.max() + 1) * np.exp(
        -np.bincount(kind, d) / np.bincount(kind) / 2
    )
    long, short = 4 * strength[kind], 0.4 * strength[kind]
    k = (
        short[:, None, None] * np.eye(3)
        + (long - short)[:, None, None] * n[:, :, None] * n[:, None]
    )
    fc = np.zeros((len(x), len(x), 3, 3))
    np.add.at(fc, (i, j), -k)
    np.add.at(fc, (i, i), k)
    out.force_constants = fc
    return out


def rocksalt(seed=0, matrix=(2, 2, 2)) -> Phonopy:
    """Return NaCl in its conventional cell's supercell, with springs to fourth neighbours."""
    cell = PhonopyAtoms(
        symbols=["Na"] * 4 + ["Cl"] * 4,
        cell=np.eye(3) * 5.69,
        scaled_positions=[
            [0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0],
            [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5],
        ],
    )  # fmt: skip
    return springs(cell, np.diag(matrix), "F", cutoff=5.0, seed=seed)


def rutile(seed=3) -> Phonopy:
    """Return a rutile crystal (P4₂/mnm, with screw axes and glide planes), springs to 3.5 Å."""
    u = 0.306
    cell = PhonopyAtoms(
        symbols=["Sn"] * 2 + ["O"] * 4,
        cell=np.diag([4.74, 4.74, 3.19]),
        scaled_positions=[
            [0, 0, 0], [0.5, 0.5, 0.5], [u, u, 0], [-u, -u, 0],
            [0.5 - u, 0.5 + u, 0.5], [0.5 + u, 0.5 - u, 0.5],
        ],
    )  # fmt: skip
    return springs(cell, np.diag((2, 2, 3)), cutoff=3.5, seed=seed)


def triclinic(seed=1) -> Phonopy:
    """Return a triclinic cell of 5 atoms of 3 species without any symmetry."""
    cell = PhonopyAtoms(
        symbols=["Na", "Na", "S", "Cl", "Cl"],
        cell=[[4.2, 0.1, 0.3], [0.9, 4.9, 0.2], [-0.7, 0.6, 5.3]],
        scaled_positions=[
            [0.02, 0.03, 0.01], [0.52, 0.45, 0.06], [0.11, 0.55, 0.49],
            [0.55, 0.02, 0.56], [0.63, 0.61, 0.71],
        ],
    )  # fmt: skip
    return springs(cell, np.diag((2, 2, 2)), cutoff=3.9, seed=seed)


def shared_crystal(
    shared: pathlib.Path, name: str, *, nac: bool = False, sum_rule: bool = True
) -> Phonopy:
    """Return NaCl, SnO2 or NaMgF3 of the shared data.

    For the first two the non-analytic term is there on request, and phonopy imposes the sum rule
    unless told not to.
    """
    data = shared / "data" / "oracles" / name
    if name == "NaMgF3":
        read = phonopy.load(
            data / "phono3py_params_NaMgF3.yaml.xz", produce_fc=False, is_nac=False, log_level=0
        )
        out = Phonopy(
            read.unitcell,
            supercell_matrix=read.supercell_matrix,
            primitive_matrix="P",
            log_level=0,
        )
        with h5py.File(data / "fc2_NaMgF3.hdf5") as file:
            out.force_constants = file["force_constants"][()]
        return out
    return phonopy.load(
        data / f"phonopy_disp_{name}.yaml",
        force_sets_filename=data / f"FORCE_SETS_{name}",
        born_filename=data / f"BORN_{name}" if nac else None,
        is_nac=nac,
        symmetrize_fc=sum_rule,
        is_compact_fc=True,
        log_level=0,
    )


def rotated_in_blocks(found, seed=0):
    """Return the modes with the eigenvectors of each degenerate block mixed by a random unitary."""
    rng = np.random.default_rng(seed)
    blocks = np.asarray(degenerate_blocks(found.eigenvalues))
    e = np.array(found.eigenvectors)
    for q, labels in enumerate(blocks):
        for block in np.unique(labels):
            inside = np.flatnonzero(labels == block)
            A = rng.normal(size=(2, len(inside), len(inside)))
            unitary, _ = np.linalg.qr(A[0] + 1j * A[1])
            e[q, inside] = np.einsum("mn,nia->mia", unitary, e[q, inside])
    return with_eigenvectors(found, jnp.asarray(e))


def modes_of_phonopys_matrices(crystal: Phonopy, q: np.ndarray) -> Modes:
    """Return phojax's modes of phonopy's D(q), the non-analytic term included if it has one."""
    crystal.run_qpoints(q, with_dynamical_matrices=True)
    D = jnp.asarray(crystal.qpoints.dynamical_matrices)
    p = crystal.primitive
    ours = structure(p.cell, p.scaled_positions @ p.cell, p.numbers, p.masses)
    eigenvalues, E = eigenpairs_at(D, jnp.asarray(q), ours)
    vectors = E.swapaxes(1, 2).reshape(*eigenvalues.shape, len(p), 3)
    weights = jnp.full(len(q), 1 / len(q))
    return Modes(jnp.asarray(q), weights, eigenvalues, vectors, ours)
