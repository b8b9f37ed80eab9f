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
    weight_decay: float,
    row: int = ...,
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
