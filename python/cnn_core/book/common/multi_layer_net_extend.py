"""`common.multi_layer_net_extend`: `MultiLayerNet` with batch normalization and dropout.

Saito, Deep Learning from Scratch, sections 6.3 and 6.4.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from cnn_core.book._deferred import Array
from cnn_core.book.common.gradient import numerical_gradient
from cnn_core.book.common.layers import (
    Affine,
    BatchNormalization,
    Dropout,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
)
from cnn_core.book.common.multi_layer_net import MultiLayerNet

__all__ = [
    "Affine",
    "BatchNormalization",
    "Dropout",
    "MultiLayerNetExtend",
    "OrderedDict",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "np",
    "numerical_gradient",
]


class MultiLayerNetExtend(MultiLayerNet):
    """`MultiLayerNet`, with more between the affine layers.

    Parameters
    ----------
    input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda :
        as in `MultiLayerNet`
    use_dropout : whether dropout of the ratio dropout_ration stands behind each activation
    use_batchnorm : whether batch normalization stands before each activation

    Attributes
    ----------
    params : W1, b1, W2, ... and gamma1, beta1, gamma2, ...
    layers : Affine1, BatchNorm1, Activation_function1, Dropout1, Affine2, ...
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: list[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        self.use_dropout, self.use_batchnorm = use_dropout, use_batchnorm
        self._dropout_ratio = dropout_ration
        super().__init__(
            input_size,
            hidden_size_list,
            output_size,
            activation,
            weight_init_std,
            weight_decay_lambda,
        )

    def _add_hidden(self, number: int, activation: Any) -> None:
        if self.use_batchnorm:
            units = self.hidden_size_list[number - 1]
            gamma, beta = np.ones(units), np.zeros(units)
            self.params[f"gamma{number}"], self.params[f"beta{number}"] = gamma, beta
            self.layers[f"BatchNorm{number}"] = BatchNormalization(gamma, beta)
        super()._add_hidden(number, activation)
        if self.use_dropout:
            self.layers[f"Dropout{number}"] = Dropout(self._dropout_ratio)

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Scores (N, C)."""
        for name, layer in self.layers.items():
            in_training = name.startswith(("Dropout", "BatchNorm"))
            x = layer.forward(x, train_flg) if in_training else layer.forward(x)
        return x

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> Any:
        """The loss of x (N, I) and labels or one-hot rows t, with the weight decay."""
        return self.last_layer.forward(self.predict(x, train_flg), t) + self._weight_decay()

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """The gradients of `gradient` by central differences: two losses per parameter."""
        return self._differences(lambda _: self.loss(x, t, train_flg=True))

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """The gradient of the training loss by every parameter, by back-propagation."""
        self.loss(x, t, train_flg=True)
        return self._back_propagate()

    def _hidden_gradients(self, number: int) -> dict[str, Array]:
        layer = self.layers.get(f"BatchNorm{number}")
        if layer is None:
            return {}
        return {f"gamma{number}": layer.dgamma, f"beta{number}": layer.dbeta}
