"""Any ASE calculator as a potential: forces alone, force constants by displacements.

By name, `ase:module:attribute` or `ase:FILE.py:attribute`, where the attribute is a calculator or
a function without arguments that returns one; this runs code of the user's own.
"""

import importlib
import importlib.util
import pathlib
import threading
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from phojax.checks import InputError, fail
from phojax.potentials.bridge import bridged, gradients_from_stress
from phojax.potentials.contract import Potential

_NO_STRESS = "the calculator gives no stress: keep the cell fixed, --fixed-cell"


def ase_calculator(
    calculator: Any,
    *,
    name: str = "",
    elements: frozenset[int] | None = None,
    provenance: str = "",
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
        smoothing_width=smoothing_width,
        remark="" if has_stress else _NO_STRESS,
    )


def calculator_by_name(name: str) -> Potential:
    """Return the calculator of "module:attribute" or "FILE.py:attribute" as a potential.

    Raises:
        InputError: a name of another form, or what cannot be imported or made.
    """
    wanted = "an ASE calculator, or a function without arguments that returns one"
    made = made_by_name(name, wanted)
    try:
        if not hasattr(made, "get_property") or isinstance(made, type):
            made = made()
    except Exception as error:  # whatever a package does when it is called
        raise InputError(
            f"calculator {name!r} cannot be made ({type(error).__name__}: {error}); "
            f"expected {wanted}"
        ) from error
    return ase_calculator(made, name=f"ase:{name}")


def made_by_name(name: str, wanted: str) -> Any:
    """Return what "module:attribute" or "FILE.py:attribute" names; runs the module's code.

    Raises:
        InputError: a name of another form, or what cannot be imported.
    """
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise fail(f"{name!r}", f'"module:attribute" or "FILE.py:attribute", naming {wanted}')
    try:
        return getattr(_module(source), attribute)
    except InputError:
        raise
    except Exception as error:  # whatever a package does when it is imported
        raise InputError(
            f"{name!r} cannot be imported ({type(error).__name__}: {error}); expected {wanted}"
        ) from error


def _module(source: str):
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = pathlib.Path(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise fail(f"{source}, which cannot be read", "a Python file")
    module = importlib.util.module_from_spec(spec)
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
