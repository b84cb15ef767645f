"""Displacement tensors by eigenvectors and by Cholesky solves: CPU time per q-point.

    OMP_NUM_THREADS=1 python benchmarks/displacements_by_solves.py

Random Hermitian matrices with frequencies from 1 to 10 THz; the best of five, in ms per q.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from phojax.descriptors.displacements import displacement_tensor_from_matrices
from phojax.descriptors.solves import displacement_tensor_by_solves, rational_sum
from phojax.structure import structure
from phojax.units import THZ

SIZES = ((6, 512), (60, 16), (300, 2))


def best(f, *arguments) -> float:
    """Return the smallest CPU time of five calls in s: load on the machine does not count."""
    jax.block_until_ready(f(*arguments))
    times = []
    for _ in range(5):
        begin = time.process_time()
        jax.block_until_ready(f(*arguments))
        times.append(time.process_time() - begin)
    return min(times)


def main() -> list[tuple[str, str]]:
    """Return (what, figure) lines."""
    out = []
    for count, points in SIZES:
        rng = np.random.default_rng(0)
        values = (np.linspace(1, 10, count) / THZ) ** 2
        A = rng.normal(size=(2, points, count, count))
        E, _ = np.linalg.qr(A[0] + 1j * A[1])
        D = jnp.asarray((E * values) @ E.conj().swapaxes(1, 2))
        atoms = count // 3
        crystal = structure(np.eye(3) * 20, rng.uniform(0, 20, (atoms, 3)), [11] * atoms)
        rest = jnp.asarray(rng.uniform(0.1, 0.4, (points, 3))), jnp.full(points, 1 / points)
        weight = jnp.asarray(rng.normal(size=(atoms, 3, 3)))
        for T in (300.0, 800.0):
            terms = rational_sum(1.01 * values.max(), T)
            forms = {
                "eigenvectors": lambda D, T=T, rest=rest, crystal=crystal: (
                    displacement_tensor_from_matrices(D, *rest, crystal, T, 0.0)
                ),
                "solves": lambda D, T=T, rest=rest, crystal=crystal, terms=terms: (
                    displacement_tensor_by_solves(D, *rest, crystal, T, terms)
                ),
            }
            for name, form in forms.items():
                value = best(jax.jit(form), D)

                def weighted(D, form=form, weight=weight):
                    return jnp.sum(weight * form(D))

                gradient = best(jax.jit(jax.value_and_grad(weighted)), D)
                figure = f"{value / points * 1e3:.4f} ms, with gradient "
                figure += f"{gradient / points * 1e3:.4f} ms"
                out.append((f"U by {name}, {count} modes, {T:g} K, per q", figure))
    return out


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for what, figure in main():
        print(f"{what:50s} {figure}", flush=True)
