"""The network of a .nqx file: a line of JSON, then the parameters as consecutive .npy records.

The first line holds the sizes of the network and the elements it knows; the records follow in the
order in which equinox writes the leaves of the nequix package's model. NumPy reads them as
numbers only: a pickle is refused unread. Neither nequix nor equinox is imported.

The network is rearranged for reading from it. The factors by which e3nn divides the sums of a
linear map, the mean number of neighbours, the scale and the shift of the energies are absorbed
into the parameters, with features ordered by degree l, component m, channel u.
"""

import json
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phojax.checks import InputError, fail

_LARGEST = 2**28  # bytes; the released files have 3 MB

# What the code in `model` takes for granted; a file that differs is another network.
_ARCHITECTURE = {"index_weights": False, "layer_norm": True, "radial_mlp_layers": 2}
_SIZES = ("lmax", "n_layers", "radial_basis_size", "radial_mlp_size")
_NUMBERS = ("cutoff", "radial_polynomial_p", "avg_n_neighbors", "scale", "shift")


class Path(NamedTuple):
    """A product of features of degree l1 with harmonics of degree l2 to messages of degree l3."""

    l1: int
    l2: int
    l3: int


class Architecture(NamedTuple):
    """Sizes of the network; hashable.

    Attributes:
        numbers: Atomic numbers it knows, in the order of its tables.
        channels: Of the hidden features, for l = 0, 1, …
        lmax: Of the spherical harmonics.
        layers: How many.
        basis: Radial functions.
        hidden: Width of the radial perceptrons.
        cutoff: Å.
        power: p of the envelope.
    """

    numbers: tuple[int, ...]
    channels: tuple[int, ...]
    lmax: int
    layers: int
    basis: int
    hidden: int
    cutoff: float
    power: int

    def inputs(self, layer: int) -> tuple[int, ...]:
        """Return the channels that enter a layer, by l."""
        return (len(self.numbers),) if layer == 0 else self.channels

    def outputs(self, layer: int) -> tuple[int, ...]:
        """Return the channels that leave it, by l; nothing but scalars leave the last."""
        return self.channels[:1] if layer == self.layers - 1 else self.channels

    def gated(self, layer: int) -> tuple[int, ...]:
        """Return the channels before the gate: one more scalar per channel of l > 0."""
        scalars, *others = self.outputs(layer)
        return (scalars + sum(others), *others)

    def paths(self, layer: int) -> list[Path]:
        """Return the products of a layer, ordered by l3, l1, l2 as the package's messages are."""
        return [
            Path(l1, l2, l3)
            for l3 in range(len(self.outputs(layer)))
            for l1 in range(len(self.inputs(layer)))
            for l2 in range(abs(l1 - l3), min(l1 + l3, self.lmax) + 1)
            if (l1 + l2 + l3) % 2 == 0  # parity
        ]


def network(path: pathlib.Path) -> tuple[Architecture, dict[str, Any]]:
    """Return the sizes and the parameters, these in the widest float JAX is set to.

    Raises:
        InputError: a file that cannot be read as that, or another architecture.
    """
    config, file = _opened(path)
    with file:
        architecture = _architecture(path, config)
        shapes = _shapes(architecture)
        leaves = [_record(path, file, *wanted) for wanted in shapes]
        if file.read(1):
            raise fail(f"{path} goes on after {len(leaves)} arrays", "the end of the file", _REMEDY)
    tree = _network(architecture, config, dict(zip([name for name, _ in shapes], leaves,
                                                   strict=True)))  # fmt: skip
    real = jnp.result_type(float)
    return architecture, jax.tree.map(lambda leaf: jnp.asarray(leaf, real), tree)


_REMEDY = "Fetch the file again, or use one that the nequix package 0.4.5 reads"


def _opened(path: pathlib.Path):
    """Return the content of the first line and the file, which stands after it."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise fail(f"{path}: {error.strerror}", "a .nqx file that can be read") from error
    try:
        if os.fstat(file.fileno()).st_size > _LARGEST:
            raise fail(f"{path} is larger than {_LARGEST} bytes", "a .nqx file", _REMEDY)
        config = json.loads(file.readline())
        if not isinstance(config, dict):
            raise ValueError(f"a {type(config).__name__}")
    except ValueError as error:  # InputError among them
        file.close()
        if isinstance(error, InputError):
            raise
        raise fail(
            f"{path} does not start with a JSON object ({error})", "a .nqx file", _REMEDY
        ) from error
    return config, file


def _architecture(path: pathlib.Path, config: dict[str, Any]) -> Architecture:
    wanted = (*_ARCHITECTURE, *_SIZES, *_NUMBERS, "atomic_numbers", "hidden_irreps")
    missing = [key for key in wanted if key not in config]
    if missing:
        raise fail(f"the first line of {path} lacks {', '.join(missing)}", "all sizes", _REMEDY)
    for key, value in _ARCHITECTURE.items():
        if config[key] != value:
            raise fail(f"{path}: {key} is {config[key]!r}", f"{value!r}, as released", _REMEDY)

    def refuse(key: str, expected: str) -> InputError:
        return fail(f"{path}: {key} is {config[key]!r}", expected, _REMEDY)

    for key in _SIZES:
        least = 2 if key == "n_layers" else 1
        if type(config[key]) is not int or not least <= config[key] <= 4096:
            raise refuse(key, f"a whole number from {least} to 4096")
    for key in _NUMBERS:
        if type(config[key]) not in (int, float) or not math.isfinite(config[key]):
            raise refuse(key, "a finite number")
    for key in ("cutoff", "avg_n_neighbors"):
        if not config[key] > 0:
            raise refuse(key, "a positive number")
    power = config["radial_polynomial_p"]
    if power != int(power) or power < 3:
        raise refuse("radial_polynomial_p", "a whole number of at least 3")
    numbers = config["atomic_numbers"]
    if not (
        isinstance(numbers, list)
        and numbers
        and all(type(z) is int and 1 <= z <= 118 for z in numbers)
        and len(set(numbers)) == len(numbers)
    ):
        raise refuse("atomic_numbers", "different atomic numbers from 1 to 118")
    channels = _channels(path, config["hidden_irreps"])
    if len(channels) > config["lmax"] + 1:
        raise refuse("hidden_irreps", f"degrees up to lmax, {config['lmax']}")
    return Architecture(
        tuple(sorted(numbers)),
        channels,
        config["lmax"],
        config["n_layers"],
        config["radial_basis_size"],
        config["radial_mlp_size"],
        float(config["cutoff"]),
        int(power),
    )


def _channels(path: pathlib.Path, irreps: Any) -> tuple[int, ...]:
    """Return the channels of "128x0e + 64x1o + …", each l once and with the parity (-1)^l."""
    channels = []
    for l, term in enumerate(str(irreps).split("+")):
        count, _, kind = term.strip().partition("x")
        if kind != f"{l}{'eo'[l % 2]}" or not count.isdecimal() or not 1 <= int(count) <= 4096:
            raise fail(
                f"{path}: hidden_irreps is {irreps!r}", "such as '128x0e + 64x1o + 32x2e'", _REMEDY
            )
        channels.append(int(count))
    return tuple(channels)


def _shapes(a: Architecture) -> list[tuple[str, tuple[int, ...]]]:
    """Return names and shapes of the records, in their order."""
    found: list[tuple[str, tuple[int, ...]]] = [("atom_energies", (len(a.numbers),))]
    for layer in range(a.layers):
        inputs, gated, paths = a.inputs(layer), a.gated(layer), a.paths(layer)
        widths = [sum(inputs[p.l1] for p in paths if p.l3 == l) for l in range(len(gated))]
        found += [(f"{layer}.radial.0", (a.basis, a.hidden))]
        found += [(f"{layer}.radial.1", (a.hidden, a.hidden))]
        found += [(f"{layer}.radial.2", (a.hidden, sum(widths)))]
        found += [(f"{layer}.first.{l}", (n, n)) for l, n in enumerate(inputs)]
        found += [(f"{layer}.second.{l}", (widths[l], n)) for l, n in enumerate(gated)]
        found += [
            (f"{layer}.skip.{l}", pair) for l, pair in enumerate(zip(inputs, gated, strict=False))
        ]
        found += [(f"{layer}.norm.{l}", (n,)) for l, n in enumerate(gated)]
    return [*found, ("readout", (a.channels[0], 1))]


def _record(path: pathlib.Path, file, name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError) as error:
        raise fail(
            f"{path}: {name} cannot be read ({error})", f"an array of shape {shape}", _REMEDY
        ) from error
    if array.shape != shape or array.dtype.kind != "f":
        raise fail(
            f"{path}: {name} is {array.dtype} of shape {array.shape}",
            f"real numbers of shape {shape}",
            _REMEDY,
        )
    array = array.astype(np.float64)
    if not np.all(np.isfinite(array)):
        raise fail(f"{path}: {name} holds values that are not finite", "finite numbers", _REMEDY)
    return array


def _network(a: Architecture, config: dict[str, Any], leaves: dict[str, np.ndarray]):
    """Return the nested parameters (see `model` for what they do)."""

    def mixed(name: str) -> np.ndarray:
        # e3nn divides the sum over n channels by √n.
        return leaves[name] / math.sqrt(len(leaves[name]))

    def by_degree(layer: int, kind: str) -> tuple[np.ndarray, ...]:
        names = (f"{layer}.{kind}.{l}" for l in range(len(a.gated(layer)) + len(a.channels)))
        return tuple(mixed(name) for name in names if name in leaves)

    neighbors = math.sqrt(config["avg_n_neighbors"])
    layers = [
        {
            "radial": tuple(leaves[f"{k}.radial.{n}"] for n in range(3)),
            "first": by_degree(k, "first"),
            "second": tuple(w / neighbors for w in by_degree(k, "second")),
            "skip": by_degree(k, "skip"),
            "norm": tuple(leaves[f"{k}.norm.{l}"] for l in range(len(a.gated(k)))),
        }
        for k in range(a.layers)
    ]
    first, *middle, last = layers
    return {
        "first": first,
        # Of the same shapes: one layer is compiled for all of them.
        "middle": jax.tree.map(lambda *leaves: np.stack(leaves), *middle) if middle else None,
        "last": last,
        "readout": mixed("readout")[:, 0] * config["scale"],
        "reference": leaves["atom_energies"] + config["shift"],
    }
