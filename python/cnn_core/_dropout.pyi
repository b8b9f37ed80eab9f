import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_Mask = npt.NDArray[np.uint64]

def mask_words(row: int) -> int: ...
def dropout(
    x: _Real,
    y: _Real,
    rate: float,
    seed: int,
    layer: int,
    step: npt.NDArray[np.int64],
    mask: _Mask | None = None,
) -> Task: ...
def keep(x: _Real, y: _Real, rate: float, mask: _Mask) -> Task: ...
