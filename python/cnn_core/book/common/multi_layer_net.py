"""`common.multi_layer_net`: a fully connected network of any depth.

Saito, Deep Learning from Scratch, chapter 6.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from cnn_core.book._deferred import Array
from cnn_core.book.common.gradient import numerical_gradient
from cnn_core.book.common.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss

__all__ = [
    "Affine",
    "MultiLayerNet",
    "OrderedDict",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "np",
    "numerical_gradient",
]

_ACTIVATIONS: dict[str, type[Relu] | type[Sigmoid]] = {"sigmoid": Sigmoid, "relu": Relu}


class MultiLayerNet:
    """Affine layers with an activation between them, the softmax loss, and weight decay.

    Parameters
    ----------
    input_size : I. hidden_size_list : units of the hidden layers. output_size : C
    activation : 'relu' or 'sigmoid'
    weight_init_std : the standard deviation of the weights, drawn by np.random.randn; 'relu' or
        'he' for sqrt(2 / n), 'sigmoid' or 'xavier' for sqrt(1 / n), n inputs of the layer
    weight_decay_lambda : the loss grows by half of this times the sum of all squared weights

    Attributes
    ----------
    params : W1, b1, W2, ... layers : OrderedDict of Affine1, Activation_function1, Affine2, ...
    last_layer : the loss
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: list[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
    ) -> None:
        self.input_size, self.output_size = input_size, output_size
        self.hidden_size_list = hidden_size_list
        self.hidden_layer_num = len(hidden_size_list)
        self.weight_decay_lambda = weight_decay_lambda
        self.params: dict[str, Any] = {}
        self._draw_weights(weight_init_std)
        self.layers: OrderedDict[str, Any] = OrderedDict()
        for number in range(1, self.hidden_layer_num + 1):
            self._add_affine(number)
            self._add_hidden(number, _ACTIVATIONS[activation]())
        self._add_affine(self.hidden_layer_num + 1)
        self.last_layer = SoftmaxWithLoss()

    def _draw_weights(self, std: float | str) -> None:
        sizes = [self.input_size, *self.hidden_size_list, self.output_size]
        gain = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}.get(str(std).lower())
        for number, (n, units) in enumerate(pairwise(sizes), 1):
            scale: Any = std if gain is None else np.sqrt(gain / n)
            weights = np.random.randn(n, units)  # noqa: NPY002
            self.params[f"W{number}"] = scale * weights
            self.params[f"b{number}"] = np.zeros(units)

    def _add_affine(self, number: int) -> None:
        W, b = self.params[f"W{number}"], self.params[f"b{number}"]
        self.layers[f"Affine{number}"] = Affine(W, b)

    def _add_hidden(self, number: int, activation: Any) -> None:
        """What stands behind the affine layer of this number."""
        self.layers[f"Activation_function{number}"] = activation

    def predict(self, x: Array) -> Array:
        """Scores (N, C)."""
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """The loss of x (N, I) and labels or one-hot rows t, with the weight decay."""
        return self.last_layer.forward(self.predict(x), t) + self._weight_decay()

    def _weight_decay(self) -> Any:
        if not self.weight_decay_lambda:
            return 0
        numbers = range(1, self.hidden_layer_num + 2)
        squares = (np.square(self.params[f"W{number}"]).sum() for number in numbers)
        return sum(0.5 * self.weight_decay_lambda * square for square in squares)

    def accuracy(self, x: Array, t: Array) -> Any:
        """The share of rows of x whose largest score is that of the label."""
        labels = t if t.ndim == 1 else t.argmax(axis=1)
        return np.sum(self.predict(x).argmax(axis=1) == labels) / float(len(x))

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """The gradients of `gradient` by central differences: two losses per parameter."""
        return self._differences(lambda _: self.loss(x, t))

    def _differences(self, loss: Callable[[Any], Any]) -> dict[str, Array]:
        """Gradients by number, as `gradient` has them."""
        kinds = ("W", "b", "gamma", "beta")
        numbers = range(1, self.hidden_layer_num + 2)
        names = (f"{kind}{number}" for number in numbers for kind in kinds)
        params = self.params
        return {name: numerical_gradient(loss, params[name]) for name in names if name in params}

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """The gradient of the loss by every parameter, by back-propagation."""
        self.loss(x, t)
        return self._back_propagate()

    def _back_propagate(self) -> dict[str, Array]:
        dout = self.last_layer.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        grads = {}
        for number in range(1, self.hidden_layer_num + 2):
            layer = self.layers[f"Affine{number}"]
            grads[f"W{number}"] = layer.dW + self.weight_decay_lambda * layer.W
            grads[f"b{number}"] = layer.db
            grads |= self._hidden_gradients(number)
        return grads

    def _hidden_gradients(self, number: int) -> dict[str, Array]:
        """Gradients of what stands behind the affine layer of this number."""
        return {}
