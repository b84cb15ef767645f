"""`phojax predict`: log10 D of structures by the surrogate, and where it does not hold."""

import argparse
import pathlib

import numpy as np

from phojax.checks import fail
from phojax.cli.learn import read_table
from phojax.cli.table import text_of
from phojax.io.atomic import replacing

_SHOWN = 20


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "predict",
        help="diffusion of structures without dynamics, by what phojax learn has trained",
        description="Descriptors (the table of a screen, without dynamics) to log10 D with an "
        "uncertainty. Structures outside what the model was trained on are named, with the reason. "
        "A model of fewer than 30 detected D is refused.",
    )
    add = parser.add_argument
    add("model", type=pathlib.Path, metavar="MODEL",
        help="folder that phojax learn wrote: DIR, or DIR/model")  # fmt: skip
    add("table", type=pathlib.Path, metavar="TABLE", help="Parquet or CSV, one row per structure")
    add("--out", type=pathlib.Path, metavar="FILE", help="predictions as .csv or .parquet")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from phojax.learn import MIN_DETECTED, load_model, predicted  # see learn.py

    out = options.out
    if out is not None and out.suffix.lower() not in (".csv", ".parquet"):
        raise fail(f"--out {out}", "a name that ends in .csv or .parquet")
    folder = options.model
    if (folder / "learn.json").is_file():
        folder = folder / "model"
    surrogate, about = load_model(folder)
    if about.get("detected", 0) < MIN_DETECTED:
        raise fail(f"{folder} was trained on {about.get('detected')} detected D", f"{MIN_DETECTED}")
    found = predicted(surrogate, read_table(options.table))
    if out is not None:
        with replacing(out) as temporary:
            if out.suffix.lower() == ".csv":
                found.to_csv(temporary, index=False)
            else:
                found.to_parquet(temporary, index=False)
    print(text_of(_rows(found)))
    away = int(np.sum(found["outside"]))
    metrics = about["metrics"]["surrogate"]
    if len(found) > _SHOWN:
        print(f"the first {_SHOWN} of {len(found)}, by falling D")
    print(
        f"{len(found)} structures, {away} of them outside what the model was trained on "
        f"({about['detected']} detected D, {about['below_detection']} below detection). For "
        f"chemical systems never seen its RMSE is {metrics['rmse']:.2f} in log10 D"
    )
    if out is not None:
        print(f"predictions in {out}")
    return 0


def _rows(found) -> list[dict[str, str]]:
    rows = []
    for _, one in found.sort_values("log10_D", ascending=False)[:_SHOWN].iterrows():
        row = {name: str(one[name]) for name in ("id", "formula") if name in found}
        known = one["log10_D"] == one["log10_D"]
        row["log10 D"] = f"{one['log10_D']:.2f} ± {one['log10_D_sd']:.2f}" if known else "unknown"
        row["D, 95 %/(Å²/ps)"] = (
            f"{one['D_A2_ps']:.2g} ({one['D_low_A2_ps']:.1g}…{one['D_high_A2_ps']:.1g})"
            if known else ""
        )  # fmt: skip
        row["outside"] = one["outside_why"]
        rows.append(row)
    return rows
