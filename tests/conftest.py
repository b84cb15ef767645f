"""Switches shared by all tests: float64, shape annotations checked, the shared data folder."""

import atexit
import os
import pathlib
import shutil
import tempfile

if not {"PYTEST_XDIST_WORKER", "JAX_COMPILATION_CACHE_DIR"} & set(os.environ):
    # Workers and the commands that tests start share what was compiled.
    _FOLDER = tempfile.mkdtemp(prefix="phojax-tests-")
    atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _FOLDER
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Most of the time of the tests is XLA's: it compiles three times faster where it optimises less.
# Whoever sets XLA_FLAGS, if to nothing, has the tests run as commands do.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false",
)

import jax
import pytest
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

# Stacks of small matrices are diagonalised ten times slower by several threads.
threadpool_limits(1, "blas")
jax.config.update("jax_enable_x64", True)
# Integers are good floats: beartype's numeric tower.
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook("phojax", _CHECKER)

_SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="module", autouse=True)
def _few_compiled_functions():
    """Let go of what a module compiled: a worker that runs all tests would exhaust its maps."""
    yield
    from phojax.compiled import let_go_of_compiled  # after the hook that checks annotations

    let_go_of_compiled(0.3)


_MOST_GIB = 3.0


@pytest.fixture(autouse=True)
def _bounded_memory():
    """Let go of what a test compiled where it is much: two workers share a laptop's memory."""
    yield
    from phojax.compiled import let_go_of_compiled, resident_GiB, trim_memory

    if resident_GiB() > _MOST_GIB:
        trim_memory()
        if resident_GiB() > _MOST_GIB:
            let_go_of_compiled(0.0)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with reference data beside the project; skips where it is absent."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"reference data not found at {_SHARED}")
    return _SHARED
