"""Potentials by name: what exists, what a parameter file means, and its errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
from crystals import fcc, parts, rattled, salt

from phojax.checks import InputError
from phojax.forces import energy, evaluate
from phojax.potentials.catalogue import entries, potential
from phojax.structure import structure

SALT = {
    "source": "a table",
    "cutoff": 8.0,
    "charges": {"Na": 1.0, "Cl": -1.0},
    "pairs": [
        {"elements": ["Na", "Cl"], "form": "buckingham", "A": 1092.3, "rho": 0.321, "C": 0.0}
    ],
}


def written(tmp_path, content):
    file = tmp_path / "parameters.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return f"file:{file}"


@pytest.mark.parametrize("name", ["lj:Ne", "lj:Ar", "lj:Kr", "lj:Xe", "ions:NaCl"])
def test_names_without_a_file_make_a_potential(name):
    made = potential(name)
    assert made.name == name
    assert "Kittel" in made.provenance


def test_entries_say_what_they_need():
    listed = {entry.name: entry for entry in entries()}
    for entry in listed.values():
        assert entry.what
        assert entry.elements
        assert bool(entry.modules) == bool(entry.install)
    absent = replace(listed["chgnet"], modules=("chgnet", "no_such_module.below"))
    assert "no_such_module.below" in absent.missing


def test_a_potential_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from phojax.potentials.pair import morse\n"
        "def salt():\n"
        "    return morse({('Na', 'Cl'): (0.5, 1.2, 2.7)}, cutoff=5.0)\n"
        "number = 3\n"
    )
    assert potential(f"python:{file}:salt").elements == {11, 17}
    with pytest.raises(InputError, match="cannot be imported"):
        potential(f"python:{file}:pepper")
    with pytest.raises(InputError, match="phojax Potential"):
        potential(f"python:{file}:number")


def test_argon_has_the_size_of_the_crystal():
    """Kittel, ch. 3, table 4: nearest neighbours at 3.76 Å, 0.080 eV per atom."""
    value, _, stress = evaluate(potential("lj:Ar"), structure(*parts(fcc(a=3.76 * 2**0.5))))
    assert -0.095 < float(value) < -0.075
    assert np.abs(stress).max() < 1e-3


def test_sodium_chloride_has_the_cohesion_of_the_crystal():
    """Kittel, ch. 3, table 7: R = 2.820 Å, 182.6 kcal/mol = 7.918 eV against free ions."""
    ions = potential("ions:NaCl")
    value, _, stress = evaluate(ions, structure(*parts(salt(a=5.64))))
    assert float(value) == pytest.approx(-7.918, rel=0.01)
    # At a bulk modulus of 24 GPa = 0.15 eV/Å³ this is 1 % of volume.
    assert np.abs(stress).max() < 1.5e-3


def test_a_file_with_the_parameters_of_an_example_is_that_example(tmp_path):
    made = potential(written(tmp_path, SALT))
    crystal = structure(*parts(rattled(salt())))
    assert made.provenance == "a table"
    for one, other in zip(
        evaluate(made, crystal), evaluate(potential("ions:NaCl"), crystal), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_forms_in_a_file_add_up_and_know_all_of_its_elements(tmp_path):
    pairs = [
        {"elements": ["Na", "Na"], "form": "springs", "k": 1.0, "length": 3.9},
        {"elements": ["Cl", "Cl"], "form": "lennard_jones", "epsilon": 0.02, "sigma": 3.0},
        {"elements": ["Na", "Cl"], "form": "morse", "depth": 0.5, "width": 1.5, "length": 2.8},
    ]
    crystal = structure(*parts(rattled(salt())))

    def value(chosen):
        made = potential(written(tmp_path, {"cutoff": 5.0, "onset": 4.0, "pairs": chosen}))
        return float(energy(made, crystal, made.graph(crystal, made.capacity(crystal))))

    # A file that names one element only would refuse the other: spell out both.
    both = {"elements": ["Na", "Cl"], "form": "buckingham", "A": 0.0, "rho": 1.0, "C": 0.0}
    apart = [value([pair, both]) for pair in pairs]
    assert all(abs(x) > 1e-4 for x in apart)
    assert value(pairs) == pytest.approx(sum(apart), rel=1e-12)


@pytest.mark.parametrize("name", ["nothing", "lj:Na", "lj", "file:", "ions:KCl"])
def test_an_unknown_name_lists_what_exists(name):
    with pytest.raises(InputError, match=r"expected one of nequix.*, chgnet, .*file:NAME\.json"):
        potential(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is not JSON"),
        ([1, 2], "a JSON list; expected an object"),
        (SALT | {"cutof": 1}, r"unknown keys \['cutof'\]"),
        ({"pairs": []}, r"keys \['pairs'\]; expected cutoff"),
        ({"cutoff": 5.0, "pairs": []}, "a sum of no potentials"),
        (SALT | {"cutoff": "far"}, "could not convert"),
        (SALT | {"charges": [1, -1]}, r"charges \[1, -1\]"),
        (SALT | {"charges": {"Xx": 1.0}}, "element 'Xx'"),
        (SALT | {"pairs": {}}, "a list of objects"),
        (SALT | {"pairs": [{"form": "spline"}]}, r"pairs\[0\] is .*expected an object with"),
        (SALT | {"pairs": [{"form": "springs", "k": 1.0}]}, r"pairs\[0\] has the keys"),
        (SALT | {"pairs": [SALT["pairs"][0] | {"elements": "NaCl"}]}, "has the elements 'NaCl'"),
        (SALT | {"pairs": SALT["pairs"] * 2}, r"pairs\[1\], buckingham of .*given twice"),
        (SALT | {"pairs": [SALT["pairs"][0] | {"A": None}]}, "float"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as error:
        potential(written(tmp_path, content))
    assert "parameters.json" in str(error.value)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        potential(f"file:{tmp_path / 'absent.json'}")
