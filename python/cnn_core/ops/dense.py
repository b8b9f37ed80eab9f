"""Fully connected layers, activations, losses, mini-batches, updates and threads; see ops."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cnn_core import _memory, _native
from cnn_core._checks import (
    FLOATS,
    Array,
    as_dtype,
    as_float,
    as_indices,
    as_labels,
    as_rows,
    as_source,
    as_target_rows,
    check_apart,
    check_shape,
    check_slope,
    finite,
    in_place,
    output,
    to_array,
    whole,
    writable,
)

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu"]
Reduction = Literal["mean", "sum"]

#: Numbers of the activations in simd/simd.h; None is no activation.
ACTIVATIONS: dict[str | None, int] = {None: 0, "sigmoid": 1, "tanh": 2, "relu": 3, "leaky_relu": 4}
LOSSES = {"softmax_cross_entropy": 0, "binary_cross_entropy": 1, "squared_error": 2}
FEW_SAMPLES = 4  # do not keep all threads busy, nor pay for weights in another order
#: The native modules, for the plan and the optimizers, which bind kernels to buffers once.
native = _native
Program = native.parallel.Program
Task = native.parallel.Task
run = native.parallel.run


# ---------------------------------------------------------------------------------------- affine


def affine_forward(
    x: npt.ArrayLike,
    W: npt.ArrayLike,
    b: npt.ArrayLike | None,
    *,
    activation: Activation | None = None,
    slope: float = 0.01,
    out: Array | None = None,
) -> Array:
    """out = f(x W + b).

    Parameters
    ----------
    x : (N, I), W : (I, O), b : (O,) or None
    activation : "sigmoid", "tanh", "relu", "leaky_relu" or None, applied while the product is in
        the cache. `slope` is leaky_relu's.

    Returns
    -------
    (N, O)

    Raises
    ------
    TypeError, ValueError
        For a wrong dtype or shape, naming the argument.
    """
    inputs = (x, W, b)
    x = as_float("x", x, 2)
    W = as_float("W", W, 2, x.dtype)
    check_affine(x, W)
    if b is not None:
        b = as_float("b", b, 1, x.dtype)
        check_shape("b", b, (W.shape[1],))
    code, slope = activation_code(activation), check_slope(slope)
    out = output("out", out, (x.shape[0], W.shape[1]), x.dtype, inputs)
    if out.size:
        run(native.affine.forward(x, W, b, out, code, slope))
    return out


def activation_code(activation: Any) -> int:
    """The number of a named activation."""
    if activation is not None and not (isinstance(activation, str) and activation in ACTIVATIONS):
        raise ValueError(f"activation: expected one of {list(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]


def check_affine(x: Any, W: Array) -> None:
    if 0 in W.shape:
        raise ValueError(f"W: expected at least one input and one output, got shape {W.shape}")
    if x.shape[1] != W.shape[0]:
        raise ValueError(f"x: expected {W.shape[0]} columns, as many as W has rows, got {x.shape}")


def affine_backward(
    dout: npt.ArrayLike,
    x: npt.ArrayLike,
    W: npt.ArrayLike,
    *,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of out = x W + b: dx = dout W^T, dW = x^T dout, db = sum of dout over N.

    Parameters
    ----------
    dout : (N, O), x : (N, I), W : (I, O)
    out : three arrays (or None) for dx, dW and db.

    Returns
    -------
    dx (N, I), dW (I, O), db (O,)
    """
    inputs = (dout, x, W)
    x = as_float("x", x, 2)
    W = as_float("W", W, 2, x.dtype)
    check_affine(x, W)
    dout = as_float("dout", dout, 2, x.dtype)
    check_shape("dout", dout, (x.shape[0], W.shape[1]))
    given = outputs(out, "dx, dW, db")
    dx = output("out[0]", given[0], x.shape, x.dtype, inputs)
    dW = output("out[1]", given[1], W.shape, x.dtype, (*inputs, dx))
    db = output("out[2]", given[2], (W.shape[1],), x.dtype, (*inputs, dx, dW))
    if not x.shape[0]:
        dW[...] = 0
        db[...] = 0
        return dx, dW, db
    packing, input_gradient = affine_input_gradient(dout, W, dx)
    first = [
        packing,
        [native.affine_gradient.weight_gradient(x, dout, dW)],
        [native.affine_gradient.bias_gradient(dout, db)],
    ]
    Program([first, [[input_gradient]]]).run()
    return dx, dW, db


def affine_input_gradient(
    dout: Array, W: Array, dx: Array, *behind: Any
) -> tuple[list[Task], Task]:
    """Tasks for dx = (dout W^T) f'(y): the packing of W, none for few rows, and the product, over
    rows, or for few of them over the columns of dx.

    behind : y, activation, slope, or nothing.
    """
    affine = native.affine_gradient
    if len(dout) < FEW_SAMPLES:
        return [], affine.input_gradient_of_few(dout, W, dx, *behind)
    size = native.gemm.packed_size(W.shape[0], W.shape[1], W.dtype == np.float32)
    packed = _memory.empty(size, W.dtype)
    pack = native.gemm.pack_transposed(W, packed)
    return [pack], affine.input_gradient(dout, packed, dx, *behind)


def outputs(out: Any, names: str) -> tuple[Any, ...]:
    """The arrays, or None, that `out` holds for the results of these names."""
    count = names.count(",") + 1
    if out is None:
        return (None,) * count
    if not isinstance(out, (tuple, list)) or len(out) != count:
        got = len(out) if isinstance(out, (tuple, list)) else type(out).__name__
        raise ValueError(f"out: expected {count} arrays ({names}), got {got}")
    return tuple(out)


# ----------------------------------------------------------------------------------- activations


def activation_forward(
    x: npt.ArrayLike, activation: Activation | None, slope: float = 0.0, out: Array | None = None
) -> Array:
    """y = f(x) for the named activation, any shape."""
    inputs = (x,)
    code, slope = activation_code(activation), check_slope(slope)
    x = as_float("x", x)
    out = output("out", out, x.shape, x.dtype, inputs)
    if x.size:
        run(native.activations.forward(as_rows(x), as_rows(out), code, slope))
    return out


def activation_backward(
    dout: npt.ArrayLike,
    y: npt.ArrayLike,
    activation: Activation | None,
    slope: float = 0.0,
    out: Array | None = None,
) -> Array:
    """dx = dout f'(x) for the named activation, from y = f(x)."""
    inputs = (dout, y)
    code, slope = activation_code(activation), check_slope(slope)
    y = as_float("y", y)
    dout = as_float("dout", dout, None, y.dtype)
    check_shape("dout", dout, y.shape)
    out = output("out", out, y.shape, y.dtype, inputs)
    if y.size:
        run(native.activations.backward(as_rows(y), as_rows(dout), as_rows(out), code, slope))
    return out


def sigmoid_forward(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """y = 1 / (1 + exp(-x)), any shape."""
    return activation_forward(x, "sigmoid", 0.0, out)


def sigmoid_backward(dout: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """dx = dout y (1 - y), y being the forward result."""
    return activation_backward(dout, y, "sigmoid", 0.0, out)


def tanh_forward(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """y = tanh(x), any shape."""
    return activation_forward(x, "tanh", 0.0, out)


def tanh_backward(dout: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """dx = dout (1 - y^2), y being the forward result."""
    return activation_backward(dout, y, "tanh", 0.0, out)


def relu_forward(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """y = max(x, 0), any shape; a NaN stays."""
    return activation_forward(x, "relu", 0.0, out)


def relu_backward(dout: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """dx = 0 where y <= 0, else dout, y being the forward result.

    As in PyTorch, a closed unit gives 0 even to a NaN in dout, and where y is NaN dout passes.
    """
    return activation_backward(dout, y, "relu", 0.0, out)


def leaky_relu_forward(x: npt.ArrayLike, slope: float = 0.01, *, out: Array | None = None) -> Array:
    """y = x where x >= 0, else slope x; slope >= 0."""
    return activation_forward(x, "leaky_relu", slope, out)


def leaky_relu_backward(
    dout: npt.ArrayLike, y: npt.ArrayLike, slope: float = 0.01, *, out: Array | None = None
) -> Array:
    """dx = slope dout where y <= 0, else dout, y being the forward result."""
    return activation_backward(dout, y, "leaky_relu", slope, out)


def softmax_forward(x: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """y = exp(x) / sum exp(x) over the last axis, without overflow."""
    inputs = (x,)
    x = as_float("x", x)
    if not x.ndim:
        raise ValueError(f"x: expected at least 1 dimension, got shape {x.shape}")
    out = output("out", out, x.shape, x.dtype, inputs)
    if x.size:
        run(native.activations.softmax_forward(as_rows(x), as_rows(out)))
    return out


def softmax_backward(dout: npt.ArrayLike, y: npt.ArrayLike, *, out: Array | None = None) -> Array:
    """dx = y (dout - sum dout y) over the last axis, y being the forward result."""
    inputs = (dout, y)
    y = as_float("y", y)
    dout = as_float("dout", dout, None, y.dtype)
    check_shape("dout", dout, y.shape)
    if not y.ndim:
        raise ValueError(f"y: expected at least 1 dimension, got shape {y.shape}")
    out = output("out", out, y.shape, y.dtype, inputs)
    if y.size:
        run(native.activations.softmax_backward(as_rows(y), as_rows(dout), as_rows(out)))
    return out


# ---------------------------------------------------------------------------------------- losses


def loss_scale(reduction: Reduction, divisor: int) -> float:
    if not isinstance(reduction, str) or reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: expected 'mean' or 'sum', got {reduction!r}")
    return 1.0 / divisor if reduction == "mean" else 1.0


def _loss(
    loss: str,
    x: Array,
    t: Array | None,
    labels: npt.NDArray[np.int64] | None,
    scales: tuple[float, float],
    out: Array | None,
    inputs: tuple[npt.ArrayLike, npt.ArrayLike],
) -> tuple[float, Array]:
    """Loss times scales[0], gradient times scales[1]; `inputs` as the user gave them."""
    dx = output("out", out, x.shape, x.dtype, inputs)
    row_losses, totals = np.empty(len(as_rows(x))), np.zeros(4)
    rows = None if t is None else as_rows(t)
    task = native.losses.rows(
        as_rows(x), rows, labels, LOSSES[loss], scales[1], row_losses, None, as_rows(dx)
    )
    run(task, native.losses.total(row_losses, None, scales[0], 1.0, totals))
    return float(totals[0]), dx


def _scores(name: str, value: npt.ArrayLike, ndim: int | None = None) -> Array:
    scores = as_float(name, value, ndim)
    if not scores.ndim or 0 in scores.shape:
        raise ValueError(f"{name}: expected at least one row and column, got shape {scores.shape}")
    return scores


def softmax_cross_entropy(
    scores: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> tuple[float, Array]:
    """Loss = -sum t log softmax(scores), over N if reduction is "mean"; and its gradient.

    Parameters
    ----------
    scores : (N, C)
    t : (N,) integer labels in 0..C-1, or (N, C) rows of class weights (one-hot rows, say)
    reduction : "mean" over the N rows, or "sum"
    out : (N, C) for the gradient

    Returns
    -------
    loss : float, summed in float64
    dscores : (N, C)
    """
    x = _scores("scores", scores, 2)
    scale, target = loss_scale(reduction, len(x)), to_array("t", t)
    if target.ndim == 1:
        labels = as_labels("t", target, *x.shape)
        return _loss("softmax_cross_entropy", x, None, labels, (scale, scale), out, (scores, t))
    rows = as_target_rows("t", target, x.shape, x.dtype)
    return _loss("softmax_cross_entropy", x, rows, None, (scale, scale), out, (scores, t))


def binary_cross_entropy(
    scores: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> tuple[float, Array]:
    """Cross entropy of sigmoid(scores) and t in 0..1, over all elements; and its gradient.

    Parameters
    ----------
    scores, t : (N, ...), of one shape
    reduction : "mean" over all elements, or "sum"

    Returns
    -------
    loss : float
    dscores : (N, ...)
    """
    x = _scores("scores", scores)
    scale = loss_scale(reduction, x.size)
    rows = as_target_rows("t", t, x.shape, x.dtype)
    return _loss("binary_cross_entropy", x, rows, None, (scale, scale), out, (scores, t))


def mean_squared_error(
    y: npt.ArrayLike, t: npt.ArrayLike, *, reduction: Reduction = "mean", out: Array | None = None
) -> tuple[float, Array]:
    """Loss = sum (y - t)^2, over all elements if reduction is "mean"; and its gradient."""
    x = _scores("y", y)
    scale = loss_scale(reduction, x.size)
    rows = as_target_rows("t", t, x.shape, x.dtype)
    return _loss("squared_error", x, rows, None, (scale, 2 * scale), out, (y, t))


def sum_squared_error(
    y: npt.ArrayLike, t: npt.ArrayLike, *, reduction: Reduction = "mean", out: Array | None = None
) -> tuple[float, Array]:
    """Loss = 1/2 sum (y - t)^2, over the N rows if reduction is "mean"; and its gradient.

    Saito, Deep Learning from Scratch, section 4.2.1.
    """
    x = _scores("y", y)
    scale = loss_scale(reduction, len(x))
    rows = as_target_rows("t", t, x.shape, x.dtype)
    return _loss("squared_error", x, rows, None, (0.5 * scale, scale), out, (y, t))


# ----------------------------------------------------------------------- mini-batches and updates


def gather_rows(
    source: npt.ArrayLike,
    indices: npt.ArrayLike,
    *,
    scale: float = 1.0,
    dtype: npt.DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """out = scale source[indices], converted while it is copied.

    Parameters
    ----------
    source : (M, ...) float32, float64 or uint8
    indices : (N,) integers in 0..M-1
    dtype : float32 or float64; by default the source's, float32 for uint8

    Returns
    -------
    (N, ...)
    """
    inputs = (source, indices)
    rows, scale = as_source("source", source), finite("scale", scale)
    if dtype is None:
        own = rows.dtype if rows.dtype in FLOATS else FLOATS[0]
        dtype = own if out is None else writable("out", out).dtype
    kind = as_dtype(dtype)
    index = as_indices("indices", indices, len(rows))
    out = output("out", out, (len(index), *rows.shape[1:]), kind, inputs)
    if out.size:
        start = np.zeros(1, np.int64)
        flat = rows.reshape(len(rows), -1), out.reshape(len(index), -1)
        run(native.batches.gather_rows(flat[0], index, start, scale, flat[1]))
    return out


def sgd_update(
    params: Array,
    grads: npt.ArrayLike,
    lr: float,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    velocity: Array | None = None,
) -> None:
    """One step of stochastic gradient descent, in place, on flat arrays.

    g = grad + weight_decay p; v = momentum v + g; p -= lr (g + momentum v if nesterov else v).
    `velocity` (v) is changed in place too and may be None where momentum is 0.
    """
    inputs = (grads, params)
    rate = np.array([finite("lr", lr)])
    momentum = finite("momentum", momentum)
    weight_decay = finite("weight_decay", weight_decay)
    params = in_place("params", params)
    grads = as_float("grads", grads, 1, params.dtype)
    check_shape("grads", grads, params.shape)
    check_apart("params", params, inputs[:1])
    if velocity is not None:
        velocity = in_place("velocity", velocity, params.dtype)
        check_shape("velocity", velocity, params.shape)
        check_apart("velocity", velocity, inputs)
    elif momentum:
        raise ValueError("velocity: expected an array, because momentum is not 0, got None")
    if params.size:
        update = native.optimizers.sgd
        rule = (momentum, bool(nesterov), weight_decay, 0.0)
        run(update(params, grads, velocity, rate, 1.0, *rule))


# --------------------------------------------------------------------------------------- threads


def set_num_threads(n: int) -> None:
    """Use n threads from now on; 0 returns to what OpenMP offers (see OMP_NUM_THREADS).

    Results are the same, bit for bit, for any number of threads.
    """
    count = whole("n", n, 0, "0..1024 threads", 1024)
    native.parallel.set_num_threads(count)


def get_num_threads() -> int:
    """Threads that a large kernel uses."""
    return int(native.parallel.get_num_threads())


def native_config() -> dict[str, Any]:
    """Instruction set in use and available, OpenMP version date (0: none), threads."""
    return {
        "isa": native.simd.active_isa,
        "compiler": native.simd.compiler,
        "isas": native.simd.supported_isas(),
        "openmp": native.parallel.openmp_support(),
        "threads": get_num_threads(),
    }
