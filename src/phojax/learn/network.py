"""An ensemble of small networks that predict a mean and a variance, trained side by side.

    μ(x) = w·x + b + f(x),   s²(x) = softplus(g(x)) + floor                                  (1)

f and g share two hidden layers. Every member minimises the likelihood of target.py plus a Gaussian
prior ½ α Σ w² over all matrices, by Adam on all its rows at once. Members leave out different
parts of the chemical systems; α and the number of steps are those with the best mean likelihood
of what was left out. The state before the first step is among the choices: the mean of all.

Source of ensembles with variances: Lakshminarayanan et al., NeurIPS 30 (2017), arXiv:1612.01474.
"""

from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from phojax.learn.target import negative_log_likelihood

FLOOR = 1e-4
"""Least variance, of values scaled to unit variance."""
_UNIT = 0.5413248546129181  # softplus(this) = 1


class Regressor(nn.Module):
    """Eq. (1).

    Attributes:
        width: Neurons of a hidden layer.
    """

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "row feature"]):
        """Return means and variances (row,)."""
        h = nn.silu(nn.Dense(self.width, name="first")(x))
        h = nn.silu(nn.Dense(self.width, name="second")(h))
        nothing = nn.initializers.zeros
        linear = nn.Dense(1, kernel_init=nothing, name="linear")(x)[:, 0]
        bent = nn.Dense(1, kernel_init=nothing, use_bias=False, name="bent")(h)[:, 0]
        raw = nn.Dense(1, kernel_init=nothing, name="spread")(h)[:, 0]
        return linear + bent, nn.softplus(raw + _UNIT) + FLOOR


@partial(jax.jit, static_argnames=("width", "looks", "every", "rate"))
def training_path(
    keys: Key[Array, "network"],
    x: Float[Array, "row feature"],
    value: Float[Array, "row"],
    error: Float[Array, "row"],
    censored: Bool[Array, "row"],
    weight: Float[Array, "network row"],
    strength: Float[Array, "network"],
    *,
    width: int,
    looks: int,
    every: int,
    rate: float,
) -> tuple[Any, Float[Array, "look network row"], Float[Array, "look network row"]]:
    """Return parameters, means and variances of all rows along the training of many networks.

    Args:
        keys: Of the initial weights.
        x: Features.
        value: Scaled values, or limits.
        error: Scaled errors.
        censored: Rows with limits.
        weight: Rows that each network learns from: 1, else 0.
        strength: α.
        width: Neurons of a hidden layer.
        looks: How often is looked, the first time before the first step.
        every: Steps between looks.
        rate: Of Adam.
    """
    model = Regressor(width)
    adam = optax.adam(rate)

    def loss(params, w, alpha):
        mean, variance = cast(tuple[Array, Array], model.apply(params, x))
        nll = negative_log_likelihood(mean, variance, value, error, censored)
        matrices = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        prior = 0.5 * alpha * sum(jnp.sum(m**2) for m in matrices)
        return (jnp.sum(w * nll) + prior) / jnp.maximum(jnp.sum(w), 1.0)

    def one(key, w, alpha):
        params = model.init(key, x)

        def step(state, _):
            params, moments = state
            change, moments = adam.update(jax.grad(loss)(params, w, alpha), moments)
            return (optax.apply_updates(params, change), moments), None

        def look(state, _):
            seen = (state[0], *cast(tuple[Array, Array], model.apply(state[0], x)))
            state, _ = jax.lax.scan(step, state, None, length=every)
            return state, seen

        return jax.lax.scan(look, (params, adam.init(params)), None, length=looks)[1]

    return cast(tuple[Any, Array, Array], jax.vmap(one, out_axes=1)(keys, weight, strength))


@partial(jax.jit, static_argnames=("width",))
def member_outputs(
    params: Any, x: Float[Array, "row feature"], *, width: int
) -> tuple[Float[Array, "member row"], Float[Array, "member row"]]:
    """Return means and variances of each member."""
    model = Regressor(width)
    return cast(tuple[Array, Array], jax.vmap(lambda p: model.apply(p, x))(params))
