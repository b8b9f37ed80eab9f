"""Convolution, pooling, dropout and batch normalization of arrays (N, C, H, W); see ops.

Inside, the channels are innermost: the functions convert on the way in and out. A network's plan
keeps that layout from layer to layer instead.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cnn_core import _memory
from cnn_core._checks import as_float, check_apart, check_shape, in_place, output
from cnn_core._images import Images as Images
from cnn_core.ops.dense import native, run

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Border = tuple[int, int, int, int]
Padding = int | Sequence[int] | Literal["valid", "same"]
NO_BORDER: Border = (0, 0, 0, 0)


def new_images(shape: Shape, border: Border, dtype: npt.DTypeLike) -> Images:
    """Images of shape (N, C, H, W) with the channels innermost, all zero."""
    n, channels, height, width = shape
    size = native.images.buffer_size(n, height, width, channels, border)
    return Images(n, height, width, channels, border, _memory.zeros(size, dtype))


def as_images(value: Array | Images) -> Images:
    """Rows (N, C) as images of one pixel, in the same memory; images as they are."""
    if isinstance(value, Images):
        return value
    n, channels = value.shape
    return Images(n, 1, 1, channels, NO_BORDER, value.reshape(-1))


def to_images(x: Array, border: Border = NO_BORDER) -> Images:
    images = new_images(x.shape, border, x.dtype)
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


def whole(name: str, value: Any, least: int, expected: str) -> int:
    """`value` as an integer >= least."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return number


def pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """(vertical, horizontal) from one integer or two."""
    expected = f"an integer >= {least} or a pair of them"
    values = list(value) if isinstance(value, (tuple, list)) else [value, value]
    if len(values) != 2:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return whole(name, values[0], least, expected), whole(name, values[1], least, expected)


def check_padding(padding: Padding) -> Literal["same"] | Border:
    """Padding as "same" or (top, bottom, left, right)."""
    expected = "1, 2 or 4 integers >= 0, 'valid' or 'same'"
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding: expected {expected}, got {padding!r}")
        return "same" if padding == "same" else NO_BORDER
    values = list(padding) if isinstance(padding, (tuple, list)) else [padding]
    numbers = [whole("padding", v, 0, expected) for v in values]
    if len(numbers) == 1:
        numbers *= 4
    elif len(numbers) == 2:
        numbers = [numbers[0], numbers[0], numbers[1], numbers[1]]
    elif len(numbers) != 4:
        raise ValueError(f"padding: expected {expected}, got {padding!r}")
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
    groups = whole("groups", options.pop("groups"), 1, "an integer >= 1")
    filters, channels = W.shape[:2]
    if filters % groups:
        raise ValueError(f"groups: expected a divisor of {filters} filters, got {groups}")
    if channels * groups != x.shape[1]:
        raise ValueError(f"x: expected {channels * groups} channels, as W has, got {x.shape}")
    kernel = (W.shape[2], W.shape[3])
    return convolution(
        (x.shape[1], x.shape[2], x.shape[3]), filters, kernel, **options, groups=groups
    )


def _packed(geometry: Any, W: Array, backward: bool) -> Array:
    packed = _memory.empty(geometry.packed_size(backward, W.dtype == np.float32), W.dtype)
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
    x_ = check_images("x", x)
    W_ = check_images("W", W, x_.dtype)
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
    y = new_images(shape, NO_BORDER, x_.dtype)
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
    if len(given) != 3:
        raise ValueError(f"out: expected three arrays (dx, dW, db), got {len(given)}")
    inputs = (dout, x, W)
    dx = output("out[0]", given[0], x_.shape, x_.dtype, inputs)
    dW = output("out[1]", given[1], W_.shape, x_.dtype, (*inputs, dx))
    db = output("out[2]", given[2], (len(W_),), x_.dtype, (*inputs, dx, dW))
    dy = to_images(dout_, geometry.gradient_border)
    dx_images = new_images(x_.shape, NO_BORDER, x_.dtype)
    _, n_sums, size = geometry.sums(len(x_))
    partial = _memory.empty((n_sums, size), x_.dtype)
    run(
        geometry.input_gradient(dy, _packed(geometry, W_, True), dx_images),
        geometry.weight_gradient(to_images(x_, geometry.padding), dy, partial),
        geometry.reduce(partial, dW, db),
    )
    return to_array(dx_images, dx), dW, db


# ------------------------------------------------------------------------------------- pooling


def pool_output_size(
    sizes: Shape, size: tuple[int, int], stride: tuple[int, int], padding: Border
) -> tuple[int, int]:
    # A window of padding only would have no maximum.
    if 2 * max(padding[:2]) > size[0] or 2 * max(padding[2:]) > size[1]:
        raise ValueError(f"padding: expected at most half of the window {size}, got {padding}")
    height, width = native.pooling.output_size(sizes[0], sizes[1], size, stride, padding)
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
    y = new_images(shape, NO_BORDER, x_.dtype)
    run(native.pooling.forward(to_images(x_), y, which, size, stride, padding, average))
    return to_array(y, out), which


def pool2d_backward(
    dout: npt.ArrayLike,
    which: npt.NDArray[np.int32] | None,
    input_shape: Shape,
    size: tuple[int, int],
    stride: tuple[int, int],
    padding: Border,
    average: bool,
    out: Array | None = None,
) -> Array:
    """The gradient by the input of `pool2d_forward`, from the second value that it returned."""
    dout_ = check_images("dout", dout)
    if len(input_shape) != 4:
        raise ValueError(f"input_shape: expected (N, C, H, W), got {input_shape}")
    sizes = pool_output_size(input_shape[2:], size, stride, padding)
    check_shape("dout", dout_, (*input_shape[:2], *sizes))
    out = output("out", out, tuple(input_shape), dout_.dtype, (dout,))
    dx = new_images(tuple(input_shape), NO_BORDER, dout_.dtype)
    run(native.pooling.backward(to_images(dout_), dx, which, size, stride, padding, average))
    return to_array(dx, out)


def _window(
    size: Any, stride: Any, padding: Any
) -> tuple[tuple[int, int], tuple[int, int], Border]:
    sizes = pair("size", size)
    if isinstance(padding, str):
        raise ValueError(f"padding: expected 1, 2 or 4 integers >= 0, got {padding!r}")
    border: Any = check_padding(padding)
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
    input_shape: Shape,
    size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    out: Array | None = None,
) -> Array:
    """dx (N, C, H, W): each gradient goes to the pixel that was the maximum."""
    window = _window(size, stride, padding)
    limit = window[0][0] * window[0][1]
    if (
        not (isinstance(which, np.ndarray) and which.dtype == np.int32)
        or which.shape != (np.size(dout),)
        or (which.size and not 0 <= which.min() <= which.max() < limit)
    ):
        raise ValueError("which: expected the second result of max_pool2d_forward")
    return pool2d_backward(dout, which, input_shape, *window, False, out)


def avg_pool2d_forward(
    x: npt.ArrayLike, size: Any, *, stride: Any = None, padding: Any = 0, out: Array | None = None
) -> Array:
    """Means of the windows of x (N, C, H, W), of the image's own pixels only."""
    return pool2d_forward(x, *_window(size, stride, padding), True, out)[0]


def avg_pool2d_backward(
    dout: npt.ArrayLike,
    input_shape: Shape,
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
    if not x_.ndim:
        raise ValueError(f"x: expected at least 1 dimension, got shape {x_.shape}")
    if not 0 <= rate < 1:
        raise ValueError(f"rate: expected 0 <= rate < 1, got {rate}")
    for name, value, bits in (("seed", seed, 64), ("layer", layer, 32), ("step", step, 63)):
        if whole(name, value, 0, f"an integer in 0..2**{bits} - 1") >> bits:
            raise ValueError(f"{name}: expected an integer in 0..2**{bits} - 1, got {value!r}")
    out = output("out", out, x_.shape, x_.dtype, (x,))
    if x_.size:
        rows, count = x_.reshape(len(x_), -1), np.array([step], np.int64)
        run(native.dropout.dropout(rows, out.reshape(rows.shape), rate, seed, layer, count))
    return out


def _norm_images(name: str, x: Array) -> Images:
    if x.ndim not in (2, 4) or 0 in x.shape:
        raise ValueError(f"{name}: expected (N, C) or (N, C, H, W), got shape {x.shape}")
    return as_images(x) if x.ndim == 2 else to_images(x)


def _norm_result(out: Array) -> Images:
    """Where the result for `out` is computed: in `out` itself, where that is rows."""
    return as_images(out) if out.ndim == 2 else new_images(out.shape, NO_BORDER, out.dtype)


def _norm_partial(n: int, channels: int, dtype: npt.DTypeLike) -> Array:
    return np.empty((native.batch_norm.groups(n), 2, channels), dtype)


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
    out: Array | None = None,
) -> tuple[Array, Array]:
    """(y, table): normalized x (N, C) or (N, C, H, W), and what `batch_norm_backward` needs.

    In training running_mean and running_var (C,) are changed in place. See layers.BatchNorm.
    """
    x_ = as_float("x", x)
    images = _norm_images("x", x_)
    channels, dtype = x_.shape[1], x_.dtype
    scale, shift = as_float("gamma", gamma, 1, dtype), as_float("beta", beta, 1, dtype)
    check_shape("gamma", scale, (channels,))
    check_shape("beta", shift, (channels,))
    mean = in_place("running_mean", running_mean, dtype)
    var = in_place("running_var", running_var, dtype)
    given = (x, gamma, beta)
    for name, running in (("running_mean", mean), ("running_var", var)):
        check_shape(name, running, (channels,))
        check_apart(name, running, given)
    check_apart("running_var", var, (mean,))
    out = output("out", out, x_.shape, dtype, (*given, mean, var))
    y, table = _norm_result(out), np.empty((5, channels), dtype)
    partial = _norm_partial(len(x_), channels, dtype)
    stages = native.batch_norm.forward(
        images, y, scale, shift, mean, var, table, partial, momentum, epsilon, training
    )
    run(*stages)
    return out if x_.ndim == 2 else to_array(y, out), table


def batch_norm_backward(
    dout: npt.ArrayLike,
    x: npt.ArrayLike,
    gamma: npt.ArrayLike,
    table: Array,
    *,
    training: bool = True,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array, Array, Array]:
    """dx, dgamma (C,) and dbeta (C,) from the table that `batch_norm_forward` returned.

    out : three arrays, or None, for dx, dgamma and dbeta.
    """
    x_ = as_float("x", x)
    dout_ = as_float("dout", dout, None, x_.dtype)
    images = _norm_images("x", x_)
    check_shape("dout", dout_, x_.shape)
    channels, dtype = x_.shape[1], x_.dtype
    scale = as_float("gamma", gamma, 1, dtype)
    check_shape("gamma", scale, (channels,))
    factors = as_float("table", table, 2, dtype).copy()
    check_shape("table", factors, (5, channels))
    given = (None, None, None) if out is None else out
    if len(given) != 3:
        raise ValueError(f"out: expected three arrays (dx, dgamma, dbeta), got {len(given)}")
    inputs = (dout, x, gamma, table)
    dx = output("out[0]", given[0], x_.shape, dtype, inputs)
    dgamma = output("out[1]", given[1], (channels,), dtype, (*inputs, dx))
    dbeta = output("out[2]", given[2], (channels,), dtype, (*inputs, dx, dgamma))
    result = _norm_result(dx)
    stages = native.batch_norm.backward(
        images,
        _norm_images("dout", dout_),
        result,
        scale,
        factors,
        _norm_partial(len(x_), channels, dtype),
        dgamma,
        dbeta,
        training,
    )
    run(*stages)
    return dx if x_.ndim == 2 else to_array(result, dx), dgamma, dbeta
