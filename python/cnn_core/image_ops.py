"""The kernels for images (N, C, H, W) as functions on arrays; see ops.py for the conventions.

Inside, the channels are innermost: the functions convert on the way in and out. A network's plan
keeps that layout from layer to layer instead.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cnn_core._checks import as_float, check_shape, output
from cnn_core.ops import native, run

Array = npt.NDArray[Any]
Images = native.images.Images
Border = tuple[int, int, int, int]
Padding = int | Sequence[int] | Literal["valid", "same"]
NO_BORDER: Border = (0, 0, 0, 0)


def new_images(
    n: int, channels: int, height: int, width: int, border: Border, dtype: npt.DTypeLike
) -> Images:
    """Images with the channels innermost, all zero."""
    size = native.images.buffer_size(n, height, width, channels, border)
    return Images(n, height, width, channels, border, np.zeros(size, dtype))


def as_images(value: Array | Images) -> Images:
    """Rows (N, C) as images of one pixel, in the same memory; images as they are."""
    if isinstance(value, Images):
        return value
    n, channels = value.shape
    return Images(n, 1, 1, channels, NO_BORDER, value.reshape(-1))


def to_images(x: Array, border: Border = NO_BORDER) -> Images:
    images = new_images(*x.shape, border, x.dtype)
    run(native.images.from_rows(x.reshape(len(x), -1), images))
    return images


def to_array(images: Images, out: Array | None = None) -> Array:
    array = np.empty(images.shape, images.dtype) if out is None else out
    run(native.images.to_rows(images, array.reshape(len(array), -1)))
    return array


def check_images(name: str, x: npt.ArrayLike, dtype: Any = None) -> Array:
    array = as_float(name, x, 4, dtype)
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one element per axis, got {array.shape}")
    return array


# -------------------------------------------------------------------------------- convolution


def pair(name: str, value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, (tuple, list)) else [value, value]
    numbers = [operator.index(v) for v in values]
    if len(numbers) != 2 or min(numbers) < 1:
        raise ValueError(f"{name}: expected a number >= 1 or a pair of them, got {value!r}")
    return numbers[0], numbers[1]


def check_padding(padding: Padding) -> Literal["valid", "same"] | Border:
    """Padding as "same" or (top, bottom, left, right)."""
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding: expected numbers, 'valid' or 'same', got {padding!r}")
        return "same" if padding == "same" else NO_BORDER
    values = list(padding) if isinstance(padding, (tuple, list)) else [padding]
    numbers = [operator.index(v) for v in values]
    if len(numbers) not in (1, 2, 4) or min(numbers) < 0:
        raise ValueError(f"padding: expected 1, 2 or 4 numbers >= 0, got {padding!r}")
    if len(numbers) == 1:
        numbers *= 4
    elif len(numbers) == 2:
        numbers = [numbers[0], numbers[0], numbers[1], numbers[1]]
    return numbers[0], numbers[1], numbers[2], numbers[3]


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after an axis so that ceil(size / stride) outputs come of it."""
    reach = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def convolution(
    image: tuple[int, int, int],
    filters: int,
    kernel: tuple[int, int],
    stride: Any,
    padding: Padding,
    dilation: Any,
    groups: int,
) -> Any:
    """The compiled geometry of a convolution of images (C, H, W), or a ValueError."""
    channels, *sizes = image
    strides, dilations = pair("stride", stride), pair("dilation", dilation)
    border = check_padding(padding)
    if border == "same":
        axes = zip(sizes, kernel, strides, dilations, strict=True)
        (top, bottom), (left, right) = (same_padding(*axis) for axis in axes)
        border = top, bottom, left, right
    geometry = native.conv2d.Convolution(
        channels, filters, kernel, strides, border, dilations, groups, np.empty
    )
    if min(geometry.output_size(*sizes)) < 1:
        raise ValueError(
            f"x: images of {sizes[0]} x {sizes[1]} with padding {border} are smaller than the"
            f" kernel {kernel} with dilation {dilations}"
        )
    return geometry


def _geometry(x: Array, W: Array, options: dict[str, Any]) -> Any:
    groups = operator.index(options.pop("groups"))
    filters, channels = W.shape[:2]
    if groups < 1 or filters % groups:
        raise ValueError(f"groups: expected a divisor of {filters} filters, got {groups}")
    if channels * groups != x.shape[1]:
        raise ValueError(f"x: expected {channels * groups} channels, as W has, got {x.shape}")
    kernel = (W.shape[2], W.shape[3])
    return convolution(
        (x.shape[1], x.shape[2], x.shape[3]), filters, kernel, **options, groups=groups
    )


def _packed(geometry: Any, W: Array, backward: bool) -> Array:
    packed = np.empty(geometry.packed_size(backward, W.dtype == np.float32), W.dtype)
    run(geometry.pack(W, packed, backward))
    return packed


def conv2d_forward(
    x: npt.ArrayLike,
    W: npt.ArrayLike,
    b: npt.ArrayLike | None,
    *,
    stride: Any = 1,
    padding: Padding = 0,
    dilation: Any = 1,
    groups: int = 1,
    out: Array | None = None,
) -> Array:
    """2D convolution; see layers.Conv2D for the parameters.

    x : (N, C, H, W), W : (F, C / groups, KH, KW), b : (F,) or None

    Returns
    -------
    (N, F, OH, OW)
    """
    x_, W_ = check_images("x", x), check_images("W", W)
    if W_.dtype != x_.dtype:
        raise TypeError(f"W: expected dtype {x_.dtype} as of x, got {W_.dtype}")
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    geometry = _geometry(x_, W_, options)
    bias = None
    if b is not None:
        bias = as_float("b", b, 1, x_.dtype)
        check_shape("b", bias, (len(W_),))
    size = geometry.output_size(*x_.shape[2:])
    shape = (len(x_), len(W_), *size)
    inputs = (x, W) if b is None else (x, W, b)
    out = output("out", out, shape, x_.dtype, inputs)
    y = new_images(*shape, NO_BORDER, x_.dtype)
    images = to_images(x_, geometry.padding)
    run(geometry.forward(images, _packed(geometry, W_, False), bias, y, 0, 0.0))
    return to_array(y, out)


def conv2d_backward(
    dout: npt.ArrayLike,
    x: npt.ArrayLike,
    W: npt.ArrayLike,
    *,
    stride: Any = 1,
    padding: Padding = 0,
    dilation: Any = 1,
    groups: int = 1,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of `conv2d_forward`: dx (N, C, H, W), dW (F, C / groups, KH, KW), db (F,).

    dout : (N, F, OH, OW); out : three arrays, or None, for dx, dW and db.
    """
    x_ = check_images("x", x)
    W_, dout_ = check_images("W", W, x_.dtype), check_images("dout", dout, x_.dtype)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    geometry = _geometry(x_, W_, options)
    check_shape("dout", dout_, (len(x_), len(W_), *geometry.output_size(*x_.shape[2:])))
    given = (None, None, None) if out is None else out
    inputs = (dout, x, W)
    dx = output("out[0]", given[0], x_.shape, x_.dtype, inputs)
    dW = output("out[1]", given[1], W_.shape, x_.dtype, (*inputs, dx))
    db = output("out[2]", given[2], (len(W_),), x_.dtype, (*inputs, dx, dW))
    dy = to_images(dout_, geometry.gradient_border)
    dx_images = new_images(*x_.shape, NO_BORDER, x_.dtype)
    _, n_sums, size = geometry.sums(len(x_))
    partial = np.empty((n_sums, size), x_.dtype)
    run(
        geometry.input_gradient(dy, _packed(geometry, W_, True), dx_images),
        geometry.weight_gradient(to_images(x_, geometry.padding), dy, partial),
        geometry.reduce(partial, dW, db),
    )
    return to_array(dx_images, dx), dW, db


# ------------------------------------------------------------------------------------- pooling


def pool_output_size(
    sizes: tuple[int, ...], size: tuple[int, int], stride: tuple[int, int], padding: Border
) -> tuple[int, int]:
    height, width = native.pooling.output_size(*sizes, size, stride, padding)
    if min(height, width) < 1:
        raise ValueError(
            f"x: images of {sizes[0]} x {sizes[1]} with padding {padding} are smaller than the"
            f" window {size}"
        )
    return height, width


def pool2d_forward(
    x: npt.ArrayLike,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: Border,
    average: bool,
    out: Array | None = None,
) -> tuple[Array, npt.NDArray[np.int32] | None]:
    """The maximum or mean of each window, and for the maximum which pixel it was."""
    x_ = check_images("x", x)
    shape = (*x_.shape[:2], *pool_output_size(x_.shape[2:], size, stride, padding))
    out = output("out", out, shape, x_.dtype, (x,))
    which = None if average else np.zeros(out.size, np.int32)
    y = new_images(*shape, NO_BORDER, x_.dtype)
    run(native.pooling.forward(to_images(x_), y, which, size, stride, padding, average))
    return to_array(y, out), which


def pool2d_backward(
    dout: npt.ArrayLike,
    which: npt.NDArray[np.int32] | None,
    input_shape: tuple[int, ...],
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: Border,
    average: bool,
    out: Array | None = None,
) -> Array:
    """The gradient by the input of `pool2d_forward`, from the second value that it returned."""
    dout_ = check_images("dout", dout)
    sizes = pool_output_size(input_shape[2:], size, stride, padding)
    check_shape("dout", dout_, (*input_shape[:2], *sizes))
    out = output("out", out, tuple(input_shape), dout_.dtype, (dout,))
    dx = new_images(*input_shape, NO_BORDER, dout_.dtype)
    run(native.pooling.backward(to_images(dout_), dx, which, size, stride, padding, average))
    return to_array(dx, out)


def _window(
    size: Any, stride: Any, padding: Any
) -> tuple[tuple[int, int], tuple[int, int], Border]:
    sizes = pair("size", size)
    border = check_padding(padding)
    if border == "same":
        raise ValueError("padding: expected numbers, got 'same'")
    return sizes, sizes if stride is None else pair("stride", stride), border


def max_pool2d_forward(
    x: npt.ArrayLike, size: Any, *, stride: Any = None, padding: Any = 0, out: Array | None = None
) -> tuple[Array, npt.NDArray[np.int32]]:
    """(y, which): maxima of the windows of x (N, C, H, W), and what `max_pool2d_backward` needs.

    size, stride, padding : numbers or pairs; stride is size by default. See layers.MaxPool2D.
    """
    y, which = pool2d_forward(x, *_window(size, stride, padding), False, out)
    assert which is not None
    return y, which


def max_pool2d_backward(
    dout: npt.ArrayLike,
    which: npt.NDArray[np.int32],
    input_shape: tuple[int, ...],
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    out: Array | None = None,
) -> Array:
    """dx (N, C, H, W): each gradient goes to the pixel that was the maximum."""
    window = _window(size, stride, padding)
    limit = window[0][0] * window[0][1]
    if which.size != np.size(dout) or (which.size and not 0 <= which.min() <= which.max() < limit):
        raise ValueError("which: expected the second result of max_pool2d_forward")
    return pool2d_backward(dout, which, input_shape, *window, False, out)


def avg_pool2d_forward(
    x: npt.ArrayLike, size: Any, *, stride: Any = None, padding: Any = 0, out: Array | None = None
) -> Array:
    """Means of the windows of x (N, C, H, W), of the image's own pixels only."""
    return pool2d_forward(x, *_window(size, stride, padding), True, out)[0]


def avg_pool2d_backward(
    dout: npt.ArrayLike,
    input_shape: tuple[int, ...],
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    out: Array | None = None,
) -> Array:
    """dx (N, C, H, W): each gradient is shared out evenly over its window."""
    return pool2d_backward(dout, None, input_shape, *_window(size, stride, padding), True, out)


# -------------------------------------------------------------------- dropout, normalization


def dropout(
    x: npt.ArrayLike, rate: float, seed: int, layer: int, step: int, *, out: Array | None = None
) -> Array:
    """x / (1 - rate) where the mask of (seed, layer, step) keeps an element, else 0.

    The gradient is the same function of dout. x : (N, ...).
    """
    x_ = as_float("x", x)
    if not 0 <= rate < 1:
        raise ValueError(f"rate: expected 0 <= rate < 1, got {rate}")
    out = output("out", out, x_.shape, x_.dtype, (x,))
    if x_.size:
        rows, count = x_.reshape(len(x_), -1), np.array([step], np.int64)
        run(native.dropout.dropout(rows, out.reshape(rows.shape), rate, seed, layer, count))
    return out


def _norm_images(name: str, x: Array) -> tuple[Array, Images]:
    if x.ndim not in (2, 4) or 0 in x.shape:
        raise ValueError(f"{name}: expected (N, C) or (N, C, H, W), got shape {x.shape}")
    return x, as_images(x) if x.ndim == 2 else to_images(x)


def _norm_array(images: Images, like: Array) -> Array:
    array: Array = images.buffer.reshape(like.shape) if like.ndim == 2 else to_array(images)
    return array


def batch_norm_forward(
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    running_mean: Array,
    running_var: Array,
    *,
    momentum: float = 0.1,
    epsilon: float = 1e-5,
    training: bool = False,
) -> tuple[Array, Array]:
    """(y, table): normalized x (N, C) or (N, C, H, W), and what `batch_norm_backward` needs.

    In training running_mean and running_var (C,) are changed in place. See layers.BatchNorm.
    """
    x_, images = _norm_images("x", as_float("x", x))
    channels, dtype = x_.shape[1], x_.dtype
    arrays = []
    for name, value in (("gamma", gamma), ("beta", beta)):
        arrays.append(as_float(name, value, 1, dtype))
        check_shape(name, arrays[-1], (channels,))
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        arrays.append(output(name, value, (channels,), dtype, (x,)))
    y = as_images(np.empty_like(x_)) if x_.ndim == 2 else new_images(*x_.shape, NO_BORDER, dtype)
    table = np.empty((5, channels), dtype)
    partial = np.empty((native.batch_norm.groups(len(x_)), 2, channels), dtype)
    run(*native.batch_norm.forward(images, y, *arrays, table, partial, momentum, epsilon, training))
    return _norm_array(y, x_), table


def batch_norm_backward(
    dout: npt.ArrayLike,
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    table: Array,
    *,
    training: bool = True,
) -> tuple[Array, Array, Array]:
    """dx, dgamma (C,) and dbeta (C,) from the table that `batch_norm_forward` returned."""
    x_, images = _norm_images("x", as_float("x", x))
    dout_, dy = _norm_images("dout", as_float("dout", dout, None, x_.dtype))
    check_shape("dout", dout_, x_.shape)
    channels = x_.shape[1]
    scale = as_float("gamma", gamma, 1, x_.dtype)
    check_shape("gamma", scale, (channels,))
    check_shape("table", table, (5, channels))
    dx = (
        as_images(np.empty_like(x_)) if x_.ndim == 2 else new_images(*x_.shape, NO_BORDER, x_.dtype)
    )
    dgamma, dbeta = np.empty(channels, x_.dtype), np.empty(channels, x_.dtype)
    partial = np.empty((native.batch_norm.groups(len(x_)), 2, channels), x_.dtype)
    run(
        *native.batch_norm.backward(
            images, dy, dx, scale, table.copy(), partial, dgamma, dbeta, training
        )
    )
    return _norm_array(dx, x_), dgamma, dbeta
