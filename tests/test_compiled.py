"""Compiled functions are dropped near the limit on memory maps, and compiled again."""

import jax
import jax.numpy as jnp

from phojax import compiled


def maps():
    return sum(1 for _ in compiled._MAPS.open())


def test_dropped_above_the_share_only(monkeypatch, tmp_path):
    function = jax.jit(lambda x: jnp.linalg.eigvalsh(x @ x.T).sum())
    first = float(function(jnp.eye(5)))
    assert not compiled.let_go_of_compiled(0.99)
    for n in range(6, 26):
        function(jnp.eye(n))
    before = maps()
    assert compiled.let_go_of_compiled(0.0)
    assert maps() < before
    assert float(function(jnp.eye(5))) == first
    monkeypatch.setattr(compiled, "_MAPS", tmp_path / "not-linux")
    assert not compiled.let_go_of_compiled(0.0)
