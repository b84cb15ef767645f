"""Samples of ensembles with their energies and forces, and force constants fitted to them.

With u = R - r, the best force constants in the span of a symmetry-adapted basis and the mean forces
at the centroids minimise

    Σ_s w_s |f_s - F⁰ + Φ u_s|²                                                         (1)

For the exact average over a Gaussian ensemble with covariance C, without a cutoff, (1) gives
Φ = -⟨f uᵀ⟩ C⁻¹ = ⟨∇∇V⟩ and F⁰ = ⟨f⟩ (integration by parts), with no statistical error at all where
the surface is harmonic. The design matrix is linear in u: it is made once, for u from the rest
positions of the supercell, and one more for the shift of the centroids.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from phojax.checks import fail
from phojax.force_constants.basis import SymmetryAdaptedBasis
from phojax.force_constants.equations import design_blocks
from phojax.potentials.contract import Potential, check_elements, why
from phojax.rooms import evaluated_together, in_room, merged, room_of
from phojax.structure import Supercell

_HELD = 2**27  # numbers of design matrices that are kept, 1 GiB


@dataclass(frozen=True)
class Evaluated:
    """Supercells with moved atoms and what a potential says of them.

    Attributes:
        displacements: From the rest positions of the supercell, Å.
        energies: eV.
        forces: eV/Å.
        stresses: eV/Å³, as the potential says; NaN from one that gives none.
    """

    displacements: Float[np.ndarray, "set atom 3"]
    energies: Float[np.ndarray, " set"]
    forces: Float[np.ndarray, "set atom 3"]
    stresses: Float[np.ndarray, "set 3 3"]

    def __len__(self) -> int:
        return len(self.energies)

    def centred_stresses(
        self, shift: Float[np.ndarray, "atom 3"], volume: float
    ) -> Float[np.ndarray, "set 3 3"]:
        """Return ∂E/∂ε/V where centroids stretch and displacements from them do not.

        Args:
            shift: Of the centroids from the rest positions, Å.
            volume: Of the supercell, Å³.
        """
        # A stretch of everything would stretch u, too: take -f·u of it away.
        own = -np.einsum("sia,sib->sab", self.displacements - shift, self.forces)
        return self.stresses - (own + own.transpose(0, 2, 1)) / 2 / volume


def joined(parts: list[Evaluated]) -> Evaluated:
    """Return all samples of several sets."""
    names = ("displacements", "energies", "forces", "stresses")
    return Evaluated(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


class Surface:
    """A potential on displaced supercells; counts its calls.

    Args:
        potential: Any; the precision of its parameters is that of its forces.
        supercell: At rest.
        batch: Supercells at a time; by default 1 on a CPU and 16 elsewhere.
    """

    def __init__(
        self, potential: Potential, supercell: Supercell, batch: int | None = None
    ) -> None:
        crystal = supercell.structure
        check_elements(potential, crystal)
        self._potential, self._crystal = potential, crystal
        self._batch = batch or (1 if jax.default_backend() == "cpu" else 16)
        self._room = room_of(potential, crystal)
        self.calls = 0

    def __call__(
        self,
        displacements: Float[np.ndarray, "set atom 3"],
        on_part: Callable[[int, int], None] = lambda done, of: None,
    ) -> Evaluated:
        """Return energies, forces and stresses.

        Raises:
            InputError: energies or forces that are not finite.
        """
        found = []
        rest = np.asarray(self._crystal.positions)
        for start in range(0, len(displacements), self._batch):
            part = displacements[start : start + self._batch]
            crystals = [replace(self._crystal, positions=jnp.asarray(rest + u)) for u in part]
            filled = crystals + crystals[-1:] * (self._batch - len(crystals))
            values, overflow = self._values(filled)
            if np.any(overflow):
                for one in filled:
                    self._room = merged(self._room, room_of(self._potential, one))
                values, overflow = self._values(filled)
            E, F, S = (np.asarray(x, float)[: len(part)] for x in values)
            if np.any(overflow) or not (np.all(np.isfinite(E)) and np.all(np.isfinite(F))):
                raise fail(
                    f"{self._potential.name} returned values that are not finite for displacements "
                    f"of up to {np.abs(part).max():.2f} Å{why(self._potential)}",
                    "finite energies and forces",
                    "Lower the temperature or raise the floor of the frequencies, or take another "
                    "potential",
                )
            found.append(Evaluated(part, E, F, S))
            self.calls += len(part)
            on_part(start + len(part), len(displacements))
        return joined(found)

    def _values(self, crystals):
        return evaluated_together(
            self._potential, in_room(crystals, self._room.atoms), self._room.capacity
        )


class Equations:
    """The problem (1) for given samples, weights and centroids.

    Args:
        samples: All of them.
        basis: Of orders 1 (residual forces) and 2.
    """

    def __init__(self, samples: Evaluated, basis: SymmetryAdaptedBasis) -> None:
        self._samples, self._basis = samples, basis
        size = samples.forces.size * len(basis)
        self._blocks = None
        if size <= _HELD:
            self._blocks = list(design_blocks(samples.displacements, basis))

    def solved(
        self,
        w: Float[np.ndarray, " set"],
        shift: Float[np.ndarray, "atom 3"],
        start: Float[np.ndarray, " unknown"],
    ) -> tuple[Float[np.ndarray, " unknown"], int]:
        """Return the coefficients of F⁰ and Φ, and how many of them the samples determine.

        Args:
            w: Weights, sum 1.
            shift: r from the rest positions, Å.
            start: Where what is not determined stays.
        """
        basis, p = self._basis, len(self._basis)
        gram, right = np.zeros((p, p)), np.zeros(p)
        F = self._samples.forces
        shifted = {
            rows.atoms.start: A for rows, A in design_blocks(shift[None], basis)
        }  # of one snapshot
        constant = basis.slices.get(1, slice(0, 0))
        for rows, A in self._blocks or design_blocks(self._samples.displacements, basis):
            less = shifted[rows.atoms.start].copy()
            less[:, constant] = 0  # the forces at rest do not depend on u
            count = rows.last - rows.first
            A = (A.reshape(count, -1, p) - less).reshape(-1, p)
            each = np.repeat(w[rows.first : rows.last], len(A) // count)
            weighted = A * each[:, None]
            gram += weighted.T @ A
            right += weighted.T @ rows.of(F)
        # Orders differ by powers of a displacement: unit diagonal first.
        scale = np.sqrt(np.maximum(np.diagonal(gram), 1e-300))
        scale = np.where(scale > 1e-12 * scale.max(), scale, 1.0)
        G = gram / (scale[:, None] * scale)
        values, vectors = np.linalg.eigh(G)
        kept = values > 1e-10 * values[-1]
        left = vectors.T @ ((right - gram @ start) / scale)
        step = vectors[:, kept] @ (left[kept] / values[kept])
        return start + step / scale, int(kept.sum())


__all__ = ["Equations", "Evaluated", "Surface", "joined"]
