"""From force constants to modes and descriptors, on a mesh and along the band path.

One crystal, or many in one padded batch: host side first (meshes, paths, bonds), then all modes on
the device (`mode_table`), then the sums over them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from phojax.brillouin import BandPath, Mesh, band_path, gamma_mesh, mesh_divisions
from phojax.descriptors.acoustic import AcousticCutoffs, connected_branches_top
from phojax.descriptors.coupling import Bonds, bonds
from phojax.descriptors.dos import (
    species_groups,
)
from phojax.descriptors.tetrahedra import tetrahedron_neighbours
from phojax.dynmat import Interpolation, interpolation
from phojax.force_constants import ForceConstants
from phojax.force_constants.sum_rules import group_average, preserving
from phojax.modes import Modes
from phojax.nac import BornCharges
from phojax.screening.eigenpairs import points_at_a_time
from phojax.screening.mode_table import ModeTable, Points, Solved, solved_modes
from phojax.screening.settings import PhononSettings
from phojax.screening.subjects import Shape, Subject, rounded, shape_of, width_of
from phojax.screening.sums import MeshSums, SumsInput, mesh_sums
from phojax.symmetry import SpaceGroup, symmetrized_tensors
from phojax.units import eigenvalue_from_THz

_SYMMETRIC = 1e-8  # relative distance from the group average up to which a mesh is reduced
_GRID_POINTS = 801
_EXACT = 16  # q in flight where each of them is made of derivatives of a potential
_FEW = 64  # q that go through together on a CPU, where more gain nothing
_SUMS = 2  # over the mesh and over the coarse mesh


@dataclass(frozen=True)
class Analysis:
    """Everything that one set of force constants says.

    Attributes:
        mesh: The q mesh.
        path: The band path.
        reduced_by_symmetry: Whether space group operations reduced the mesh (else time reversal).
        on_mesh: Modes of the mesh with their descriptors.
        on_path: Modes of the path with their descriptors.
        path_modes: The path with its eigenvectors.
        tensors: (temperature, atom, 3, 3) U in Å², star-averaged.
        tensors_coarse: The same on a mesh of half the divisions, for the error of the mesh.
        coarse: That mesh.
        groups: Names of the groups of atoms: total, then each element.
        members: (group, atom).
        grid_THz: Frequencies of the curves.
        sums: Of the mesh.
        cutoffs: The acoustic cutoff by three definitions.
        mobile: (atom,) which atoms are mobile.
        held: The force constants as they were interpolated.
    """

    mesh: Mesh
    path: BandPath
    reduced_by_symmetry: bool
    on_mesh: ModeTable
    on_path: ModeTable
    path_modes: Modes
    tensors: np.ndarray
    tensors_coarse: np.ndarray
    coarse: Mesh
    groups: list[str]
    members: np.ndarray
    grid_THz: np.ndarray
    sums: MeshSums
    cutoffs: AcousticCutoffs
    mobile: np.ndarray
    held: Interpolation


@dataclass(frozen=True)
class Planned:
    """What is known of a crystal before anything is solved."""

    subject: Subject
    mesh: Mesh
    coarse: Mesh
    path: BandPath
    group: SpaceGroup | None
    names: list[str]


def is_symmetric(constants: ForceConstants, group: SpaceGroup) -> bool:
    """Return whether the force constants have every operation of the group, to rounding."""
    kept = preserving(group, constants.supercell)
    if len(kept) < len(group):
        return False
    values = np.asarray(constants.values)
    off = group_average(constants.values, constants.supercell, kept) - values
    return bool(np.abs(off).max() <= _SYMMETRIC * np.abs(values).max())


def tensors_on(
    each: Sequence[ForceConstants],
    mesh: Mesh,
    settings: PhononSettings,
    group: SpaceGroup | None,
) -> list[tuple[np.ndarray, ModeTable]]:
    """Return U (temperature, atom, 3, 3) in Å² on a mesh, star-averaged, and its modes.

    Args:
        each: Force constants of one crystal, which go through together.
        mesh: Of all of them.
        settings: Temperatures and what counts as an oscillator.
        group: Of the crystal.
    """
    subjects = [subject_of(interpolation(constants), settings)[0] for constants in each]
    points = Points(mesh.q, np.stack([mesh.weights] * _SUMS), np.zeros(mesh.q.shape))
    shape = rounded(shape_of(subjects), alone=len(subjects) == 1)
    found = solved_modes(
        subjects + subjects[-1:] * (shape.crystals - len(subjects)),
        [points] * shape.crystals, settings.temperatures, _floor(settings),
        chunk=_chunk(shape, len(mesh.q)), shape=shape,
    )  # fmt: skip
    return [(_star_averaged(one.tensors[0], group), one.table) for one in found[: len(each)]]


def _chunk(shape: Shape, longest: int) -> int:
    """Return how many q are in flight: one of few numbers, so that few functions are compiled."""
    room = points_at_a_time(shape.atoms, shape.crystals)
    wanted = _FEW if jax.default_backend() == "cpu" else _power(longest)
    return max(1, min(wanted, 2 ** int(np.log2(room))))


def lowest_frequency(found: ModeTable, rigid: ArrayLike) -> tuple[float, np.ndarray]:
    """Return the lowest frequency in THz and its q, the modes marked `rigid` left out."""
    nu = np.where(np.asarray(rigid), np.inf, found.frequencies_THz)
    at = np.unravel_index(np.argmin(nu), nu.shape)
    return float(nu[at]), np.asarray(found.q)[at[0]]


def analysed(
    constants: ForceConstants,
    group: SpaceGroup,
    settings: PhononSettings,
    born: BornCharges | None = None,
    source: Interpolation | None = None,
) -> Analysis:
    """Return modes and descriptors of a crystal with these force constants.

    Args:
        constants: Φ, in float64.
        group: Space group of the primitive cell; used where Φ has it to rounding.
        settings: Of the calculation.
        born: Neutral charges, for the non-analytic term.
        source: Of D(q) in their stead: `bloch.exact`.
    """
    plan = planned_points(constants, group, settings, born, source)
    return analysed_together([plan], settings, None)[0]


def planned_points(
    constants: ForceConstants,
    group: SpaceGroup,
    settings: PhononSettings,
    born: BornCharges | None = None,
    source: Interpolation | None = None,
) -> Planned:
    """Return meshes, path and bonds of a crystal; on the host."""
    crystal = constants.supercell.primitive
    divisions = settings.mesh or mesh_divisions(crystal, settings.mesh_spacing)
    usable = group if is_symmetric(constants, group) else None
    held = interpolation(constants, born)
    subject, names = subject_of(source or held, settings, spectrum_of=held)
    return Planned(
        subject,
        gamma_mesh(divisions, usable),
        gamma_mesh(tuple(max(1, n // 2) for n in divisions), usable),
        band_path(crystal),
        usable,
        names,
    )


def subject_of(
    held: Interpolation, settings: PhononSettings, *, spectrum_of: Interpolation | None = None
) -> tuple[Subject, list[str]]:
    """Return the crystal with its groups: total, each element, mobile ions, host.

    Args:
        held: What gives D(q).
        settings: Of the calculation.
        spectrum_of: Force constants whose spectrum is the scale of degeneracy; its own by default.
    """
    crystal = held.crystal
    mobile = np.array([s == settings.mobile for s in crystal.symbols])
    if mobile.any() and not mobile.all():
        among = bonds(crystal, jnp.asarray(mobile), settings.bond_cutoff)
    else:
        none = jnp.zeros(0, jnp.int32)
        among = Bonds(none, none, jnp.zeros((0, 3), jnp.int32), jnp.zeros(0), none)
    names, members = species_groups(crystal)
    members = np.concatenate([members, mobile[None], ~mobile[None]])
    return Subject(
        held,
        jnp.asarray(mobile),
        among,
        jnp.asarray(members),
        jnp.asarray(width_of(spectrum_of or held)),
    ), names


def analysed_together(
    plans: Sequence[Planned], settings: PhononSettings, shape: Shape | None
) -> list[Analysis]:
    """Return the analyses of crystals that are padded to one shape."""
    subjects = [plan.subject for plan in plans]
    points = [_mesh_points(plan) for plan in plans]
    longest = max(len(p.q) for p in points)
    shape = shape or shape_of(subjects)
    floor = _floor(settings)
    chunk = _chunk(shape, longest)  # the same for mesh and path: one function for both
    if any(plan.subject.held.exact is not None for plan in plans):
        chunk = min(chunk, _EXACT)
    found = solved_modes(subjects, points, settings.temperatures, floor, chunk=chunk, shape=shape)
    along = solved_modes(
        subjects, [_path_points(plan) for plan in plans], settings.temperatures, floor,
        chunk=chunk, shape=shape, eigenvectors=True,
    )  # fmt: skip
    room = 5 * settings.smearing_THz
    ready = [_ready(plan, a, b, room) for plan, a, b in zip(plans, found, along, strict=True)]
    sums = _sums_together(plans, ready, settings, shape)
    return [
        _finished(plan, r, s, a) for plan, r, s, a in zip(plans, ready, sums, found, strict=True)
    ]


class _Ready(NamedTuple):
    on_mesh: ModeTable
    on_path: ModeTable
    path_modes: Modes
    cutoffs: AcousticCutoffs
    grid: np.ndarray


def _mesh_points(plan: Planned) -> Points:
    q = np.concatenate([plan.mesh.q, plan.coarse.q])
    weights = np.zeros((_SUMS, len(q)))
    weights[0, : len(plan.mesh.q)] = plan.mesh.weights
    weights[1, len(plan.mesh.q) :] = plan.coarse.weights
    return Points(q, weights, np.zeros(q.shape))


def _path_points(plan: Planned) -> Points:
    """Return the path; at Γ each segment approaches along itself."""
    q = plan.path.q
    return Points(q, np.zeros((_SUMS, len(q))), plan.path.directions)


def _ready(plan: Planned, found: Solved, along: Solved, room: float) -> _Ready:
    on_mesh = found.table.rows(slice(0, len(plan.mesh.q)))
    path_modes = Modes(
        jnp.asarray(along.table.q),
        jnp.asarray(along.table.weights),
        jnp.asarray(along.table.eigenvalues),
        jnp.asarray(along.eigenvectors),
        plan.subject.held.crystal,
        plan.subject.held.free,
    )
    nu = on_mesh.frequencies_THz
    segments = [(s.start, s.stop) for s in plan.path.segments]
    # A crystal that is held has no acoustic bands.
    lowest = np.s_[:, :3] if path_modes.free else np.s_[:, :0]
    cutoffs = AcousticCutoffs(
        path=jnp.asarray(_top(along.table.frequencies_THz[lowest])),
        connected=connected_branches_top(path_modes, segments, along.table.translations),
        mesh=jnp.asarray(_top(nu[lowest])),
    )
    grid = np.linspace(min(0.0, nu.min()) - room, nu.max() + room, _GRID_POINTS)
    return _Ready(on_mesh, along.table, path_modes, cutoffs, grid)


def _top(nu: np.ndarray) -> float:
    return float(nu.max()) if nu.size else np.nan


def _sums_together(plans, ready, settings: PhononSettings, shape: Shape) -> list[MeshSums]:
    """Return the sums of each crystal, tables filled up to one shape with modes of no weight."""
    points = _power(max(len(r.on_mesh.q) for r in ready))
    modes_ = 3 * shape.atoms

    def one(plan: Planned, r: _Ready):
        table = r.on_mesh
        more_q, more = points - len(table.q), modes_ - table.eigenvalues.shape[1]

        def pad(values, axis=0, groups=0, **how):
            widths = [(0, 0)] * axis + [(0, more_q), (0, more)]
            widths += [(0, 0)] * (values.ndim - len(widths))
            if groups:
                widths[-1] = (0, groups - values.shape[-1])
            return np.pad(values, widths, **how)

        weights = np.pad(table.weights, (0, more_q))
        neighbours = np.asarray(tetrahedron_neighbours(plan.mesh, plan.subject.held.crystal))
        columns = {
            "eigenvalues": pad(table.eigenvalues, mode="edge"),
            "kept": pad(table.kept),
            "translations": pad(table.translations),
            "shares": pad(table.shares, groups=shape.groups),
            "displacements": pad(table.displacements, 1, groups=shape.atoms),
            "coupling": pad(table.coupling, constant_values=np.nan),
            "coupling_paper": pad(table.coupling_paper, constant_values=np.nan),
        }
        mobile = np.asarray(plan.subject.mobile)
        mobile = np.pad(mobile, (0, shape.atoms - len(mobile)))
        count = len(plan.subject.members)
        return SumsInput(
            weights=weights,
            neighbours=np.pad(neighbours, ((0, more_q), (0, 0), (0, 0))),
            grid=r.grid,
            mobile=mobile,
            pair=np.array([count - 2, count - 1]),
            cutoff=np.asarray(r.cutoffs.path),
            **columns,
        )

    together = jax.tree.map(
        lambda *x: np.stack(x), *(one(*pair) for pair in zip(plans, ready, strict=True))
    )
    T = jnp.asarray(settings.temperatures, float)
    sums = jax.tree.map(
        np.asarray, mesh_sums(together, T, settings.smearing_THz, settings.low_frequency_THz)
    )
    return [jax.tree.map(lambda a, s=s: a[s], sums) for s in range(len(plans))]


def _finished(plan: Planned, ready: _Ready, sums: MeshSums, found: Solved) -> Analysis:
    groups = len(plan.names)
    moments_ = jax.tree.map(lambda m: m[:groups], sums.moments)
    sums = sums._replace(
        dos=sums.dos[:groups],
        dos_tetrahedron=sums.dos_tetrahedron[:groups],
        moments=moments_,
        widths=sums.widths[:groups],
        widths_tetrahedron=sums.widths_tetrahedron[:groups],
        share_below=sums.share_below[:, : len(plan.subject.mobile)],
    )
    return Analysis(
        mesh=plan.mesh,
        path=plan.path,
        reduced_by_symmetry=plan.group is not None,
        on_mesh=ready.on_mesh,
        on_path=ready.on_path,
        path_modes=ready.path_modes,
        tensors=_star_averaged(found.tensors[0], plan.group),
        tensors_coarse=_star_averaged(found.tensors[1], plan.group),
        coarse=plan.coarse,
        groups=plan.names,
        members=np.asarray(plan.subject.members)[:groups],
        grid_THz=ready.grid,
        sums=sums,
        cutoffs=ready.cutoffs,
        mobile=np.asarray(plan.subject.mobile),
        held=plan.subject.held,
    )


def _power(count: int) -> int:
    """Return a power of two that is no smaller: few shapes for many counts."""
    return max(_FEW, 2 ** int(np.ceil(np.log2(count))))


def _floor(settings: PhononSettings) -> float:
    return float(eigenvalue_from_THz(jnp.asarray(settings.smallest_THz, float)))


def _star_averaged(U, group: SpaceGroup | None) -> np.ndarray:
    U = np.asarray(U)
    return U if group is None else np.stack([symmetrized_tensors(u, group) for u in U])
