"""Small .nqx files with random numbers, in the byte format of the nequix package.

One line of JSON, then the leaves in the order in which equinox writes those of the package's
model, each by `numpy.save`.
"""

import io
import json

import numpy as np

CONFIG = {
    "atomic_numbers": [17, 8, 11],  # not sorted: the tables are
    "hidden_irreps": "8x0e + 6x1o + 5x2e",
    "lmax": 2,
    "n_layers": 3,
    "radial_basis_size": 4,
    "radial_mlp_size": 7,
    "radial_mlp_layers": 2,
    "radial_polynomial_p": 6.0,
    "mlp_init_scale": 4.0,
    "index_weights": False,
    "layer_norm": True,
    "cutoff": 4.1,
    "avg_n_neighbors": 17.3,
    "scale": 0.8,
    "shift": -1.7,
    "kernel": True,
}


def shapes(config) -> list[tuple[int, ...]]:
    """Return the shapes of the records, counted out path by path."""
    species = len(config["atomic_numbers"])
    hidden = [int(term.split("x")[0]) for term in config["hidden_irreps"].split("+")]
    width, found = config["radial_mlp_size"], [(species,)]
    for layer in range(config["n_layers"]):
        last = layer == config["n_layers"] - 1
        inputs = [species] if layer == 0 else hidden
        outputs = hidden[:1] if last else hidden
        sent = [0] * len(outputs)
        for l1, channels in enumerate(inputs):
            for l2 in range(config["lmax"] + 1):
                for l3 in range(abs(l1 - l2), l1 + l2 + 1):
                    if l3 < len(outputs) and (l1 + l2 + l3) % 2 == 0:
                        sent[l3] += channels
        gated = [sum(outputs), *outputs[1:]]
        found += [(config["radial_basis_size"], width), (width, width), (width, sum(sent))]
        found += [(n, n) for n in inputs]
        found += list(zip(sent, gated, strict=True))
        found += list(zip(inputs, gated, strict=False))
        found += [(n,) for n in gated]
    return [*found, (hidden[0], 1)]


def leaves(config=CONFIG, seed: int = 0) -> list[np.ndarray]:
    """Return random float32 arrays of these shapes, of the size that keeps features near 1."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes(config)]


def content(config=CONFIG, arrays=None) -> bytes:
    """Return what such a file holds."""
    file = io.BytesIO()
    file.write((json.dumps(config) + "\n").encode())
    for array in leaves(config) if arrays is None else arrays:
        np.save(file, array)
    return file.getvalue()
