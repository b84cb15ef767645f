"""Who does the pieces of a screen: this process, or workers that Parsl starts.

A piece of work is a list of names and what to do with them; its results are in the store. A
worker that dies takes nothing with it but what it had not finished: Parsl gives its piece to
another one, which goes on from there.
"""

import functools
import os
import pathlib
import runpy
import sysconfig
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from threadpoolctl import threadpool_limits

from phojax.campaign.dynamics import compute_dynamics
from phojax.campaign.effective import compute_effective
from phojax.campaign.moduli import compute_moduli
from phojax.campaign.phonons import Shared, compute_phonons
from phojax.campaign.settings import ScreenSettings
from phojax.campaign.stages import Tell
from phojax.campaign.store import Store
from phojax.checks import fail
from phojax.compiled import Compilations, peak_memory_bytes
from phojax.potentials.catalogue import potential
from phojax.potentials.contract import Potential

_LATER = {
    "moduli": compute_moduli, "effective": compute_effective, "dynamics": compute_dynamics,
}  # fmt: skip
_RETRIES = 3
_SLOTS = 32  # relaxations side by side on a GPU; fewer where its memory does not hold them
_POLL = 0.5  # s


@dataclass(frozen=True)
class Work:
    """A piece of work; small enough to be sent.

    Attributes:
        out: The store's folder, the same path for all workers.
        kind: "phonons", "moduli", "effective" or "dynamics".
        names: Of the crystals.
        settings: Of the screen.
        potential: Its name, as on the command line.
    """

    out: str
    kind: str
    names: tuple[str, ...]
    settings: ScreenSettings
    potential: str


def done_here(
    work: Work, model: Potential, tell: Tell = lambda stage, done, of: None
) -> dict[str, Any]:
    """Do a piece of work in this process; return what it cost."""
    store, begin = Store(pathlib.Path(work.out)), time.monotonic()
    counted = _compilations()
    functions, took = counted.count, counted.seconds
    cost: dict[str, Any] = {}
    if work.kind in _LATER:
        computed = _LATER[work.kind](store, work.names, work.settings, model, tell)
    else:
        each = 1 if jax.default_backend() == "cpu" else _SLOTS
        slots = each * jax.local_device_count()
        found = compute_phonons(store, work.names, work.settings, model, tell, slots=slots)
        cost, computed = _cost(found), found.computed
    return cost | {
        f"{work.kind}_computed": computed,
        f"{work.kind}_s": time.monotonic() - begin,
        "compilations": counted.count - functions,
        "compilations_s": counted.seconds - took,
        "memory_GiB": peak_memory_bytes() / 2**30,
    }


@functools.lru_cache(maxsize=1)
def _compilations() -> Compilations:
    return Compilations()


def _cost(found: Shared) -> dict[str, Any]:
    return {
        "shapes_of_primitive_cells": found.relaxation_shapes,
        "shapes_of_supercells": found.force_constant_shapes,
        "padding_of_supercells": found.padding,
        **{f"{stage.replace(' ', '_')}_s": value for stage, value in found.seconds.items()},
    }


def local(model: Potential, tell: Tell) -> Callable[[list[Work]], list[dict[str, Any]]]:
    """Return what does pieces one after the other in this process."""
    return lambda pieces: [done_here(work, model, tell) for work in pieces]


def done_by_a_worker(work: Work) -> dict[str, Any]:
    """Do a piece of work in a process that Parsl started; return what it cost."""
    jax.config.update("jax_enable_x64", True)
    threadpool_limits(1, user_api="blas")
    return done_here(work, _model(work.potential))


@functools.lru_cache(maxsize=1)
def _model(name: str) -> Potential:
    return potential(name)


def parsl_engine(
    config: pathlib.Path | None, workers: int, logs: pathlib.Path, tell: Tell
) -> Callable[[list[Work]], list[dict[str, Any]]]:
    """Return what does pieces by the workers of Parsl, which replaces those that die.

    Args:
        config: Python file that defines `config`, a `parsl.Config`; None for processes on this
            machine.
        workers: How many, where there is no file.
        logs: Folder of Parsl's logs, where there is no file.
        tell: Where progress is told.

    Raises:
        InputError: no Parsl, or a file without a `config`.
    """
    try:
        import parsl
    except ImportError as error:
        raise fail(
            "--engine parsl: Parsl is not installed", "the package parsl",
            'Install it with: pip install "phojax[parsl]"',
        ) from error  # fmt: skip
    chosen = _config(config, workers, logs)
    # Parsl looks for its own scripts on the path, where those of an environment that was not
    # activated are not.
    scripts = sysconfig.get_path("scripts")
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    # Processes are started by fork and exec at once, which threads do not mind.
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)

    def engine(pieces: list[Work]) -> list[dict[str, Any]]:
        costs: list[dict[str, Any]] = []
        with parsl.load(chosen):
            app = parsl.python_app(done_by_a_worker)
            waiting = {app(work): work for work in pieces}
            total = len(waiting)
            while waiting:
                for future in [f for f in waiting if f.done()]:
                    work = waiting.pop(future)
                    error = future.exception()
                    if error is None:
                        costs.append(future.result())
                    else:  # what it finished is in the store; the rest is left for another time
                        first = f"{work.kind} of {work.names[0]}"
                        costs.append({"lost": f"{first} …: {type(error).__name__}: {error}"})
                tell("pieces of work", total - len(waiting), total)
                time.sleep(_POLL)
        return costs

    return engine


def _config(path: pathlib.Path | None, workers: int, logs: pathlib.Path) -> Any:
    import parsl
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    if path is None:
        executor = HighThroughputExecutor(
            label="processes",
            address="127.0.0.1",
            max_workers_per_node=workers,
            cores_per_worker=1e-6,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
            encrypted=False,
        )
        return parsl.Config(
            executors=[executor], retries=_RETRIES, initialize_logging=False, run_dir=str(logs)
        )
    try:
        found = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise fail(
            f"--config {path}: {type(error).__name__}: {error}", "a Python file that runs"
        ) from error
    if not isinstance(found, parsl.Config):
        raise fail(f"--config {path} has no `config`", "config = parsl.Config(…)")
    return found
