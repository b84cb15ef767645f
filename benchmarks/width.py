"""Which width should CHGNet's Hessian be averaged over? Evidence against DFT heat capacities.

    python benchmarks/width.py STRUCTURES REFERENCE.csv [--pairs 6] [--widths 0 0.01 …]

STRUCTURES is a folder of CIF files, the table names them (`file`) with a heat capacity at 300 K
in J/K per mole of the cell (`heat_capacity_300K_J_per_K_per_mol_cell`). For every structure and
width: the heat capacity, its error relative to the departure from 3 N k_B, the lowest frequency,
the MSD of Na, and its statistical error.
"""

import argparse
import pathlib

import jax
import numpy as np
import pandas as pd

from phojax.brillouin import gamma_mesh, mesh_divisions
from phojax.force_constants.hessian import hessian
from phojax.io.structures import read_structure
from phojax.potentials.catalogue import potential
from phojax.relax import relax
from phojax.screening.analysis import lowest_frequency, tensors_on
from phojax.screening.prepare import planned
from phojax.screening.settings import PhononSettings
from phojax.structure import supercell
from phojax.units import HBAR, KB

jax.config.update("jax_enable_x64", True)

GAS = 8.31446261815324  # J/K/mol
COLUMN = "heat_capacity_300K_J_per_K_per_mol_cell"


def heat_capacity(found, temperature=300.0):
    """J/K per mole of the primitive cell; imaginary modes count as classical ones."""
    rigid = np.asarray(found.translations)
    x = HBAR * np.sqrt(np.maximum(np.asarray(found.eigenvalues), 1e-12)) / (KB * temperature)
    each = np.where(rigid | (x < 1e-3), 1.0, (x / 2 / np.sinh(np.maximum(x, 1e-3) / 2)) ** 2)
    return GAS * np.asarray(found.weights) @ each.sum(axis=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("structures", type=pathlib.Path)
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--widths", type=float, nargs="+", default=[0, 0.01, 0.02, 0.03, 0.05, 0.1])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--supercell-atoms", type=int, default=60)
    options = parser.parse_args()
    table = pd.read_csv(options.reference)
    table = table[table[COLUMN].notna()]
    if options.only:
        table = table[table["file"].isin(options.only)]
    model = potential("chgnet")
    print(
        "structure            width/Å  C/(J/K/mol)  error/%  ν_min/THz  U_Na/Å²  stat./%",
        flush=True,
    )
    for _, row in table.iterrows():
        crystal = read_structure(options.structures / row["file"])
        settings = PhononSettings(supercell_atoms=options.supercell_atoms, temperatures=(300.0,))
        plan = planned(crystal, model, settings)
        relaxed = relax(model, plan.primitive, symmetry=plan.group)
        cell = supercell(relaxed.structure, plan.cell.matrix)
        mesh = gamma_mesh(mesh_divisions(relaxed.structure), plan.group)
        mobile = np.array([s == "Na" for s in relaxed.structure.symbols])
        wanted = row[COLUMN] * len(plan.primitive) / len(crystal)
        classical = 3 * len(plan.primitive) * GAS
        for width in options.widths:
            found = hessian(
                model, cell, plan.group, width=width, pairs=options.pairs, key=jax.random.key(0)
            )

            def numbers(constants, mesh=mesh, group=plan.group, mobile=mobile, settings=settings):
                [(U, modes)] = tensors_on([constants], mesh, settings, group)
                total = np.trace(U[0], axis1=1, axis2=2)[mobile].mean()
                low = lowest_frequency(modes, modes.translations)[0]
                return np.array([heat_capacity(modes), low, total])

            C, low, U = numbers(found.force_constants)
            parts = np.array([numbers(c)[2] for c in found.leave_one_out()])
            noise = np.sqrt((len(parts) - 1) * parts.var()) / U if len(parts) else np.nan
            error = (C - wanted) / (classical - wanted)
            print(
                f"{row['file'][:20]:20s} {width:7.3f} {C:12.3f} {100 * error:8.1f} {low:10.2f} "
                f"{U:8.4f} {100 * noise:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
