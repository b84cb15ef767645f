"""Any ASE calculator as a potential: forces alone, force constants by displacements.

By name, `ase:module:attribute` or `ase:FILE.py:attribute`, where the attribute is a calculator or
a function without arguments that returns one; this runs code of the user's own.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import pathlib
import sys
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from phojax.checks import InputError, fail
from phojax.potentials.bridge import bridged, gradients_from_stress
from phojax.potentials.contract import Potential


def ase_calculator(
    calculator: Any,
    *,
    name: str = "",
    elements: frozenset[int] | None = None,
    provenance: str = "",
    fingerprint: str = "",
    smoothing_width: float = 0.0,
) -> Potential:
    """Return an ASE calculator as a potential: energy and forces, no second derivatives.

    Where the calculator has no stress a relaxation of the cell fails, and says so; positions
    and force constants are unaffected.

    Args:
        calculator: Of ASE's interface; used by one thread at a time.
        name: For the record; the calculator's class by default.
        elements: Atomic numbers it knows; None to let it find out.
        provenance: For the record.
        fingerprint: A digest of what it is made of: with another one, results are computed anew.
        smoothing_width: See `Potential`.

    Raises:
        InputError: an object that is no calculator, or one without forces.
    """
    properties = getattr(calculator, "implemented_properties", None)
    if properties is None or not hasattr(calculator, "get_property"):
        raise fail(f"an object of type {type(calculator).__name__}", "an ASE calculator")
    if "forces" not in properties:
        raise fail(f"the calculator {type(calculator).__name__} without forces", "one with forces")
    has_stress = "stress" in properties
    return bridged(
        _CalculatorModel(calculator, has_stress),
        name=name or f"ase:{type(calculator).__name__}",
        elements=elements,
        derivatives=1,
        provenance=provenance or f"ASE calculator {type(calculator).__module__}",
        fingerprint=fingerprint,
        smoothing_width=smoothing_width,
    )


def calculator_by_name(name: str) -> Potential:
    """Return the calculator of "module:attribute" or "FILE.py:attribute" as a potential.

    Raises:
        InputError: a name of another form, or what cannot be imported or made.
    """
    made, digest = made_by_name(
        name,
        "an ASE calculator, or a function without arguments that returns one",
        lambda found: hasattr(found, "get_property") and not isinstance(found, type),
    )
    return ase_calculator(made, name=f"ase:{name}", fingerprint=digest)


def made_by_name(name: str, wanted: str, is_made: Callable[[Any], bool]) -> tuple[Any, str]:
    """Return what "module:attribute" or "FILE.py:attribute" makes, and a digest of its source.

    Runs the module's code, and the attribute where it is not what is wanted already. The digest
    is of the module's own file and the version of its distribution: it cannot see further.

    Raises:
        InputError: a name of another form, or what cannot be imported or made.
    """
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise fail(f"{name!r}", f'"module:attribute" or "FILE.py:attribute", naming {wanted}')
    doing = "imported"
    try:
        module = _module(source)
        made = getattr(module, attribute)
        doing = "made"
        if not is_made(made):
            made = made()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever a package does when it is run
        raise InputError(
            f"{name!r} cannot be {doing} ({type(error).__name__}: {error}); expected {wanted}"
        ) from error
    if not is_made(made):
        raise fail(f"{name!r} makes a {type(made).__name__}", wanted)
    return made, _digest(module)


def _digest(module) -> str:
    file = getattr(module, "__file__", None)
    content = pathlib.Path(file).read_bytes() if file else b""
    top = module.__name__.partition(".")[0]
    with contextlib.suppress(PackageNotFoundError):
        content += version(top).encode()
    return hashlib.sha256(content).hexdigest()


def _module(source: str):
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = pathlib.Path(source).resolve()
    # A name of its own: dataclasses and pickles look a module up by it.
    name = f"phojax_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise fail(f"{source}, which cannot be read", "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class _CalculatorModel:
    def __init__(self, calculator, has_stress: bool) -> None:
        self._calculator, self._has_stress = calculator, has_stress
        self._alone = threading.Lock()

    def values(self, numbers, cell, positions):
        atoms = Atoms(numbers=numbers, cell=cell, positions=positions, pbc=True)
        with self._alone:
            atoms.calc = self._calculator
            energy = float(atoms.get_potential_energy())
            forces = np.asarray(atoms.get_forces(), float)
            stress = np.full((3, 3), np.nan)
            if self._has_stress:
                stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
        return energy, *gradients_from_stress(cell, positions, forces, stress)

    def changes(self, numbers, cell, positions, d_cell, d_positions):
        raise NotImplementedError("an ASE calculator has no derivatives of forces")


__all__ = ["ase_calculator", "calculator_by_name"]
