"""Data sets: MNIST, which travels with the package, and any other that is stored in IDX files."""

from cnn_core.datasets.idx import DatasetError, load_idx, read_idx
from cnn_core.datasets.mnist import load_mnist

__all__ = ["DatasetError", "load_idx", "load_mnist", "read_idx"]
