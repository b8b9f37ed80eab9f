"""How parameters begin.

An initializer draws an array from a generator, given its shape and its fans: the numbers of
inputs and outputs that one unit of the layer is connected to. An array stands for itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core._checks import MOST_ELEMENTS, finite, to_array, whole

Array = npt.NDArray[Any]


class Initializer:
    """Base class: `__call__(rng, shape, fan_in, fan_out)` returns a float64 array."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Array:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"class": type(self).__name__, **vars(self)}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class Zeros(Initializer):
    """All zeros, the usual start of biases."""

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Array:
        return np.zeros(shape)


class Normal(Initializer):
    """Normal with mean 0 and standard deviation `std` (default 0.01, as in Saito's book)."""

    def __init__(self, std: float = 0.01) -> None:
        self.std = finite("std", std)
        if self.std < 0:
            raise ValueError(f"std: expected a finite number >= 0, got {std}")

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Array:
        return rng.standard_normal(shape) * self.std


class Uniform(Initializer):
    """Uniform in [low, high)."""

    def __init__(self, low: float = -0.05, high: float = 0.05) -> None:
        self.low, self.high = finite("low", low), finite("high", high)
        if self.low > self.high:
            raise ValueError(f"low, high: expected low <= high, got {low}, {high}")

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Array:
        return rng.uniform(self.low, self.high, shape)


class _Scaled(Initializer):
    """Mean 0 and variance `gain` / fan, fan being the mean of both fans or fan_in."""

    gain = 1.0
    mean_of_fans = True
    normal = True

    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int
    ) -> Array:
        fans = [
            whole(name, fan, 1, "an integer >= 1")
            for name, fan in (("fan_in", fan_in), ("fan_out", fan_out))
        ]
        fan = sum(fans) / 2 if self.mean_of_fans else fans[0]
        std = math.sqrt(self.gain / fan)
        if self.normal:
            return rng.standard_normal(shape) * std
        limit = std * math.sqrt(3)
        return rng.uniform(-limit, limit, shape)


class GlorotNormal(_Scaled):
    """Normal with variance 2 / (fan_in + fan_out): for sigmoid, tanh, softmax.

    Glorot and Bengio, Understanding the difficulty of training deep feedforward networks (2010).
    """


class GlorotUniform(_Scaled):
    """Uniform in ±sqrt(6 / (fan_in + fan_out)); same source and variance as GlorotNormal."""

    normal = False


class HeNormal(_Scaled):
    """Normal with variance 2 / fan_in: for ReLU.

    He et al., Delving deep into rectifiers (2015).
    """

    gain = 2.0
    mean_of_fans = False


class HeUniform(_Scaled):
    """Uniform in ±sqrt(6 / fan_in); same source and variance as HeNormal."""

    gain = 2.0
    mean_of_fans = False
    normal = False


BY_NAME: dict[str, type[Initializer]] = {
    kind.__name__: kind
    for kind in (Zeros, Normal, Uniform, GlorotUniform, GlorotNormal, HeUniform, HeNormal)
}


def draw(
    name: str,
    initializer: Initializer | npt.ArrayLike,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    fans: tuple[int, int],
) -> Array:
    """The initial array of the parameter `name`: drawn, or the given array checked."""
    if math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"{name}: expected at most 2**48 elements, got shape {shape}")
    if isinstance(initializer, Initializer):
        try:
            with np.errstate(over="raise"):
                array = np.asarray(initializer(rng, shape, *fans))
        except FloatingPointError as error:
            raise ValueError(f"{name}: {initializer!r} draws too large numbers: {error}") from None
    else:
        array = np.array(to_array(name, initializer))
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an initializer or numbers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected an array of shape {shape}, got {array.shape}")
    if not (isinstance(initializer, Initializer) or np.isfinite(array).all()):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity among them")
    return array


def to_config(initializer: Initializer | npt.ArrayLike) -> dict[str, Any]:
    """JSON for a model file. An array is not repeated there, the parameters themselves are; nor
    can a class of one's own be made from its name. Both become Zeros."""
    if type(initializer) in BY_NAME.values() and isinstance(initializer, Initializer):
        return initializer.get_config()
    return Zeros().get_config()


def from_config(config: Any) -> Any:
    """The initializer that `to_config` wrote; anything else is returned as it is."""
    if not isinstance(config, dict):
        return config
    config = dict(config)
    name = config.pop("class", None)
    if not isinstance(name, str) or name not in BY_NAME:
        raise ValueError(f"initializer: expected one of {sorted(BY_NAME)}, got {name!r}")
    return BY_NAME[name](**config)
