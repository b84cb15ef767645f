"""Modes on a mesh as mesh.hdf5, in phonopy's format.

    mesh (3), qpoint (q, 3), weight (q) as counts of points of the full mesh,
    frequency (q, mode) in THz, eigenvector (q, atom·xyz, mode): columns, group_velocity (q, mode,
    3) in Å THz

Eigenvectors are those of D(q) with the phases exp(iq·(r_j + R − r_i)), as here.
"""

import os

import h5py
import numpy as np
from jaxtyping import Float

from phojax.brillouin import Mesh
from phojax.checks import check_shape, fail
from phojax.io.atomic import replacing
from phojax.modes import Modes


def write_mesh_hdf5(
    path: str | os.PathLike,
    mesh: Mesh,
    found: Modes,
    *,
    group_velocities: Float[np.ndarray, "q mode 3"] | None = None,
    eigenvectors: bool = True,
) -> None:
    """Write the modes at the irreducible points of a mesh as mesh.hdf5.

    Args:
        path: Of the file.
        mesh: The mesh.
        found: Modes at `mesh.q`.
        group_velocities: ∂ω/∂q in Å THz, ω = 2πν in rad/ps and q with 2π (the two cancel).
        eigenvectors: Whether to write them.

    Raises:
        InputError: modes at other q-points, velocities of another shape.
    """
    q = np.asarray(found.q)
    if q.shape != mesh.q.shape or np.abs(q - mesh.q).max() > 1e-8:
        raise fail(
            f"modes at {len(q)} q-points that are not those of the mesh",
            f"its {len(mesh.q)} irreducible points in their order",
            "Compute modes(constants, mesh.q)",
        )
    counts = np.bincount(mesh.irreducible, minlength=len(q))
    arrays = {
        "mesh": np.asarray(mesh.divisions, np.int64),
        "qpoint": q,
        "weight": counts.astype(np.int64),
        "frequency": np.asarray(found.frequencies_THz),
    }
    if eigenvectors:
        e = np.asarray(found.eigenvectors)
        arrays["eigenvector"] = e.reshape(*e.shape[:2], -1).swapaxes(1, 2)
    if group_velocities is not None:
        check_shape("group velocities", group_velocities, (*found.eigenvalues.shape, 3))
        arrays["group_velocity"] = np.asarray(group_velocities)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression=None if name == "mesh" else "gzip")
