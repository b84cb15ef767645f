"""Crystals at rest on smooth potentials, shared by the tests of elastic tensors."""

from functools import cache

import crystals
from ase import Atoms
from ase.build import bulk

from phojax.elastic.tensor import elastic_tensor
from phojax.potentials.pair import morse
from phojax.relax import relax
from phojax.structure import structure
from phojax.symmetry import primitive_cell, space_group, symmetrized


def bonded(cutoff: float = 6.0):
    """Return a smooth potential of bonds Na-Cl that holds open structures up."""
    like = {("Na", "Na"): (0.1, 1.2, 4.3), ("Cl", "Cl"): (0.14, 1.2, 4.3)}
    return morse({("Na", "Cl"): (0.5, 1.5, 2.4), **like}, cutoff=cutoff)


def prepared(atoms: Atoms, of):
    """Return the primitive cell at rest and its group."""
    crystal = primitive_cell(structure(*crystals.parts(atoms)))
    group = space_group(crystal)
    crystal = symmetrized(crystal, group)
    tight = {"force_tolerance": 1e-9, "stress_tolerance": 1e-11}
    found = relax(of, crystal, symmetry=group, **tight)
    assert found.converged
    return found.structure, group


@cache
def wurtzite():
    crystal, group = prepared(bulk("NaCl", "wurtzite", a=4.1, c=6.7), bonded())
    return bonded(), crystal, group, elastic_tensor(bonded(), crystal, group)
