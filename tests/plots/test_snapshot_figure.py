"""The figure of snapshots: who is drawn, named and left hollow."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from phojax.plots.figures import save_figure
from phojax.plots.snapshots import SnapshotData, snapshot_figure


def data(far: float) -> SnapshotData:
    msd = np.full((2, 6), 0.1) + 0.01 * np.arange(6)
    msd[1, 4] = far
    moved = np.zeros((2, 6), bool)
    moved[0, 2] = True
    return SnapshotData(
        "Na6, a potential, 12 atoms", "Na", 800.0, np.arange(6) + 3, ("snapshot 0", "snapshot 1"),
        msd, np.array([True, False]), moved, 0.25, np.repeat([0.08, 0.12], 3), ("other_structure",),
    )  # fmt: skip


@pytest.mark.parametrize(("far", "scale"), [(0.4, "linear"), (2.0, "log")])
def test_ions_that_stand_out_are_named(tmp_path, far, scale):
    figure = snapshot_figure(data(far))
    ions, share = figure.axes
    assert [t.get_text() for t in ions.texts] == ["atom 7"]
    assert ions.get_yscale() == scale
    levels = {float(line.get_ydata()[0]) for line in share.get_lines()}
    assert levels == {0.08, 0.12, 0.25}
    # Counted are the ions of the clean snapshot.
    assert sum(bar.get_width() for bar in share.patches) == 6
    points = [
        line for line in ions.get_lines() if line.get_marker() in "oD" and len(line.get_xdata())
    ]
    assert sum(len(line.get_xdata()) for line in points) == 12
    hollow = [to_rgba(line.get_markerfacecolor())[3] == 0 for line in points]
    assert sum(len(p.get_xdata()) for p, h in zip(points, hollow, strict=True) if h) == 6
    assert all(path.stat().st_size > 1000 for path in save_figure(figure, tmp_path / "figure"))
