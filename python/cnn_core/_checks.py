"""Checks of arguments; an error names the argument, what was expected and what came.

A check of an array costs about a microsecond where nothing is wrong, and copies only what the
kernels cannot read as it is.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

#: Of one array: far beyond any memory, and no product of a few such sizes overflows.
MOST_ELEMENTS = 2**48
#: Of windows, strides and padding, which count pixels.
MOST_PIXELS = 2**31 - 1

# Steps of the search for an element that two arrays share; giving up counts as sharing.
OVERLAP_WORK = 1000


def to_array(name: str, value: Any) -> Array:
    """`value` as NumPy sees it; an error names the argument. Masked elements have no value."""
    if type(value) is np.ndarray:
        return value
    if is_masked(value) and np.ma.is_masked(value):
        raise ValueError(f"{name}: expected no masked elements; fill them first (.filled)")
    try:
        return np.asarray(value)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        kind = type(value).__name__
        raise ValueError(f"{name}: expected an array, got {kind}: {error}") from error


def is_masked(value: Any) -> bool:
    """Whether `value` is a masked array; does not import numpy.ma, which NumPy itself does not."""
    ma = sys.modules.get("numpy.ma")
    return ma is not None and isinstance(value, ma.MaskedArray)


def as_kernel_array(array: Array) -> Array:
    """The array, or a copy of it with adjacent, aligned elements."""
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")


def as_float(name: str, value: Any, ndim: int | None = None, dtype: Any = None) -> Array:
    """`value` as a C-contiguous float array, or an error that names the argument."""
    array = to_array(name, value)
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
    if not isinstance(array, np.ndarray) or is_masked(array):
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


def finite(name: str, value: Any) -> float:
    """`value` as a finite number, or an error that names the argument."""
    if type(value) is float and math.isfinite(value):
        return value
    try:
        if isinstance(value, (str, bytes, bytearray)) or getattr(value, "ndim", False):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return number


def whole(name: str, value: Any, least: int, expected: str, most: int | None = None) -> int:
    """`value` as an integer in least..most."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    if most is not None and number > most:
        raise ValueError(f"{name}: expected at most {most}, got {value!r}")
    return number


def check_sizes(name: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """`shape` as integers >= 1 whose product is a number of elements that can be thought of."""
    sizes = tuple(whole(name, size, 1, "an integer >= 1 as every size") for size in shape)
    if math.prod(sizes) > MOST_ELEMENTS:
        raise ValueError(f"{name}: expected at most 2**48 elements, got shape {sizes}")
    return sizes


def as_dict(name: str, value: Any) -> dict[Any, Any]:
    """A copy of a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a dict, got {value!r}")
    return dict(value)


def choice(name: str, value: Any, options: tuple[str, ...]) -> Any:
    """`value`, one of some texts."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {options}, got {value!r}")
    return value


def is_several(value: Any) -> bool:
    """Whether `value` is a sequence of sizes, and no single one."""
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim == 1)


def check_slope(slope: float) -> float:
    number = finite("slope", slope)
    if number < 0:
        raise ValueError(f"slope: expected a finite number >= 0, got {slope!r}")
    return number


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 or float64."""
    if dtype is None:
        raise TypeError("dtype: expected float32 or float64, got None")
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}") from None
    if kind not in FLOATS:
        raise TypeError(f"dtype: expected float32 or float64, got {kind}")
    return kind


def as_rows(array: Array) -> Array:
    """The array as two dimensions, the last axis kept; a view."""
    last = array.shape[-1] if array.ndim else 1
    return array.reshape(-1, last) if last else array.reshape(0, 1)


def as_labels(name: str, t: Any, n_rows: int, n_classes: int) -> npt.NDArray[np.int64]:
    """`n_rows` integers, checked to be in 0..n_classes-1."""
    labels = to_array(name, t)
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
    indices = to_array(name, value)
    return as_labels(name, indices, indices.size, n_rows)


def as_target_rows(name: str, t: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Targets of the scores' shape, in the scores' dtype."""
    target = to_array(name, t)
    if target.dtype not in FLOATS and target.dtype.kind not in "iub":
        raise TypeError(f"{name}: expected float32, float64 or integers, got dtype {target.dtype}")
    check_shape(name, target, shape)
    return as_kernel_array(target.astype(dtype, copy=False))


def as_source(name: str, source: npt.ArrayLike) -> Array:
    """A data set whose rows can be gathered: float32, float64 or uint8, C-contiguous."""
    array = to_array(name, source)
    if array.dtype != np.uint8 and array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32, float64 or uint8, got dtype {array.dtype}")
    if array.ndim < 1:
        raise ValueError(f"{name}: expected at least 1 dimension, got shape {array.shape}")
    return as_kernel_array(array)


def check_seed(seed: Any) -> int:
    """`seed` as an integer in 0..2**64 - 1, as the masks of Dropout take it."""
    return whole("seed", seed, 0, "an integer >= 0", 2**64 - 1)
