"""The book's files of parameters, dicts of arrays as `pickle.dump` writes them, read as data.

A pickle is a program: whoever loads one from a stranger runs the stranger's code. Here its names
stand for nothing but themselves. What it calls is written down, not called, and an array is made
only of a record that says what NumPy's own would.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: What NumPy's arrays are made of in a pickle; the module's name changed with NumPy 2.
_NAMES = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
}
_TYPE_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_BYTE_ORDERS = {"<", ">", "=", "|"}
_MOST_OPERATIONS = 100_000  # about 30 make an array
_MOST_PARTS = 1_000_000


class ParamsFileError(ValueError):
    """A file that is not a dict of arrays; the message names the file and what is wrong."""


class _Record:
    """A name, what it was called with, and the state that the result was given."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name, self.args = name, args
        self.state: Any = None

    def __call__(self, *args: Any) -> _Record:
        return _Record(self.name, args)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _Record(name)


def load_params(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of a file such as the book's params.pkl, by name.

    No code in the file is run. The arrays are fresh, in the file's dtypes and native byte order.

    Raises
    ------
    ParamsFileError
        The file is damaged, or holds anything else than a dict of names and arrays of numbers.
    """
    name = os.fspath(path)
    if not stat.S_ISREG(os.stat(name).st_mode):  # before opening: a pipe would wait for its writer
        raise ParamsFileError(f"{name}: expected a regular file")
    data = Path(name).read_bytes()
    try:
        _check_operations(data)
        entries = _Reader(io.BytesIO(data)).load()
    # An unpickler gives every kind of error for a damaged file.
    except Exception as error:
        reason = str(error)[:200] or type(error).__name__
        raise ParamsFileError(f"{name}: not a pickled dict of arrays: {reason}") from error
    if type(entries) is not dict:
        got = type(entries).__name__
        raise ParamsFileError(f"{name}: expected a dict of arrays, got {got}")
    arrays = {}
    for key, record in entries.items():
        if type(key) is not str:
            raise ParamsFileError(f"{name}: expected names as keys, got {type(key).__name__}")
        try:
            arrays[key] = _array(record)
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            raise ParamsFileError(f"{name}: {key[:100]!r}: {str(error)[:200]}") from error
    return arrays


def _check_operations(data: bytes) -> None:
    """Refuse what makes an unpickler take much more memory or time than the file's length tells.

    A tuple may hold one part many times, whose hash is computed for each of them. So the sizes of
    all that lies on the unpickler's stack are followed, shared parts counted every time.
    """
    stack: list[int | None] = []  # None is a mark
    memo: dict[int, int | None] = {}
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if count > _MOST_OPERATIONS:
            raise ValueError(f"more than {_MOST_OPERATIONS} operations")
        if operation.name.endswith("PUT") and (argument or 0) > _MOST_OPERATIONS:
            raise ValueError(f"a memo of {argument} entries")
        # Registered codes would go past find_class.
        if operation.name.startswith("EXT"):
            raise ValueError("an extension code")
        size = 1 + _popped(stack, operation)
        if size > _MOST_PARTS:
            raise ValueError(f"an object of more than {_MOST_PARTS} parts")
        if operation.name.endswith("GET"):
            stack.append(memo[int(argument or 0)])
            continue
        for what in operation.stack_after:
            stack.append(None if what is pickletools.markobject else size)
        if operation.name.endswith("PUT") or operation.name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = stack[-1]


def _popped(stack: list[int | None], operation: pickletools.OpcodeInfo) -> int:
    """Take what an operation takes from the stack, and return its size."""
    before, size = operation.stack_before, 0
    many = pickletools.markobject in before
    if many or (operation.name == "POP" and stack[-1] is None):
        while (item := stack.pop()) is not None:
            size += item
        before = before[: before.index(pickletools.markobject)] if many else []
    for _ in before:
        size += stack.pop() or 0
    return size


def _array(record: Any) -> Array:
    """The array that a record describes."""
    if not isinstance(record, _Record):
        raise TypeError(f"expected an array, got {type(record).__name__}")
    if record.name == "_reconstruct":
        _, shape, dtype, fortran, data = _fields("state", record.state, 5)
        order = "F" if fortran else "C"
    elif record.name == "_frombuffer":
        data, dtype, shape, order = _fields("arguments", record.args, 4)
    else:
        raise TypeError(f"expected an array, got {record.name}")
    element = _dtype(dtype)
    if isinstance(data, _Record) and data.name == "encode":
        text, encoding = _fields("bytes", data.args, 2)
        data = text.encode("latin1") if (type(text), encoding) == (str, "latin1") else None
    if type(data) not in (bytes, bytearray):
        raise TypeError(f"expected bytes as contents, got {type(data).__name__}")
    if type(shape) is not tuple or any(type(size) is not int or size < 0 for size in shape):
        raise TypeError("expected a tuple of sizes as shape")
    if len(data) != math.prod(shape) * element.itemsize:
        raise ValueError(f"shape {shape} of {element} does not fit to {len(data)} bytes")
    elements = np.frombuffer(data, element).reshape(shape, order="F" if order == "F" else "C")
    return elements.astype(element.newbyteorder("="), order="C")


def _fields(what: str, value: Any, count: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) != count:
        raise TypeError(f"expected a tuple of {count} as {what} of an array")
    return value


def _dtype(record: Any) -> np.dtype[Any]:
    if not isinstance(record, _Record) or record.name != "dtype":
        raise TypeError("expected a dtype")
    code = record.args[0] if record.args else None
    state = record.state if type(record.state) is tuple else ()
    order = state[1] if len(state) > 1 else None
    if type(code) is not str or code not in _TYPE_CODES:
        raise TypeError(f"expected a dtype of numbers, got {code!r}")
    if type(order) is not str or order not in _BYTE_ORDERS:
        raise TypeError("expected a byte order")
    return np.dtype(order + code)
