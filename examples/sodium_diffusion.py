"""Does sodium move through tetragonal Na3PS4 at 800 K, and how sure can one be?

A run of some dozens of ps sees few jumps, or none. A straight line through the origin returns a
number either way; where nothing diffuses it is about 1.5 <u²>/t_max, the vibration. A line with an
intercept returns a number with an interval, or a limit that diffusion stays below. Both stand
side by side here, for 128 atoms with CHGNet.

    python examples/sodium_diffusion.py [steps] [folder]

30 000 steps take about half an hour on two cores. The run is written to the folder as it goes
(default: sodium_diffusion), and the same command goes on where it was stopped.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp

import phojax as px
from phojax.md.checkpoint import RunCheckpoints
from phojax.md.observed import observed_of_sums
from phojax.md.protocol import Protocol
from phojax.md.run import run
from phojax.md.systems import systems
from phojax.md.transport import transport

jax.config.update("jax_enable_x64", True)

HERE = pathlib.Path(__file__).parent
TEMPERATURE, SODIUM = 800.0, 11


def main(steps: int = 30_000, folder: str | None = "sodium_diffusion", repeat=(2, 2, 2)):
    potential = px.potential("chgnet").astype(jnp.float32)
    cell = px.read_structure(HERE / "structures" / "Na3PS4.cif")
    crystal = px.supercell(cell, repeat).structure
    moving = systems([crystal], [TEMPERATURE], "Na")
    protocol = Protocol(equilibration_steps=steps // 6, steps=steps, stop_melted=False)
    kept = RunCheckpoints(pathlib.Path(folder) if folder else None, f"{protocol} {repeat}")

    def told(stage: str, done: int, of: int, remark: str) -> None:
        print(f"\r{stage} {done}/{of} {remark}   ", end="", file=sys.stderr, flush=True)

    found = run(potential, moving, protocol, checkpoints=kept, report=told)
    seen = observed_of_sums(
        found.sums, moving, [0], [found.series.first_msd[:, 0]], SODIUM, protocol.interval_ps
    )
    return transport(seen)


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    result = main(steps, *sys.argv[2:3])
    D, paper = result.total, result.paper
    if D is None or paper is None:
        raise SystemExit("\n" + "; ".join(result.notes))
    print(f"\nthrough the origin    {paper.average:.3g} Å²/ps, of which vibration alone could "
          f"make {min(paper.at_rest.mean(), paper.average):.3g}")  # fmt: skip
    print(
        f"with an intercept     {D.D:.3g} Å²/ps, 95 %: {D.interval[0]:.3g} to {D.interval[1]:.3g}"
    )
    print(f"jumps per ion         {D.events:.2g}")
    print("it diffuses" if not D.below_detection else "no diffusion seen; the limit is "
          f"{D.interval[1]:.3g} Å²/ps", *result.flags)  # fmt: skip
