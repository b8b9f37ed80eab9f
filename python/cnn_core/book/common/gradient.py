"""`common.gradient`: gradients by central differences.

Saito, Deep Learning from Scratch, section 4.3. A function is called twice per element of x, so the
work is the function's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["np", "numerical_gradient", "numerical_gradient_2d"]

Array = npt.NDArray[Any]

_H = 1e-4


def numerical_gradient(f: Callable[[Any], Any], x: Array) -> Array:
    """(f(x + h) - f(x - h)) / 2h for every element of x, h = 1e-4.

    x is changed element by element while f is called, so that f may also read it by another name,
    and is as before afterwards. The result has the shape and dtype of x.
    """
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + _H
        above = f(x)
        x[index] = value - _H
        below = f(x)
        gradient[index] = (above - below) / (2 * _H)
        x[index] = value
    return gradient


def numerical_gradient_2d(f: Callable[[Any], Any], X: Array) -> Array:
    """`numerical_gradient` of f at every row of X, or at X itself if it is one row."""
    if X.ndim == 1:
        return numerical_gradient(f, X)
    gradient = np.zeros_like(X)
    for n, row in enumerate(X):
        gradient[n] = numerical_gradient(f, row)
    return gradient
