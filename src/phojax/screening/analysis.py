"""From force constants to modes and descriptors, on a mesh and along the band path."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from phojax.brillouin import BandPath, Mesh, band_path, gamma_mesh, mesh_divisions
from phojax.descriptors.acoustic import AcousticCutoffs, acoustic_cutoffs
from phojax.descriptors.coupling import bonds, coupling, coupling_paper, mean_coupling
from phojax.descriptors.displacements import (
    Oscillators,
    displacement_tensor,
    mode_displacements,
    oscillators,
    share_below,
)
from phojax.descriptors.dos import (
    Moments,
    curve_width,
    dos_overlap,
    gaussian_dos,
    moments,
    species_groups,
)
from phojax.descriptors.participation import (
    participation_ratio,
    participation_ratio_mass_weighted,
)
from phojax.force_constants import ForceConstants
from phojax.force_constants.sum_rules import group_average, preserving
from phojax.modes import Modes, atomic_weights, degenerate_blocks, modes
from phojax.pytree import pytree
from phojax.screening.settings import PhononSettings
from phojax.symmetry import SpaceGroup, symmetrized_tensors
from phojax.units import THZ, eigenvalue_from_THz

_SYMMETRIC = 1e-8  # relative distance from the group average up to which a mesh is reduced
_GRID_POINTS = 801


@pytree()
class ModeTable:
    """Modes with what is known of each.

    Attributes:
        modes: On a mesh or a path.
        displacements: (temperature, q, mode, atom) mode-resolved MSD in Å², without weights.
        participation: (q, mode) of eigenvectors.
        participation_mass_weighted: (q, mode) of displacements.
        coupling: (q, mode) of mobile ions and host; NaN where undefined.
        coupling_paper: (q, mode) the paper's form.
        on_boundary: (q,) where the paper's form is ambiguous.
    """

    modes: Modes
    displacements: np.ndarray
    participation: np.ndarray
    participation_mass_weighted: np.ndarray
    coupling: np.ndarray
    coupling_paper: np.ndarray
    on_boundary: np.ndarray

    @property
    def frequencies_THz(self) -> np.ndarray:
        """(q, mode) in THz, negative for imaginary modes."""
        return _frequencies(self.modes)


@dataclass(frozen=True)
class Analysis:
    """Everything that one set of force constants says.

    Attributes:
        mesh: The q mesh.
        path: The band path.
        reduced_by_symmetry: Whether space group operations reduced the mesh (else time reversal).
        on_mesh: Modes of the mesh with their descriptors.
        on_path: Modes of the path with their descriptors.
        oscillators: Which modes of the mesh count.
        translations_on_path: (q, mode) rigid translations.
        tensors: (temperature, atom, 3, 3) U in Å², star-averaged.
        tensors_coarse: The same on a mesh of half the divisions, for the error of the mesh.
        coarse: That mesh.
        groups: Names of the groups of atoms: total, then each element.
        members: (group, atom).
        grid_THz: Frequencies of the curves.
        sums: Of the mesh.
        cutoffs: The acoustic cutoff by three definitions.
        mobile: (atom,) which atoms are mobile.
    """

    mesh: Mesh
    path: BandPath
    reduced_by_symmetry: bool
    on_mesh: ModeTable
    on_path: ModeTable
    oscillators: Oscillators
    translations_on_path: np.ndarray
    tensors: np.ndarray
    tensors_coarse: np.ndarray
    coarse: Mesh
    groups: list[str]
    members: np.ndarray
    grid_THz: np.ndarray
    sums: "MeshSums"
    cutoffs: AcousticCutoffs
    mobile: np.ndarray


class MeshSums(NamedTuple):
    """Sums over the modes of a mesh.

    Attributes:
        dos: (group, frequency) per THz and cell.
        moments: Of every group.
        widths: (group,) THz, range where a curve exceeds 1 % of its maximum.
        overlap: Of the curves of mobile ions and host; NaN without a host.
        overlap_below: The same below 3 THz.
        share_below: (temperature, atom) of the MSD carried by soft modes.
        coupling_soft: (temperature,) mean coupling of soft modes.
        coupling_acoustic: (temperature,) of modes below the acoustic cutoff.
        coupling_paper_soft: (temperature,) in the paper's form.
        coupling_paper_acoustic: (temperature,) in the paper's form.
    """

    dos: jax.Array
    moments: Moments
    widths: jax.Array
    overlap: jax.Array
    overlap_below: jax.Array
    share_below: jax.Array
    coupling_soft: jax.Array
    coupling_acoustic: jax.Array
    coupling_paper_soft: jax.Array
    coupling_paper_acoustic: jax.Array


@jax.jit
def _modes(constants: ForceConstants, q) -> Modes:
    return modes(constants, q)


@jax.jit
def _oscillators_and_tensors(found: Modes, temperatures, floor):
    which = oscillators(found, floor)
    return which, jax.vmap(lambda T: displacement_tensor(found, T, which.kept))(temperatures)


@jax.jit
def _table(found: Modes, temperatures, mobile, among, floor):
    which = oscillators(found, floor)
    blocks = degenerate_blocks(found.eigenvalues)
    weights = atomic_weights(found, blocks)
    paper = coupling_paper(found, mobile, blocks)
    nothing = jnp.full(found.eigenvalues.shape, jnp.nan)
    return (
        which,
        jax.vmap(lambda T: mode_displacements(found, T, which.kept, blocks))(temperatures),
        participation_ratio(weights),
        participation_ratio_mass_weighted(weights, found.masses),
        coupling(found, among, blocks) if among is not None else nothing,
        paper.values,
        paper.on_boundary,
    )


@jax.jit
def _sums(table: ModeTable, which: Oscillators, members, mobile, grid, smearing, soft, cutoff):
    found = table.modes
    curves = gaussian_dos(found, grid, smearing, members, ~which.translations)
    of_mobile, of_host = gaussian_dos(
        found, grid, smearing, jnp.stack([mobile, ~mobile]), ~which.translations
    )

    def mean(couplings, limit):
        return jax.vmap(lambda u: mean_coupling(found, couplings, u, mobile, limit))(
            table.displacements
        )

    return MeshSums(
        curves,
        moments(found, members, which.kept),
        jax.vmap(lambda curve: curve_width(grid, curve))(curves),
        dos_overlap(grid, of_mobile, of_host),
        dos_overlap(grid, of_mobile, of_host, 3.0),
        jax.vmap(lambda u: share_below(found, u, soft))(table.displacements),
        mean(table.coupling, soft),
        mean(table.coupling, cutoff),
        mean(table.coupling_paper, soft),
        mean(table.coupling_paper, cutoff),
    )


def is_symmetric(constants: ForceConstants, group: SpaceGroup) -> bool:
    """Return whether the force constants have every operation of the group, to rounding."""
    kept = preserving(group, constants.supercell)
    if len(kept) < len(group):
        return False
    values = np.asarray(constants.values)
    off = group_average(constants.values, constants.supercell, kept) - values
    return bool(np.abs(off).max() <= _SYMMETRIC * np.abs(values).max())


def tensors_on(
    constants: ForceConstants,
    mesh: Mesh,
    settings: PhononSettings,
    group: SpaceGroup | None,
) -> tuple[np.ndarray, Modes, Oscillators]:
    """Return U (temperature, atom, 3, 3) in Å² on a mesh, star-averaged, with its modes."""
    found = replace(_modes(constants, jnp.asarray(mesh.q)), weights=jnp.asarray(mesh.weights))
    temperatures = jnp.asarray(settings.temperatures, float)
    which, U = _oscillators_and_tensors(found, temperatures, _floor(settings))
    return _star_averaged(U, group), found, which


def lowest_frequency(found: Modes, rigid: ArrayLike) -> tuple[float, np.ndarray]:
    """Return the lowest frequency in THz and its q, the modes marked `rigid` left out."""
    nu = np.where(np.asarray(rigid), np.inf, _frequencies(found))
    at = np.unravel_index(np.argmin(nu), nu.shape)
    return float(nu[at]), np.asarray(found.q)[at[0]]


def analysed(constants: ForceConstants, group: SpaceGroup, settings: PhononSettings) -> Analysis:
    """Return modes and descriptors of a crystal with these force constants.

    Args:
        constants: Φ, in float64.
        group: Space group of the primitive cell; used where Φ has it to rounding.
        settings: Of the calculation.
    """
    crystal = constants.supercell.primitive
    mobile = np.array([s == settings.mobile for s in crystal.symbols])
    temperatures = jnp.asarray(settings.temperatures, float)
    divisions = settings.mesh or mesh_divisions(crystal, settings.mesh_spacing)
    usable = group if is_symmetric(constants, group) else None
    mesh = gamma_mesh(divisions, usable)
    coarse = gamma_mesh(tuple(max(1, n // 2) for n in divisions), usable)
    path = band_path(crystal)

    # All q together: one shape to compile, and degenerate blocks by one width.
    together = _modes(constants, jnp.asarray(np.concatenate([mesh.q, path.q, coarse.q])))
    among = None
    if mobile.any() and not mobile.all():
        among = bonds(crystal, jnp.asarray(mobile), settings.bond_cutoff)
        among = among if len(among.mobile) else None
    parts = _table(together, temperatures, jnp.asarray(mobile), among, _floor(settings))
    points = np.cumsum([0, len(mesh.q), len(path.q), len(coarse.q)])
    first, rest = slice(0, points[1]), slice(points[1], points[2])
    found = replace(_rows(together, first), weights=jnp.asarray(mesh.weights))
    along = _rows(together, rest)
    on_mesh, on_path = (
        ModeTable(modes_, np.asarray(parts[1])[:, rows], *(np.asarray(p)[rows] for p in parts[2:]))
        for modes_, rows in ((found, first), (along, rest))
    )
    which, U = _oscillators_and_tensors(found, temperatures, _floor(settings))
    # The coarse mesh in the shape of the fine one, filled up with points of no weight.
    repeated = np.minimum(np.arange(points[2], points[2] + len(mesh.q)), points[3] - 1)
    weights = np.zeros(len(mesh.q))
    weights[: len(coarse.q)] = coarse.weights
    rough = replace(_rows(together, repeated), weights=jnp.asarray(weights))
    _, U_coarse = _oscillators_and_tensors(rough, temperatures, _floor(settings))

    names, members = species_groups(crystal)
    nu = _frequencies(found)
    room = 5 * settings.smearing_THz
    grid = np.linspace(min(0.0, nu.min()) - room, nu.max() + room, _GRID_POINTS)
    cutoffs = acoustic_cutoffs(along, [(s.start, s.stop) for s in path.segments], found)
    sums = _sums(
        on_mesh, which, members, jnp.asarray(mobile), jnp.asarray(grid),
        settings.smearing_THz, settings.low_frequency_THz, cutoffs.path,
    )  # fmt: skip
    return Analysis(
        mesh=mesh,
        path=path,
        reduced_by_symmetry=usable is not None,
        on_mesh=on_mesh,
        on_path=on_path,
        oscillators=which,
        translations_on_path=np.asarray(parts[0].translations)[rest],
        tensors=_star_averaged(U, usable),
        tensors_coarse=_star_averaged(U_coarse, usable),
        coarse=coarse,
        groups=names,
        members=np.asarray(members),
        grid_THz=grid,
        sums=jax.tree.map(np.asarray, sums),
        cutoffs=cutoffs,
        mobile=mobile,
    )


def _floor(settings: PhononSettings) -> jax.Array:
    return eigenvalue_from_THz(jnp.asarray(settings.smallest_THz, float))


def _star_averaged(U, group: SpaceGroup | None) -> np.ndarray:
    U = np.asarray(U)
    return U if group is None else np.stack([symmetrized_tensors(u, group) for u in U])


def _rows(found: Modes, rows: slice | np.ndarray) -> Modes:
    """Return the modes at some q, cut by numpy: every slice of a JAX array is compiled."""

    def cut(values):
        return jnp.asarray(np.asarray(values)[rows])

    return replace(
        found,
        q=cut(found.q),
        weights=cut(found.weights),
        eigenvalues=cut(found.eigenvalues),
        eigenvectors=cut(found.eigenvectors),
    )


def _frequencies(found: Modes) -> np.ndarray:
    eigenvalues = np.asarray(found.eigenvalues)
    return THZ * np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues))
