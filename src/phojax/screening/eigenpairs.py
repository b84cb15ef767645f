"""Eigenpairs of many D(q) of many crystals of one shape, by the fastest way the machine has.

Eigenvectors are rows here. How many q are in flight is bounded by the memory that is free.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from threadpoolctl import threadpool_limits

from phojax.brillouin import Mesh
from phojax.compiled import on_all_devices
from phojax.dynmat import Interpolation, dynamical_matrices
from phojax.modes import (
    Modes,
    apart_from_translations,
    eigenpairs_apart,
    moved_up,
    translations_returned,
)

_COPIES = 24  # complex matrices per q that are alive at once, eigenvectors and scratch included
_CACHE = 4e8  # bytes: on CPUs larger chunks gain nothing


def free_memory() -> float:
    """Return the bytes that are free where JAX computes: on the device, or in main memory."""
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo") as file:
            known = dict(line.split(":") for line in file)
        return 1024.0 * float(known["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 2e9


def points_at_a_time(atoms: int, crystals: int = 1, memory: float | None = None) -> int:
    """Return how many q of each crystal may be in flight: a third of free memory, 1 at least.

    Args:
        atoms: Per crystal.
        crystals: That go through together.
        memory: Bytes that may be used; by default a third of what is free, at most 0.4 GB on CPUs.
    """
    if memory is None:
        memory = free_memory() / 3
        if jax.devices()[0].platform == "cpu":
            memory = min(memory, _CACHE)
    count = memory / (crystals * _COPIES * 16 * (3 * atoms) ** 2)
    return int(np.clip(count, 1, 4096))


def solved(held: Interpolation, q, directions):
    """Return λ and e (rows) of all q of all crystals in one stack."""
    D, T = _matrices(held, q, directions)
    if jax.devices()[0].platform != "cpu":
        return _eigenpairs(D, T)
    # XLA diagonalises a stack of matrices in one thread; numpy does so without the GIL. And XLA on
    # CPUs hangs where one thread runs an eigensolver with products while another runs products.
    D, T = np.array(D), np.asarray(T)
    gamma = np.flatnonzero(T.any(axis=(1, 2)))
    own, T = jnp.asarray(D[gamma]), jnp.asarray(T[gamma])
    D[gamma] = moved_up(own, T)
    values, E = _eigenpairs_on_host(D)
    at_gamma = jnp.asarray(values[gamma]), jnp.asarray(E[gamma].swapaxes(-1, -2))
    values[gamma], columns = translations_returned(*at_gamma, own, T)
    E[gamma] = np.asarray(columns).swapaxes(-1, -2)
    return jnp.asarray(values), jnp.asarray(E)


@jax.jit
def _matrices(
    held: Interpolation, q: Float[Array, "s q 3"], directions: Float[Array, "s q 3"]
) -> tuple[Complex[Array, "sq mode mode"], Complex[Array, "sq mode 3"]]:
    def one(held, q, directions):
        D = dynamical_matrices(held, q, directions)
        return apart_from_translations(D, q, held.crystal, held.free)

    if len(q) == 1:  # a potential that gives exact matrices has no batch
        alone = one(*jax.tree.map(lambda leaf: leaf[0], (held, q, directions)))
        D, T = jax.tree.map(lambda leaf: leaf[None], alone)
    else:
        D, T = jax.vmap(one)(held, q, directions)
    n = D.shape[-1]
    return D.reshape(-1, n, n), T.reshape(-1, n, 3)


@jax.jit
def _eigenpairs(D, T):
    values, E = on_all_devices(eigenpairs_apart, D, T)
    return values, E.swapaxes(-1, -2)


def _eigenpairs_on_host(D) -> tuple[np.ndarray, np.ndarray]:
    """Return λ and e (rows) of a stack, shared among the cores, one matrix in one thread."""
    values, E = np.empty(D.shape[:2]), np.empty_like(D)

    def fill(rows):
        values[rows], columns = np.linalg.eigh(D[rows])
        E[rows] = columns.swapaxes(-1, -2)  # numpy turns them round faster than XLA

    workers = os.cpu_count() or 1
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as threads:
        list(threads.map(fill, np.array_split(np.arange(len(D)), 4 * workers)))
    return values, E


def modes_on(held: Interpolation, mesh: Mesh) -> Modes:
    """Return the modes of one crystal on a mesh, by the fastest way this machine has."""
    together = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], held)
    q = mesh.q
    size = min(len(q), points_at_a_time(len(held.crystal)))
    filled = np.concatenate([q, np.repeat(q[-1:], -len(q) % size, axis=0)]).reshape(-1, 1, size, 3)
    parts = [solved(together, jnp.asarray(part), jnp.zeros((1, size, 3))) for part in filled]
    values, E = (jnp.concatenate(part)[: len(q)] for part in zip(*parts, strict=True))
    vectors = E.reshape(*values.shape, -1, 3)
    return Modes(
        jnp.asarray(q), jnp.asarray(mesh.weights), values, vectors, held.crystal, held.free
    )
