"""Which point ions vibrate as NaCl does? Three parameters from frequencies of a DFT calculation.

    python examples/fit_to_frequencies.py [phonopy.yaml [FORCE_SETS]]

Ions of charge ±z that repel each other as A exp(-r/ρ) relax to a lattice constant of their own and
vibrate there. How far both are from those of DFT is a function of A, ρ and z, and its gradient goes
through D(q) and, implicitly, through the relaxation: as crystals soften when they expand, a fit at
a fixed volume would be another one. Half of the q-points are fitted; the other half says whether
what was learned holds elsewhere.

The table is of phonopy's example of NaCl (PBE; github.com/phonopy/phonopy, example/NaCl): points
that fit its supercell of 64 atoms, where nothing is interpolated, no field at Γ. Another reference
is any file that phonopy can read, of a crystal of Na and Cl.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import phojax as px
from phojax.dynmat import dynamical_matrices
from phojax.gradients.misfits import frequency_misfit
from phojax.gradients.route import by_waves
from phojax.gradients.tuning import Target, at_points, tuned
from phojax.potentials.parameter_files import with_leaves
from phojax.structure import structure
from phojax.units import frequency_THz

jax.config.update("jax_enable_x64", True)

VOLUME = 2 * 2.84515**3  # Å³ per NaCl
POINTS = np.array([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0],  # Γ, L, X: fitted
                   [0.25, 0.25, 0], [0.25, 0.5, -0.25], [0.25, -0.25, 0]])  # held out # fmt: skip
TABLE = np.array([  # THz
    [0.000, 0.000, 0.000, 4.616, 4.616, 4.616],
    [3.273, 3.273, 3.760, 3.760, 5.116, 6.242],
    [2.414, 2.414, 4.066, 4.867, 4.867, 5.256],
    [1.735, 1.735, 3.751, 4.734, 4.734, 5.978],
    [3.425, 3.425, 3.928, 4.358, 5.059, 5.059],
    [2.786, 3.246, 3.772, 4.370, 4.896, 5.860],
])  # fmt: skip
FITTED, HELD_OUT = slice(0, 3), slice(3, 6)
BASE = px.potential("ions:NaCl")  # Kittel's: ions of charge 1


def ions(values):
    """Parameters in units of Kittel's."""
    scaled = {"0/A": values["A"], "0/rho": values["rho"], "1/charges": values["charge"]}
    held = {"0/A": BASE.params[0]["A"], "0/rho": BASE.params[0]["rho"],
            "1/charges": BASE.params[1]["charges"]}  # fmt: skip
    return with_leaves(BASE, {name: held[name] * by for name, by in scaled.items()})


def reference(files):
    """Volume, and frequencies at the points of the table."""
    if not files:
        return VOLUME, TABLE
    read = px.read_phonopy(files[0], force_sets=files[1] if len(files) > 1 else None)
    constants, _ = px.enforced(read.force_constants)
    D = dynamical_matrices(constants, jnp.asarray(POINTS))
    nu = frequency_THz(jnp.linalg.eigvalsh(D))
    return float(constants.supercell.primitive.volume), np.asarray(nu)


def main(files=(), steps: int = 150) -> dict[str, dict[str, float]]:
    volume, table = reference(files)
    h = np.cbrt(volume / 2)
    cell = h * (np.ones((3, 3)) - np.eye(3))
    crystal = structure(cell, [[0, 0, 0], [h, h, h]], [11, 17])
    group = px.space_group(crystal)

    def target(name, rows, volume_counts):
        route = by_waves(BASE, crystal, at_points(POINTS[rows]), group)
        frequencies = frequency_misfit(table[rows])

        def misfit(found):  # 1 % of the volume counts as much as 0.1 THz
            off = 10 * (found.crystal.volume / volume - 1)
            return frequencies(found) + volume_counts * off**2

        return Target(name, crystal, route, misfit, relaxed=True)

    found = tuned(ions, dict.fromkeys(("A", "rho", "charge"), 1.0),
                  [target("fitted", FITTED, 1.0)], [target("held out", HELD_OUT, 0.0)],
                  steps=steps, rate=0.01)  # fmt: skip
    first, best = found.trail[0], found.trail[found.best]
    return {
        "before": {k: v**0.5 for k, v in (first["training"] | first["held_out"]).items()},
        "after": {k: v**0.5 for k, v in (best["training"] | best["held_out"]).items()},
        "parameters": {k: float(v) for k, v in found.parameters.items()},
    }


if __name__ == "__main__":
    result = main(sys.argv[1:])
    for when in ("before", "after"):
        print(f"{when:7s}" + "".join(f"{k}: {v:.3f} THz  " for k, v in result[when].items()))
    print("times Kittel's:", {k: round(v, 4) for k, v in result["parameters"].items()})
