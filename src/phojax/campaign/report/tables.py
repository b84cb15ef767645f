"""Tables of the page as HTML: candidates, funnel, settings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from phojax.campaign.report.folder import Row
from phojax.campaign.report.ranking import Ranking, diffusion, flags_of
from phojax.campaign.report.texts import flattened, listing, mapping, number, safe, shown

DROPPED = 2000
"""Dropped candidates listed on the page."""


def funnel_html(screen: Mapping[str, Any]) -> str:
    """Return the stages with their counts, and what was dropped on the way."""
    stages = [mapping(one) for one in listing(screen.get("funnel"))]
    html = ""
    counts = [number(one, "count") for one in stages]
    most = max((c for c in counts if c is not None), default=0) or 1
    for one, count in zip(stages, counts, strict=True):
        width = 100 * (count or 0) / most
        html += (
            f"<li><span class=stage>{safe(shown(one.get('stage')))}</span>"
            f'<span class=bar><i style="width:{width:.1f}%"></i></span>'
            f"<b>{'?' if count is None else f'{count:g}'}</b></li>"
        )
    html = f"<ol class=funnel>{html}</ol>" if html else "<p class=missing>No stages recorded.</p>"
    dropped = [mapping(one) for one in listing(screen.get("dropped"))]
    rows = ""
    for one in sorted(dropped, key=lambda d: -(number(d, "count") or 0)):
        names = [shown(name) for name in listing(one.get("names"))]
        said = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        rows += (
            f"<tr><td>{safe(shown(one.get('reason')))}</td><td class=n>"
            f"{safe(shown(one.get('count')))}</td><td class=names>{safe(said)}</td></tr>"
        )
    if rows:
        html += (
            "<details><summary>Reasons of drops</summary><div class=scroll><table><thead><tr>"
            "<th scope=col>reason</th><th scope=col>candidates</th><th scope=col>names</th></tr>"
            f"</thead><tbody>{rows}</tbody></table></div></details>"
        )
    return html


def details_html(title: str, tree: Mapping[str, Any]) -> str:
    """Return a nested dictionary as a table that is folded away; "" for an empty one."""
    if not tree:
        return ""
    return f"<details><summary>{safe(title)}</summary>{pairs_html(tree)}</details>"


def pairs_html(tree: Mapping[str, Any]) -> str:
    """Return a nested dictionary as a table of two columns."""
    body = "".join(
        f"<tr><th scope=row>{safe(key)}</th><td>{safe(shown(value, 6))}</td></tr>"
        for key, value in flattened(tree)
    )
    return f"<div class=scroll><table class=pairs><tbody>{body}</tbody></table></div>"


class Column:
    """A column of numbers: its name in the table, its heading, its unit."""

    def __init__(self, key: str, heading: str, unit: str = "") -> None:
        self.key, self.heading, self.unit = key, heading, unit

    def cell(self, row: Row) -> str:
        """Return the cell of a row."""
        value = number(row, self.key)
        return _cell("" if value is None else f"{value:.3g}", value)


def columns_of(order: Ranking, units: Mapping[str, str], mobile: str) -> list[Column]:
    """Return the columns of numbers that the table has."""
    T = order.temperatures[-1] if order.temperatures else ""
    wanted = [
        Column("D_paper_A2_ps", "D through origin", "Å²/ps"),
        Column(f"msd_axis_mean_{T}K_A2", f"MSD per axis, {T} K", "Å²"),
        Column(f"msd_axis_max_{T}K_A2", f"MSD largest, {T} K", "Å²"),
        Column(f"effective_msd_axis_mean_{T}K_A2", f"effective MSD per axis, {T} K", "Å²"),
        Column("frequency_min_THz", "lowest ν", "THz"),
        Column(f"effective_frequency_min_{T}K_THz", f"lowest effective ν, {T} K", "THz"),
        Column("acoustic_cutoff_THz", "acoustic cutoff", "THz"),
        Column("pdos_center_mobile_THz", f"{mobile} PDOS centre", "THz"),
        Column("pdos_center_mobile_to_acoustic_cutoff", "PDOS centre / cutoff"),
        Column("vdos_center_mobile_THz", f"{mobile} VDOS centre", "THz"),
        Column("vdos_center_mobile_to_acoustic_cutoff", "VDOS centre / cutoff"),
        Column(f"coupling_mean_below_low_frequency_{T}K", "coupling, soft modes"),
        Column("channel_dimensionality", "channels", "D"),
        Column("atoms", "atoms"),
    ]
    known = set(units)
    for one in wanted:
        one.unit = units.get(one.key) or one.unit
    return [one for one in wanted if one.key in known]


def ranked_html(order: Ranking, columns: Sequence[Column], ends: tuple[float, float]) -> str:
    """Return the ranked candidates."""
    body = "".join(
        f"<tr>{_cell(str(n), n)}{_named(row)}{_diffusion_cell(row, ends)}"
        + "".join(column.cell(row) for column in columns)
        + f"<td>{_flags(flags_of(row))}</td></tr>"
        for n, row in enumerate(order.ranked, 1)
    )
    heads = ["rank", "candidate", "space group", ("D, 95 %", "Å²/ps"),
             *((c.heading, c.unit) for c in columns), "flags"]  # fmt: skip
    return _table("ranked", heads, body, len(order.ranked))


def apart_html(order: Ranking, columns: Sequence[Column], ends: tuple[float, float]) -> str:
    """Return what is done but not ranked."""
    body = "".join(
        f"<tr>{_named(row)}<td>{safe(why)}</td>{_diffusion_cell(row, ends)}"
        + "".join(column.cell(row) for column in columns)
        + f"<td>{_flags(flags_of(row))}</td></tr>"
        for row, why in order.apart
    )
    heads = ["candidate", "space group", "why not ranked", ("D, 95 %", "Å²/ps"),
             *((c.heading, c.unit) for c in columns), "flags"]  # fmt: skip
    return _table("apart", heads, body, len(order.apart))


def dropped_html(order: Ranking, with_page: set[str]) -> str:
    """Return what is not done, the first of them, with the reason."""
    body = "".join(
        f"<tr>{_named(row, row['id'] in with_page)}<td>{safe(why)}</td></tr>"
        for row, why in order.dropped[:DROPPED]
    )
    left = len(order.dropped) - DROPPED
    told = f"<p>{left} more are in table.parquet.</p>" if left > 0 else ""
    return (
        _table("dropped", ["candidate", "space group", "reason"], body, len(order.dropped)) + told
    )


def span(rows: Iterable[Row]) -> tuple[float, float]:
    """Return the ends of all D (Å²/ps), for bars on one logarithmic scale."""
    values = [v for row in rows for v in diffusion(row) if v is not None and v > 0]
    return (min(values), max(values)) if values else (1e-4, 1.0)


def _table(
    name: str, heads: Sequence[str | tuple[str, str]], body: str, count: int
) -> str:  # fmt: skip
    cells = ""
    for head in heads:
        title, unit = head if isinstance(head, tuple) else (head, "")
        text = safe(title) + (f" <small>{safe(unit)}</small>" if unit else "")
        cells += f"<th scope=col><button type=button>{text}</button></th>"
    return (
        f'<div class=tools><label>Filter <input type=search data-for="{name}" '
        f'placeholder="formula, element, flag…"></label> <span data-count="{name}">{count} rows'
        f'</span></div><div class=scroll><table class=sortable id="{name}"><thead><tr>{cells}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(text: str, value: float | None) -> str:
    mark = "" if value is None else f' data-v="{value:.6g}"'
    return f"<td class=n{mark}>{safe(text)}</td>"


def _named(row: Row, linked: bool = True) -> str:
    formula = shown(row.get("formula")) or row["id"]
    text = f"{safe(formula)} <small>{safe(row['id'])}</small>"
    if formula in row["id"]:
        text = safe(row["id"])
    if linked:
        text = f'<a data-s="{safe(row["id"])}" href="#">{text}</a>'
    group = shown(row.get("space_group"))
    n = number(row, "space_group_number")
    mark = f' data-v="{n:g}"' if n is not None else ""
    return f'<td data-v="{safe(formula)}">{text}</td><td{mark}>{safe(group)}</td>'


def _diffusion_cell(row: Row, ends: tuple[float, float]) -> str:
    D, low, high, limit = diffusion(row)
    if D is None and limit is None:
        return "<td class=n></td>"
    if D is None:
        assert limit is not None
        # Below everything detected, yet above what is not known.
        return f'<td class=n data-v="{limit * 1e-12:.6g}">{_bar(None, None, limit, ends)}' \
            f"&lt; {limit:.2g}</td>"  # fmt: skip
    known = low is not None and high is not None
    text = f"{D:.2g}" + (f" ({low:.2g}…{high:.2g})" if known else " (no interval)")
    return f'<td class=n data-v="{D:.6g}">{_bar(D, low, high, ends)}{safe(text)}</td>'


def _bar(D: float | None, low: float | None, high: float | None, ends: tuple[float, float]) -> str:
    """Return an interval on a logarithmic scale as a small drawing."""
    first, last = math.log10(ends[0]), math.log10(ends[1])

    def at(value: float | None, other: float) -> float:
        if value is None or value <= 0:
            return other
        share = (math.log10(value) - first) / (last - first) if last > first else 0.5
        return 3 + 64 * min(max(share, 0), 1)

    a, b = at(low, 3 if D is None or low is not None else at(D, 3)), at(high, at(D, 67))
    dot = f'<circle cx="{at(D, 3):.1f}" cy="6" r="3"/>' if D is not None else ""
    kind = "limit" if D is None else "known"
    return (
        f'<svg class="interval {kind}" viewBox="0 0 70 12" width="70" height="12" '
        'aria-hidden="true">'
        f'<line x1="{a:.1f}" x2="{b:.1f}" y1="6" y2="6"/>{dot}</svg>'
    )


def _flags(flags: Sequence[str]) -> str:
    return " ".join(f"<span class=flag>{safe(flag.replace('_', ' '))}</span>" for flag in flags)
