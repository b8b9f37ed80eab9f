import numpy as np
import numpy.typing as npt

from cnn_core._images import Images
from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Groups = npt.NDArray[np.int32]

MOST_IN_PLACE: int

def shares(channels: int, n_out: int, is_float: bool) -> bool: ...
def groups_shape(n: int, n_pixels: int) -> tuple[int, int, int]: ...
def group(seen: npt.NDArray[np.uint8], groups: _Groups) -> Task: ...
def forward_strips(
    x: Images, W: _Real, b: _Real | None, out: _Real, sums: _Real, groups: _Groups | None = ...
) -> Task: ...
def input_gradient(
    dout: _Real,
    W: _Real,
    dx: Images,
    y: Images | None = ...,
    activation: int = ...,
    slope: float = ...,
    groups: _Groups | None = ...,
) -> Task: ...
def weight_gradient(x: Images, dout: _Real, dW: _Real, groups: _Groups | None = ...) -> Task: ...
