"""Run every benchmark on whatever device there is; stop at ten minutes.

    python benchmarks/run_all.py

Prints one line per figure, or `not measured` with the reason.
"""

import importlib
import multiprocessing
import os
import pathlib
import platform
import sys
import time

import jax

BUDGET = 600.0  # s
SUITES = ("energy_forces", "force_constants", "batch", "dynamics", "neighbors")


def _suite(name, queue):
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    jax.config.update("jax_enable_x64", True)
    try:
        queue.put(importlib.import_module(name).main())
    except Exception as error:  # a benchmark that cannot run is a line, not an end
        queue.put([(name, f"not measured ({type(error).__name__}: {error})")])


def main() -> None:
    """Run the suites one after the other, each in a process of its own."""
    device = jax.devices()[0]
    print(f"{device.platform} {device.device_kind}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, jax {jax.__version__}")  # fmt: skip
    begin = time.monotonic()
    context = multiprocessing.get_context("spawn")
    for name in SUITES:
        queue = context.Queue()
        process = context.Process(target=_suite, args=(name, queue))
        process.start()
        try:
            figures = queue.get(timeout=max(1.0, BUDGET - (time.monotonic() - begin)))
        except Exception:
            figures = [(name, "not measured (out of time)")]
            process.kill()
        process.join()
        for what, figure in figures:
            print(f"{what:75s} {figure}", flush=True)


if __name__ == "__main__":
    main()
