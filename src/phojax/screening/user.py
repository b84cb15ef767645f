"""Descriptors of the user's own: any function of an `Analysis`, named `module:function`."""

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from phojax.checks import fail
from phojax.screening.analysis import Analysis
from phojax.screening.settings import PhononSettings


def user_function(name: str) -> Callable[[Analysis, PhononSettings], Any]:
    """Return the function that `module:function` names; the working directory is searched, too.

    Raises:
        InputError: no such module or function.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise fail(f"descriptor {name!r}", "module:function, such as mine:softness")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise fail(
            f"descriptor {name}: {type(error).__name__}: {error}",
            "a function in a module that can be imported",
            "The working directory is searched as well",
        ) from error
    if not callable(found):
        raise fail(f"descriptor {name} is a {type(found).__name__}", "a function")
    return found


def source_digest(name: str) -> str:
    """Return a hash of the module's source: with another one, results are computed anew."""
    function = user_function(name)
    try:
        text = inspect.getsource(sys.modules[function.__module__])
    except (OSError, TypeError, KeyError):
        text = name
    return hashlib.sha256(text.encode()).hexdigest()


def user_descriptors(
    names: Sequence[str],
    found: Analysis,
    settings: PhononSettings,
    flags: list[str],
    notes: list[str],
) -> dict[str, Any]:
    """Return for each name its number, or its dictionary of numbers.

    A function that fails does not stop the others: its value is None, with a flag and a note.
    """
    out: dict[str, Any] = {}
    for name in names:
        try:
            out[name] = _plain(user_function(name)(found, settings))
        except (Exception, SystemExit) as error:
            out[name] = None
            flags.append("descriptor_failed")
            notes.append(f"descriptor {name}: {type(error).__name__}: {error}")
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "biuf":
        raise fail(f"it returned a {type(value).__name__}", "a number, or a dictionary of numbers")
    if not np.isfinite(array):
        raise fail(f"it returned {array}", "a finite number")
    return float(array)
