"""What a user may choose of a phonon calculation, checked, and stored with every result."""

from dataclasses import asdict, dataclass

import numpy as np
from ase.data import atomic_numbers

from phojax.brillouin import DEFAULT_SPACING
from phojax.checks import fail


@dataclass(frozen=True)
class PhononSettings:
    """Settings of one calculation; all of them are stored with the result.

    Attributes:
        mobile: Symbol of the mobile element.
        temperatures: K.
        supercell_atoms: Atoms of the supercell at least.
        supercell_atoms_max: Atoms of the supercell at most, where possible.
        width: Gaussian width of the averaged Hessian, Å; None for what the potential recommends.
        pairs: ± pairs of displacements in that average.
        displacement: Step in Å of force constants by differences of forces, the potential's graph
            made anew; None for automatic differentiation, where the potential allows it.
        mesh: Divisions of the Γ-centred mesh; None to follow from `mesh_spacing`.
        mesh_spacing: Å⁻¹, 2π included.
        force_constants_from: "supercell", "primitive" cell (see `bloch`; the same to rounding, at
            width 0 alone), or "auto" for what costs less.
        exact: Mesh and bands from D(q) of the potential itself, with nothing interpolated; at
            width 0 alone.
        relax: Relax positions and cell first.
        relax_cell: Let the cell relax, too.
        relax_on_average: Relax on the surface averaged with the same width.
        force_tolerance: eV/Å.
        stress_tolerance: eV/Å³.
        relax_steps: Evaluations at most.
        sum_rules: Enforce sum rules and permutation symmetry on force constants read from files.
        nac: Apply the non-analytic term where Born charges are given.
        symmetry_tolerance: Å.
        stability_THz: Modes below minus this make a crystal unstable.
        smallest_THz: Modes up to this count as no oscillators: rounding of a zero is none.
        smearing_THz: Of the densities of states.
        bond_cutoff: Bonds of the coupling, Å.
        low_frequency_THz: Up to which modes count as soft in shares and means.
        seed: Of all random numbers.
        descriptors: Functions of the user's own, each "module:function".
    """

    mobile: str = "Na"
    temperatures: tuple[float, ...] = (300.0, 800.0)
    supercell_atoms: int = 80
    supercell_atoms_max: int = 300
    width: float | None = None
    pairs: int = 6
    displacement: float | None = None
    mesh: tuple[int, int, int] | None = None
    mesh_spacing: float = DEFAULT_SPACING
    force_constants_from: str = "auto"
    exact: bool = False
    relax: bool = True
    relax_cell: bool = True
    relax_on_average: bool = False
    force_tolerance: float = 1e-3
    stress_tolerance: float = 1e-4
    relax_steps: int = 300
    sum_rules: bool = True
    nac: bool = True
    symmetry_tolerance: float = 1e-3
    stability_THz: float = 0.1
    smallest_THz: float = 1e-3
    smearing_THz: float = 0.1
    bond_cutoff: float = 3.5
    low_frequency_THz: float = 1.5
    seed: int = 0
    descriptors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise InputError for values that mean nothing."""
        if self.mobile not in atomic_numbers or self.mobile == "X":
            raise fail(f"mobile element {self.mobile!r}", "a chemical symbol such as Na")
        if not self.temperatures or not all(0 <= t < 1e5 for t in self.temperatures):
            raise fail(f"temperatures {list(self.temperatures)}", "numbers in K, 0 or more")
        if len({f"{t:g}" for t in self.temperatures}) < len(self.temperatures):
            raise fail(f"temperatures {list(self.temperatures)}", "each one once, to six digits")
        if self.mesh is not None and (
            len(self.mesh) != 3
            or not all(isinstance(n, int | np.integer) and n >= 1 for n in self.mesh)
        ):
            raise fail(f"mesh {list(self.mesh)}", "three integers of at least 1")
        if self.width is not None and not 0 <= self.width <= 0.5:
            raise fail(f"width {self.width} Å", "a length between 0 and 0.5 Å")
        if self.displacement is not None and not 0 < self.displacement <= 0.5:
            raise fail(f"displacement {self.displacement} Å", "a length up to 0.5 Å")
        if self.force_constants_from not in ("auto", "primitive", "supercell"):
            raise fail(f"force constants from {self.force_constants_from!r}",
                       "auto, primitive or supercell")  # fmt: skip
        if self.force_constants_from == "primitive" and (self.width or self.displacement):
            raise fail("force constants from the primitive cell with a width or a displacement",
                       "width 0 and automatic differentiation")  # fmt: skip
        if self.exact and (self.width or self.displacement):
            raise fail("the exact D(q) with a width or a displacement",
                       "width 0 and automatic differentiation")  # fmt: skip
        if self.pairs < 1:
            raise fail(f"{self.pairs} pairs of displacements", "at least 1")
        if not 1 <= self.supercell_atoms <= self.supercell_atoms_max:
            raise fail(
                f"a supercell of {self.supercell_atoms} to {self.supercell_atoms_max} atoms",
                "positive numbers, the smaller one first",
            )
        positive = (
            "mesh_spacing", "force_tolerance", "stress_tolerance", "relax_steps",
            "symmetry_tolerance", "smallest_THz", "smearing_THz", "bond_cutoff",
            "low_frequency_THz",
        )  # fmt: skip
        for name in positive:
            if not getattr(self, name) > 0:
                raise fail(f"{name} is {getattr(self, name)}", "a positive number")

    def as_dict(self) -> dict:
        """Return the settings as they are stored in records."""
        return asdict(self)
