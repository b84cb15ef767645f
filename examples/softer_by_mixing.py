"""A softer thiophosphate: follow the gradient of the sodium's vibrations in composition and strain.

Sodium ions that vibrate widely tend to move easily, so a family of conductors can be searched for
the member whose Na has the largest mean squared displacement. The usual way makes every member and
measures it. With a differentiable potential one structure is enough: let every S site hold a share
p of Se and 1 - p of S, let the cell be strained, and follow

    d⟨u²⟩/d(p, ε),   the crystal relaxed at every p and ε,

through force constants, phonons and the relaxation. Between p = 0 and 1 there is no compound, only
a path; so the end is rounded to real atoms and computed again by the plain potential, and the path
is scanned as one would have done without gradients. What the gradient promised, what the scan finds
and what is left after rounding are printed, whichever way they differ.

    python examples/softer_by_mixing.py [STRUCTURE --potential nequix --elements S Se]
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from ase.formula import Formula

import phojax as px
from phojax.design.goals import goal
from phojax.design.loop import descended
from phojax.design.outcome import outcome
from phojax.design.problem import evaluated, problem

HERE = pathlib.Path(__file__).parent


def designed(potential, crystal, elements, *, mesh=(2, 2, 1), steps=10, points=21, folder=None,
             largest_strain=0.01, say=print):  # fmt: skip
    """Return the descent, the losses along the straight way to its end, and the outcome."""
    group = px.space_group(crystal, 1e-3)
    crystal = px.symmetrized(crystal, group)
    given = problem(
        potential.astype(jnp.float64), crystal, group, px.gamma_mesh(mesh, group),
        elements=elements, strain=True, largest_strain=largest_strain,
    )  # fmt: skip
    aim = goal("msd", 11, 300.0)

    path = descended(given, aim, steps, folder, rate=2.0,
                     on_part=lambda what, done, of: None if done else say(what))  # fmt: skip
    for number, step in enumerate(path.trail):
        say(f"{number:3d}  p = {np.round(step['shares'], 3).tolist()}  strain = "
            f"{np.round(step['strain'], 4).tolist()}  <u²> = {step['value']:.5f} Å²  lowest "
            f"{step['lowest_THz']:.2f} THz")  # fmt: skip
    if path.best is None:
        raise SystemExit("no step is stable: start from another structure")

    first = given.first()
    last = {name: np.asarray(path.trail[path.best][name]) for name in first}
    scan = []
    for t in np.linspace(0, 1, points):
        x = {name: (1 - t) * first[name] + t * last[name] for name in first}
        scan.append(evaluated(given, x, aim, gradient=False).loss)
        say(f"scan {t:.2f}: <u²> = {-scan[-1]:.5f} Å²")
    found = outcome(given, aim, path)
    say(f"gradient: {path.trail[path.best]['value']:.5f} Å² after {len(path.trail)} evaluations; "
        f"best of the scan of {points}: {-min(scan):.5f}")  # fmt: skip
    for name in ("before", "after"):
        if name in found:
            of = found[name]
            formula = Formula("".join(of["formula"])).reduce()[0].format("metal")
            say(f"{name}: {formula}, {of['value']:.5f} Å², lowest "
                f"{of['lowest_THz']:.2f} THz")  # fmt: skip
    if "gain" in found:
        say(f"gain: {found['predicted_gain']:+.5f} predicted, {found['gain']:+.5f} recomputed")
    for note in found["notes"]:
        say(f"note: {note}")
    return path, scan, found


def main():
    """Read the command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser()
    parser.add_argument("structure", nargs="?", default=HERE / "structures" / "Na3PS4.cif")
    parser.add_argument("--potential", default="nequix")
    parser.add_argument("--elements", nargs="+", default=["S", "Se"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--folder", type=pathlib.Path, help="where steps are kept")
    options = parser.parse_args()
    crystal = px.primitive_cell(px.read_structure(options.structure))
    designed(px.potential(options.potential), crystal, tuple(options.elements),
             steps=options.steps, folder=options.folder)  # fmt: skip


if __name__ == "__main__":
    main()
