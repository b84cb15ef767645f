"""Whether a structure lies outside what a model was trained on, and why.

The distance of a structure is the mean over its k = 5 nearest rows of the training table, in
scaled descriptors whitened by their shrunk covariance (Ledoit and Wolf, J. Multivar. Anal. 88, 365
(2004)): a combination of descriptors that never occurred is far even if each of them did. It is
compared with the distances of the training rows from rows of other chemical systems, since that
is how far the validation reached. Elements that never occurred, and single descriptors beyond
what occurred by a tenth of its range, are named.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.covariance import LedoitWolf

from phojax.learn.features import Scaling

NEIGHBOURS = 5
FAR = 0.95
"""Share of training rows that are nearer than what counts as far."""
MARGIN = 0.1
"""Of the range of a descriptor, beyond which a value is out of it."""
_NAMED = 4


@dataclass(frozen=True)
class Domain:
    """What a model was trained on.

    Attributes:
        whitening: (column, column).
        rows: (row, column) training rows, scaled and whitened.
        distances: (row,) of them from rows of other chemical systems, rising.
        elements: That occurred.
    """

    whitening: Float[np.ndarray, "column column"]
    rows: Float[np.ndarray, "row column"]
    distances: Float[np.ndarray, "row"]
    elements: tuple[str, ...]


@dataclass(frozen=True)
class Outside:
    """What is said of structures.

    Attributes:
        distance: (row,).
        percentile: (row,) of training rows that are nearer to others than this one is to them.
        reasons: (row,) in words; empty for one that is inside.
    """

    distance: Float[np.ndarray, "row"]
    percentile: Float[np.ndarray, "row"]
    reasons: tuple[str, ...]


def domain_of(
    scaling: Scaling, values: Float[np.ndarray, "row column"], systems: Sequence[str]
) -> Domain:
    """Return what a model was trained on.

    Args:
        scaling: Of its features.
        values: Descriptors of the rows that were learnt from.
        systems: Their chemical systems.
    """
    z = scaling.standardised(values)
    energy, vectors = np.linalg.eigh(LedoitWolf().fit(z).covariance_)
    # Directions without any variation would make every distance infinite.
    energy = np.maximum(energy, 1e-3 * energy.max(initial=1e-12))
    whitening = (vectors / np.sqrt(energy)) @ vectors.T / np.sqrt(z.shape[1])
    white = z @ whitening
    labels = np.asarray(systems)
    distances = np.array([
        _near(white[n : n + 1], white[labels != labels[n]])[0] for n in range(len(white))
    ])  # fmt: skip
    elements = sorted(set().union(*map(elements_of, systems)))
    return Domain(whitening, white, np.sort(distances[np.isfinite(distances)]), tuple(elements))


def outside(
    domain: Domain,
    scaling: Scaling,
    values: Float[np.ndarray, "row column"],
    systems: Sequence[str],
) -> Outside:
    """Return how far structures are from what was trained on.

    Args:
        domain: What was trained on.
        scaling: Of its features.
        values: Descriptors, NaN where unknown.
        systems: Chemical systems, or formulas.
    """
    white = scaling.standardised(values) @ domain.whitening
    distance = _near(white, domain.rows)
    place = np.searchsorted(domain.distances, distance) / max(len(domain.distances), 1)
    reasons = [
        "; ".join(_reasons(domain, scaling, values[n], systems[n], float(place[n])))
        for n in range(len(values))
    ]
    return Outside(distance, 100.0 * place, tuple(reasons))


def elements_of(text: str) -> set[str]:
    """Return the symbols of the elements in a chemical system or formula."""
    return set(re.findall(r"[A-Z][a-z]?", text))


def _reasons(
    domain: Domain, scaling: Scaling, values: np.ndarray, system: str, place: float
) -> list[str]:
    words = []
    unseen = sorted(elements_of(system) - set(domain.elements))
    if unseen:
        words.append(f"element{'s' if len(unseen) > 1 else ''} never seen: {', '.join(unseen)}")
    room = MARGIN * (scaling.highest - scaling.lowest)
    room = np.maximum(room, 1e-9 * np.maximum(np.abs(scaling.highest), np.abs(scaling.lowest)))
    beyond = []
    for name, value, low, high, far in zip(
        scaling.columns, values, scaling.lowest, scaling.highest, room, strict=True
    ):
        if value > high + far:
            beyond.append(((value - high) / far, f"{name} {value:.3g} above {high:.3g}"))
        elif value < low - far:
            beyond.append(((low - value) / far, f"{name} {value:.3g} below {low:.3g}"))
    beyond.sort(key=lambda item: -item[0])
    words += [text for _, text in beyond[:_NAMED]]
    if len(beyond) > _NAMED:
        words.append(f"{len(beyond) - _NAMED} more descriptors out of range")
    absent = ~np.isfinite(values)
    new = np.flatnonzero(absent & (scaling.missing == 0))
    if 2 * absent.sum() > len(values):
        words.append(f"{absent.sum()} of {len(values)} descriptors unknown")
    elif len(new):
        names = [scaling.columns[n] for n in new[:_NAMED]]
        more = f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
        words.append(f"unknown, though never in training: {', '.join(names)}{more}")
    if place > FAR:
        words.append(f"farther from the training rows than {place:.0%} of them from each other")
    return words


def _near(white: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the mean distance from the nearest rows; infinite where there are none."""
    if not len(rows):
        return np.full(len(white), np.inf)
    k = min(NEIGHBOURS, len(rows))
    found = np.empty(len(white))
    for n, point in enumerate(white):  # one at a time: no (row, row, column) in memory
        d = np.linalg.norm(rows - point, axis=1)
        found[n] = np.partition(d, k - 1)[:k].mean()
    return found
