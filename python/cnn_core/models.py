"""The networks of the books, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy.typing as npt

from cnn_core.initializers import GlorotNormal, HeNormal, Initializer, Normal
from cnn_core.layers import Affine, Layer, LeakyReLU, ReLU, Sigmoid, Tanh
from cnn_core.losses import Loss
from cnn_core.network import Sequential

ACTIVATIONS: dict[str, type[Layer]] = {
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
}


def activation_layer(name: str) -> Layer:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {sorted(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def two_layer_net(
    input_size: int = 784,
    hidden_size: int = 50,
    output_size: int = 10,
    *,
    activation: str = "relu",
    weight_init_std: float = 0.01,
    loss: Loss | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> Sequential:
    """Affine, activation, Affine: the TwoLayerNet of Saito's book, sections 4.5 and 5.7.

    Parameters
    ----------
    input_size, hidden_size, output_size : I, hidden units, O.
    activation : "sigmoid" (section 4.5), "relu" (section 5.7), "tanh" or "leaky_relu".
    weight_init_std : weights are drawn from a normal distribution of this width; biases are 0.
    loss, dtype, seed : see Sequential.
    """
    return multi_layer_net(
        input_size,
        [hidden_size],
        output_size,
        activation=activation,
        initializer=Normal(weight_init_std),
        loss=loss,
        dtype=dtype,
        seed=seed,
    )


def multi_layer_net(
    input_size: int = 784,
    hidden_sizes: Sequence[int] = (300, 100),
    output_size: int = 10,
    *,
    activation: str = "relu",
    initializer: Initializer | None = None,
    loss: Loss | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> Sequential:
    """Affine and activation for each hidden size, then Affine: Saito's book, section 6.

    Parameters
    ----------
    initializer : of the weights; by default HeNormal for ReLUs, else GlorotNormal.
    activation, loss, dtype, seed : as of two_layer_net.
    """
    if initializer is None:
        initializer = HeNormal() if activation in ("relu", "leaky_relu") else GlorotNormal()
    if not isinstance(hidden_sizes, Iterable):
        raise TypeError(f"hidden_sizes: expected a list of integers, got {hidden_sizes!r}")
    layers: list[Layer] = []
    for units in hidden_sizes:
        layers += [Affine(units, initializer), activation_layer(activation)]
    layers.append(Affine(output_size, initializer))
    return Sequential(layers, input_shape=(input_size,), loss=loss, dtype=dtype, seed=seed)
