"""One self-contained page: everything it shows is inside, and it asks no server for anything.

A policy in its head forbids requests, so that a text from a database could cause none either.
"""

import importlib.resources
import pathlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import plotly
from plotly.offline import get_plotlyjs

from phojax.campaign.report.figures import Drawing, screen_drawings
from phojax.campaign.report.folder import Row, ScreenFolder, read_folder, structure_files
from phojax.campaign.report.learning import correlation_drawing, learning_html
from phojax.campaign.report.ranking import Ranking, ranking
from phojax.campaign.report.structures import size_text, structure_data
from phojax.campaign.report.tables import (
    apart_html,
    columns_of,
    details_html,
    dropped_html,
    funnel_html,
    pairs_html,
    ranked_html,
    span,
)
from phojax.campaign.report.texts import embedded, listing, mapping, plain, safe, shown
from phojax.io.atomic import replacing

MEGABYTES = 60.0
"""Room for the data of all structures together, beside plotly's 5 MB."""

_MOST = 400_000  # bytes of one structure
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def write_report(
    folder: pathlib.Path, target: pathlib.Path, *, megabytes: float = MEGABYTES
) -> dict[str, Any]:
    """Write the page of a screen; return what is on it.

    Args:
        folder: That a screen has left.
        target: The file to write.
        megabytes: Room for the data of all structures; bands are thinned to fit.

    Raises:
        InputError: no table there, or one that cannot be read.
    """
    found = read_folder(folder)
    order = ranking(found.rows)
    text, problems = report_page(found, order, target.parent, megabytes)
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return {
        "ranked": len(order.ranked), "apart": len(order.apart), "dropped": len(order.dropped),
        "bytes": len(text.encode()), "problems": problems,
    }  # fmt: skip


def report_page(
    folder: ScreenFolder, order: Ranking, place: pathlib.Path, megabytes: float = MEGABYTES
) -> tuple[str, list[str]]:
    """Return the page, and what of the folder could not be read.

    Args:
        folder: Of the screen.
        order: Of its candidates.
        place: Folder of the page, which links start from.
        megabytes: Room for the data of all structures.
    """
    drawings = [*screen_drawings(folder, order), correlation_drawing(folder)]
    data, problems = _structures(folder, order, place, megabytes)
    problems = [*folder.problems, *problems]
    scripts = "\n".join(
        f'<script type="application/json" id="s{n}">{text}</script>' for n, text in enumerate(data)
    )
    names = [row["id"] for row in _shown_rows(folder, order)]
    index = {"names": names, "figures": [asdict(one) for one in drawings if one.data]}
    title = f"Screen of {shown(folder.screen.get('source')) or folder.path.resolve().name}"
    body = "\n".join((
        _header(folder, order, title, problems, sum(map(len, data))),
        f"<section id=funnel><h2>What became of the candidates</h2>{funnel_html(folder.screen)}"
        f"{_cost(folder)}</section>",
        _tables(folder, order, set(names)),
        _figures(drawings[:-1]),
        f"<section id=learning><h2>Learning from the table</h2>{_figures_of(drawings[-1:])}"
        f"{learning_html(folder)}</section>",
    ))  # fmt: skip
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{safe(title)}</title><style>{_asset('page.css')}</style></head><body>\n"
        '<pre id="errors" hidden></pre><script>'
        "function told(e){document.getElementById('errors').textContent+="
        "(e.message||e.reason||e.violatedDirective||e)+'\\n'}"
        "addEventListener('error',told);addEventListener('unhandledrejection',told);"
        "addEventListener('securitypolicyviolation',told)</script>\n"
        f'<main id="overview">{body}</main>\n<main id="structure" hidden></main>\n'
        f"<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="index">{embedded(plain(index))}</script>\n{scripts}\n'
        f"<script>{_asset('page.js')}</script></body></html>\n"
    )
    return page, problems


def _asset(name: str) -> str:
    return (importlib.resources.files("phojax.campaign.report") / name).read_text(encoding="utf-8")


def _shown_rows(folder: ScreenFolder, order: Ranking) -> list[Row]:
    """Return the rows that have a page: ranked, set apart, and dropped ones with a folder."""
    base = folder.path / "structures"
    there = {p.name for p in base.iterdir() if p.is_dir()} if base.is_dir() else set()
    dropped = [row for row, _ in order.dropped if row["id"] in there]
    return [*order.ranked, *(row for row, _ in order.apart), *dropped]


def _structures(
    folder: ScreenFolder, order: Ranking, place: pathlib.Path, megabytes: float
) -> tuple[list[str], list[str]]:
    """Return JSON of each structure, and what was wrong with their files."""
    rows = _shown_rows(folder, order)
    room = int(min(_MOST, megabytes * 1e6 / max(len(rows), 1)))
    why = {row["id"]: f"not ranked: {text}" for row, text in order.apart + order.dropped}
    why |= {row["id"]: f"rank {n} of {len(order.ranked)}" for n, row in enumerate(order.ranked, 1)}
    data, problems = [], []
    for row in rows:
        files = structure_files(folder.path, row["id"])
        found = structure_data(row, files, place, why[row["id"]], room)
        done = (row.get("status") or "done") == "done"
        problems += [f"{row['id']}: {text}" for text in found["problems"]] if done else []
        data.append(embedded(found))
    return data, problems


def _header(
    folder: ScreenFolder, order: Ranking, title: str, problems: list[str], size: int
) -> str:  # fmt: skip
    screen = folder.screen
    facts = {
        "potential": screen.get("potential"), "mobile ion": screen.get("mobile"),
        "temperatures": ", ".join(f"{shown(T)} K" for T in listing(screen.get("temperatures_K"))),
        "screened": _when(folder) + (", not finished" if screen.get("finished") is False else ""),
        "page made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "version": mapping(screen.get("versions")).get("phojax"),
    }  # fmt: skip
    said = "".join(
        f"<div><dt>{k}</dt><dd>{safe(shown(v))}</dd></div>" for k, v in facts.items() if v
    )
    counts = (
        f"{len(order.ranked)} ranked, {len(order.apart)} set apart, {len(order.dropped)} dropped"
    )
    remarks = "".join(f"<li>{safe(shown(one))}</li>" for one in listing(screen.get("remarks")))
    html = f"<header><h1>{safe(title)}</h1><p class=lead>{counts}.</p><dl class=facts>{said}</dl>"
    html += f"<ul class=remarks>{remarks}</ul>" if remarks else ""
    if problems:
        some = "".join(f"<li>{safe(text)}</li>" for text in problems[:50])
        more = f"<li>and {len(problems) - 50} more</li>" if len(problems) > 50 else ""
        html += (
            f"<details class=problems open><summary>{len(problems)} things in the folder could "
            f"not be read</summary><ul>{some}{more}</ul></details>"
        )
    html += details_html("Settings", mapping(screen.get("settings")))
    html += details_html("Versions", mapping(screen.get("versions")))
    return html + (
        f"<p class=small>Data of structures in this page: {size_text(size)}, numbers to five "
        "digits, the colours of bands to three. Everything in full is in the files beside it. "
        f"Drawn by plotly {safe(plotly.__version__)}, which is inside.</p>"
        '<nav><a href="#funnel">Stages</a> <a href="#ranking">Ranking</a> '
        '<a href="#figures">Figures</a> <a href="#learning">Learning</a></nav>'
        "<noscript><p class=problems>Figures and structures need JavaScript; the tables do not.</p>"
        "</noscript></header>"
    )


def _when(folder: ScreenFolder) -> str:
    stamp = (folder.path / "table.parquet").stat().st_mtime
    return f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M} UTC (table written)"


def _cost(folder: ScreenFolder) -> str:
    cost = mapping(folder.screen.get("cost"))
    return f"<details><summary>Cost</summary>{pairs_html(cost)}</details>" if cost else ""


def _tables(folder: ScreenFolder, order: Ranking, with_page: set[str]) -> str:
    mobile = shown(folder.screen.get("mobile")) or "mobile"
    columns = columns_of(order, folder.units, mobile)
    done = [*order.ranked, *(row for row, _ in order.apart)]
    ends = span(done)
    return (
        "<section id=ranking><h2>Ranking</h2><p>Stable candidates without a flag that makes D or "
        "displacements mean something else: by falling D where it is detected, then by falling "
        f"displacement of {safe(mobile)}. Bars: 95 % interval of D on one logarithmic scale "
        f"from {ends[0]:.1g} to {ends[1]:.1g} Å²/ps; &lt;: below the detection limit. "
        "A click on a heading sorts, a click on a candidate opens its page.</p>"
        f"{ranked_html(order, columns, ends)}"
        "<h2>Set apart</h2><p>Done, but not to be compared with those above: imaginary modes are "
        "left out of displacements, a framework that moves is no ionic conductor.</p>"
        f"{apart_html(order, columns, ends)}"
        f"<details><summary>Dropped, failed, duplicate, unreadable: {len(order.dropped)}</summary>"
        f"{dropped_html(order, with_page)}</details></section>"
    )


def _figures(drawings: list[Drawing]) -> str:
    return (
        f"<section id=figures><h2>Figures</h2>{_figures_of(drawings)}<p class=small>Bands "
        "coloured by displacement, participation and coupling, MSD(t), VDOS, channels are on the "
        "pages of the structures. A screen has no reference forces: parity of forces and force "
        "constants and bands beside a reference come from phojax evaluate. Snapshots of "
        "trajectories are not kept.</p></section>"
    )


def _figures_of(drawings: list[Drawing]) -> str:
    html = ""
    for one in drawings:
        inside = (
            f'<div class=plot id="plot-{one.name}"></div>'
            f"<figcaption>{safe(one.caption)}</figcaption>"
            if one.data
            else f"<p class=missing>Not drawn: {safe(one.missing)}.</p>"
        )
        html += f"<figure><h3>{safe(one.title)}</h3>{inside}</figure>"
    return f"<div class=grid>{html}</div>"
