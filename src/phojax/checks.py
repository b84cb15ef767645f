"""Checks where data enter, with one template: what was given, what was expected, what to do."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class InputError(ValueError):
    """Input that cannot be used; the message says what to do about it."""


def fail(given: str, expected: str, remedy: str = "") -> InputError:
    """Return the error "given; expected …[; remedy]", ready to be raised."""
    return InputError(f"{given}; expected {expected}" + (f". {remedy}" if remedy else ""))


def said_by(error: BaseException) -> str:
    """Return the kind of an error, and what it says where it says something."""
    text = str(error).strip()
    return type(error).__name__ + (f": {text}" if text else "")


def check_shape(name: str, value: Any, shape: Sequence[int | None], why: str = "") -> None:
    """Raise InputError unless `value` has `shape`, None standing for any length."""
    given = tuple(np.shape(value))
    fits = len(given) == len(shape) and all(
        s is None or s == g for s, g in zip(shape, given, strict=True)
    )
    if not fits:
        lengths = ", ".join("any" if s is None else str(s) for s in shape)
        wanted = f"({lengths},)" if len(shape) == 1 else f"({lengths})"
        raise fail(f"{name} has shape {given}", wanted + (f", {why}" if why else ""))


def check_finite(name: str, value: Any, remedy: str = "") -> None:
    """Raise InputError where a concrete array holds NaN or infinity."""
    bad = int(np.size(value) - np.count_nonzero(np.isfinite(np.asarray(value))))
    if bad:
        raise fail(f"{name} holds {bad} values that are not finite", "finite numbers", remedy)


def check_float64(name: str, value: Any) -> None:
    """Raise InputError unless `value`, an array or tracer, is float64 or complex128."""
    dtype = np.dtype(value.dtype)
    if dtype not in (np.dtype(np.float64), np.dtype(np.complex128)):
        raise fail(
            f"{name} is {dtype}",
            "float64",
            'Call jax.config.update("jax_enable_x64", True) before arrays are made',
        )
