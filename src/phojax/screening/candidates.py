"""What a screening is made of: structures with what their source says about them.

Standard keys of the metadata, each absent where the source does not know it:

    formation_energy_eV_atom, band_gap_eV, energy_above_hull_eV_atom   floats, eV and eV per atom
    source                                                             where the entry is from
"""

from dataclasses import dataclass, field
from typing import Any

from phojax.structure import Structure

FORMATION_ENERGY = "formation_energy_eV_atom"
BAND_GAP = "band_gap_eV"
ABOVE_HULL = "energy_above_hull_eV_atom"
SOURCE = "source"


@dataclass(frozen=True)
class Candidate:
    """One entry of a source, readable or not.

    Attributes:
        id: Unique in its source and fit for a file name; it does not depend on the order in
            which entries are read.
        structure: None where there is an error.
        metadata: Scalars by name; the standard keys are in the module's header.
        error: Why there is no structure: not readable, disordered, atoms too close.
        remarks: What a reader of the results should know.
    """

    id: str
    structure: Structure | None
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    remarks: tuple[str, ...] = ()
