"""The networks that `cnn-core train --model` names, and how each is trained by default."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cnn_core import models
from cnn_core._optimizer import Optimizer
from cnn_core.callbacks import Callback, EarlyStopping, LearningRateSchedule
from cnn_core.initializers import Normal
from cnn_core.network import Sequential
from cnn_core.optimizers import SGD, SGDW, AdaGrad, Adam, AdamW, RMSprop
from cnn_core.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    Schedule,
    StepDecay,
)
from cnn_core.trainer import Trainer

Options = argparse.Namespace

#: options of `train` that a checkpoint does not keep, and those that may change when it is resumed
NOT_KEPT = frozenset(("checkpoint", "given", "json", "out", "quiet", "resume", "run", "threads"))
MAY_CHANGE = frozenset(("checkpoint_every", "data"))

#: options that only some models have
SHAPE_OPTIONS = ("activation", "hidden", "weight_init_std")

OPTIMIZERS: dict[str, Callable[[Options], Optimizer]] = {
    "sgd": lambda options: SGD(options.lr, options.momentum, **_limits(options)),
    "sgdw": lambda options: SGDW(options.lr, options.momentum, **_limits(options)),
    "adagrad": lambda options: AdaGrad(options.lr, **_limits(options)),
    "rmsprop": lambda options: RMSprop(options.lr, momentum=options.momentum, **_limits(options)),
    "adam": lambda options: Adam(options.lr, **_limits(options)),
    "adamw": lambda options: AdamW(options.lr, **_limits(options)),
}
#: of an optimizer that is not the model's own
OPTIMIZER_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0},
    "sgdw": {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.01},
    "adagrad": {"lr": 0.01, "weight_decay": 0.0},
    "rmsprop": {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0},
    "adam": {"lr": 0.001, "weight_decay": 0.0},
    "adamw": {"lr": 0.001, "weight_decay": 0.01},
}
SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(),
    "step": StepDecay(),
    "exponential": ExponentialDecay(),
    "inverse": InverseTimeDecay(),
    "cosine": CosineDecay(warmup=0.1),
}


def _limits(options: Options) -> dict[str, Any]:
    return {"weight_decay": options.weight_decay, "clip_norm": options.clip_norm}


@dataclass(frozen=True)
class Model:
    """A network that `--model` names.

    build : makes it from the options, the shape (C, H, W) of the images and the number of classes.
    defaults : of the options that depend on the model.
    """

    text: str
    build: Callable[[Options, tuple[int, ...], int], Sequential]
    defaults: dict[str, Any]


def _common(options: Options) -> dict[str, Any]:
    return {"dtype": options.dtype, "seed": options.seed}


def _one_hidden(options: Options) -> int:
    if len(options.hidden) != 1:
        found = len(options.hidden)
        raise ValueError(f"--hidden: {options.model} has one hidden size, got {found}")
    return int(options.hidden[0])


def _two_layer(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    return models.two_layer_net(
        math.prod(image_shape),
        _one_hidden(options),
        n_classes,
        activation=options.activation,
        weight_init_std=options.weight_init_std,
        **_common(options),
    )


def _multi_layer(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    std = options.weight_init_std
    return models.multi_layer_net(
        math.prod(image_shape),
        options.hidden,
        n_classes,
        activation=options.activation,
        initializer=None if std is None else Normal(std),
        **_common(options),
    )


def _quick(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    return models.quick_conv_net(image_shape, n_classes, **_common(options))


def _grokking(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    return models.grokking_conv_net(image_shape, n_classes, **_common(options))


def _simple(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    return models.simple_conv_net(
        image_shape,
        n_classes,
        hidden_size=_one_hidden(options),
        weight_init_std=options.weight_init_std,
        **_common(options),
    )


def _lenet5(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    return models.lenet5(image_shape, n_classes, activation=options.activation, **_common(options))


def _deep(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    return models.deep_conv_net(
        image_shape, n_classes, hidden_size=_one_hidden(options), **_common(options)
    )


def _adam(lr: float, batch_size: int, epochs: int) -> dict[str, Any]:
    return {
        "optimizer": "adam",
        "lr": lr,
        "schedule": "cosine",
        "batch_size": batch_size,
        "epochs": epochs,
    }


MODELS = {
    "two_layer": Model(
        "one hidden layer, as in the first chapters of the books",
        _two_layer,
        {
            "activation": "relu",
            "hidden": [50],
            "weight_init_std": 0.01,
            "optimizer": "sgd",
            "lr": 0.1,
            "schedule": "constant",
            "batch_size": 100,
            "epochs": 17,
        },
    ),
    "multi_layer": Model(
        "any number of hidden layers",
        _multi_layer,
        {
            "activation": "relu",
            "hidden": [256],
            "weight_init_std": None,
            "optimizer": "sgd",
            "lr": 0.2,
            "momentum": 0.9,
            "schedule": "constant",
            "batch_size": 200,
            "epochs": 5,
        },
    ),
    "quick_conv_net": Model(
        "two convolutions, made to be trained in seconds", _quick, _adam(0.006, 100, 3)
    ),
    "grokking_conv_net": Model(
        "one convolution, tanh and dropout, as in Grokking Deep Learning",
        _grokking,
        _adam(0.002, 128, 10),
    ),
    "simple_conv_net": Model(
        "one convolution, as in Deep Learning from Scratch",
        _simple,
        {"hidden": [100], "weight_init_std": 0.01, **_adam(0.001, 100, 5)},
    ),
    "lenet5": Model(
        "two convolutions, LeCun's of 1998",
        _lenet5,
        {"activation": "relu", **_adam(0.002, 100, 5)},
    ),
    "deep_conv_net": Model(
        "six convolutions, as in Deep Learning from Scratch",
        _deep,
        {"hidden": [50], **_adam(0.002, 100, 7)},
    ),
}
DEFAULT_MODEL = "quick_conv_net"


def build_network(options: Options, image_shape: tuple[int, ...], n_classes: int) -> Sequential:
    """The network of the options; those that were not given get the model's defaults."""
    model = MODELS[options.model]
    for name in SHAPE_OPTIONS:
        if getattr(options, name) is not None and name not in model.defaults:
            raise ValueError(f"--{name.replace('_', '-')}: {options.model} has no such option")
    defaults = dict(model.defaults)
    own = defaults.get("optimizer")
    if getattr(options, "optimizer", None) not in (None, own):
        own = options.optimizer
        del defaults["lr"]
        defaults.pop("momentum", None)
    for name, value in {**OPTIMIZER_DEFAULTS[str(own)], **defaults}.items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    return model.build(options, image_shape, n_classes)


def build_trainer(options: Options, net: Sequential, more: Iterable[Callback] = ()) -> Trainer:
    """A trainer with the optimizer and the callbacks of the options, and more callbacks."""
    if "momentum" in options.given and "momentum" not in OPTIMIZER_DEFAULTS[options.optimizer]:
        raise ValueError(f"--momentum: {options.optimizer} has no such option")
    schedule = SCHEDULES[options.schedule]
    callbacks: list[Callback] = []
    if options.schedule != "constant":
        callbacks.append(LearningRateSchedule(schedule))
    if options.early_stopping is not None:
        callbacks.append(EarlyStopping(patience=options.early_stopping))
    return Trainer(net, OPTIMIZERS[options.optimizer](options), [*callbacks, *more])
