import numpy as np
import numpy.typing as npt

from cnn_core._conv2d import Convolution
from cnn_core._images import Images
from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Pair = tuple[int, int]

class PooledConvolution:
    def __init__(self, convolution: Convolution, size: _Pair, stride: _Pair) -> None: ...
    @property
    def size(self) -> _Pair: ...
    @property
    def stride(self) -> _Pair: ...
    @property
    def takes_forward(self) -> bool: ...
    def takes_rows(self, x: Images, activation: int) -> bool: ...
    def forward(
        self,
        x: Images,
        packed: _Real,
        b: _Real,
        y: Images,
        which: npt.NDArray[np.uint8] | None,
        activation: int,
        slope: float,
        rows: _Real | None = ...,
        place: npt.NDArray[np.int64] | None = ...,
    ) -> Task: ...
    def outputs(self, height: int, width: int) -> _Pair: ...
    def pays(self, height: int, width: int, is_float: bool) -> bool: ...
    def find_seen(self, x: Images, seen: npt.NDArray[np.uint8]) -> Task: ...
    def weight_gradient(
        self,
        x: Images,
        dy: Images,
        which: npt.NDArray[np.uint8],
        partial: _Real,
        seen: npt.NDArray[np.uint8] | None = ...,
    ) -> Task: ...
    def pack(self, W: _Real, packed: _Real) -> Task: ...
    def input_gradient(
        self,
        dy: Images,
        which: npt.NDArray[np.uint8],
        packed: _Real,
        dx: Images,
        previous: Images | None = ...,
        activation: int = ...,
        slope: float = ...,
    ) -> Task: ...
