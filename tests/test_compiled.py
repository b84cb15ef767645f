"""Compiled functions are dropped near the limit on memory maps, and compiled again."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp

from phojax import compiled
from phojax.compiled import keep_compiled


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


def test_kept_for_the_next_process(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "_FOLDER", "jax_platforms")  # one that is not set
    monkeypatch.setattr(jax.config, "update", lambda *given: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert keep_compiled() is None  # as the user has it
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    folder = keep_compiled()
    assert folder is not None
    assert folder.parent == tmp_path / "phojax"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert keep_compiled() is None  # no room: nothing else is lost


def test_the_second_process_reads_what_the_first_compiled(tmp_path):
    code = (
        "import jax, jax.numpy as jnp; from phojax import compiled\n"
        "compiled._WORTH_KEEPING = 0.0\n"
        "print(compiled.keep_compiled())\n"
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((7, 7)))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        kept.append({p.name for p in tmp_path.rglob("*-cache")})
    assert kept[0]
    assert kept[0] == kept[1]
