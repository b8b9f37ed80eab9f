"""`common.layers`: the layers of the book, computed by compiled kernels.

Saito, Deep Learning from Scratch, chapters 5 to 7. N samples, I inputs, O outputs, C channels,
H W height and width, F filters, FH FW their size, OH OW output. As in NumPy, float32 inputs and
float64 parameters give float64; images are always computed in float64. `forward` leaves what
`backward` needs in the layer; no `backward` writes to `dout`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _memory, ops
from cnn_core._checks import FLOATS
from cnn_core.book import _deferred as deferred
from cnn_core.book._deferred import Array, Buffers, Deferred, Shape, Step, Window, as_rows, as_step
from cnn_core.book.common.functions import (
    cross_entropy_error,
    identity_function,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from cnn_core.book.common.util import col2im, im2col

__all__ = [
    "Affine",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Pooling",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "col2im",
    "cross_entropy_error",
    "identity_function",
    "im2col",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

Images = Array | Deferred

_MOST_ROWS = 1000
_MANY = 50_000  # numbers, which it takes longer to copy than to bind a kernel to them
_EPSILON = 10e-7


def _bias(b: Any, size: int, dtype: npt.DTypeLike) -> Array:
    """b as an array (size,): b itself, if it is one of this dtype."""
    if np.shape(b) != (size,):
        b = np.broadcast_to(b, (size,))
    return np.ascontiguousarray(b, dtype)


def _check_dout(dout: Images, shape: Shape) -> None:
    if dout.shape != shape:
        raise ValueError(f"dout: expected shape {shape}, got {dout.shape}")


# --------------------------------------------------------------------- activations and the loss


class Relu:
    """max(x, 0), any shape. mask : where x <= 0, which lets no gradient through."""

    def __init__(self) -> None:
        self._y: Step | None = None
        self._mask: Any = None
        self._forward, self._dout, self._backward = Buffers(), Buffers(), Buffers()

    @property
    def mask(self) -> Any:
        return self._mask if self._y is None else self._y.array() <= 0

    def forward(self, x: Images) -> Images:
        step = x.step if isinstance(x, Deferred) else None
        if step is not None:
            self._y = deferred.relu(step, self._forward)
            return Deferred(self._y)
        x = np.asarray(x)
        self._y, self._mask = None, x <= 0
        return np.maximum(x, 0)

    def backward(self, dout: Images) -> Images:
        if self._y is None:
            return np.asarray(np.where(self._mask, 0, dout))
        _check_dout(dout, self._y.shape)
        step = as_step(dout, self._dout)
        return Deferred(deferred.relu_gradient(self._y, step, self._backward))


class Sigmoid:
    """1 / (1 + exp(-x)), any shape. out : the last output."""

    def __init__(self) -> None:
        self.out: Any = None

    def forward(self, x: Array) -> Array:
        self.out = y = np.asarray(sigmoid(x))
        return y

    def backward(self, dout: Array) -> Array:
        return np.asarray(dout * (1.0 - self.out) * self.out)


class SoftmaxWithLoss:
    """The mean of -log(softmax(x)[label] + 1e-7), x (N, C).

    y : softmax(x). t : the targets, labels (N,) or one-hot rows (N, C). loss : the last result.
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, x: Array, t: Array) -> Any:
        self.t = t
        self.y = softmax(x)
        self.loss = cross_entropy_error(self.y, t)
        return self.loss

    def backward(self, dout: Any = 1) -> Array:
        """(y - t) / N; dout is not used."""
        n = len(self.t)
        if self.t.size == self.y.size:
            return np.asarray((self.y - self.t) / n)
        dx = self.y.copy()
        dx[np.arange(n), self.t] -= 1
        return np.asarray(dx / n)


# ---------------------------------------------------------------------------------------- dense


class _Product:
    """x W + b for n rows, bound to buffers; for few rows, binding takes longer than computing."""

    def __init__(self, n: int, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.x, self.out = np.empty((n, len(W)), W.dtype), np.empty((n, W.shape[1]), W.dtype)
        task = ops.native.affine.forward(self.x, W, b, self.out, ops.ACTIVATIONS[None], 0.0)
        self.program = ops.Program([[[task]]])

    def is_of(self, n: int, W: Array, b: Array) -> bool:
        return len(self.x) == n and self.W is W and self.b is b

    def __call__(self, x: Array) -> Array:
        """The product, in a buffer that the next call overwrites."""
        self.x[...] = x
        self.program.run()
        return self.out

    def __reduce__(self) -> Any:
        return _Product, (len(self.x), self.W, self.b)


class Affine:
    """x W + b, W (I, O), b (O,), x (N, I) or (N, ...) with I numbers per sample.

    dW, db : gradients, after `backward`. x : the input as rows (N, I), of the shape
    original_x_shape before.
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.x: Any = None
        self.original_x_shape: Any = None
        self.dW: Any = None
        self.db: Any = None
        self._product: _Product | None = None

    def forward(self, x: Array) -> Array:
        self.original_x_shape = x.shape
        self.x = rows = as_rows(x)
        dtype = _float(rows, self.W, self.b)
        W = np.ascontiguousarray(self.W, dtype)
        ops.dense.check_affine(rows, W)
        b = _bias(self.b, W.shape[1], dtype)
        if rows.dtype == dtype and rows.size >= _MANY:
            return ops.affine_forward(rows, W, b)
        out = np.empty((len(rows), W.shape[1]), dtype)
        # By the thousand, so that a data set in float32 is not copied to float64 as a whole.
        for n in range(0, len(rows), _MOST_ROWS):
            part = rows[n : n + _MOST_ROWS]
            if self._product is None or not self._product.is_of(len(part), W, b):
                self._product = _Product(len(part), W, b)
            out[n : n + _MOST_ROWS] = self._product(part)
        return out

    def backward(self, dout: Array) -> Array:
        """The gradient by x, in the shape that x had."""
        dtype = _float(dout, self.x, self.W)
        arrays = (array.astype(dtype, copy=False) for array in (dout, self.x, self.W))
        dx, self.dW, self.db = ops.affine_backward(*arrays)
        return dx.reshape(self.original_x_shape)


def _float(*arrays: Any) -> npt.DTypeLike:
    """The dtype that NumPy gives to the arrays' product, float64 if the kernels do not know it."""
    dtype = np.result_type(*arrays)
    return dtype if dtype in FLOATS else np.dtype(np.float64)


# ------------------------------------------------------------------------------- regularization


class Dropout:
    """In training x where np.random.rand is above dropout_ratio, else 0; in inference x times
    1 - dropout_ratio. mask : which elements the last training forward kept.

    Source: Srivastava et al. (2014), http://arxiv.org/abs/1207.0580
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self.mask: Any = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio  # noqa: NPY002
        return np.asarray(x * self.mask)

    def backward(self, dout: Array) -> Array:
        return np.asarray(dout * self.mask)


class BatchNormalization:
    """gamma (x - mean) / std + beta with std = sqrt(var + 1e-6), x (N, D) or (N, C, H, W).

    Each of the D, or C H W, numbers of a sample is normalized by itself. In training the mean and
    the (biased) variance are those of the batch, and the running ones become
    momentum running + (1 - momentum) batch; in inference they are the running ones.

    xc : x - mean. xn : xc / std. std, batch_size : of the last batch. dgamma, dbeta : gradients.

    Source: Ioffe and Szegedy (2015), http://arxiv.org/abs/1502.03167
    """

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
    ) -> None:
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean: Any = running_mean
        self.running_var: Any = running_var
        self.input_shape: Any = None
        self.batch_size: Any = None
        self.xc: Any = None
        self.xn: Any = None
        self.std: Any = None
        self.dgamma: Any = None
        self.dbeta: Any = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        self.input_shape = x.shape
        x = as_rows(x)
        if self.running_mean is None:
            self.running_mean, self.running_var = np.zeros((2, x.shape[1]))
        if train_flg:
            xn = self._normalize(x)
        else:
            xn = (x - self.running_mean) / np.sqrt(self.running_var + _EPSILON)
        return np.asarray(self.gamma * xn + self.beta).reshape(self.input_shape)

    def _normalize(self, x: Array) -> Array:
        """xn by the batch's own mean and variance, which the running ones follow."""
        mean = x.mean(axis=0)
        self.batch_size, self.xc = len(x), x - mean
        var = np.square(self.xc).mean(axis=0)
        self.std = np.sqrt(var + _EPSILON)
        self.xn = self.xc / self.std
        share = 1 - self.momentum
        self.running_mean = self.momentum * self.running_mean + share * mean
        self.running_var = self.momentum * self.running_var + share * var
        return np.asarray(self.xn)

    def backward(self, dout: Array) -> Array:
        """dx = gamma / std (dout - dbeta / N - xn dgamma / N)."""
        dout = as_rows(dout)
        self.dbeta = dout.sum(axis=0)
        self.dgamma = (self.xn * dout).sum(axis=0)
        n = self.batch_size
        dx = self.gamma / self.std * (dout - self.dbeta / n - self.xn * (self.dgamma / n))
        return np.asarray(dx).reshape(self.input_shape)


# --------------------------------------------------------------------------------------- images


class Convolution:
    """The convolution of x (N, C, H, W) with W (F, C, FH, FW), plus b (F,): (N, F, OH, OW).

    stride and pad are the same on all sides. dW, db : gradients, after `backward`. x : the input.
    col, col_W : its windows as rows and the filters as columns, made when they are asked for.
    """

    def __init__(self, W: Array, b: Array, stride: int = 1, pad: int = 0) -> None:
        self.W, self.b, self.stride, self.pad = W, b, stride, pad
        self.x: Any = None
        self.dW: Any = None
        self.db: Any = None
        self._x: Any = None
        self._input, self._forward = Buffers(), Buffers()
        self._dout, self._backward = Buffers(), Buffers()

    @property
    def col(self) -> Any:
        if self.x is None:
            return None
        return im2col(np.asarray(self.x), self.W.shape[2], self.W.shape[3], self.stride, self.pad)

    @property
    def col_W(self) -> Any:
        return None if self.x is None else self.W.reshape(len(self.W), -1).T

    def forward(self, x: Images) -> Images:
        geometry, W = self._geometry(x.shape)
        self.x, self._x = x, as_step(x, self._input, geometry.padding)
        b = _bias(self.b, len(W), np.float64).copy()
        packed = _packed(geometry, W, False)
        return Deferred(deferred.convolution(geometry, packed, b, self._x, self._forward))

    def backward(self, dout: Images) -> Images:
        geometry, W = self._geometry(self.x.shape)
        sizes = geometry.output_size(*self.x.shape[2:])
        _check_dout(dout, (len(self.x), len(W), *sizes))
        border = geometry.gradient_border
        x, lane = self._x.images(geometry.padding)
        dy, more = as_step(dout, self._dout, border).images(border)
        _, n_sums, size = geometry.sums(len(self.x))
        partial = _memory.empty((n_sums, size), np.float64)
        self.dW, self.db = np.empty(W.shape), np.empty(len(W))
        lane += [*more, geometry.weight_gradient(x, dy, partial)]
        ops.Program([[lane], [[geometry.reduce(partial, self.dW, self.db)]]]).run()
        packed, shape = _packed(geometry, W, True), self.x.shape
        return Deferred(deferred.convolution_gradient(geometry, packed, dy, shape, self._backward))

    def _geometry(self, shape: Shape) -> tuple[Any, Array]:
        """The compiled geometry for images of this shape, and the weights as it reads them."""
        W = np.ascontiguousarray(self.W, np.float64)
        if len(shape) != 4 or shape[1] != W.shape[1]:
            raise ValueError(f"x: expected (N, {W.shape[1]}, H, W), as W has channels, got {shape}")
        size = (W.shape[2], W.shape[3])
        image = (shape[1], shape[2], shape[3])
        return ops.images.convolution(image, len(W), size, self.stride, self.pad, 1, 1), W


def _packed(geometry: Any, W: Array, backward: bool) -> Array:
    """The weights in the order in which a kernel reads them, as they are now."""
    packed = _memory.empty(geometry.packed_size(backward, False), np.float64)
    ops.run(geometry.pack(W, packed, backward))
    return packed


class Pooling:
    """The maximum of every window of x (N, C, H, W); padding counts as 0.

    x : the input. arg_max : which element of its window each maximum was, (N * OH * OW * C,).
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 2, pad: int = 0) -> None:
        self.pool_h, self.pool_w, self.stride, self.pad = pool_h, pool_w, stride, pad
        self.x: Any = None
        self._x: Any = None
        self._y: Any = None
        self._which: Any = None
        self._input, self._forward = Buffers(), Buffers()
        self._dout, self._backward = Buffers(), Buffers()

    def _window(self) -> Window:
        return Window((self.pool_h, self.pool_w), (self.stride, self.stride))

    @property
    def arg_max(self) -> Any:
        if self._y is not None:
            self._y.compute()
        return self._which

    def forward(self, x: Images) -> Images:
        self.x = x
        if self.pad:
            x = np.pad(np.asarray(x), [(0, 0), (0, 0), *[(self.pad, self.pad)] * 2])
        self._x = as_step(x, self._input)
        self._y, self._which = deferred.pooling(self._x, self._window(), self._forward)
        return Deferred(self._y)

    def backward(self, dout: Images) -> Images:
        _check_dout(dout, self._y.shape)
        steps = self._x, self._y, as_step(dout, self._dout)
        step = deferred.pooling_gradient(*steps, self._window(), self._which, self._backward)
        if not self.pad:
            return Deferred(step)
        height, width = self.x.shape[2:]
        return step.array()[:, :, self.pad : self.pad + height, self.pad : self.pad + width]
