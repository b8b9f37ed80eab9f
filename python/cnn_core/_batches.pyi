from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

def gather_rows(
    source: Any, indices: _Int64, offset: _Int64, scale: float, out: _Real,
    n_strips: int = ..., n_groups: int = ...,
) -> Task: ...
def gather_labels(source: _Int64, indices: _Int64, offset: _Int64, out: _Int64) -> Task: ...
def write_rows(rows: _Real, place: _Int64) -> Task: ...
def next_batch(offset: _Int64, rows: int, steps: _Int64) -> Task: ...
