"""Molecular dynamics: phojax beside its peers, in turns in one run.

    python benchmarks/dynamics.py [chgnet] [lennard-jones] [scaling] [batches]

- CHGNet, Na3PS4 of 192 atoms at 800 K, 1.5 fs, Langevin: beside ASE with the calculator of the
  chgnet package (torch), all cores, both float32.
- Lennard-Jones, 2 048 atoms: beside jax-md's own Langevin loop with its neighbour list and skin,
  in one `lax.fori_loop` per turn, both float64.
- Time per step of phojax against the number of atoms, 100 to 2 000.
- On a GPU: atom steps per second against the number of systems side by side, to saturation, and
  how long 50 000 steps of about 200 atoms take.

The best of several turns counts, because anything else on the machine only adds time.
"""

import os
import pathlib
import sys
import time
import warnings

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from ase.build import bulk  # noqa: E402

from phojax.io.structures import read_structure  # noqa: E402
from phojax.md.integrator import advanced, started  # noqa: E402
from phojax.md.protocol import Protocol  # noqa: E402
from phojax.md.systems import systems  # noqa: E402
from phojax.potentials.catalogue import potential  # noqa: E402
from phojax.structure import structure, supercell  # noqa: E402
from phojax.units import KB  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
SKIN = 1.0  # Å, of Lennard-Jones, of both programs


def ours(model, crystal, temperature, mobile, *, frames=10, timestep=1.5, skin=0.0, batch=1):
    """Return a function that goes on by 4·frames steps, and how many these are."""
    protocol = Protocol(timestep_fs=timestep, skin=skin)
    given = systems([crystal] * batch, [temperature] * batch, mobile, replicas=range(batch))
    model = model.with_skin(skin) if skin else model
    capacity = model.capacity(crystal)
    state, _ = started(model, given, capacity)

    def turn():
        nonlocal state
        state, done, overflow = advanced(
            model, given, state, jnp.int32(frames), protocol.timestep, protocol.friction,
            capacity=capacity, longest=50, every=4, thermostat=True, skin=skin,
        )  # fmt: skip
        assert not overflow.any()
        assert int(done.count) == frames
        jax.block_until_ready(state)

    return turn, 4 * frames


def ase_and_torch(crystal, temperature, *, steps=6):
    """Return the same of ASE with the calculator of the chgnet package; None without it."""
    try:
        import torch
        from chgnet.model.dynamics import CHGNetCalculator
        from chgnet.model.model import CHGNet
    except ImportError:
        return None
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    from phojax.convert import ase_atoms

    torch.set_num_threads(os.cpu_count() or 1)
    atoms = ase_atoms(crystal)
    model = CHGNet.load(use_device="cpu", verbose=False)
    atoms.calc = CHGNetCalculator(model, use_device="cpu")
    rng = np.random.default_rng(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    moving = Langevin(
        atoms, 1.5 * units.fs, temperature_K=temperature, friction=1e-3 / units.fs, rng=rng
    )
    return (lambda: moving.run(steps)), steps


def jax_md_loop(crystal, temperature, *, steps=40, timestep=2.0):
    """Return jax-md's own Langevin loop with its own Lennard-Jones potential."""
    from jax_md import energy, simulate, space

    from phojax.units import TIME_FS

    side = float(crystal.cell[0, 0])
    displacement, shift = space.periodic(side)
    sigma, epsilon = 3.40, 0.0104
    neighbor_fn, energy_fn = energy.lennard_jones_neighbor_list(
        displacement, side, sigma=sigma, epsilon=epsilon, r_onset=2.0, r_cutoff=2.5,
        dr_threshold=SKIN, format=_format(),
    )  # fmt: skip
    init, step = simulate.nvt_langevin(
        energy_fn, shift, timestep / TIME_FS, KB * temperature, gamma=1e-3 * TIME_FS
    )
    x = crystal.positions
    neighbors = neighbor_fn.allocate(x, extra_capacity=20)
    state = init(jax.random.key(0), x, mass=crystal.masses, neighbor=neighbors)

    @jax.jit
    def run(state, neighbors):
        def one(_, carry):
            state, neighbors = carry
            neighbors = neighbors.update(state.position)
            return step(state, neighbor=neighbors), neighbors

        return jax.lax.fori_loop(0, steps, one, (state, neighbors))

    def turn():
        nonlocal state, neighbors
        state, neighbors = jax.block_until_ready(run(state, neighbors))
        assert not neighbors.did_buffer_overflow

    return turn, steps


def _format():
    from jax_md import partition

    return partition.OrderedSparse


def argon(cells: int):
    """Return fcc argon of 4·cells³ atoms, moved by about 0.1 Å."""
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * ((cells,) * 3)
    atoms.rattle(0.1, seed=1)
    return structure(atoms.cell[:], atoms.positions, atoms.numbers)


def interleaved(turns, repeats: int) -> list[tuple[float, float]]:
    """Return the best wall and CPU time per step in ms of each (turn, steps), one by one."""
    best = [(np.inf, np.inf)] * len(turns)
    for turn, _ in turns:
        turn()
    for _ in range(repeats):
        for k, (turn, steps) in enumerate(turns):
            wall, cpu = time.perf_counter(), time.process_time()
            turn()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[k] = tuple(min(a, 1e3 * b / steps) for a, b in zip(best[k], spent, strict=True))
    return best


def chgnet_figures() -> list[tuple[str, str]]:
    """Return the figures of CHGNet."""
    cell = read_structure(ROOT / "examples" / "structures" / "Na3PS4.cif")
    crystal = supercell(cell, (2, 2, 3)).structure
    turns = [ours(potential("chgnet").astype(jnp.float32), crystal, 800.0, "Na")]
    peer = ase_and_torch(crystal, 800.0)
    name = f"CHGNet, Na3PS4, {len(crystal)} atoms, ms per step, wall (CPU)"
    if peer is None:
        ((wall, cpu),) = interleaved(turns, 4)
        return [(name, f"phojax {wall:.0f} ({cpu:.0f}), ASE + torch not measured")]
    (wall, cpu), (wall2, cpu2) = interleaved([*turns, peer], 6)
    return [(name, f"phojax {wall:.1f} ({cpu:.1f}), ASE + torch {wall2:.0f} ({cpu2:.0f}), "
                   f"ratio {wall2 / wall:.1f} ({cpu2 / cpu:.1f})")]  # fmt: skip


def lennard_jones_figures() -> list[tuple[str, str]]:
    """Return the figures of Lennard-Jones."""
    crystal = argon(8)
    turns = [
        ours(potential("lj:Ar"), crystal, 60.0, "Ar", timestep=2.0, skin=SKIN),
        jax_md_loop(crystal, 60.0),
    ]
    (wall, cpu), (wall2, cpu2) = interleaved(turns, 6)
    return [(f"Lennard-Jones, {len(crystal)} atoms, ms per step, wall (CPU)",
             f"phojax {wall:.2f} ({cpu:.2f}), jax-md {wall2:.2f} ({cpu2:.2f}), "
             f"ratio {wall2 / wall:.2f} ({cpu2 / cpu:.2f})")]  # fmt: skip


def scaling_figures() -> list[tuple[str, str]]:
    """Return the time per step against the number of atoms."""
    rows = []
    for cells in (3, 4, 5, 6, 7, 8):
        crystal = argon(cells)
        turn = ours(potential("lj:Ar"), crystal, 60.0, "Ar", timestep=2.0, skin=SKIN)
        ((wall, cpu),) = interleaved([turn], 4)
        rows.append((f"Lennard-Jones, {len(crystal)} atoms",
                     f"{1e3 * wall / len(crystal):.2f} ({1e3 * cpu / len(crystal):.2f}) µs per "
                     "step and atom, wall (CPU)"))  # fmt: skip
    return rows


def batch_figures(names=("chgnet", "nequix"), repeat=(2, 2, 3)) -> list[tuple[str, str]]:
    """Return atom steps per second of batches, each twice the last, until they gain little."""
    if jax.default_backend() == "cpu":
        return [("dynamics of batches on a GPU", "not measured (no GPU)")]
    cell = read_structure(ROOT / "examples" / "structures" / "Na3PS4.cif")
    crystal = supercell(cell, repeat).structure
    rows = []
    for name in names:
        rates: list[float] = []
        for batch in (1, 2, 4, 8, 16, 32, 64):
            what = f"{name}, Na3PS4, {len(crystal)} atoms, {batch} side by side"
            try:
                model = potential(name).astype(jnp.float32)
                turn = ours(model, crystal, 800.0, "Na", batch=batch, frames=25)
                ((wall, _),) = interleaved([turn], 3)
            except Exception as error:  # mostly out of memory; what was measured stays
                rows.append((what, f"not measured ({type(error).__name__}: {str(error)[:80]})"))
                break
            rates.append(batch * len(crystal) / wall * 1e3)
            rows.append((what, f"{rates[-1]:.3g} atom steps/s; 50 000 steps of each: "
                               f"{wall * 50 / 60:.3g} min"))  # fmt: skip
            if len(rates) > 1 and rates[-1] < 1.1 * rates[-2]:
                break
    return rows


PARTS = {
    "chgnet": chgnet_figures,
    "lennard-jones": lennard_jones_figures,
    "scaling": scaling_figures,
    "batches": batch_figures,
}


def main(parts: list[str] | None = None) -> list[tuple[str, str]]:
    """Return pairs of a name and a figure."""
    warnings.simplefilter("ignore")
    return [row for part in parts or PARTS for row in PARTS[part]()]


if __name__ == "__main__":
    for title, figure in main(sys.argv[1:]):
        print(f"{title}: {figure}", flush=True)
