"""A batch of crystals of different sizes against the same crystals one by one."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import phonopy_reference as reference
import pytest
from test_nac import charged

from phojax.checks import InputError
from phojax.nac import born_charges, neutral
from phojax.screening.analysis import analysed
from phojax.screening.batch import CrystalInput, analysed_batch
from phojax.screening.eigenpairs import points_at_a_time
from phojax.screening.settings import PhononSettings
from phojax.symmetry import space_group

SETTINGS = PhononSettings(mesh=(3, 3, 2), temperatures=(0.0, 300.0))


def crystal(make, polar=False) -> CrystalInput:
    peer = charged(make()) if polar else make()
    constants = reference.converted(peer)
    group = space_group(constants.supercell.primitive)
    if not polar:
        return CrystalInput(constants, group)
    p = peer.nac_params
    born = born_charges(p["born"], p["dielectric"], p["factor"])
    return CrystalInput(constants, group, neutral(born, group)[0])


def assert_same(found, alone):
    """Compare all that an analysis holds, to 1e-10 of the largest of each kind."""
    pairs = [(found.tensors, alone.tensors), (found.tensors_coarse, alone.tensors_coarse)]
    for table in ("on_mesh", "on_path"):
        a, b = getattr(found, table), getattr(alone, table)
        pairs += [(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)]
    pairs += list(zip(found.sums, alone.sums, strict=True))
    pairs = [
        pair
        for a, b in pairs
        for pair in (zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)])
        if not dataclasses.is_dataclass(a)
    ]
    for a, b in pairs:
        a, b = np.asarray(a, float), np.asarray(b, float)
        assert np.array_equal(np.isnan(a), np.isnan(b))
        scale = np.nanmax(np.abs(b), initial=1e-3)
        assert np.nanmax(np.abs(a - b), initial=0) <= 1e-10 * scale


@pytest.mark.slow
def test_batched_crystals_are_those_analysed_alone():
    items = [
        crystal(reference.triclinic), crystal(reference.rocksalt),
        crystal(reference.triclinic, polar=True), crystal(reference.rocksalt, polar=True),
        crystal(lambda: reference.triclinic(seed=4)),
    ]  # fmt: skip
    found, report = analysed_batch(items, SETTINGS)
    assert report.batches == len(report.shapes) == 4
    assert 0 <= report.padding < 0.5
    for item, one in zip(items, found, strict=True):
        alone = analysed(item.constants, item.group, SETTINGS, item.born)
        assert_same(one, alone)


def test_crystals_of_two_sizes_share_a_shape(monkeypatch):
    """Padding atoms, lattice vectors, bonds and q change nothing."""
    from phojax.screening import batch, subjects

    for module in (batch, subjects):
        monkeypatch.setattr(module, "larger_size", lambda atoms: 6)
    items = [crystal(reference.rocksalt), crystal(reference.triclinic)]
    found, report = analysed_batch(items, SETTINGS)
    assert len(report.shapes) == 1
    for item, one in zip(items, found, strict=True):
        assert_same(one, analysed(item.constants, item.group, SETTINGS))


def test_memory_bounds_the_points_in_flight():
    assert points_at_a_time(200, memory=1e9) < points_at_a_time(20, memory=1e9)
    assert points_at_a_time(1000, memory=1e6) == 1


def test_a_bad_crystal_does_not_stop_the_batch():
    good = crystal(reference.rocksalt)
    values = good.constants.values.at[0, 0, 0, 0].set(np.nan)
    bad = dataclasses.replace(good, constants=dataclasses.replace(good.constants, values=values))
    (first, second), report = analysed_batch([bad, good], SETTINGS)
    assert isinstance(first, InputError)
    assert "not finite" in str(first)
    assert second.tensors.shape == (2, 2, 3, 3)
    assert report.batches == 1


def test_a_crystal_that_fails_on_the_way_leaves_the_others(monkeypatch):
    import phojax.screening.batch as batch

    good = crystal(reference.rocksalt)
    heavy = dataclasses.replace(good, constants=with_masses(good.constants, 2 * mass_of(good)))
    together = batch.analysed_together

    def failing(plans, settings, shape):
        if any(np.array_equal(p.subject.held.crystal.masses, 2 * mass_of(good)) for p in plans):
            raise RuntimeError("out of memory")
        return together(plans, settings, shape)

    monkeypatch.setattr(batch, "analysed_together", failing)
    (first, second, third), _ = analysed_batch([good, heavy, good], SETTINGS)
    assert isinstance(second, InputError)
    assert "out of memory" in str(second)
    np.testing.assert_allclose(first.tensors, third.tensors, rtol=1e-12)


def mass_of(item):
    return np.asarray(item.constants.supercell.primitive.masses)


def with_masses(constants, masses):
    cell = constants.supercell
    primitive = dataclasses.replace(cell.primitive, masses=jnp.asarray(masses))
    return dataclasses.replace(constants, supercell=dataclasses.replace(cell, primitive=primitive))
