import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def dropout(
    x: _Real, y: _Real, rate: float, seed: int, layer: int, step: npt.NDArray[np.int64]
) -> Task: ...
