"""What a user may choose of a screen, and what each stage of it depends on."""

from dataclasses import asdict, dataclass, field
from typing import Any

from phojax.checks import fail
from phojax.finite_temperature.effective import Sampling
from phojax.md.protocol import Protocol
from phojax.potentials.contract import Potential
from phojax.screening.filters import Filters
from phojax.screening.row import versions
from phojax.screening.settings import PhononSettings
from phojax.screening.store import identity, key_of
from phojax.screening.user import source_digest
from phojax.structure import Structure

_RELAXATION = (
    "relax", "relax_cell", "relax_on_average", "force_tolerance", "stress_tolerance",
    "relax_steps", "symmetry_tolerance",
)  # fmt: skip
_FORCE_CONSTANTS = (
    "supercell_atoms", "supercell_atoms_max", "width", "pairs", "displacement", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class DynamicsSettings:
    """Molecular dynamics of the crystals that are chosen for it.

    Attributes:
        crystals: How many of the stable ones, the first by `descriptor`; None for all, 0 for none.
        descriptor: Column of the table; the largest first.
        names: Crystals that move in their stead, stable or not.
        temperatures: K.
        replicas: Systems per crystal and temperature.
        atoms: Of the supercell at least.
        protocol: How.
        begin_ps: Where the ballistic part of an MSD ends.
        charge: Of a mobile ion, e.
        precision: Of the potential: "single", "double", or None for single where it is a network.
    """

    crystals: int | None = 0
    descriptor: str = ""
    names: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = (800.0,)
    replicas: int = 1
    atoms: int = 100
    protocol: Protocol = field(default_factory=Protocol)
    begin_ps: float = 2.0
    charge: float = 1.0
    precision: str | None = None

    def __post_init__(self) -> None:
        """Raise InputError for values that mean nothing."""
        if not self.temperatures or min(self.temperatures) <= 0:
            raise fail(f"temperatures {list(self.temperatures)}", "positive ones, K")
        if self.replicas < 1 or self.atoms < 2 or (self.crystals or 0) < 0:
            raise fail(
                f"{self.crystals} crystals, {self.replicas} replicas, {self.atoms} atoms",
                "at least one replica, two atoms, and no negative number",
            )


@dataclass(frozen=True)
class ScreenSettings:
    """All settings of a screen; stored with it.

    Attributes:
        phonons: Relaxation, force constants, descriptors.
        filters: Which candidates are computed.
        dynamics: Which of them move, and how.
        moduli: Whether the elastic moduli of stable crystals are computed.
        effective: How effective phonons at the temperatures are found, of stable and unstable
            crystals; None for harmonic phonons alone.
        duplicates: Whether structures that match another one are computed once.
    """

    phonons: PhononSettings = field(default_factory=PhononSettings)
    filters: Filters = field(default_factory=Filters)
    dynamics: DynamicsSettings = field(default_factory=DynamicsSettings)
    moduli: bool = False
    effective: Sampling | None = None
    duplicates: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain Python."""
        return asdict(self)


@dataclass(frozen=True)
class Keys:
    """Hashes of what the stages of one crystal depend on, each with those it builds on.

    Attributes:
        relaxation: Structure, potential, settings of the relaxation.
        force_constants: That, and supercell and Hessian.
        phonons: That, and everything of the record.
        moduli: The relaxation, and elasticity.
        effective: The phonons, and how samples are drawn.
        dynamics: The relaxation, and the runs.
    """

    relaxation: str
    force_constants: str
    phonons: str
    moduli: str
    effective: str
    dynamics: str


class KeyMaker:
    """Makes the keys of crystals for one potential and one choice of settings."""

    def __init__(self, model: Potential, settings: ScreenSettings) -> None:
        found = versions()
        given = settings.phonons.as_dict()
        first = {k: given[k] for k in _RELAXATION}
        if settings.phonons.relax_on_average:
            first |= {k: given[k] for k in _FORCE_CONSTANTS}
        self._relaxation = {
            **first, **identity(model), "versions": {k: found[k] for k in ("phojax", "jax")},
        }  # fmt: skip
        self._force_constants = {k: given[k] for k in _FORCE_CONSTANTS}
        rest = {k: v for k, v in given.items() if k not in (*_RELAXATION, *_FORCE_CONSTANTS)}
        codes = {name: source_digest(name) for name in settings.phonons.descriptors}
        self._phonons = {**rest, "codes": codes}
        self._moduli = {k: given[k] for k in ("seed", "supercell_atoms", "supercell_atoms_max")}
        self._sampling = asdict(settings.effective) if settings.effective else {}
        moving = asdict(settings.dynamics)
        for choice in ("crystals", "descriptor", "names"):  # of crystals: it changes no run
            del moving[choice]
        self._dynamics = {**moving, "mobile": settings.phonons.mobile}

    def keys(self, crystal: Structure) -> Keys:
        """Return the keys of a crystal."""
        digest = key_of(
            cell=crystal.cell.tolist(),
            positions=crystal.positions.tolist(),
            numbers=crystal.numbers.tolist(),
            masses=crystal.masses.tolist(),
        )
        relaxation = key_of(crystal=digest, **self._relaxation)
        constants = key_of(on=relaxation, **self._force_constants)
        phonons = key_of(on=constants, **self._phonons)
        return Keys(
            relaxation,
            constants,
            phonons,
            key_of(on=relaxation, **self._moduli),
            key_of(on=phonons, **self._sampling),
            key_of(on=relaxation, **self._dynamics),
        )
