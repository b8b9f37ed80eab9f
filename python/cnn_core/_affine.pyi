import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def forward(
    x: _Real, W: _Real, b: _Real | None, out: _Real, activation: int = ..., slope: float = ...,
    by_columns: bool = ..., place: npt.NDArray[np.int64] | None = ...,
    zeros: bool = ...,
) -> Task: ...
def forward_strips(
    x: _Real, W: _Real, b: _Real, out: _Real, sums: _Real, n_groups: int,
    activation: int = ..., slope: float = ..., source: _Real | None = ...,
    indices: npt.NDArray[np.int64] | None = ..., offset: npt.NDArray[np.int64] | None = ...,
) -> tuple[Task, Task]: ...
def add_strips_of(
    sums: _Real, out: _Real, activation: int = ..., slope: float = ...
) -> Task: ...
