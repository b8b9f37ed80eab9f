"""What a network takes as x: arrays and, before a first Affine layer, SciPy's sparse matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core.layers import Affine, Layer, Shape
from cnn_core.ops.sparse import Int64, Rows, is_sparse
from cnn_core.parts import Parts
from cnn_core.plan import Plan

Array = npt.NDArray[Any]
Call = Callable[[], None]
Input = Array | Rows


class SparseMatrix(Protocol):
    """A matrix or array of scipy.sparse, in any format."""

    def tocsr(self) -> Any: ...


#: What a user may give as x.
Samples = npt.ArrayLike | SparseMatrix | Rows


def check_input(x: Any, first: Layer, input_shape: Shape, dtype: np.dtype[Any]) -> Input:
    """x as (N, *input_shape), float or uint8, or as sparse rows; images may come flattened.

    first : the network's first layer; dtype : of what is neither float nor uint8.
    """
    if type(x) is np.ndarray and x.dtype is dtype and x.shape[1:] == input_shape:
        return x  # the common case, which may be one row: before anything that takes time
    if is_sparse(x):
        return _check_sparse(x, first, input_shape)
    array = checks.to_array("x", x)
    if array.dtype != np.uint8 and array.dtype not in checks.FLOATS:
        if array.dtype.kind not in "fiub":
            raise TypeError(f"x: expected numbers, got dtype {array.dtype}")
        array = array.astype(dtype)
    if array.shape[1:] != input_shape or not array.ndim:
        size = math.prod(input_shape)
        if array.ndim < 2 or math.prod(array.shape[1:]) != size:
            raise _wrong_shape(input_shape, array.shape)
        array = array.reshape(len(array), *input_shape)
    return array


def _check_sparse(x: Any, first: Layer, input_shape: Shape) -> Rows:
    if type(first) is not Affine:
        kind = type(first).__name__
        raise TypeError(f"x: sparse input needs an Affine first layer, this network's is {kind}")
    rows = Rows.of("x", x)
    if rows.shape[1:] != input_shape:
        raise _wrong_shape(input_shape, rows.shape)
    return rows


def _wrong_shape(input_shape: Shape, shape: Shape) -> ValueError:
    expected = ", ".join(map(str, ("N", *input_shape)))
    return ValueError(f"x: expected shape ({expected}), got {shape}")


def as_source(x: Input, dtype: np.dtype[Any], scale: float) -> Input:
    """Checked input from which batches can be gathered; sparse rows converted once for all."""
    if isinstance(x, Rows):
        return x.copied("x", dtype, scale)
    return checks.as_source("x", x)


def fill(buffer: Any, x: Input, scale: float) -> None:
    """Copy checked input into the buffer of a plan, an array or a batch; scale : of uint8."""
    if isinstance(x, Rows):
        x.copied("x", buffer.dtype, scale).into(buffer)
    elif x.dtype.char == "B":  # uint8; comparing dtypes takes longer than copying a row
        np.multiply(x, buffer.dtype.type(scale), out=buffer)
    else:
        buffer[...] = x


def reading(
    x: Input, plan: Plan, indices: Int64, start: Int64, scale: float
) -> tuple[Parts, list[Call], list[Call]]:
    """How the rows from indices[start[0]] on become the x of a plan.

    What belongs into its program, and what to call before the plan runs and after it. x is from
    `as_source`.
    """
    if isinstance(x, Rows):
        read = partial(x.into, plan.x, indices, start)
        read()  # the tasks of the plan are cut by the entries that they find
        return Parts(), [read], [plan.x.release]
    return plan.gather(x, indices, start, scale), [], []


def reading_all(x: Input, plan: Plan, start: Int64, scale: float) -> Parts:
    """The same for the rows from start[0] on, of a plan without a gradient.

    Nothing where x is not in one piece: its rows have to be filled in.
    """
    if not in_one_piece(x):
        return Parts()
    return plan.gather(x, np.arange(len(x)), start, scale)


def in_one_piece(x: Input) -> TypeGuard[Array]:
    """Whether a kernel can read the rows where they lie."""
    return isinstance(x, np.ndarray) and x.flags.c_contiguous and x.flags.aligned


def address(x: Input, row: int) -> int:
    """Of a row of an array in one piece."""
    assert isinstance(x, np.ndarray)
    return int(x.__array_interface__["data"][0]) + row * (x.nbytes // len(x))


def dense(x: Input) -> Array:
    """x, or a TypeError where sparse rows cannot be used."""
    if isinstance(x, Rows):
        raise TypeError("x: expected an array, got a sparse matrix")
    return x
