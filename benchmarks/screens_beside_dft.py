"""Finished screens beside DFT: heat capacities, moduli, stability, as Markdown.

    python benchmarks/screens_beside_dft.py REFERENCE.csv LABEL=SCREEN …

SCREEN is the folder of `phojax screen`; the reference names files (`file`) with their atoms
(`n_atoms`), heat capacities at 300 K (J/K per mole of that cell) and moduli in GPa. The error of a
heat capacity is relative to its departure from the classical 3 N k_B, which is what the phonons
decide: (C - C_DFT) / (C_DFT - 3 N k_B).
"""

import argparse
import pathlib

import numpy as np
import pandas as pd
from scipy import constants

from phojax.campaign.table import read_table

CAPACITY = "heat_capacity_300K_J_per_K_per_mol_cell"
PER_MOLE = constants.e * constants.N_A  # J/mol of one eV


def beside(reference: pd.DataFrame, screen: pd.DataFrame) -> pd.DataFrame:
    """Return what a screen says of the structures of a reference, errors in %."""
    table = reference.assign(id=reference["file"].str.removesuffix(".cif"))
    table = table.merge(screen, on="id", how="left")
    share = table["atoms"].astype(float) / table["n_atoms"]
    wanted = table[CAPACITY] * share
    classical = 3 * constants.R * table["atoms"].astype(float)
    found = table["heat_capacity_300K_eV_K_per_cell"] * PER_MOLE
    out = table[["id", "formula_x", "status", "stable"]].rename(columns={"formula_x": "formula"})
    # What is unstable has modes without a heat capacity of their own.
    out["C"] = (100 * (found - wanted) / (wanted - classical)).where(table["stable"] == True)  # noqa: E712
    for name in ("bulk", "shear"):
        column = f"{name}_GPa"
        if column in table:
            wanted = table[f"{name}_modulus_vrh_GPa"]
            out[name] = 100 * (table[column] / wanted - 1)
    return out


def main() -> None:
    """Print a table of all structures, and one of the screens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("screens", nargs="+", metavar="LABEL=SCREEN")
    options = parser.parse_args()
    # "NaN" is a compound here.
    reference = pd.read_csv(options.reference, keep_default_na=False, na_values=[""])
    found = {}
    for item in options.screens:
        label, _, folder = item.partition("=")
        found[label] = beside(reference, read_table(pathlib.Path(folder) / "table.parquet"))
    names = next(iter(found.values()))[["id", "formula"]]
    print("| structure | " + " | ".join(f"{k}: C(300 K), % | stable" for k in found) + " |")
    print("|---" * (1 + 2 * len(found)) + "|")
    for n, row in names.iterrows():
        cells = []
        for table in found.values():
            one = table.loc[n]
            error = "" if np.isnan(one["C"]) else f"{one['C']:+.1f}"
            stable = {True: "yes", False: "no"}.get(one["stable"], str(one["status"]))
            cells += [error, stable]
        print(f"| {row['formula']} ({row['id'].rpartition('_')[2]}) | {' | '.join(cells)} |")
    print()
    for label, table in found.items():
        C = table["C"].dropna()
        done = (table["status"] == "done").sum()
        print(
            f"{label}: {done} of {len(table)} computed, {(table['stable'] == True).sum()} stable; "  # noqa: E712
            f"heat capacities of {len(C)}: mean error {C.mean():+.1f} %, mean of absolute errors "
            f"{C.abs().mean():.1f} %, median {C.abs().median():.1f} %"
        )


if __name__ == "__main__":
    main()
