"""Layers for images (N, C, H, W), and the regularizing layers that stand between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core import initializers
from cnn_core.layers import Array, Layer, Shape, built_alone, positive, remembered
from cnn_core.ops import images
from cnn_core.ops.windows import Border, Padding, check_padding, pair

Pair = int | tuple[int, int]


def image_shape(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(
            f"{type(layer).__name__}: expected samples (channels, height, width), got shape {shape}"
        )
    return shape[0], shape[1], shape[2]


class Conv2D(Layer):
    """2D convolution: x (N, C, H, W), W (F, C / groups, KH, KW), b (F,), out (N, F, OH, OW).

    out[n, f, y, x] = b[f] + sum over c, r, s of x[n, c, y stride + r dilation - padding, ...] W

    Parameters
    ----------
    filters : the number of output channels F.
    kernel_size, stride, dilation : a number, or (vertical, horizontal).
    padding : zeros around the image: a number, (vertical, horizontal), (top, bottom, left,
        right), "valid" (none) or "same" (OH = ceil(H / stride), the odd one at the bottom and
        right, as in Keras).
    groups : channels and filters are split into so many groups that do not see each other; as
        many groups as channels is the depthwise convolution.
    weights, biases : an initializer or an array; GlorotUniform and Zeros by default.

    3 x 3 kernels with stride 1 and many channels, and those of 5 rows and several channels, are
    computed by Winograd's F(2 x 2, 3 x 3) and F(4, 5) over rows: an
    infinite pixel gives NaN there, where the sum itself would be infinite. So does the gradient of
    the weights of few filters.

    Sources: Saito, Deep Learning from Scratch, section 7.4; Lavin and Gray, Fast algorithms for
    convolutional neural networks (2016).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        weights: initializers.Initializer | npt.ArrayLike | None = None,
        biases: initializers.Initializer | npt.ArrayLike | None = None,
    ) -> None:
        self.filters = positive("filters", filters)
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride = pair("stride", stride)
        self.dilation = pair("dilation", dilation)
        self.groups = positive("groups", groups)
        self.padding = check_padding(padding)
        self.weights = initializers.GlorotUniform() if weights is None else weights
        self.biases = initializers.Zeros() if biases is None else biases
        if self.filters % self.groups:
            raise ValueError(f"filters: expected a multiple of groups={groups}, got {filters}")
        self.params, self.grads = {}, {}

    def convolution(self, input_shape: Shape) -> Any:
        """The compiled geometry for samples of this shape."""
        channels, height, width = image_shape(self, input_shape)
        if channels % self.groups:
            raise ValueError(
                f"Conv2D: expected channels a multiple of groups={self.groups}, got {channels}"
            )
        return images.convolution(
            (channels, height, width),
            self.filters,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )

    def output_shape(self, input_shape: Shape) -> Shape:
        _, height, width = image_shape(self, input_shape)
        size = self.convolution(input_shape).output_size(height, width)
        return (self.filters, *size)

    def build(self, input_shape: Shape, rng: np.random.Generator) -> dict[str, Array]:
        channels = image_shape(self, input_shape)[0]
        self.output_shape(input_shape)
        area = math.prod(self.kernel_size)
        shape = (self.filters, channels // self.groups, *self.kernel_size)
        fans = (shape[1] * area, self.filters // self.groups * area)
        return {
            "W": initializers.draw("weights", self.weights, rng, shape, fans),
            "b": initializers.draw("biases", self.biases, rng, (self.filters,), fans),
        }

    def _options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def forward(self, x: Array, training: bool = False) -> Array:
        x = images.check_images("x", x)
        if not self.params:
            self.params = built_alone(self, x)
        y = images.conv2d_forward(x, self.params["W"], self.params["b"], **self._options())
        self._x = x
        return y

    def backward(self, dout: Array) -> Array:
        x = remembered(self, "_x")
        dx, dW, db = images.conv2d_backward(dout, x, self.params["W"], **self._options())
        self.grads = {"W": dW, "b": db}
        return dx

    def get_config(self) -> dict[str, Any]:
        padding = self.padding if isinstance(self.padding, str) else list(self.padding)
        return {
            "class": "Conv2D",
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": padding,
            "dilation": list(self.dilation),
            "groups": self.groups,
            "weights": initializers.to_config(self.weights),
            "biases": initializers.to_config(self.biases),
        }


class _Pool2D(Layer):
    """Windows of `size` every `stride` pixels (by default side by side) over the padded image.

    A window that would reach past the padded image is left out. Padding is at most half of the
    window; of a window only the image's own pixels count.

    Parameters
    ----------
    size, stride, padding : a number, or (vertical, horizontal); stride is size by default.
    """

    average = False

    def __init__(self, size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.size = pair("size", size)
        self.stride = self.size if stride is None else pair("stride", stride)
        self.padding = pair("padding", padding, 0)
        if any(2 * p > s for p, s in zip(self.padding, self.size, strict=True)):
            raise ValueError(f"padding: expected at most half of size={size}, got {padding}")

    def window(self, input_shape: Shape) -> tuple[Any, Any, Border]:
        vertical, horizontal = self.padding
        return self.size, self.stride, (vertical, vertical, horizontal, horizontal)

    def output_shape(self, input_shape: Shape) -> Shape:
        channels, *sizes = image_shape(self, input_shape)
        return (channels, *images.pool_output_size(tuple(sizes), *self.window(input_shape)))

    def forward(self, x: Array, training: bool = False) -> Array:
        x = images.check_images("x", x)
        y, self._which = images.pool2d_forward(x, *self.window(x.shape[1:]), self.average)
        self._input_shape = x.shape
        return y

    def backward(self, dout: Array) -> Array:
        shape = tuple(remembered(self, "_input_shape").tolist())
        return images.pool2d_backward(
            dout, self._which, shape, *self.window(shape[1:]), self.average
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "size": list(self.size),
            "stride": list(self.stride),
            "padding": list(self.padding),
        }


class MaxPool2D(_Pool2D):
    __doc__ = "The maximum of each window; of equals the first; a NaN wins.\n" + str(
        _Pool2D.__doc__
    )


class AvgPool2D(_Pool2D):
    __doc__ = "The mean of each window's pixels.\n" + str(_Pool2D.__doc__)
    average = True


class GlobalAvgPool2D(_Pool2D):
    """The mean of each channel: (N, C, H, W) to (N, C)."""

    average = True

    def __init__(self) -> None:
        pass

    def window(self, input_shape: Shape) -> tuple[Any, Any, Border]:
        sizes = image_shape(self, input_shape)[1:]
        return sizes, sizes, (0, 0, 0, 0)

    def output_shape(self, input_shape: Shape) -> Shape:
        return (image_shape(self, input_shape)[0],)

    def forward(self, x: Array, training: bool = False) -> Array:
        y = super().forward(x, training)
        return y.reshape(y.shape[:2])

    def backward(self, dout: Array) -> Array:
        remembered(self, "_input_shape")  # without it, that is what is wrong
        return super().backward(checks.as_float("dout", dout, 2)[..., None, None])

    def get_config(self) -> dict[str, Any]:
        return {"class": "GlobalAvgPool2D"}


class Dropout(Layer):
    """In training, elements are set to 0 with probability `rate`, the others scaled by
    1 / (1 - rate); in inference nothing changes.

    The mask is a function of the seed, the layer's place, the number of updates made, and the
    element's index: the backward pass draws it again, or uses the bits that the forward pass left.

    Source: Srivastava et al. (2014); Saito, Deep Learning from Scratch, section 6.4.3.
    """

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = images.check_rate(rate)
        #: what a mask depends on; a network sets the first two and counts the third
        self.seed, self.stream = 0, 0
        self.step = np.zeros(1, np.int64)
        self._alone = True

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        x = checks.as_float("x", x)
        self._training, self._shape = training, x.shape
        if not training:
            return x
        if self._alone:
            self.step[0] += 1
        return images.dropout(x, self.rate, self.seed, self.stream, int(self.step[0]))

    def backward(self, dout: Array) -> Array:
        is_training = bool(remembered(self, "_training"))
        dout = checks.as_float("dout", dout)
        checks.check_shape("dout", dout, self._shape)
        if not is_training:
            return dout
        return images.dropout(dout, self.rate, self.seed, self.stream, int(self.step[0]))

    def get_config(self) -> dict[str, Any]:
        return {"class": "Dropout", "rate": self.rate}


class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta, per feature of rows or channel of images.

    In training the mean and the biased variance of the batch are taken, and the running ones
    follow them: running += momentum (batch - running), with the unbiased variance, as in PyTorch.
    In inference the running ones are taken.

    Parameters
    ----------
    momentum : default 0.1. epsilon : default 1e-5.

    Source: Ioffe and Szegedy (2015); Saito, Deep Learning from Scratch, section 6.3.
    """

    def __init__(self, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        self.momentum, self.epsilon = images.check_norm(momentum, epsilon)
        self.params, self.grads = {}, {}
        #: running_mean and running_var: not trained, but saved with the parameters
        self.state: dict[str, Array] = {}

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) not in (1, 3):
            raise ValueError(
                f"BatchNorm: expected samples (features,) or (channels, height, width), got"
                f" {input_shape}"
            )
        return input_shape

    def build(self, input_shape: Shape, rng: np.random.Generator) -> dict[str, Array]:
        channels = self.output_shape(input_shape)[0]
        # Views of one number: they are copied where they are used, and measured where they are not.
        zeros, ones = (np.broadcast_to(value, (channels,)) for value in (0.0, 1.0))
        self.state = {"running_mean": zeros, "running_var": ones}
        return {"gamma": ones, "beta": zeros}

    def forward(self, x: Array, training: bool = False) -> Array:
        x = checks.as_float("x", x)
        if not self.params:
            self.params = built_alone(self, x)
            self.state = {name: value.astype(x.dtype) for name, value in self.state.items()}
        y, self._table = images.batch_norm_forward(
            x,
            self.params["gamma"],
            self.params["beta"],
            self.state["running_mean"],
            self.state["running_var"],
            momentum=self.momentum,
            epsilon=self.epsilon,
            training=training,
        )
        self._x, self._training = x, training
        return y

    def backward(self, dout: Array) -> Array:
        x = remembered(self, "_x")
        dx, dgamma, dbeta = images.batch_norm_backward(
            dout, x, self.params["gamma"], self._table, training=self._training
        )
        self.grads = {"gamma": dgamma, "beta": dbeta}
        return dx

    def get_config(self) -> dict[str, Any]:
        return {"class": "BatchNorm", "momentum": self.momentum, "epsilon": self.epsilon}


BY_NAME: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (Conv2D, MaxPool2D, AvgPool2D, GlobalAvgPool2D, Dropout, BatchNorm)
}
