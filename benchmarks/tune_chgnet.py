"""CHGNet tuned to force constants of DFT: a small part of it, on few crystals, others held out.

    python benchmarks/tune_chgnet.py ORACLES OUT [--choose readout] [--train NaCl] …

ORACLES holds phonopy's and phono3py's examples (NaCl/, SnO2/, NaMgF3/). Force constants are
compared at the positions of DFT and at the points that fit its supercell: nothing is interpolated,
and there is none of the polar field at Γ. With --width 0 they are those of the network at one
point, which is rough there; with a width (0.03 Å is what it recommends) those of its average in
the supercell, which is what phonons are computed from. All crystals are compared both ways in the
end: a fit of ripples would show.
"""

import argparse
import pathlib
import sys
import time

import jax
import jax.numpy as jnp

import phojax as px
from phojax.dynmat import dynamical_matrices
from phojax.force_constants.average import averaged
from phojax.gradients.misfits import force_constant_misfit
from phojax.gradients.sensitivity import mesh_of
from phojax.gradients.supercells import route_for
from phojax.gradients.tuning import Target, chosen_parameters, misfit_and_gradient, tuned
from phojax.io.records import write_record
from phojax.potentials.catalogue import potential
from phojax.potentials.parameter_files import save_parameters, with_leaves
from phojax.symmetry import space_group

jax.config.update("jax_enable_x64", True)
FILES = {
    "NaCl": ("phonopy_disp_NaCl.yaml", {"force_sets": "FORCE_SETS_NaCl"}),
    "SnO2": ("phonopy_disp_SnO2.yaml", {"force_sets": "FORCE_SETS_SnO2"}),
    "NaMgF3": ("phono3py_params_NaMgF3.yaml.xz", {"force_constants": "fc2_NaMgF3.hdf5"}),
}


def target(name, oracles, base, width, pairs):
    """Return the crystal with its force constants."""
    file, more = FILES[name]
    folder = oracles / name
    read = px.read_phonopy(folder / file, **{k: folder / v for k, v in more.items()})
    constants, _ = px.enforced(read.force_constants)
    cells = constants.supercell
    crystal, group = cells.primitive, space_group(cells.primitive)

    def form(model):
        return averaged(model, cells, width, pairs, jax.random.key(0)) if width else model

    route = route_for(form(base), crystal, mesh_of(cells), group)
    reference = dynamical_matrices(constants, jnp.asarray(route.q))
    misfit = force_constant_misfit(reference)
    return Target(name, crystal, route, misfit, form=form)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("oracles", type=pathlib.Path)
    add("out", type=pathlib.Path)
    add("--train", nargs="+", default=["NaCl"], choices=tuple(FILES))
    add("--hold-out", nargs="*", default=["SnO2", "NaMgF3"], choices=tuple(FILES))
    add("--choose", nargs="+", default=["readout"], help="beginnings of names of parameters")
    add("--width", type=float, default=0.0, metavar="Å", help="of the average in training")
    add("--pairs", type=int, default=2, help="± pairs of displacements of that average")
    add("--check-width", type=float, default=0.03, help="of the average before and after; 0: none")
    add("--steps", type=int, default=20)
    add("--rate", type=float, default=1e-3)
    add("--pull", type=float, default=0.0, help="towards the start, per squared change")
    options = parser.parse_args()
    base = potential("chgnet")
    start, made = chosen_parameters(
        base, lambda name: any(name.startswith(part) for part in options.choose)
    )
    print(f"{sum(leaf.size for leaf in start.values())} parameters: {', '.join(start)}")

    def targets(names):
        return [target(n, options.oracles, base, options.width, options.pairs) for n in names]

    training, held_out = targets(options.train), targets(options.hold_out)
    began = time.monotonic()

    def told(number, step):
        misfits = {**step["training"], **step["held_out"]}
        text = "  ".join(f"{name} {100 * value**0.5:6.2f}" for name, value in misfits.items())
        print(f"{number:3d}  loss {step['loss']:.5f}  {text}  % "
              f"({time.monotonic() - began:.0f} s)", flush=True)  # fmt: skip

    found = tuned(
        made, start, training, held_out, steps=options.steps, rate=options.rate, pull=options.pull,
        folder=options.out / "steps", on_step=told,
    )  # fmt: skip
    after = with_leaves(base, found.parameters)
    record = {
        "asked": {k: str(v) for k, v in vars(options).items()}, "trail": found.trail,
        "best": found.best, "checked": {},
    }  # fmt: skip
    for width in dict.fromkeys((0.0, options.check_width)):
        for name in (*options.train, *options.hold_out):
            given = target(name, options.oracles, base, width, options.pairs)
            errors = [
                100 * misfit_and_gradient(given, made, values, gradient=False)[0] ** 0.5
                for values in (start, found.parameters)
            ]
            record["checked"][f"{name}, width {width:g} Å"] = errors
            print(f"{name:7s} width {width:g} Å: {errors[0]:.2f} -> {errors[1]:.2f} %", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write_record(options.out / "tuning.json", record)
    path = save_parameters(
        options.out / "chgnet.npz", base, after,
        source=f"force constants of {', '.join(options.train)} (DFT), width {options.width:g} Å",
    )  # fmt: skip
    print(f"--potential tuned:{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
