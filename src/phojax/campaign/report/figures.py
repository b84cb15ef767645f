"""Figures of the whole screen, as plotly specifications; a colour "--name" is one of the page's.

A figure that the table does not allow says why instead.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from phojax.campaign.report.folder import Row, ScreenFolder
from phojax.campaign.report.ranking import Ranking, diffusion
from phojax.campaign.report.texts import drawn, number, shown

Trace = dict[str, Any]

_GROUPS = 30  # space groups shown


@dataclass(frozen=True)
class Drawing:
    """One figure of the page.

    Attributes:
        name: For its place in the page.
        title: What it shows.
        caption: How to read it, plain text.
        data: Traces; empty where there is no figure.
        layout: Of plotly.
        missing: Why there is none.
    """

    name: str
    title: str
    caption: str = ""
    data: list[Trace] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    missing: str = ""


def screen_drawings(folder: ScreenFolder, order: Ranking) -> list[Drawing]:
    """Return the figures of the table."""
    mobile = shown(folder.screen.get("mobile")) or "mobile ion"
    T = order.temperatures[-1] if order.temperatures else ""
    cutoff = Axis("acoustic_cutoff_THz", "Acoustic cutoff (THz)")
    return [
        _diffusion_drawing(
            order, "diffusion-displacement", f"D against the displacement of {mobile}",
            Axis(order.msd or "", f"MSD of {mobile} along an axis, {T} K (Å²)", log=True), None,
            "Fits through the origin (in the legend) take vibrations for diffusion: they follow "
            "the displacement even where nothing diffuses.", paper=True,
        ),
        *_effective_drawings(order, mobile, T),
        _diffusion_drawing(
            order, "diffusion-vdos", f"D against the VDOS centre of {mobile}",
            Axis("vdos_center_mobile_THz", f"Centre of the VDOS of {mobile} (THz)"),
            Axis("vdos_center_mobile_to_acoustic_cutoff", "centre / cutoff"),
            "Coloured by the ratio of the centre to the acoustic cutoff.",
        ),
        _diffusion_drawing(
            order, "diffusion-cutoff", "D against the acoustic cutoff", cutoff, None, "",
        ),
        _harmonic_drawing(order, mobile, T, cutoff),
        _elements_drawing(order, mobile),
        _groups_drawing(order),
    ]  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """A column of the table as an axis or as colours.

    Attributes:
        column: Its name.
        title: With its unit.
        log: Whether the axis is logarithmic.
    """

    column: str
    title: str
    log: bool = False

    def of(self, row: Row) -> float | None:
        """Return the value; None where it cannot be shown."""
        value = number(row, self.column)
        return None if value is None or (self.log and value <= 0) else value


def _diffusion_drawing(
    order: Ranking, name: str, title: str, x: Axis, colour: Axis | None, caption: str,
    paper: bool = False,
) -> Drawing:  # fmt: skip
    """Return D with its 95 % interval against a column; limits as triangles that point down."""
    with_D = [r for r in order.ranked if diffusion(r)[0] is not None and x.of(r) is not None]
    limits = [r for r in order.ranked if (diffusion(r)[3] or 0) > 0 and x.of(r) is not None]
    if not with_D and not limits:
        return Drawing(name, title, missing=_why_not(order, x))
    flagged = [r for r, _ in order.apart if diffusion(r)[0] is not None and x.of(r) is not None]
    data = []
    scale = _scale([*with_D, *limits], colour) if colour else None
    if with_D:
        trace = _points(with_D, x, lambda r: diffusion(r)[0], "D, 95 % interval", "circle")
        trace["error_y"] = _bars(with_D)
        trace["marker"] |= _coloured(with_D, colour, scale, bar=True) or {"color": "--mobile"}
        data.append(trace)
    if limits:
        trace = _points(limits, x, lambda r: diffusion(r)[3], "below this limit", "triangle-down")
        trace["marker"] |= {"size": 9}
        trace["marker"] |= _coloured(limits, colour, scale, bar=not with_D) or {"color": "--host"}
        data.append(trace)
    if flagged:
        trace = _points(flagged, x, lambda r: diffusion(r)[0], "set apart, not ranked", "x-thin")
        trace["marker"] |= {"color": "--grey", "line": {"width": 1.5, "color": "--grey"}}
        data.append(trace)
    origin = [r for r in order.ranked if (number(r, "D_paper_A2_ps") or 0) > 0 and x.of(r)]
    if paper and origin:
        value = lambda r: number(r, "D_paper_A2_ps")  # noqa: E731
        trace = _points(origin, x, value, "fit through the origin", "diamond-open")
        trace["marker"] |= {"color": "--second"}
        trace["visible"] = "legendonly"
        data.append(trace)
    unknown = len(order.ranked) - len(with_D) - len(limits)
    told = f"{len(with_D)} detected, {len(limits)} below detection (triangles, drawn at the limit)"
    told += f"; {unknown} ranked without D or without this value." if unknown else "."
    layout = {
        "xaxis": _axis(x.title, data, "x", x.log),
        "yaxis": _axis("D (Å²/ps)", data, "y", True),
    }
    return Drawing(name, title, f"{told} {caption}".strip(), data, layout)


def _effective_drawings(order: Ranking, mobile: str, T: str) -> list[Drawing]:
    """Return D against the effective displacement, where a screen has computed it."""
    x = Axis(f"effective_msd_axis_mean_{T}K_A2", f"Effective MSD of {mobile} along an axis, {T} K "
             "(Å²)", log=True)  # fmt: skip
    if all(x.of(row) is None for row in [*order.ranked, *(row for row, _ in order.apart)]):
        return []
    return [_diffusion_drawing(
        order, "diffusion-effective-displacement", f"D against the effective displacement of "
        f"{mobile}", x, None, "From force constants averaged over the vibrations themselves; "
        "beside it the harmonic one.",
    )]  # fmt: skip


def _harmonic_drawing(order: Ranking, mobile: str, T: str, cutoff: Axis) -> Drawing:
    name, title = "displacement-cutoff", f"Displacement of {mobile} against the acoustic cutoff"
    y = Axis(order.msd or "", f"MSD of {mobile} along an axis, {T} K (Å²)", log=True)
    rows = [r for r in order.ranked if y.of(r) is not None and cutoff.of(r) is not None]
    if not rows:
        return Drawing(name, title, missing="no ranked candidate has both in the table")
    ratio = Axis("pdos_center_mobile_to_acoustic_cutoff", "centre / cutoff")
    trace = _points(rows, cutoff, y.of, "ranked", "circle")
    colours = _coloured(rows, ratio, _scale(rows, ratio), bar=True)
    trace["marker"] |= colours or {"color": "--mobile"}
    layout = {
        "xaxis": _axis(cutoff.title, [trace], "x", cutoff.log),
        "yaxis": _axis(y.title, [trace], "y", True),
        "showlegend": False,
    }
    caption = "From phonons alone" + (
        f"; coloured by the ratio of the harmonic {mobile} centre to the cutoff."
        if colours
        else "."
    )
    return Drawing(name, title, caption, [trace], layout)


def _elements_drawing(order: Ranking, mobile: str) -> Drawing:
    name, title = "elements", "Elements of the candidates"

    def elements(rows: Iterable[Row]) -> Counter:
        systems = (shown(row.get("chemical_system")) for row in rows)
        return Counter(e for s in systems for e in set(s.split("-")) if e and e != mobile)

    return _histogram(name, title, order, elements, "Element", None, f"without {mobile}")


def _groups_drawing(order: Ranking) -> Drawing:
    def groups(rows: Iterable[Row]) -> Counter:
        return Counter(shown(row.get("space_group")) for row in rows if row.get("space_group"))

    return _histogram(
        "space-groups", "Space groups of the candidates", order, groups, "Space group", _GROUPS, ""
    )


def _histogram(
    name: str, title: str, order: Ranking, count: Callable[[Iterable[Row]], Counter],
    label: str, most: int | None, remark: str,
) -> Drawing:  # fmt: skip
    """Return stacked counts: ranked, set apart, dropped."""
    parts = {
        "ranked": ("--mobile", "", count(order.ranked)),
        "set apart": ("--second", "/", count(r for r, _ in order.apart)),
        "dropped": ("--grey", ".", count(r for r, _ in order.dropped)),
    }
    total: Counter = sum((found for *_, found in parts.values()), Counter())
    if not total:
        return Drawing(name, title, missing="nothing of this is in the table")
    names = [one for one, _ in total.most_common(most)]
    left = len(total) - len(names)
    data = [
        {"type": "bar", "name": part, "x": [drawn(n) for n in names],
         "y": [found[n] for n in names],
         "marker": {"color": colour, "pattern": {"shape": shape, "fgcolor": "--paper",
                                                 "fillmode": "overlay"}}}
        for part, (colour, shape, found) in parts.items() if found
    ]  # fmt: skip
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": label}, "type": "category", "tickangle": -60,
                  "dtick": 1 if len(names) <= _GROUPS + 10 else None},
        "yaxis": {"title": {"text": "Candidates (number)"}},
    }  # fmt: skip
    told = f"{len(total)} in all" + (f", the {most} most frequent shown" if left else "")
    return Drawing(name, title, ", ".join(filter(None, [told, remark])) + ".", data, layout)


def _points(
    rows: Sequence[Row], x: Axis, y: Callable[[Row], float | None], name: str, symbol: str
) -> Trace:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [x.of(r) for r in rows], "y": [y(r) for r in rows],
        "text": [drawn(f"{shown(r.get('formula')) or '?'} ({r['id']})") for r in rows],
        "customdata": [r["id"] for r in rows],
        "hovertemplate": "%{text}<br>%{x:.4g}, %{y:.3g}<extra></extra>",
        "marker": {"symbol": symbol, "size": 8},
    }  # fmt: skip


def _bars(rows: Sequence[Row]) -> dict[str, Any]:
    up, down = [], []
    for row in rows:
        D, low, high, _ = diffusion(row)
        assert D is not None
        up.append(max(high - D, 0) if high is not None else 0)
        # A logarithmic axis has no zero: two decades below the value stand for it.
        down.append(D - max(min(low, D), D / 100) if low is not None else 0)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down,
            "thickness": 1, "width": 3, "color": "--grey"}  # fmt: skip


def _scale(rows: Sequence[Row], colour: Axis) -> tuple[float, float] | None:
    known = [v for v in map(colour.of, rows) if v is not None]
    return (min(known), max(known)) if known else None


def _coloured(
    rows: Sequence[Row], colour: Axis | None, scale: tuple[float, float] | None, bar: bool
) -> dict[str, Any]:
    """Return colours of markers by a column; {} where it is not known."""
    if colour is None or scale is None:
        return {}
    found: dict[str, Any] = {
        "color": [colour.of(row) for row in rows], "cmin": scale[0], "cmax": scale[1],
        "colorscale": "Cividis", "line": {"width": 1, "color": "--ink"},
    }  # fmt: skip
    if bar:
        found["colorbar"] = {"title": {"text": drawn(colour.title), "side": "right"},
                             "thickness": 12}  # fmt: skip
    return found


def _axis(title: str, data: Sequence[Trace], name: str, log: bool) -> dict[str, Any]:
    """Return an axis; a logarithmic one gets plain numbers at 1, 2, 5 or at decades alone."""
    axis: dict[str, Any] = {"title": {"text": drawn(title)}}
    if not log:
        return axis
    values = [v for trace in data for v in trace[name]]
    first, last = math.log10(min(values)), math.log10(max(values))
    steps = (1,) if last - first > 2.5 else (1, 2, 5)
    ticks = [
        round(step * 10.0**power, 12)
        for power in range(math.floor(first) - 2, math.ceil(last) + 2)
        for step in steps
    ]
    return axis | {"type": "log", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}


def _why_not(order: Ranking, x: Axis) -> str:
    if not order.ranked:
        return "no candidate is ranked"
    some = any(
        D is not None or limit is not None for D, _, _, limit in map(diffusion, order.ranked)
    )
    if not some:
        return "no ranked candidate has a D, nor a limit: none was followed by molecular dynamics"
    return f"no ranked candidate with a D has {x.column or 'a displacement'} in the table"
