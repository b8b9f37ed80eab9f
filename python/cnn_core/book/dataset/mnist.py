"""`dataset.mnist`: the MNIST digits, read from the files that are part of this package.

Saito, Deep Learning from Scratch, section 3.6.1. Nothing is downloaded and nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import datasets
from cnn_core.datasets import load_mnist

__all__ = [
    "dataset_dir",
    "img_dim",
    "img_size",
    "key_file",
    "load_mnist",
    "np",
    "test_num",
    "train_num",
]

key_file = {
    f"{part}_{kind}": f"{stem}-{suffix}.gz"
    for part, stem in (("train", "train"), ("test", "t10k"))
    for kind, suffix in (("img", "images-idx3-ubyte"), ("label", "labels-idx1-ubyte"))
}
dataset_dir = str(Path(datasets.__file__).parent / "mnist_data")
train_num = 60000
test_num = 10000
img_dim = (1, 28, 28)
img_size = 784


def _change_one_hot_label(X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Labels (N,) in 0..9 as one-hot rows (N, 10)."""
    rows: npt.NDArray[np.float64] = np.eye(10)[X.ravel()]
    return rows
