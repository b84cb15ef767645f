"""What VASP writes of one calculation, as far as readers of forces look at it.

Made by hand after the format of VASP 6; ASE and phonopy read both.
"""

import numpy as np

_ENERGY = "".join(f'<i name="{n}">-1.0</i>' for n in ("e_fr_energy", "e_wo_entrp", "e_0_energy"))


def _rows(name, values):
    body = "".join(f"<v> {' '.join(f'{x:.12f}' for x in row)} </v>\n" for row in values)
    return f'<varray name="{name}">\n{body}</varray>\n'


def vasprun(atoms, forces):
    """Return vasprun.xml as text."""
    kinds = list(dict.fromkeys(atoms.symbols))
    symbols = "".join(f"<rc><c>{s}</c><c>{kinds.index(s) + 1}</c></rc>" for s in atoms.symbols)
    cell = (
        f"<crystal>{_rows('basis', atoms.cell[:])}</crystal>"
        f"{_rows('positions', atoms.get_scaled_positions())}</structure>"
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator>'
        '<i name="program" type="string">vasp</i><i name="version" type="string">6.4.2</i>'
        f"</generator>\n<kpoints>{_rows('kpointlist', [[0, 0, 0]])}{_rows('weights', [[1]])}"
        f"</kpoints>\n<atominfo><atoms>{len(atoms)}</atoms>"
        f'<array name="atoms"><set>{symbols}</set></array></atominfo>\n'
        f'<structure name="initialpos">{cell}\n<calculation>\n<scstep><energy>{_ENERGY}</energy>'
        f"</scstep>\n<structure>{cell}\n{_rows('forces', forces)}<energy>{_ENERGY}</energy>\n"
        f'</calculation>\n<structure name="finalpos">{cell}\n</modeling>\n'
    )


def outcar(atoms, forces):
    """Return OUTCAR as text."""
    kinds = list(dict.fromkeys(atoms.symbols))
    counts = [sum(s == k for s in atoms.symbols) for k in kinds]
    lattice = "".join(
        "  " + " ".join(f"{x:13.9f}" for x in [*v, *w]) + "\n"
        for v, w in zip(atoms.cell[:], np.linalg.inv(atoms.cell[:]).T, strict=True)
    )
    table = "".join(
        "  " + " ".join(f"{x:14.9f}" for x in [*r, *f]) + "\n"
        for r, f in zip(atoms.positions, forces, strict=True)
    )
    line = " " + "-" * 83 + "\n"
    return (
        " vasp.6.4.2 20Jul23\n"
        + "".join(f" POTCAR:    PAW_PBE {k} 06Sep2000\n" for k in kinds) * 2
        + f"   ions per type =            {' '.join(f'{c:3d}' for c in counts)}\n"
        + f"   NIONS = {len(atoms):6d}\n\n ISPIN  =      1    spin polarized calculation?\n"
        + "--------------------------------------- Iteration      1(   1)  ---\n"
        + "      direct lattice vectors                 reciprocal lattice vectors\n"
        + lattice
        + "\n POSITION                                       TOTAL-FORCE (eV/Angst)\n"
        + line
        + table
        + line
        + "    total drift:  0 0 0\n\n  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
        + "  ---------------------------------------------------\n"
        + "  free  energy   TOTEN  =       -1.0 eV\n\n"
        + "  energy  without entropy=      -1.0  energy(sigma->0) =      -1.0\n"
    )
