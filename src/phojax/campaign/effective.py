"""Effective phonons at the temperatures of a screen, of crystals whose harmonic ones are done."""

from collections.abc import Sequence

from phojax.campaign.phonons import Tell, relaxed_member
from phojax.campaign.row_files import write_row_files
from phojax.campaign.settings import KeyMaker, ScreenSettings
from phojax.campaign.store import Store
from phojax.compiled import let_go_of_compiled
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
    maker, how = KeyMaker(model, settings), settings.effective
    assert how is not None
    sampled, precision = sampling_potential(model)
    asked, computed = settings.phonons, 0
    for number, name in enumerate(names):
        tell("effective phonons", number, len(names))
        candidate = store.given(name)
        assert candidate.structure is not None
        key = maker.keys(candidate.structure).effective
        if store.is_done(name, "effective", key):
            continue
        computed += 1
        try:
            plan, relaxation, keys = relaxed_member(store, name, settings, model, maker)
            made = with_force_constants(
                plan, relaxation, model, asked,
                checkpoint=store.checkpoint(name, keys.force_constants),
            )  # fmt: skip
            keep = Checkpoint(store.place(name) / "stages" / "effective", key)
            rows = effective_rows(
                name, made, sampled, asked, how, asked.temperatures, checkpoint=keep
            )
            for one in rows:
                place = store.place(name) / f"effective-{one.temperature:g}K"
                write_row_files(place, one.row)
            found = {f"{one.temperature:g}": effective_summary(one) for one in rows}
            stage = {"temperatures": found, "precision": precision, "versions": versions()}
            store.done(name, "effective", key, stage)
            keep.clear()
        except Exception as error:  # one bad crystal never stops the others
            store.failed(name, "effective", key, error)
        let_go_of_compiled()
    tell("effective phonons", len(names), len(names))
    return computed


__all__ = ["compute_effective"]
