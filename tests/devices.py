"""Relaxations, dynamics and mesh sums of several crystals; run by test_devices.py."""

import sys

import jax
import numpy as np
from ase.build import bulk

from phojax.convert import structure_from_ase
from phojax.md.protocol import Protocol
from phojax.md.run import run
from phojax.md.systems import systems
from phojax.potentials.catalogue import potential
from phojax.relax import relaxing
from phojax.relax_together import driven_together
from phojax.rooms import evaluated_together, in_room, room_of, shared_rooms
from phojax.screening.batch import CrystalInput, analysed_batch
from phojax.screening.prepare import prepared
from phojax.screening.settings import PhononSettings
from phojax.structure import supercell

jax.config.update("jax_enable_x64", True)
MODEL = potential("lj:Ar")


def crystals():
    return [structure_from_ase(bulk("Ar", "fcc", a=a)) for a in (5.1, 5.3, 5.5, 5.2)]


def main(path: str) -> None:
    given = crystals()
    rooms = shared_rooms([room_of(MODEL, c) for c in given])
    tight = {"force_tolerance": 1e-9, "stress_tolerance": 1e-11}
    ends = driven_together([relaxing(c, **tight) for c in given], rooms, MODEL, slots=2)
    room = rooms[0]
    values, _ = evaluated_together(MODEL, in_room(given, room.atoms), room.capacity)
    relaxed = [end.structure for end in ends]
    protocol = Protocol(equilibration_steps=8, steps=40, frame_every=2, vacf_window_ps=0.02)
    moving = systems(
        [supercell(c, (2, 2, 2)).structure for c in relaxed[:2]], [30.0, 60.0], "Ar", seed=1
    )
    moved = run(MODEL, moving, protocol)
    inputs = []
    for c in relaxed:
        made = prepared(c, MODEL, PhononSettings(mobile="Ar", relax=False, supercell_atoms=8))
        inputs.append(CrystalInput(made.main.force_constants, made.group))
    settings = PhononSettings(mobile="Ar", mesh=(4, 4, 4), temperatures=(30.0,))
    found, _ = analysed_batch(inputs, settings)
    np.savez(
        path,
        devices=jax.local_device_count(),
        on=len(values[0].sharding.device_set),
        energies=[end.energy_eV for end in ends],
        volumes=[float(c.volume) for c in relaxed],
        positions=np.asarray(moved.state.positions),
        sums=np.asarray(moved.sums.vacf),
        displacements=[np.asarray(a.tensors) for a in found],
        curves=[np.asarray(jax.tree.leaves(a.sums)[0]) for a in found],
    )


if __name__ == "__main__":
    main(sys.argv[1])
