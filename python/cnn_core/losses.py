"""Losses: what training makes small.

Each works alone, `forward(y, t)` giving the loss and `backward()` its gradient, and inside a
network, where it runs in the same compiled program as the layers.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cnn_core import ops
from cnn_core._checks import as_dict

Array = npt.NDArray[Any]


class Loss:
    """Base class of the losses; a subclass of one's own defines `forward` and `backward`.

    Parameters
    ----------
    reduction : "mean" (default) or "sum" over the batch.

    Where rows have weights (see Trainer.fit), a row's weight multiplies its loss and its gradient;
    a mean still divides by the number of rows or elements.
    """

    #: Name of the compiled loss (see ops.LOSSES); None for a loss in plain Python.
    native: ClassVar[str | None] = None
    reduction: ops.Reduction = "mean"

    def __init_subclass__(cls) -> None:
        # A subclass of a compiled loss may have its own forward: it runs as plain Python.
        cls.native = vars(cls).get("native")

    def __init__(self, reduction: ops.Reduction = "mean") -> None:
        ops.loss_scale(reduction, 1)
        self.reduction = reduction

    def forward(self, y: Array, t: npt.ArrayLike) -> float:
        """The loss of the outputs y (N, ...) and the targets t."""
        raise NotImplementedError

    def backward(self) -> Array:
        """The gradient of the last `forward`'s loss by its y."""
        raise NotImplementedError

    def scales(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Factors of the compiled loss's sum and of its gradient for outputs of this shape."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "reduction": self.reduction}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r})"


class _Compiled(Loss):
    _op: ClassVar[Any]

    def forward(self, y: Array, t: npt.ArrayLike) -> float:
        loss, self._dy = type(self)._op(y, t, reduction=self.reduction)
        return float(loss)

    def backward(self) -> Array:
        if not hasattr(self, "_dy"):
            raise RuntimeError(f"{type(self).__name__}.backward: call forward first")
        return np.asarray(self._dy)

    def scales(self, shape: tuple[int, ...]) -> tuple[float, float]:
        scale = ops.loss_scale(self.reduction, shape[0])
        return scale, scale


class SoftmaxCrossEntropy(_Compiled):
    """-sum t log softmax(scores), on scores, so the network needs no Softmax layer.

    Targets are integer labels (N,) or rows of class weights (N, C), one-hot for instance.
    Saito, Deep Learning from Scratch, section 5.6.3 (SoftmaxWithLoss).
    """

    native = "softmax_cross_entropy"
    _op = staticmethod(ops.softmax_cross_entropy)


class BinaryCrossEntropy(_Compiled):
    """Cross entropy of sigmoid(scores) and targets in 0..1, on scores (N, O); mean over N O."""

    native = "binary_cross_entropy"
    _op = staticmethod(ops.binary_cross_entropy)

    def scales(self, shape: tuple[int, ...]) -> tuple[float, float]:
        scale = ops.loss_scale(self.reduction, math.prod(shape))
        return scale, scale


class MeanSquaredError(_Compiled):
    """sum (y - t)^2, divided by the number of elements N O where the reduction is "mean"."""

    native = "squared_error"
    _op = staticmethod(ops.mean_squared_error)

    def scales(self, shape: tuple[int, ...]) -> tuple[float, float]:
        scale = ops.loss_scale(self.reduction, math.prod(shape))
        return scale, 2 * scale


class SumSquaredError(_Compiled):
    """1/2 sum (y - t)^2, divided by N where the reduction is "mean".

    Saito, Deep Learning from Scratch, section 4.2.1.
    """

    native = "squared_error"
    _op = staticmethod(ops.sum_squared_error)

    def scales(self, shape: tuple[int, ...]) -> tuple[float, float]:
        scale = ops.loss_scale(self.reduction, shape[0])
        return 0.5 * scale, scale


BY_NAME: dict[str, type[Loss]] = {
    kind.__name__: kind
    for kind in (SoftmaxCrossEntropy, BinaryCrossEntropy, MeanSquaredError, SumSquaredError)
}


def from_config(config: Any) -> Loss:
    """The loss whose `get_config` this is; ValueError for what is no loss of this library."""
    arguments = as_dict("loss", config)
    name = arguments.pop("class", None)
    if not isinstance(name, str) or name not in BY_NAME:
        raise ValueError(f"loss: expected one of {sorted(BY_NAME)}, got {name!r}")
    return BY_NAME[name](**arguments)
