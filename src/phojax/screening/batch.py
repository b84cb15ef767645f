"""Many crystals at once: sorted by size, padded to few shapes, and analysed together.

What is compiled depends on the padded shape alone, so that thousands of crystals share a few
compiled functions. The result of each is that of `analysed`, to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from phojax.checks import InputError, check_finite
from phojax.compiled import let_go_of_compiled
from phojax.force_constants import ForceConstants
from phojax.nac import BornCharges
from phojax.screening.analysis import Analysis, Planned, analysed_together, planned_points
from phojax.screening.eigenpairs import points_at_a_time
from phojax.screening.settings import PhononSettings
from phojax.screening.subjects import Shape, larger_size, rounded, shape_of
from phojax.symmetry import SpaceGroup

_PATH_BYTES = 2e9  # eigenvectors of band paths that are alive at once
_MOST = 64  # crystals that go through together


@dataclass(frozen=True)
class CrystalInput:
    """Force constants with what belongs to them.

    Attributes:
        constants: Φ, in float64.
        group: Space group of the primitive cell.
        born: Neutral charges, for the non-analytic term.
    """

    constants: ForceConstants
    group: SpaceGroup
    born: BornCharges | None = None


@dataclass(frozen=True)
class BatchReport:
    """How the work was laid out.

    Attributes:
        shapes: The distinct padded shapes: each was compiled once.
        batches: How many batches there were.
        padding: Share of the work, counted as q · atoms³, that was spent on padding.
    """

    shapes: tuple[Shape, ...]
    batches: int
    padding: float


def analysed_batch(
    crystals: Sequence[CrystalInput], settings: PhononSettings, *, most: int = _MOST
) -> tuple[list[Analysis | InputError], BatchReport]:
    """Return the analysis of every crystal, or the reason why there is none, in their order.

    Args:
        crystals: Of any sizes.
        settings: Of all of them.
        most: Crystals that go through together at most; a power of two.
    """
    out: dict[int, Analysis | InputError] = {}
    plans: dict[int, Planned] = {}
    for number, item in enumerate(crystals):
        try:
            check_finite("force constants", item.constants.values)
            plans[number] = planned_points(item.constants, item.group, settings, item.born)
        except InputError as error:
            out[number] = error
    shapes: list[Shape] = []
    work = np.zeros(2)
    for numbers in _batches(plans, most):
        together = [plans[n] for n in numbers]
        shape = rounded(shape_of([p.subject for p in together]))
        found = _analysed_or_reasons(together, settings, shape)
        out |= dict(zip(numbers, found, strict=True))
        shapes.append(shape)
        let_go_of_compiled()
        longest = max(_points(p) for p in together)
        work += [
            sum(_points(p) * _atoms(p) ** 3 for p in together),
            shape.crystals * longest * shape.atoms**3,
        ]
    padding = 1 - work[0] / work[1] if work[1] else 0.0
    done = [out[number] for number in range(len(crystals))]
    return done, BatchReport(tuple(dict.fromkeys(shapes)), len(shapes), padding)


def _analysed_or_reasons(
    together: list[Planned], settings: PhononSettings, shape: Shape
) -> list[Analysis | InputError]:
    """Return the analysis of each; where the batch fails as a whole, that of each one alone."""
    # Filled up with copies, so that the last batch of a size has the shape of the others.
    filled = together + together[-1:] * (shape.crystals - len(together))
    try:
        return [*analysed_together(filled, settings, shape)[: len(together)]]
    except Exception as error:  # one bad crystal never stops a batch
        if len(together) == 1:
            return [InputError(f"the analysis failed: {type(error).__name__}: {error}")]
    alone = shape._replace(crystals=1)
    return [_analysed_or_reasons([plan], settings, alone)[0] for plan in together]


def _batches(plans: dict[int, Planned], most: int) -> list[list[int]]:
    """Return the numbers of crystals that go together: of one kind and one padded size."""

    def size(number: int) -> tuple:
        plan = plans[number]
        kind = str(jax.tree.structure(plan.subject))
        return kind, larger_size(_atoms(plan)), _points(plan), number

    batches: list[list[int]] = []
    previous = None
    for kind, atoms, _, number in sorted(map(size, plans)):
        path = len(plans[number].path.q) * 16 * (3 * atoms) ** 2
        room = max(1, min(most, int(_PATH_BYTES / path), points_at_a_time(atoms)))
        room = 2 ** int(np.log2(room))
        if previous != (kind, atoms) or len(batches[-1]) >= room:
            batches.append([])
        batches[-1].append(number)
        previous = (kind, atoms)
    return batches


def _atoms(plan: Planned) -> int:
    return len(plan.subject.held.crystal)


def _points(plan: Planned) -> int:
    return len(plan.mesh.q) + len(plan.coarse.q)
