from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core._images import Images
from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

class Convolution:
    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: Sequence[int],
        dilation: tuple[int, int],
        groups: int,
        empty: Callable[..., npt.NDArray[Any]],
    ) -> None: ...
    @property
    def padding(self) -> tuple[int, int, int, int]: ...
    @property
    def filters(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def turned(self) -> bool: ...
    @property
    def gradient_border(self) -> tuple[int, int, int, int]: ...
    def output_size(self, height: int, width: int) -> tuple[int, int]: ...
    def packed_size(self, backward: bool, is_float: bool) -> int: ...
    def pack(self, W: _Real, packed: _Real, backward: bool) -> Task: ...
    def forward(
        self,
        x: Images,
        packed: _Real,
        b: _Real | None,
        y: Images,
        activation: int,
        slope: float,
        by_rows: bool = ...,
    ) -> Task: ...
    def input_gradient(
        self,
        dy: Images,
        packed: _Real,
        dx: Images,
        previous: Images | None = ...,
        activation: int = ...,
        slope: float = ...,
    ) -> Task: ...
    def sums(self, n: int) -> tuple[int, int, int]: ...
    def weight_gradient(self, x: Images, dy: Images, partial: _Real) -> Task: ...
    def reduce(self, partial: _Real, dW: _Real, db: _Real, by_filters: bool = ...) -> Task: ...
