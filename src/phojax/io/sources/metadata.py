"""What databases say about a structure, under one set of names.

Every database has its own word for a formation energy. The words below are recognised in any
spelling of case and separators, with or without the prefix of an OPTIMADE provider, and nested
(Materials Project's stability.gga_gga+u.energy_above_hull). Only words whose unit is known stand
here: `formation_energy` alone may be of the atom, the formula or the cell, and is left as it is.
"""

import math
import re
from typing import Any

import numpy as np

from phojax.screening.candidates import ABOVE_HULL, BAND_GAP, FORMATION_ENERGY

# In order of preference. Who uses the less usual ones: delta_e, _oqmd_stability OQMD; e_form,
# band_gap_ind Alexandria; hform, ehull, gap C2DB; *_peratom, optb88vdw_* JARVIS; *_mp2020* and
# bandgap_pbe WBM; decomposition_* GNoME.
_WORDS = {
    FORMATION_ENERGY: (
        "formation_energy_ev_atom", "formation_energy_ev_per_atom", "formation_energy_per_atom",
        "formation_energy_peratom", "formation_enthalpy_ev_atom", "enthalpy_formation_atom",
        "e_form_per_atom", "e_form_per_atom_mp2020_corrected", "e_form", "delta_e", "hform",
    ),
    BAND_GAP: (
        "band_gap_ev", "bandgap_ev", "band_gap", "bandgap", "band_gap_ind", "bandgap_pbe",
        "band_gap_pbe", "optb88vdw_bandgap", "egap", "gap_ev", "gap",
    ),
    ABOVE_HULL: (
        "energy_above_hull_ev_atom", "energy_above_hull_ev_per_atom", "energy_above_hull",
        "e_above_hull_per_atom", "e_above_hull", "e_above_hull_mp2020_corrected_ppd_mp",
        "e_above_hull_wbm", "hull_distance", "ehull", "oqmd_stability",
        "decomposition_energy_per_atom",
    ),
}  # fmt: skip

ID_WORDS = (
    "material_id", "mat_id", "entry_id", "id", "uid", "jid", "auid", "_id", "task_id", "name",
)  # fmt: skip
"""Names of what identifies an entry, in order of preference."""

_LONGEST = 1000  # characters: longer texts are files (a CIF inside a document), not scalars
_DEEPEST = 4


def scalars(document: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the numbers, truth values and texts of a document, nested ones as "outer.inner".

    Lists, None, NaN and texts of more than 1000 characters are left out, and so are the keys
    in `skip` and those that start with "@" (what pymatgen adds to name its classes).
    """
    found: dict[str, Any] = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict) and len(path) < _DEEPEST:
            for key, inner in value.items():
                if key not in skip and not str(key).startswith("@"):
                    visit(inner, (*path, str(key)))
            return
        value = value.item() if isinstance(value, np.generic) else value
        known = isinstance(value, bool | int | float) and math.isfinite(value)
        if path and (known or (isinstance(value, str) and 0 < len(value) <= _LONGEST)):
            found[".".join(path)] = value

    visit(document, ())
    return found


def standard(raw: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return scalars with the known words replaced by the standard keys, and remarks.

    Where several words mean one key the first in the list is taken; the others stay under their
    own name, with a remark where they differ.
    """
    metadata, remarks = dict(raw), []
    for key, words in _WORDS.items():
        found = [name for _, name in sorted(_rank(name, words) for name in raw) if name]
        numbers = {name: _number(raw[name]) for name in found}
        usable = [name for name, value in numbers.items() if value is not None]
        remarks += [f"{n} is {raw[n]!r}, no number" for n in found if n not in usable
                    and str(raw[n]).strip().lower() not in MISSING]  # fmt: skip
        if not usable:
            metadata.pop(key, None)
            continue
        first, *others = usable
        del metadata[first]
        metadata[key] = numbers[first]
        remarks += [
            f"{key} is {numbers[first]:g} from {first}; {name} says {numbers[name]:g}"
            for name in others
            if abs(numbers[name] - numbers[first]) > 1e-6  # type: ignore[operator]
        ]
    return metadata, tuple(remarks)


MISSING = ("", "na", "nan", "none", "null", "n/a", "-", "?")
"""What stands for a missing value in texts, in lower case."""


def identifier(document: dict[str, Any]) -> str:
    """Return what a document calls itself, or ""."""
    for word in ID_WORDS:
        value = document.get(word)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return ""


def _rank(name: str, words: tuple[str, ...]) -> tuple[tuple[int, int, str], str]:
    """Return what sorts the names of one quantity, and the name; "" where it is another one."""
    last = name.rsplit(".", 1)[-1]
    plain = re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")
    without = re.sub(r"^_[a-z0-9]+_", "", last.lower())  # _oqmd_delta_e
    without = re.sub(r"[^a-z0-9]+", "_", without).strip("_")
    for word in (plain, without):
        if word in words:
            return (words.index(word), name.count("."), name), name
    return (0, 0, ""), ""


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
