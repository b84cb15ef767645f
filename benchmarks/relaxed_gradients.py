"""Gradients of the MSD through the relaxation, of networks, against crystals relaxed again.

    python benchmarks/relaxed_gradients.py [--potential nequix] [--width Å] [--pairs 2]

The derivative of the sodium MSD of rock salt NaCl at 300 K in the pressure is taken once by one
reverse pass and one linear solve, and by central differences over crystals relaxed again under
pressures ±h and ±h/2 to 1e-9 eV/Å. With a width, energy and force constants are averaged in a
supercell, as CHGNet asks for.
"""

import argparse
import time

import jax
import jax.numpy as jnp
from ase.build import bulk

from phojax.brillouin import gamma_mesh
from phojax.convert import structure_from_ase
from phojax.force_constants.average import averaged
from phojax.gradients.supercells import route_for
from phojax.gradients.total import value_and_gradient, vibrations
from phojax.implicit import minimum
from phojax.potentials.catalogue import potential
from phojax.structure import supercell
from phojax.symmetry import space_group, symmetrized

jax.config.update("jax_enable_x64", True)


def msd(found):
    """Return the MSD of Na at 300 K."""
    return found.msd(found.crystal.numbers == 11, 300.0)


def main() -> None:
    """Print both derivatives and what they took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--potential", default="nequix")
    parser.add_argument("--width", type=float, default=0.0, metavar="Å")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--step", type=float, default=1e-4, metavar="eV/Å³")
    options = parser.parse_args()
    start = structure_from_ase(bulk("NaCl", "rocksalt", a=5.66))
    group = space_group(start)
    start = symmetrized(start, group)
    model = potential(options.potential).astype(jnp.float64)
    if options.width:
        cells = supercell(start, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])  # eight atoms
        model = averaged(model, cells, options.width, options.pairs, jax.random.key(0))
    mesh = gamma_mesh((3, 3, 3), group)

    def relaxed(pressure: float):
        here, how = minimum(
            model, start, symmetry=group, pressure=pressure, force_tolerance=1e-9,
            stress_tolerance=1e-12,
        )  # fmt: skip
        if not how.converged:
            print(f"not converged at {pressure} eV/Å³: {how.message}")
        return here

    begin = time.perf_counter()
    here = relaxed(0.0)
    route = route_for(model, here.crystal, mesh, group)
    found = value_and_gradient(msd, here, route)
    took = time.perf_counter() - begin
    print(f"{model.name}, width {options.width:g} Å: MSD {found.value:.6f} Å², by pressure "
          f"{found.by_pressure:.8f} Å²/(eV/Å³), {found.solve.products} products of the solve, "
          f"{len(route)} rows, {took:.0f} s with compilation", flush=True)  # fmt: skip

    def after(pressure: float) -> float:
        there = relaxed(pressure)
        return float(msd(vibrations(there, route.with_room_for(model, there.crystal))))

    h = options.step
    wide, close = ((after(s) - after(-s)) / (2 * s) for s in (h, h / 2))
    expected = (4 * close - wide) / 3
    print(f"relaxed again: {expected:.8f}; off by {abs(found.by_pressure / expected - 1):.1e}")


if __name__ == "__main__":
    main()
