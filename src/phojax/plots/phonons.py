"""From a finished row to the arrays of its figure: selection only."""

import numpy as np

from phojax.plots.data import Bands, DensityOfStates, FigureData, MeshModes
from phojax.plots.style import without_folders
from phojax.screening.row import PhononRow


def figure_data(row: PhononRow, temperature: float) -> FigureData:
    """Return what the figures of a row show.

    Args:
        row: The result.
        temperature: K, one of its temperatures.
    """
    found, record = row.analysis, row.record
    T = list(row.arrays["temperatures_K"]).index(temperature)
    path = found.path
    kept = found.on_mesh.kept
    ends = [s.start for s in path.segments], [s.stop - 1 for s in path.segments]
    starts = [
        s.start
        for before, s in zip(path.segments, path.segments[1:], strict=False)
        if np.abs(path.q[before.stop - 1] - path.q[s.start]).max() > 1e-8
    ]
    on_path = row.arrays["path_msd_mobile_A2"][T]
    return FigureData(
        bands=Bands(
            distance=path.distance,
            frequencies_THz=row.arrays["path_frequencies_THz"],
            msd_A2=np.where(on_path > 0, on_path, np.nan),
            coupling=row.arrays["path_coupling"],
            ticks=path.distance[np.ravel(ends, order="F")],
            labels=tuple(np.ravel(path.labels)),
            starts=(0, *starts),
        ),
        mesh=MeshModes(
            frequencies_THz=row.arrays["frequencies_THz"].ravel(),
            participation=row.arrays["participation_ratio"].ravel(),
            msd_A2=np.where(kept, row.arrays["msd_mobile_A2"][T], np.nan).ravel(),
            coupling=row.arrays["coupling"].ravel(),
        ),
        dos=DensityOfStates(
            frequencies_THz=found.grid_THz,
            total=np.asarray(found.sums.dos[0]),
            by_species=dict(zip(found.groups[1:], np.asarray(found.sums.dos[1:]), strict=True)),
            center_THz={s: record["pdos_center_THz"][s] for s in found.groups[1:]},
        ),
        acoustic_cutoff_THz={"band path": record["acoustic_cutoff_THz"]},
        mobile=record["mobile"],
        temperature_K=temperature,
        title=f"{record['formula']}, {record['space_group']}, "
        + without_folders(record.get("potential") or f"force constants from {record['program']}"),
        notes=tuple(record["flags"]),
        participation_label="Participation ratio",
    )
