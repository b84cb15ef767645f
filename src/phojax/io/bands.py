"""Bands along a path as band.yaml, in phonopy's format.

Read by phonopy-bandplot, pymatgen (`pymatgen.io.phonopy.get_ph_bs_symm_line`) and what is built
on it. Reciprocal vectors and distances are without 2π there, and eigenvectors those of D(q) with
the phases exp(iq·(r_j + R − r_i)), as here. Numbers carry more digits than phonopy writes, and
the ends of segments are labelled at the q-points, too, where older readers look for them.
"""

import json
import os

import numpy as np
from jaxtyping import Float

from phojax.brillouin import BandPath
from phojax.checks import check_shape, fail
from phojax.convert import phonopy_atoms
from phojax.io.atomic import replacing
from phojax.modes import Modes


def write_band_yaml(
    path: str | os.PathLike,
    line: BandPath,
    found: Modes,
    *,
    group_velocities: Float[np.ndarray, "q mode 3"] | None = None,
    eigenvectors: bool = False,
) -> None:
    """Write the modes along a path as band.yaml.

    Args:
        path: Of the file.
        line: The path.
        found: Modes at `line.q`, in any order of branches; frequencies are written in THz.
        group_velocities: ∂ω/∂q in Å THz, ω = 2πν in rad/ps and q with 2π (the two cancel).
        eigenvectors: Whether to write them: some 130 bytes per component.

    Raises:
        InputError: modes at other q-points, velocities of another shape.
    """
    check_on_path(line, found)
    if group_velocities is not None:
        check_shape("group velocities", group_velocities, (*found.eigenvalues.shape, 3))
    crystal = found.structure
    lengths = [s.stop - s.start for s in line.segments]
    text = [
        "calculator: phojax",
        "length_unit: angstrom",
        f"nqpoint: {len(line.q)}",
        f"npath: {len(lengths)}",
        "segment_nqpoint:",
        *(f"- {n}" for n in lengths),
        "labels:",
        *(f"- [ {_quoted(a)}, {_quoted(b)} ]" for a, b in line.labels),
        "reciprocal_lattice:",
        *(
            f"- {_row(vector, '16.12f')} # {axis}"
            for vector, axis in zip(
                np.linalg.inv(np.asarray(crystal.cell, float)).T, ("a*", "b*", "c*"), strict=True
            )
        ),
        f"natom: {len(crystal)}",
        str(phonopy_atoms(crystal)),
        "",
        "phonon:",
    ]
    ends = {s.start: a for s, (a, _) in zip(line.segments, line.labels, strict=True)}
    ends |= {s.stop - 1: b for s, (_, b) in zip(line.segments, line.labels, strict=True)}
    frequencies = np.asarray(found.frequencies_THz)
    e = np.asarray(found.eigenvectors) if eigenvectors else None
    for n, q in enumerate(line.q):
        text += [f"- q-position: {_row(q, '16.12f')}"]
        text += [f"  distance: {line.distance[n] / (2 * np.pi):.12f}"]
        text += [f"  label: {_quoted(ends[n])}"] if n in ends else []
        text += ["  band:"]
        for mode, frequency in enumerate(frequencies[n]):
            text += [f"  - # {mode + 1}", f"    frequency: {frequency:15.10f}"]
            if group_velocities is not None:
                text += [f"    group_velocity: {_row(group_velocities[n, mode], '14.8f')}"]
            if e is not None:
                text += ["    eigenvector:"]
                for atom, components in enumerate(e[n, mode]):
                    text += [f"    - # atom {atom + 1}"]
                    text += [f"      - [ {c.real:17.14f}, {c.imag:17.14f} ]" for c in components]
        text += [""]
    with replacing(path) as temporary:
        temporary.write_text("\n".join([*text, ""]), encoding="ascii")


def check_on_path(line: BandPath, found: Modes) -> None:
    """Raise InputError unless the modes are those at the points of the path."""
    q = np.asarray(found.q)
    if q.shape != line.q.shape or np.abs(q - line.q).max() > 1e-8:
        raise fail(
            f"modes at {len(q)} q-points that are not those of the path",
            f"its {len(line.q)} points in their order",
            "Compute modes(constants, path.q)",
        )


def _row(numbers, form: str) -> str:
    return f"[ {', '.join(format(float(x), form) for x in numbers)} ]"


def _quoted(label: str) -> str:
    # Escaped as JSON, which YAML reads: readers open the file in whatever encoding they like.
    return json.dumps(label)
