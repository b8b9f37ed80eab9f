from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cnn_core._images import Images
from cnn_core._parallel import Task

_Numbers = npt.NDArray[np.uint8] | npt.NDArray[np.int32]

def output_size(
    height: int,
    width: int,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: Sequence[int],
) -> tuple[int, int]: ...
def forward(
    x: Images,
    y: Images,
    which: _Numbers | None,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: Sequence[int],
    average: bool,
    relu: bool = ...,
) -> Task: ...
def apart(
    size: tuple[int, int], stride: tuple[int, int], padding: Sequence[int], average: bool
) -> bool: ...
def backward(
    dy: Images,
    dx: Images,
    which: _Numbers | None,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: Sequence[int],
    average: bool,
    values: Images | None = ...,
    activation: int = ...,
    slope: float = ...,
) -> Task: ...
