"""What must come out with the same bits everywhere: cases, and a digest of all that a case gives.

Losses, optimizers and models are those that cnn_core offers, with their defaults, and the variants
named here. Layers need an entry each, named after the class. Batches and shapes are odd, and large
enough for a team of 16 (see WORK). As a script, `reproducibility.py THREADS DTYPE...` prints the
digests as JSON.
"""

import hashlib
import inspect
import json
import sys

import numpy as np
import scipy.sparse

import cnn_core as cc
from reference_network import LogCosh, Sine

THREADS = (1, 2, 3, 4, 7, 16, 2)  # more than there are cores, and one of them twice
WORK = 16 * 100_000  # multiply-adds of a step from which on 16 threads take part
BATCHES = (37, 37, 23, 1)


def offered(base):
    """The classes derived from `base` that cnn_core offers, by name."""
    kinds = {name: getattr(cc, name) for name in cc.__all__}
    kinds = {name: kind for name, kind in kinds.items() if isinstance(kind, type)}
    return {name: kind for name, kind in kinds.items() if issubclass(kind, base) and kind != base}


def offered_models():
    made = inspect.getmembers(cc.models, inspect.isfunction)
    return {name: f for name, f in made if inspect.signature(f).return_annotation == "Sequential"}


# ---- cases ---------------------------------------------------------------------------------------

ROWS, IMAGES = (397,), (3, 19, 23)


def dense(*layers):
    return ROWS, [cc.Affine(301), *layers, cc.Affine(11)]


def convolutional(*layers):
    return IMAGES, [cc.Conv2D(19, 3), *layers, cc.Flatten(), cc.Affine(7)]


LAYERS = {
    "Affine": lambda: dense(cc.Affine(77, cc.HeNormal(), cc.Normal(0.1))),
    "Sigmoid": lambda: dense(cc.Sigmoid()),
    "Tanh": lambda: dense(cc.Tanh()),
    "ReLU": lambda: dense(cc.ReLU()),
    "LeakyReLU": lambda: dense(cc.LeakyReLU(0.2)),
    "Softmax": lambda: dense(cc.Softmax()),
    "Dropout": lambda: dense(cc.Dropout(0.3)),
    "Dropout of images": lambda: convolutional(cc.ReLU(), cc.Dropout(0.3)),
    "BatchNorm": lambda: dense(cc.BatchNorm(), cc.ReLU()),
    "BatchNorm of images": lambda: convolutional(cc.BatchNorm(), cc.Tanh()),
    "Flatten": lambda: (IMAGES, [cc.Flatten(), cc.Affine(203), cc.ReLU(), cc.Affine(7)]),
    "Conv2D": lambda: convolutional(cc.ReLU(), cc.Conv2D(5, (2, 3), padding=1)),
    "Conv2D strided": lambda: convolutional(cc.Conv2D(33, 5, stride=2, padding="same")),
    "Conv2D dilated": lambda: convolutional(
        cc.Conv2D(17, 3, dilation=(2, 3), padding=(0, 1, 2, 3))
    ),
    "Conv2D in groups": lambda: (
        (6, 19, 23),
        [cc.Conv2D(18, 3, groups=3), cc.ReLU(), cc.Conv2D(18, 3, groups=18), *head()],
    ),
    "Conv2D of one large image": lambda: ((3, 47, 41), [cc.Conv2D(33, 3), cc.ReLU(), *head()]),
    "Conv2D of one point": lambda: convolutional(cc.Conv2D(29, 1), cc.Sigmoid()),
    "MaxPool2D": lambda: convolutional(cc.ReLU(), cc.MaxPool2D(2)),
    "MaxPool2D overlapping": lambda: convolutional(cc.MaxPool2D(3, 2, padding=1)),
    "AvgPool2D": lambda: convolutional(cc.AvgPool2D((2, 3))),
    "AvgPool2D overlapping": lambda: convolutional(cc.Tanh(), cc.AvgPool2D(3, 1, padding=1)),
    "GlobalAvgPool2D": lambda: (
        IMAGES,
        [cc.Conv2D(19, 3), cc.ReLU(), cc.GlobalAvgPool2D(), cc.Affine(7)],
    ),
}
OPTIMIZERS = {
    "SGD momentum": lambda: cc.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "SGD nesterov": lambda: cc.SGD(0.05, momentum=0.9, nesterov=True),
    "SGDW momentum": lambda: cc.SGDW(0.05, momentum=0.9, weight_decay=0.1),
    "SGD in parts": lambda: cc.SGD(0.05, lr_multipliers={"W1": 0, "b2": -0.5}),
    "SGD clipped by its norm": lambda: cc.SGD(0.05, momentum=0.9, clip_norm=0.1),
    "Adam clipped by value": lambda: cc.Adam(0.01, clip_value=1e-3),
    "RMSprop momentum": lambda: cc.RMSprop(0.01, momentum=0.9, weight_decay=0.1),
    "Adam in parts": lambda: cc.Adam(0.01, weight_decay=0.1, lr_multipliers={"b1": 0, "W2": 2}),
} | offered(cc.Optimizer)
LOSSES = {
    "SoftmaxCrossEntropy sum": lambda: cc.SoftmaxCrossEntropy("sum"),
    "BinaryCrossEntropy sum": lambda: cc.BinaryCrossEntropy("sum"),
    "MeanSquaredError sum": lambda: cc.MeanSquaredError("sum"),
    "SumSquaredError sum": lambda: cc.SumSquaredError("sum"),
} | offered(cc.Loss)
MODELS = offered_models()
FITS = {
    "shuffle": {"sampling": "shuffle"},
    "replacement": {"sampling": "replacement", "report": "book"},
    "sequential": {"sampling": "sequential", "iterations": 5},
    "weighted": {"sample_weight": np.linspace(0, 3, 157), "class_weight": "balanced"},
}


def head():
    return [cc.Flatten(), cc.Affine(7)]


def make(case, dtype):
    """The network and the optimizer of a case."""
    kind, _, name = case.partition(": ")
    optimizer, loss, (shape, layers) = cc.SGD(0.05, momentum=0.5), None, dense(cc.Tanh())
    if kind in ("model", "empty windows"):
        return MODELS[name](dtype=dtype), optimizer
    if kind == "layer":
        shape, layers = LAYERS[name]()
    elif kind == "loss":
        loss, optimizer = LOSSES[name](), cc.SGD(0.001)
    elif kind == "own code":
        loss, (shape, layers) = LogCosh(), dense(Sine())
    elif kind == "optimizer":
        optimizer = OPTIMIZERS[name]()
    return cc.Sequential(layers, input_shape=shape, loss=loss, dtype=dtype, seed=7), optimizer


TABLES = {
    "layer": LAYERS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "model": MODELS,
    "fit": FITS,
    "own code": ["a layer and a loss"],
    "sparse": ["steps"],
    "empty windows": ["simple_conv_net", "lenet5"],
    "numerical gradient": ["compiled"],
}
CASES = [f"{kind}: {name}" for kind, table in TABLES.items() for name in table]


# ---- digests -------------------------------------------------------------------------------------


def targets(net, n, rng):
    if net.loss_function.native == "softmax_cross_entropy":
        return rng.integers(0, net.output_shape[0], n)
    return rng.random((n, *net.output_shape))


def rows_of(case, x):
    """x, or a fifth of its numbers as a sparse matrix, or images with an empty half."""
    if case.startswith("empty windows"):
        x[::2, ..., :14, :] = x[1::2, ..., :14] = 0
    return scipy.sparse.csr_array(x * (x < 0.2)) if case.startswith("sparse") else x


def train(case, trainer):
    """A few updates of the trainer's network; the losses."""
    net, losses = trainer.network, []
    kind, _, name = case.partition(": ")
    if kind == "fit":
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (157, *net.input_shape), np.uint8)
        options = {
            "epochs": 2,
            "batch_size": 37,
            "validation_data": (x[:31], rng.integers(0, 9, 31)),
        }
        history = trainer.fit(x, targets(net, 157, rng), **options, **FITS[name], verbose=False)
        return [value for key, value in sorted(history.items()) if key != "seconds"]
    for number, n in enumerate(BATCHES if kind != "model" else BATCHES[2:]):
        rng = np.random.default_rng(number)
        x = rows_of(case, rng.random((n, *net.input_shape)).astype(net.dtype))
        losses.append(trainer.step(x, targets(net, n, rng)))
    return losses


def digest(case, dtype):
    """Parameters, state, losses, gradients and predictions of a case, as one hash."""
    net, optimizer = make(case, dtype)
    losses = train(case, cc.Trainer(net, optimizer))
    rng = np.random.default_rng(99)
    x = rng.random((613, *net.input_shape)).astype(dtype)[: 613 if "fit" in case else 13]
    t, x = targets(net, len(x), rng), rows_of(case, x)
    hashed = hashlib.sha256(cc.fingerprint(net).encode())
    hashed.update(repr([losses, net.evaluate(x, t), net.loss(x, t, training=True)]).encode())
    arrays = [net.predict(x), *net.gradient(x, t).values()]
    if case.startswith("numerical gradient"):
        small = cc.Sequential(
            [cc.Affine(9), cc.Tanh(), cc.Affine(5)], input_shape=(101,), dtype=dtype
        )
        arrays += small.numerical_gradient(x[:, :101], t % 5).values()
    for array in arrays:
        hashed.update(array.tobytes())
    return hashed.hexdigest()


if __name__ == "__main__":
    cc.set_num_threads(int(sys.argv[1]))
    json.dump({f"{case} {d}": digest(case, d) for d in sys.argv[2:] for case in CASES}, sys.stdout)
