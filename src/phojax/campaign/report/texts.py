"""Numbers and texts for the page. Everything that comes from a file passes through here.

Three places, three ways to be harmless: `safe` in HTML, `embedded` inside <script>, `drawn` in
labels of plotly, which reads a few tags itself.
"""

import html
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

DIGITS = 5
"""Significant digits of numbers that are embedded."""


def safe(value: Any) -> str:
    """Return a value as text for HTML, inside or outside of quotes."""
    return html.escape(str(value), quote=True)


def drawn(value: Any) -> str:
    """Return a value as text for plotly, which shows entities and would obey tags."""
    return html.escape(str(value), quote=False)


def embedded(value: Any) -> str:
    """Return JSON, of what `plain` has returned, that can stand in a <script> element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def plain(value: Any, digits: int = DIGITS) -> Any:
    """Return a value in JSON's types: floats of so many significant digits, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one, digits) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return _rounded(value, digits) if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one, digits) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item(), digits)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        rounded = float(f"{value:.{digits}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _rounded(values: np.ndarray, digits: int) -> Any:
    """Return an array as nested lists, faster than one by one: pages hold millions of numbers."""
    x = np.asarray(values, float)
    known = np.isfinite(x) & (np.abs(x) > 1e-18)
    safe_x = np.where(known, x, 1.0)
    places = digits - 1 - np.floor(np.log10(np.abs(safe_x)))
    # Powers of ten up to 1e22 are exact, their inverses are not: divide, so that texts are short.
    up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
    rounded = np.where(known, np.round(safe_x * up / down) / up * down, 0.0)
    if np.isfinite(x).all():
        return rounded.tolist()
    found = rounded.astype(object)
    found[~np.isfinite(x)] = None
    return found.tolist()


def number(holder: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number, or None for all else that may stand there."""
    value = holder.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None


def shown(value: Any, digits: int = 3) -> str:
    """Return a value for a reader, not escaped; "" for none."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{float(value):.{digits}g}" if math.isfinite(value) else ""
    if isinstance(value, list | tuple):
        return ", ".join(shown(one, digits) for one in value)
    return str(value)


def flattened(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, scalar or list) of everything in a nested record."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += flattened(value, f"{name}.")
        else:
            found.append((name, value))
    return found


def mapping(value: Any) -> dict[str, Any]:
    """Return the value if it is a dictionary, else an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def listing(value: Any) -> list[Any]:
    """Return the value if it is a list, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []
