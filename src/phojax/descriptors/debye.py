"""The long-wave limit: sound, Debye frequencies, and what a mesh misses of U in the cell of Γ.

Near Γ the acoustic modes move the crystal rigidly, with the 3×3 matrix

    C(q) = T†DT − T†DQ (Q†DQ)⁻¹ Q†DT                                                    (1)

of order q², T the three translations and Q their complement (the other coordinates follow); its
real part, for the imaginary one, odd in q, is of higher order in rotationally invariant crystals.
It is a ratio of polynomials: of second degree in q without dipoles; with them, for n = q/|q|,

    C(q) = |q|² N(n) / (n·ε₀·n),   N of fourth degree,   ε₀ = ε + (4πk/V) Zᵀ(Q†DQ)⁻¹Z         (2)

with the static dielectric tensor ε₀ (k = e²/4πε₀ in SI, as in `nac`): piezoelectric stiffening. The
speeds of sound are the roots of its eigenvalues, and g(ν) → a ν² with

    a = V/(2π)³ ∫dΩ Σ_s (ν_s/|q|)⁻³,    ν_D = (9N/a)^(1/3),    k_B θ_D = hν_D                (3)

for N atoms per cell. A mesh leaves the translations at Γ out, though the thermal displacement has a
singularity there: near Γ it is g(C(q))/M for every atom (g: `displacements`, M: mass of the
cell). With h(q) = g(C(q)) exp(−|q|²/2s²), over all of space, the error of the mesh is that of h and
a rest without singularity, whose error is of order 1/N_q instead of 1/n. So

    ΔU = (1/M) {∫h d³q / V_BZ − (1/N_q) [Σ'_m h(q_m) − k_BT ⟨C(n)⁻¹⟩/2s²]},                 (4)

over all points of the mesh, continued beyond the zone, but Γ, where the last term is the limit of
g(C) − h, averaged over directions n. s is a few steps of the mesh.
Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), §§ 26, 32, 44; Gygi, Baldereschi,
Phys. Rev. B 34, 4405 (1986) for the subtraction. On the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from ase.geometry import minkowski_reduce
from jaxtyping import Array, Bool, Float
from scipy import constants as _si

from phojax.checks import check_shape, fail
from phojax.dynmat import Interpolation, dynamical_matrices, interpolation
from phojax.force_constants.container import ForceConstants
from phojax.modes import chunk_size, in_chunks
from phojax.units import HBAR, KB, THZ

_STEP = 0.03  # radians over the range of the force constants
_NO_FORM = 1e-6  # relative; 1e-9 where the form is right
_DRIFT = 1e-5  # of the largest force constant over mass, that a translation at Γ may leave
_NEGLIGIBLE = 1e-14
_POWERS = np.array(
    [(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]
)  # of the components of n in N


@dataclass(frozen=True)
class Acoustics:
    """C(q) of eq. (2).

    Attributes:
        numerator: (15, 3, 3) coefficients of N, Å² · eV Å⁻² amu⁻¹.
        dielectric: (3, 3) ε₀; the unit matrix without dipoles.
        cell: (3, 3) lattice vectors, Å.
        mass: Of the cell, amu.
        atoms: N, in the cell.
    """

    numerator: np.ndarray
    dielectric: np.ndarray
    cell: np.ndarray
    mass: float
    atoms: int

    @property
    def stable(self) -> bool:
        """Whether C is positive in every direction of a fine grid."""
        return bool(np.linalg.eigvalsh(acoustic_matrices(self, _sphere()[0])).min() > 0)


def acoustics(force_constants: ForceConstants | Interpolation) -> Acoustics:
    """Return the long-wave limit of force constants, dipoles included where they are there.

    Raises:
        InputError: force constants that break the translational sum rule, or of a crystal that is
            held, which have no acoustic modes; a potential (`bloch.exact`) with charges in a
            piezoelectric crystal.
    """
    held = interpolation(force_constants)
    crystal = held.crystal
    if not held.free:
        raise fail("a crystal with atoms that are held", "one that may move as a whole")
    masses = np.where(np.asarray(crystal.numbers) > 0, np.asarray(crystal.masses), 0.0)
    T = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
    real = np.repeat(masses > 0, 3)
    # The columns of an orthogonal matrix after T, on atoms that are no padding.
    Q = np.zeros((len(T), real.sum() - 3))
    Q[real] = np.linalg.qr(T[real], mode="complete")[0][:, 3:]

    cell = np.asarray(crystal.cell, float)
    reach = np.linalg.norm(np.asarray(held.lattice) @ cell, axis=1).max(initial=0.0)
    if held.exact is not None:
        reach = held.exact.reach
    length = _STEP / max(float(reach), float(np.linalg.norm(cell, axis=1).max()))
    n = _directions(24)
    q = length * np.concatenate([np.zeros((1, 3)), n, 2 * n]) @ cell.T / (2 * np.pi)
    D = np.asarray(_matrices(held, jnp.asarray(q)))
    at_gamma = D[0].real
    drift = at_gamma @ T
    largest = np.abs(np.asarray(held.values)).max(initial=0.0) / masses[masses > 0].min()
    if held.exact is not None:
        largest = np.abs(at_gamma).max()
    if np.abs(drift).max() > _DRIFT * largest:
        raise fail(
            f"translations at Γ leave {np.abs(drift).max():.1e} eV Å⁻² amu⁻¹",
            "none",
            "Enforce the sum rule first (force_constants.sum_rules.enforced)",
        )
    dielectric = np.eye(3)
    if held.dipoles is not None:
        born = held.dipoles.born
        charges = np.asarray(born.charges) / np.sqrt(np.asarray(crystal.masses))[:, None, None]
        Z = Q.T @ charges.transpose(0, 2, 1).reshape(-1, 3)
        factor = 4 * np.pi * float(born.factor) / abs(np.linalg.det(cell))
        optical = Q.T @ at_gamma @ Q
        dielectric = np.asarray(born.dielectric) + factor * Z.T @ np.linalg.solve(optical, Z)

    C = _condensed(D[1:], T, Q, drift) / length**2
    # What is left of order |q|⁴ in C goes by Richardson's extrapolation.
    C = (4 * C[: len(n)] - C[len(n) :] / 4) / 3
    left = _monomials(n)
    right = C * np.einsum("ka,ab,kb->k", n, dielectric, n)[:, None, None]
    right = right.reshape(len(n), 9)
    fitted, *_ = np.linalg.lstsq(left, right, rcond=None)
    off = np.abs(left @ fitted - right).max() / np.abs(right).max()
    if held.exact is not None and off > _NO_FORM:
        # The dielectric tensor of charges in a potential is not known here.
        raise fail(
            f"sound whose dependence on direction is off by {off:.1g} from that without fields",
            "a potential without charges, or a crystal that is not piezoelectric",
            "Take force constants with Born charges",
        )
    return Acoustics(fitted.reshape(-1, 3, 3), dielectric, cell, masses.sum(), int(real.sum()) // 3)


def acoustic_matrices(found: Acoustics, q: np.ndarray) -> np.ndarray:
    """Return (k, 3, 3) C(q) of eq. (2) in eV Å⁻² amu⁻¹ for q (k, 3), Cartesian in Å⁻¹, not 0."""
    square = np.sum(q**2, axis=1)
    n = q / np.sqrt(square)[:, None]
    scale = square / np.einsum("ka,ab,kb->k", n, found.dielectric, n)
    return scale[:, None, None] * np.tensordot(_monomials(n), found.numerator, axes=1)


def debye_frequency(found: Acoustics) -> float:
    """Return ν_D of eq. (3) in THz, exact at low frequencies; NaN where C is unstable."""
    n, weight = _sphere()
    slopes = THZ * _root(np.linalg.eigvalsh(acoustic_matrices(found, n)))
    volume = abs(np.linalg.det(found.cell))
    a = volume / (2 * np.pi) ** 3 * (weight @ np.sum(slopes**-3, axis=1))
    return float((9 * found.atoms / a) ** (1 / 3))


def debye_temperature(frequency: float) -> float:
    """Return θ_D in K of a Debye frequency in THz."""
    return frequency * 1e12 * _si.h / _si.k


def fitted_debye_frequency(
    frequencies: Float[Array, " f"],
    curve: Float[Array, " f"],
    atoms: int,
    fitted: Bool[Array, " f"] | None = None,
) -> Float[Array, ""]:
    """Return the ν_D in THz of the parabola aν² closest to a density of states, eq. (3).

    The least-squares fit of phonopy. It depends on grid, mesh and smearing; `debye_frequency` does
    not. Differentiable in the curve.

    Args:
        frequencies: Even grid in THz.
        curve: Total density of states, modes per THz and cell.
        atoms: N, in the cell.
        fitted: Points that count; by default the first quarter of the grid.
    """
    if fitted is None:
        fitted = jnp.arange(len(frequencies)) < len(frequencies) // 4
    square = jnp.where(fitted, frequencies**2, 0.0)
    a = jnp.sum(square * curve) / jnp.sum(square**2)
    return jnp.cbrt(9 * atoms / a)


def gamma_cell_correction(
    found: Acoustics,
    divisions: Sequence[int],
    temperature: float,
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    width: float = 2.0,
) -> np.ndarray:
    """Return (3, 3) ΔU of eq. (4) in Å², to be added to the tensor of every atom.

    NaN where C is unstable in some direction, so that the singularity is none of an oscillator.

    Args:
        found: From `acoustics`, with the dipoles that the modes had.
        divisions: Of the mesh.
        temperature: T ≥ 0 in K.
        shift: Of the mesh, in steps; with one, no point is left out.
        width: s in longest steps of the mesh. From 1.5 on the result hardly depends on it.

    Raises:
        InputError: divisions that are not three positive integers; T below 0.
    """
    n = np.asarray(divisions)
    check_shape("mesh", n, (3,))
    if n.dtype.kind != "i" or n.min() < 1:
        raise fail(f"mesh {n.tolist()}", "three integers of at least 1")
    if not temperature >= 0:
        raise fail(f"temperature {temperature}", "a number in K, 0 or more")
    if not found.stable:
        return np.full((3, 3), np.nan)
    basis = 2 * np.pi * np.linalg.inv(found.cell).T
    steps = basis / n[:, None]
    reduced, _ = minkowski_reduce(steps)
    s = width * np.linalg.norm(reduced, axis=1).max()
    reach = s * np.sqrt(-2 * np.log(_NEGLIGIBLE))

    points = _lattice_points(reduced, reach, np.asarray(shift, float) @ steps)
    points = points[np.any(np.abs(points) > 1e-9 * s, axis=1)]
    x, e = np.linalg.eigh(acoustic_matrices(found, points))
    damped = np.exp(-np.sum(points**2, axis=1) / (2 * s**2))
    summed = _rebuilt(e, _variance(x, temperature) * damped[:, None]).sum(axis=0)

    n_hat, weight = _sphere()
    x, e = np.linalg.eigh(acoustic_matrices(found, n_hat))
    # q = reach t³, since at low temperature g bends at q ~ k_BT/ħv.
    t, dt = np.polynomial.legendre.leggauss(64)
    t, dt = (t + 1) / 2, dt / 2
    r, dr = reach * t**3, 3 * reach * t**2 * dt
    shells = _variance(x[..., None] * r**2, temperature) @ (
        r**2 * np.exp(-(r**2) / (2 * s**2)) * dr
    )
    integral = np.tensordot(weight, _rebuilt(e, shells), axes=1)
    if not np.any(shift):
        limit = KB * temperature * np.tensordot(weight, _rebuilt(e, 1 / x), axes=1)
        summed = summed - limit / (4 * np.pi) / (2 * s**2)
    volume = abs(np.linalg.det(basis))
    return (integral / volume - summed / n.prod()) / found.mass


@jax.jit
def _matrices(held, q):
    def at(q):
        return dynamical_matrices(held, q)

    return in_chunks(at, q, chunk_size(held.crystal))


def _condensed(D, T, Q, drift):
    """Return C of eq. (1), (k, 3, 3), of (k, mode, mode) D; what `drift` is at Γ taken off."""
    TDT = T.T @ D @ T - T.T @ drift
    QDT = Q.T @ D @ T - Q.T @ drift
    C = TDT - QDT.conj().swapaxes(1, 2) @ np.linalg.solve(Q.T @ D @ Q, QDT)
    # The imaginary part is odd in q: of third order, or, where force constants miss rotational
    # invariance, an artefact of first order.
    return (C.real + C.real.swapaxes(1, 2)) / 2


def _monomials(n):
    return np.prod(n[:, None, :] ** _POWERS, axis=2)


def _directions(count):
    """Return directions spread evenly over half a sphere, by a golden spiral."""
    k = np.arange(count) + 0.5
    z, turn = k / count, np.pi * (1 + np.sqrt(5)) * k
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)


def _sphere(count=24):
    """Return directions and weights of ∫dΩ over even functions: Gauss-Legendre times even steps."""
    z, weight = np.polynomial.legendre.leggauss(2 * count)
    z, weight = z[count:], 2 * weight[count:]
    turn = 2 * np.pi * (np.arange(4 * count) + 0.5) / (4 * count)
    z, turn = (a.ravel() for a in np.meshgrid(z, turn, indexing="ij"))
    r = np.sqrt(1 - z**2)
    n = np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)
    return n, np.repeat(weight, 4 * count) * (2 * np.pi / (4 * count))


def _lattice_points(steps, reach, origin):
    """Return origin + all lattice points, (k, 3), within `reach` of 0."""
    heights = np.linalg.norm(np.linalg.inv(steps), axis=0)
    bound = np.ceil(reach * heights).astype(int) + 1
    axes = [np.arange(-b, b + 1) for b in bound]
    m = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    points = m @ steps + origin
    return points[np.sum(points**2, axis=1) <= reach**2]


def _variance(x, temperature):
    """Return g of `displacements` for concrete λ, in amu Å²."""
    omega = np.sqrt(x)
    if temperature == 0:
        return HBAR / (2 * omega)
    return HBAR / (2 * omega) / np.tanh(HBAR * omega / (2 * KB * temperature))


def _rebuilt(e, values):
    return (e * values[:, None, :]) @ e.swapaxes(1, 2)


def _root(x):
    return np.sqrt(np.where(x > 0, x, np.nan))
