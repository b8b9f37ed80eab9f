import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def input_gradient(
    dout: _Real,
    packed: _Real,
    dx: _Real,
    y: _Real | None = ...,
    activation: int = ...,
    slope: float = ...,
) -> Task: ...
def input_gradient_of_few(
    dout: _Real,
    W: _Real,
    dx: _Real,
    y: _Real | None = ...,
    activation: int = ...,
    slope: float = ...,
) -> Task: ...
def weight_gradient(x: _Real, dout: _Real, dW: _Real, zeros: bool = ...) -> Task: ...
def bias_gradient(dout: _Real, db: _Real) -> Task: ...
