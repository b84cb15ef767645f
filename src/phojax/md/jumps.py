"""Jumps of ions between sites, and what a random walk made of them would diffuse.

An ion belongs to the site whose core, a ball around it, it was in last. A jump counts when the core
of another site, or of another image of the same one, is reached: an ion that leaves a core and
comes back has not jumped, so that vibrations do not count (Schmitt's trigger). The cores must not
overlap; what happens faster than the interval between frames is not seen.

    Γ = n / Σ_i t_i,   D_J = Σ_jumps d² / (6 Σ_i t_i),   f = D* / D_J                      (1)

n jumps of length d (between the sites), t_i the time from the first arrival of ion i at a site to
the end, D* the tracer diffusion coefficient, f the correlation factor: 1 for a random walk, less
where jumps are followed by jumps back.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from ase.geometry.minkowski_reduction import minkowski_reduce
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import KDTree

from phojax.checks import check_shape, fail
from phojax.md.density import IonDensity, check_density
from phojax.md.trajectory import Trajectory, host_of, without_drift
from phojax.structure import Structure

_CORE = 0.35  # of the shortest distance between sites
_NEVER = -1


@dataclass(frozen=True)
class JumpStatistics:
    """The jumps of a run, in the order of ions and time, and what they amount to.

    Attributes:
        sites: Å, Cartesian, inside the cell.
        core_radius: Å.
        number: Atomic number of the ion.
        ions: How many of them.
        observed_ps: Σ_i t_i of eq. (1).
        interval_ps: Between frames.
        ion: Of every jump, counted among the ions.
        frame: Of every jump, that of the arrival.
        origin: Site that was left.
        target: Site that was reached.
        vectors: From one to the other, Å.
        occupancy: Mean number of ions that belong to each site.
        core_share: Of the time, that ions are inside cores.
        vibration_A: Root mean square distance of ions from their mean place during a stay, flights
            from site to site left out; NaN without stays of two frames.
        notes: What a reader should know.
    """

    sites: Float[np.ndarray, "site 3"]
    core_radius: float
    number: int
    ions: int
    observed_ps: float
    interval_ps: float
    ion: Int[np.ndarray, " jump"]
    frame: Int[np.ndarray, " jump"]
    origin: Int[np.ndarray, " jump"]
    target: Int[np.ndarray, " jump"]
    vectors: Float[np.ndarray, "jump 3"]
    occupancy: Float[np.ndarray, " site"]
    core_share: float
    vibration_A: float
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ion)

    @property
    def rate_per_ps(self) -> float:
        """Γ of eq. (1): jumps per ion and ps."""
        return len(self) / self.observed_ps

    @property
    def rate_error_per_ps(self) -> float:
        """Standard error of Γ for jumps that know nothing of each other."""
        return float(np.sqrt(len(self))) / self.observed_ps

    @property
    def distances(self) -> Float[np.ndarray, " jump"]:
        """Lengths of the jumps in Å."""
        return np.linalg.norm(self.vectors, axis=1)

    @property
    def jump_diffusion(self) -> float:
        """D_J of eq. (1) in Å²/ps."""
        return float(np.sum(self.vectors**2)) / (6 * self.observed_ps)

    @property
    def residences_ps(self) -> Float[np.ndarray, " stay"]:
        """Times between successive jumps of an ion; long stays are missing from short runs."""
        return np.diff(self.frame)[self._follows()] * self.interval_ps

    @property
    def mean_residence_ps(self) -> float:
        """Observed time per jump, 1/Γ, which unfinished stays do not bias; inf without jumps."""
        return self.observed_ps / len(self) if len(self) else float("inf")

    @property
    def back_jump_share(self) -> float:
        """Share of jumps with a predecessor that undo it; NaN where there are none."""
        back = np.all(np.abs(self.vectors[1:] + self.vectors[:-1]) < 1e-6, axis=1)
        back &= self.target[1:] == self.origin[:-1]
        follows = self._follows()
        return float(back[follows].mean()) if follows.any() else float("nan")

    def _follows(self) -> Bool[np.ndarray, " pair"]:
        return self.ion[1:] == self.ion[:-1]


def correlation_factor(found: JumpStatistics, tracer_diffusion: float) -> float:
    """Return f of eq. (1), for D* in Å²/ps; NaN without jumps."""
    walk = found.jump_diffusion
    return tracer_diffusion / walk if walk > 0 else float("nan")


def distance_histogram(
    found: JumpStatistics, width: float = 0.1
) -> tuple[Float[np.ndarray, " bin"], Int[np.ndarray, " bin"]]:
    """Return the middles of bins of `width` Å and how many jumps have such a length."""
    longest = float(found.distances.max(initial=0.0))
    edges = np.arange(int(longest / width) + 2) * width
    counts, _ = np.histogram(found.distances, edges)
    return (edges[:-1] + edges[1:]) / 2, counts


def site_jumps(
    run: Trajectory,
    number: int,
    sites: Float[np.ndarray, "site 3"],
    *,
    core_radius: float | None = None,
) -> JumpStatistics:
    """Return the jumps of an element between sites, the motion of the host subtracted.

    Args:
        run: Frames.
        number: Atomic number of the ion.
        sites: Cartesian, Å, in the frame of the host at the first frame: of
            `sites_from_structure` or `sites_from_density`.
        core_radius: Å; 0.35 of the shortest distance between sites by default.

    Raises:
        InputError: an element that the run does not have, sites that coincide, cores that overlap
            or that no ion enters.
    """
    check_shape("sites", sites, (None, 3))
    some = run.numbers == number
    if not some.any() or len(sites) == 0:
        raise fail(f"element {number}, {len(sites)} sites", f"one of {sorted(set(run.numbers))}")
    shortest = shortest_distance(sites, run.cell)
    radius = _CORE * shortest if core_radius is None else float(core_radius)
    if not 0 < radius < shortest / 2:
        raise fail(
            f"cores of {radius:.3g} Å around sites {shortest:.3g} Å apart",
            "cores that do not touch",
            "Use a smaller core_radius, or remove doubled sites",
        )
    positions = without_drift(run.positions, run.masses, host_of(run.numbers, number))[:, some]
    inside = np.linalg.inv(run.cell)
    home = sites - np.floor(sites @ inside) @ run.cell
    site, cells = core_visits(positions, home, run.cell, radius)
    visited = site != _NEVER
    if not visited.any():
        raise fail(
            f"no ion within {radius:.3g} Å of a site", "sites of this run",
            "Take them from the density, or check that the cells agree",
        )  # fmt: skip
    last = np.maximum.accumulate(np.where(visited, np.arange(len(site))[:, None], _NEVER), axis=0)
    known = last != _NEVER
    state = np.where(known, np.take_along_axis(site, np.maximum(last, 0), 0), _NEVER)
    where = np.take_along_axis(cells, np.maximum(last, 0)[..., None], 0)
    moved = np.any(where[1:] != where[:-1], axis=2) | (state[1:] != state[:-1])
    ion, frame = np.nonzero((moved & known[:-1]).T)
    origin, target = state[frame, ion], state[frame + 1, ion]
    steps = where[frame + 1, ion] - where[frame, ion]
    observed = int(known[:-1].sum())  # intervals that begin with a site known
    core_share = float(visited.mean())
    notes = []
    if core_share < 0.5:
        notes.append(
            f"ions are within {radius:.2g} Å of a site for only {core_share:.0%} of the time: "
            "sites may be missing, or this radius too small"
        )
    return JumpStatistics(
        home,
        radius,
        int(number),
        int(some.sum()),
        max(observed, 1) * run.interval_ps,
        run.interval_ps,
        ion,
        frame + 1,
        origin,
        target,
        home[target] - home[origin] + steps @ run.cell,
        np.bincount(state[known], minlength=len(sites)) / len(state),
        core_share,
        _vibration(positions, last, visited, moved & known[:-1]),
        tuple(notes),
    )


def core_visits(
    positions: Float[np.ndarray, "frame ion 3"],
    sites: Float[np.ndarray, "site 3"],
    cell: Float[np.ndarray, "3 3"],
    radius: float,
) -> tuple[Int[np.ndarray, "frame ion"], Int[np.ndarray, "frame ion 3"]]:
    """Return the site whose core an ion is in, -1 for none, and the cell that this image is in.

    Args:
        positions: Å, unwrapped.
        sites: Å, inside the cell.
        cell: Å.
        radius: Of the cores, Å.
    """
    inverse = np.linalg.inv(cell)
    margin = radius * np.linalg.norm(inverse, axis=0)  # of a core, in units of the vectors
    reach = np.ceil(margin).astype(int)
    images = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    spread = (sites @ inverse)[:, None] + images
    near = np.all((spread > -margin) & (spread < 1 + margin), axis=2)
    which, image = np.argwhere(near).T
    tree = KDTree(spread[near] @ cell)
    flat = positions.reshape(-1, 3)
    base = np.floor(flat @ inverse)
    distance, found = tree.query(flat - base @ cell, distance_upper_bound=radius)
    hit, found = np.isfinite(distance), np.asarray(found)
    site = np.full(len(flat), _NEVER)
    site[hit] = which[found[hit]]
    cells = np.zeros((len(flat), 3), int)
    cells[hit] = base[hit].astype(int) + images[image[found[hit]]]
    return site.reshape(positions.shape[:2]), cells.reshape(positions.shape)


def _vibration(
    positions: np.ndarray, last: np.ndarray, visited: np.ndarray, jumped: np.ndarray
) -> float:
    """Return the scatter about the mean place of each stay, from its first to its last visit."""
    frames, ions = last.shape
    stay = np.zeros((frames, ions), int)
    stay[1:] = np.cumsum(jumped, axis=0)
    later = np.where(visited, np.arange(frames)[:, None], frames)
    following = np.minimum.accumulate(later[::-1], axis=0)[::-1]
    after = np.take_along_axis(stay, np.minimum(following, frames - 1), 0)
    counted = (last != _NEVER) & (following < frames) & (after == stay)
    label = (stay * ions + np.arange(ions))[counted]
    _, label, size = np.unique(label, return_inverse=True, return_counts=True)
    free = int(np.sum(size - 1))
    if free == 0:
        return float("nan")
    sample = positions[counted]
    mean = np.stack([np.bincount(label, x) / size for x in sample.T], axis=1)
    return float(np.sqrt(np.sum((sample - mean[label]) ** 2) / free))


def shortest_distance(sites: Float[np.ndarray, "site 3"], cell: Float[np.ndarray, "3 3"]) -> float:
    """Return the shortest distance in Å between two sites, images of one site included."""
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    cell = np.asarray(minkowski_reduce(cell)[0])  # whose shortest vectors are among the images
    place = sites @ np.linalg.inv(cell)
    place = place - np.floor(place)
    around = ((place[:, None] + images) @ cell).reshape(-1, 3)
    distance, _ = KDTree(around).query(place @ cell, k=2)
    return float(distance[:, 1].min())


def sites_from_structure(
    run: Trajectory, crystal: Structure, number: int
) -> Float[np.ndarray, "site 3"]:
    """Return an element's places in a crystal, moved along with the host to the first frame.

    Args:
        run: Frames.
        crystal: In the cell of the run, the host's atoms in the same order; it may have more or
            fewer of the mobile ions.
        number: Atomic number of the ion.

    Raises:
        InputError: another cell, other host atoms.
    """
    numbers, places = np.asarray(crystal.numbers), np.asarray(crystal.positions, float)
    if not np.allclose(np.asarray(crystal.cell), run.cell, atol=1e-2):
        raise fail("a crystal with another cell than the run's", "the same supercell")
    host, theirs = run.numbers != number, (numbers != number) & (numbers > 0)
    if not np.array_equal(run.numbers[host], numbers[theirs]):
        raise fail(
            "a crystal whose host is not the run's", "the same atoms in the same order",
            "Take the sites from the density instead",
        )  # fmt: skip
    sites = places[numbers == number]
    if not host.any():
        return sites
    apart = (run.positions[0][host] - places[theirs]) @ np.linalg.inv(run.cell)
    # a mean on the circle: atoms may be in other cells than in the crystal
    wave = np.sum(np.exp(2j * np.pi * apart) * run.masses[host, None], axis=0)
    middle = np.angle(wave) / (2 * np.pi)
    apart = apart - middle
    exact = middle + np.average(apart - np.rint(apart), axis=0, weights=run.masses[host])
    return sites + exact @ run.cell


def sites_from_density(
    density: IonDensity, *, separation: float = 1.5, least: float = 0.05
) -> Float[np.ndarray, "site 3"]:
    """Return the maxima of a density, Cartesian in Å, the highest first.

    Args:
        density: Smoothed by about 0.3 Å, else single counts are maxima.
        separation: Å; of maxima closer than that the higher is kept. It then moves to the centre of
            what is nearer than half of it.
        least: Maxima below this share of the highest are left out.
    """
    check_density(density)
    values, cell = density.values, density.cell
    peak = (values == ndimage.maximum_filter(values, 3, mode="wrap")) & (
        values >= least * values.max()
    )
    index = np.argwhere(peak)
    index = index[np.argsort(-values[peak], kind="stable")]
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    kept: list[np.ndarray] = []
    for place in index / np.array(values.shape):
        apart = (place - np.array(kept).reshape(-1, 1, 3) + images) @ cell
        if not kept or np.linalg.norm(apart, axis=-1).min() >= separation:
            kept.append(place)
    grid = np.stack(np.meshgrid(*(np.arange(n) / n for n in values.shape), indexing="ij"), -1)
    found = []
    for place in kept:
        apart = grid - place
        apart = (apart - np.rint(apart)) @ cell
        weight = values * (np.linalg.norm(apart, axis=-1) < separation / 2)
        found.append(place @ cell + np.einsum("xyz,xyza->a", weight, apart) / weight.sum())
    return np.array(found)
