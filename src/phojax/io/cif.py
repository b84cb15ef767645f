"""CIF files: read by ASE, with checks of what its reader passes over.

ASE merges sites that coincide, takes P1 where it does not understand the symmetry, and skips
rows with the wrong number of columns. Each is detected here from the tags of the file itself.
"""

import pathlib
import re
import warnings
from collections import Counter

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.cif import CIFBlock, parse_cif

from phojax.checks import fail

_FULL = 1e-3  # how far from 1 an occupancy may be
_SAME_SITE = 0.05  # Å between listed sites that are one
_SYMMETRY_TAGS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group.it_number",
    "_space_group_it_number",
    "_symmetry_int_tables_number",
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group.patterson_name_h-m",
)


def read_cif(path: pathlib.Path) -> Atoms:
    """Return the conventional cell of the last structure in a CIF file.

    Raises:
        InputError: no structure, partial occupancy, coinciding sites, symmetry that is not
            understood, rows that were skipped, a composition other than the stated formula.
    """
    return atoms_of_block(cif_blocks(path)[-1])


def cif_blocks(path: pathlib.Path) -> list[CIFBlock]:
    """Return the blocks of a CIF file that hold a structure, at least one.

    Raises:
        InputError: no structure, or rows that were skipped.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        blocks = [b for b in parse_cif(str(path)) if b.has_structure()]
    for warning in caught:
        if re.match("Wrong number|Duplicated loop|Badly formed", str(warning.message)):
            raise fail(str(warning.message), "a well-formed CIF", "Correct or re-export the file")
        warnings.warn(warning.message, stacklevel=2)
    if not blocks:
        raise fail("it holds no atoms", "a CIF with atom sites", "It may be cut short")
    return blocks


def atoms_of_block(block: CIFBlock) -> Atoms:
    """Return the conventional cell of one block; raises as `read_cif` does."""
    if block.get_cellpar() is None:
        raise fail("the lengths or angles of the cell are missing", "all six", "Complete the file")
    _check_occupancies(block)
    _check_symmetry(block)
    atoms = _symmetrised(block)
    _check_sites(block, atoms)
    _check_formula(block, atoms)
    return atoms


def cif_text(atoms: Atoms, name: str) -> str:
    """Return the crystal as a CIF in P1 with all digits of cell and fractional coordinates."""
    tags = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    counts = sorted(Counter(atoms.symbols).items())
    lines = [
        f"data_{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}",
        f"_chemical_formula_sum '{' '.join(f'{s}{n}' for s, n in counts)}'",
        *(f"_cell_{t} {float(v)!r}" for t, v in zip(tags, atoms.cell.cellpar(), strict=True)),
        "_space_group_name_H-M_alt 'P 1'",
        "_space_group_IT_number 1",
        "loop_",
        "_space_group_symop_operation_xyz",
        "'x, y, z'",
        "loop_",
        "_atom_site_label",
        "_atom_site_type_symbol",
        "_atom_site_fract_x",
        "_atom_site_fract_y",
        "_atom_site_fract_z",
        "_atom_site_occupancy",
    ]
    x = atoms.get_scaled_positions(wrap=False)
    seen: Counter[str] = Counter()
    for symbol, row in zip(atoms.symbols, x, strict=True):
        seen[symbol] += 1
        xyz = " ".join(repr(float(v)) for v in row)
        lines.append(f"{symbol}{seen[symbol]} {symbol} {xyz} 1")
    return "\n".join([*lines, ""])


def _labels(block: CIFBlock) -> list[str]:
    labels = block.get("_atom_site_label")
    return [str(s) for s in (labels if isinstance(labels, list) else block.get_symbols())]


def _check_occupancies(block: CIFBlock) -> None:
    values = block.get("_atom_site_occupancy")
    if values is None:
        return
    values = values if isinstance(values, list) else [values]
    # "." and "?" stand for the default, which is 1.
    numbers = [float(v) if isinstance(v, (int, float)) else 1.0 for v in values]
    partial = [
        f"{label} {n:g}"
        for label, n in zip(_labels(block), numbers, strict=True)
        if abs(n - 1) > _FULL
    ]
    if partial:
        raise fail(
            f"partial occupancy ({', '.join(partial[:6])})",
            "every site fully occupied",
            "Build an ordered structure first (for example with pymatgen or Supercell)",
        )


def _check_symmetry(block: CIFBlock) -> None:
    stated = [t for t in block if t.startswith(("_space_group", "_symmetry"))
              and ("hall" in t or "name" in t or "number" in t)]  # fmt: skip
    if stated and not any(t in block for t in _SYMMETRY_TAGS):
        raise fail(
            f"the symmetry is given only by {', '.join(stated)}",
            "symmetry operations, a number or a Hermann-Mauguin symbol",
            "Add _space_group_symop_operation_xyz",
        )


def _symmetrised(block: CIFBlock) -> Atoms:
    """Return the full cell; ASE's remark on the crystal system counts without operations only."""
    with warnings.catch_warnings():
        if any(t in block for t in _SYMMETRY_TAGS[:3]):
            warnings.filterwarnings("ignore", "crystal system", UserWarning)
        return block.get_atoms()


def _check_sites(block: CIFBlock, atoms: Atoms) -> None:
    """Refuse sites that ASE has merged; sites that symmetry makes equal are one site."""
    listed = block.get_unsymmetrized_structure()
    x = listed.get_scaled_positions(wrap=False)
    if not np.isfinite(x).all():
        return
    labels = _labels(block)
    for i in range(len(x)):
        difference = x[i + 1 :] - x[i]
        difference -= np.rint(difference)
        near = np.linalg.norm(difference @ np.asarray(listed.cell), axis=1) < _SAME_SITE
        if near.any():
            other = labels[i + 1 + int(np.argmax(near))]
            raise fail(
                f"sites {labels[i]} and {other} are at one place",
                "one atom per place",
                "Remove one of them",
            )
    kept = set(np.asarray(atoms.get_array("spacegroup_kinds")).tolist())
    merged = [k for k in range(len(listed)) if k not in kept]
    for k in merged:
        distances = np.linalg.norm(_nearest(listed.positions[k], atoms), axis=1)
        if atoms.symbols[int(np.argmin(distances))] != listed.symbols[k]:
            raise fail(
                f"site {labels[k]} coincides with an image of another element",
                "one atom per place",
                "Remove one of them, or correct the symmetry operations",
            )


def _nearest(position: np.ndarray, atoms: Atoms) -> np.ndarray:
    difference = (atoms.positions - position) @ np.linalg.inv(np.asarray(atoms.cell))
    return (difference - np.rint(difference)) @ np.asarray(atoms.cell)


def _check_formula(block: CIFBlock, atoms: Atoms) -> None:
    """Compare the composition with the stated formula: a loop cut short at a line shows here."""
    text = block.get("_chemical_formula_sum")
    parts = re.findall(r"([A-Z][a-z]?)\s*(\d*\.?\d*)", text) if isinstance(text, str) else []
    if not parts or any(s not in atomic_numbers and s != "D" for s, _ in parts):
        return
    stated: Counter[str] = Counter()
    for symbol, count in parts:
        stated["H" if symbol == "D" else symbol] += float(count or 1)  # type: ignore[assignment]
    found = Counter(atoms.symbols)
    units = len(atoms) / stated.total()
    same = all(abs(found[s] - units * stated[s]) < 0.01 * len(atoms) for s in {*stated, *found})
    # The formula is that of one unit, or of the whole cell; Z below one happens for dimers.
    whole = abs(units - round(units)) < 0.01 and units > 0.5
    Z = block.get("_cell_formula_units_z")
    if not same or not (whole or (isinstance(Z, (int, float)) and abs(units - Z) < 0.01)):
        raise fail(
            f"the atom sites make {atoms.get_chemical_formula()}, the stated formula is {text}",
            "the same composition and a whole number of formula units",
            "The file may be cut short, or leave atoms (hydrogen) or symmetry out",
        )
