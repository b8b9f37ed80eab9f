"""`common.functions`: activation and loss functions as functions of arrays.

Saito, Deep Learning from Scratch, chapters 3 and 4. x and y are arrays of any shape unless said
otherwise; the last axis holds the classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnn_core import ops
from cnn_core._checks import FLOATS

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

_SMALL = 3000  # elements; below, NumPy is done before a compiled kernel has been set up


def _worth_compiling(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.size >= _SMALL and x.dtype in FLOATS


def identity_function(x: Any) -> Any:
    """x itself."""
    return x


def step_function(x: Any) -> Any:
    """1 where x > 0, else 0, as integers."""
    return np.asarray(x > 0).astype(int)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    if _worth_compiling(x):
        return ops.sigmoid_forward(x)
    return 1 / (1 + np.exp(-x))


def sigmoid_grad(x: Any) -> Any:
    """The derivative of sigmoid at x."""
    y = sigmoid(x)
    return y * (1.0 - y)


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu_grad(x: Any) -> Any:
    """1 where x >= 0, else 0, in the dtype of x."""
    return (x >= 0).astype(x.dtype)


def softmax(x: Any) -> Any:
    """exp(x) / sum exp(x) over the last axis, without overflow."""
    if _worth_compiling(x):
        return ops.softmax_forward(x)
    y = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return y / y.sum(axis=-1, keepdims=True)


def sum_squared_error(y: Any, t: Any) -> Any:
    """1/2 sum (y - t)^2, over all elements."""
    return np.sum(np.square(y - t)) / 2


def cross_entropy_error(y: Any, t: Any) -> Any:
    """-sum log(y[label] + 1e-7) / N.

    Parameters
    ----------
    y : (N, C) probabilities, or (C,) for one sample
    t : as many elements as y: rows of which the largest element is the label (one-hot); otherwise
        integer labels (N,)
    """
    if y.ndim == 1:
        y, t = y[None], t.reshape(1, -1)
    labels = t.argmax(axis=1) if t.size == y.size else t
    n = len(y)
    return -np.log(y[np.arange(n), labels] + 1e-7).sum() / n


def softmax_loss(X: Any, t: Any) -> Any:
    """cross_entropy_error of softmax(X)."""
    return cross_entropy_error(softmax(X), t)
