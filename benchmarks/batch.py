"""Modes with all their descriptors for many crystals: one padded batch against one by one.

Disordered crystals of 16 to 20 atoms on a 6³ mesh: 32 of them on a CPU, 512 on a GPU.
"""

import time

import jax
import numpy as np
from memory import sprung

from phojax.brillouin import gamma_mesh
from phojax.dynmat import interpolation
from phojax.screening.analysis import subject_of
from phojax.screening.mode_table import Points, solved_modes
from phojax.screening.settings import PhononSettings

_SIZES = (16, 18, 20)


def main() -> list[tuple[str, str]]:
    """Return one figure per way of doing it."""
    jax.config.update("jax_enable_x64", True)
    count = 32 if jax.default_backend() == "cpu" else 512
    settings = PhononSettings()
    few = [sprung(_SIZES[n % len(_SIZES)], (2, 2, 2), n) for n in range(min(count, 32))]
    subjects = [subject_of(interpolation(c), settings)[0] for c in few]
    subjects = [subjects[n % len(subjects)] for n in range(count)]
    mesh = gamma_mesh((6, 6, 6))
    points = Points(mesh.q, mesh.weights[None], np.zeros(mesh.q.shape))

    def batch():
        return solved_modes(subjects, [points] * count, (300.0, 800.0), 1e-6)

    def one_by_one():
        out = []
        for subject in subjects:
            out += solved_modes([subject], [points], (300.0, 800.0), 1e-6)
        return out

    figures = []
    results = []
    for name, work in (("one padded batch", batch), ("one by one", one_by_one)):
        begin = time.perf_counter()
        work()
        first = time.perf_counter() - begin
        begin = time.perf_counter()
        results.append(work())
        rate = count * len(mesh.q) / (time.perf_counter() - begin)
        what = f"{count} crystals of {min(_SIZES)} to {max(_SIZES)} atoms, {len(mesh.q)} q each"
        figures.append((f"{what}, {name}", f"{rate:.0f} q/s, first call {first:.1f} s"))
    apart = max(np.abs(a.tensors - b.tensors).max() for a, b in zip(*results, strict=True))
    largest = max(np.abs(b.tensors).max() for b in results[1])
    figures.append(("largest difference of U between the two", f"{apart / largest:.1e} relative"))
    return figures


if __name__ == "__main__":
    for what, figure in main():
        print(f"{what:75s} {figure}")
