from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cnn_core._parallel import Task

_Real = npt.NDArray[np.float32] | npt.NDArray[np.float64]

def pack_transposed(source: _Real, packed: _Real) -> Task: ...
def packed_size(n: int, k: int, is_float: bool) -> int: ...

class Snapshot:
    def __init__(self, arrays: Sequence[_Real]) -> None: ...
    def changed(self) -> bool: ...
