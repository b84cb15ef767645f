"""Structures per hour: `phojax screen` beside the loop of ASE, CHGNetCalculator and phonopy.

    python benchmarks/screen.py STRUCTURES [--only FILE …] [--width Å] [--side phojax|peer]

Both sides start as processes of their own (imports and compilations count), relax positions and
cell within symmetry to the same tolerances, take the same supercells and meshes, and give
frequencies, thermal displacement tensors, densities of states projected on the atoms, thermal
functions and bands. The peer has no participation, coupling, moments, tetrahedra or table.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

TWELVE = (
    "NaCl_mp-22862.cif", "NaBr_mp-22916.cif", "NaF_mp-682.cif", "Na2O_mp-2352.cif",
    "Na2Te_mp-2784.cif", "Na2S_mp-648.cif", "Na3N_mp-2639.cif", "Na3P_mp-1598.cif",
    "Na2O2_mp-2340.cif", "NaS_mp-409.cif", "NaP_mp-7440.cif", "NaGdF4_wbm-1-15361.cif",
)  # fmt: skip


def peer(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Do what people write today, one structure after the other."""
    import ase.io
    import numpy as np
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS
    from chgnet.model.dynamics import CHGNetCalculator
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    from phojax.brillouin import mesh_divisions  # the same supercells and meshes
    from phojax.convert import structure_from_ase
    from phojax.screening.prepare import supercell_of
    from phojax.screening.settings import PhononSettings

    settings, found = PhononSettings(), []
    calculator = CHGNetCalculator(use_device="cpu")
    for path in sorted(folder.glob("*.cif")):
        begin = time.perf_counter()
        cell, _ = supercell_of(structure_from_ase(ase.io.read(path)), settings)
        primitive = cell.primitive
        atoms = ase.Atoms(
            primitive.symbols, np.asarray(primitive.positions), cell=np.asarray(primitive.cell),
            pbc=True, calculator=calculator,
        )  # fmt: skip
        atoms.set_constraint(FixSymmetry(atoms))
        optimizer = BFGS(FrechetCellFilter(atoms), logfile=None)
        optimizer.run(fmax=settings.force_tolerance, steps=settings.relax_steps)
        phonon = Phonopy(
            PhonopyAtoms(symbols=list(atoms.symbols), cell=atoms.cell[:],
                         scaled_positions=atoms.get_scaled_positions()),
            np.array(cell.matrix).T, log_level=0,
        )  # fmt: skip
        phonon.generate_displacements(distance=0.01)
        sets = []
        for moved in phonon.supercells_with_displacements:
            moving = ase.Atoms(moved.symbols, moved.positions, cell=moved.cell, pbc=True)
            moving.calc = calculator
            forces = moving.get_forces()
            sets.append(forces - forces.mean(axis=0))
        phonon.forces = sets
        phonon.produce_force_constants()
        phonon.symmetrize_force_constants()
        mesh = mesh_divisions(structure_from_ase(atoms))
        phonon.run_mesh(mesh, with_eigenvectors=True, is_mesh_symmetry=False)
        phonon.run_thermal_displacement_matrices(temperatures=list(settings.temperatures))
        phonon.run_projected_dos(sigma=settings.smearing_THz)
        phonon.run_total_dos(sigma=settings.smearing_THz)
        phonon.run_mesh(mesh)
        phonon.run_thermal_properties(temperatures=list(settings.temperatures))
        phonon.auto_band_structure(with_eigenvectors=True, npoints=51)
        highest = float(phonon.get_mesh_dict()["frequencies"].max())
        found.append({"name": path.stem, "s": time.perf_counter() - begin, "highest_THz": highest})
        print(f"{path.stem:28s} {found[-1]['s']:7.1f} s {highest:8.3f} THz", flush=True)
    out.write_text(json.dumps(found))


def timed(command: list[str], fine: tuple[int, ...] = (0,)) -> float:
    """Run a command; return its seconds."""
    begin = time.perf_counter()
    if subprocess.run(command, check=False).returncode not in fine:
        raise SystemExit(f"{command[0]} failed")
    return time.perf_counter() - begin


def main() -> None:
    """Measure both sides, or one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("structures", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", default=list(TWELVE))
    parser.add_argument("--width", default="0", help="of phojax's average, Å (the peer has none)")
    parser.add_argument("--side", choices=("phojax", "peer"))
    parser.add_argument("--inside", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        peer(options.structures, options.inside)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "structures"
        folder.mkdir()
        for file in options.only:
            shutil.copy(options.structures / file, folder)
        count, spent = len(options.only), {}
        if options.side != "peer":
            spent["phojax"] = timed(
                [sys.executable, "-m", "phojax", "screen", str(folder), "--potential", "chgnet",
                 "--width", options.width, "--keep-duplicates", "--out", f"{name}/out"],
                fine=(0, 1),  # 1: a structure failed, which the table says
            )  # fmt: skip
        if options.side != "phojax":
            spent["peer"] = timed(
                [sys.executable, __file__, str(folder), "--inside", f"{name}/peer.json"]
            )
        for side, s in spent.items():
            print(f"{side}: {count} structures in {s:.0f} s, {3600 * count / s:.0f} per hour")
        if len(spent) == 2:
            print(f"phojax is {spent['peer'] / spent['phojax']:.2f} times as fast")


if __name__ == "__main__":
    main()
