"""The acoustic cutoff by three definitions.

- path: the highest frequency of the three lowest bands on a band path (the paper's);
- mesh: the same on a mesh;
- connected: the highest frequency of the branches that grow out of the three translations at Γ,
  followed by their eigenvectors (`branches`) along the segments of the path that touch Γ.

The first is that of Aghoghovbia, Rurali, Al-Fahdi, Ojih, Jiang, Hu (see `dos`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phojax.branches import connected_branches
from phojax.modes import Modes, degenerate_blocks, translations
from phojax.pytree import pytree

_ACOUSTIC = 3


@pytree()
class AcousticCutoffs:
    """The acoustic cutoff in THz by three definitions (see the module's header).

    Attributes:
        path: Three lowest bands on the path.
        connected: Branches connected from Γ; NaN where no segment touches Γ or the crystal is held.
        mesh: Three lowest bands on the mesh.
    """

    path: Float[Array, ""]
    connected: Float[Array, ""]
    mesh: Float[Array, ""]


def acoustic_cutoffs(
    path: Modes, segments: Sequence[tuple[int, int]], mesh: Modes
) -> AcousticCutoffs:
    """Return the cutoffs in THz by all three definitions.

    Args:
        path: Concrete modes along the path.
        segments: (start, stop) of each straight piece of the path, in rows of `path.q`.
        mesh: Modes on a mesh.
    """
    return AcousticCutoffs(
        lowest_bands_top(path), connected_branches_top(path, segments), lowest_bands_top(mesh)
    )


@jax.jit
def lowest_bands_top(found: Modes) -> Float[Array, ""]:
    """Return the highest frequency of the three lowest bands in THz; λ sorted at each q.

    Differentiable in λ (with a kink where the highest point moves from one q to another).
    """
    return jnp.max(found.frequencies_THz[:, :_ACOUSTIC])


def connected_branches_top(
    path: Modes, segments: Sequence[tuple[int, int]], rigid: np.ndarray | None = None
) -> Float[Array, ""]:
    """Return the highest frequency in THz of the branches that start as translations at Γ.

    Args:
        path: Concrete modes along the path.
        segments: (start, stop) rows; those without Γ at an end are not followed.
        rigid: (q, mode) which modes are translations, if known.

    Returns:
        The frequency; NaN where no segment touches Γ.
    """
    if not path.free:
        return jnp.asarray(jnp.nan)
    rigid = np.asarray(translations(path)) if rigid is None else rigid
    blocks = np.asarray(degenerate_blocks(path.eigenvalues))
    # Optical modes of no frequency are not to mix with the translations they are degenerate with.
    blocks = np.where(rigid, blocks.max(axis=1, keepdims=True) + 1, blocks)
    gamma, nu = np.any(rigid, axis=1), np.asarray(path.frequencies_THz)
    tops = []
    for start, stop in segments:
        for rows in (np.arange(start, stop), np.arange(start, stop)[::-1]):
            if not gamma[rows[0]]:
                continue
            found = connected_branches(path, rows, blocks=blocks[rows])
            acoustic = rigid[rows[0]][found.mode[0]]
            tops.append(nu[rows[:, None], found.mode[:, acoustic]].max())
    return jnp.asarray(max(tops) if tops else jnp.nan)
