"""Which columns of Φ(q) at which q determine Φ at all points of a mesh, by symmetry. On the host.

An operation {W|w} with the Cartesian rotation R takes atom i to p(i) and Φ(q) to

    Φ_p(i)p(j)(qW⁻¹) = R Φ_ij(q) Rᵀ,   Φ(-q) = Φ(q)*,
    Φ_ij(q - G) = exp(iG·r_i) Φ_ij(q) exp(-iG·r_j)                                             (1)

in the convention of `bloch`. Points of one star follow from one of them. Operations that lead from
that point back to it, up to a G, are its little group; they relate its columns, as site groups
relate rows of force constants (`force_constants.reduction`):

    Φ_p(i)p(a)(q) R d = exp(iG·(r_p(i) - r_p(a))) R [Φ_ia(q) d],                               (2)

its complex conjugate in brackets where the operation takes q to -q.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float, Int

from phojax.force_constants.reduction import spanning_directions
from phojax.symmetry import SpaceGroup, no_symmetry

_SAME_POINT = 1e-6


@dataclass(frozen=True)
class _Little:
    """Operations from a point to itself: number, whether time is reversed, and G (fractional)."""

    operations: np.ndarray
    reversed: np.ndarray
    G: np.ndarray


class IndependentColumns:
    """The columns to compute, and the way from them to the matrices of all points.

    Attributes:
        q: (row, 3) fractional.
        atoms: (row,) the atom that is displaced.
        directions: (row, 3) Cartesian unit vectors.
        points: How many points they belong to, of `of` in all.
        real: Whether matrices are real in the gauge of cells: 2q is a G at all points.
    """

    def __init__(
        self,
        points: Float[np.ndarray, "q 3"],
        fractional: Float[np.ndarray, "atom 3"],
        group: SpaceGroup | None,
    ) -> None:
        """Choose them.

        Args:
            points: All that are wanted; of their images under symmetry those among them are used.
            fractional: Of the atoms.
            group: Their space group, exact; None to use time reversal alone.
        """
        self._all, self._x = points, fractional
        self._group = group or no_symmetry(len(fractional))
        self._inverse = np.linalg.inv(self._group.rotations)
        self._from = np.full(len(points), -1)
        self._by = np.zeros((len(points), 2), int)  # operation, and whether time is reversed
        chosen = []
        for number in range(len(points)):
            if self._from[number] < 0:
                self._reach(number, len(chosen))
                chosen.append(number)
        self._chosen = np.array(chosen)
        self._little = [self._back_to(points[number]) for number in chosen]
        rows = [
            (k, atom, direction)
            for k, little in enumerate(self._little)
            for atom, directions in self._independent(little)
            for direction in directions
        ]
        self._at = np.array([k for k, _, _ in rows])
        self.atoms = np.array([atom for _, atom, _ in rows])
        self.directions = np.array([direction for _, _, direction in rows])
        self.q = points[self._chosen[self._at]]
        self.points, self.of = len(chosen), len(points)
        self.real = bool(np.abs(2 * points - np.rint(2 * points)).max(initial=0.0) < _SAME_POINT)

    @property
    def chosen_q(self) -> Float[np.ndarray, "point 3"]:
        """The points that rows belong to, fractional."""
        return self._all[self._chosen]

    @property
    def chosen_from(self) -> Int[np.ndarray, " q"]:
        """For each of all points the place in `chosen_q` of the one that it follows from."""
        return self._from

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def work(self) -> int:
        """Products of Hessians with waves, times the atoms of each: what it costs."""
        return len(self) * len(self._x) * (1 if self.real else 2)

    def matrices(
        self, columns: Complex[np.ndarray, "row atom 3"]
    ) -> Complex[np.ndarray, "q mode mode"]:
        """Return Φ(q) of all points from Φ_ia(q) d of every row."""
        return self.unfolded(self.chosen_matrices(columns))

    def unfolded(
        self, chosen: Complex[np.ndarray, "point mode mode"]
    ) -> Complex[np.ndarray, "q mode mode"]:
        """Return matrices at all points from those at `chosen_q`, by eq. (1)."""
        n = len(self._x)
        found = np.asarray(chosen).reshape(-1, n, 3, n, 3)
        out = np.empty((len(self._all), n, 3, n, 3), complex)
        for number, (place, (op, back)) in enumerate(zip(self._from, self._by, strict=True)):
            R = self._group.rotations_cartesian[op]
            origin = np.argsort(self._group.permutation[op])
            given = np.einsum("ab,ibjc,dc->iajd", R, found[place][origin][:, :, origin], R)
            arrived = self._all[self._chosen[place]] @ self._inverse[op]
            if back:
                given, arrived = given.conj(), -arrived
            phase = np.exp(2j * np.pi * self._x @ np.rint(arrived - self._all[number]))
            out[number] = phase[:, None, None, None] * given * phase.conj()[:, None]
        return out.reshape(len(out), 3 * n, 3 * n)

    def chosen_matrices(self, columns: Any, fractional: Any = None) -> Any:
        """Return Φ(q) at `chosen_q`, (q, mode, mode).

        Args:
            columns: (row, atom, 3), complex: an array of numpy, or one of JAX, traced or not.
            fractional: Of the atoms, to differentiate in; by default as given.
        """
        xp = jnp if isinstance(columns, jax.Array) else np
        n, x = len(self._x), self._x if fractional is None else fractional
        found = [
            self._whole(little, columns[np.flatnonzero(self._at == k)], self._at == k, x)
            for k, little in enumerate(self._little)
        ]
        return xp.stack(found).reshape(len(found), 3 * n, 3 * n)

    def _reach(self, number: int, place: int) -> None:
        """Note which points follow from a chosen one."""
        turned = self._all[number] @ self._inverse
        for back in (0, 1):
            for op, target in enumerate(-turned if back else turned):
                at = self._number_of(target)
                if at is not None and self._from[at] < 0:
                    self._from[at], self._by[at] = place, (op, back)
        same = np.all(self._group.rotations == np.eye(3, dtype=int), axis=(1, 2))
        fixed = np.all(self._group.permutation == np.arange(len(self._x)), axis=1)
        self._from[number], self._by[number] = place, (int(np.flatnonzero(same & fixed)[0]), 0)

    def _number_of(self, q: Float[np.ndarray, "3"]) -> int | None:
        apart = self._all - q
        hit = np.flatnonzero(np.abs(apart - np.rint(apart)).max(axis=1) < _SAME_POINT)
        return int(hit[0]) if len(hit) else None

    def _back_to(self, q: Float[np.ndarray, "3"]) -> _Little:
        turned = q @ self._inverse
        both = np.concatenate([turned, -turned]) - q
        G = np.rint(both)
        keep = np.flatnonzero(np.abs(both - G).max(axis=1) < _SAME_POINT)
        count = len(self._group)
        return _Little(keep % count, keep >= count, G[keep])

    def _independent(self, little: _Little) -> list[tuple[int, list[np.ndarray]]]:
        """Return the atoms whose columns are not related, with directions."""
        went = self._group.permutation[little.operations]
        R = self._group.rotations_cartesian[little.operations]
        return [
            (int(a), spanning_directions(R[went[:, a] == a])) for a in np.unique(went.min(axis=0))
        ]

    def _whole(self, little: _Little, columns: Any, mine: np.ndarray, x: Any) -> Any:
        """Return Φ(q) of a chosen point by eq. (2), averaged over the little group."""
        xp = jnp if isinstance(columns, jax.Array) else np
        went = self._group.permutation[little.operations]
        back = np.argsort(went, axis=1)
        R = self._group.rotations_cartesian[little.operations]
        phase = xp.exp(2j * np.pi * (little.G @ x.T))  # (op, atom)
        atoms, directions = self.atoms[mine], self.directions[mine]

        def turned(ops, values, a):
            """Take what belongs to atom a, (atom, 3, any), through operations, in a row."""
            both = xp.stack([values, values.conj()])
            there = both[little.reversed[ops].astype(int)[:, None], back[ops]]
            own = phase[ops] * phase[ops, went[ops, a]].conj()[:, None]
            return own[:, :, None, None] * xp.einsum("oab,oibc->oiac", R[ops], there)

        reached, found = [], []
        for a in np.unique(atoms):
            of_a = np.flatnonzero(atoms == a)
            given = columns[of_a].transpose(1, 2, 0)  # (atom, 3, direction)
            site = np.flatnonzero(went[:, a] == a)
            images = np.einsum("oab,db->aod", R[site], directions[of_a])
            seen = turned(site, given, a).transpose(1, 2, 0, 3)  # (atom, 3, op, direction)
            column = seen.reshape(*seen.shape[:2], -1) @ np.linalg.pinv(images.reshape(3, -1))
            orbit, first = np.unique(went[:, a], return_index=True)
            reached.append(orbit)
            found.append(xp.einsum("oiac,odc->oiad", turned(first, column, a), R[first]))
        order = np.argsort(np.concatenate(reached))
        return xp.concatenate(found)[order].transpose(1, 2, 0, 3)


__all__ = ["IndependentColumns"]
