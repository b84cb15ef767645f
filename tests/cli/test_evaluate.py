"""Potentials against a reference: a scaled potential has errors that are known beforehand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import read, write

import phojax.evaluation
from phojax.checks import InputError
from phojax.cli import main
from phojax.convert import structure_from_ase
from phojax.evaluation import force_errors, forces_of, lattice_errors, lattice_solver, pooled
from phojax.force_constants.displacements import (
    computed_forces,
    random_displacements,
    single_displacements,
)
from phojax.io.displacement_files import read_displacement_set, write_displacements
from phojax.screening.settings import PhononSettings
from phojax.structure import supercell
from phojax.symmetry import primitive_cell, space_group

POTENTIALS = """
from dataclasses import replace

from phojax.potentials.catalogue import potential

def made(scale):
    base = potential("ions:NaCl")

    def energy(params, crystal, graph):
        return scale * base.energy(params, crystal, graph)

    return replace(base, energy=energy)

def one():
    return made(1.0)

def stiff():
    return made(1.21)
"""
SETTINGS = PhononSettings(mesh=(4, 4, 4), temperatures=(3000.0,))
FAST = ["--mesh", "4", "4", "4", "--supercell-atoms", "16", "--snapshots", "2"]


def scaled(scale):
    spot = {}
    exec(POTENTIALS, spot)
    return spot["made"](scale)


@pytest.fixture(scope="module")
def cells():
    crystal = primitive_cell(structure_from_ase(bulk("NaCl", "rocksalt", a=5.64)))
    return supercell(crystal, 2 * np.eye(3, dtype=int))


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(POTENTIALS)
    return [f"python:{tmp_path}/own.py:{name}" for name in ("one", "stiff")]


@pytest.mark.parametrize("kind", ["single", "random"])
def test_a_scaled_potential_has_known_errors(kind, cells):
    group = space_group(cells.primitive)
    given = (
        single_displacements(cells, group) if kind == "single" else random_displacements(cells, 6)
    )
    solve, _ = lattice_solver(given, group, SETTINGS)
    forces = [forces_of(scaled(s), given)[0] for s in (1.0, 1.21)]
    lattices = [solve(f) for f in forces]
    found = lattice_errors(*lattices, SETTINGS)
    symbols = cells.structure.symbols
    of_forces = force_errors(symbols, *forces)
    # Linear in the potential: forces and force constants; its root: frequencies; classically, at
    # a temperature far above all of them, the inverse: displacements.
    assert of_forces["relative"] == pytest.approx(0.21, rel=1e-10)
    assert found["phi2"]["relative"] == pytest.approx(0.21, rel=1e-9)
    if kind == "random":
        assert found["phi3"]["relative"] == pytest.approx(0.21, rel=1e-8)
    else:
        assert "phi3" not in found
    nu = lattices[0].analysis.on_mesh.frequencies_THz
    weights = lattices[0].analysis.mesh.weights
    rms = np.sqrt(weights @ (nu**2).mean(axis=1))
    assert found["frequency_rmse_THz"] == pytest.approx(0.1 * rms, rel=1e-6)
    assert found["frequency_bias_THz"] == pytest.approx(0.1 * weights @ nu.mean(axis=1), rel=1e-6)
    assert found["msd"]["3000"]["Na"]["relative_error"] == pytest.approx(1 / 1.21 - 1, rel=1e-3)
    assert found["stable"]
    assert found["reference_stable"]


def test_errors_are_those_of_numpy(cells):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 3))
    found = force_errors(["Na", "Cl", "Cl", "Na"], a, b)
    assert found["rmse_meV_A"] == pytest.approx(1e3 * np.sqrt(np.mean((a - b) ** 2)))
    cl = found["by_element"]["Cl"]
    assert cl["mae_meV_A"] == pytest.approx(1e3 * np.abs(a - b)[:, 1:3].mean())
    assert cl["count"] == 18
    # Pooled over elements it is the whole again.
    whole = pooled(list(found["by_element"].values()), "meV_A")
    for key in ("rmse_meV_A", "mae_meV_A", "max_meV_A", "relative", "count"):
        assert whole[key] == pytest.approx(found[key])


def test_residual_forces_are_no_force_constants(cells):
    """At a lattice constant that is not the potential's own, on a crystal without symmetry."""
    crystal = cells.primitive
    moved = replace(crystal, positions=crystal.positions.at[1].add(np.array([0.1, 0.05, -0.2])))
    cell = supercell(moved, cells.matrix)
    group = space_group(moved)
    given = random_displacements(cell, 12, 0.003)
    potential = scaled(1.0)
    forces, rest = forces_of(potential, given)
    assert np.abs(rest).max() > 0.1
    solve, _ = lattice_solver(given, group, SETTINGS)
    exact, _ = lattice_solver(single_displacements(cell, group, 0.003), group, SETTINGS)
    one = forces_of(potential, single_displacements(cell, group, 0.003))[0]
    a, b = (np.asarray(x.second.values) for x in (solve(forces - rest), exact(one)))
    assert np.abs(a - b).max() < 2e-3 * np.abs(b).max()


@pytest.mark.slow
def test_structures_against_a_reference_potential(own, tmp_path, capsys):
    write(tmp_path / "NaCl.cif", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "NaCl.cif"), "--reference", own[0], *FAST,
               "--temperature", "3000", "--out", str(out)]  # fmt: skip
    assert main([*command, "--potential", own[1], "lj:Ar"]) == 1  # the latter knows no Na
    text = capsys.readouterr().out
    assert "lj:Ar FAILED" in text
    assert "21.0" in text
    record = json.loads((out / "NaCl" / "record.json").read_text())
    assert record["potentials"][own[1]]["phi2"]["relative"] == pytest.approx(0.21, rel=1e-6)
    assert "knows" in record["potentials"]["lj:Ar"]["error"]
    table = pd.read_csv(out / "evaluate.csv")
    assert table["forces.relative"].dropna().tolist() == pytest.approx([0.21])
    assert {p.name for p in (out / "NaCl").iterdir()} == {
        "record.json", "evaluation.npz", "forces", "parity-forces.png", "parity-forces.pdf",
        "parity-phi2.png", "parity-phi2.pdf", "parity-phi3.png", "parity-phi3.pdf", "bands.png",
        "bands.pdf",
    }  # fmt: skip

    # Another list of potentials takes up the forces that are there.
    stored = {p: p.stat().st_mtime_ns for p in (out / "NaCl" / "forces").iterdir()}
    assert main([*command, "--potential", own[1]]) == 0
    assert {p: p.stat().st_mtime_ns for p in (out / "NaCl" / "forces").iterdir()} == stored
    capsys.readouterr()
    assert main([*command, "--potential", own[1]]) == 0
    assert "done before" in capsys.readouterr().err


def test_files_with_forces(cells, own, tmp_path, capsys):
    given = computed_forces(scaled(1.0), random_displacements(cells, 5))
    write_displacements(tmp_path / "set", given)
    yaml, frames = tmp_path / "set" / "phonopy_disp.yaml", tmp_path / "set" / "displaced.extxyz"
    back, _ = read_displacement_set(yaml)
    assert np.abs(back.forces - given.forces).max() < 1e-8
    out = tmp_path / "out"
    assert main(["evaluate", str(yaml), str(frames), "--potential", *own, *FAST[:4],
                 "--out", str(out)]) == 0  # fmt: skip
    assert "forces only" in capsys.readouterr().out
    table = pd.read_csv(out / "evaluate.csv").set_index(["name", "potential"])
    for name in ("phonopy_disp", "displaced"):
        assert table.loc[(name, own[0]), "forces.rmse_meV_A"] < 1e-4
        assert table.loc[(name, own[1]), "forces.relative"] == pytest.approx(0.21, rel=1e-5)
    assert table.loc[("phonopy_disp", own[0]), "phi2.rmse_meV_A2"] < 1e-2
    assert np.isnan(table.loc[("displaced", own[0]), "phi2.rmse_meV_A2"])


def test_forces_of_another_file_and_bad_input(cells, own, tmp_path, capsys):
    given = computed_forces(scaled(1.0), random_displacements(cells, 5))
    write_displacements(tmp_path / "set", given)
    write_displacements(tmp_path / "bare", replace(given, forces=None))
    yaml = str(tmp_path / "bare" / "phonopy_disp.yaml")
    base = ["--potential", own[0], *FAST[:4], "--out", str(tmp_path / "out")]
    assert main(["evaluate", yaml, *base]) == 1
    assert "holds no forces" in capsys.readouterr().out
    frames = str(tmp_path / "set" / "displaced.extxyz")
    assert main(["evaluate", yaml, "--forces", frames, *base]) == 0
    capsys.readouterr()

    frame = read(tmp_path / "bare" / "displaced.extxyz", index=0)
    write(tmp_path / "none.extxyz", frame)
    assert main(["evaluate", str(tmp_path / "none.extxyz"), *base]) == 1
    assert "frame 1: no forces" in capsys.readouterr().out
    assert main(["evaluate", yaml, frames, "--forces", frames, *base]) == 2
    assert main(["evaluate", yaml, "--potential", own[0], own[0], "--out", "x"]) == 2


def test_few_snapshots_leave_the_third_order_out(cells, monkeypatch):
    group = space_group(cells.primitive)
    monkeypatch.setattr(phojax.evaluation, "THIRD_SHELL", 4)
    rare = random_displacements(cells, 1)
    rare.displacements[:, 1:8] = 0.0  # one Na and one Cl move
    rare.displacements[:, 9:] = 0.0
    solve, notes = lattice_solver(rare, group, SETTINGS)
    assert any("second order alone" in note for note in notes)
    assert solve(forces_of(scaled(1.0), rare)[0]).third is None


def test_too_few_snapshots_say_how_many_it_takes(cells):
    crystal = cells.primitive
    moved = replace(crystal, positions=crystal.positions.at[1].add(np.array([0.1, 0.05, -0.2])))
    given = random_displacements(supercell(moved, cells.matrix), 4)
    solve, _ = lattice_solver(given, space_group(moved), SETTINGS)
    with pytest.raises(InputError, match="at least 5 supercells"):
        solve(np.ones(given.displacements.shape))


def test_forces_at_rest_are_told_apart(cells, own, tmp_path, capsys):
    """A reference with a displaced sublattice has forces before anything else is displaced."""
    crystal = cells.primitive
    moved = replace(crystal, positions=crystal.positions.at[1].add(np.array([0.02, 0.0, 0.0])))
    given = computed_forces(scaled(1.0), random_displacements(supercell(moved, cells.matrix), 8))
    write_displacements(tmp_path / "set", given)
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "set" / "phonopy_disp.yaml"), *FAST[:4], "--no-figures"]
    assert main([*command, "--no-third", "--potential", own[1], "--out", str(out)]) == 0
    assert "F-F₀" in capsys.readouterr().out
    record = json.loads((out / "phonopy_disp" / "record.json").read_text())
    entry = record["potentials"][own[1]]
    # Without third order in the fit, the reference's forces at rest are known up to its share.
    assert entry["forces_beyond_rest"]["relative"] == pytest.approx(0.21, abs=0.03)
    rest = forces_of(scaled(1.21), given)[1]
    assert entry["rest_force_max_eV_A"] == pytest.approx(np.abs(rest).max(), rel=1e-6)
    assert np.abs(rest).max() > 0.02
