"""Compiled functions: kept for the next process, counted, shared among devices, let go in time.

They are let go before the system's limit on memory maps ends the process.

XLA maps memory for every function that it compiles on a CPU, about seven regions each, and Linux
allows a process 65 530 of them by default (vm.max_map_count). Crystals of many shapes reach that
after some dozens, and the compiler then dies of it. Nothing but time is lost by letting go: what is
needed again is compiled again, or read where it was kept.
"""

import ctypes
import gc
import hashlib
import os
import pathlib
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

_MAPS = pathlib.Path("/proc/self/maps")
_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")
_FOLDER = "jax_compilation_cache_dir"


def keep_compiled() -> pathlib.Path | None:
    """Let JAX keep what takes long to compile, for processes to come; return where.

    In a folder of this kind of processor, since code for another one may not run here, in
    $XDG_CACHE_HOME/phojax or ~/.cache/phojax; where JAX_COMPILATION_CACHE_DIR says, if it does (an
    empty one keeps nothing). None where nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.values.get(_FOLDER):
        return None
    try:
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(base) / "phojax" / f"compiled-{_processor()}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no room, or nobody's home
        return None
    jax.config.update(_FOLDER, str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def _processor() -> str:
    """Return what tells kinds of processors apart."""
    told = platform.machine() + platform.processor()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        told += "".join(dict.fromkeys(x for x in lines if x.startswith(("flags", "model name"))))
    except OSError:
        pass
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def let_go_of_compiled(share: float = 0.4) -> bool:
    """Drop all compiled functions where more than this share of the allowed maps is in use.

    Returns:
        Whether they were dropped; False where the system does not tell.
    """
    try:
        limit = int(_LIMIT.read_text())
        with _MAPS.open("rb") as file:
            used = sum(1 for _ in file)
    except (OSError, ValueError):
        return False
    if used <= share * limit:
        return False
    jax.clear_caches()
    gc.collect()
    trim_memory()
    return True


def trim_memory() -> None:
    """Hand memory that is free back to the system, where the C library can (glibc).

    The compiler leaves a heap in pieces: most of what a process holds after it may be free.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def resident_GiB() -> float:
    """Return how much memory this process has in use; 0 where the system does not tell."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


@dataclass
class Compilations:
    """What XLA has compiled in this process since this was made.

    Attributes:
        count: Functions.
        seconds: That it took.
    """

    count: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Begin to count."""
        jax.monitoring.register_event_duration_secs_listener(self._told)

    def _told(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.count += 1
            self.seconds += duration_secs


def peak_memory_bytes() -> float:
    """Return the most memory that was in use: of the first device, or of the process on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return float(stats["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024)


def on_all_devices(f: Callable, *arguments: Any) -> Any:
    """Return f(*arguments), each device of this machine with its share of their leading axis.

    Traceable. All of it is on one device where the axis does not divide.

    Args:
        f: Of arrays with a leading axis, into such; it treats the entries one by one.
        *arguments: Stacked.
    """
    count = jax.tree.leaves(arguments)[0].shape[0]
    devices = jax.local_device_count()
    if devices == 1 or count % devices:
        return f(*arguments)
    mesh = jax.make_mesh((devices,), ("stack",), axis_types=(AxisType.Auto,))
    part = PartitionSpec("stack")
    return jax.shard_map(f, mesh=mesh, in_specs=part, out_specs=part, check_vma=False)(*arguments)


def side_by_side(f: Callable, *arguments: Any) -> Any:
    """Return f over the leading axis of all arguments, on all devices; traceable.

    One after the other on a CPU, where side by side costs more.
    """
    return on_all_devices(lambda *part: _on_one_device(f, *part), *arguments)


def _on_one_device(f: Callable, *arguments: Any) -> Any:
    count = jax.tree.leaves(arguments)[0].shape[0]
    if count == 1:
        found = f(*jax.tree.map(lambda x: x[0], arguments))
        return jax.tree.map(lambda x: jnp.asarray(x)[None], found)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda given: f(*given), arguments)
    return jax.vmap(f)(*arguments)
