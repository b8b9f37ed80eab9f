"""Neural networks on the CPU: the words of the books, compiled."""

from cnn_core import datasets, initializers, losses, metrics, ops, optimizers
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
from cnn_core.optimizers import SGD, Optimizer


def show_config():
    return ops.native_config()
from cnn_core import models
from cnn_core.callbacks import Callback
from cnn_core.trainer import Trainer
from cnn_core.image_layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    MaxPool2D,
)
