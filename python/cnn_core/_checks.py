"""Checks of arguments; an error names the argument, what was expected and what came.

A check of an array costs about a microsecond where nothing is wrong, and copies only what the
kernels cannot read as it is.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# Steps of the search for an element that two arrays share; giving up counts as sharing.
OVERLAP_WORK = 1000


def as_kernel_array(array: Array) -> Array:
    """The array, or a copy of it with adjacent, aligned elements."""
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")


def as_float(name: str, value: Any, ndim: int | None = None, dtype: Any = None) -> Array:
    """`value` as a C-contiguous float array, or an error that names the argument."""
    array = np.asarray(value)
    if array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32 or float64, got dtype {array.dtype}")
    if dtype is not None and array.dtype != dtype:
        expected = np.dtype(dtype)
        raise TypeError(f"{name}: expected {expected}, as of the other arrays, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimension(s), got shape {array.shape}")
    return as_kernel_array(array)


def check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def output(
    name: str, out: Any, shape: tuple[int, ...], dtype: Any, inputs: tuple[Any, ...]
) -> Array:
    """`out` if it can take the result, a new array if it is None.

    `inputs` are the arguments as the user gave them, so that the answer does not depend on which
    of them had to be copied.
    """
    if out is None:
        return np.empty(shape, dtype)
    array = writable(name, out)
    if array.dtype != dtype:
        raise ValueError(f"{name}: expected dtype {np.dtype(dtype)}, got {array.dtype}")
    check_shape(name, array, shape)
    check_apart(name, array, inputs)
    return array


def in_place(name: str, array: Any, dtype: Any = None) -> Array:
    """A flat float array that the kernel may change, or an error that names the argument."""
    return as_float(name, writable(name, array), 1, dtype)


def writable(name: str, array: Any) -> Array:
    """The array itself, if a kernel can write into it where it lies."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an ndarray, got {type(array).__name__}")
    flags = array.flags
    if not (flags.c_contiguous and flags.writeable and flags.aligned):
        raise ValueError(f"{name}: expected a C-contiguous, aligned, writeable array")
    return array


def check_apart(name: str, out: Array, inputs: tuple[Any, ...]) -> None:
    """Refuse an array that is written to while an input is still to be read from its memory."""
    for value in inputs:
        if value is None:
            continue
        # The stubs know no other limits than 0 and -1 (none).
        if np.may_share_memory(out, value, max_work=OVERLAP_WORK):  # type: ignore[arg-type]
            raise ValueError(f"{name}: shares memory with an input")


def check_slope(slope: float) -> float:
    slope = float(slope)
    if not 0 <= slope < float("inf"):
        raise ValueError(f"slope: expected a finite number >= 0, got {slope}")
    return slope


def as_rows(array: Array) -> Array:
    """The array as two dimensions, the last axis kept; a view."""
    last = array.shape[-1] if array.ndim else 1
    return array.reshape(-1, last) if last else array.reshape(0, 1)


def as_labels(name: str, t: Any, n_rows: int, n_classes: int) -> npt.NDArray[np.int64]:
    """`n_rows` integers, checked to be in 0..n_classes-1."""
    labels = np.asarray(t)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {labels.dtype}")
    check_shape(name, labels, (n_rows,))
    if labels.size and (labels.min() < 0 or labels.max() >= n_classes):
        wrong = labels[(labels < 0) | (labels >= n_classes)][0]
        raise ValueError(f"{name}: expected integers in 0..{n_classes - 1}, got {wrong}")
    return as_kernel_array(labels.astype(np.int64, copy=False))


def as_indices(name: str, value: Any, n_rows: int) -> npt.NDArray[np.int64]:
    """Any number of row numbers; an empty list, which has no dtype of its own, is one of them."""
    if isinstance(value, (list, tuple)) and not value:
        return np.empty(0, np.int64)
    indices = np.asarray(value)
    return as_labels(name, indices, indices.size, n_rows)


def as_target_rows(name: str, t: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Targets of the scores' shape, in the scores' dtype."""
    target = np.asarray(t)
    if target.dtype not in FLOATS and target.dtype.kind not in "iub":
        raise TypeError(f"{name}: expected float32, float64 or integers, got dtype {target.dtype}")
    check_shape(name, target, shape)
    return as_kernel_array(target.astype(dtype, copy=False))


def as_source(name: str, source: npt.ArrayLike) -> Array:
    """A data set whose rows can be gathered: float32, float64 or uint8, C-contiguous."""
    array = np.asarray(source)
    if array.dtype != np.uint8 and array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32, float64 or uint8, got dtype {array.dtype}")
    if array.ndim < 1:
        raise ValueError(f"{name}: expected at least 1 dimension, got shape {array.shape}")
    return as_kernel_array(array)


def check_seed(seed: Any) -> int:
    """`seed` as an integer >= 0."""
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed: expected an integer, got {seed!r}") from None
    if number < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {number}")
    return number
