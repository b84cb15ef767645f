"""Files of `torch.save` read as data: nothing from them is run, and torch is not needed.

Such a file is a zip archive: `<name>/data.pkl`, a pickle of containers and tensors, and one raw
file per tensor storage, `<name>/data/<key>`. A pickle is a program; this one is run by an
unpickler that knows a few words (ordered dictionary, tensor, storage; on request more of that
kind), none of which does more than hold data, and refuses all others. What stands for them can be
overwritten by nothing in the file, or is made anew each time.

Tensors are `Stored` until `arrays` reads those that are wanted: files of a training run hold
several times what a network needs.
"""

import collections
import io
import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from phojax.checks import InputError, fail

_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
LARGEST = 2**31
"""Bytes of one member of an archive, at most."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that has not been read: the member it is in, and which part of it."""

    member: str
    dtype: np.dtype
    count: int
    offset: int = 0
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()


def content(
    path: pathlib.Path,
    expected: str,
    remedy: str,
    refused: Callable[[str], InputError],
    *,
    training: bool = False,
) -> Any:
    """Return what a file holds, its tensors as `Stored`.

    Args:
        path: The file.
        expected: What it should be, for messages.
        remedy: What to do where it is not, likewise.
        refused: (module.name) -> the error for a word that is not known.
        training: Whether to accept what training leaves besides: parameters, sizes, and numbers
            of NumPy.

    Raises:
        InputError: not such a file, truncated, or with anything in it that is not plain data.
    """
    known = _WORDS | (_WORDS_OF_TRAINING if training else {})
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(names) != 1:
                raise fail(f"{path} holds {len(names)} data.pkl", "one", remedy)
            return _Unpickler(archive, names[0], known, refused).load()
    except InputError:
        raise
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise fail(f"{path} cannot be read ({said})", "a file that can be read") from error
    except Exception as problem:  # a damaged file can fail anywhere in zipfile or pickle
        raise fail(
            f"{path} cannot be read ({type(problem).__name__}: {str(problem)[:200]})",
            expected,
            remedy,
        ) from problem


def arrays(path: pathlib.Path, tree: Any, expected: str, remedy: str) -> Any:
    """Return a part of `content` (dictionaries, lists, tuples) with its tensors read.

    Raises:
        InputError: as `content`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, tree)
    except Exception as problem:
        raise fail(
            f"{path} cannot be read ({type(problem).__name__}: {str(problem)[:200]})",
            expected,
            remedy,
        ) from problem


def _read(archive: zipfile.ZipFile, tree: Any) -> Any:
    if isinstance(tree, Stored):
        return _tensor(_member(archive, tree.member), tree)
    if isinstance(tree, dict):
        return {name: _read(archive, part) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [_read(archive, part) for part in tree]
    return tree


def _tensor(raw: bytes, at: Stored) -> np.ndarray:
    values = np.frombuffer(raw, at.dtype)
    if len(values) != at.count:
        raise ValueError(f"{at.member} has {len(raw)} bytes, not {at.count * at.dtype.itemsize}")
    shape, strides = tuple(map(int, at.shape)), tuple(map(int, at.strides))
    if min((at.offset, *shape, *strides)) < 0 or len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape} with strides {strides}")
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) == 0:
        return np.zeros(shape, at.dtype)
    if at.offset + last >= len(values):
        raise ValueError(f"a tensor of shape {shape} beyond its storage")
    steps = tuple(step * at.dtype.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(values[at.offset :], shape, steps).copy()


class _Kind:
    """Stands for the class of a storage."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype


class _Tensor:
    """Stands for torch._utils._rebuild_tensor_v2. Slots: a pickle can set nothing on it."""

    __slots__ = ()

    def __call__(self, storage, offset, shape, stride, *_):
        return Stored(
            storage.member, storage.dtype, storage.count, int(offset), tuple(shape), tuple(stride)
        )


class _Parameter:
    """Stands for torch._utils._rebuild_parameter: the tensor in it."""

    __slots__ = ()

    def __call__(self, tensor, *_):
        return tensor


class _Scalar:
    """Stands for the function that makes numbers of NumPy from their bytes."""

    __slots__ = ()

    def __call__(self, dtype, raw):
        plain = isinstance(dtype, np.dtype) and dtype.kind in "fiub" and not dtype.hasobject
        if not plain or not isinstance(raw, bytes):
            raise ValueError("a number of NumPy that holds an object")
        return np.frombuffer(raw, dtype, 1)[0]


class _Dtype:
    """Stands for numpy.dtype: kinds of plain numbers. It returns a copy, which may be written to.

    Pickle sets the byte order of what it gets; `np.dtype` itself would take any description.
    """

    __slots__ = ()

    def __call__(self, name, *_):
        if not isinstance(name, str) or name[:1] not in "fiub":
            raise ValueError(f"numbers of the kind {name!r}")
        return np.dtype(name, False, True)


class _Encode:
    """Stands for _codecs.encode, in the one use that pickle makes of it."""

    __slots__ = ()

    def __call__(self, text, encoding="latin1"):
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("text in another encoding than latin1")
        return text.encode("latin1")


class _Size:
    """Stands for torch.Size."""

    __slots__ = ()

    def __call__(self, parts=()):
        return tuple(int(part) for part in parts)


_WORDS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor(),
}
_WORDS_OF_TRAINING: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    ("torch", "Size"): _Size(),
    ("numpy", "dtype"): _Dtype(),
    ("_codecs", "encode"): _Encode(),
    ("numpy.core.multiarray", "scalar"): _Scalar(),
    ("numpy._core.multiarray", "scalar"): _Scalar(),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, name: str, known, refused) -> None:
        super().__init__(io.BytesIO(_member(archive, name)))
        self._folder = name.removesuffix("data.pkl")
        self._known, self._refused = known, refused

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "torch" and global_name in _STORAGES:
            return _Kind(_STORAGES[global_name])
        known = self._known.get((module_name, global_name))
        if known is None:
            raise self._refused(f"{module_name}.{global_name}")
        return known

    def persistent_load(self, pid: Any, /) -> Stored:
        kind, of, key, _device, count = pid
        if kind != "storage" or not isinstance(of, _Kind) or not str(key).isalnum():
            raise ValueError(f"an unknown reference {kind!r}")
        if not isinstance(of.dtype, np.dtype) or of.dtype.hasobject:
            raise ValueError("a storage of objects")
        return Stored(f"{self._folder}data/{key}", of.dtype, int(count))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} is larger than {LARGEST} bytes")
    return archive.read(name)


__all__ = ["LARGEST", "Stored", "arrays", "content"]
