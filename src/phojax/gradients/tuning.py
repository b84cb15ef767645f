"""Parameters of a potential from phonons, by the gradient of what is off.

    loss(θ) = Σ_t s_t misfit_t(θ) / Σ_t s_t + k |θ - θ₀|²                                    (1)

over crystals t whose phonons are known, at the positions given or where the potential itself has
its minimum (then the derivative follows it: `total`). θ are some parameters of the potential, or
others that it is made of. The last term holds them near their start: a network has more of them
than a few crystals can tell. Crystals that are held out have no share in the loss; their misfit
at every step says what the change is worth.
"""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from phojax.brillouin import Mesh
from phojax.checks import fail
from phojax.compiled import let_go_of_compiled
from phojax.gradients.misfits import Misfit
from phojax.gradients.route import Route, floating
from phojax.gradients.total import value_and_gradient, vibrations
from phojax.implicit import Minimum, graph_of, minimum
from phojax.kept_steps import KeptSteps, Trail
from phojax.potentials.contract import Potential
from phojax.potentials.parameter_files import leaf_names, with_leaves
from phojax.structure import Structure

Parameters = Any
"""θ: a pytree of floating-point arrays."""


@dataclass(frozen=True, eq=False)
class Target:
    """A crystal whose phonons are known.

    Attributes:
        name: Of its own.
        crystal: Where the phonons are taken, or where relaxations start.
        route: From the potential at the start to D(q) of this crystal.
        misfit: A function of what the route gives; its own unit.
        relaxed: Whether the potential relaxes the crystal first, with the route's symmetry.
        cell: Whether the cell relaxes, too.
        weight: s of eq. (1).
        form: What becomes of the potential first, such as its average in a supercell
            (`force_constants.average`); the route is from that. None for nothing.
    """

    name: str
    crystal: Structure
    route: Route
    misfit: Misfit
    relaxed: bool = False
    cell: bool = True
    weight: float = 1.0
    form: Callable[[Potential], Potential] | None = None

    def entering(self, potential: Potential) -> Potential:
        """Return the potential as the route takes it."""
        return potential if self.form is None else self.form(potential)


@dataclass(frozen=True)
class Tuning:
    """What came of it.

    Attributes:
        trail: Per step "loss", "pull" (the last term of eq. (1)), "training" and "held_out" (the
            misfits by name) and "converged" (of the relaxations).
        best: Step of the lowest loss; held-out crystals have no say in it.
        parameters: θ of that step.
        potential: With them.
    """

    trail: Trail
    best: int
    parameters: Parameters
    potential: Potential


def chosen_parameters(
    potential: Potential, choose: Callable[[str], bool]
) -> tuple[dict[str, jax.Array], Callable[[Any], Potential]]:
    """Return some parameters of a potential by name, and what puts others in their place.

    Args:
        potential: The start.
        choose: Whether the leaf of that name, such as "readout/3/matrix", is to change.

    Raises:
        InputError: none chosen; the message lists the names.
    """
    names = leaf_names(potential.params)
    real = [n for n, leaf in names.items() if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    chosen = {name: jnp.asarray(names[name]) for name in real if choose(name)}
    if not chosen:
        raise fail("no parameter chosen", f"some of {', '.join(real)}")
    return chosen, lambda values: with_leaves(potential, values)


def at_points(q: Float[np.ndarray, "q 3"], weights: np.ndarray | None = None) -> Mesh:
    """Return a list of points for a route; equal weights by default.

    A route with a group keeps one point of each star of the list, the first.
    """
    count = len(q)
    share = np.full(count, 1 / count) if weights is None else np.asarray(weights) / np.sum(weights)
    return Mesh(
        np.asarray(q, float), share, (count, 1, 1), (0.0, 0.0, 0.0),
        np.arange(count), np.zeros(count, int), np.zeros(count, bool),
    )  # fmt: skip


def held(potential: Potential, crystal: Structure) -> Minimum:
    """Return a crystal for `value_and_gradient` that does not follow its parameters."""
    graph = graph_of(potential, crystal, potential.capacity(crystal))
    none = jnp.zeros((9, 0))
    at_rest = jnp.zeros((3 * len(crystal), 0))
    return Minimum(
        potential, crystal, graph, jnp.zeros(()), at_rest, none, jnp.ones(()), jnp.zeros((0, 0))
    )


def misfit_and_gradient(
    target: Target,
    made: Callable[[Any], Potential],
    parameters: Parameters,
    *,
    gradient: bool = True,
) -> tuple[float, Parameters | None, bool]:
    """Return the misfit of a crystal, its gradient in θ, and whether the relaxation converged.

    Args:
        target: The crystal.
        made: θ -> potential, differentiable in JAX.
        parameters: θ.
        gradient: Whether it is wanted; None without.

    Raises:
        InputError: values that are not finite.
    """
    let_go_of_compiled()
    model, converged = target.entering(made(parameters)), True
    if target.relaxed:
        here, how = minimum(
            model, target.crystal, symmetry=target.route.group, cell=target.cell
        )  # fmt: skip
        converged = bool(how.converged)
    else:
        here = held(model, target.crystal)
    # Crystals shrink and expand with their parameters.
    route = target.route.with_room_for(model, here.crystal)
    if not gradient:
        return float(target.misfit(vibrations(here, route))), None, converged
    found = value_and_gradient(target.misfit, here, route)
    _, back = jax.vjp(lambda given: floating(target.entering(made(given)).params)[0], parameters)
    (slopes,) = back(floating(found.by_parameters)[0])
    return found.value, slopes, converged


def tuned(
    made: Callable[[Any], Potential],
    start: Parameters,
    training: Sequence[Target],
    held_out: Sequence[Target] = (),
    *,
    steps: int,
    rate: float = 1e-3,
    pull: float = 0.0,
    optimiser: optax.GradientTransformation | None = None,
    folder: pathlib.Path | None = None,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> Tuning:
    """Return parameters for which eq. (1) is small (host).

    Args:
        made: θ -> potential, differentiable in JAX, of one kind for all θ.
        start: θ₀.
        training: What the loss is made of.
        held_out: What is watched beside it.
        steps: Evaluations of the loss, that of the start among them.
        rate: Length of Adam's first steps in θ; later ones fall to 0 as a cosine does.
        pull: k of eq. (1), in units of the misfits.
        optimiser: Instead of Adam.
        folder: Where steps are kept and found again, of this question alone; none to keep nothing.
        on_step: Called with the number of a step and what it found.

    Raises:
        InputError: fewer than two steps, no crystal, names given twice, values that are not finite.
    """
    targets = [*training, *held_out]
    if steps < 2 or not training:
        raise fail(f"{steps} steps with {len(training)} crystals", "2 steps or more, and a crystal")
    if len({t.name for t in targets}) < len(targets):
        raise fail(f"crystals named {', '.join(t.name for t in targets)}", "names of their own")
    how = optimiser or optax.adam(optax.cosine_decay_schedule(rate, steps))
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), start)
    state = {"here": start, "optimiser": how.init(start), "best": start}
    trail: Trail = []
    with KeptSteps(folder) as kept:
        found = kept.latest(state)
        if found is not None:
            state, trail = jax.tree.map(jnp.asarray, found[0]), found[1]
        while len(trail) < steps:
            here = state["here"]
            slopes, step = _step(made, here, start, training, held_out, pull)
            trail.append(step)
            lowest = step["loss"] <= min(s["loss"] for s in trail)
            changes, moved = how.update(slopes, state["optimiser"], here)
            state = {
                "here": optax.apply_updates(here, changes), "optimiser": moved,
                "best": here if lowest else state["best"],
            }  # fmt: skip
            kept.keep(len(trail), state, trail)
            if on_step is not None:
                on_step(len(trail), step)
    best = int(np.argmin([step["loss"] for step in trail]))
    return Tuning(trail, best, state["best"], made(state["best"]))


def _step(made, here, start, training, held_out, pull) -> tuple[Parameters, dict[str, Any]]:
    total = sum(target.weight for target in training)
    apart = jax.tree.map(jnp.subtract, here, start)
    penalty = pull * sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(apart))
    slopes = jax.tree.map(lambda leaf: 2 * pull * leaf, apart)
    misfits, converged = {}, []
    for target in (*training, *held_out):
        share = target.weight / total if target in training else None
        value, slope, fine = misfit_and_gradient(target, made, here, gradient=share is not None)
        converged.append(fine)
        misfits[target.name] = value
        if share is not None:
            slopes = jax.tree.map(lambda a, b, share=share: a + share * b, slopes, slope)
    loss = penalty + sum(t.weight / total * misfits[t.name] for t in training)
    return slopes, {
        "loss": float(loss), "pull": float(penalty),
        "training": {t.name: misfits[t.name] for t in training},
        "held_out": {t.name: misfits[t.name] for t in held_out},
        "converged": all(converged),
    }  # fmt: skip


__all__ = [
    "Parameters",
    "Target",
    "Tuning",
    "at_points",
    "chosen_parameters",
    "held",
    "misfit_and_gradient",
    "tuned",
]
