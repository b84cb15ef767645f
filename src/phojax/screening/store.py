"""Partial results of a calculation on disk, so that an interrupted one goes on where it was.

Every file carries a key made of the input, the settings and the version; with another key it is
as if it were not there. Files appear whole or not at all.
"""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from typing import Any

import jax
import numpy as np

from phojax.potentials.contract import Potential


def key_of(**parts: Any) -> str:
    """Return a hash of anything JSON can say; bytes enter by their own hash."""

    def plain(value):
        if isinstance(value, bytes):
            return hashlib.sha256(value).hexdigest()
        return str(value)

    text = json.dumps(parts, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def identity(model: Potential) -> dict[str, str]:
    """Return what tells one potential from another, for a key."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.asarray(leaf).tobytes())
    found = {"potential": model.name, "parameters": digest.hexdigest()}
    return found | ({"fingerprint": model.fingerprint} if model.fingerprint else {})


class Checkpoint:
    """A folder of named groups of arrays that belong to one key. Without a folder, nothing."""

    def __init__(self, folder: pathlib.Path | None, key: str = "") -> None:
        self._folder = folder
        self._key = key

    def save(self, name: str, **arrays: Any) -> None:
        """Write a group of arrays, replacing what had the name."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, __key__=np.array(self._key), **arrays)
        os.replace(temporary, self._folder / f"{name}.npz")

    def load(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays saved under the name; empty where there are none for this key."""
        if self._folder is None:
            return {}
        path = self._folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {k: file[k] for k in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
            return {}
        return {} if str(found.pop("__key__", "")) != self._key else found

    def part(self, name: str) -> "Checkpoint":
        """Return a place inside of this one, with the same key, that is cleared with it."""
        return Checkpoint(None if self._folder is None else self._folder / name, self._key)

    def clear(self) -> None:
        """Remove all of it: the calculation is finished and stored elsewhere."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
