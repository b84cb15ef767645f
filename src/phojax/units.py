"""Constants and conversions in the internal units eV, Å, amu, K.

The derived unit of time is Å·√(amu/eV) = 10.1805 fs, so an eigenvalue λ = ω² of a
mass-weighted Hessian is in eV Å⁻² amu⁻¹. Values are those of CODATA as shipped with
scipy; other programs carry older ones, which differ by up to 1e-6 relative.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float
from scipy import constants as _si

from phojax.concrete import array_module

KB = _si.k / _si.e
"""Boltzmann constant in eV/K."""

TIME_FS = 1e15 * 1e-10 * math.sqrt(_si.atomic_mass / _si.e)
"""The internal unit of time in fs."""

HBAR = _si.hbar / _si.e / (TIME_FS * 1e-15)
"""Reduced Planck constant in eV times the internal unit of time."""

THZ = 1e3 / TIME_FS / (2 * math.pi)
"""Ordinary frequency in THz of λ = 1 eV Å⁻² amu⁻¹ (15.633304)."""

COULOMB = _si.e / (4 * math.pi * _si.epsilon_0) * 1e10
"""e²/4πε₀ in eV Å (14.3996)."""

EV_PER_A3_IN_GPA = _si.e * 1e21
"""1 eV/Å³ in GPa (160.2177)."""


def frequency_THz(eigenvalue: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return ν in THz, negative where λ (eV Å⁻² amu⁻¹) is negative (imaginary modes).

    For people and files only: the derivative of √λ does not exist at λ = 0.
    """
    xp = array_module(eigenvalue)
    return jnp.asarray(THZ * xp.sign(eigenvalue) * xp.sqrt(xp.abs(eigenvalue)))


def eigenvalue_from_THz(frequency: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Return the signed λ in eV Å⁻² amu⁻¹ of a frequency in THz."""
    xp = array_module(frequency)
    return jnp.asarray(xp.sign(frequency) * (xp.asarray(frequency) / THZ) ** 2)
