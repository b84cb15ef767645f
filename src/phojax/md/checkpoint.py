"""Where a run stands, on disk: enough to go on bit for bit on the same machine.

Every checkpoint appears whole or not at all, and the one before it stays until then (orbax). It
belongs to a key made of everything that the run depends on; with another key it is as if it were
not there.
"""

import logging
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

_KEPT = 2


class RunCheckpoints:
    """The checkpoints of one run in a folder; without a folder, nothing."""

    def __init__(self, folder: pathlib.Path | None, key: str = "") -> None:
        self._folder = None if folder is None else pathlib.Path(folder).resolve()
        self._key = key
        self._manager: Any = None

    def save(self, number: int, tree: Any, about: dict[str, Any]) -> None:
        """Write arrays and what JSON can say; earlier checkpoints go but for one.

        Args:
            number: Larger than that of every earlier checkpoint.
            tree: Any pytree of arrays.
            about: Small; comes back as it is.
        """
        if self._folder is None:
            return
        import orbax.checkpoint as orbax

        leaves = {f"{n:04d}": np.asarray(x) for n, x in enumerate(jax.tree.leaves(tree))}
        manager = self._opened()
        manager.save(
            number,
            args=orbax.args.Composite(
                arrays=orbax.args.StandardSave(leaves),
                about=orbax.args.JsonSave({"key": self._key, **about}),
            ),
        )
        manager.wait_until_finished()

    def latest(self) -> dict[str, Any] | None:
        """Return what the latest checkpoint says about itself; None where there is none."""
        if self._folder is None or not self._folder.is_dir():
            return None
        import orbax.checkpoint as orbax

        number = self._opened().latest_step()
        if number is None:
            return None
        found = self._opened().restore(
            number, args=orbax.args.Composite(about=orbax.args.JsonRestore())
        )
        about = dict(found["about"])
        if about.pop("key", None) != self._key:
            self.clear()
            return None
        return about

    def load(self, like: Any) -> Any:
        """Return the arrays of the latest checkpoint in the structure of `like`."""
        import orbax.checkpoint as orbax

        leaves, treedef = jax.tree.flatten(like)
        wanted = {f"{n:04d}": np.asarray(x) for n, x in enumerate(leaves)}
        found = self._opened().restore(
            self._opened().latest_step(),
            args=orbax.args.Composite(arrays=orbax.args.StandardRestore(wanted)),
        )["arrays"]
        return jax.tree.unflatten(treedef, [found[name] for name in wanted])

    def clear(self) -> None:
        """Remove all of it."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _opened(self) -> Any:
        if self._manager is None:
            assert self._folder is not None
            import orbax.checkpoint as orbax

            logging.getLogger("absl").setLevel(logging.ERROR)  # a line for every file otherwise
            options = orbax.CheckpointManagerOptions(
                max_to_keep=_KEPT, enable_async_checkpointing=False
            )
            self._manager = orbax.CheckpointManager(self._folder, options=options)
        return self._manager
