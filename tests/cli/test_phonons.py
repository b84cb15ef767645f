"""The command as a user runs it, on structures without weights and on phonopy's files."""

import json
import re
import sys

import h5py
import jax
import numpy as np
import pandas as pd
import phonopy
import pytest
import scipy.constants
import yaml
from ase.build import bulk
from ase.io import write
from phonopy import Phonopy

import phojax
from phojax.cli import main
from phojax.convert import phonopy_atoms
from phojax.io.phonopy_files import read_phonopy
from phojax.screening.store import Checkpoint, key_of
from phojax.structure import structure

FAST = ["--potential", "ions:NaCl", "--supercell-atoms", "16", "--mesh", "4", "4", "4"]
A = 5.64


@pytest.fixture(scope="module")
def rock_salt(tmp_path_factory):
    path = tmp_path_factory.mktemp("input") / "NaCl.cif"
    write(path, bulk("NaCl", "rocksalt", a=A, cubic=True))
    return path


@pytest.fixture(scope="module")
def finished(rock_salt, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    arguments = ["phonons", str(rock_salt), *FAST, "--width", "0.02", "--pairs", "2"]
    assert main([*arguments, "--out", str(out)]) == 0
    return out, arguments


def test_everything_is_written(finished):
    out, _ = finished
    names = {p.name for p in (out / "NaCl").iterdir()}
    assert names == {
        "record.json", "modes.npz", "structure.cif", "structure.extxyz", "phonopy.yaml",
        "force_constants.hdf5", "phonons-msd.png", "phonons-msd.pdf", "phonons-coupling.png",
        "phonons-coupling.pdf",
    }  # fmt: skip
    record = json.loads((out / "NaCl" / "record.json").read_text())
    for key in (
        "schema_version", "frequency_min_THz", "stable", "acoustic_cutoff_THz",
        "msd_axis_mean_A2", "msd_axis_max_A2", "msd_total_mean_A2", "pdos_center_THz",
        "nac_applied", "excluded", "relaxation", "force_constants", "versions", "seed",
        "settings", "flags", "width_sensitivity", "rough",
    ):  # fmt: skip
        assert key in record, key
    assert record["nac_applied"] is False
    assert any("no Born charges" in note for note in record["notes"])
    assert record["space_group"] == "Fm-3m"
    assert record["relaxation"]["converged"]
    assert set(record["msd_axis_mean_A2"]) == {"300", "800"}
    assert set(record["msd_axis_mean_A2"]["300"]) == {"Na", "Cl"}


def test_numbers_are_those_of_phonopy(finished):
    """phonopy opens the files and finds the same frequencies and thermal displacements."""
    out, _ = finished
    folder = out / "NaCl"
    record = json.loads((folder / "record.json").read_text())
    arrays = np.load(folder / "modes.npz")
    phonon = phonopy.load(
        folder / "phonopy.yaml",
        force_constants_filename=folder / "force_constants.hdf5",
        is_nac=False,
        produce_fc=False,
        log_level=0,
    )
    phonon.run_mesh([4, 4, 4], is_gamma_center=True, with_eigenvectors=True, is_mesh_symmetry=False)
    phonon.run_thermal_displacements(temperatures=[300, 800], freq_min=0.05)
    theirs = phonon.thermal_displacements.thermal_displacements  # T, atom·axis
    ours = [record["msd_axis_mean_A2"][T]["Na"] for T in ("300", "800")]
    assert ours == pytest.approx(theirs[:, :3].mean(axis=1), rel=1e-5)
    phonon.run_qpoints(arrays["q"])
    scale = np.abs(arrays["frequencies_THz"]).max()
    off = phonon.qpoints.frequencies - arrays["frequencies_THz"]
    assert np.abs(off[1:]).max() < 1e-6 * scale
    assert arrays["weights"].sum() == pytest.approx(1)
    # Mode-resolved displacements add up to the total.
    total = np.einsum("q,tqn->t", arrays["weights"], arrays["msd_mobile_A2"])
    assert total == pytest.approx([record["msd_total_mean_A2"][T]["Na"] for T in ("300", "800")])


def test_eigenmodes_stay_in_bounds(finished):
    arrays = np.load(finished[0] / "NaCl" / "modes.npz")
    for name in ("participation_ratio", "participation_ratio_mass_weighted"):
        assert np.all((arrays[name] >= 0.5 - 1e-9) & (arrays[name] <= 1 + 1e-9))
    assert np.nanmax(np.abs(arrays["coupling"])) <= 1 + 1e-9


def test_table_and_python_reader(finished):
    out, _ = finished
    table = pd.read_csv(out / "phonons.csv")
    records = phojax.load_records(out)
    assert list(table["name"]) == ["NaCl"]
    column = "msd_axis_mean_A2.800.Na"
    assert table[column][0] == pytest.approx(records[column].iloc[0])


def test_done_before_is_not_done_again(finished, capsys):
    out, arguments = finished
    before = (out / "NaCl" / "record.json").stat().st_mtime_ns
    assert main([*arguments, "--out", str(out)]) == 0
    assert "done before" in capsys.readouterr().err
    assert (out / "NaCl" / "record.json").stat().st_mtime_ns == before


def test_interrupted_goes_on_and_ends_the_same(finished, rock_salt, tmp_path, monkeypatch, capsys):
    """Stopped after the first part of the average: that part is not computed again."""
    out, arguments = finished
    from phojax.screening import store

    saved, calls = store.Checkpoint.save, []

    def save(self, name, **arrays):
        saved(self, name, **arrays)
        calls.append((name, sorted(arrays)))
        if name == "responses-0.02":
            raise KeyboardInterrupt

    monkeypatch.setattr(store.Checkpoint, "save", save)
    assert main([*arguments, "--out", str(tmp_path)]) == 130
    assert "goes on" in capsys.readouterr().err
    assert calls[-1] == ("responses-0.02", ["0:1:0"])
    monkeypatch.setattr(store.Checkpoint, "save", saved)
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    first, second = (
        json.loads((folder / "NaCl" / "record.json").read_text()) for folder in (out, tmp_path)
    )
    for record in (first, second):
        del record["wall_time_s"]
    assert first == second
    assert not (tmp_path / "NaCl" / ".partial").exists()


def test_another_setting_is_computed_anew(finished, tmp_path):
    out, arguments = finished
    key = json.loads((out / "NaCl" / "record.json").read_text())["key"]
    assert main([*arguments, "--seed", "1", "--no-figures", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "NaCl" / "record.json").read_text())["key"] != key


def test_dry_run_computes_nothing(rock_salt, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["phonons", str(rock_salt), *FAST, "--out", str(out), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"Fm-3m, 2 atoms, supercell of \d+, \d+ Hessian-vector products", text)
    assert "about" in text
    assert not out.exists()


def test_one_bad_structure_never_stops_the_others(rock_salt, tmp_path, capsys):
    bad = {
        "empty.cif": "",
        "truncated.cif": rock_salt.read_text()[:200],
        "no-mobile.cif": None,
        "unknown.cif": None,
    }
    write(tmp_path / "no-mobile.cif", bulk("KCl", "rocksalt", a=6.3))
    write(tmp_path / "unknown.cif", bulk("NaBr", "rocksalt", a=6.0))
    for name, text in bad.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in bad] + [str(tmp_path / "missing.cif"), str(rock_salt)]
    out = tmp_path / "out"
    assert main(["phonons", *paths, *FAST, "--no-figures", "--width", "0", "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    table = pd.read_csv(out / "phonons.csv").set_index("name")
    assert table["error"].notna().sum() == 5
    assert np.isnan(table["error"].get("NaCl", np.nan))
    for name in (*bad, "missing.cif"):
        error = table.loc[name.removesuffix(".cif"), "error"]
        assert name in error
        assert error in printed
    assert "--mobile" in table.loc["no-mobile", "error"]
    assert "Br" in table.loc["unknown", "error"]
    assert (out / "NaCl" / "record.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mesh", "0", "4", "4"], "mesh"),
        (["--temperature", "-5"], "temperatures"),
        (["--mobile", "Qq"], "mobile element"),
        (["--width", "-1"], "width"),
        (["--supercell-atoms", "0"], "supercell"),
        (["--potential", "nothing"], "potential"),
        (["--born", "BORN"], "phonopy input"),
        (["--exact", "--width", "0.02"], "width 0"),
        (["--force-constants-from", "primitive", "--width", "0.02"], "width 0"),
    ],
)
def test_commands_that_make_no_sense(rock_salt, tmp_path, capsys, arguments, message):
    command = ["phonons", str(rock_salt), "--potential", "ions:NaCl", "--out", str(tmp_path / "o")]
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_interpolated(rock_salt, tmp_path, capsys):
    """Longitudinal and transverse modes of point charges part at Γ, with no Born charges."""
    command = ["phonons", str(rock_salt), *FAST, "--no-figures"]
    usual, exact = tmp_path / "usual", tmp_path / "exact"
    assert main([*command, "--out", str(usual)]) == 0
    assert main([*command, "--exact", "--check-supercell", "--out", str(exact)]) == 0
    record = json.loads((exact / "NaCl" / "record.json").read_text())
    assert not record["interpolated"]
    assert record["stable"]
    check = record["supercell_check"]
    assert check["supercell_atoms"] == record["force_constants"]["supercell_atoms"]
    assert check["difference_max_THz"] > 0.1  # charges are felt farther than any supercell
    assert "off by up to" in capsys.readouterr().out
    before = json.loads((usual / "NaCl" / "record.json").read_text())
    assert before["interpolated"]
    assert before["force_constants"]["from"] == "primitive cell"  # it costs less
    ends = []
    for out in (usual, exact):
        with np.load(out / "NaCl" / "modes.npz") as file:
            at = np.flatnonzero(np.abs(file["path_q"]).max(axis=1) == 0)
            ends.append(file["path_frequencies_THz"][at[0]])
    assert np.ptp(ends[0][3:]) < 1e-6
    assert np.ptp(ends[1][3:]) > 1.0
    files = main(["phonons", str(usual / "NaCl" / "phonopy.yaml"), "--exact", "--out", str(usual)])
    assert files == 2
    assert "phonopy file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def phonopy_files(tmp_path_factory):
    """A phonopy calculation with random symmetric springs, without and with force constants."""
    folder = tmp_path_factory.mktemp("phonopy")
    cell = bulk("NaCl", "rocksalt", a=A)
    crystal = structure(cell.cell[:], cell.positions, cell.numbers)
    phonon = Phonopy(phonopy_atoms(crystal), np.diag([2, 2, 2]), primitive_matrix="P")
    x, L = phonon.supercell.positions, phonon.supercell.cell
    apart = (x[:, None] - x) @ np.linalg.inv(L)
    vectors = (apart - np.rint(apart)) @ L
    r = np.linalg.norm(vectors, axis=-1)
    near = (r > 0) & (r < 0.52 * A)
    unit = np.where(near[..., None], vectors / np.where(r > 0, r, 1)[..., None], 0)
    phi = -(1.5 * unit[..., :, None] * unit[..., None, :] + 0.4 * np.eye(3) * near[..., None, None])
    phi[np.arange(len(x)), np.arange(len(x))] = -phi.sum(axis=1)
    phonon.force_constants = phi
    phonon.save(folder / "phonopy_params.yaml", settings={"force_constants": True})
    phonon.generate_displacements(distance=0.01)
    phonon.save(folder / "phonopy_disp.yaml", settings={"force_constants": False})
    phonon.force_constants = phi  # which new displacements had dropped
    phonopy.file_IO.write_FORCE_CONSTANTS(phi, filename=str(folder / "FORCE_CONSTANTS"))
    born = "default\n2.5 0 0 0 2.5 0 0 0 2.5\n1.1 0 0 0 1.1 0 0 0 1.1\n-1.1 0 0 0 -1.1 0 0 0 -1.1\n"
    (folder / "BORN").write_text(born)
    return folder, phonon


def test_phonopy_input_equals_phonopy(phonopy_files, tmp_path):
    folder, phonon = phonopy_files
    arguments = ["phonons", str(folder / "phonopy_params.yaml"), "--mesh", "4", "4", "4"]
    assert main([*arguments, "--no-figures", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "phonopy_params" / "record.json").read_text())
    phonon.run_mesh([4, 4, 4], is_gamma_center=True, with_eigenvectors=True, is_mesh_symmetry=False)
    phonon.run_thermal_displacements(temperatures=[300, 800], freq_min=0.05)
    theirs = phonon.thermal_displacements.thermal_displacements[:, :3].mean(axis=1)
    ours = [record["msd_axis_mean_A2"][T]["Na"] for T in ("300", "800")]
    assert ours == pytest.approx(theirs, rel=1e-5)
    again = read_phonopy(tmp_path / "phonopy_params" / "phonopy.yaml")
    with h5py.File(tmp_path / "phonopy_params" / "force_constants.hdf5") as file:
        assert file["force_constants"].shape[0] == 2
    assert again.force_constants.values.shape == (2, 16, 3, 3)


def polar(folder, out, *more):
    """Return the record of the crystal with its Born charges."""
    arguments = [
        "phonons", str(folder / "phonopy_disp.yaml"), "--force-constants",
        str(folder / "FORCE_CONSTANTS"), "--born", str(folder / "BORN"), "--mesh", "4", "4", "4",
        "--no-figures", "--out", str(out), *more,
    ]  # fmt: skip
    assert main(arguments) == 0
    return json.loads((out / "phonopy_disp" / "record.json").read_text())


def test_born_charges_give_the_non_analytic_term(phonopy_files, tmp_path, capsys):
    folder, _ = phonopy_files
    names = ["band.yaml", "mesh.hdf5", "phononwebsite.json", "FORCE_CONSTANTS"]
    (tmp_path / "mine.py").write_text(
        "def highest(analysis, settings):\n"
        "    nu = analysis.on_mesh.frequencies_THz\n"
        "    return {'mesh': nu.max()}\n"
        "def broken(analysis, settings):\n"
        "    return 1 / 0\n"
        "def text(analysis, settings):\n"
        "    return 'soft'\n"
    )
    chosen = [word for f in ("highest", "broken", "text") for word in ("--descriptor", f"mine:{f}")]
    sys.path.insert(0, str(tmp_path))
    try:
        record = polar(folder, tmp_path, *chosen, "--export", *names)
    finally:
        sys.path.remove(str(tmp_path))
    assert record["nac_applied"] is True
    assert record["nac"]["neutrality_removed_e"] < 1e-12
    peer = phonopy.load(
        folder / "phonopy_disp.yaml", force_constants_filename=folder / "FORCE_CONSTANTS",
        born_filename=folder / "BORN", log_level=0,
    )  # fmt: skip
    peer.run_mesh([4, 4, 4], is_gamma_center=True, with_eigenvectors=True, is_mesh_symmetry=False)
    peer.run_thermal_displacements(temperatures=[300, 800], freq_min=0.05)
    theirs = peer.thermal_displacements.thermal_displacements[:, :3].mean(axis=1)
    ours = [record["msd_axis_mean_A2"][T]["Na"] for T in ("300", "800")]
    assert ours == pytest.approx(theirs, rel=1e-5)
    peer.run_thermal_properties(temperatures=[300], cutoff_frequency=0.05)
    heat = record["heat_capacity_eV_K_per_cell"]["300"] * scipy.constants.e * scipy.constants.N_A
    assert heat == pytest.approx(peer.thermal_properties.heat_capacity[0], rel=1e-5)
    assert record["msd_total_missed_by_mesh_A2"]["300"] > 0

    found = record["descriptors"]
    assert 0 < found["mine:highest"]["mesh"] < record["frequency_max_THz"]  # which LO at Γ is
    assert found["mine:broken"] is None
    assert found["mine:text"] is None
    assert any("soft" in n or "returned a str" in n for n in record["notes"])
    assert "highest mesh" in capsys.readouterr().out
    assert "descriptors.mine:highest.mesh" in pd.read_csv(tmp_path / "phonons.csv").columns
    assert "descriptor_failed" in record["flags"]
    assert record["structural"]["neighbors_crystalnn"] == 6

    made = tmp_path / "phonopy_disp"
    peer.auto_band_structure(npoints=11)
    bands = yaml.safe_load((made / "band.yaml").read_text())
    # Γ approached along Γ-X: the longitudinal mode is split off.
    peer.run_qpoints([[0, 0, 0]], nac_q_direction=[1, 0, 1])
    at_gamma = [b["frequency"] for b in bands["phonon"][0]["band"]]
    assert at_gamma == pytest.approx(peer.qpoints.frequencies[0], abs=1e-5)
    with h5py.File(made / "mesh.hdf5") as file:
        assert list(file["mesh"]) == [4, 4, 4]
    assert json.loads((made / "phononwebsite.json").read_text())["natoms"] == 2
    assert (made / "phonopy-text" / "FORCE_CONSTANTS").exists()

    # Another run leaves nothing of this one beside its own record.
    polar(folder, tmp_path, "--no-nac")
    assert not [name for name in ("phonopy-text", *names) if (made / name).exists()]
    assert (made / "previous" / "band.yaml").exists()


def test_born_charges_without_their_term_are_not_silent(phonopy_files, tmp_path, capsys):
    record = polar(phonopy_files[0], tmp_path, "--no-nac")
    assert record["nac_applied"] is False
    assert "nac_not_applied" in record["flags"]
    assert "the non-analytic term was not asked for" in capsys.readouterr().out


def test_a_descriptor_that_is_not_there(phonopy_files, tmp_path, capsys):
    folder, _ = phonopy_files
    arguments = ["phonons", str(folder / "phonopy_params.yaml"), "--out", str(tmp_path)]
    assert main([*arguments, "--descriptor", "no_such_module:f"]) == 2
    assert "a function in a module that can be imported" in capsys.readouterr().err


def test_phonopy_file_without_forces(phonopy_files, tmp_path, capsys):
    folder, _ = phonopy_files
    alone = tmp_path / "phonopy_disp.yaml"
    alone.write_text((folder / "phonopy_disp.yaml").read_text())
    assert main(["phonons", str(alone), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    assert "phonopy_disp.yaml" in printed
    assert "--force-sets" in printed or "FORCE_SETS" in printed


def test_checkpoints_belong_to_their_key(tmp_path):
    first = Checkpoint(tmp_path, key_of(a=1))
    first.save("part", values=np.arange(3))
    assert np.array_equal(first.load("part")["values"], np.arange(3))
    assert Checkpoint(tmp_path, key_of(a=2)).load("part") == {}
    (tmp_path / "part.npz").write_bytes(b"broken")
    assert first.load("part") == {}


def test_importing_changes_no_global_setting():
    import subprocess
    import sys

    code = "import phojax, jax; assert not jax.config.jax_enable_x64"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert jax.config.jax_enable_x64  # the tests' own choice


def test_a_file_beside_the_input_is_part_of_its_key(phonopy_files, tmp_path):
    """What the reader finds by itself must not be taken for unchanged."""
    folder, phonon = phonopy_files
    path = tmp_path / "phonopy_disp.yaml"
    path.write_text((folder / "phonopy_disp.yaml").read_text())
    beside = tmp_path / "FORCE_CONSTANTS"
    command = ["phonons", str(path), "--mesh", "4", "4", "4", "--no-figures"]

    def msd(scale):
        phonopy.file_IO.write_FORCE_CONSTANTS(scale * phonon.force_constants, filename=str(beside))
        assert main([*command, "--out", str(tmp_path / "out")]) == 0
        record = json.loads((tmp_path / "out" / "phonopy_disp" / "record.json").read_text())
        return record["msd_total_mean_A2"]["800"]["Na"]

    assert msd(1.0) / msd(2.0) == pytest.approx(2, rel=0.05)  # classical: U goes as 1/Φ


def test_figures_are_made_up_for(finished, tmp_path, capsys):
    _, arguments = finished
    assert main([*arguments, "--no-figures", "--out", str(tmp_path)]) == 0
    assert not list((tmp_path / "NaCl").glob("*.png"))
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "done before" not in capsys.readouterr().err
    assert list((tmp_path / "NaCl").glob("*.png"))


def test_a_failed_rerun_keeps_what_there_was(rock_salt, tmp_path):
    path = tmp_path / "salt.cif"
    path.write_text(rock_salt.read_text())
    command = ["phonons", str(path), *FAST, "--no-figures", "--width", "0"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    path.write_text("")
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    folder = tmp_path / "out" / "salt"
    assert "error" in json.loads((folder / "record.json").read_text())
    assert "error" not in json.loads((folder / "previous" / "record.json").read_text())


def test_an_output_folder_that_cannot_be(rock_salt, tmp_path, capsys):
    command = ["phonons", str(rock_salt), *FAST]
    assert main([*command, "--out", str(rock_salt)]) == 2
    (tmp_path / "phonons.csv").mkdir()
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert "expected a folder that can be written to" in capsys.readouterr().err


def test_the_tensor_of_the_readme_is_cubic(rock_salt):
    """The README's mesh is reduced by time reversal alone: U needs no average over stars."""
    crystal = phojax.primitive_cell(phojax.read_structure(rock_salt))
    group = phojax.space_group(crystal)
    cell = phojax.supercell(crystal, [2, 2, 2])
    constants = phojax.hessian(phojax.potential("ions:NaCl"), cell, group).force_constants

    def tensor(mesh):
        found = phojax.modes.modes(
            constants, jax.numpy.asarray(mesh.q), jax.numpy.asarray(mesh.weights)
        )
        return np.asarray(
            phojax.displacement_tensor(found, 300.0, phojax.oscillators(found, 0.0).kept)
        )

    full, reduced = (
        tensor(phojax.gamma_mesh((4, 4, 4))),
        tensor(phojax.gamma_mesh((4, 4, 4), group)),
    )
    assert np.abs(full - full[:, :1, :1] * np.eye(3)).max() < 1e-12
    assert np.abs(reduced - full).max() > 1e-3
    assert np.abs(phojax.symmetrized_tensors(reduced, group) - full).max() < 1e-12
