from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task
from cnn_core._sparse import Batch

_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

class Chain:
    def __init__(
        self,
        layers: list[Any],
        x: _Float64 | Batch,
        loss: int,
        labels: _Int64 | None,
        t: _Float64 | None,
        scale: float,
        h: float,
    ) -> None: ...
    @property
    def n_weights(self) -> int: ...
    @property
    def n_biases(self) -> int: ...
    @property
    def work(self) -> float: ...
    def weights(self, gradient: _Float64, begin: int, end: int) -> Task: ...
    def biases(self, gradient: _Float64, ones: _Float64, begin: int, end: int) -> Task: ...
