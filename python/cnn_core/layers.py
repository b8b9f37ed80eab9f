"""Layers. Each works alone, with `forward` and `backward`, and anywhere in a `Sequential`.

A layer of one's own is a subclass of `Layer` with two methods in plain NumPy:

    class Square(cc.Layer):
        def forward(self, x, training=False):
            self.x = x
            return x ** 2

        def backward(self, dout):
            return 2 * self.x * dout

One with parameters also defines `build`, which returns their initial values, reads them from
`self.params` and leaves their gradients in `self.grads`.
"""

from __future__ import annotations

import math
import operator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core import initializers, ops

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


class Layer:
    """Base class of all layers. Shapes are those of one sample, without the batch axis N."""

    #: Name of the compiled activation this layer is (see ops.ACTIVATIONS), if it is one.
    activation: ClassVar[ops.Activation | None] = None

    #: Parameters and their gradients by name; inside a network both are views of flat arrays.
    params: dict[str, Array]
    grads: dict[str, Array]

    def forward(self, x: Array, training: bool = False) -> Array:
        """The outputs (N, ...) for the inputs x (N, ...)."""
        raise NotImplementedError

    def backward(self, dout: Array) -> Array:
        """The gradient by the last forward's input, from dout, that by its output.

        Never writes to dout. Leaves the gradients of the parameters in `self.grads`.
        """
        raise NotImplementedError

    def build(self, input_shape: Shape, rng: np.random.Generator) -> dict[str, Array]:
        """Initial values of the parameters for inputs of this shape; none by default."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one sample's output; by default found by trying one sample of zeros."""
        params = list(getattr(self, "params", {}).values())
        zeros = np.zeros((1, *input_shape), params[0].dtype if params else np.float32)
        with np.errstate(all="ignore"):
            return tuple(np.shape(self.forward(zeros))[1:])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for `Sequential.get_config`."""
        return {"class": type(self).__name__}

    def __repr__(self) -> str:
        config = {k: v for k, v in self.get_config().items() if k != "class"}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in config.items())})"


def positive(name: str, value: Any) -> int:
    """`value` as an integer >= 1."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name}: expected an integer >= 1, got {number}")
    return number


def remembered(layer: Layer, name: str) -> Array:
    """What the last forward kept."""
    try:
        return np.asarray(vars(layer)[name])
    except KeyError:
        raise RuntimeError(f"{type(layer).__name__}.backward: call forward first") from None


def built_alone(layer: Layer, x: Array) -> dict[str, Array]:
    """The first parameters of a layer outside a network, from its first input."""
    checks.check_sizes("x", (1, *x.shape[1:]))
    built = layer.build(x.shape[1:], np.random.default_rng(0))
    return {name: value.astype(x.dtype) for name, value in built.items()}


class Affine(Layer):
    """out = x W + b, fully connected: x (N, I), W (I, O), b (O,), out (N, O).

    Parameters
    ----------
    units : the number of outputs O.
    weights, biases : an initializer or an array; GlorotUniform and Zeros by default.

    Source: Saito, Deep Learning from Scratch, section 5.6.
    """

    def __init__(
        self,
        units: int,
        weights: initializers.Initializer | npt.ArrayLike | None = None,
        biases: initializers.Initializer | npt.ArrayLike | None = None,
    ) -> None:
        self.units = positive("units", units)
        self.weights = initializers.GlorotUniform() if weights is None else weights
        self.biases = initializers.Zeros() if biases is None else biases
        self.params, self.grads = {}, {}

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"Affine: expected samples of one dimension, got shape {input_shape};"
                " put Flatten() before it"
            )
        return (self.units,)

    def build(self, input_shape: Shape, rng: np.random.Generator) -> dict[str, Array]:
        fans = (input_shape[0], self.units)
        return {
            "W": initializers.draw("weights", self.weights, rng, fans, fans),
            "b": initializers.draw("biases", self.biases, rng, (self.units,), fans),
        }

    def forward(self, x: Array, training: bool = False) -> Array:
        x = checks.as_float("x", x, 2)
        if not self.params:
            self.params = built_alone(self, x)
        y = ops.affine_forward(x, self.params["W"], self.params["b"])
        self._x = x
        return y

    def backward(self, dout: Array) -> Array:
        dx, dW, db = ops.affine_backward(dout, remembered(self, "_x"), self.params["W"])
        self.grads = {"W": dW, "b": db}
        return dx

    def get_config(self) -> dict[str, Any]:
        return {
            "class": "Affine",
            "units": self.units,
            "weights": initializers.to_config(self.weights),
            "biases": initializers.to_config(self.biases),
        }


class _Activation(Layer):
    """An elementwise function; any shape. Keeps its output y, from which dx is computed."""

    slope: float = 0.0

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        self._y = ops.activation_forward(x, self.activation, self.slope)
        return self._y

    def backward(self, dout: Array) -> Array:
        return ops.activation_backward(dout, remembered(self, "_y"), self.activation, self.slope)


class Sigmoid(_Activation):
    """y = 1 / (1 + exp(-x)); dx = dout y (1 - y)."""

    activation = "sigmoid"


class Tanh(_Activation):
    """y = tanh(x); dx = dout (1 - y^2)."""

    activation = "tanh"


class ReLU(_Activation):
    """y = max(x, 0); dx = dout where y > 0, else 0."""

    activation = "relu"


class LeakyReLU(_Activation):
    """y = x where x >= 0, else slope x; dx = dout where y > 0, else slope dout."""

    activation = "leaky_relu"

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = checks.check_slope(slope)

    def get_config(self) -> dict[str, Any]:
        return {"class": "LeakyReLU", "slope": self.slope}


class Softmax(Layer):
    """y = exp(x) / sum exp(x) over the last axis; dx = y (dout - sum dout y)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        self._y = ops.softmax_forward(x)
        return self._y

    def backward(self, dout: Array) -> Array:
        return ops.softmax_backward(dout, remembered(self, "_y"))


class Flatten(Layer):
    """All axes but N made into one: (N, C, H, W) to (N, C H W)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Array, training: bool = False) -> Array:
        x = checks.as_float("x", x)
        if not x.ndim:
            raise ValueError(f"x: expected at least 1 dimension, got shape {x.shape}")
        self._shape = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dout: Array) -> Array:
        shape = tuple(remembered(self, "_shape").tolist())
        dout = checks.as_float("dout", dout)
        checks.check_shape("dout", dout, (shape[0], math.prod(shape[1:])))
        return dout.reshape(shape)


BY_NAME: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Affine, Sigmoid, Tanh, ReLU, LeakyReLU, Softmax, Flatten)
}


def from_config(config: Any) -> Layer:
    """The layer whose `get_config` this is; ValueError for what is no layer of this library."""
    arguments = checks.as_dict("layer", config)
    name = arguments.pop("class", None)
    from cnn_core import image_layers

    kinds = BY_NAME | image_layers.BY_NAME
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"layer: expected one of {sorted(kinds)}, got {name!r}")
    for key, value in arguments.items():
        arguments[key] = initializers.from_config(value)
    return kinds[name](**arguments)
