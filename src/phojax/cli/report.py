"""`phojax report`: the folder of a screen to one HTML page."""

import argparse
import pathlib
import sys

from phojax.checks import fail

_TOLD = 10  # problems on the screen


def add_parser(commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="one HTML page of a screen: ranking, figures, a page for every structure",
        description="The folder that phojax screen has left to one HTML page that needs nothing "
        "else and asks no server for anything: stages, ranking, figures, and a page for every "
        "structure. Missing and damaged files are named on the page.",
    )
    add = parser.add_argument
    add("folder", type=pathlib.Path, metavar="DIR", help="folder that phojax screen has written")
    add("--out", type=pathlib.Path, metavar="FILE", help="the page (default: DIR/report.html)")
    add("--megabytes", type=float, default=60.0, metavar="N", help="room for the data of all "
        "structures; bands are thinned to fit (default: 60)")  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    # Not at the top: plotly and what learning needs would slow down every other command.
    from phojax.campaign.report import write_report
    from phojax.campaign.report.structures import size_text

    if not options.megabytes > 0:
        raise fail(f"--megabytes {options.megabytes}", "a positive number")
    target = options.out or options.folder / "report.html"
    if target.suffix.lower() not in (".html", ".htm") or target.is_dir():
        raise fail(f"--out {target}", "a name that ends in .html")
    found = write_report(options.folder, target, megabytes=options.megabytes)
    for text in found["problems"][:_TOLD]:
        print(f"phojax: {text}", file=sys.stderr)
    left = len(found["problems"]) - _TOLD
    if left > 0:
        print(f"phojax: and {left} more, on the page", file=sys.stderr)
    print(
        f"{found['ranked']} ranked, {found['apart']} set apart, {found['dropped']} dropped\n"
        f"page in {target} ({size_text(found['bytes'])})"
    )
    return 0
