"""The examples and the README's lines run, and say what they claim."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest
from mixtures import mixable_pairs

ROOT = pathlib.Path(__file__).resolve().parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gradient_of_displacements():
    """Classical scaling laws: <u²> goes as 1/Φ and does not depend on masses."""
    found = load("gradient_of_displacements").main()
    assert found["scaling_exponent"] == pytest.approx(-1, abs=2e-3)
    assert found["mass_exponent_Na"] == pytest.approx(0, abs=5e-3)
    assert found["msd_A2"] > 0.1


def test_sodium_diffusion(tmp_path):
    """Of a few steps nobody can say, and the line through the origin says something anyway."""
    pytest.importorskip("importlib.metadata").distribution("chgnet")
    found = load("sodium_diffusion").main(96, str(tmp_path), repeat=(1, 1, 1))
    assert found.total is None
    assert "Run longer" in " ".join(found.notes), found.notes
    assert found.paper.average > 0


@pytest.mark.slow
def test_lines_of_the_readme():
    """The Python block of the README as it stands there, with fewer displacements for speed."""
    pytest.importorskip("importlib.metadata").distribution("chgnet")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(block.strip().splitlines()) <= 10
    code = block.replace("key=jax.random.key(0))", "key=jax.random.key(0), pairs=1)")
    code += "\nassert U.shape == (2, 3, 3) and 0.01 < float(U[0, 0, 0]) < 0.1, U\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_potential_of_an_example_is_in_double_precision():
    """By itself, as a reader runs it: here the tests have switched that on."""
    code = """
import runpy, jax
made = runpy.run_path("examples/own_descriptor.py")["IONS"]
assert all(x.dtype == "float64" for x in jax.tree.leaves(made.params)), made.params
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_examples_are_short():
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100, path


def test_phonons_without_supercells():
    errors = load("phonons_without_supercells").main()
    assert list(errors) == [2, 3, 4, 6, 8]
    assert errors[2] > 0.05  # a supercell that is too small
    assert errors[8] < 1e-5  # wider than the potential reaches


def test_fit_to_frequencies():
    """Three parameters get nearer the fitted points and those held out."""
    found = load("fit_to_frequencies").main(steps=60)
    assert found["before"]["fitted"] == pytest.approx(0.588, abs=0.01)
    assert found["after"]["fitted"] < 0.35
    assert found["after"]["held out"] < 0.47 < 0.69 < found["before"]["held out"]


@pytest.mark.slow
def test_own_descriptor():
    """Its derivative by pressure is that of ellipsoids of crystals relaxed at two pressures."""
    import phojax as px
    from phojax.gradients.supercells import route_for
    from phojax.gradients.total import vibrations
    from phojax.implicit import minimum

    example = load("own_descriptor")
    found = example.main(say=lambda line: None)
    assert 0 < found.value < 2 / 3
    at, mesh, h = found.vibrations.crystal, px.gamma_mesh((2, 2, 1), None), 1e-4
    group = px.space_group(at)

    def relaxed_at(pressure):
        here, _ = minimum(example.IONS, at, symmetry=group, pressure=pressure)
        route = route_for(example.IONS, here.crystal, mesh, None)
        return float(example.no_spheres(vibrations(here, route)))

    slope = (relaxed_at(h) - relaxed_at(-h)) / (2 * h)
    assert found.by_pressure == pytest.approx(slope, rel=1e-3)


@pytest.mark.slow
def test_softer_by_mixing(tmp_path):
    """The gradient ends at or above the best of a scan along its way, here with pairs of atoms."""
    said = []
    path, scan, found = load("softer_by_mixing").designed(
        *mixable_pairs(), ("Cl", "Br"), mesh=(2, 2, 2), steps=4, points=5,
        folder=tmp_path / "steps", say=said.append,
    )  # fmt: skip
    assert path.trail[path.best]["value"] >= 0.98 * -min(scan)
    assert found["after"]["formula"] == ["Na", "Br"]
    assert found["gain"] > 0
    assert any("recomputed" in line for line in said)
