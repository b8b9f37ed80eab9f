"""The networks of the books, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy.typing as npt

from cnn_core.image_layers import Conv2D, Dropout, MaxPool2D
from cnn_core.initializers import GlorotNormal, HeNormal, Initializer, Normal, Uniform
from cnn_core.layers import Affine, Flatten, Layer, LeakyReLU, ReLU, Sigmoid, Tanh
from cnn_core.losses import Loss
from cnn_core.network import Sequential

ACTIVATIONS: dict[str, type[Layer]] = {
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
}


def activation_layer(name: str) -> Layer:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {sorted(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def weights_for(activation: str) -> Initializer:
    """He et al.'s for ReLUs, else Glorot and Bengio's."""
    rectifiers = ReLU, LeakyReLU
    return HeNormal() if isinstance(activation_layer(activation), rectifiers) else GlorotNormal()


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
        initializer = weights_for(activation)
    if isinstance(hidden_sizes, (str, bytes)) or not isinstance(hidden_sizes, Iterable):
        raise TypeError(f"hidden_sizes: expected a list of integers, got {hidden_sizes!r}")
    layers: list[Layer] = []
    for units in hidden_sizes:
        layers += [Affine(units, initializer), activation_layer(activation)]
    layers.append(Affine(output_size, initializer))
    return Sequential(layers, input_shape=(input_size,), loss=loss, dtype=dtype, seed=seed)


def grokking_conv_net(
    input_shape: Sequence[int] = (1, 28, 28),
    output_size: int = 10,
    *,
    loss: Loss | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> Sequential:
    """16 kernels of 3x3, tanh, dropout 0.5, Affine: Trask, Grokking Deep Learning, chapter 10."""
    layers: list[Layer] = [
        Conv2D(16, 3, weights=Uniform(-0.01, 0.01)),
        Tanh(),
        Flatten(),
        Dropout(0.5),
        Affine(output_size, Uniform(-0.1, 0.1)),
    ]
    return Sequential(layers, input_shape=input_shape, loss=loss, dtype=dtype, seed=seed)


def simple_conv_net(
    input_shape: Sequence[int] = (1, 28, 28),
    output_size: int = 10,
    *,
    filters: int = 30,
    filter_size: int = 5,
    hidden_size: int = 100,
    weight_init_std: float = 0.01,
    loss: Loss | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> Sequential:
    """Conv2D, ReLU, MaxPool2D, Affine, ReLU, Affine: Saito's book, section 7.5 (SimpleConvNet)."""
    weights = Normal(weight_init_std)
    layers: list[Layer] = [
        Conv2D(filters, filter_size, weights=weights),
        ReLU(),
        MaxPool2D(2),
        Flatten(),
        Affine(hidden_size, weights),
        ReLU(),
        Affine(output_size, weights),
    ]
    return Sequential(layers, input_shape=input_shape, loss=loss, dtype=dtype, seed=seed)


def quick_conv_net(
    input_shape: Sequence[int] = (1, 28, 28),
    output_size: int = 10,
    *,
    loss: Loss | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> Sequential:
    """16 kernels 5x5 with stride 2, 32 kernels 3x3, pool, 64, 10, with ReLUs.

    What `cnn-core train` trains unless told otherwise: the stride makes it several times as fast as
    networks that look at every pixel, and MNIST loses nothing by it.
    """
    layers: list[Layer] = [
        Conv2D(16, 5, stride=2, padding=2, weights=HeNormal()),
        ReLU(),
        Conv2D(32, 3, weights=HeNormal()),
        ReLU(),
        MaxPool2D(2),
        Flatten(),
        Affine(64, HeNormal()),
        ReLU(),
        Affine(output_size),
    ]
    return Sequential(layers, input_shape=input_shape, loss=loss, dtype=dtype, seed=seed)


def lenet5(
    input_shape: Sequence[int] = (1, 28, 28),
    output_size: int = 10,
    *,
    activation: str = "relu",
    loss: Loss | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> Sequential:
    """Two 5x5 convolutions of 6 and 16 filters with pools, then 120, 84 and 10 units.

    LeCun et al., Gradient-based learning applied to document recognition (1998), with maximum
    pooling, as it is taught today; Saito's book, section 7.7.1.
    """
    weights = weights_for(activation)
    layers: list[Layer] = [
        Conv2D(6, 5, padding=2, weights=weights),
        activation_layer(activation),
        MaxPool2D(2),
        Conv2D(16, 5, weights=weights),
        activation_layer(activation),
        MaxPool2D(2),
        Flatten(),
        Affine(120, weights),
        activation_layer(activation),
        Affine(84, weights),
        activation_layer(activation),
        Affine(output_size, weights),
    ]
    return Sequential(layers, input_shape=input_shape, loss=loss, dtype=dtype, seed=seed)


def deep_conv_net(
    input_shape: Sequence[int] = (1, 28, 28),
    output_size: int = 10,
    *,
    hidden_size: int = 50,
    dropout: float = 0.5,
    loss: Loss | None = None,
    dtype: npt.DTypeLike = "float32",
    seed: int = 0,
) -> Sequential:
    """Six 3x3 convolutions 16-16-32-32-64-64, three pools, 50, dropout, 10, dropout.

    Saito's book, section 8.1 (DeepConvNet).
    """
    layers: list[Layer] = []
    for filters, paddings in ((16, (1, 1)), (32, (1, 2)), (64, (1, 1))):
        for padding in paddings:
            layers += [Conv2D(filters, 3, padding=padding, weights=HeNormal()), ReLU()]
        layers.append(MaxPool2D(2))
    layers += [
        Flatten(),
        Affine(hidden_size, HeNormal()),
        ReLU(),
        Dropout(dropout),
        Affine(output_size, HeNormal()),
        Dropout(dropout),
    ]
    return Sequential(layers, input_shape=input_shape, loss=loss, dtype=dtype, seed=seed)
