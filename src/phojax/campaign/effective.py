"""Effective phonons at the temperatures of a screen, of crystals whose harmonic ones are done."""

from collections.abc import Sequence

from phojax.campaign.phonons import relaxed_member
from phojax.campaign.row_files import write_row_files
from phojax.campaign.settings import KeyMaker, ScreenSettings
from phojax.campaign.stages import Tell, compute_stage
from phojax.campaign.store import Store
from phojax.potentials.contract import Potential
from phojax.screening.effective import effective_rows, effective_summary, sampling_potential
from phojax.screening.prepare import with_force_constants
from phojax.screening.row import versions
from phojax.screening.store import Checkpoint


def compute_effective(
    store: Store,
    names: Sequence[str],
    settings: ScreenSettings,
    model: Potential,
    tell: Tell = lambda what, done, of: None,
) -> int:
    """Add effective phonons to crystals whose phonons are done; what fails is in their record.

    Harmonic force constants that are stored are where they start. Returns how many were not done
    before.

    Args:
        store: Where their phonons are recorded.
        names: Of the crystals, unstable ones as well.
        settings: Of the screen; its `effective` is not None.
        model: In float64.
        tell: Where progress is told.
    """
    maker, how, asked = KeyMaker(model, settings), settings.effective, settings.phonons
    assert how is not None
    sampled, precision = sampling_potential(model)

    def computed(name: str, key: str):
        plan, relaxation, keys = relaxed_member(store, name, settings, model, maker)
        made = with_force_constants(
            plan, relaxation, model, asked,
            checkpoint=store.checkpoint(name, keys.force_constants),
        )  # fmt: skip
        keep = Checkpoint(store.place(name) / "stages" / "effective", key)
        rows = effective_rows(name, made, sampled, asked, how, asked.temperatures, checkpoint=keep)
        for one in rows:
            write_row_files(store.place(name) / f"effective-{one.temperature:g}K", one.row)
        found = {f"{one.temperature:g}": effective_summary(one) for one in rows}
        return {"temperatures": found, "precision": precision, "versions": versions()}, keep

    return compute_stage(
        "effective", "effective phonons", store, names, maker, lambda keys: keys.effective,
        computed, tell,
    )  # fmt: skip


__all__ = ["compute_effective"]
