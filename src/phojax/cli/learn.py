"""`phojax learn`: the table of a screen to correlations and a surrogate for diffusion."""

import argparse
import pathlib
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from phojax.checks import InputError, fail
from phojax.cli.progress import Progress, seconds
from phojax.cli.recorded import check_out
from phojax.cli.table import text_of
from phojax.io.atomic import replacing
from phojax.io.records import read_record, write_record
from phojax.screening.row import versions
from phojax.screening.store import Checkpoint, key_of

_SHOWN = 12  # descriptors on the screen
_DRAWN = 25  # and in the figure


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "learn",
        help="correlations and a surrogate for diffusion, from the table of a screen",
        description="The table of a screen (Parquet or CSV) to the correlation of every "
        "descriptor with D, with intervals and the control of fits through the origin, and to a "
        "surrogate that predicts log10 D with an uncertainty, validated by chemical systems beside "
        "plain models. With fewer than 30 detected D there is no surrogate.",
    )
    add = parser.add_argument
    add("table", type=pathlib.Path, metavar="TABLE", help="one row per structure")
    add("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder of the results")
    add("--descriptors", nargs="+", metavar="COLUMN", help="descriptors (default: every column of "
        "floats that is no result of transport)")  # fmt: skip
    add("--with-md", action="store_true",
        help="let the surrogate use descriptors from the dynamics that D comes from")  # fmt: skip
    add("--keep-flagged", action="store_true",
        help="rows whose flags say that D is not diffusion in a crystal at rest, too")  # fmt: skip
    add("--folds", type=int, default=5, metavar="N",
        help="parts of the cross-validation (default: 5)")  # fmt: skip
    add("--members", type=int, default=8, metavar="N",
        help="networks of the ensemble (default: 8)")  # fmt: skip
    add("--resamples", type=int, default=2000, metavar="N",
        help="of the bootstrap (default: 2000)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of all random numbers (default: 0)")
    add("--no-figures", action="store_true", help="no figures")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    # Not at the top: flax and scikit-learn would slow down every other command.
    from phojax.learn import LearnSettings, correlations, learning_table
    from phojax.learn.table import SPOILING_FLAGS

    for name, least in (("folds", 2), ("members", 2), ("resamples", 100), ("seed", 0)):
        if getattr(options, name) < least:
            raise fail(f"--{name} {getattr(options, name)}", f"at least {least}")
    frame = read_table(options.table)
    table = learning_table(
        frame, columns=options.descriptors, spoiling=() if options.keep_flagged else SPOILING_FLAGS
    )
    check_out(options.out)
    settings = LearnSettings(members=options.members, folds=options.folds, seed=options.seed)
    key = _key(options, settings)
    progress = Progress(options.table.name)
    begin = time.monotonic()
    record = _done(options, key)
    if record is None:
        record = _heading(table, options, key)
        coefficients = correlations(
            table, resamples=options.resamples, seed=options.seed, progress=progress
        )
        with replacing(options.out / "correlation.csv") as temporary:
            coefficients.to_csv(temporary, index=False)
        record |= _surrogate(table, options, settings, key, progress)
        if not options.no_figures:
            _correlation_figures(coefficients, record, options.out)
        record["wall_time_s"] = time.monotonic() - begin
        write_record(options.out / "learn.json", record)
        Checkpoint(options.out / ".partial").clear()
        progress.end(f"done in {seconds(time.monotonic() - begin)}")
    else:
        progress.end("done before")
    print(_report(record, pd.read_csv(options.out / "correlation.csv")))
    print(f"results in {options.out}/")
    return 0


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """Return a Parquet or CSV file as a table.

    Raises:
        InputError: no such file, or none of these.
    """
    if not path.is_file():
        raise fail(f"{path} is no file", "a table as Parquet or CSV")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        # "NaN" is a compound: what is a text stays as it is.
        plain = dict.fromkeys(("id", "formula", "chemical_system", "status", "flags"), str)
        return pd.read_csv(path, low_memory=False, converters=plain)
    except (ValueError, OSError) as error:
        raise fail(f"{path} cannot be read ({error})", "a table as Parquet or CSV") from error


def _key(options, settings) -> str:
    given = {
        name: getattr(options, name)
        for name in ("descriptors", "with_md", "keep_flagged", "resamples")
    }
    return key_of(table=options.table.read_bytes(), options=given, settings=vars(settings),
                  versions=_versions())  # fmt: skip


def _done(options, key: str) -> dict[str, Any] | None:
    """Return the record of an earlier run of the same, if all its files are there."""
    try:
        record = read_record(options.out / "learn.json")
    except InputError:
        return None
    files = ["correlation.csv", "model"]
    files += [] if options.no_figures else ["correlation.png"]
    whole = all((options.out / name).exists() for name in files)
    return record if record.get("key") == key and whole else None


def _heading(table, options, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "table": str(options.table),
        "rows": len(table),
        "detected": int((~table.censored).sum()),
        "below_detection": int(table.censored.sum()),
        "chemical_systems": len(set(table.systems)),
        "left_out": table.left_out,
        "descriptors": list(table.columns),
        "descriptors_needing_md": [
            c for c, md in zip(table.columns, table.needs_md, strict=True) if md
        ],
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = versions()
    for package in ("flax", "optax", "orbax-checkpoint", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _surrogate(table, options, settings, key: str, progress: Progress) -> dict[str, Any]:
    """Train, validate and store the surrogate, or say why there is none; return its record."""
    from phojax.learn import cross_validated, log_target, save_model, trained, why_untrained
    from phojax.learn.surrogate import surrogate_columns

    target = log_target(table)
    model = options.out / "model"
    why = why_untrained(target, table.systems)
    chosen = surrogate_columns(table, options.with_md)
    if not why and not chosen.any():
        why = "no descriptor that does not need dynamics is known in half of the rows"
    record: dict[str, Any] = {"surrogate": not why, "why_untrained": why, "key": key}
    if why:
        save_model(model, None, record | {"versions": _versions(), "detected": int(
            target.detected.sum())})  # fmt: skip
        for stale in ("cross_validation.csv", "parity.png", "parity.pdf", "calibration.png",
                      "calibration.pdf"):  # fmt: skip
            (options.out / stale).unlink(missing_ok=True)
        return record
    values = table.descriptors[:, chosen]
    columns = [c for c, one in zip(table.columns, chosen, strict=True) if one]
    checked = cross_validated(
        values, columns, target, table.systems, settings,
        checkpoint=Checkpoint(options.out / ".partial", key), progress=progress,
    )  # fmt: skip
    progress("training", 0, 0)
    surrogate = trained(values, columns, target, table.systems, settings)
    ensemble = surrogate.ensemble
    record |= {
        "target": "log10 of D/(Å²/ps), fit with an intercept",
        "surrogate_descriptors": columns,
        "surrogate_settings": dict(vars(settings)),
        "prior_strength": ensemble.strength,
        "training_steps": ensemble.steps,
        "spread_factor": ensemble.spread,
        "detected_without_interval": target.without_error,
        "imputed": {
            c: {"median": m, "share_missing": s}
            for c, m, s in zip(columns, ensemble.scaling.median, ensemble.scaling.missing,
                               strict=True) if s > 0
        },
        "elements": list(surrogate.domain.elements),
        "cross_validation": checked.metrics,
        "baselines": "mean, ridge and extra trees: trained on detected rows alone; linear Tobit "
        "and the surrogate: censored rows as censored; all judged on the same rows, by chemical "
        "systems that they have not seen",
    }  # fmt: skip
    write_validation(options.out, table, target, checked)
    about = {k: v for k, v in record.items() if k != "cross_validation"}
    about["metrics"] = {
        name: {k: None if v != v else v for k, v in found.items()}
        for name, found in checked.metrics.items()
    }
    about |= {"versions": _versions(), "detected": int(target.detected.sum()),
              "below_detection": int(target.censored.sum()),
              "table": str(options.table)}  # fmt: skip
    save_model(model, surrogate, about)
    if not options.no_figures:
        _validation_figures(target, checked, options.out)
    return record


def write_validation(out: pathlib.Path, table, target, checked) -> None:
    """Write what every model predicted for every row that it had not seen."""
    frame = pd.DataFrame({
        "id": table.ids, "formula": table.formulas, "chemical_system": table.systems,
        "fold": checked.fold, "log10_D": target.value, "log10_D_error": target.error,
        "censored": target.censored,
        **{f"{name}.{what}": values[name] for name in checked.mean
           for what, values in (("mean", checked.mean), ("sd", checked.deviation))},
    })  # fmt: skip
    with replacing(out / "cross_validation.csv") as temporary:
        frame.to_csv(temporary, index=False)


def _validation_figures(target, checked, out: pathlib.Path) -> None:
    from phojax.learn.metrics import pit_bounds, pit_distribution
    from phojax.plots.figures import save_figure
    from phojax.plots.learning import Parity, calibration_figure, parity_figure

    n = len(target)
    panels = {}
    for name in ("surrogate", "ridge", "extra trees"):
        m = checked.metrics[name]
        label = f"RMSE {m['rmse']:.2f}\nρ {m['spearman']:.2f}\n95 %: {m['coverage_95_all']:.0%}"
        panels[name] = Parity(target.value, target.error, target.censored, checked.mean[name],
                              checked.deviation[name], label)  # fmt: skip
    title = f"Unseen chemical systems, {n} structures"
    save_figure(parity_figure(panels, title), out / "parity")
    at = np.linspace(0, 1, 101)
    curves = {}
    for name in checked.mean:
        ends = pit_bounds(checked.mean[name], checked.deviation[name], target)
        curves[name] = pit_distribution(*ends, at)
    bins = int(np.clip(n // 8, 5, 20))
    steps = np.linspace(0, 1, bins + 1)
    ends = pit_bounds(checked.mean["surrogate"], checked.deviation["surrogate"], target)
    inner = pit_distribution(*ends, steps)
    # What lies on an edge must not fall between bins.
    inner[0], inner[-1] = 0.0, 1.0
    band = 1.358 / np.sqrt(n)  # Kolmogorov's 95 %
    figure = calibration_figure(at, curves, np.diff(inner) * bins, band, title)
    save_figure(figure, out / "calibration")


def _correlation_figures(found: pd.DataFrame, record, out: pathlib.Path) -> None:
    from phojax.plots.figures import save_figure
    from phojax.plots.learning import Bars, correlation_figure

    for statistic, name, suffix in (
        ("spearman", "Spearman's ρ with D", ""), ("pearson", "Pearson's r with D", "-pearson")
    ):  # fmt: skip
        own = _of(found, "D", statistic)
        own = own[:_DRAWN]
        paper = _of(found, "D_paper", statistic).reindex(own.index)
        columns = [np.asarray(own[c], float) for c in ("value", "low", "high")]
        bars = Bars(
            [str(n) for n in own.index], *columns, control=np.asarray(paper["value"], float),
            needs_md=np.asarray(own["kind"] == "needs_md"), label=name,
        )  # fmt: skip
        title = (
            f"{record['rows']} structures of {record['chemical_systems']} chemical systems, "
            f"{record['below_detection']} below detection"
        )
        if statistic == "pearson" and record["below_detection"]:
            title += "\n(the latter are left out of the bars, not of the control)"
        save_figure(correlation_figure(bars, title), out / f"correlation{suffix}")


def _of(found: pd.DataFrame, target: str, statistic: str) -> pd.DataFrame:
    """Return coefficients by descriptor, the strongest first."""
    kept = found[(found["target"] == target) & (found["statistic"] == statistic)]
    order = np.argsort(-np.abs(np.asarray(kept["value"], float)), kind="stable")
    return pd.DataFrame(kept.set_index("descriptor")).iloc[order]


def _report(record: dict[str, Any], found: pd.DataFrame) -> str:
    """Return what is said on the screen."""
    left = ", ".join(f"{n} {why}" for why, n in record["left_out"].items())
    lines = [
        f"{record['rows']} structures of {record['chemical_systems']} chemical systems: "
        f"{record['detected']} with a detected D, {record['below_detection']} below detection"
        + (f"; left out: {left}" if left else "")
    ]
    own = _of(found, "D", "spearman")
    beside = {
        "r log D": _of(found, "log10 D", "pearson"),
        "r D": _of(found, "D", "pearson, control"),
        "origin": _of(found, "D_paper", "pearson, control"),
        "origin - D": _of(found, "D_paper minus D", "pearson, control"),
    }
    rows = []
    for name, one in own[:_SHOWN].iterrows():
        row = {"descriptor": name, "ρ D": _interval(one), "q": f"{one['q']:.2g}"}
        for label, of in beside.items():
            if name in of.index:
                text = _interval(of.loc[name])  # type: ignore[arg-type]
                row[label] = text if " - " in label or "log" in label else text.split(" ")[0]
        rows.append(row)
    lines += [text_of(rows), "ρ: Spearman, r: Pearson, with 95 % intervals; q: p corrected for "
              f"{len(own)} descriptors; origin: D of lines through the origin, which vibrations "
              "alone make proportional to the MSD, on the rows of r D"]  # fmt: skip
    if not record["surrogate"]:
        lines.append(f"NO surrogate is trained: {record['why_untrained']}")
        return "\n".join(lines)
    rows = []
    for name, m in record["cross_validation"].items():
        rows.append({
            "model": name,
            "RMSE": _interval({"value": m["rmse"], "low": m.get("rmse_low"),
                               "high": m.get("rmse_high")}),
            "ρ": _number(m["spearman"]), "NLL": _number(m["nll"]),
            "68 %": f"{m['coverage_68_all']:.0%}", "95 %": f"{m['coverage_95_all']:.0%}",
        })  # fmt: skip
    lines += [
        f"log10 D of chemical systems never seen, {record['surrogate_settings']['folds']} parts:",
        text_of(rows),
        "RMSE of detected rows with its 95 % interval: it favours models trained on detected rows "
        "alone (mean, ridge, extra trees); NLL and the shares in the 68 % and 95 % intervals are "
        "of all rows",
    ]
    return "\n".join(lines)


def _interval(of) -> str:
    low, high = of["low"], of["high"]
    text = _number(of["value"])
    known = low is not None and high is not None and low == low and high == high
    return f"{text} ({low:.2f}…{high:.2f})" if known else text


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.2f}"
