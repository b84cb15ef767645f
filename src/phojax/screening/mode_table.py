"""Modes and all that is known of each, for one crystal or for many at once, in bounded memory.

Crystals of one padded shape go through together, some q of each at a time: D(q), eigenpairs,
descriptors of every mode, sums for the displacement tensors. Eigenvectors are dropped as soon as
the descriptors are there, unless asked for. Padding is exact: padding atoms have rows of zeros in
D, which are moved above the spectrum, and padding q have no weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from phojax.descriptors.coupling import coupling, coupling_paper
from phojax.descriptors.displacements import displacement_tensors, mode_displacements, oscillators
from phojax.descriptors.participation import (
    participation_ratio,
    participation_ratio_mass_weighted,
)
from phojax.modes import (
    Modes,
    atomic_weights,
    degenerate_blocks,
)
from phojax.screening.eigenpairs import points_at_a_time, solved
from phojax.screening.subjects import Shape, Subject, padded, shape_of, stacked
from phojax.units import THZ


@dataclass(frozen=True)
class Points:
    """Where to solve for the modes of a subject.

    Attributes:
        q: (q, 3) fractional.
        weights: (sum, q), one row for every sum over points that is wanted.
        directions: (q, 3) from where Γ is approached; zeros for nowhere.
    """

    q: np.ndarray
    weights: np.ndarray
    directions: np.ndarray


@dataclass(frozen=True)
class ModeTable:
    """Modes with what is known of each; arrays of numpy.

    Attributes:
        q: (q, 3) fractional.
        weights: (q,) sum to one on a mesh.
        eigenvalues: (q, mode) λ.
        kept: (q, mode) oscillators: neither translations nor imaginary.
        translations: (q, mode) rigid translations at Γ.
        imaginary: (q, mode) other modes at or below the floor.
        shares: (q, mode, group) Σ |e|² of groups of atoms, the same inside degenerate blocks.
        displacements: (temperature, q, mode, atom) mode-resolved MSD in Å², without weights.
        participation: (q, mode) of eigenvectors.
        participation_mass_weighted: (q, mode) of displacements.
        coupling: (q, mode) of mobile ions and host; NaN where undefined.
        coupling_paper: (q, mode) the paper's form.
        on_boundary: (q,) where the paper's form is ambiguous.
    """

    q: np.ndarray
    weights: np.ndarray
    eigenvalues: np.ndarray
    kept: np.ndarray
    translations: np.ndarray
    imaginary: np.ndarray
    shares: np.ndarray
    displacements: np.ndarray
    participation: np.ndarray
    participation_mass_weighted: np.ndarray
    coupling: np.ndarray
    coupling_paper: np.ndarray
    on_boundary: np.ndarray

    @property
    def frequencies_THz(self) -> np.ndarray:
        """(q, mode) in THz, negative for imaginary modes."""
        return THZ * np.sign(self.eigenvalues) * np.sqrt(np.abs(self.eigenvalues))

    def rows(self, which: slice) -> "ModeTable":
        """Return the table at some of the q."""
        columns = {k: v[which] for k, v in vars(self).items() if k != "displacements"}
        return ModeTable(**columns, displacements=self.displacements[:, which])


@dataclass(frozen=True)
class Solved:
    """What came out for one subject.

    Attributes:
        table: Of all points; its weights are the first row of `Points.weights`.
        tensors: (sum, temperature, atom, 3, 3) U in Å², before any average over stars.
        eigenvectors: (q, mode, atom, 3) where asked for.
    """

    table: ModeTable
    tensors: np.ndarray
    eigenvectors: np.ndarray | None


def solved_modes(
    subjects: Sequence[Subject],
    points: Sequence[Points],
    temperatures: Sequence[float],
    floor: float,
    *,
    chunk: int | None = None,
    shape: Shape | None = None,
    eigenvectors: bool = False,
) -> list[Solved]:
    """Return the modes of crystals that go through together, padded to one shape.

    Where the device runs out of memory, fewer q are taken at a time.

    Args:
        subjects: All with dipoles or all without, all free or all held.
        points: Of each.
        temperatures: K.
        floor: λ (eV Å⁻² amu⁻¹) up to which modes are no oscillators.
        chunk: q of each crystal in flight.
        shape: At least that of `shape_of`; to share compiled functions among batches.
        eigenvectors: Return them as well.
    """
    if shape is None:
        shape = shape_of(subjects)
    if chunk is None:
        longest = max(len(p.q) for p in points)
        chunk = min(points_at_a_time(shape.atoms, shape.crystals), longest)
    together = stacked([padded(s, shape) for s in subjects])
    while True:
        try:
            return _in_chunks(subjects, points, together, temperatures, floor, chunk, eigenvectors)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or chunk == 1:
                raise
            chunk = max(1, chunk // 2)


def _in_chunks(subjects, points, together, temperatures, floor, chunk, eigenvectors):
    longest = max(len(p.q) for p in points)
    starts = range(0, longest, chunk)
    sums = points[0].weights.shape[0]
    size = len(starts) * chunk

    def filled(values, axis=0):
        """Repeat the last row: a q-point like any other, of no weight."""
        values = np.asarray(values)
        return np.concatenate(
            [values, np.repeat(values[-1:], size - len(values), axis=axis)], axis=axis
        )

    q = np.stack([filled(p.q) for p in points])
    directions = np.stack([filled(p.directions) for p in points])
    weights = np.zeros((len(points), sums, size))
    for s, p in enumerate(points):
        weights[s, :, : len(p.q)] = p.weights
    T, floor = jnp.asarray(temperatures, float), jnp.asarray(floor, float)

    def one(start):
        part = slice(start, start + chunk)
        table, U, E = _solve_chunk(
            together, jnp.asarray(q[:, part]), jnp.asarray(directions[:, part]),
            jnp.asarray(weights[:, :, part]), T, floor,
        )  # fmt: skip
        table, U = jax.tree.map(np.asarray, (table, U))
        return table, U, np.asarray(E) if eigenvectors else None

    parts = [one(start) for start in starts]
    out = []
    for s, (subject, p) in enumerate(zip(subjects, points, strict=True)):
        count, n, groups = len(p.q), len(subject.held.crystal), len(subject.members)

        def joined(name, s=s, count=count):
            axis = 1 if name == "displacements" else 0
            found = np.concatenate([t[name][s] for t, _, _ in parts], axis=axis)
            return found[:, :count] if axis else found[:count]

        columns = {name: joined(name) for name in ModeTable.__dataclass_fields__}
        for name, values in columns.items():
            if name == "displacements":
                columns[name] = values[:, :, : 3 * n, :n]
            elif name == "shares":
                columns[name] = values[:, : 3 * n, :groups]
            elif values.ndim == 2 and name != "q":
                columns[name] = values[:, : 3 * n]
        U = np.sum([u[s] for _, u, _ in parts], axis=0)[:, :, :n]
        E = None
        if eigenvectors:
            E = np.concatenate([e[s] for _, _, e in parts if e is not None])[:count, : 3 * n, :n]
        out.append(Solved(ModeTable(**columns), U, E))
    return out


def _solve_chunk(together: Subject, q, directions, weights, temperatures, floor):
    """Return the table, U and the eigenvectors of a chunk; leading axis crystals."""
    values, E = solved(together.held, q, directions)
    return _describe(together, q, weights, values, E, temperatures, floor)


@jax.jit
def _describe(together: Subject, q, weights, values, E, temperatures, floor):
    crystals, count = q.shape[:2]
    n = values.shape[-1]
    E = E.reshape(crystals, count, n, n // 3, 3)

    def one(subject, q, weights, values, E):
        return _described(subject, q, weights, values, E, temperatures, floor)

    arguments = (together, q, weights, values.reshape(crystals, count, n), E)
    if crystals == 1:  # batched products of a single crystal take XLA twice as long
        alone = one(*jax.tree.map(lambda leaf: leaf[0], arguments))
        table, U = jax.tree.map(lambda leaf: leaf[None], alone)
    else:
        table, U = jax.vmap(one)(*arguments)
    return table, U, E


def _described(
    subject: Subject,
    q: Float[Array, "q 3"],
    weights: Float[Array, "sum q"],
    eigenvalues: Float[Array, "q mode"],
    E: Complex[Array, "q mode atom 3"],
    temperatures: Float[Array, " T"],
    floor: Float[Array, ""],
) -> tuple[dict[str, Array], Float[Array, "sum T atom 3 3"]]:
    """Return the columns of a `ModeTable`, and U."""
    crystal, mobile = subject.held.crystal, subject.mobile
    found = Modes(q, weights[0], eigenvalues, E, crystal, subject.held.free)
    which = oscillators(found, floor)
    blocks = degenerate_blocks(eigenvalues, width=subject.width)
    each = atomic_weights(found, blocks)
    paper = coupling_paper(found, mobile, blocks)
    real = jnp.sum(crystal.numbers > 0)
    table = {
        "q": q,
        "weights": weights[0],
        "eigenvalues": eigenvalues,
        "kept": which.kept,
        "translations": which.translations,
        "imaginary": which.imaginary,
        "shares": each @ subject.members.T.astype(each.dtype),
        "displacements": jax.vmap(lambda T: mode_displacements(found, T, which.kept, blocks))(
            temperatures
        ),
        "participation": participation_ratio(each, real),
        "participation_mass_weighted": participation_ratio_mass_weighted(
            each, crystal.masses, real
        ),
        "coupling": coupling(found, subject.among, blocks),
        "coupling_paper": paper.values,
        "on_boundary": paper.on_boundary,
    }
    U = jax.vmap(
        lambda w: displacement_tensors(replace(found, weights=w), temperatures, which.kept)
    )(weights)
    return table, U


def described(
    subject: Subject, q: Float[Array, "q 3"], values, E, temperatures, floor
) -> dict[str, Array]:
    """Return the columns of a `ModeTable` for eigenvectors E (rows), each q of weight 1/N_q."""
    weights = jnp.full((1, 1, len(q)), 1 / len(q))
    together = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], subject)
    return _describe(together, q[None], weights, values, E, temperatures, jnp.asarray(floor))[0]
