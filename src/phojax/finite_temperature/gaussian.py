"""The Gaussian ensemble of a harmonic crystal on a supercell, and weights between ensembles.

    ρ(R) ∝ exp[-½ (R - r)ᵀ C⁻¹ (R - r)],   C = M^(-½) E g E^T M^(-½)                      (1)
    g_n = ħ coth(ħω_n/2k_BT) / 2ω_n,   or k_BT/λ_n                                        (2)

with λ = ω² and E the modes of force constants Φ on the supercell (real, at its Γ point), r the
centroids: the ensemble of Φ at the temperature T, quantum or classical. Rigid translations carry
no displacement. Modes that are no oscillators still need a width to be sampled at all: λ below a
floor counts as max(|λ|, floor) in (2), and is told.

An average over ρ from samples of other ensembles ρ_k, n_k of each, takes the weights

    w(R) = ρ(R) / Σ_k n_k ρ_k(R)                                                         (3)

(the balance heuristic), of which (Σw)²/Σw² is the effective number of samples.
Source: Maradudin et al., Theory of Lattice Dynamics in the Harmonic Approximation (1971), § 7.2 for
(1) and (2); Veach and Guibas, SIGGRAPH 95, 419 (1995), eq. 13 for (3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, ndtri
from scipy.stats import qmc

from phojax.checks import fail
from phojax.descriptors.displacements import oscillator_variance
from phojax.force_constants.container import ForceConstants
from phojax.force_constants.sum_rules import cell_index
from phojax.units import KB, eigenvalue_from_THz

STATISTICS = ("quantum", "classical")


@dataclass(frozen=True)
class Gaussian:
    """The ensemble (1).

    Attributes:
        centroids: r, Å, of all atoms of the supercell.
        eigenvalues: λ of all modes but the translations, ascending, eV Å⁻² amu⁻¹.
        vectors: E, columns, mass-weighted.
        variances: g of (2), amu Å².
        masses: amu.
        floored: Modes whose λ lies below the floor.
    """

    centroids: Float[np.ndarray, "atom 3"]
    eigenvalues: Float[np.ndarray, " mode"]
    vectors: Float[np.ndarray, "xyz mode"]
    variances: Float[np.ndarray, " mode"]
    masses: Float[np.ndarray, " atom"]
    floored: int

    @property
    def displacements(self) -> Float[np.ndarray, "atom 3 3"]:
        """⟨u uᵀ⟩ of every atom, Å²."""
        E = self.vectors.reshape(len(self.masses), 3, -1)
        each = np.einsum("ian,n,ibn->iab", E, self.variances, E, optimize=True)
        return each / self.masses[:, None, None]

    def of_normals(self, xi: Float[np.ndarray, "set mode"]) -> Float[np.ndarray, "set atom 3"]:
        """Return displacements from the centroids (Å) for standard normal numbers."""
        y = (xi * np.sqrt(self.variances)) @ self.vectors.T
        return y.reshape(len(xi), -1, 3) / np.sqrt(self.masses)[:, None]

    def log_density(self, positions: Float[np.ndarray, "set atom 3"]) -> Float[np.ndarray, " set"]:
        """Return ln ρ up to a constant that all ensembles of these masses share."""
        moved = (positions - self.centroids) * np.sqrt(self.masses)[:, None]
        y = moved.reshape(len(positions), -1) @ self.vectors
        return -0.5 * (y**2 / self.variances).sum(1) - 0.5 * np.log(self.variances).sum()

    def harmonic_energy(
        self, positions: Float[np.ndarray, "set atom 3"]
    ) -> Float[np.ndarray, " set"]:
        """Return ½ uᵀ Φ u in eV."""
        moved = (positions - self.centroids) * np.sqrt(self.masses)[:, None]
        y = moved.reshape(len(positions), -1) @ self.vectors
        return 0.5 * (y**2) @ self.eigenvalues


def check_statistics(statistics: str, temperature: float) -> None:
    """Raise InputError for statistics or temperatures without meaning."""
    if statistics not in STATISTICS:
        raise fail(f"statistics {statistics!r}", " or ".join(STATISTICS))
    if not (np.isfinite(temperature) and temperature >= 0):
        raise fail(f"a temperature of {temperature} K", "0 or more")
    if statistics == "classical" and temperature == 0:
        raise fail(
            "classical widths at 0 K, which are none",
            "a temperature above 0",
            "At 0 K take quantum widths",
        )


def supercell_matrix(constants: ForceConstants) -> Float[np.ndarray, "xyz xyz"]:
    """Return the whole Φ of the supercell, eV/Å², in the order of its atoms; symmetric."""
    cells = constants.supercell
    values = np.asarray(constants.values)
    n, images = len(values), np.asarray(cells.images)
    copies = len(images)
    to = cell_index(cells, images[None] - images[:, None])  # (L, M): M seen from L
    by_cell = values.reshape(n, n, copies, 3, 3)[:, :, to]  # i j L M a b
    full = by_cell.transpose(0, 2, 4, 1, 3, 5).reshape(3 * n * copies, -1)
    return (full + full.T) / 2


def supercell_modes(
    constants: ForceConstants,
) -> tuple[Float[np.ndarray, " mode"], Float[np.ndarray, "xyz mode"]]:
    """Return λ, ascending, and real modes of the supercell, the three translations left out."""
    masses = np.repeat(np.asarray(constants.supercell.structure.masses), 3)
    D = supercell_matrix(constants) / np.sqrt(masses[:, None] * masses)
    if not constants.free:
        values, vectors = np.linalg.eigh(D)
        return values, vectors
    root = np.sqrt(masses.reshape(-1, 3)[:, 0])
    T = np.kron((root / np.linalg.norm(root))[:, None], np.eye(3))
    above = 1 + 2 * np.abs(D).sum(1).max()
    DT = D @ T
    D = D - DT @ T.T - T @ DT.T + T @ (T.T @ DT + above * np.eye(3)) @ T.T
    values, vectors = np.linalg.eigh((D + D.T) / 2)
    return values[:-3], vectors[:, :-3]


def gaussian(
    constants: ForceConstants,
    temperature: float,
    statistics: str = "quantum",
    *,
    centroids: Float[np.ndarray, "atom 3"] | None = None,
    floor_THz: float = 0.3,
) -> Gaussian:
    """Return the ensemble (1) of force constants.

    Args:
        constants: Φ.
        temperature: K.
        statistics: "quantum" or "classical".
        centroids: Å, of the supercell's atoms; where they are at rest by default.
        floor_THz: Modes with λ below that of this frequency get the width of max(|λ|, floor).

    Raises:
        InputError: as `check_statistics`; a floor that is not positive.
    """
    check_statistics(statistics, temperature)
    if not floor_THz > 0:
        raise fail(f"a floor of {floor_THz} THz", "a positive frequency")
    crystal = constants.supercell.structure
    values, vectors = supercell_modes(constants)
    floor = float(eigenvalue_from_THz(jnp.asarray(floor_THz)))
    used = np.maximum(np.abs(values), floor)
    if statistics == "classical":
        variances = KB * temperature / used
    else:
        variances = np.asarray(oscillator_variance(jnp.asarray(used), temperature))
    rest = np.asarray(crystal.positions) if centroids is None else centroids
    return Gaussian(
        rest, values, vectors, variances, np.asarray(crystal.masses), int(np.sum(values < floor))
    )


def normals(
    key: jax.Array, pairs: int, modes: int, kind: str = "random"
) -> Float[np.ndarray, "set mode"]:
    """Return standard normal numbers in pairs ±ξ, one after the other.

    Odd terms of whatever is averaged cancel in a pair.

    Args:
        key: Random key.
        pairs: How many.
        modes: Of each.
        kind: "random", or "sobol" for points of a scrambled Sobol sequence.

    Raises:
        InputError: other kinds, no pairs.
    """
    if pairs < 1:
        raise fail(f"{pairs} pairs of displacements", "at least 1")
    if kind == "random":
        xi = np.asarray(jax.random.normal(key, (pairs, modes), float))
    elif kind == "sobol":
        seed = np.asarray(jax.random.key_data(key)).astype(np.uint32)
        sequence: Any = qmc.Sobol  # whose argument changes its name in scipy 1.15
        points = sequence(modes, seed=np.random.default_rng(seed))
        xi = ndtri(np.clip(points.random(pairs), 1e-12, 1 - 1e-12))
    else:
        raise fail(f"displacements of kind {kind!r}", "random or sobol")
    return np.stack([xi, -xi], axis=1).reshape(2 * pairs, modes)


def weights(
    positions: Float[np.ndarray, "set atom 3"],
    wanted: Gaussian,
    drawn: Sequence[tuple[Gaussian, int]],
) -> Float[np.ndarray, " set"]:
    """Return (3), sum 1.

    Args:
        positions: Of all samples, Å.
        wanted: ρ.
        drawn: Each ρ_k with its n_k; the positions are those of all, whatever their order.
    """
    terms = [np.log(count) + one.log_density(positions) for one, count in drawn]
    log = wanted.log_density(positions) - logsumexp(np.stack(terms), axis=0)
    w = np.exp(log - log.max())
    return w / w.sum()


def effective_count(w: Float[np.ndarray, " set"]) -> float:
    """Return the number of equally weighted samples that average as well: (Σw)²/Σw²."""
    return float(w.sum() ** 2 / (w**2).sum())


__all__ = [
    "STATISTICS",
    "Gaussian",
    "check_statistics",
    "effective_count",
    "gaussian",
    "normals",
    "supercell_matrix",
    "supercell_modes",
    "weights",
]
