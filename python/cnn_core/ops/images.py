"""Convolution, pooling, dropout and batch normalization of arrays (N, C, H, W); see ops.

Inside, the channels are innermost: the functions convert on the way in and out. A network's plan
keeps that layout from layer to layer instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _memory
from cnn_core._checks import (
    MOST_ELEMENTS,
    MOST_PIXELS,
    as_float,
    check_apart,
    check_shape,
    finite,
    in_place,
    is_masked,
    output,
    whole,
)
from cnn_core._images import Images as Images
from cnn_core.ops.dense import Program, native, outputs, run
from cnn_core.ops.windows import (
    NO_BORDER,
    Border,
    Padding,
    Shape,
    check_image_shape,
    check_padding,
    pair,
    pool_window,
    same_padding,
)

Array = npt.NDArray[Any]


def new_images(shape: Shape, border: Border, dtype: npt.DTypeLike) -> Images:
    """Images of shape (N, C, H, W) with the channels innermost, all zero."""
    n, channels, height, width = shape
    size = native.images.buffer_size(n, height, width, channels, border)
    if size > MOST_ELEMENTS:
        raise ValueError(f"x: images {shape} with a border of {border} pixels are too large")
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


def pass_through(x: Array, images: Images, task: Any, y: Images, out: Array) -> Array:
    """Run a task from `images` to `y` with the ways in and out, some images at a time, which stay
    in the cache; neither `images` nor `y` is filled."""
    first = native.images.from_rows(x.reshape(len(x), -1), images)
    last = native.images.to_rows(y, out.reshape(len(out), -1))
    Program([[[first, task, last]]], [images, y]).run()
    return out


def check_images(name: str, x: npt.ArrayLike, dtype: Any = None) -> Array:
    array = as_float(name, x, 4, dtype)
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one element per axis, got {array.shape}")
    return array


# -------------------------------------------------------------------------------- convolution


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
    # In Python, whose integers do not overflow.
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if sizes[0] + sum(border[:2]) < reach[0] or sizes[1] + sum(border[2:]) < reach[1]:
        raise ValueError(
            f"x: images of {sizes[0]} x {sizes[1]} with padding {border} are smaller than the"
            f" kernel {kernel} with dilation {dilations}"
        )
    if filters * channels * math.prod(kernel) > MOST_ELEMENTS:
        shape = filters, channels, *kernel
        raise ValueError(f"filters: expected at most 2**48 elements, got shape {shape}")
    return native.conv2d.Convolution(
        channels, filters, kernel, strides, border, dilations, groups, np.empty
    )


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
    images = new_images(x_.shape, geometry.padding, x_.dtype)
    task = geometry.forward(images, _packed(geometry, W_, False), bias, y, 0, 0.0)
    return pass_through(x_, images, task, y, out)


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
    given = outputs(out, "dx, dW, db")
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
    if math.prod(size) > MOST_PIXELS:
        raise ValueError(f"size: expected at most {MOST_PIXELS} pixels, got {size}")
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
    images = new_images(x_.shape, NO_BORDER, x_.dtype)
    task = native.pooling.forward(images, y, which, size, stride, padding, average)
    return pass_through(x_, images, task, y, out), which


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
    shape = check_image_shape(input_shape)
    sizes = pool_output_size(shape[2:], size, stride, padding)
    check_shape("dout", dout_, (*shape[:2], *sizes))
    out = output("out", out, shape, dout_.dtype, (dout,))
    dx = new_images(shape, NO_BORDER, dout_.dtype)
    dy = new_images(dout_.shape, NO_BORDER, dout_.dtype)
    task = native.pooling.backward(dy, dx, which, size, stride, padding, average)
    return pass_through(dout_, dy, task, dx, out)


def max_pool2d_forward(
    x: npt.ArrayLike, size: Any, *, stride: Any = None, padding: Any = 0, out: Array | None = None
) -> tuple[Array, npt.NDArray[np.int32]]:
    """(y, which): maxima of the windows of x (N, C, H, W), and what `max_pool2d_backward` needs.

    size, stride, padding : numbers or pairs; stride is size by default. See layers.MaxPool2D.
    """
    y, which = pool2d_forward(x, *pool_window(size, stride, padding), False, out)
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
    window, dout_ = pool_window(size, stride, padding), check_images("dout", dout)
    if (
        not (isinstance(which, np.ndarray) and which.dtype == np.int32)
        or which.shape != (dout_.size,)
        or not 0 <= which.min() <= which.max() < math.prod(window[0])
        or is_masked(which)
    ):
        raise ValueError("which: expected the second result of max_pool2d_forward")
    numbers = np.require(which, requirements=["C", "A", "W"])
    return pool2d_backward(dout, numbers, input_shape, *window, False, out)


def avg_pool2d_forward(
    x: npt.ArrayLike, size: Any, *, stride: Any = None, padding: Any = 0, out: Array | None = None
) -> Array:
    """Means of the windows of x (N, C, H, W), of the image's own pixels only."""
    return pool2d_forward(x, *pool_window(size, stride, padding), True, out)[0]


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
    return pool2d_backward(dout, None, input_shape, *pool_window(size, stride, padding), True, out)


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
    rate = check_rate(rate)
    for name, value, bits in (("seed", seed, 64), ("layer", layer, 32), ("step", step, 63)):
        if whole(name, value, 0, f"an integer in 0..2**{bits} - 1") >> bits:
            raise ValueError(f"{name}: expected an integer in 0..2**{bits} - 1, got {value!r}")
    out = output("out", out, x_.shape, x_.dtype, (x,))
    if x_.size:
        rows, count = x_.reshape(len(x_), -1), np.array([step], np.int64)
        run(native.dropout.dropout(rows, out.reshape(rows.shape), rate, seed, layer, count))
    return out


def check_rate(rate: Any) -> float:
    """The share of elements that dropout sets to 0."""
    number = finite("rate", rate)
    if not 0 <= number < 1:
        raise ValueError(f"rate: expected 0 <= rate < 1, got {rate}")
    return number


def check_norm(momentum: Any, epsilon: Any) -> tuple[float, float]:
    """The numbers of batch normalization."""
    share, least = finite("momentum", momentum), finite("epsilon", epsilon)
    if not 0 <= share <= 1:
        raise ValueError(f"momentum: expected 0 <= momentum <= 1, got {momentum}")
    if least <= 0:
        raise ValueError(f"epsilon: expected a finite number > 0, got {epsilon}")
    return share, least


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
    momentum, epsilon = check_norm(momentum, epsilon)
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
    y, table = _norm_result(out), np.zeros((5, channels), dtype)
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
    given = outputs(out, "dx, dgamma, dbeta")
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
