"""Force constants with CHGNet, ours beside phonopy's finite differences, in one run.

phonopy gets what it is best at: symmetry-reduced displacements (±, 0.01 Å), and forces of torch
CHGNet through its ASE calculator in float32 on all cores. Ours are exact Hessians in float64 of
the same structure and supercell. Warm: a first run, compilation included, is given apart. Without
torch and the chgnet package the peer is not measured.
"""

import time

import jax
import numpy as np
from ase import Atoms
from ase.spacegroup import crystal as ase_crystal
from phonopy import Phonopy

from phojax.convert import phonopy_atoms, structure_from_ase
from phojax.force_constants.hessian import hessian
from phojax.potentials.catalogue import potential
from phojax.relax import relax
from phojax.structure import supercell
from phojax.symmetry import near_cubic_matrix, primitive_cell, space_group, symmetrized

# Na3PS4: Chu et al., Sci. Rep. 6, 33733 (2016); NaCl: NBS Circular 539.
CRYSTALS = {
    "NaCl, 64 atoms": (
        ase_crystal(
            ["Na", "Cl"],
            [(0, 0, 0), (0.5, 0.5, 0.5)],
            spacegroup=225,
            cellpar=[5.64] * 3 + [90] * 3,
        ),
        64,
    ),
    "t-Na3PS4, 128 atoms": (
        ase_crystal(
            ["Na", "Na", "P", "S"],
            [(0, 0, 0), (0, 0.5, 0.0852), (0, 0, 0.5), (0.3125, 0.3372, 0.1649)],
            spacegroup=114,
            cellpar=[6.952, 6.952, 7.0757, 90, 90, 90],
        ),
        128,
    ),
}
REPEATS = 3


def main() -> list[tuple[str, str]]:
    """Return (what, figure) pairs."""
    found = []
    for name, (atoms, size) in CRYSTALS.items():
        model = potential("chgnet")
        cell, group = prepared(atoms, size, model)
        begin = time.perf_counter()
        result = hessian(model, cell, group)
        cold = time.perf_counter() - begin
        ours, theirs, off = [], [], np.nan
        peer = phonopy_run(cell)
        for _ in range(REPEATS):  # interleaved, so that both meet the same load
            ours.append(timed(lambda m=model, c=cell, g=group: hessian(m, c, g))[0])
            if peer is not None:
                seconds, values = timed(peer)
                theirs.append(seconds)
                off = np.abs(values - np.asarray(result.force_constants.values)).max()
        found.append((f"{name}: phojax, width 0, warm", f"{min(ours):.2f} s"))
        found.append((f"{name}: phojax, width 0, cold", f"{cold:.1f} s"))
        width = model.smoothing_width
        spent, averaged = timed(
            lambda m=model, c=cell, g=group, w=width: hessian(
                m, c, g, width=w, key=jax.random.key(0)
            )
        )
        label = f"{name}: phojax, width {width:g} Å, {len(averaged.pairs)} pairs, warm"
        found.append((label, f"{spent:.1f} s"))
        if peer is None:
            found.append((f"{name}: phonopy + CHGNetCalculator", "not measured"))
            continue
        found.append((f"{name}: phonopy + CHGNetCalculator, warm", f"{min(theirs):.2f} s"))
        ratio = min(theirs) / min(ours)
        found.append((f"{name}: phojax faster than phonopy by", f"{ratio:.2f}×"))
        found.append((f"{name}: largest difference (their step is finite)", f"{off:.3f} eV/Å²"))
    return found


def prepared(atoms: Atoms, size: int, model):
    """Return the supercell of `size` atoms of the relaxed primitive cell, and its group."""
    crystal = primitive_cell(structure_from_ase(atoms))
    group = space_group(crystal, 1e-3)
    relaxed = relax(model, symmetrized(crystal, group), symmetry=group)
    matrix = near_cubic_matrix(relaxed.structure, group, size, size)
    return supercell(relaxed.structure, matrix), group


def phonopy_run(cell):
    """Return a function that makes phonopy's force constants in our order, or None."""
    try:
        from chgnet.model import CHGNetCalculator
    except ImportError:
        return None
    calculator = CHGNetCalculator(use_device="cpu")
    ours = np.asarray(cell.structure.positions)
    lattice = np.asarray(cell.structure.cell)

    def run():
        phonon = Phonopy(
            phonopy_atoms(cell.primitive), np.asarray(cell.matrix).T, primitive_matrix="P"
        )
        phonon.generate_displacements(distance=0.01, is_plusminus=True)
        forces = []
        for moved in phonon.supercells_with_displacements:
            atoms = Atoms(moved.symbols, moved.positions, cell=moved.cell, pbc=True)
            atoms.calc = calculator
            forces.append(atoms.get_forces())
        phonon.forces = forces
        phonon.produce_force_constants(calculate_full_force_constants=False)
        apart = (ours[:, None] - phonon.supercell.positions) @ np.linalg.inv(lattice)
        order = np.linalg.norm((apart - np.rint(apart)) @ lattice, axis=-1).argmin(axis=1)
        return phonon.force_constants[:, order]

    return run


def timed(run):
    """Return (seconds, result)."""
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for what, figure in main():
        print(f"{what:70s} {figure}")
