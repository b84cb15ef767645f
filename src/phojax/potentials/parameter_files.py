"""Parameters of a potential that were changed, in a file: what differs from those it came with.

A file of numpy (.npz) holds the leaves that changed by their names, such as "readout/3/matrix",
and a text in JSON: the name of the potential, a hash of its own parameters, and what was said
about the change. `catalogue.potential("tuned:FILE.npz")` reads it.
"""

import hashlib
import json
import os
import pathlib
import zipfile
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phojax.checks import check_finite, fail
from phojax.potentials.contract import Potential

FORMAT, VERSION = "phojax parameters", 1
_ABOUT = "about.json"


def leaf_names(params: Any) -> dict[str, Any]:
    """Return the leaves of parameters by name: keys and places with a slash between."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def with_leaves(potential: Potential, values: dict[str, Any]) -> Potential:
    """Return a potential with other values of some leaves, given by name; traceable.

    Raises:
        InputError: a name that it does not have, another shape.
    """
    held = leaf_names(potential.params)
    for name, value in values.items():
        if name not in held or np.shape(value) != np.shape(held[name]):
            what = f"shape {np.shape(held[name])}" if name in held else f"one of {', '.join(held)}"
            raise fail(f"a parameter {name!r} of shape {np.shape(value)}", what)
    form = jax.tree.structure(potential.params)
    leaves = [
        jnp.asarray(values[name], jnp.result_type(leaf)) if name in values else leaf
        for name, leaf in held.items()
    ]
    return replace(potential, params=jax.tree.unflatten(form, leaves))


def save_parameters(
    path: str | os.PathLike, base: Potential, changed: Potential, **about: Any
) -> pathlib.Path:
    """Write what differs between a potential and the one it came from; return the path.

    Args:
        path: Ending in .npz.
        base: By whose name the catalogue knows it.
        changed: Of the same form.
        **about: What JSON can say: kept in the file.

    Raises:
        InputError: another ending, potentials of different form, values that are not finite.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise fail(f"{path}", "a name that ends in .npz")
    before, after = leaf_names(base.params), leaf_names(changed.params)
    if {n: np.shape(v) for n, v in before.items()} != {n: np.shape(v) for n, v in after.items()}:
        raise fail(f"{changed.name} and {base.name}", "potentials with the same parameters by name")
    leaves = {
        name: np.asarray(value) for name, value in after.items()
        if not np.array_equal(np.asarray(value), np.asarray(before[name]))
    }  # fmt: skip
    for name, value in leaves.items():
        check_finite(name, value)
    stated = {"format": FORMAT, "version": VERSION, "base": base.name,
              "digest": _digest(base), "about": about}  # fmt: skip
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            arrays: dict[str, Any] = {_ABOUT: np.array(json.dumps(stated)), **leaves}
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_about(path: str | os.PathLike) -> dict[str, Any]:
    """Return what a file says: "base", "digest", "about".

    Raises:
        InputError: no such file, or something else in it.
    """
    return _read(path)[0]


def with_parameters(path: str | os.PathLike, base: Potential) -> Potential:
    """Return a potential with the parameters of a file.

    Args:
        path: From `save_parameters`.
        base: The potential they belong to, as it came.

    Raises:
        InputError: no such file, something else in it, parameters of another potential.
    """
    stated, leaves = _read(path)
    if stated["digest"] != _digest(base):
        raise fail(
            f"{path} with {base.name}", f"the parameters of {stated['base']} that it was made from"
        )
    said = stated["about"].get("source", "")
    return replace(
        with_leaves(base, leaves),
        name=f"tuned:{path}",
        provenance="; ".join(filter(None, [base.provenance, f"tuned: {said}" if said else ""])),
    )


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    wanted = "a file that phojax wrote with changed parameters"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        stated = json.loads(str(arrays.pop(_ABOUT)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise fail(f"{path} cannot be read ({type(error).__name__})", wanted) from error
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise fail(f"{path} holds something else", wanted)
    if stated.get("version") != VERSION:
        raise fail(f"{path} is of version {stated.get('version')}", f"version {VERSION}")
    return stated, arrays


def _digest(potential: Potential) -> str:
    """Return a hash of parameters that does not depend on the precision they are held in."""
    digest = hashlib.sha256()
    for name, leaf in sorted(leaf_names(potential.params).items()):
        digest.update(name.encode())
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:24]


__all__ = [
    "leaf_names",
    "read_about",
    "save_parameters",
    "with_leaves",
    "with_parameters",
]
