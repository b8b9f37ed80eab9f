"""Neural networks on the CPU: the words of the books, compiled."""

from typing import TYPE_CHECKING, Any

from cnn_core import initializers, losses, metrics, models, ops, optimizers, schedules
from cnn_core._fingerprint import fingerprint
from cnn_core._include import get_include
from cnn_core._optimizer import Optimizer
from cnn_core.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateSchedule,
    StopOnNaN,
)
from cnn_core.checkpoints import Checkpoint, CheckpointError
from cnn_core.config import show_config
from cnn_core.gradient_check import numerical_gradient
from cnn_core.image_layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    MaxPool2D,
)
from cnn_core.initializers import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Initializer,
    Normal,
    Uniform,
    Zeros,
)
from cnn_core.layers import Affine, Flatten, Layer, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from cnn_core.losses import (
    BinaryCrossEntropy,
    Loss,
    MeanSquaredError,
    SoftmaxCrossEntropy,
    SumSquaredError,
)
from cnn_core.network import Sequential
from cnn_core.ops import get_num_threads, set_num_threads
from cnn_core.optimizers import SGD, SGDW, AdaGrad, Adam, AdamW, RMSprop
from cnn_core.trainer import Trainer

if TYPE_CHECKING:
    from cnn_core import datasets

__all__ = [
    "SGD",
    "SGDW",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Affine",
    "AvgPool2D",
    "BatchNorm",
    "BinaryCrossEntropy",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "Conv2D",
    "Dropout",
    "EarlyStopping",
    "Flatten",
    "GlobalAvgPool2D",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "Layer",
    "LeakyReLU",
    "LearningRateSchedule",
    "Loss",
    "MaxPool2D",
    "MeanSquaredError",
    "Normal",
    "Optimizer",
    "RMSprop",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "StopOnNaN",
    "SumSquaredError",
    "Tanh",
    "Trainer",
    "Uniform",
    "Zeros",
    "datasets",
    "fingerprint",
    "get_include",
    "get_num_threads",
    "initializers",
    "losses",
    "metrics",
    "models",
    "numerical_gradient",
    "ops",
    "optimizers",
    "schedules",
    "set_num_threads",
    "show_config",
]

#: Imported when they are first used: model files need safetensors, pictures matplotlib, and data
#: sets modules that take long.
LAZY_MODULES = ("datasets", "plotting", "serialization")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in LAZY_MODULES:
        return import_module(f"cnn_core.{name}")
    if name == "load":
        return import_module("cnn_core.serialization").load_model
    raise AttributeError(f"module 'cnn_core' has no attribute {name!r}")
