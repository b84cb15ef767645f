"""Elastic tensors with relaxed ions, moduli, sound waves."""

from phojax.elastic.moduli import Moduli, hardness, moduli, poisson_ratio, young_modulus
from phojax.elastic.result import ElasticResult
from phojax.elastic.strain import elastic_tensor_from_strain
from phojax.elastic.tensor import elastic_constants, elastic_tensor
from phojax.elastic.waves import (
    christoffel,
    density,
    elastic_debye_temperature,
    mean_velocity,
    mean_velocity_of_moduli,
)

__all__ = [
    "ElasticResult",
    "Moduli",
    "christoffel",
    "density",
    "elastic_constants",
    "elastic_debye_temperature",
    "elastic_tensor",
    "elastic_tensor_from_strain",
    "hardness",
    "mean_velocity",
    "mean_velocity_of_moduli",
    "moduli",
    "poisson_ratio",
    "young_modulus",
]
