"""Interatomic potentials behind one contract: energy(params, structure, graph) -> eV."""

from phojax.potentials.contract import Potential

__all__ = ["Potential"]
