"""OPTIMADE responses: valid by the specification's own models, read as its own adapter reads them.

Databases on the network are stood in for by a server on this machine.
"""

import copy
import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Lattice
from pymatgen.core import Structure as PymatgenStructure

from phojax.checks import InputError
from phojax.io.sources import online, read_candidates
from phojax.io.sources.selection import selection

STAMP = "2026-01-01T00:00:00Z"


def half_heusler():
    """Three sites, three species, listed by the alphabet: not in the order of the sites."""
    return PymatgenStructure(
        Lattice(bulk("Cu", "fcc", 6.2).cell), ["Na", "Zn", "As"],
        [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25], [0, 0, 0]],
    )  # fmt: skip


def entry(name, crystal, **more):
    """An entry for an ordered crystal with everything the specification asks for."""
    elements = sorted({str(s) for s in crystal.species})
    count = [sum(str(s) == e for s in crystal.species) for e in elements]
    ratio = [c / len(crystal) for c in count]
    least = np.gcd.reduce(count)
    reduced = "".join(f"{e}{c // least if c > least else ''}"
                      for e, c in zip(elements, count, strict=True))  # fmt: skip
    anonymous = "".join(
        f"{letter}{n if n > 1 else ''}"
        for letter, n in zip(
            "ABCDEF"[: len(count)], sorted((c // least for c in count), reverse=True), strict=True
        )
    )
    attributes = {
        "elements": elements,
        "nelements": len(elements),
        "elements_ratios": ratio,
        "chemical_formula_descriptive": reduced,
        "chemical_formula_reduced": reduced,
        "chemical_formula_anonymous": anonymous,
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": crystal.lattice.matrix.tolist(),
        "cartesian_site_positions": crystal.cart_coords.tolist(),
        "nsites": len(crystal),
        "species": [{"name": e, "chemical_symbols": [e], "concentration": [1.0]} for e in elements],
        "species_at_sites": [str(s) for s in crystal.species],
        "structure_features": [],
        "last_modified": STAMP,
        "immutable_id": None,
    }
    return {"id": name, "type": "structures", "attributes": {**attributes, **more}}


def response(*entries, following=None, **meta):
    return {
        "data": list(entries),
        "meta": {
            "query": {"representation": "/structures?filter=elements HAS \"Na\""},
            "api_version": "1.1.0",
            "time_stamp": STAMP,
            "data_returned": 7,
            "more_data_available": following is not None,
            "provider": {"name": "A database", "description": "of a test", "prefix": "exmpl"},
            **meta,
        },
        "links": {"next": following},
    }  # fmt: skip


def half_occupied():
    crystal = half_heusler()
    found = entry("half", crystal, structure_features=["disorder"])
    found["attributes"]["species"][1] = {
        "name": "Na", "chemical_symbols": ["Na", "vacancy"], "concentration": [0.5, 0.5],
    }  # fmt: skip
    return found


def read(tmp_path, document):
    path = tmp_path / "response.json"
    path.write_text(json.dumps(document))
    return read_candidates(str(path))


@pytest.fixture
def full():
    return response(
        entry("odbx/1", half_heusler(), _exmpl_band_gap=0.4, _exmpl_delta_e=-0.5,
              _exmpl_stability={"gga": {"energy_above_hull": 0.02}}, _exmpl_tags=["a"]),
        half_occupied(),
        entry("plain", half_heusler(), _exmpl_band_gap=None),
    )  # fmt: skip


def test_fixture_follows_the_specification(full):
    models = pytest.importorskip("optimade.models")
    models.StructureResponseMany(**full)


def test_response(tmp_path, full):
    source = read(tmp_path, full)
    first, half, plain = source.candidates
    assert [c.id for c in source.candidates] == ["odbx_1", "half", "plain"]
    assert first.metadata["band_gap_eV"] == 0.4
    assert first.metadata["formation_energy_eV_atom"] == -0.5
    assert first.metadata["energy_above_hull_eV_atom"] == 0.02
    assert first.metadata["source"] == "exmpl"
    assert first.metadata["source_id"] == "odbx/1"
    assert "band_gap_eV" not in plain.metadata
    assert half.structure is None
    assert "partial occupancy (Na: 0.5 Na + 0.5 vacancy)" in half.error
    assert source.remarks == ()


def test_structures_are_those_of_the_adapter_of_optimade(tmp_path, full):
    adapters = pytest.importorskip("optimade.adapters")
    found = read(tmp_path, full).candidates[0].structure
    expected = adapters.Structure(full["data"][0]).as_pymatgen
    np.testing.assert_allclose(found.cell, expected.lattice.matrix, atol=1e-12)
    np.testing.assert_allclose(found.positions, expected.cart_coords, atol=1e-12)
    assert found.symbols == [s.specie.symbol for s in expected] == ["Na", "Zn", "As"]


def test_pages_that_are_missing_are_told(tmp_path, full):
    assert read(tmp_path, full).remarks == ()
    for link in ("http://x/next", {"href": "http://x/next"}):
        (remark,) = read(tmp_path, {**full, "links": {"next": link}}).remarks
        assert "3 of 7 entries" in remark


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"species_at_sites": ["Na", "Zn", "Sb"]}, "Sb"),
        ({"lattice_vectors": None}, "lacks lattice_vectors"),
        ({"species": None}, "lacks species"),
        ({"dimension_types": [1, 1, 0]}, "periodic"),
        ({"lattice_vectors": [[4, 0, 0], [0, 4, 0], [None, None, None]]}, "periodic"),
        ({"structure_features": ["assemblies"]}, "assemblies"),
        ({"structure_features": ["implicit_atoms"]}, "without sites"),
        ({"cartesian_site_positions": [[0, 0, 0], [0, 0, 0.1], [2, 2, 2]]}, "apart"),
        ({"cartesian_site_positions": [[0, 0, 0]]}, "positions has shape"),
    ],
)
def test_what_is_no_ordered_crystal(tmp_path, change, error):
    (found,) = read(tmp_path, response(entry("x", half_heusler(), **change))).candidates
    assert found.structure is None
    assert error in found.error


@pytest.mark.parametrize("symbol", ["vacancy", "X"])
def test_species_that_are_no_elements(tmp_path, symbol):
    document = response(entry("x", half_heusler()))
    document["data"][0]["attributes"]["species"][0]["chemical_symbols"] = [symbol]
    (found,) = read(tmp_path, document).candidates
    assert symbol in found.error


def test_masses_of_isotopes(tmp_path):
    document = response(entry("x", half_heusler()))
    for species, mass in zip(
        document["data"][0]["attributes"]["species"], (75, 23, 64), strict=True
    ):
        species["mass"] = [mass]
    (found,) = read(tmp_path, document).candidates
    assert np.asarray(found.structure.masses).tolist() == [23, 64, 75]


def test_single_entry_and_none(tmp_path):
    one = response(entry("x", half_heusler()))
    (found,) = read(tmp_path, {**one, "data": one["data"][0]}).candidates
    assert found.id == "x"
    with pytest.raises(InputError, match="without structures"):
        read(tmp_path, response())


def test_entries_on_lines(tmp_path):
    lines = [{"x-optimade": {"meta": {}}}, entry("a", half_heusler()), entry("b", half_heusler())]
    (tmp_path / "o.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    found = read_candidates(str(tmp_path / "o.jsonl")).candidates
    assert [c.id for c in found] == ["a", "b"]


@pytest.fixture
def server(full, monkeypatch):
    """A database with two pages at /db/v1/structures; it keeps what it was asked."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlparse(self.path)
            query = parse_qs(url.query)
            asked.append((url.path, query))
            status, page = 200, copy.deepcopy(full)
            if "bad" in query.get("filter", [""])[0]:
                status, page = 400, {"errors": [{"detail": "no such property"}], "meta": {}}
            elif "page" not in query:
                base = f"http://127.0.0.1:{self.server.server_port}"
                page["links"]["next"] = f"{base}{url.path}?page=2"
                page["data"] = page["data"][:1]
            else:
                page["data"] = page["data"][1:]
            body = json.dumps(page).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/db", asked
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/structures"])
def test_query_of_a_server(server, suffix):
    base, asked = server
    source = read_candidates(f'optimade:{base}{suffix}?filter=elements HAS "Na" AND nsites=3')
    assert [c.id for c in source.candidates] == ["odbx_1", "half", "plain"]
    assert source.remarks == ()
    assert asked[0] == ("/db/v1/structures", {"filter": ['elements HAS "Na" AND nsites=3']})
    assert asked[1] == ("/db/v1/structures", {"page": ["2"]})


def test_query_with_fields_of_the_database(server):
    base, asked = server
    read_candidates(f'optimade:{base}?filter=elements HAS "Na"&response_fields=_exmpl_band_gap')
    fields = asked[0][1]["response_fields"][0].split(",")
    assert {"species", "lattice_vectors", "_exmpl_band_gap"} <= set(fields)


def test_oqmd(server, monkeypatch):
    from pymatgen.ext.optimade import OptimadeRester

    base, asked = server
    monkeypatch.setitem(OptimadeRester.aliases, "oqmd", f"{base}/")
    read_candidates("oqmd:Na-P-S")
    assert asked[0][1] == {"filter": ['elements HAS ALL "Na", "P", "S" AND nelements=3']}
    read_candidates('oqmd:elements HAS ALL "Na" AND _oqmd_band_gap>0')
    assert asked[2][1] == {"filter": ['elements HAS ALL "Na" AND _oqmd_band_gap>0']}


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("optimade:oqmd", "filter"),
        ('optimade:nobody?filter=elements HAS "Na"', "or one of aflow"),
        ("optimade:BASE?filter=bad", "no such property"),
        ("optimade:http://127.0.0.1:9?filter=nsites=1", "no answer"),
        ("optimade:oqmd?filter=nsites=1&limit=3", "limit"),
        ("oqmd:Qq-Na", "Qq"),
        ("oqmd:what is this", "a chemical system"),
    ],
)
def test_questions_that_fail(server, question, error):
    with pytest.raises(InputError, match=error):
        read_candidates(question.replace("BASE", server[0]))


def test_selections_are_filters_of_optimade():
    parser = pytest.importorskip("optimade.filterparser").LarkParser()
    texts = {
        "Na": 'elements HAS ALL "Na"',
        "Na,S": 'elements HAS ALL "Na", "S"',
        "Na-S": 'elements HAS ALL "Na", "S" AND nelements=2',
        "Na6P2S8": 'chemical_formula_reduced="Na3PS4"',
        "ZnNaAs": 'chemical_formula_reduced="AsNaZn"',
    }
    for text, expected in texts.items():
        assert selection(text).optimade_filter() == expected
        parser.parse(expected)


def test_materials_project_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mp_api", None)
    with pytest.raises(InputError, match=r"phojax\[materials-project\]"):
        read_candidates("mp:Na-Cl")


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Na-P-S", {"chemsys": "Na-P-S"}),
        ("Na,S", {"elements": ["Na", "S"]}),
        ("Na3PS4", {"formula": "Na3PS4"}),
        ("mp-1, mp-2", {"material_ids": ["mp-1", "mp-2"]}),
    ],
)
def test_materials_project(monkeypatch, question, asked):
    said = {}
    document = types.SimpleNamespace(
        material_id="mp-1", structure=half_heusler(), band_gap=0.4,
        formation_energy_per_atom=-0.5, energy_above_hull=0.0, is_stable=True,
        symmetry=types.SimpleNamespace(number=216),
    )  # fmt: skip

    class MPRester:
        def __enter__(self):
            search = types.SimpleNamespace(search=lambda **k: said.update(k) or [document])
            return types.SimpleNamespace(materials=types.SimpleNamespace(summary=search))

        def __exit__(self, *_):
            pass

    package, client = types.ModuleType("mp_api"), types.ModuleType("mp_api.client")
    client.MPRester = MPRester
    monkeypatch.setitem(sys.modules, "mp_api", package)
    monkeypatch.setitem(sys.modules, "mp_api.client", client)
    (found,) = read_candidates(f"mp:{question}").candidates
    assert asked.items() <= said.items()
    assert {"structure", "band_gap", "formation_energy_per_atom"} <= set(said["fields"])
    assert found.id == "mp-1"
    assert found.structure.symbols == ["Na", "Zn", "As"]
    assert found.metadata == {
        "material_id": "mp-1", "is_stable": True, "space_group_number": 216,
        "source": "Materials Project", "band_gap_eV": 0.4, "formation_energy_eV_atom": -0.5,
        "energy_above_hull_eV_atom": 0.0,
    }  # fmt: skip


def test_a_failure_of_the_materials_project_is_told(monkeypatch):
    class MPRester:
        def __init__(self):
            raise ValueError("invalid API key")

    monkeypatch.setattr(online, "_mp_rester", lambda: MPRester)
    with pytest.raises(InputError, match="invalid API key"):
        read_candidates("mp:Na-Cl")
