"""`phojax expand`: thermal expansion of structures in the quasi-harmonic approximation."""

import argparse
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.cell import Cell
from ase.formula import Formula

from phojax.brillouin import gamma_mesh, mesh_divisions
from phojax.checks import fail
from phojax.cli.jobs import ONE_AT_A_TIME, Job, named_jobs, structure_input
from phojax.cli.options import SPACING, add_common
from phojax.cli.progress import Progress
from phojax.cli.recorded import over_inputs, recorded
from phojax.cli.table import write_csv
from phojax.descriptors.thermodynamics import J_per_K_mol
from phojax.finite_temperature.quasiharmonic import FirstOrder, State
from phojax.finite_temperature.strain_expansion import STEP
from phojax.finite_temperature.strained_matrices import gruneisen_of_volume, gruneisen_tensors
from phojax.finite_temperature.thermal_expansion import ThermalExpansion, thermal_expansion
from phojax.force_constants.average import averaged
from phojax.io.records import write_modes
from phojax.io.structures import check_readable, write_structure
from phojax.modes import translations
from phojax.plots.expansion import ExpansionData, expansion_figure
from phojax.plots.figures import save_figure
from phojax.plots.style import without_folders
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential
from phojax.screening.row import versions
from phojax.screening.store import Checkpoint, identity, key_of
from phojax.structure import supercell
from phojax.symmetry import near_cubic_matrix, primitive_cell, space_group, symmetrized
from phojax.units import EV_PER_A3_IN_GPA

_GRID = 16  # intervals of temperature in a figure
_FILES = ("structure.extxyz", "T*K.extxyz", "gruneisen.npz", "expansion.*")
_ROUGH = 0.05  # of α: two expansions that differ by more do not agree


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "expand",
        help="thermal expansion in the quasi-harmonic approximation, by derivatives in strain",
        description="Structure files to cells at temperatures: volume, the tensor of thermal "
        "expansion, bulk modulus, heat capacity at constant pressure, Grüneisen tensors of all "
        "modes. The space group is kept, and every strain that keeps it varies. "
        "The same command goes on where it was interrupted.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", type=pathlib.Path, help="structure files")
    add("--potential", default="nequix", metavar="NAME",
        help="a smooth one, in JAX (default: nequix; `phojax potentials` lists them)")  # fmt: skip
    add("--pressure", type=float, default=0.0, metavar="GPa", help="(default: 0)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--strain", type=float, default=STEP, metavar="H",
                     help="of the crystals that give derivatives in strain "
                     f"(default: {STEP})")  # fmt: skip
    how.add_argument("--forward-mode", action="store_true",
                     help="exact derivatives in strain; they take long to compile")  # fmt: skip
    add(
        "--once",
        action="store_true",
        help="expand at the static minimum alone, at half the cost: no error is known then",
    )
    add("--width", type=float, metavar="Å",
        help="over which energy and force constants are averaged in a supercell; 0 for none "
        "(default: what the potential recommends)")  # fmt: skip
    add("--pairs", type=int, default=3, metavar="N", help="± pairs in that average (default: 3)")
    add_common(parser, ("--out", "--temperature", "--supercell-atoms", "--mesh", "--no-figures"))
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Asked:
    """What a result depends on, beside structure and potential."""

    temperatures: tuple[float, ...]
    pressure_GPa: float
    strain: float | None
    once: bool
    width: float
    pairs: int
    supercell_atoms: int
    mesh: tuple[int, ...] | None

    @property
    def grid(self) -> list[float]:
        """Temperatures asked for, and those between for a figure."""
        between = np.linspace(0, max(self.temperatures), _GRID + 1)
        return sorted({*map(float, between), *self.temperatures})


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    if not all(np.isfinite(T) and T >= 0 for T in options.temperature):
        raise fail(f"--temperature {options.temperature}", "numbers in K, none below 0")
    if not np.isfinite(options.pressure):
        raise fail(f"--pressure {options.pressure}", "a number in GPa")
    if not 0 < options.strain <= 0.02:
        raise fail(f"--strain {options.strain}", "a number above 0 and up to 0.02")
    jobs = named_jobs(options.inputs, options.out)
    model = potential(options.potential).astype(jnp.float64)
    asked = _Asked(
        tuple(sorted(set(options.temperature))), options.pressure,
        None if options.forward_mode else options.strain, options.once,
        model.smoothing_width if options.width is None else options.width, options.pairs,
        options.supercell_atoms, tuple(options.mesh) if options.mesh else None,
    )  # fmt: skip
    works = {job.name: partial(_done_or_computed, job, model, asked, not options.no_figures)
             for job in jobs}  # fmt: skip
    return over_inputs(
        works, options.out / "expand.csv",
        lambda records: [row for record in records for row in _rows(record)],
    )  # fmt: skip


def _done_or_computed(
    job: Job, model: Potential, asked: _Asked, figures: bool, progress: Progress
) -> dict[str, Any]:
    def key() -> str:
        check_readable(job.path)
        found = versions()
        return key_of(
            input=job.path.read_bytes(), asked=vars(asked),
            versions={k: found[k] for k in ("phojax", "jax")}, **identity(model),
        )  # fmt: skip

    def computed(checkpoint: Checkpoint) -> dict[str, Any]:
        progress("reading", 0, 0)
        crystal, notes = structure_input(job)
        start = primitive_cell(crystal, 1e-3)
        group = space_group(start, 1e-3)
        start = symmetrized(start, group)
        mesh = gamma_mesh(asked.mesh or mesh_divisions(start, SPACING), group)
        used = model
        if asked.width > 0:
            matrix = near_cubic_matrix(start, group, asked.supercell_atoms)
            cells = supercell(start, matrix)
            used = averaged(model, cells, asked.width, asked.pairs, jax.random.key(0))
        found = thermal_expansion(
            used, start, mesh, group, asked.grid, pressure=asked.pressure_GPa / EV_PER_A3_IN_GPA,
            step=asked.strain, again=not asked.once, on_part=progress, kept=checkpoint,
        )  # fmt: skip
        record = expansion_record(found, asked.temperatures) | {
            "name": job.name, "space_group": group.symbol, "potential": model.name,
            "width_A": asked.width, "mesh": list(mesh.divisions),
            "pressure_GPa": asked.pressure_GPa, "strain_of_differences": asked.strain,
            "versions": versions(),
        }  # fmt: skip
        if model.smoothing_width > asked.width:
            record["notes"].append(f"{model.name} is rough: strain derivatives follow its "
                                   "roughness; average with --width")  # fmt: skip
        record["notes"] = notes + record["notes"]
        progress("writing", 0, 0)
        _write(job.folder, record, found, asked.temperatures, figures)
        return record

    return recorded(job, key, computed, progress, files=_FILES)


def expansion_record(found: ThermalExpansion, temperatures: Sequence[float]) -> dict[str, Any]:
    """Return what there is to know of a thermal expansion, units in the keys.

    Args:
        found: At these temperatures and others between.
        temperatures: Those whose cells are told; flags are of all.
    """
    crystal = found.at_rest
    flags = {flag for state in found.states for flag in state.flags}
    notes = []
    if not found.relaxation.converged:
        flags.add("not_relaxed")
        notes.append(f"the relaxation did not converge: {found.relaxation.message}")
    left_out = int(found.matrices.count_left_out(jnp.zeros(len(found.matrices.strains))))
    if left_out:
        notes.append(f"{left_out} unstable modes are left out: what is said is of the others alone")
    lost = [state.temperature for state in found.states if not state.found]
    if lost:
        notes.append(f"no minimum of the free energy from {min(lost):g} K on")
    crossed = [s.temperature for s in found.states if "modes_cross_zero" in s.flags]
    if crossed:
        notes.append(f"modes cross zero on the way: cells from {min(crossed):g} K on jump")
    each = {}
    for T in temperatures:
        at = [state.temperature for state in found.states].index(T)
        one = _at_temperature(found.states[at], found.first_order[at], crystal.volume)
        apart = float(found.difference[at])
        alpha = abs(found.states[at].volume_expansion)
        one["volume_expansion_difference_per_K"] = _known(apart)
        if apart > _ROUGH * max(alpha, 1e-6):
            one["flags"].append("expansions_disagree")
            flags.add("expansions_disagree")
            notes.append(f"{T:g} K: two expansions in strain give α_V that differ by "
                         f"{1e6 * apart:.1f}e-6/K")  # fmt: skip
        each[f"{T:g}"] = one
    modes = len(crystal) * 3 / float(np.min(found.matrices.weights))
    return {
        "formula": Formula("".join(crystal.symbols)).reduce()[0].format("metal"),
        "atoms": len(crystal),
        "at_rest": _cell(crystal),
        "modes_left_out": left_out,
        "translations_share_of_modes": 3 / modes,
        "rows": found.rows,
        "reach_strain": float(found.last.reach),
        "temperatures": each,
        "flags": sorted(flags),
        "notes": notes,
    }


def _at_temperature(state: State, first: FirstOrder, volume_at_rest) -> dict[str, Any]:
    def molar(value: float) -> float | None:
        return _known(float(J_per_K_mol(jnp.asarray(value))))

    cell = _cell(state.crystal) if state.found else dict.fromkeys(_cell(state.crystal))
    return {
        **cell,
        "volume_over_static": _known(state.volume / float(volume_at_rest)),
        "volume_expansion_per_K": _known(state.volume_expansion),
        "expansion_per_K": _matrix(state.expansion),
        "bulk_modulus_GPa": _known(state.bulk_modulus_GPa),
        "heat_capacity_pressure_J_K_mol": molar(state.heat_capacity_pressure),
        "heat_capacity_volume_J_K_mol": molar(state.heat_capacity_volume),
        "heat_capacity_strain_J_K_mol": molar(state.heat_capacity_strain),
        "entropy_J_K_mol": molar(state.entropy),
        "free_energy_eV": _known(state.free_energy),
        "gruneisen_tensor": _matrix(state.gruneisen),
        "gruneisen": _known(float(np.trace(state.gruneisen)) / 3),
        "first_order": {
            "volume_expansion_per_K": _known(first.volume_expansion),
            "expansion_per_K": _matrix(first.expansion),
            "strain": _matrix(first.strain),
            "gruneisen_tensor": _matrix(first.gruneisen),
            "gruneisen": _known(float(np.trace(first.gruneisen)) / 3),
        },
        "modes_left_out": state.left_out,
        "flags": list(state.flags),
    }


def _cell(crystal) -> dict[str, Any]:
    a = Cell(np.asarray(crystal.cell)).cellpar()
    return {
        "volume_A3": float(crystal.volume),
        "lengths_A": [float(x) for x in a[:3]],
        "angles_deg": [float(x) for x in a[3:]],
    }


def _write(folder: pathlib.Path, record, found: ThermalExpansion, temperatures, figures) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_structure(folder / "structure.extxyz", found.at_rest)
    for state in found.states:
        if state.temperature in temperatures and state.found:
            write_structure(folder / f"T{state.temperature:g}K.extxyz", state.crystal)
    modes, tensors = gruneisen_tensors(found.matrices)
    _, of_volume = gruneisen_of_volume(found.matrices)
    write_modes(folder / "gruneisen.npz", {
        "q": modes.q, "weights": modes.weights, "frequencies_THz": modes.frequencies_THz,
        "gruneisen": of_volume, "gruneisen_tensors": tensors,
    })  # fmt: skip
    write_csv(folder / "expansion.csv", [
        {
            "temperature_K": s.temperature, "volume_A3": s.volume,
            "volume_expansion_per_K": s.volume_expansion,
            **{f"expansion_{n}_per_K": s.expansion[a, b]
               for n, (a, b) in zip(("xx", "yy", "zz", "yz", "xz", "xy"),
                                    ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)),
                                    strict=True)},
            "first_order_volume_expansion_per_K": f.volume_expansion,
            "bulk_modulus_GPa": s.bulk_modulus_GPa,
            "gruneisen": np.trace(s.gruneisen) / 3, "flags": " ".join(s.flags),
        }
        for s, f in zip(found.states, found.first_order, strict=True)
    ])  # fmt: skip
    if not figures:
        return
    drawn = ~np.asarray(translations(modes)) & np.isfinite(np.asarray(of_volume))
    data = ExpansionData(
        f"{record['formula']}, {record['space_group']}: thermal expansion, "
        f"{without_folders(record['potential'])}",
        np.array([s.temperature for s in found.states]),
        np.array([s.volume for s in found.states]) / float(found.at_rest.volume),
        np.array([np.diag(s.expansion) for s in found.states]),
        np.array([np.diag(f.expansion) for f in found.first_order]),
        np.asarray(modes.frequencies_THz)[drawn], np.asarray(of_volume)[drawn],
        np.array([not s.flags for s in found.states]), tuple(record["notes"]),
    )  # fmt: skip
    with ONE_AT_A_TIME:
        save_figure(expansion_figure(data), folder / "expansion")


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row of the table per temperature."""
    if "error" in record:
        return [{"name": record["name"], "flags": "failed"}]
    rows = []
    for T, one in record["temperatures"].items():
        flags = sorted({*one["flags"], *({"not_relaxed"} & set(record["flags"]))})
        alpha = np.full((3, 3), np.nan) if one["expansion_per_K"] is None else np.array(
            one["expansion_per_K"]
        )  # fmt: skip
        x, y, z = (_text(1e6 * alpha[k, k], 1) for k in range(3))
        rows.append({
            "name": record["name"], "formula": record["formula"],
            "group": record["space_group"], "T/K": T,
            "V/Å³": _text(one["volume_A3"], 3),
            "V/V0": _text(one["volume_over_static"], 4),
            "α_V/(1e-6/K)": _text(one["volume_expansion_per_K"], 1, 1e6),
            "α_xx": x, "α_yy": y, "α_zz": z,
            "first order": _text(one["first_order"]["volume_expansion_per_K"], 1, 1e6),
            "B_T/GPa": _text(one["bulk_modulus_GPa"], 1),
            "C_p/(J/K/mol)": _text(one["heat_capacity_pressure_J_K_mol"], 2),
            "γ": _text(one["gruneisen"], 2),
            "flags": " ".join(flags),
        })  # fmt: skip
    return rows


def _text(value: float | None, digits: int, times: float = 1.0) -> str:
    return "" if value is None or not np.isfinite(value) else f"{times * value:.{digits}f}"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _matrix(value: np.ndarray) -> list | None:
    return np.asarray(value).tolist() if np.all(np.isfinite(value)) else None


__all__ = ["add_parser", "expansion_record", "run"]
