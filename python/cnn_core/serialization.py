"""Model files: parameters, state and architecture of a network, in the safetensors format.

The tensors are the parameters and the running statistics by name (`Sequential.params`, `.state`),
float32 or float64 in row-major order. The metadata has one entry of our own, "cnn_core", in JSON::

    {"format": 1, "architecture": {"layers": [...], "input_shape": [...], ...}}

`architecture` being what `Sequential.get_config` returns. Nothing in a file is ever executed. It
may come from anywhere, so the sizes that its architecture implies are compared with the tensors
that it really holds before a network is built.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from cnn_core import image_layers, layers, losses
from cnn_core._files import PathLike, write_atomically
from cnn_core._tensors import FieldError, TensorFile, open_tensors, pack_tensors, read_json, shorten
from cnn_core.initializers import Initializer
from cnn_core.layers import Layer
from cnn_core.network import Sequential

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

FORMAT = 1
METADATA_KEY = "cnn_core"
#: names of the element types in the header of a safetensors file
_TYPE_CODES = {"float32": "F32", "float64": "F64"}
_CONFIG_KEYS = frozenset(("layers", "input_shape", "loss", "dtype", "seed", "input_scale"))
_MOST_LAYERS = 10_000  # a hundred microseconds each
_MAX_ELEMENTS = 2**48  # of one sample: far beyond any memory, and no product of them overflows
_MAX_WINDOW = 2**24  # of kernels, strides, padding and dilation, for the same reason
#: what constructors raise for arguments that they cannot use
_UNFIT = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


class ModelFileError(ValueError):
    """A file that holds no usable model; the message names the file and the field."""


class _UnfitError(FieldError):
    """A layer or a loss that could not be made; bears the message of what failed."""

    def __init__(self, field: str, config: object, error: Exception) -> None:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        ValueError.__init__(self, f"{field}: {shorten(reason, 200)} (in {shorten(config)})")


# --------------------------------------------------------------------------------------- saving


def save_model(net: Sequential, path: PathLike) -> None:
    """Write a network's parameters, running statistics and architecture to a safetensors file.

    The file appears complete or not at all: it is written under another name in the same folder,
    brought to the disk, and renamed. An existing file is replaced.

    Parameters
    ----------
    net : a Sequential of this library's own layers and loss.
    path : the file to write; its folder must exist.

    Raises
    ------
    TypeError
        The network holds a layer or a loss of a class of one's own, which could not be rebuilt.
        Nothing is written.
    OSError
        The file cannot be written. Nothing is left behind, and an older file stays as it was.
    """
    if not isinstance(net, Sequential):
        raise TypeError(f"net: expected a Sequential, got {net!r}")
    _check_classes(net)
    architecture = net.get_config()
    try:
        text = json.dumps({"format": FORMAT, "architecture": architecture}, allow_nan=False)
        # Checked as `load_model` will, after the way through JSON.
        _, shapes = _measure(_read_architecture({METADATA_KEY: text}))
    except ValueError as error:
        raise ValueError(f"net: its architecture could not be loaded again: {error}") from error
    with net.locked():
        tensors = {name: _array_of(net, name).reshape(shape) for name, shape in shapes.items()}
        data = pack_tensors(tensors, {METADATA_KEY: text})
    write_atomically(path, data)


def _array_of(net: Sequential, name: str) -> Array:
    """The network's own memory of a parameter (flat) or of a running statistic."""
    return net.flat_params[net.slices[name]] if name in net.slices else net.state[name]


def _check_classes(net: Sequential) -> None:
    """Refuse classes that `load_model` does not know: a subclass may bear a known name."""
    for position, layer in enumerate(net.layers):
        name = type(layer).__name__
        if (layers.BY_NAME | image_layers.BY_NAME).get(name) is not type(layer):
            raise TypeError(
                f"layers[{position}]: expected a layer of cnn_core, got one of"
                f" {type(layer).__module__}.{type(layer).__qualname__}, which could not be loaded"
                " again; save net.params by other means"
            )
    loss = type(net.loss_function)
    if losses.BY_NAME.get(loss.__name__) is not loss:
        raise TypeError(
            f"loss: expected a loss of cnn_core, got {loss.__module__}.{loss.__qualname__},"
            " which could not be loaded again"
        )


# -------------------------------------------------------------------------------------- loading


def load_model(path: PathLike) -> Sequential:
    """Rebuild the network that `save_model` wrote: it predicts the same, bit for bit.

    Parameters
    ----------
    path : a safetensors file written by `save_model` or `Sequential.save`.

    Returns
    -------
    Sequential
        With the saved layers, loss, dtype, seed, parameters and running statistics. The state of
        an optimizer is not part of the file, nor is the number of updates made.

    Raises
    ------
    ModelFileError
        The file is damaged, is no model of this library, or its architecture and tensors do not
        fit together. Memory is asked for only once they do.
    OSError
        The file cannot be opened or read, FileNotFoundError among others.
    """
    name = os.fspath(path)
    try:
        with open_tensors(name, ModelFileError) as file:
            architecture = _read_architecture(file.metadata)
            built, shapes = _measure(architecture, _described(file, str(architecture["dtype"])))
            return _rebuild(architecture, built, shapes, file)
    except RecursionError as error:
        raise ModelFileError(f"{name}: architecture: too deeply nested") from error


def _read_architecture(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The architecture in a file's metadata, its fields there and of the right type."""
    if not metadata or METADATA_KEY not in metadata:
        got = "none" if not metadata else f"only {sorted(metadata)}"
        raise FieldError("metadata", f"an entry {METADATA_KEY!r}, as cnn-core writes it", got)
    field = f"metadata {METADATA_KEY!r}"
    entry = read_json(field, metadata[METADATA_KEY])
    if not isinstance(entry, dict):
        raise FieldError(field, "a JSON object", type(entry).__name__)
    version = entry.get("format")
    if type(version) is not int or version != FORMAT:
        raise FieldError("format", f"{FORMAT}, the only one known to this version", repr(version))
    _check_keys(field, entry, frozenset(("format", "architecture")))
    architecture = entry["architecture"]
    if not isinstance(architecture, dict):
        raise FieldError("architecture", "a JSON object", type(architecture).__name__)
    _check_architecture(architecture)
    return architecture


def _check_keys(field: str, value: Mapping[str, Any], expected: frozenset[str]) -> None:
    if set(value) != expected:
        raise FieldError(field, f"the keys {sorted(expected)}", sorted(value))


def _check_architecture(config: dict[str, Any]) -> None:
    """The fields of an architecture, all but what is inside the layers and the loss."""
    _check_keys("architecture", config, _CONFIG_KEYS)
    shape, layer_list = config["input_shape"], config["layers"]
    if not (isinstance(shape, list) and shape and all(type(s) is int and s > 0 for s in shape)):
        raise FieldError("input_shape", "a list of integers >= 1", repr(shape))
    _check_sizes("input_shape", tuple(shape))
    if config["dtype"] not in list(_TYPE_CODES):
        raise FieldError("dtype", f"one of {list(_TYPE_CODES)}", repr(config["dtype"]))
    if type(config["seed"]) is not int or config["seed"] < 0:
        raise FieldError("seed", "an integer >= 0", repr(config["seed"]))
    scale = config["input_scale"]
    if type(scale) not in (int, float) or not abs(scale) <= sys.float_info.max:
        raise FieldError("input_scale", "a finite number", repr(scale))
    if not isinstance(layer_list, list):
        raise FieldError("layers", "a list", type(layer_list).__name__)
    if len(layer_list) > _MOST_LAYERS:
        raise FieldError("layers", f"at most {_MOST_LAYERS}", len(layer_list))
    for position, layer in enumerate(layer_list):
        if not isinstance(layer, dict):
            raise FieldError(f"layers[{position}]", "a JSON object", type(layer).__name__)
    if not isinstance(config["loss"], dict):
        raise FieldError("loss", "a JSON object", type(config["loss"]).__name__)


def _check_sizes(field: str, shape: Shape) -> None:
    if math.prod(shape) > _MAX_ELEMENTS or min(shape, default=1) < 1:
        raise FieldError(field, f"sizes >= 1 of {_MAX_ELEMENTS} elements at most", shape)


def _described(file: TensorFile, dtype: str) -> dict[str, Shape]:
    """The shapes of the tensors that a file holds, by name, all of the given dtype."""
    for name, code in file.dtypes().items():
        if code != _TYPE_CODES[dtype]:
            expected = f"dtype {_TYPE_CODES[dtype]}, as the architecture says"
            raise FieldError(f"tensor {name!r}", expected, code)
    return dict(file.shapes())


class _ShapeOnly(Initializer):
    """Zeros of any shape that take no memory."""

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        return np.broadcast_to(np.float32(0), shape)


@contextmanager
def _initializers_replaced(layer: Layer) -> Iterator[None]:
    """Let a layer build without drawing and without memory for its parameters."""
    kept = {key: value for key, value in vars(layer).items() if isinstance(value, Initializer)}
    vars(layer).update(dict.fromkeys(kept, _ShapeOnly()))
    try:
        yield
    finally:
        vars(layer).update(kept)


def _measure(
    config: dict[str, Any], present: dict[str, Shape] | None = None
) -> tuple[list[Layer], dict[str, Shape]]:
    """The layers of an architecture and the shapes of its tensors, none of them allocated.

    present : the shapes to be found; compared layer by layer, so that a layer of absurd size is
        refused before the next one is looked at.
    """
    built: list[Layer] = []
    shapes: dict[str, Shape] = {}
    shape, number = tuple(config["input_shape"]), 0
    rng = np.random.default_rng(0)
    for position, layer_config in enumerate(config["layers"]):
        field = f"layers[{position}]"
        try:
            layer = layers.from_config(layer_config)
            _check_windows(field, layer, shape)
            output_shape = layer.output_shape(shape)
            _check_sizes(field, output_shape)
            with _initializers_replaced(layer):
                parameters = {key: a.shape for key, a in layer.build(shape, rng).items()}
        except FieldError:
            raise
        except _UNFIT as error:
            raise _UnfitError(field, layer_config, error) from error
        number += bool(parameters)
        parameters |= {key: a.shape for key, a in getattr(layer, "state", {}).items()}
        named = {f"{key}{number}": size for key, size in parameters.items()}
        if present is not None:
            for name, size in named.items():
                if present.get(name) != size:
                    _refuse_tensor(name, size, present.get(name))
        shapes |= named
        built.append(layer)
        shape = output_shape
    surplus = sorted(set(present or ()) - set(shapes))
    if surplus:
        raise FieldError("tensors", f"only {sorted(shapes)}", f"also {surplus}")
    return built, shapes


def _check_windows(field: str, layer: Layer, shape: Shape) -> None:
    """The sizes of a convolution or a pool, which no tensor tells in full."""
    for name in ("size", "kernel_size", "stride", "padding", "dilation"):
        sizes = getattr(layer, name, ())
        if not isinstance(sizes, str) and max(sizes, default=0) > _MAX_WINDOW:
            raise FieldError(f"{field}: {name}", f"at most {_MAX_WINDOW}", sizes)
    if isinstance(layer, image_layers.Conv2D):
        channels, height, width = image_layers.image_shape(layer, shape)
        top, bottom, left, right = layer.convolution(shape).padding
        _check_sizes(f"{field}: padding", (channels, height + top + bottom, width + left + right))


def _refuse_tensor(name: str, expected: Shape, got: Shape | None) -> NoReturn:
    if got is None:
        raise FieldError(f"tensor {name!r}", f"shape {expected}", "no tensor of this name")
    raise FieldError(f"tensor {name!r}", f"shape {expected}, as the architecture says", got)


def _rebuild(
    config: dict[str, Any], built: list[Layer], shapes: dict[str, Shape], file: TensorFile
) -> Sequential:
    """The network, once its tensors are known to fit; no initial values are drawn."""
    try:
        loss = losses.from_config(config["loss"])
    except _UNFIT as error:
        raise _UnfitError("loss", config["loss"], error) from error
    try:
        net = _without_drawing(config, built, loss)
    except _UNFIT as error:
        raise _UnfitError("architecture", config, error) from error
    for name in shapes:
        target = net.params[name] if name in net.params else net.state[name]
        np.copyto(target, file.read(name), casting="no")
    return net


def _without_drawing(config: dict[str, Any], built: list[Layer], loss: losses.Loss) -> Sequential:
    with ExitStack() as stack:
        for layer in built:
            stack.enter_context(_initializers_replaced(layer))
        return Sequential(
            built,
            input_shape=config["input_shape"],
            loss=loss,
            dtype=config["dtype"],
            seed=config["seed"],
            input_scale=config["input_scale"],
        )
