"""Dynamical matrices as a function of strain, and what vibrations do to the cell.

    D(s) = D₀ + Σ_a s_a D_a + ½ Σ_ab s_a s_b D_ab,   A = A₀ (1 + Σ_a s_a B_a)               (1)

with B_a an orthonormal basis of the symmetric strains that keep the space group, q fixed in units
of the reciprocal lattice, and ions where the static energy of the strained cell is least. Between
two such expansions, at s = 0 and s = f, D is the polynomial of fifth degree along f that has both
their values and derivatives (Hermite's), D_r across it one of third degree, D_rr one of first;
beyond them it is that of the nearer one. Second derivatives are continuous. From D come the
vibrational free energy at any strain and temperature, and

    γ_qn,a = -∂ln ω_qn/∂s_a,   ∂S/∂s_a = Σ_qn w_q C_qn γ_qn,a = -∂²F/∂s_a ∂T              (2)

the Grüneisen tensor γ = Σ_a γ_a B_a of a mode, whose trace is three times the parameter of the
volume under an isotropic strain.
Source: Barron, Collins, White, Adv. Phys. 29, 609 (1980), section 2.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from phojax.checks import fail
from phojax.descriptors.displacements import eigenvalue_count_below
from phojax.descriptors.thermodynamics import Thermodynamics, thermodynamics_from_matrices
from phojax.dynmat import Interpolation, dynamical_matrices, interpolation
from phojax.force_constants.container import ForceConstants
from phojax.gradients.vibrations import FLOOR
from phojax.gruneisen import gruneisen_of_slopes
from phojax.modes import Modes, eigenpairs_at
from phojax.pytree import pytree
from phojax.spectral import Scalar
from phojax.structure import Structure


@pytree()
class StrainedMatrices:
    """Eq. (1) on a mesh, or what joins two of them.

    Attributes:
        crystal: At no strain.
        q: Fractional, Γ among them.
        weights: Sum to one.
        strains: B_a.
        value: D₀, eV Å⁻² amu⁻¹.
        first: D_a, per unit strain.
        second: D_ab, symmetric in the first two axes.
        reach: Distance from the strains expanded about, and from the line between them, up to which
            this is meant; what lies beyond is an extrapolation.
        origin: s that this is an expansion about.
        far: Another one, about another strain.
    """

    crystal: Structure
    q: Float[Array, "q 3"]
    weights: Float[Array, " q"]
    strains: Float[Array, "e 3 3"]
    value: Complex[Array, "q mode mode"]
    first: Complex[Array, "e q mode mode"]
    second: Complex[Array, "e e q mode mode"]
    reach: Float[Array, ""]
    origin: Float[Array, " e"]
    far: "StrainedMatrices | None" = None

    def at(self, s: Float[Array, " e"]) -> Complex[Array, "q mode mode"]:
        """Return D(s)."""
        if self.far is None:
            return _parabola(self, s)
        along, x, across = self._parts(s)
        one, two = _between(self, along, across), _between(self.far, along, across)
        value = _quintic(x, one, two)
        return jnp.where(
            x <= 0, _parabola(self, s), jnp.where(x >= 1, _parabola(self.far, s), value)
        )

    def _parts(self, s):
        """Return f, the share of f in s, and what of s is across it."""
        assert self.far is not None
        along = self.far.origin - self.origin
        apart = s - self.origin
        x = (apart @ along) / (along @ along)
        return along, x, apart - x * along

    def distance(self, s: Float[Array, " e"]) -> Float[Array, ""]:
        """Return how far a strain is from those expanded about, or from the line between them."""
        if self.far is None:
            return jnp.linalg.norm(s - self.origin)
        along, x, _ = self._parts(s)
        return jnp.linalg.norm(s - self.origin - jnp.clip(x, 0, 1) * along)

    def strain(self, s: Float[Array, " e"]) -> Float[Array, "3 3"]:
        """Return Σ_a s_a B_a."""
        return jnp.einsum("a,aij->ij", s, self.strains)

    def thermodynamics(
        self, s: Float[Array, " e"], temperature: Scalar, floor: Scalar = FLOOR
    ) -> Thermodynamics:
        """Return F, S and C of the vibrations in a strained cell; modes with λ ≤ floor left out.

        Differentiable twice in s.
        """
        return thermodynamics_from_matrices(
            self.at(s), self.q, self.weights, self.crystal, temperature, floor
        )

    def count_left_out(self, s: Float[Array, " e"], floor: Scalar = FLOOR) -> Int[Array, ""]:
        """Return how many modes have λ ≤ floor, translations not counted."""
        return jnp.sum(eigenvalue_count_below(self.at(s), self.q, self.crystal, floor))


def _parabola(held: StrainedMatrices, s):
    apart = s - held.origin
    linear = jnp.einsum("a,aqij->qij", apart, held.first)
    return held.value + linear + jnp.einsum("a,b,abqij->qij", apart, apart, held.second) / 2


def _between(held: StrainedMatrices, along, across):
    """Return D and its two derivatives in x, and those of D_r·r and ½ rD_rr r, at an end."""
    slope = jnp.einsum("a,aqij->qij", along, held.first)
    bend = jnp.einsum("a,b,abqij->qij", along, along, held.second)
    sideways = jnp.einsum("a,aqij->qij", across, held.first)
    mixed = jnp.einsum("a,b,abqij->qij", along, across, held.second)
    twice = jnp.einsum("a,b,abqij->qij", across, across, held.second) / 2
    return held.value, slope, bend, sideways, mixed, twice


def _quintic(x, one, two):
    """Return Hermite's polynomials of degree 5, 3 and 1 together (x from 0 to 1)."""
    v0, d0, b0, s0, m0, t0 = one
    v1, d1, b1, s1, m1, t1 = two
    y = 1 - x
    step = x**3 * (10 - 15 * x + 6 * x**2)
    along = (
        v0 + (v1 - v0) * step
        + d0 * x * y**3 * (1 + 3 * x) - d1 * y * x**3 * (1 + 3 * y)
        + b0 * x**2 * y**3 / 2 + b1 * y**2 * x**3 / 2
    )  # fmt: skip
    across = s0 + (s1 - s0) * x**2 * (3 - 2 * x) + m0 * x * y**2 - m1 * y * x**2
    return along + across + t0 * y + t1 * x


def joined(near: StrainedMatrices, far: StrainedMatrices, reach: float) -> StrainedMatrices:
    """Return what joins two expansions of one crystal (see the header), meant up to `reach`."""
    return replace(near, far=far, reach=jnp.asarray(float(reach)))


def coarser(both: StrainedMatrices) -> StrainedMatrices:
    """Return the polynomials of degree 3, 1 and 1 that D's values and slopes give at both ends.

    Second derivatives take no part, but across the line: what comes of the two tells about
    what is wrong with `both`, between the two and less surely beyond.
    """
    far = both.far
    assert far is not None
    along = far.origin - both.origin
    length = jnp.linalg.norm(along)
    n = along / length
    P = jnp.eye(len(n)) - jnp.outer(n, n)
    rise = far.value - both.value
    slopes = [jnp.einsum("a,aqij->qij", along, held.first) for held in (both, far)]
    bends = 6 * rise - 4 * slopes[0] - 2 * slopes[1], -6 * rise + 2 * slopes[0] + 4 * slopes[1]
    sideways = jnp.einsum("ab,bqij->aqij", P, far.first - both.first) / length

    def bent(held: StrainedMatrices, bend) -> StrainedMatrices:
        mixed = jnp.einsum("a,bqij->abqij", n, sideways)
        second = jnp.einsum("a,b,qij->abqij", n, n, bend / length**2)
        second += mixed + mixed.swapaxes(0, 1)
        second += jnp.einsum("ac,cdqij,db->abqij", P, held.second, P)
        return replace(held, second=second)

    return replace(bent(both, bends[0]), far=bent(far, bends[1]))


@pytree()
class VibrationalPart:
    """F of the vibrations and its derivatives in strain, at one strain and temperature.

    Attributes:
        free_energy: eV per cell.
        entropy: eV/K per cell.
        heat_capacity: eV/K per cell, at constant strain.
        by_strain: ∂F/∂s, eV.
        by_strain_twice: ∂²F/∂s², eV.
        entropy_by_strain: ∂S/∂s, eV/K.
        left_out: Modes that are not in it.
    """

    free_energy: Float[Array, ""]
    entropy: Float[Array, ""]
    heat_capacity: Float[Array, ""]
    by_strain: Float[Array, " e"]
    by_strain_twice: Float[Array, "e e"]
    entropy_by_strain: Float[Array, " e"]
    left_out: Int[Array, ""]


@jax.jit
def vibrational_part(
    matrices: StrainedMatrices, s: Float[Array, " e"], temperature: Scalar
) -> VibrationalPart:
    """Return what the vibrations add to the free energy of a strained cell."""

    def free_energy(s):
        return matrices.thermodynamics(s, temperature).free_energy

    def entropy(s):
        found = matrices.thermodynamics(s, temperature)
        return found.entropy, found

    by_strain, found = jax.grad(entropy, has_aux=True)(s)
    return VibrationalPart(
        found.free_energy, found.entropy, found.heat_capacity, jax.grad(free_energy)(s),
        jax.jacfwd(jax.grad(free_energy))(s), by_strain, matrices.count_left_out(s),
    )  # fmt: skip


def gruneisen_tensors(matrices: StrainedMatrices) -> tuple[Modes, Float[Array, "q mode 3 3"]]:
    """Return the modes at no strain and γ of eq. (2); NaN for translations and soft modes.

    In degenerate blocks each component is diagonalised by itself, so that of a block only sums
    belong together.
    """
    found = modes_at_rest(matrices)
    each = jnp.stack([gruneisen_of_slopes(found, D) for D in matrices.first], axis=-1)
    return found, jnp.einsum("qna,aij->qnij", each, matrices.strains)


def gruneisen_of_volume(matrices: StrainedMatrices) -> tuple[Modes, Float[Array, "q mode"]]:
    """Return the modes at no strain and -∂ln ω/∂ln V, the cell strained isotropically."""
    found = modes_at_rest(matrices)
    traces = jnp.trace(matrices.strains, axis1=1, axis2=2)
    slopes = jnp.einsum("a,aqij->qij", traces, matrices.first) / 3
    return found, gruneisen_of_slopes(found, slopes)


@jax.jit
def modes_at_rest(matrices: StrainedMatrices) -> Modes:
    """Return the modes at no strain."""
    eigenvalues, E = eigenpairs_at(matrices.value, matrices.q, matrices.crystal)
    n = len(matrices.crystal)
    vectors = E.swapaxes(1, 2).reshape(E.shape[0], E.shape[2], n, 3)
    return Modes(matrices.q, matrices.weights, eigenvalues, vectors, matrices.crystal)


def through_volumes(
    smaller: ForceConstants | Interpolation,
    middle: ForceConstants | Interpolation,
    larger: ForceConstants | Interpolation,
    q: Float[np.ndarray, "q 3"],
    weights: Float[np.ndarray, " q"],
) -> StrainedMatrices:
    """Return the parabola of D(q) through three volumes of a crystal, in its edge length (host).

    Its one strain is the isotropic one, B = 1/√3; the parabola reaches from the smaller volume to
    the larger one.

    Args:
        smaller: Force constants at a smaller volume; with dipoles, or none, at all three.
        middle: Those that the strain counts from.
        larger: At a larger volume. Cells of one shape.
        q: Fractional.
        weights: Sum to one.

    Raises:
        InputError: volumes that do not ascend, cells of other shapes, dipoles at some volumes.
    """
    all_three = [interpolation(held) for held in (smaller, middle, larger)]
    if len({held.dipoles is None for held in all_three}) > 1:
        raise fail("dipoles at some of three volumes", "Born charges at all, or at none")
    reference = np.asarray(all_three[1].crystal.cell)
    at = []
    for held in all_three:
        ratio = np.linalg.inv(reference) @ np.asarray(held.crystal.cell)
        length = np.trace(ratio) / 3
        if np.abs(ratio - length * np.eye(3)).max() > 1e-6:
            raise fail("cells of different shapes or orientations", "one cell in three sizes")
        at.append(np.sqrt(3) * (length - 1))
    if not at[0] < at[1] < at[2]:
        raise fail("volumes that do not ascend", "the smaller, the middle and the larger one")
    low, _, high = at
    points, shares = jnp.asarray(q, float), jnp.asarray(weights, float)
    less, held, more = (
        jax.jit(partial(dynamical_matrices, held))(points, None) for held in all_three
    )
    down, up = (less - held) / low, (more - held) / high
    second = 2 * (up - down) / (high - low)
    first = (up * -low + down * high) / (high - low)
    return StrainedMatrices(
        all_three[1].crystal, points, shares, jnp.eye(3)[None] / np.sqrt(3),
        held, first[None], second[None, None], jnp.asarray(max(-low, high)), jnp.zeros(1),
    )  # fmt: skip


__all__ = [
    "StrainedMatrices",
    "VibrationalPart",
    "coarser",
    "gruneisen_of_volume",
    "gruneisen_tensors",
    "joined",
    "modes_at_rest",
    "through_volumes",
    "vibrational_part",
]
