"""Databases as sources: ASE's, JSON of pymatgen in the forms that databases give away."""

import bz2
import contextlib
import gzip
import json
import sqlite3

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from monty.serialization import dumpfn
from pymatgen.core import Lattice
from pymatgen.core import Structure as PymatgenStructure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from phojax.checks import InputError
from phojax.io.sources import read_candidates


def salt(name="NaCl", a=5.64):
    return bulk(name, "rocksalt", a)


def crystal(a=5.64, cation="Na"):
    return PymatgenStructure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def mixed():
    return crystal(cation={"Na": 0.5, "K": 0.5})


def read(path):
    return read_candidates(str(path)).candidates


def check(candidate, reference):
    assert candidate.error == ""
    np.testing.assert_allclose(candidate.structure.cell, reference.lattice.matrix, atol=1e-10)
    np.testing.assert_allclose(candidate.structure.positions, reference.cart_coords, atol=1e-10)
    assert candidate.structure.symbols == [str(s) for s in reference.species]


@pytest.mark.parametrize("name", ["set.db", "set.json"])
def test_database_of_ase(tmp_path, name):
    first, second = salt(), salt("NaBr", 5.97)
    first.calc = SinglePointCalculator(first, energy=-6.8)
    molecule = salt()
    molecule.pbc = False
    database = ase.db.connect(tmp_path / name)
    database.write(first, gap=5.0, hform=-2.1, ehull=0.0, relaxed=True, label="x")
    database.write(second, material_id="mp-22916", data={"big": [1, 2]})
    database.write(molecule)
    found = read(tmp_path / name)
    assert [c.id for c in found] == ["set-1", "mp-22916", "set-3"]
    assert found[0].metadata == {
        "energy": -6.8, "relaxed": True, "label": "x", "band_gap_eV": 5.0,
        "formation_energy_eV_atom": -2.1, "energy_above_hull_eV_atom": 0.0,
        "source": f"{name} row 1", "row": 1,
    }  # fmt: skip
    np.testing.assert_allclose(found[1].structure.cell, second.cell)
    assert found[1].structure.symbols == ["Na", "Br"]
    assert "periodic" in found[2].error


def test_no_database_of_ase(tmp_path):
    (tmp_path / "x.db").write_text("no database at all\n" * 50)
    with pytest.raises(InputError, match="cannot be read as a database of ASE"):
        read(tmp_path / "x.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE mine (a)")
        other.commit()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(InputError, match="no table of systems"):
        read(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before
    ase.db.connect(tmp_path / "y.db").write(salt())
    with ase.db.connect(tmp_path / "y.db") as database:
        database.delete([1])
    with pytest.raises(InputError, match="no rows"):
        read(tmp_path / "y.db")


def test_one_structure(tmp_path):
    crystal().to(str(tmp_path / "salt.json"), fmt="json")
    (found,) = read(tmp_path / "salt.json")
    assert found.id == "salt"
    check(found, crystal())


def test_structures_by_id_and_in_a_list(tmp_path):
    dumpfn({"mp-1": crystal(), "mp-2": mixed(), "x/y": crystal(5.7)}, tmp_path / "d.json")
    first, second, third = read(tmp_path / "d.json")
    assert [first.id, second.id, third.id] == ["mp-1", "mp-2", "x_y"]
    assert third.metadata["source_id"] == "x/y"
    check(first, crystal())
    assert "partial occupancy" in second.error
    dumpfn([crystal(), crystal(5.7), crystal()], tmp_path / "l.json.gz")
    ids = [c.id for c in read(tmp_path / "l.json.gz")]
    assert len(set(ids)) == 3
    assert ids[2] == f"{ids[0]}-2"
    dumpfn([crystal(5.7), crystal(), crystal()], tmp_path / "l.json.gz")
    assert {c.id for c in read(tmp_path / "l.json.gz")} == set(ids)


def test_oxidation_states_and_dummies(tmp_path):
    ions = crystal()
    ions.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    dummies = PymatgenStructure(Lattice.cubic(4), ["X", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    dumpfn({"ions": ions, "dummies": dummies}, tmp_path / "d.json")
    first, second = read(tmp_path / "d.json")
    assert sorted(set(first.structure.symbols)) == ["Cl", "Na"]
    assert second.structure is None
    assert second.error


def test_entries_as_alexandria_gives_them(tmp_path):
    entries = [
        ComputedStructureEntry(
            crystal(a), -10.0, entry_id=None,
            data={"mat_id": f"agm{k}", "band_gap_ind": 5.0 - k, "e_form": -2.0, "spg": 225,
                  "e_above_hull": 0.01, "decomposition": "NaCl"},
        )
        for k, a in enumerate((5.64, 5.7))
    ]  # fmt: skip
    text = json.dumps({"entries": [e.as_dict() for e in entries]})
    (tmp_path / "alexandria_000.json.bz2").write_bytes(bz2.compress(text.encode()))
    first, second = read(tmp_path / "alexandria_000.json.bz2")
    assert (first.id, second.id) == ("agm0", "agm1")
    assert second.metadata["band_gap_eV"] == 4.0
    assert first.metadata["formation_energy_eV_atom"] == -2.0
    assert first.metadata["energy_above_hull_eV_atom"] == 0.01
    assert first.metadata["spg"] == 225
    assert first.metadata["energy"] == -10.0
    check(second, crystal(5.7))


def test_documents_on_lines(tmp_path):
    documents = [
        {
            "material_id": f"mp-{k}",
            "structure": crystal(a).as_dict(),
            "band_gap": 5.0,
            "formation_energy_per_atom": -2.0 - k,
            "energy_above_hull": None,
            "symmetry": {"number": 225, "symbol": "Fm-3m"},
            "elements": ["Na", "Cl"],
        }
        for k, a in enumerate((5.64, 5.7))
    ]
    lines = [json.dumps(documents[0]), "{cut short", json.dumps(documents[1]), '{"a": 1}', ""]
    (tmp_path / "mp.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    source = read_candidates(str(tmp_path / "mp.jsonl.gz"))
    first, second, third = source.candidates
    assert (first.id, second.id) == ("mp-0", "mp-1")
    assert first.metadata == {
        "material_id": "mp-0", "band_gap_eV": 5.0, "formation_energy_eV_atom": -2.0,
        "symmetry.number": 225, "symmetry.symbol": "Fm-3m", "charge": 0.0, "source": "mp.jsonl.gz",
    }  # fmt: skip
    assert "no structure" in third.error
    assert source.remarks == ("lines 2 are no JSON: not read",)


def test_table_beside_a_database(tmp_path):
    dumpfn({"mp-1": crystal(), "mp-2": crystal(5.7)}, tmp_path / "d.json")
    (tmp_path / "gaps.csv").write_text("material_id,band_gap\nmp-2,3.5\n")
    found = read_candidates(str(tmp_path / "d.json"), tmp_path / "gaps.csv").candidates
    assert [c.metadata.get("band_gap_eV") for c in found] == [None, 3.5]


@pytest.mark.parametrize("text", ['{"a": [1, 2]}', "[]", "[1, 2]", '"text"', '{"cut": '])
def test_json_without_structures(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        read(tmp_path / "x.json")


def test_words_of_other_databases():
    from phojax.io.sources.metadata import standard

    known, remarks = standard({"optb88vdw_bandgap": 1.0, "mbj_bandgap": 2.0, "ehull": "na"})
    assert known == {"band_gap_eV": 1.0, "mbj_bandgap": 2.0, "ehull": "na"}
    assert remarks == ()
    known, remarks = standard({"Band Gap (eV)": "1.5", "bandgap": 1.0, "formation_energy": -8.0})
    assert known == {"band_gap_eV": 1.5, "bandgap": 1.0, "formation_energy": -8.0}
    assert remarks == ("band_gap_eV is 1.5 from Band Gap (eV); bandgap says 1",)
