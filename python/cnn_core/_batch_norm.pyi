import numpy as np
import numpy.typing as npt

from cnn_core._images import Images
from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def forward(
    x: Images,
    y: Images,
    gamma: _Real,
    beta: _Real,
    running_mean: _Real,
    running_var: _Real,
    table: _Real,
    partial: _Real,
    momentum: float,
    epsilon: float,
    training: bool,
) -> list[Task]: ...
def backward(
    x: Images,
    dy: Images,
    dx: Images,
    gamma: _Real,
    table: _Real,
    partial: _Real,
    dgamma: _Real,
    dbeta: _Real,
    training: bool,
) -> list[Task]: ...
def groups(n: int) -> int: ...
