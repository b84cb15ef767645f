"""The order of the modules is the order of the physics: imports point downwards only."""

import ast
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "src" / "phojax"

ORDER = [
    "quiet", "pytree", "concrete", "threads", "units", "checks", "compiled", "kept_steps",
    "spectral", "structure", "convert", "symmetry", "brillouin", "neighbor_search", "capacities",
    "bloch_waves", "neighbors", "potentials", "forces", "rooms", "coordinates", "relax",
    "relax_together", "implicit", "force_constants", "examination", "nac", "dynmat",
    "bloch_symmetry", "bloch_columns", "bloch", "bloch_supercell", "modes", "stars", "velocities",
    "gruneisen", "branches", "descriptors", "gradients", "elastic", "md", "finite_temperature",
    "screening", "evaluation", "learn", "design", "io", "plots", "campaign", "cli",
]  # fmt: skip
HEAVY = {"torch", "chgnet", "fairchem", "nequix", "parsl"}
FILES = sorted(SOURCE.rglob("*.py"))


def _layer(module: str) -> str:
    return module.split(".")[1]


def _imports(path: pathlib.Path) -> list[tuple[str, bool]]:
    """Return (module, at top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "phojax":
                names = [f"phojax.{alias.name}" for alias in node.names]
            found += [(name, id(node) in top) for name in names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    own = path.relative_to(SOURCE).with_suffix("").parts
    if own in {("__init__",), ("__main__",)}:  # the public surface may name every layer
        return
    assert own[0] in ORDER, f"{own[0]} has no place in the order: add it"
    for module, _ in _imports(path):
        if module.startswith("phojax."):
            layer = _layer(module)
            assert ORDER.index(layer) <= ORDER.index(own[0]), f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    for module, at_top in _imports(path):
        assert not (at_top and module.split(".")[0] in HEAVY), f"{path} imports {module} at the top"


def test_dynamics_and_phonons_do_not_know_each_other():
    phonons = {"dynmat", "modes", "stars", "descriptors"}
    for path in FILES:
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        layers = {_layer(m) for m, _ in _imports(path) if m.startswith("phojax.")}
        assert not (own == "md" and layers & phonons)
        assert not (own in phonons and "md" in layers)
