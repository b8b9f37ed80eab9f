import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Float64 = npt.NDArray[np.float64]

def sgd(
    params: _Real,
    grads: _Real,
    velocity: _Real | None,
    lr: _Float64,
    lr_multiplier: float,
    momentum: float,
    nesterov: bool,
    l2: float,
    decay: float,
    row: int = ...,
) -> Task: ...
def sgd_of_product(
    x: _Real, dout: _Real, W: _Real, lr: _Float64, lr_multiplier: float, weight_decay: float
) -> Task: ...
def adam(
    params: _Real,
    grads: _Real,
    m: _Real,
    v: _Real,
    lr: _Float64,
    corrections: _Float64,
    lr_multiplier: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    l2: float,
    decay: float,
    row: int = ...,
) -> Task: ...
def adam_clock(corrections: _Float64, steps: _Float64, beta1: float, beta2: float) -> Task: ...
def adagrad(
    params: _Real,
    grads: _Real,
    total: _Real,
    lr: _Float64,
    lr_multiplier: float,
    epsilon: float,
    l2: float,
    row: int = ...,
) -> Task: ...
def rmsprop(
    params: _Real,
    grads: _Real,
    square: _Real,
    velocity: _Real | None,
    lr: _Float64,
    lr_multiplier: float,
    keep: float,
    momentum: float,
    epsilon: float,
    l2: float,
    row: int = ...,
) -> Task: ...
def clip(grads: _Real, factor: _Float64 | None, limit: float, row: int = ...) -> Task: ...
def squares(grads: _Real, sums: _Float64) -> Task: ...
def square_sums(size: int) -> int: ...
def norm_factor(sums: _Float64, limit: float, factor: _Float64) -> Task: ...
