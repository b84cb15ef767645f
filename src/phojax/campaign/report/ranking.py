"""Which candidates are ranked, in which order, and which are set apart, with the reason.

Ranked are those that are done, dynamically stable, whose framework holds and whose flags do not
say that displacements or diffusion are something else; what flags say of a D that is below
detection anyway does not matter. First come those with a detected D, by falling D; then the others
(below detection, or without dynamics) by falling displacement of the mobile ions.
"""

import re
from dataclasses import dataclass, field

from phojax.campaign.report.folder import Row
from phojax.campaign.report.texts import number, shown
from phojax.learn.table import OF_DIFFUSION, SPOILING_FLAGS

_MSD = re.compile(r"msd_axis_mean_(\d+(?:\.\d+)?)K_A2")


@dataclass(frozen=True)
class Ranking:
    """Candidates of a screen.

    Attributes:
        ranked: The clean ones, the best first.
        apart: Done, but not to be ranked, as (row, why).
        dropped: All others, as (row, why).
        temperatures: K, of the displacements in the table, rising; as in its columns.
    """

    ranked: list[Row]
    apart: list[tuple[Row, str]] = field(default_factory=list)
    dropped: list[tuple[Row, str]] = field(default_factory=list)
    temperatures: tuple[str, ...] = ()

    @property
    def msd(self) -> str | None:
        """Name of the column that ranks: displacement along an axis at the highest temperature."""
        return f"msd_axis_mean_{self.temperatures[-1]}K_A2" if self.temperatures else None


def ranking(rows: list[Row]) -> Ranking:
    """Return the candidates in groups, see the module."""
    names = set().union(*rows) if rows else set()
    found = [match[1] for match in map(_MSD.fullmatch, names) if match]
    temperatures = tuple(sorted(found, key=float))
    result = Ranking([], [], [], temperatures)
    for row in rows:
        status = row.get("status") or "done"
        if status != "done":
            reason = shown(row.get("reason"))
            result.dropped.append((row, f"{status}: {reason}" if reason else str(status)))
            continue
        why = why_apart(row)
        if why:
            result.apart.append((row, why))
        else:
            result.ranked.append(row)
    result.ranked.sort(key=lambda row: _place(row, result.msd))
    return result


def why_apart(row: Row) -> str:
    """Return why a finished candidate is not ranked; "" where it is."""
    reasons = []
    if row.get("stable") is not True:
        unknown = row.get("stable") is None
        reasons.append("stability not known" if unknown else "dynamically unstable")
    if row.get("framework_holds") is False:
        reasons.append("the framework does not hold")
    flags = flags_of(row)
    detected = diffusion(row)[0] is not None
    reasons += [
        f"flag {flag}"
        for flag in SPOILING_FLAGS
        if flag in flags and (detected or flag not in OF_DIFFUSION)
    ]
    return "; ".join(reasons)


def flags_of(row: Row) -> list[str]:
    """Return the flags of a row."""
    return str(row.get("flags") or "").split()


def diffusion(row: Row) -> tuple[float | None, float | None, float | None, float | None]:
    """Return (D, low, high, limit) in Å²/ps; D is None where it is censored or not known.

    A limit is there for censored rows only: what D is below, at 95 %.
    """
    D = number(row, "D_A2_ps")
    low, high = number(row, "D_low_A2_ps"), number(row, "D_high_A2_ps")
    if row.get("D_censored"):
        limit = high if high is not None and high > 0 else number(row, "D_detection_limit_A2_ps")
        return None, None, None, limit
    return (D, low, high, None) if D is not None and D > 0 else (None, None, None, None)


def _place(row: Row, msd: str | None) -> tuple[int, float, str]:
    D = diffusion(row)[0]
    if D is not None:
        return 0, -D, row["id"]
    size = number(row, msd) if msd else None
    return (1, -size, row["id"]) if size is not None else (2, 0.0, row["id"])
