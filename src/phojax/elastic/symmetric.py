"""Which strains determine the response of a crystal to any, by symmetry.

An operation g takes a strain ε to Q_g ε (Kelvin's notation), and what answers it, a stress s and
forces or displacements f of the atoms, to (Q_g s, P_g f). So X in (s, f) = X ε obeys

    X Q_g ε_k = (Q_g s_k, P_g f_k)    for all g and all strains k that were tried         (1)

which is solved by least squares: X then has the symmetry exactly, and what is left of (1) tells how
far the responses were from it.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.elastic.notation import kelvin_rotation
from phojax.symmetry import SpaceGroup

_SPAN = 1e-6


@dataclass(frozen=True)
class Strains:
    """Strains along single components of Kelvin's notation, and the map (1) from their responses.

    Attributes:
        components: Which of xx yy zz yz xz xy.
        group: The operations in use.
    """

    components: tuple[int, ...]
    group: SpaceGroup

    def __len__(self) -> int:
        return len(self.components)

    def keeping(self, component: int) -> SpaceGroup:
        """Return the operations that a strain along this component leaves in the crystal."""
        Q = kelvin_rotation(self.group.rotations_cartesian)
        unit = np.eye(6)[component]
        return self.group.subset(np.abs(Q @ unit - unit).max(axis=1) < 1e-6)


def independent_strains(group: SpaceGroup) -> Strains:
    """Return the fewest components (greedily, the first ones first) that determine all strains."""
    Q = kelvin_rotation(group.rotations_cartesian)
    chosen: list[int] = []
    while (rank := _rank(Q, chosen)) < 6:
        gains = [_rank(Q, [*chosen, k]) for k in range(6)]
        best = int(np.argmax(gains))
        assert gains[best] > rank
        chosen.append(best)
    return Strains(tuple(chosen), group)


def without_symmetry(group: SpaceGroup) -> SpaceGroup:
    """Return the identity alone."""
    same = np.all(group.rotations == np.eye(3), axis=(1, 2))
    same &= np.all(group.permutation == np.arange(group.permutation.shape[1]), axis=1)
    return group.subset(same)


def from_strain_responses(
    strains: Strains, stresses: Float[Array, "row 6"], moves: Float[Array, "row atom 3"]
) -> tuple[Float[Array, "6 6"], Float[Array, "atom 3 6"], Float[Array, "row 6"]]:
    """Return X of eq. (1) and what the stresses differ from it by; linear, differentiable.

    Args:
        strains: Those tried.
        stresses: Kelvin's notation.
        moves: Vectors of the atoms, such as forces, per unit of Kelvin's strain.

    Returns:
        (stress, strain) and (atom, xyz, strain) in Kelvin's notation, and residuals per row.
    """
    group = strains.group
    Q = kelvin_rotation(group.rotations_cartesian)
    tried = np.eye(6)[list(strains.components)]
    turned = np.einsum("gab,kb->gka", Q, tried)
    inverse = np.linalg.pinv(turned.reshape(-1, 6).T).reshape(len(Q), len(tried), 6)
    C = jnp.einsum("gab,kb,gkc->ac", Q, stresses, inverse)
    back = np.argsort(group.permutation, axis=1)  # the atom that arrives at each one
    arrived = moves[:, back]  # (k, g, atom, 3)
    X = jnp.einsum("gab,kgib,gkc->iac", group.rotations_cartesian, arrived, inverse)
    return C, X, stresses - jnp.asarray(tried) @ C.T


def _rank(Q: np.ndarray, components: list[int]) -> int:
    if not components:
        return 0
    return int(np.linalg.matrix_rank(Q[:, :, components].transpose(0, 2, 1).reshape(-1, 6), _SPAN))
