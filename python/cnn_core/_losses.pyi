import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

def rows(
    x: _Real,
    t: _Real | None,
    labels: _Int64 | None,
    loss: int,
    scale: float,
    row_losses: _Float64,
    correct: _Int64 | None = ...,
    dx: _Real | None = ...,
    weights: _Float64 | None = ...,
) -> Task: ...
def total(
    row_losses: _Float64, correct: _Int64 | None, scale: float, weight: float, totals: _Float64
) -> Task: ...
