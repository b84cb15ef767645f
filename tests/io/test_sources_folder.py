"""Folders and files of structures as sources of a screening, and tables beside them."""

import csv
import pathlib

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from pymatgen.core import Structure as PymatgenStructure

from phojax.checks import InputError
from phojax.convert import ase_atoms
from phojax.io.sources import read_candidates

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "structures"


def salt(name="NaCl", a=5.64):
    return bulk(name, "rocksalt", a)


def write(path, atoms, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, atoms, **options)


def disordered(path):
    """A CIF with mixed sites, written by pymatgen."""
    mixed = PymatgenStructure.from_spacegroup(
        "Fm-3m", np.eye(3) * 5.7, [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    mixed.to(str(path), fmt="cif")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "b" / "NaF.cif", salt("NaF", 4.6))
    write(tmp_path / "NaCl.cif", salt())
    write(tmp_path / "run1" / "POSCAR", salt("NaBr", 5.97))
    write(tmp_path / "run1" / "CONTCAR", salt("NaBr", 5.95))
    write(tmp_path / "b" / "KCl.vasp", salt("KCl", 6.3))
    (tmp_path / "notes.txt").write_text("nothing")
    write(tmp_path / ".ipynb_checkpoints" / "NaCl-checkpoint.cif", salt())
    return tmp_path


def rows(path, *lines):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(lines)


def by_id(source):
    return {c.id: c for c in source.candidates}


def test_folder(folder):
    source = read_candidates(str(folder))
    assert [c.id for c in source.candidates] == [
        "NaCl", "b_KCl", "b_NaF", "run1_CONTCAR", "run1_POSCAR",
    ]  # fmt: skip
    assert source.ignored == 2
    assert source.remarks == ()
    crystal = by_id(source)["run1_POSCAR"].structure
    np.testing.assert_allclose(crystal.cell, salt("NaBr", 5.97).cell, atol=1e-12)
    assert by_id(source)["b_NaF"].metadata["file"] == "b/NaF.cif"


def test_ids_do_not_depend_on_what_else_is_there(folder):
    before = {c.id: c.metadata["file"] for c in read_candidates(str(folder)).candidates}
    write(folder / "a" / "AgCl.cif", salt("AgCl", 5.55))
    write(folder / "zz.extxyz", salt("LiF", 4.03))
    after = {c.id: c.metadata["file"] for c in read_candidates(str(folder)).candidates}
    assert before.items() <= after.items()


def test_ids_that_collide(tmp_path):
    write(tmp_path / "NaCl.cif", salt())
    write(tmp_path / "NaCl.vasp", salt(a=5.7))
    write(tmp_path / "NACL.xsf", salt(a=5.8))
    write(tmp_path / "Å & ß.cif", salt(a=5.9))
    source = read_candidates(str(tmp_path))
    ids = [c.id for c in source.candidates]
    assert len({i.casefold() for i in ids}) == 4
    assert all(i.isascii() and not set(i) & set(" /&") for i in ids)
    assert any("3 entries are called" in text for text in source.remarks)
    extended = {c.id: c.metadata["source_id"] for c in source.candidates[1:3]}
    assert set(extended.values()) == {"NaCl"}


def test_unreadable_files_are_candidates_with_errors(tmp_path):
    disordered(tmp_path / "mixed.cif")
    (tmp_path / "empty.cif").write_text("")
    write(tmp_path / "cut.cif", salt())
    text = (tmp_path / "cut.cif").read_text()
    (tmp_path / "cut.cif").write_text(text[: len(text) - 40])
    write(tmp_path / "H2O.xyz", molecule("H2O"))
    (tmp_path / "bytes.vasp").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "NaCl.cif.gz").write_bytes(b"x")
    close = salt()
    close.positions[1] = close.positions[0] + [0.1, 0, 0]
    write(tmp_path / "close.vasp", close)
    found = by_id(read_candidates(str(tmp_path)))
    assert set(found) == {"mixed", "empty", "cut", "H2O", "bytes", "NaCl.cif", "close"}
    for candidate in found.values():
        assert candidate.structure is None
        assert candidate.error
    assert "partial occupancy" in found["mixed"].error
    assert "empty" in found["empty"].error
    assert "periodic" in found["H2O"].error
    assert "compressed" in found["NaCl.cif"].error
    assert "0.100 Å apart" in found["close"].error


def test_what_is_no_source(tmp_path):
    for name in ("", "mp:", "x" * 400, str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match="does not exist"):
            read_candidates(name)
    with pytest.raises(InputError, match=r"no structures.*CIF, POSCAR"):
        read_candidates(str(tmp_path))
    (tmp_path / "thing.qqq").write_text("what is this\n")
    with pytest.raises(InputError, match="of no kind that is known"):
        read_candidates(str(tmp_path / "thing.qqq"))


def test_single_file(tmp_path):
    write(tmp_path / "NaCl.cif", salt())
    (only,) = read_candidates(str(tmp_path / "NaCl.cif")).candidates
    assert only.id == "NaCl"
    assert len(only.structure) == 2


def test_cif_with_several_blocks(tmp_path):
    write(tmp_path / "all.cif", [salt(), salt("KCl", 6.3)], format="cif")
    disordered(tmp_path / "mixed.cif")
    text = (tmp_path / "all.cif").read_text() + (tmp_path / "mixed.cif").read_text()
    (tmp_path / "mixed.cif").unlink()
    (tmp_path / "all.cif").write_text(text)
    candidates = read_candidates(str(tmp_path / "all.cif")).candidates
    assert [c.structure and sorted(c.structure.symbols) for c in candidates] == [
        ["Cl", "Na"], ["Cl", "K"], None,
    ]  # fmt: skip
    assert "partial occupancy" in candidates[2].error
    assert len({c.id for c in candidates}) == 3
    assert all(c.id.startswith("all-") for c in candidates)


def test_frames_of_an_extxyz(tmp_path):
    frames = []
    for name, a in (("NaCl", 5.64), ("NaBr", 5.97), ("NaCl", 5.7)):
        atoms = salt(name, a)
        atoms.info = {"formation_energy_per_atom": -a, "bandgap": a, "note": "by hand"}
        frames.append(atoms)
    frames[1].info["material_id"] = "mp-22916"
    write(tmp_path / "set.extxyz", frames)
    write(tmp_path / "other.extxyz", frames[::-1])
    first = read_candidates(str(tmp_path / "set.extxyz")).candidates
    assert [c.metadata["band_gap_eV"] for c in first] == [5.64, 5.97, 5.7]
    assert [c.metadata["formation_energy_eV_atom"] for c in first] == [-5.64, -5.97, -5.7]
    assert [c.metadata["frame"] for c in first] == [1, 2, 3]
    assert first[1].id == "mp-22916"
    assert first[0].id.startswith("ClNa-")
    # The name of the file is in the metadata that tell copies apart; here it has to be the same.
    (tmp_path / "set.extxyz").unlink()
    (tmp_path / "other.extxyz").rename(tmp_path / "set.extxyz")
    second = read_candidates(str(tmp_path / "set.extxyz")).candidates
    assert [c.id for c in second] == [c.id for c in first][::-1]


def test_frames_that_end_too_early(tmp_path):
    write(tmp_path / "set.extxyz", [salt(), salt("NaBr", 5.97)])
    text = (tmp_path / "set.extxyz").read_text()
    (tmp_path / "set.extxyz").write_text(text[: len(text) - 60])
    first, second = read_candidates(str(tmp_path / "set.extxyz")).candidates
    assert first.structure is not None
    assert second.structure is None
    assert "frame 2 cannot be read" in second.error


def test_table_in_the_folder(folder):
    rows(
        folder / "data.csv",
        ["Filename", "formula", "band gap", "e_form", "stable", "note"],
        ["NaCl.cif", "NaCl", "5.0", "-2.1", "true", "NaN"],
        ["b/NaF.cif", "NaF", "", "-3", "false", "x"],
        ["KCl.vasp", "NaI", "NaN", "0.1", "false", "y"],
        ["lost.cif", "NaN", "1", "1", "true", "z"],
    )
    source = read_candidates(str(folder))
    found = by_id(source)
    assert found["NaCl"].metadata == {
        "file": "NaCl.cif", "source": "NaCl.cif", "formula": "NaCl", "band_gap_eV": 5.0,
        "formation_energy_eV_atom": -2.1, "stable": True, "note": "NaN",
    }  # fmt: skip
    assert "band_gap_eV" not in found["b_NaF"].metadata
    assert "band_gap_eV" not in found["b_KCl"].metadata
    assert found["b_KCl"].metadata["formation_energy_eV_atom"] == 0.1
    assert found["b_KCl"].remarks == ("the formula is KCl, data.csv says NaI",)
    assert source.ignored == 2
    said = " ".join(source.remarks)
    assert "rows without a structure (1): lost.cif" in said
    assert "structures without a row (2): run1_CONTCAR, run1_POSCAR" in said


def test_table_by_id_semicolons_and_several_tables(folder):
    text = "id;gap;source\nnacl;5,0;paper\nNaCl;4;again\nPOSCAR;1;run\nCONTCAR;x;\n"
    (folder / "a.csv").write_text(text, encoding="utf-8-sig")
    (folder / "b.csv").write_text("id,gap\nNaCl,1\n")
    source = read_candidates(str(folder))
    assert any("several tables" in text for text in source.remarks)
    assert "band_gap_eV" not in by_id(source)["NaCl"].metadata
    found = read_candidates(str(folder), folder / "a.csv")
    candidate = by_id(found)["NaCl"]
    assert candidate.metadata["source"] == "paper"
    assert any("'5,0', no number" in text for text in candidate.remarks)
    assert by_id(found)["run1_POSCAR"].metadata["band_gap_eV"] == 1.0
    assert any("had one already" in text for text in found.remarks)


def test_rows_that_fit_several_structures(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "NaCl.cif", salt())
    rows(tmp_path / "t.csv", ["file", "gap"], ["NaCl.cif", 1], ["b/NaCl.cif", 2])
    source = read_candidates(str(tmp_path))
    found = by_id(source)
    assert "band_gap_eV" not in found["a_NaCl"].metadata
    assert found["b_NaCl"].metadata["band_gap_eV"] == 2.0
    assert any("fit several structures" in text for text in source.remarks)


def test_tables_that_name_no_structures(folder):
    rows(folder / "t.csv", ["energy", "gap"], [1, 2])
    source = read_candidates(str(folder))
    assert any("not used as metadata" in text for text in source.remarks)
    with pytest.raises(InputError, match="has the columns energy, gap"):
        read_candidates(str(folder), folder / "t.csv")
    with pytest.raises(InputError, match="does not exist"):
        read_candidates(str(folder), folder / "no.csv")


def test_examples():
    found = by_id(read_candidates(str(EXAMPLES)))
    assert {"Na2S", "Na3N", "Na3PS4", "NaCl"} <= set(found)
    assert not any(c.error for c in found.values())


def test_reference_structures(shared):
    folder = shared / "data" / "structures"
    source = read_candidates(str(folder))
    assert len(source.candidates) == 41
    assert not any(c.error or c.remarks for c in source.candidates)
    assert source.remarks == ("reference.csv: structures without a row (1): Na3PS4_cubic",)
    with open(folder / "reference.csv", newline="") as file:
        table = {row["file"]: row for row in csv.DictReader(file)}
    for candidate in source.candidates:
        row = table.get(candidate.metadata["file"])
        if row is None:
            continue
        atoms = ase_atoms(candidate.structure)
        assert len(atoms) == int(row["n_atoms"])
        assert candidate.metadata["formula"] == row["formula"]
        energy = row["formation_energy_eV_per_atom"]
        assert candidate.metadata.get("formation_energy_eV_atom") == (
            float(energy) if energy else None
        )
