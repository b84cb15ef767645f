"""Sums over the modes of a mesh: densities of states, thermodynamics, shares, mean couplings.

The smeared curves leave the translations at Γ out; the linear tetrahedra need every corner, so
theirs count, with a weight that falls as the cube of the mesh.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from phojax.compiled import on_all_devices
from phojax.descriptors.coupling import mean_coupling
from phojax.descriptors.displacements import cumulative_displacements, share_below
from phojax.descriptors.dos import (
    Moments,
    curve_width,
    dos_overlap,
    gaussian_curves,
    weighted_moments,
)
from phojax.descriptors.tetrahedra import tetrahedron_curves
from phojax.descriptors.thermodynamics import Thermodynamics, thermodynamics
from phojax.units import frequency_THz


class MeshSums(NamedTuple):
    """Sums over the modes of a mesh.

    Attributes:
        dos: (group, frequency) per THz and cell, smeared.
        dos_tetrahedron: The same by linear tetrahedra.
        moments: Of every group.
        widths: (group,) THz, range where a smeared curve exceeds 1 % of its maximum.
        widths_tetrahedron: Of the curves by tetrahedra.
        overlap: Of the curves of mobile ions and host; NaN without a host.
        overlap_below: The same below 3 THz.
        thermodynamics: (temperature,) of each.
        share_below: (temperature, atom) of the MSD carried by soft modes.
        cumulative: (temperature, frequency) MSD of a mobile ion in Å², of modes up to there.
        coupling_soft: (temperature,) mean coupling of soft modes.
        coupling_acoustic: (temperature,) of modes below the acoustic cutoff.
        coupling_paper_soft: (temperature,) in the paper's form.
        coupling_paper_acoustic: (temperature,) in the paper's form.
    """

    dos: jax.Array
    dos_tetrahedron: jax.Array
    moments: Moments
    widths: jax.Array
    widths_tetrahedron: jax.Array
    overlap: jax.Array
    overlap_below: jax.Array
    thermodynamics: Thermodynamics
    share_below: jax.Array
    cumulative: jax.Array
    coupling_soft: jax.Array
    coupling_acoustic: jax.Array
    coupling_paper_soft: jax.Array
    coupling_paper_acoustic: jax.Array


class SumsInput(NamedTuple):
    """What the sums of a crystal need; arrays of numpy outside, of JAX inside."""

    weights: Any
    eigenvalues: Any
    kept: Any
    translations: Any
    shares: Any
    displacements: Any
    coupling: Any
    coupling_paper: Any
    neighbours: Any
    grid: Any
    mobile: Any
    pair: Any
    cutoff: Any


@jax.jit
def mesh_sums(together: SumsInput, temperatures, smearing, soft) -> MeshSums:
    """Return the sums of all crystals, leading axis crystals."""
    # One crystal after another: the curves of each are large products already.
    return on_all_devices(
        lambda part: jax.lax.map(lambda one: _sums_of(one, temperatures, smearing, soft), part),
        together,
    )


def _sums_of(one: SumsInput, temperatures, smearing, soft) -> MeshSums:
    nu = frequency_THz(one.eigenvalues)
    share = one.weights[:, None, None] * one.shares
    shaken = share * ~one.translations[:, :, None]
    smeared = gaussian_curves(nu, shaken, one.grid, smearing)
    tetrahedra = tetrahedron_curves(nu, share, one.neighbours, one.grid)
    widths, widths_tetrahedron = (
        jax.vmap(lambda curve: curve_width(one.grid, curve))(curves)
        for curves in (smeared, tetrahedra)
    )
    of_mobile, of_host = smeared[one.pair[0]], smeared[one.pair[1]]

    def mean(couplings, limit):
        return jax.vmap(lambda u: mean_coupling(one, couplings, u, one.mobile, limit))(
            one.displacements
        )

    def cumulative(u):
        of_mobile = jnp.sum(u * one.mobile, axis=-1, keepdims=True) / jnp.sum(one.mobile)
        return cumulative_displacements(one, of_mobile, one.grid)[:, 0]

    return MeshSums(
        smeared,
        tetrahedra,
        weighted_moments(nu, share * one.kept[:, :, None]),
        widths,
        widths_tetrahedron,
        dos_overlap(one.grid, of_mobile, of_host),
        dos_overlap(one.grid, of_mobile, of_host, 3.0),
        jax.vmap(lambda T: thermodynamics(one, T, one.kept))(temperatures),
        jax.vmap(lambda u: share_below(one, u, soft))(one.displacements),
        jax.vmap(cumulative)(one.displacements),
        mean(one.coupling, soft),
        mean(one.coupling, one.cutoff),
        mean(one.coupling_paper, soft),
        mean(one.coupling_paper, one.cutoff),
    )
