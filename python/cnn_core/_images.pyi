from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Border = tuple[int, int, int, int]

class Images:
    def __init__(
        self,
        n: int,
        height: int,
        width: int,
        channels: int,
        border: Sequence[int],
        buffer: npt.NDArray[Any],
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def place(self) -> tuple[Images, int, int, int]: ...
    @property
    def n(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def border(self) -> _Border: ...
    @property
    def buffer(self) -> npt.NDArray[Any]: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def array(self) -> npt.NDArray[Any]: ...

def buffer_size(
    n: int, height: int, width: int, channels: int, border: Sequence[int]
) -> int: ...
def from_rows(
    rows: _Real,
    images: Images,
    previous: Images | None = None,
    activation: int = 0,
    slope: float = 0.0,
    place: npt.NDArray[np.int64] | None = None,
) -> Task: ...
def to_rows(images: Images, rows: _Real) -> Task: ...
def activation_forward(x: Images, y: Images, activation: int, slope: float) -> Task: ...
def activation_backward(
    y: Images, dout: Images, dx: Images, activation: int, slope: float
) -> Task: ...
