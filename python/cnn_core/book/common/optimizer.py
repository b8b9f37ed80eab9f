"""`common.optimizer`: how parameters follow their gradients.

Saito, Deep Learning from Scratch, section 6.1. `update(params, grads)` takes two dicts of arrays,
or of numbers, by the same names; arrays are changed in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import ops
from cnn_core._checks import FLOATS

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]

Array = npt.NDArray[Any]
Params = dict[str, Any]

_TINY = 1e-7


def _zeros(params: Params) -> Params:
    return {key: np.zeros_like(value) for key, value in params.items()}


class SGD:
    """p -= lr g"""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def update(self, params: Params, grads: Params) -> None:
        for key in params:
            params[key] -= self.lr * grads[key]


class Momentum:
    """v = momentum v - lr g; p += v"""

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum
        self.v: Params | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.v = v = _zeros(params) if self.v is None else self.v
        for key in params:
            v[key] = self.momentum * v[key] - self.lr * grads[key]
            params[key] += v[key]


class Nesterov:
    """p += momentum^2 v - (1 + momentum) lr g; v = momentum v - lr g

    Source: Bengio et al., Advances in optimizing recurrent networks (2012), arXiv:1212.0901.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr, self.momentum = lr, momentum
        self.v: Params | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.v = v = _zeros(params) if self.v is None else self.v
        for key in params:
            step = self.lr * grads[key]
            params[key] += self.momentum * self.momentum * v[key]
            params[key] -= (1 + self.momentum) * step
            v[key] = self.momentum * v[key] - step


class AdaGrad:
    """h += g^2; p -= lr g / (sqrt(h) + 1e-7)"""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr
        self.h: Params | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.h = h = _zeros(params) if self.h is None else self.h
        for key in params:
            h[key] += grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (np.sqrt(h[key]) + _TINY)


class RMSprop:
    """h = decay_rate h + (1 - decay_rate) g^2; p -= lr g / (sqrt(h) + 1e-7)"""

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        self.lr, self.decay_rate = lr, decay_rate
        self.h: Params | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.h = h = _zeros(params) if self.h is None else self.h
        for key in params:
            h[key] *= self.decay_rate
            h[key] += (1 - self.decay_rate) * grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (np.sqrt(h[key]) + _TINY)


class Adam:
    """m += (1 - beta1) (g - m); v += (1 - beta2) (g^2 - v); p -= lr_t m / (sqrt(v) + 1e-7)

    with lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t) in the t-th update, counted in `iter`.
    Source: Kingma and Ba, Adam (2015), arXiv:1412.6980, end of section 2.
    """

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.iter = 0
        self.m: Params | None = None
        self.v: Params | None = None

    def update(self, params: Params, grads: Params) -> None:
        self.m = m = _zeros(params) if self.m is None else self.m
        self.v = v = _zeros(params) if self.v is None else self.v
        self.iter += 1
        corrections = 1.0 - self.beta1**self.iter, 1.0 - self.beta2**self.iter
        lr_t = self.lr * np.sqrt(corrections[1]) / corrections[0]
        for key in params:
            p, g = params[key], grads[key]
            if _alike(p, g, m[key], v[key]):
                self._compiled(p, g, m[key], v[key], lr_t)
            else:
                m[key] += (1 - self.beta1) * (g - m[key])
                v[key] += (1 - self.beta2) * (g**2 - v[key])
                params[key] -= lr_t * m[key] / (np.sqrt(v[key]) + _TINY)

    def _compiled(self, p: Array, g: Array, m: Array, v: Array, lr_t: float) -> None:
        # The kernel's own corrections are left out: lr_t has them in it.
        step = ops.native.optimizers.adam(
            p.reshape(-1),
            g.reshape(-1),
            m.reshape(-1),
            v.reshape(-1),
            np.array([lr_t]),
            np.ones(2),
            lr_multiplier=1.0,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=_TINY,
            l2=0.0,
            decay=0.0,
        )
        ops.run(step)


def _alike(*arrays: Any) -> bool:
    """Whether a compiled kernel can go through the arrays from first to last element."""
    first = arrays[0]
    return all(
        isinstance(array, np.ndarray)
        and array.size
        and array.flags.carray
        and array.dtype in FLOATS
        and (array.dtype, array.shape) == (first.dtype, first.shape)
        for array in arrays
    )
