"""`phojax sensitivity`: which atoms, pairs and modes a descriptor depends on."""

import argparse
from typing import Any

import jax.numpy as jnp
import numpy as np
from ase.formula import Formula

from phojax.brillouin import mesh_divisions
from phojax.checks import fail
from phojax.cli.options import SPACING, add_objective
from phojax.cli.progress import Progress
from phojax.cli.recorded import check_out
from phojax.cli.table import text_of
from phojax.design.goals import Goal, goal
from phojax.gradients.route import by_waves
from phojax.gradients.sensitivity import (
    ModeSensitivity,
    PairSensitivity,
    mesh_of,
    mode_sensitivity,
    mode_shares,
    pair_sensitivity,
    scaling_of_all,
    shells,
)
from phojax.gradients.total import Gradient, value_and_gradient
from phojax.implicit import minimum
from phojax.io.records import write_record
from phojax.io.structures import read_structure
from phojax.plots.figures import save_figure
from phojax.plots.sensitivity import SensitivityData, sensitivity_figure
from phojax.potentials.catalogue import potential
from phojax.potentials.pair import symbol_number
from phojax.screening.row import versions
from phojax.structure import Structure, Supercell, supercell
from phojax.symmetry import SpaceGroup, primitive_cell, space_group, symmetrized

_PRINTED = 12  # shells


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "sensitivity",
        help="which atoms, pairs of atoms and modes a descriptor depends on",
        description="Relax a structure, and tell what scaling the force constants of each shell "
        "of neighbours, about each atom, the masses and the modes does to what its phonons give: "
        "derivatives, by one reverse pass.",
    )
    add_objective(parser)
    add = parser.add_argument
    add("--no-figures", action="store_true", help="no figure")
    parser.set_defaults(run=run, resumes=False)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    target = options.out / "sensitivity.json"
    if options.mesh and min(options.mesh) < 1:
        raise fail(f"--mesh {' '.join(map(str, options.mesh))}", "three positive numbers")
    check_out(options.out, target)
    model = potential(options.potential).astype(jnp.float64)
    start = primitive_cell(read_structure(options.structure), 1e-3)
    if options.mobile not in start.symbols:
        raise fail(
            f"no {options.mobile} in {', '.join(sorted(set(start.symbols)))}",
            "a structure with the mobile element", "Name another one with --mobile",
        )  # fmt: skip
    aim = goal(options.objective, symbol_number(options.mobile), options.temperature, margin=None)
    group = space_group(start, 1e-3)
    progress = Progress(options.structure.stem)
    progress("relaxation", 0, 0)
    here, how = minimum(model, symmetrized(start, group), symmetry=group)
    cells = supercell(here.crystal, options.mesh or mesh_divisions(here.crystal, SPACING))
    route = by_waves(model, here.crystal, mesh_of(cells), group)
    found = value_and_gradient(aim.value, here, route, on_part=progress)
    pairs, modes = pair_sensitivity(found, cells, group), mode_sensitivity(found)
    record = _record(options, aim, found, cells, group, pairs, modes)
    record["converged"] = bool(how.converged)
    if not how.converged:
        record["notes"].append(f"the relaxation did not converge: {how.message}")
    write_record(target, record)
    if not options.no_figures:
        data = figure_data(record, here.crystal, aim, found, pairs, modes)
        save_figure(sensitivity_figure(data), options.out / "sensitivity")
    progress.end("done")
    _print(record, aim)
    print(f"results in {options.out}/: sensitivity.json"
          + ("" if options.no_figures else ", sensitivity.png, sensitivity.pdf"))  # fmt: skip
    return 0


def _record(
    options,
    aim: Goal,
    found: Gradient,
    cells: Supercell,
    group: SpaceGroup,
    pairs: PairSensitivity,
    modes: ModeSensitivity,
) -> dict[str, Any]:
    crystal, vibrations = cells.primitive, found.vibrations
    symbols, orbit = crystal.symbols, np.asarray(group.orbits)
    masses = found.by_masses * np.asarray(crystal.masses)
    by_atom = pairs.by_atom
    left_out = int(vibrations.count_left_out())
    notes = []
    if left_out:
        notes.append(f"{left_out} unstable modes are left out: what is said is of the others alone")
    atoms = [
        {
            "symbol": symbols[a], "count": int(np.sum(orbit == a)),
            "per_ln_force_constants": float(by_atom[orbit == a].sum()),
            "per_ln_own_force_constant": float(pairs.on_site[orbit == a].sum()),
            "per_ln_mass": float(masses[orbit == a].sum()),
            "per_A": float(np.linalg.norm(found.at_rest_by_positions[a])),
        }
        for a in np.unique(orbit)
    ]  # fmt: skip
    return {
        "input": str(options.structure), "potential": options.potential,
        "formula": Formula("".join(symbols)).reduce()[0].format("metal"),
        "space_group": group.symbol, "objective": aim.name, "unit": aim.unit,
        "mobile": options.mobile, "temperature_K": options.temperature,
        "mesh": [int(n) for n in np.diag(np.asarray(cells.matrix))],
        "value": found.value, "per_ln_force_constants": scaling_of_all(found),
        "lowest_THz": float(np.where(modes.rigid, np.inf, modes.frequencies_THz).min()),
        "modes_left_out": left_out, "atoms": atoms,
        "shells": [
            {
                "pair": "-".join(sorted(symbols[a] for a in s.orbits)),
                "orbits": [int(a) for a in s.orbits], "distance_A": s.distance,
                "pairs_per_cell": s.count, "per_ln_force_constants": s.scaling,
                "slope_per_eV_A2": s.slope,
            }
            for s in shells(pairs, cells, group)
        ],
        "modes": {
            "q": np.asarray(vibrations.q).tolist(), "weights": modes.weights.tolist(),
            "frequencies_THz": modes.frequencies_THz.tolist(),
            "per_ln_eigenvalue": modes.scaling.tolist(),
        },
        "versions": versions(), "notes": notes,
    }  # fmt: skip


def figure_data(
    record: dict[str, Any],
    crystal: Structure,
    aim: Goal,
    found: Gradient,
    pairs: PairSensitivity,
    modes: ModeSensitivity,
) -> SensitivityData:
    """Return what the figure of a record shows."""
    percent = 100 / abs(found.value)
    own = ~modes.rigid
    mobile = jnp.asarray(crystal.numbers == aim.mobile)
    shares = None
    if aim.name == "msd":
        shares = mode_shares(found.vibrations, mobile, aim.temperature)[own] * percent
    name = f"MSD of {record['mobile']}" if aim.name == "msd" else aim.name
    return SensitivityData(
        f"{record['formula']}, {record['space_group']}, {aim.temperature:g} K: what the {name} "
        "depends on",
        name, np.asarray(crystal.cell), np.asarray(crystal.positions),
        np.asarray(crystal.numbers), tuple(crystal.symbols), pairs.by_atom * percent,
        tuple(s["pair"] for s in record["shells"]),
        np.array([s["distance_A"] for s in record["shells"]]),
        np.array([s["per_ln_force_constants"] for s in record["shells"]]) * percent,
        modes.frequencies_THz[own], modes.scaling[own] * percent, shares,
        tuple(record["notes"]),
    )  # fmt: skip


def _print(record: dict[str, Any], aim: Goal) -> None:
    def part(value: float) -> str:
        return f"{100 * value / abs(record['value']):+.2f}"

    print(
        f"{record['formula']}, {record['space_group']}: {aim.name} {record['value']:.5g} "
        f"{aim.unit}; lowest mode {record['lowest_THz']:.3f} THz\n"
        f"all force constants, per ln Φ: {part(record['per_ln_force_constants'])} %\n"
    )
    print(text_of([
        {
            "atoms": f"{a['count']} {a['symbol']}",
            "per ln Φ/%": part(a["per_ln_force_constants"]),
            "per ln Φ of itself/%": part(a["per_ln_own_force_constant"]),
            "per ln m/%": part(a["per_ln_mass"]), "per Å/%": part(a["per_A"]),
        }
        for a in record["atoms"]
    ]))  # fmt: skip
    strongest = sorted(record["shells"], key=lambda s: -abs(s["per_ln_force_constants"]))
    chosen = strongest[:_PRINTED]
    print(f"\nthe {len(chosen)} strongest of {len(record['shells'])} shells of neighbours:")
    print(text_of([
        {
            "pair": s["pair"], "distance/Å": f"{s['distance_A']:.3f}",
            "per cell": f"{s['pairs_per_cell']:g}",
            "per ln Φ/%": part(s["per_ln_force_constants"]),
            f"slope/({aim.unit} per eV Å⁻²)": f"{s['slope_per_eV_A2']:.3g}",
        }
        for s in chosen
    ]))  # fmt: skip
    for note in record["notes"]:
        print(f"  {note}")


__all__ = ["add_parser", "figure_data", "run"]
