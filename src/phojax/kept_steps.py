"""Steps of a loop kept on disk with orbax, so that an interrupted one goes on where it was."""

import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np

Trail = list[dict[str, Any]]
"""What each step found, as JSON can say it."""


class KeptSteps:
    """The last steps of a loop in a folder; without one, nothing.

    Args:
        folder: Of these steps alone; None to keep nothing.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._manager: Any = None
        if folder is None:
            return
        import orbax.checkpoint as orbax

        logging.getLogger("absl").setLevel(logging.ERROR)  # a line for every file otherwise
        self._orbax = orbax
        options = orbax.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = orbax.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self) -> "KeptSteps":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._manager is not None:
            self._manager.close()

    def keep(self, step: int, state: Any, trail: Trail) -> None:
        """Write a step: the state that goes on, and the trail up to it."""
        if self._manager is None:
            return
        args = self._orbax.args
        self._manager.save(
            step,
            args=args.Composite(
                state=args.StandardSave(state),
                trail=args.JsonSave(json.loads(json.dumps(trail))),
            ),
        )

    def latest(self, like: Any) -> tuple[Any, Trail] | None:
        """Return the state, arrays of numpy, and the trail of the last step; None where none is.

        Args:
            like: A state of the same form.
        """
        if self._manager is None:
            return None
        step = self._manager.latest_step()
        if step is None:
            return None
        args = self._orbax.args
        found = self._manager.restore(
            step,
            args=args.Composite(state=args.StandardRestore(like), trail=args.JsonRestore()),
        )
        return jax.tree.map(np.asarray, found["state"]), list(found["trail"])


__all__ = ["KeptSteps", "Trail"]
