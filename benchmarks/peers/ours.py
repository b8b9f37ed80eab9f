"""cnn-core through its public API: Trainer.fit and net.predict."""

from __future__ import annotations

import math
from typing import Any

import cnn_core as cc
from peers import HIDDEN, Timed, images, matrices, repeat
from workloads import Workload


def network(workload: Workload, dtype: str) -> cc.Sequential:
    make = {
        "affine": lambda units: cc.Affine(units, cc.Normal(0.01)),
        "sigmoid": cc.Sigmoid,
        "tanh": cc.Tanh,
        "relu": cc.ReLU,
        "conv": lambda filters, size, padding: cc.Conv2D(filters, size, padding=padding),
        "pool": cc.MaxPool2D,
        "flatten": cc.Flatten,
        "dropout": cc.Dropout,
    }
    layers = [make[str(name)](*arguments) for name, *arguments in workload.layers]
    return cc.Sequential(layers, input_shape=workload.input_shape, dtype=dtype)


class CnnCore:
    packages = ("numpy",)

    def __init__(self, threads: int) -> None:
        cc.set_num_threads(threads)

    def training(self, workload: Workload, x: Any, t: Any, dtype: str) -> Timed:
        trainer = cc.Trainer(network(workload, dtype), cc.SGD(lr=workload.lr))
        per_epoch = math.ceil(len(x) / workload.batch)

        def run(n: int) -> None:
            trainer.fit(
                x,
                t,
                batch_size=workload.batch,
                sampling="replacement",
                verbose=False,
                epochs=math.ceil(n / per_epoch),
                iterations=n,
            )

        return Timed(run)

    def inference(self, workload: Workload, x: Any, dtype: str) -> Timed:
        net = network(workload, dtype)
        rows = x.reshape(len(x), *workload.input_shape)
        return Timed(repeat(lambda: net.predict(rows)))

    def product(self, n: int) -> Timed:
        x, W, out = matrices(n)
        return Timed(repeat(lambda: cc.ops.affine_forward(x, W, None, out=out)))

    def convolution(self, n: int) -> Timed:
        x, W, b = images(n)
        return Timed(repeat(lambda: cc.ops.conv2d_forward(x, W, b, padding=1)))

    def gradient(self, x: Any, t: Any) -> Timed:
        layers = [cc.Affine(HIDDEN, cc.Normal(0.01)), cc.Sigmoid(), cc.Affine(10, cc.Normal(0.01))]
        net = cc.Sequential(layers, input_shape=(784,), dtype="float64")
        return Timed(repeat(lambda: net.numerical_gradient(x, t)))
