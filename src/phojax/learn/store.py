"""A model folder: everything that predicting needs, as an orbax checkpoint.

Arrays and a description, which holds the names and order of descriptors, the settings, versions,
metrics and a digest of the arrays. A folder of a model that was not trained holds the reason.
A new model takes the place of an old one only when it is complete.
"""

import hashlib
import json
import logging
import os
import pathlib
from typing import Any

import jax
import numpy as np

from phojax.checks import fail
from phojax.learn.domain import Domain
from phojax.learn.ensemble import Ensemble
from phojax.learn.features import Scaling
from phojax.learn.surrogate import Surrogate

FORMAT = "phojax surrogate"
VERSION = 1

_SCALING = ("median", "mean", "deviation", "lowest", "highest", "missing")
_DOMAIN = ("whitening", "rows", "distances")
_NUMBERS = ("width", "centre", "scale", "spread", "strength", "steps")


def save_model(
    folder: str | os.PathLike, surrogate: Surrogate | None, about: dict[str, Any]
) -> None:
    """Write a model folder.

    Args:
        folder: Replaced where it holds a model.
        surrogate: None where there is a reason not to have one.
        about: What JSON can say; comes back with the model. "why_untrained" is the reason.

    Raises:
        InputError: no surrogate and no reason; the folder holds something else.
    """
    import orbax.checkpoint as orbax

    if surrogate is None and not about.get("why_untrained"):
        raise fail("no surrogate", 'a reason in about["why_untrained"]')
    folder = pathlib.Path(folder).resolve()
    if folder.exists() and any(p for p in folder.iterdir() if not p.name.isdigit()):
        raise fail(f"{folder} holds other files", "an empty folder, or one of a model")
    arrays: dict[str, np.ndarray] = {}
    stated: dict[str, Any] = {"trained": surrogate is not None}
    if surrogate is not None:
        ensemble, scaling = surrogate.ensemble, surrogate.ensemble.scaling
        arrays |= {f"scaling.{n}": np.asarray(getattr(scaling, n)) for n in _SCALING}
        arrays |= {f"domain.{n}": np.asarray(getattr(surrogate.domain, n)) for n in _DOMAIN}
        for path, leaf in jax.tree_util.tree_leaves_with_path(ensemble.params):
            arrays[".".join(["params", *(str(k.key) for k in path)])] = np.asarray(leaf)
        stated |= {
            "columns": list(scaling.columns),
            "indicators": list(scaling.indicators),
            "elements": list(surrogate.domain.elements),
            **{n: getattr(ensemble, n) for n in _NUMBERS},
            "shapes": {n: [list(a.shape), str(a.dtype)] for n, a in arrays.items()},
            "digest": _digest(arrays),
        }
    text = json.loads(json.dumps({"format": FORMAT, "version": VERSION, "model": stated,
                                  "about": about}))  # fmt: skip
    items: dict[str, Any] = {"about": orbax.args.JsonSave(text)}
    if arrays:
        items["arrays"] = orbax.args.StandardSave(arrays)
    with _manager(folder) as manager:
        latest = manager.latest_step()
        manager.save(0 if latest is None else latest + 1, args=orbax.args.Composite(**items))
        manager.wait_until_finished()


def load_model(folder: str | os.PathLike) -> tuple[Surrogate, dict[str, Any]]:
    """Return the model of a folder and what was said about it.

    Raises:
        InputError: no such folder, something else in it, damaged, of another version, or of a
            model that was not trained.
    """
    import orbax.checkpoint as orbax

    folder = pathlib.Path(folder).resolve()
    text = read_about(folder)
    stated, about = text["model"], text["about"]
    if not stated["trained"]:
        raise fail(
            f"{folder} holds no trained surrogate: {about.get('why_untrained')}",
            "a model that phojax learn has trained",
            "Learn from a table with more detected D",
        )
    damaged = fail(f"{folder} is damaged", "a complete model", "Run phojax learn again")
    try:
        like = {n: np.empty(s, dtype) for n, (s, dtype) in stated["shapes"].items()}
        with _manager(folder) as manager:
            found = manager.restore(
                manager.latest_step(),
                args=orbax.args.Composite(arrays=orbax.args.StandardRestore(like)),
            )
        arrays = {n: np.asarray(a) for n, a in found["arrays"].items()}
        if _digest(arrays) != stated["digest"]:
            raise damaged
        params: dict[str, Any] = {}
        for name, value in arrays.items():
            head, *path = name.split(".")
            if head == "params":
                place = params
                for part in path[:-1]:
                    place = place.setdefault(part, {})
                place[path[-1]] = value
        scaling = Scaling(
            tuple(stated["columns"]), tuple(stated["indicators"]),
            **{n: arrays[f"scaling.{n}"] for n in _SCALING},
        )  # fmt: skip
        domain = Domain(
            **{n: arrays[f"domain.{n}"] for n in _DOMAIN}, elements=tuple(stated["elements"])
        )
        ensemble = Ensemble(scaling, params, **{n: stated[n] for n in _NUMBERS})
    except Exception as error:  # whatever orbax and its stores raise for broken files
        raise damaged from error
    return Surrogate(ensemble, domain), about


def read_about(folder: str | os.PathLike) -> dict[str, Any]:
    """Return the description of a model folder, of an untrained model as well.

    Raises:
        InputError: no such folder, something else in it, damaged or of another version.
    """
    import orbax.checkpoint as orbax

    folder = pathlib.Path(folder).resolve()
    wanted = "a model folder that phojax learn wrote"
    if not folder.is_dir():
        raise fail(f"{folder} is no folder", wanted)
    if not any(p.name.isdigit() for p in folder.iterdir()):
        inner = folder / "model"
        hint = f"Perhaps {inner}" if inner.is_dir() else ""
        raise fail(f"{folder} holds no model", wanted, hint)
    try:
        with _manager(folder) as manager:
            step = manager.latest_step()
            text = manager.restore(
                step, args=orbax.args.Composite(about=orbax.args.JsonRestore())
            )["about"]  # fmt: skip
        text = dict(text)
    except Exception as error:  # see load_model
        raise fail(
            f"{folder} cannot be read ({type(error).__name__})", wanted, "Run phojax learn again"
        ) from error
    if text.get("format") != FORMAT:
        raise fail(f"{folder} holds something else", wanted)
    if text.get("version") != VERSION:
        raise fail(
            f"{folder} is of version {text.get('version')}", f"version {VERSION}",
            "Use the version of phojax that wrote it, or run phojax learn again",
        )  # fmt: skip
    return text


def _manager(folder: pathlib.Path):
    import orbax.checkpoint as orbax

    logging.getLogger("absl").setLevel(logging.ERROR)  # a line for every file otherwise
    options = orbax.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    return orbax.CheckpointManager(folder, options=options)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
