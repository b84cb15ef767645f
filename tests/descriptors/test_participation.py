"""Participation ratios of modes whose value is known."""

import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference

from phojax.descriptors.participation import (
    participation_ratio,
    participation_ratio_mass_weighted,
)
from phojax.modes import atomic_weights, translations


def test_limits():
    N = 7
    masses = jnp.asarray(np.random.default_rng(0).uniform(1, 50, N))
    one = jnp.eye(N)[2]
    np.testing.assert_allclose(participation_ratio(one), 1 / N)
    np.testing.assert_allclose(participation_ratio_mass_weighted(one, masses), 1 / N)
    np.testing.assert_allclose(participation_ratio(jnp.ones(N) / N), 1.0)
    half = jnp.where(jnp.arange(N) < 4, 0.25, 0.0)
    np.testing.assert_allclose(participation_ratio(half), 4 / N)


def test_a_rigid_translation_has_mass_weighted_participation_one():
    found = reference.solved(reference.converted(reference.triclinic()), jnp.zeros((1, 3)))
    w = atomic_weights(found)
    rigid = np.asarray(translations(found))
    ours = np.asarray(participation_ratio_mass_weighted(w, found.masses))
    np.testing.assert_allclose(ours[rigid], 1.0, rtol=1e-12)
    m = np.asarray(found.masses)
    np.testing.assert_allclose(
        np.asarray(participation_ratio(w))[rigid], m.sum() ** 2 / (5 * (m**2).sum()), rtol=1e-12
    )


def test_range_and_choice_of_eigenvectors():
    found = reference.solved(
        reference.converted(reference.rocksalt()), jnp.asarray(reference.gamma_mesh(4))
    )
    w = atomic_weights(found)
    turned = atomic_weights(reference.rotated_in_blocks(found))
    for ratio in (
        participation_ratio,
        lambda w: participation_ratio_mass_weighted(w, found.masses),
    ):
        assert np.all(ratio(w) <= 1 + 1e-12)
        assert np.all(ratio(w) >= 0.5 - 1e-12)
        np.testing.assert_allclose(ratio(turned), ratio(w), rtol=1e-11)
