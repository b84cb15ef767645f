"""What was learnt from the table: correlation bars, their control, the surrogate."""

from typing import Any

from phojax.campaign.report.figures import Drawing
from phojax.campaign.report.folder import Row, ScreenFolder
from phojax.campaign.report.texts import drawn, listing, mapping, number, safe, shown

_DRAWN = 25

CONTROL = (
    "A line through the origin takes vibrations for diffusion: with no diffusion at all it still "
    "returns a D proportional to the displacement. A coefficient that is large for “through the "
    "origin” and small for “with intercept” on the same rows is made by the fit, not by the "
    "crystals; “what the origin adds” is the correlation of their difference alone."
)


def correlation_drawing(folder: ScreenFolder) -> Drawing:
    """Return the bars of Spearman's coefficient with D, the strongest first."""
    name, title = "correlations", "Correlation of descriptors with D"
    rows = _of(folder.correlations, "D", "spearman")
    rows = [r for r in rows if number(r, "value") is not None]
    if not rows:
        why = "nothing was learnt: run phojax learn TABLE --out DIR/learn"
        if folder.learning is not None:
            why = "no coefficient is defined"
        return Drawing(name, title, missing=why)
    rows = rows[:_DRAWN][::-1]  # plotly draws upwards
    values = [number(r, "value") or 0.0 for r in rows]
    ends = [(number(r, "low"), number(r, "high")) for r in rows]
    paper = {r["descriptor"]: number(r, "value")
             for r in _of(folder.correlations, "D_paper", "spearman")}  # fmt: skip
    names = [drawn(shown(r.get("descriptor"))) for r in rows]
    kinds = [r.get("kind") == "needs_md" for r in rows]
    data: list[dict[str, Any]] = [{
        "type": "bar", "orientation": "h", "y": names, "x": values, "name": "D with intercept",
        "marker": {"color": ["--second" if md else "--host" for md in kinds],
                   "pattern": {"shape": ["/" if md else "" for md in kinds],
                               "fgcolor": "--paper", "fillmode": "overlay"}},
        "error_x": {
            "type": "data", "symmetric": False, "color": "--ink", "thickness": 1.2,
            "array": [h - v if h is not None else 0
                      for v, (_, h) in zip(values, ends, strict=True)],
            "arrayminus": [v - low if low is not None else 0
                           for v, (low, _) in zip(values, ends, strict=True)],
        },
        "text": [drawn(_said(r)) for r in rows], "textposition": "none",
        "hovertemplate": "%{y}<br>%{text}<extra></extra>",
    }]  # fmt: skip
    if any(v is not None for v in paper.values()):
        data.append({
            "type": "scatter", "mode": "markers", "y": names, "name": "through the origin",
            "x": [paper.get(r["descriptor"]) for r in rows],
            "marker": {"symbol": "diamond-open", "size": 9, "color": "--mobile",
                       "line": {"width": 2}},
        })  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "Spearman’s ρ with D (no unit)"}, "range": [-1.05, 1.05]},
        "yaxis": {"automargin": True, "dtick": 1, "title": {"text": ""}},
        "height": 150 + 22 * len(rows),
    }
    missing = sum(low is None for low, _ in ends)
    caption = "Bars: 95 % bootstrap intervals over chemical systems. Hatched: descriptors from the "
    caption += "dynamics that D comes from."
    caption += f" {missing} without an interval (too few rows)." if missing else ""
    return Drawing(name, title, caption, data, layout)


def learning_html(folder: ScreenFolder) -> str:
    """Return the control and the surrogate as HTML."""
    if folder.learning is None:
        return ""
    return _control_html(folder) + _surrogate_html(folder.learning)


def _control_html(folder: ScreenFolder) -> str:
    statistic = "pearson, control"
    targets = {"D": "with intercept", "D_paper": "through the origin",
               "D_paper minus D": "what the origin adds"}  # fmt: skip
    by: dict[str, dict[str, Row]] = {}
    for target in targets:
        for row in _of(folder.correlations, target, statistic):
            by.setdefault(shown(row.get("descriptor")), {})[target] = row
    if not by:
        return "<p class=missing>No control: there are no fits through the origin in the table.</p>"
    strongest = _of(folder.correlations, "D", "spearman")
    names = [shown(r.get("descriptor")) for r in strongest if shown(r.get("descriptor")) in by]
    body = "".join(
        f"<tr><th scope=row>{safe(name)}</th>"
        + "".join(f"<td>{safe(_interval(by[name].get(target, {})))}</td>" for target in targets)
        + "</tr>"
        for name in names[:_DRAWN]
    )
    head = "".join(f"<th scope=col>{safe(text)}</th>" for text in targets.values())
    return (
        "<h3>Control: Pearson’s r of the same rows, two fits</h3>"
        f"<p>{CONTROL}</p><div class=scroll><table><thead><tr><th scope=col>descriptor</th>{head}"
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _surrogate_html(record: dict[str, Any]) -> str:
    head = "<h3>Surrogate for log<sub>10</sub> D</h3>"
    rows = (
        f"{shown(record.get('rows'))} structures, {shown(record.get('detected'))} with a detected "
        f"D, {shown(record.get('below_detection'))} below detection"
    )
    if not record.get("surrogate"):
        why = shown(record.get("why_untrained")) or "no reason is recorded"
        return f"{head}<p>Not trained: {safe(why)} ({safe(rows)}).</p>"
    columns = {"rmse": "RMSE (log10 D)", "spearman": "Spearman’s ρ", "nll": "NLL (per row)",
               "coverage_68_all": "in the 68 % interval",
               "coverage_95_all": "in the 95 % interval"}  # fmt: skip
    body = ""
    for model, metrics in mapping(record.get("cross_validation")).items():
        found = mapping(metrics)
        cells = []
        for key in columns:
            value = number(found, key)
            text = "" if value is None else f"{value:.0%}" if "coverage" in key else f"{value:.2f}"
            low, high = number(found, f"{key}_low"), number(found, f"{key}_high")
            text += f" ({low:.2f}…{high:.2f})" if low is not None and high is not None else ""
            cells.append(f"<td>{safe(text)}</td>")
        body += f"<tr><th scope=row>{safe(model)}</th>{''.join(cells)}</tr>"
    top = "".join(f"<th scope=col>{safe(text)}</th>" for text in columns.values())
    used = ", ".join(shown(c) for c in listing(record.get("surrogate_descriptors")))
    return (
        f"{head}<p>Validated on chemical systems it has not seen: {safe(rows)}. It is worth using "
        "where it beats the plain models below.</p><div class=scroll><table><thead><tr>"
        f"<th scope=col>model</th>{top}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<p class=small>Descriptors: {safe(used)}.</p>"
    )


def _of(rows: list[Row], target: str, statistic: str) -> list[Row]:
    kept = [r for r in rows if r.get("target") == target and r.get("statistic") == statistic]
    return sorted(kept, key=lambda r: -abs(number(r, "value") or 0.0))


def _said(row: Row) -> str:
    q = number(row, "q")
    said = f"ρ = {_interval(row)}, n = {shown(row.get('n'))}"
    said += f", {shown(row.get('n_censored'))} below detection"
    said += "" if q is None else f", q = {q:.2g}"
    return said


def _interval(row: Row) -> str:
    value, low, high = (number(row, key) for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    known = low is not None and high is not None
    return f"{value:.2f} ({low:.2f}…{high:.2f})" if known else f"{value:.2f}"
