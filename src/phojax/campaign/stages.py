"""A stage of a screen, crystal by crystal: what all of them have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from phojax.campaign.settings import KeyMaker, Keys
from phojax.campaign.store import Store
from phojax.compiled import let_go_of_compiled
from phojax.screening.store import Checkpoint

Tell = Callable[[str, int, int], None]
"""(what, done, of) -> None."""


def compute_stage(
    stage: str,
    what: str,
    store: Store,
    names: Sequence[str],
    maker: KeyMaker,
    key_of: Callable[[Keys], str],
    computed: Callable[[str, str], tuple[dict[str, Any], Checkpoint]],
    tell: Tell,
) -> int:
    """Add a stage to crystals whose phonons are done; what fails is in their record.

    Returns how many were not done before.

    Args:
        stage: Its name in the record.
        what: Its name where progress is told.
        store: Where the crystals are given and recorded.
        names: Of the crystals.
        maker: Of their keys.
        key_of: The key of the stage among them.
        computed: (name, key) -> what goes into the record, and the checkpoint that is then done.
        tell: Where progress is told.
    """
    count = 0
    for number, name in enumerate(names):
        tell(what, number, len(names))
        candidate = store.given(name)
        assert candidate.structure is not None
        key = key_of(maker.keys(candidate.structure))
        if store.is_done(name, stage, key):
            continue
        count += 1
        try:
            found, keep = computed(name, key)
            store.done(name, stage, key, found)
            keep.clear()
        except Exception as error:  # one bad crystal never stops the others
            store.failed(name, stage, key, error)
        let_go_of_compiled()
    tell(what, len(names), len(names))
    return count


__all__ = ["Tell", "compute_stage"]
