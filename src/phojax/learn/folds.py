"""Parts of a table that keep chemical systems together."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from phojax.checks import check_shape, fail


def grouped_folds(
    systems: Sequence[str],
    folds: int,
    *,
    detected: Bool[np.ndarray, "row"] | None = None,
    seed: int = 0,
) -> Int[np.ndarray, "row"]:
    """Return the part that each row belongs to; a chemical system is in one part.

    Systems with most detected rows are dealt out first, each to the part with fewest of them, so
    that no part is without measured values where that can be avoided.

    Args:
        systems: Chemical system of each row.
        folds: Number of parts; there are not more than systems.
        detected: Rows that count; all by default.
        seed: Of the order of equals.

    Raises:
        InputError: fewer than two parts or systems.
    """
    labels, place = np.unique(np.asarray(systems, str), return_inverse=True)
    if folds < 2 or len(labels) < 2:
        raise fail(
            f"{folds} parts of {len(labels)} chemical systems", "at least two of both",
            "A validation holds chemical systems together",
        )  # fmt: skip
    counted = np.ones(len(place), bool) if detected is None else detected
    check_shape("detected", counted, (len(place),), "one for each row")
    rows = np.bincount(place, minlength=len(labels))
    seen = np.bincount(place[counted], minlength=len(labels))
    mixed = np.random.default_rng(seed).permutation(len(labels))
    order = mixed[np.lexsort((-rows[mixed], -seen[mixed]))]
    folds = min(folds, len(labels))
    load = np.zeros((folds, 2), int)
    part = np.zeros(len(labels), int)
    for label in order:
        fold = int(np.lexsort((load[:, 1], load[:, 0]))[0])
        part[label] = fold
        load[fold] += seen[label], rows[label]
    return part[place]
