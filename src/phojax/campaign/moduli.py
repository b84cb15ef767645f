"""Elastic moduli of crystals: of one, for `phojax elastic`, and as a stage of a screen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax

from phojax.campaign.phonons import relaxed_member
from phojax.campaign.settings import KeyMaker, ScreenSettings
from phojax.campaign.stages import Tell, compute_stage
from phojax.campaign.store import Store
from phojax.elastic import elastic_tensor, elastic_tensor_from_strain
from phojax.elastic.record import elastic_record
from phojax.potentials.contract import Potential
from phojax.screening.prepare import Plan, relaxed
from phojax.screening.row import versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import Checkpoint
from phojax.screening.trust import relaxation_flags, relaxation_record
from phojax.structure import Structure

STRAIN = 0.01
"""Finite strain for potentials that are rough, or have no second derivatives."""

# Moduli ask for a crystal at rest more than phonons do.
_FORCE, _STRESS = 1e-4, 2e-5


def at_rest(settings: PhononSettings) -> PhononSettings:
    """Return settings whose relaxation ends where moduli need it to."""
    return replace(
        settings,
        force_tolerance=min(settings.force_tolerance, _FORCE),
        stress_tolerance=min(settings.stress_tolerance, _STRESS),
        width=None,
    )


def route(model: Potential, strain: float | None, width: float) -> float | None:
    """Return the finite strain that is to be used, or None for derivatives.

    Args:
        model: The potential.
        strain: What the user asks for, if anything.
        width: Of the average over derivatives, Å.
    """
    if strain is not None:
        return strain
    rough = model.smoothing_width > 0 and not width
    return STRAIN if rough or model.derivatives == 1 else None


def moduli(
    plan: Plan,
    model: Potential,
    settings: PhononSettings,
    strain: float | None,
    width: float,
    tell: Tell = lambda what, done, of: None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Structure, dict[str, Any]]:
    """Return the crystal at rest, and the record of its elasticity.

    Args:
        plan: Its primitive cell, where the relaxation begins.
        model: In float64.
        settings: As `at_rest` returns them.
        strain: As `route` returns it.
        width: Of the average over derivatives, Å.
        tell: Where progress is told.
        checkpoint: Where the relaxation is kept.
    """
    primitive, relaxation = plan.primitive, None
    if settings.relax:
        relaxation = relaxed(plan, model, settings, tell, checkpoint or Checkpoint(None))
        primitive = relaxation.structure
    flags, notes = relaxation_flags(relaxation, settings)
    shared: dict[str, Any] = {
        "width": width,
        "cells": replace(plan.cell, primitive=primitive),
        "key": jax.random.key(settings.seed),
        "on_part": lambda done, of: tell("elastic tensor", done, of),
    }
    found = (
        elastic_tensor(model, primitive, plan.group, **shared)
        if strain is None
        else elastic_tensor_from_strain(model, primitive, plan.group, step=strain, **shared)
    )
    return primitive, {
        "relaxation": relaxation_record(relaxation),
        **elastic_record(found, flags, notes),
        "flags": flags,
        "notes": notes,
    }


def compute_moduli(
    store: Store,
    names: Sequence[str],
    settings: ScreenSettings,
    model: Potential,
    tell: Tell = lambda what, done, of: None,
) -> int:
    """Add the moduli of crystals whose phonons are done; what fails is in their record.

    Returns how many were not done before.

    Args:
        store: Where their phonons are recorded.
        names: Of the crystals.
        settings: Of the screen.
        model: In float64.
        tell: Where progress is told.
    """
    maker = KeyMaker(model, settings)
    strain = route(model, None, 0.0)

    def computed(name: str, key: str):
        plan, relaxation, _ = relaxed_member(store, name, settings, model, maker)
        if relaxation is not None:
            plan = replace(plan, primitive=relaxation.structure)
        keep = Checkpoint(store.place(name) / "moduli", key)
        _, found = moduli(plan, model, at_rest(settings.phonons), strain, 0.0, checkpoint=keep)
        return {**found, "versions": versions()}, keep

    return compute_stage(
        "moduli", "moduli", store, names, maker, lambda keys: keys.moduli, computed, tell
    )


__all__ = ["STRAIN", "at_rest", "compute_moduli", "moduli", "route"]
