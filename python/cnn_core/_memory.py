"""Arrays that begin at a cache line, as vector registers like to read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

CACHE_LINE = 64


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """numpy.empty at a multiple of 64 bytes."""
    return _aligned(np.empty, shape, dtype)


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """numpy.zeros at a multiple of 64 bytes."""
    return _aligned(np.zeros, shape, dtype)


def _aligned(make: Any, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    sizes = (shape,) if isinstance(shape, int) else shape
    size = math.prod(sizes) * np.dtype(dtype).itemsize
    memory = make(size + CACHE_LINE, np.uint8)
    begin = -memory.ctypes.data % CACHE_LINE
    array: npt.NDArray[Any] = memory[begin : begin + size].view(dtype).reshape(sizes)
    return array
