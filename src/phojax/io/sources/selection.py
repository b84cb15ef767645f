"""What is asked of a database, in short: "Na-P-S", "Na,S", "Na3PS4", "mp-22862"."""

import re
from dataclasses import dataclass
from math import gcd

from ase.data import atomic_numbers

from phojax.checks import fail

_EXPECTED = (
    'a chemical system "Na-P-S" (these elements and no others), elements "Na,S" (at least '
    'these) or a formula "Na3PS4"'
)


@dataclass(frozen=True)
class Selection:
    """One of three kinds of questions.

    Attributes:
        elements: That every entry holds; () where a formula is asked for.
        only: No other elements than those.
        formula: Element and count, reduced; () where elements are asked for.
    """

    elements: tuple[str, ...] = ()
    only: bool = False
    formula: tuple[tuple[str, int], ...] = ()

    def optimade_filter(self) -> str:
        """Return the question in the filter language of OPTIMADE."""
        if self.formula:
            text = "".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(self.formula))
            return f'chemical_formula_reduced="{text}"'
        names = ", ".join(f'"{s}"' for s in self.elements)
        number = f" AND nelements={len(self.elements)}" if self.only else ""
        return f"elements HAS ALL {names}{number}"


def selection(text: str) -> Selection:
    """Return the question that a text asks.

    Raises:
        InputError: unknown elements, or no such text.
    """
    text = text.strip()
    for separator, only in (("-", True), (",", False)):
        names = [part.strip() for part in text.split(separator)]
        if len(names) > 1 or text in atomic_numbers:
            _check_elements(names, text)
            return Selection(tuple(dict.fromkeys(names)), only and len(names) > 1)
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", text)
    if not parts or "".join(s + n for s, n in parts) != text:
        raise fail(f"{text!r} as a question to a database", _EXPECTED)
    _check_elements([s for s, _ in parts], text)
    counts: dict[str, int] = {}
    for symbol, number in parts:
        counts[symbol] = counts.get(symbol, 0) + int(number or 1)
    common = gcd(*counts.values())
    if common == 0:
        raise fail(f"{text!r} as a question to a database", _EXPECTED)
    return Selection(formula=tuple((s, n // common) for s, n in counts.items()))


def _check_elements(names: list[str], text: str) -> None:
    unknown = [name for name in names if name not in atomic_numbers or name == "X"]
    if unknown:
        raise fail(f"{', '.join(unknown) or 'nothing'} as an element in {text!r}", _EXPECTED)
