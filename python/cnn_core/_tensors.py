"""Safetensors files, read without believing them.

A file is the length of its header (8 bytes, little endian), the header in JSON, and the bytes of
all tensors, one after the other::

    {"name": {"dtype": "F32", "shape": [784, 50], "data_offsets": [0, 156800]}, ...,
     "__metadata__": {"name": "text", ...}}

A file may come from anywhere: its header is bounded and checked in full before a tensor is read.
It is read, not mapped: touching the pages of a mapped file that another program cuts off would end
the process.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
PathLike = str | os.PathLike[str]

MOST_HEADER = 2**22  # bytes: a tensor takes about a hundred of them
MOST_AXES = 32  # that every release of NumPy can hold
_DTYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "BOOL": "u1",
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}


def shorten(value: object, limit: int = 120) -> str:
    """The text of a value for a message: a hostile file can hold very long ones."""
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


class FieldError(ValueError):
    """What is wrong with one field; the file's name is added where it is known."""

    def __init__(self, field: str, expected: object, got: object) -> None:
        super().__init__(f"{shorten(field)}: expected {expected}, got {shorten(got)}")


def read_json(field: str, text: str, constants: bool = False) -> Any:
    """JSON in which no object has a name twice, which two readers may read apart.

    constants : whether NaN and Infinity, which only Python knows, may stand in it.
    """
    refuse = None if constants else _no_constant
    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise FieldError(field, "JSON", f"an error: {error}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return found


class _Tensor(NamedTuple):
    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """An open file whose header is right: its metadata, and what tensors there are."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        if len(first) < 8:
            raise FieldError("header length", "8 bytes", f"a file of {len(first)}")
        length = int.from_bytes(first, "little")
        if length > MOST_HEADER:
            raise FieldError("header length", f"at most {MOST_HEADER} bytes", length)
        self._begin = 8 + length
        if self._begin > size:
            raise FieldError("header", f"{length} bytes", f"a file that ends after {size - 8}")
        try:
            text = file.read(length).decode()
        except UnicodeDecodeError as error:
            raise FieldError("header", "UTF-8", error) from error
        header = read_json("header", text)
        if not isinstance(header, dict):
            raise FieldError("header", "a JSON object", type(header).__name__)
        self.metadata = _metadata(header.pop("__metadata__", {}))
        self._tensors = {name: _described(name, entry) for name, entry in header.items()}
        self._check_places(size - self._begin)

    def _check_places(self, size: int) -> None:
        """The tensors must fill the rest of the file, without a gap and without sharing bytes."""
        at = 0
        for name, tensor in sorted(self._tensors.items(), key=lambda item: item[1][2:]):
            if tensor.begin != at:
                raise FieldError(f"tensor {name!r}: data_offsets", f"to begin at {at}", tensor[2:])
            at = tensor.end
        if at != size:
            raise FieldError("elements", f"{at} bytes for all tensors", f"{size} bytes")

    def dtypes(self) -> Mapping[str, str]:
        """The code of the element type of each tensor: F32, I64, ..."""
        return {name: tensor.code for name, tensor in self._tensors.items()}

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Array:
        """One tensor, as a fresh array."""
        tensor = self._tensors[name]
        array = np.empty(tensor.shape, _DTYPES[tensor.code])
        self._file.seek(self._begin + tensor.begin)
        count = self._file.readinto(array.reshape(-1).view(np.uint8).data)
        if count != array.nbytes:
            raise FieldError(f"tensor {name!r}", f"{array.nbytes} bytes", f"{count} bytes")
        kind = np.bool_ if tensor.code == "BOOL" else array.dtype.newbyteorder("=")
        return array.astype(kind, copy=False)


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FieldError("__metadata__", "an object of texts", value)
    return value


def _described(name: str, entry: Any) -> _Tensor:
    """What a header says about one tensor."""
    field = f"tensor {name!r}"
    keys = ("data_offsets", "dtype", "shape")
    if not isinstance(entry, dict) or sorted(entry) != list(keys):
        raise FieldError(field, f"an object of {', '.join(keys)}", entry)
    offsets, code, shape = (entry[key] for key in keys)
    if not isinstance(code, str) or code not in _DTYPES:
        raise FieldError(f"{field}: dtype", f"one of {', '.join(_DTYPES)}", code)
    if not _are_counts(shape) or len(shape) > MOST_AXES:
        raise FieldError(f"{field}: shape", f"at most {MOST_AXES} integers >= 0", shape)
    if not _are_counts(offsets) or len(offsets) != 2:
        raise FieldError(f"{field}: data_offsets", "two integers >= 0", offsets)
    size = math.prod(shape) * np.dtype(_DTYPES[code]).itemsize
    if offsets[1] - offsets[0] != size:
        got = f"{offsets[1] - offsets[0]} from {offsets[0]} to {offsets[1]}"
        raise FieldError(f"{field}: data_offsets", f"{size} bytes for shape {shape}", got)
    return _Tensor(code, tuple(shape), offsets[0], offsets[1])


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


@contextmanager
def open_tensors(path: PathLike, error: type[ValueError]) -> Iterator[TensorFile]:
    """A safetensors file, open; `error`, with the file's name, for what is wrong in it."""
    name = os.fspath(path)
    if not stat.S_ISREG(os.stat(name).st_mode):  # before opening: to open a pipe is to wait
        raise error(f"{name}: file: expected a regular file, got a folder or a device")
    with open(name, "rb") as file:
        try:
            tensors = TensorFile(file)
        except FieldError as reason:
            raise error(f"{name}: not a safetensors file: {reason}") from reason
        try:
            yield tensors
        except FieldError as reason:
            raise error(f"{name}: {reason}") from reason


def pack_tensors(tensors: dict[str, Array], metadata: dict[str, str]) -> bytes:
    """The bytes of a file that `open_tensors` reads again."""
    from safetensors.numpy import save

    data = bytes(save(tensors, metadata or None))
    length = int.from_bytes(data[:8], "little")
    if length > MOST_HEADER:
        raise ValueError(f"header: expected at most {MOST_HEADER} bytes, got {length}")
    return data
