"""`common.util`: patches of images as the rows of a matrix, and small helpers.

Saito, Deep Learning from Scratch, section 7.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["col2im", "conv_output_size", "im2col", "np", "shuffle_dataset", "smooth_curve"]

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_WINDOW = 11


def smooth_curve(x: Any) -> Array:
    """x (M,), M > 10, smoothed by a Kaiser window of 11 values; its ends are mirrored."""
    mirrored = np.concatenate([x[_WINDOW - 1 : 0 : -1], x, x[-1:-_WINDOW:-1]])
    window = np.kaiser(_WINDOW, 2)
    smooth = np.convolve(window / window.sum(), mirrored, mode="valid")
    return smooth[_WINDOW // 2 : -(_WINDOW // 2)]


def shuffle_dataset(x: Array, t: Array) -> tuple[Array, Array]:
    """x and t in one new order, drawn by np.random."""
    order = np.random.permutation(len(x))  # noqa: NPY002
    return x[order], t[order]


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """Height or width of a convolution's output."""
    return (input_size + 2 * pad - filter_size) / stride + 1


def _n_windows(sizes: Shape, filter_h: int, filter_w: int, stride: int, pad: int) -> Shape:
    height, width = sizes
    return (
        (height + 2 * pad - filter_h) // stride + 1,
        (width + 2 * pad - filter_w) // stride + 1,
    )


def im2col(input_data: Array, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> Array:
    """Every window of the padded images as a row, float64.

    input_data : (N, C, H, W)

    Returns
    -------
    (N * OH * OW, C * filter_h * filter_w)
    """
    n = len(input_data)
    rows, columns = _n_windows(input_data.shape[2:], filter_h, filter_w, stride, pad)
    padded = np.pad(input_data, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (filter_h, filter_w), (2, 3))
    chosen = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    return np.array(chosen, np.float64, order="C").reshape(n * rows * columns, -1)


def col2im(
    col: Array, input_shape: Shape, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0
) -> Array:
    """The sum of all windows, each at its place: the transpose of `im2col`, not its inverse.

    col : (N * OH * OW, C * filter_h * filter_w); input_shape : (N, C, H, W)

    Returns
    -------
    (N, C, H, W), float64
    """
    n, channels, height, width = input_shape
    rows, columns = _n_windows((height, width), filter_h, filter_w, stride, pad)
    windows = col.reshape(n, rows, columns, channels, filter_h, filter_w)
    padded = np.zeros((n, channels, height + 2 * pad, width + 2 * pad))
    for y, x in np.ndindex(filter_h, filter_w):
        place = padded[:, :, y : y + stride * rows : stride, x : x + stride * columns : stride]
        place += windows[..., y, x].transpose(0, 3, 1, 2)
    return padded[:, :, pad : pad + height, pad : pad + width]
