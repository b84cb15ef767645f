"""How large must a supercell be? Exact D(q) beside supercells that grow, as Markdown.

    python benchmarks/supercell_sizes.py STRUCTURES --potential chgnet [--only FILE …]

For every structure, relaxed with the potential at width 0: the smallest near-cubic supercell whose
frequencies are within 0.01 THz, and the smallest whose MSD of Na at 300 K is within 1 %, of the
exact ones at 8 q that fit no supercell; and what one of 80 atoms (the default) is off by. No
supercell is built: its force constants are Fourier sums of exact D(q).
"""

import argparse
import pathlib
import time

import jax
import numpy as np

from phojax.compiled import let_go_of_compiled
from phojax.io.structures import read_structure
from phojax.potentials.catalogue import potential
from phojax.relax import relax
from phojax.screening.prepare import planned
from phojax.screening.settings import PhononSettings
from phojax.screening.supercell_check import supercell_check
from phojax.structure import supercell
from phojax.symmetry import near_cubic_matrix

jax.config.update("jax_enable_x64", True)

TEN = (
    "NaCl_mp-22862.cif", "NaBr_mp-22916.cif", "NaF_mp-682.cif", "Na2O_mp-2352.cif",
    "Na2S_mp-648.cif", "Na2Te_mp-2784.cif", "NaAs_mp-1009223.cif", "NaN3_mp-570538.cif",
    "Na3P_mp-1598.cif", "Na2O2_mp-2340.cif",
)  # fmt: skip
TARGETS = (16, 32, 64, 80, 128, 192, 256, 384, 512, 768, 1024)
BAND, MSD = 0.01, 0.01


def main() -> None:
    """Print a row per structure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("structures", type=pathlib.Path)
    parser.add_argument("--potential", default="chgnet")
    parser.add_argument("--only", nargs="+", default=list(TEN))
    parser.add_argument("--largest", type=int, default=TARGETS[-1], help="atoms")
    options = parser.parse_args()
    model = potential(options.potential)
    print("| structure | 80 atoms: THz, MSD | 0.01 THz | MSD to 1 % | largest tried | s |")
    print("|---|---|---|---|---|---|", flush=True)
    for file in options.only:
        let_go_of_compiled()
        begin = time.perf_counter()
        crystal = read_structure(options.structures / file)
        plan = planned(crystal, model, PhononSettings())
        primitive = relax(model, plan.primitive, symmetry=plan.group).structure
        found = {}
        for target in TARGETS:
            matrix = near_cubic_matrix(primitive, plan.group, target, 4 * target)
            atoms = len(primitive) * round(abs(np.linalg.det(np.asarray(matrix))))
            if atoms > options.largest or atoms in found:
                continue
            check = supercell_check(
                model, supercell(primitive, matrix), plan.group, mobile="Na", temperature=300.0
            )
            found[atoms] = (float(check.by_band_THz.max()), abs(check.msd_error))
        usual = min((n for n in found if n >= 80), default=max(found))
        sizes = sorted(found)

        def enough(which, limit, found=found, sizes=sizes):
            # from there on, not by chance at one size
            good = [n for n in sizes if all(found[m][which] < limit for m in sizes if m >= n)]
            return str(good[0]) if good else f"> {sizes[-1]}"

        print(
            f"| {file.removesuffix('.cif')} | {usual} atoms: {found[usual][0]:.3f}, "
            f"{found[usual][1]:.1%} | {enough(0, BAND)} | {enough(1, MSD)} | {sizes[-1]}: "
            f"{found[sizes[-1]][0]:.4f} THz, {found[sizes[-1]][1]:.2%} | "
            f"{time.perf_counter() - begin:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
