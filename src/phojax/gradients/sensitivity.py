"""Which pair of atoms, which atom and which mode a function of phonons depends on.

From G(q) = ∂d/∂D(q) at the points that fit a supercell of N cells, with D = Φ(q) / √(m_i m_j):

    g_iα,jLβ = ∂d/∂Φ_iα,jLβ = Re Σ_q G_iα,jβ(q) exp(-iq·(r_j + L - r_i)) / √(m_i m_j)      (1)

Force constants of a pair do not change alone: a crystal that is moved as a whole has no forces, so
Φ_ii = -Σ_jL Φ_ijL changes with them. What a pair is worth, when its force constants are scaled,

    s_ijL = Σ_αβ Φ_ijL (g_ijL - g_ii0),   Σ_pairs s = Σ Φ g = dd/dlnΦ,                        (2)

adds up to what scaling all of them does. So do the modes,

    s_qn = λ e† G(q) e = ∂d/∂lnλ,   Σ_qn s = dd/dlnΦ                                       (3)

(no derivative of an eigenvector in it: the mean is taken over degenerate ones). For mean-square
displacements dd/dlnΦ + dd/dlnm = -d at any temperature, since d goes as 1/m at given frequencies;
in the classical limit the second term is 0.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from phojax.bloch_supercell import in_supercell
from phojax.bloch_symmetry import IndependentColumns
from phojax.brillouin import Mesh
from phojax.checks import fail
from phojax.descriptors.displacements import mode_displacements
from phojax.force_constants.shells import pair_distances
from phojax.gradients.total import Gradient
from phojax.gradients.tuning import at_points
from phojax.gradients.vibrations import FLOOR, Vibrations
from phojax.modes import Modes, block_mean, degenerate_blocks, eigenpairs_at, translations
from phojax.spectral import Scalar, hermitian_part
from phojax.structure import Supercell, commensurate_points
from phojax.symmetry import SpaceGroup
from phojax.units import frequency_THz

_SAME_SHELL = 0.01  # Å


@dataclass(frozen=True)
class PairSensitivity:
    """What pairs are worth: first atom i in the home cell, second any atom of the supercell.

    A pair is in it twice, from either end: it is worth the sum of both.

    Attributes:
        distance: To the nearest image, Å; 0 for an atom with itself.
        scaling: s of eq. (2), in the unit of d.
        slope: Norm of the derivative in a pair's force constants, |2g_ijL - g_ii - g_jj|, in the
            unit of d per eV/Å².
        on_site: Σ Φ_ii g_ii, what scaling the force constant of an atom with itself alone does.
    """

    distance: Float[np.ndarray, "i jL"]
    scaling: Float[np.ndarray, "i jL"]
    slope: Float[np.ndarray, "i jL"]
    on_site: Float[np.ndarray, " i"]

    @property
    def by_atom(self) -> Float[np.ndarray, " i"]:
        """Half of every pair that an atom is part of; adds up to dd/dlnΦ."""
        n = len(self.scaling)
        at_other = self.scaling.reshape(n, n, -1).sum(axis=(0, 2))
        return (self.scaling.sum(axis=1) + at_other) / 2


@dataclass(frozen=True)
class ModeSensitivity:
    """What modes are worth: sums over a star of q, means over degenerate modes.

    Attributes:
        frequencies_THz: Imaginary ones negative.
        scaling: s of eq. (3), in the unit of d.
        weights: Share of the zone of each q.
        rigid: Translations at Γ.
    """

    frequencies_THz: Float[np.ndarray, "q mode"]
    scaling: Float[np.ndarray, "q mode"]
    weights: Float[np.ndarray, " q"]
    rigid: Bool[np.ndarray, "q mode"]


@dataclass(frozen=True)
class Shell:
    """Pairs of the same kind at the same distance.

    Attributes:
        orbits: Of the two atoms: the first atom of each, ascending.
        distance: Å.
        count: Pairs per primitive cell.
        scaling: Of all of them together, in the unit of d.
        slope: Of one of them (root mean square), in the unit of d per eV/Å².
    """

    orbits: tuple[int, int]
    distance: float
    count: float
    scaling: float
    slope: float


def mesh_of(cells: Supercell) -> Mesh:
    """Return the points whose waves fit a supercell, all of them: routes reduce them themselves.

    Args:
        cells: As fine as the mesh is to be.
    """
    return at_points(commensurate_points(cells))


def scaling_of_all(found: Gradient) -> float:
    """Return dd/dlnΦ in the unit of d: what scaling all force constants does."""
    matrices = np.asarray(found.vibrations.matrices)
    return float(np.sum(np.real(found.by_matrices.conj() * matrices)))


def pair_sensitivity(
    found: Gradient, cells: Supercell, group: SpaceGroup | None
) -> PairSensitivity:
    """Return what each pair of atoms is worth to a function of phonons (host).

    Args:
        found: Of a route whose mesh is `mesh_of(cells)`; of a function that the group leaves as
            it is.
        cells: The supercell, with the crystal of the gradient.
        group: Of the route.

    Raises:
        InputError: a gradient of another mesh.
    """
    vibrations = found.vibrations
    points = commensurate_points(cells)
    columns = IndependentColumns(points, np.asarray(cells.primitive.fractional), group)
    q = np.asarray(vibrations.q)
    if columns.chosen_q.shape != q.shape or not np.allclose(columns.chosen_q, q):
        raise fail(
            f"a gradient at {len(q)} points that are not those of the supercell",
            f"the {columns.points} of `mesh_of(cells)` with this group",
        )  # fmt: skip
    n = len(cells.primitive)
    root = np.sqrt(np.repeat(np.asarray(vibrations.crystal.masses), 3))
    both = root[:, None] * root
    star = np.bincount(columns.chosen_from)
    G = np.asarray(hermitian_part(jnp.asarray(found.by_matrices))) / star[:, None, None]
    g = len(points) * in_supercell(columns.unfolded(G) / both, points, cells)
    values = in_supercell(
        columns.unfolded(np.asarray(vibrations.matrices)) * both, points, cells
    )  # fmt: skip
    home = np.arange(n) * len(points)  # the copy at home is the first
    own = g[np.arange(n), home]
    copies = np.arange(n * len(points)) // len(points)
    scaling = np.einsum("ijab,ijab->ij", values, g - own[:, None])
    on_site = np.einsum("iab,iab->i", values[np.arange(n), home], own)
    slope = np.linalg.norm(2 * g - own[:, None] - own[copies][None], axis=(2, 3))
    slope[np.arange(n), home] = 0.0
    return PairSensitivity(pair_distances(cells), scaling, slope, on_site)


def shells(pairs: PairSensitivity, cells: Supercell, group: SpaceGroup) -> list[Shell]:
    """Return the pairs by kind and distance, the nearest first (host).

    Args:
        pairs: From `pair_sensitivity`.
        cells: Of the pairs.
        group: Atoms that it makes equivalent are of one kind.
    """
    n = len(pairs.distance)
    orbit = np.asarray(group.orbits)
    second = np.repeat(orbit, pairs.distance.shape[1] // n)
    found = []
    for a in np.unique(orbit):
        for b in np.unique(orbit[orbit >= a]):
            kind = (orbit[:, None] == a) & (second[None] == b)
            kind |= (orbit[:, None] == b) & (second[None] == a)
            at = np.argwhere(kind & (pairs.distance > _SAME_SHELL))
            i, j = at[np.argsort(pairs.distance[tuple(at.T)], kind="stable")].T
            far = pairs.distance[i, j]
            cuts = np.flatnonzero(np.diff(far) > _SAME_SHELL) + 1
            for part in np.split(np.arange(len(far)), cuts):
                if not len(part):
                    continue
                mine = i[part], j[part]
                found.append(Shell(
                    (int(a), int(b)), float(far[part].mean()), len(part) / 2,
                    float(pairs.scaling[mine].sum()),
                    float(np.sqrt(np.mean(pairs.slope[mine] ** 2))),
                ))  # fmt: skip
    return sorted(found, key=lambda shell: (shell.distance, shell.orbits))


def mode_sensitivity(found: Gradient) -> ModeSensitivity:
    """Return what each mode is worth to a function of phonons, eq. (3) (host)."""
    held = _modes(found.vibrations)
    e = held.eigenvectors.reshape(*held.eigenvalues.shape, -1)
    G = jnp.asarray(found.by_matrices)
    worth = jnp.einsum("qna,qab,qnb->qn", e.conj(), G, e).real * held.eigenvalues
    return ModeSensitivity(
        np.asarray(frequency_THz(held.eigenvalues)),
        np.asarray(block_mean(worth, degenerate_blocks(held.eigenvalues))),
        np.asarray(held.weights),
        np.asarray(translations(held)),
    )


def mode_shares(
    found: Vibrations, atoms: Bool[Array, " atom"], temperature: Scalar, floor: float = FLOOR
) -> Float[np.ndarray, "q mode"]:
    """Return what each mode contributes to `Vibrations.msd` in Å²; adds up to it (host).

    Args:
        found: The vibrations.
        atoms: Whose mean-square displacement it is.
        temperature: K.
        floor: λ in eV Å⁻² amu⁻¹ up to which modes are left out.
    """
    held = _modes(found)
    kept = (held.eigenvalues > floor) & ~translations(held)
    each = mode_displacements(held, temperature, kept) @ found.equivalent.T
    share = jnp.sum(jnp.where(atoms, each, 0.0), axis=-1) / jnp.sum(atoms)
    return np.asarray(found.weights[:, None] * share)


def _modes(found: Vibrations) -> Modes:
    eigenvalues, E = eigenpairs_at(found.matrices, found.q, found.crystal)
    vectors = _by_mode(E, len(found.crystal))
    return Modes(found.q, found.weights, eigenvalues, vectors, found.crystal)


def _by_mode(E: Complex[Array, "q n mode"], atoms: int) -> Complex[Array, "q mode atom 3"]:
    return E.swapaxes(1, 2).reshape(E.shape[0], E.shape[2], atoms, 3)


__all__ = [
    "ModeSensitivity",
    "PairSensitivity",
    "Shell",
    "mesh_of",
    "mode_sensitivity",
    "mode_shares",
    "pair_sensitivity",
    "scaling_of_all",
    "shells",
]
