"""Files for other programs, written on request."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from phojax.io.bands import write_band_yaml
from phojax.io.meshes import write_mesh_hdf5
from phojax.io.phonopy_files import write_phonopy
from phojax.io.website import write_website_json
from phojax.screening.eigenpairs import modes_on
from phojax.screening.row import PhononRow
from phojax.velocities import group_velocities, symmetrized_velocities

EXPORTS = ("band.yaml", "mesh.hdf5", "phononwebsite.json", "FORCE_CONSTANTS")


def write_exports(folder: pathlib.Path, row: PhononRow, born, names: Sequence[str]) -> None:
    """Write the files of these names (of `EXPORTS`) into the folder."""
    found = row.analysis
    for name in names:
        path = folder / name
        if name == "band.yaml":
            along = jax.jit(group_velocities)(
                found.held, found.path_modes, directions=jnp.asarray(found.path.directions)
            )
            # Averaged over the operations that keep q, as in phonopy's own file.
            mean = symmetrized_velocities(along, found.path_modes.q, row.group)
            write_band_yaml(
                path, found.path, found.path_modes, group_velocities=np.asarray(mean.vectors)
            )
        elif name == "phononwebsite.json":
            write_website_json(path, found.path, found.path_modes, name=row.record["name"])
        elif name == "FORCE_CONSTANTS":
            # In a folder of its own: beside force_constants.hdf5 phonopy would not look at it.
            write_phonopy(folder / "phonopy-text", row.force_constants, born=born, text=True)
        else:
            write_mesh_hdf5(path, found.mesh, modes_on(found.held, found.mesh))
