"""MNIST: 70,000 handwritten digits, read from the four files that are part of the package."""

from __future__ import annotations

from pathlib import Path

from cnn_core.datasets.idx import Dataset, load_idx

_FOLDER = Path(__file__).parent / "mnist_data"


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test images of 28 x 28 pixels, digits 0 to 9.

    The arguments and the result are those of `load_mnist` in Saito, *Deep Learning from Scratch*,
    chapter 3.

    Parameters
    ----------
    normalize : bool, default True
        True: float32 pixels from 0.0 to 1.0. False: uint8 pixels from 0 to 255, a quarter of the
        memory.
    flatten : bool, default True
        True: images of shape (N, 784). False: (N, 1, 28, 28), channels first.
    one_hot_label : bool, default False
        True: labels as float64 one-hot rows (N, 10). False: uint8 labels (N,).

    Returns
    -------
    (x_train, t_train), (x_test, t_test) : two pairs of arrays
        Fresh, writeable arrays at each call.

    Notes
    -----
    MNIST is the work of Yann LeCun, Corinna Cortes and Christopher J. C. Burges and is distributed
    under CC BY-SA 3.0; see the LICENSE file beside the data.
    """
    return load_idx(_FOLDER, normalize=normalize, flatten=flatten, one_hot_label=one_hot_label)
