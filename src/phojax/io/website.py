"""Modes along a path for animation: the JSON of the phonon website.

https://henriquemiranda.github.io/phononwebsite draws atom j of the cell R at

    r_j + R + A Re[ v_qn,j exp(2πi q·R) exp(iωt) ]                                     (1)

with no phase of the atom's own position, so the file holds displacements that carry it:

    v_qn,j ∝ e_qn,j exp(iq·r_j) / √m_j,   Σ_j |v_qn,j|² = 1                            (2)

(`getFromInternalJson` and `getVibrations` of its source). Eigenvalues are wavenumbers in cm⁻¹,
negative for imaginary modes. Labels hang on distances, so both sides of a jump share one.
"""

import json
import os
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Complex
from scipy import constants as _si

from phojax.brillouin import BandPath
from phojax.dynmat import atomic_phases
from phojax.io.atomic import replacing
from phojax.io.bands import check_on_path
from phojax.modes import Modes

THZ_IN_PER_CM = 1e12 / (_si.c * 100)
"""1 THz in cm⁻¹ (33.35641)."""

_SHOWN = 10.0  # Å: repetitions fill at least this along each lattice vector
_ATOMS = 200  # and draw no more atoms than this


def write_website_json(
    path: str | os.PathLike, line: BandPath, found: Modes, *, name: str = ""
) -> None:
    """Write the modes along a path for the phonon website.

    Args:
        path: Of the file, .json (the site goes by the name).
        line: The path.
        found: Modes at `line.q`; connected branches animate best.
        name: Shown as the title; the formula by default.

    Raises:
        InputError: modes at other q-points.
    """
    tree = website_tree(line, found, name=name)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(tree, allow_nan=False), encoding="utf-8")


def website_tree(line: BandPath, found: Modes, *, name: str = "") -> dict[str, Any]:
    """Return what `write_website_json` writes, as a dictionary of lists."""
    check_on_path(line, found)
    crystal = found.structure
    cell = np.asarray(crystal.cell, float)
    counts = Counter(crystal.symbols)
    formula = "".join(s + (str(n) if n > 1 else "") for s, n in counts.items())
    vectors = displacements(found)
    return {
        "name": name or formula,
        "natoms": len(crystal),
        "lattice": cell.tolist(),
        "atom_types": crystal.symbols,
        "atom_numbers": np.asarray(crystal.numbers).tolist(),
        "masses": np.asarray(crystal.masses, float).tolist(),
        "formula": formula,
        "repetitions": _repetitions(cell, len(crystal)),
        "atom_pos_car": np.asarray(crystal.positions, float).tolist(),
        "atom_pos_red": np.asarray(crystal.fractional, float).tolist(),
        "highsym_qpts": _labelled(line),
        "qpoints": line.q.tolist(),
        "distances": line.distance.tolist(),
        "eigenvalues": (np.asarray(found.frequencies_THz) * THZ_IN_PER_CM).tolist(),
        "vectors": np.stack([np.real(vectors), np.imag(vectors)], -1).round(9).tolist(),
        "line_breaks": [[s.start, s.stop] for s in line.segments],
    }


def displacements(found: Modes) -> Complex[np.ndarray, "q mode atom 3"]:
    """Return v of eq. (2), dimensionless."""
    crystal = found.structure
    phases = np.asarray(atomic_phases(crystal.fractional, found.q))
    amplitude = phases / np.sqrt(np.asarray(crystal.masses))
    v = np.asarray(found.eigenvectors) * amplitude[:, None, :, None]
    return v / np.linalg.norm(v, axis=(2, 3), keepdims=True)


def _labelled(line: BandPath) -> list[list]:
    """Return [point, label] at both ends of each segment; a jump is labelled "X|K"."""
    marks = []
    for n, (segment, (start, end)) in enumerate(zip(line.segments, line.labels, strict=True)):
        before = line.labels[n - 1][1] if n > 0 else start
        after = line.labels[n + 1][0] if n + 1 < len(line.labels) else end
        marks.append([segment.start, start if before == start else f"{before}|{start}"])
        marks.append([segment.stop - 1, end if after == end else f"{end}|{after}"])
    return marks


def _repetitions(cell: np.ndarray, atoms: int) -> list[int]:
    repeats = np.ceil(_SHOWN / np.linalg.norm(cell, axis=1)).astype(int)
    while repeats.prod() * atoms > _ATOMS and repeats.max() > 1:
        repeats[np.argmax(repeats)] -= 1
    return repeats.tolist()
