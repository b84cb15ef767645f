"""Bulk and shear moduli against DFT: the Na binaries of a table, relaxed as `phojax phonons` does.

    python benchmarks/elastic_against_dft.py STRUCTURES OUT --potential nequix chgnet

STRUCTURES holds CIF files and reference.csv (file, bulk_modulus_vrh_GPa, shear_modulus_vrh_GPa).
A route is how the second derivatives are taken: `width=σ` by automatic differentiation, averaged
over displacements of σ Å (0: plain), `strain=h` by finite strains h with the ions relaxed. By
default a smooth potential takes width=0 and a rough one strain=0.01. One JSON file is written for
every structure, potential and route, so that a run can be taken up where it stopped; failures are
stored and listed by name. `--only` picks structures by parts of their names.
"""

import argparse
import csv
import json
import pathlib
import time
from dataclasses import replace

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402

import phojax as px  # noqa: E402
from phojax.checks import InputError  # noqa: E402
from phojax.elastic import elastic_tensor, elastic_tensor_from_strain  # noqa: E402
from phojax.screening.prepare import planned, relaxed  # noqa: E402

SMOOTH, ROUGH = "width=0", "strain=0.01"


def computed(file: pathlib.Path, potential: px.Potential, route: str, averaged: bool) -> dict:
    """Return the record of one structure."""
    started = time.perf_counter()
    kind, _, value = route.partition("=")
    width = float(value) if kind == "width" else 0.0
    settings = px.PhononSettings(
        width=width, relax_on_average=averaged, force_tolerance=1e-4, stress_tolerance=2e-5
    )
    plan = planned(px.read_structure(file), potential, settings)
    relaxation = relaxed(plan, potential, settings)
    crystal, cells = relaxation.structure, replace(plan.cell, primitive=relaxation.structure)
    if kind == "width":
        found = elastic_tensor(potential, crystal, plan.group, width=width, cells=cells)
    else:
        found = elastic_tensor_from_strain(potential, crystal, plan.group, step=float(value))
    moduli = found.moduli
    return {
        "file": file.name,
        "potential": potential.name,
        "route": route,
        "space_group": plan.group.symbol,
        "atoms": len(crystal),
        "volume_A3": float(crystal.volume),
        "relaxation": relaxation.message,
        "tensor_GPa": found.tensor_GPa.tolist(),
        "clamped_GPa": found.clamped_GPa.tolist(),
        "bulk_GPa": float(moduli.bulk),
        "shear_GPa": float(moduli.shear),
        "young_GPa": float(moduli.young),
        "poisson": float(moduli.poisson),
        "hardness_GPa": float(moduli.hardness),
        "eigenvalues_GPa": np.asarray(moduli.eigenvalues).tolist(),
        "lowest_optic_eV_A2": found.lowest_optic_eV_A2,
        "stable": found.stable,
        "stress_max_GPa": float(np.abs(found.stress_GPa).max()),
        "force_max_eV_A": found.force_max_eV_A,
        "asymmetry_GPa": found.asymmetry_GPa,
        "symmetry_residual_GPa": found.symmetry_residual_GPa,
        "standard_error_GPa": None
        if found.standard_error_GPa is None
        else float(found.standard_error_GPa.max()),
        "columns": found.columns,
        "remarks": list(found.remarks),
        "seconds": time.perf_counter() - started,
    }


def record(
    file: pathlib.Path, potential: px.Potential, route: str, averaged: bool, out: pathlib.Path
) -> dict:
    """Return the record of one structure, stored or computed now."""
    name = f"{file.stem}-{potential.name}-{route}{'-averaged' if averaged else ''}.json"
    path = out / name.replace("/", "_").replace(":", "_")
    if path.exists():
        return json.loads(path.read_text())
    try:
        found = computed(file, potential, route, averaged)
    except InputError as error:
        found = {"file": file.name, "potential": potential.name, "route": route}
        found["failed"] = str(error)
    path.write_text(json.dumps(found, indent=1))
    return found


def told(rows: list[dict], found: list[dict]) -> None:
    """Print the table of one potential, and its errors over the crystals that are stable."""
    print(f"\n{found[0]['potential']}, {found[0]['route']}")
    print(f"{'structure':24s} {'K DFT':>7s} {'K':>7s} {'error':>7s}"
          f" {'G DFT':>7s} {'G':>7s} {'error':>7s} {'s':>5s}")  # fmt: skip
    errors: dict[str, list[float]] = {"bulk": [], "shear": []}
    relative: dict[str, list[float]] = {"bulk": [], "shear": []}
    left_out = []
    for row, one in zip(rows, found, strict=True):
        name = pathlib.Path(row["file"]).stem
        if "failed" in one:
            left_out.append(f"{name} failed: {one['failed']}")
            continue
        line = f"{name:24s}"
        for which in errors:
            expected = float(row[f"{which}_modulus_vrh_GPa"])
            apart = one[f"{which}_GPa"] - expected
            line += f" {expected:7.2f} {one[f'{which}_GPa']:7.2f} {apart:7.2f}"
            if one["stable"]:
                errors[which].append(abs(apart))
                relative[which].append(abs(apart) / expected)
        print(f"{line} {one['seconds']:5.0f}" + ("" if one["stable"] else "  unstable"))
        if not one["stable"]:
            left_out.append(
                f"{name} is unstable: lowest eigenvalue {one['eigenvalues_GPa'][0]:.2f} GPa, "
                f"lowest stiffness of the ions {one['lowest_optic_eV_A2']} eV/Å²"
            )
        left_out += [f"{name}: {remark}" for remark in one["remarks"]]
    for which, apart in errors.items():
        print(
            f"{which}: mean absolute error {np.mean(apart):.2f} GPa, relative "
            f"{np.mean(relative[which]):.1%}, median {np.median(relative[which]):.1%}, "
            f"{len(apart)} stable of {len(rows)}"
        )
    for line in left_out:
        print("-", line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("structures", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--potential", nargs="+", required=True)
    parser.add_argument("--route", nargs="*", help="width=σ or strain=h; several are compared")
    parser.add_argument("--averaged", action="store_true", help="relax on the averaged surface")
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--most-atoms", type=int, default=1000, help="of the cell in the file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.structures / "reference.csv").open() as table:
        rows = [
            row
            for row in csv.DictReader(table)
            if row["bulk_modulus_vrh_GPa"] and any(part in row["file"] for part in options.only)
        ]
    skipped = [row["file"] for row in rows if int(row["n_atoms"]) > options.most_atoms]
    rows = [row for row in rows if int(row["n_atoms"]) <= options.most_atoms]
    for name in options.potential:
        potential = px.potential(name)
        for route in options.route or [ROUGH if potential.smoothing_width else SMOOTH]:
            found = []
            for row in rows:
                found.append(
                    record(options.structures / row["file"], potential, route, options.averaged,
                           options.out)
                )  # fmt: skip
                print(row["file"], f"{found[-1].get('seconds', 0):.0f} s", flush=True)
            told(rows, found)
    if skipped:
        print("skipped for their size:", ", ".join(skipped))
