"""Keras on TensorFlow: train_on_batch and predict_on_batch, with XLA or without."""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from peers import Timed, fastest, predictions
from workloads import Workload


def rows_of(workload: Workload, x: Any) -> Any:
    """Channels last; with one channel no more than another shape."""
    shape = workload.input_shape
    return x.reshape(len(x), *shape[1:], shape[0]) if len(shape) == 3 else x


def network(workload: Workload, rows: Any, dtype: str, xla: bool) -> keras.Model:
    keras.config.set_floatx(dtype)
    make = {
        "affine": lambda units: [layers.Dense(units)],
        "conv": lambda filters, size, padding: [
            layers.ZeroPadding2D(padding),
            layers.Conv2D(filters, size),
        ][padding == 0 :],
        "pool": lambda size: [layers.MaxPooling2D(size)],
        "flatten": lambda: [layers.Flatten()],
        "dropout": lambda rate: [layers.Dropout(rate)],
    }
    net = keras.Sequential([layers.Input(rows.shape[1:])])
    for name, *arguments in workload.layers:
        for layer in make[name](*arguments) if name in make else [layers.Activation(name)]:
            net.add(layer)
    net.compile(
        optimizer=keras.optimizers.SGD(workload.lr),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=xla,
    )
    return net


class Keras:
    packages = ("keras", "tensorflow", "tensorflow-cpu")

    def __init__(self, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)

    def training(self, workload: Workload, x: Any, t: Any, dtype: str) -> Timed:
        rows, rng = rows_of(workload, x), np.random.default_rng(0)

        def steps(xla: bool) -> Any:
            net = network(workload, rows, dtype, xla)

            def run(n: int) -> None:
                for index in rng.integers(0, len(rows), (n, workload.batch)):
                    net.train_on_batch(rows[index], t[index])

            return run

        return fastest({"XLA": steps(True), "no XLA": steps(False)})

    def inference(self, workload: Workload, x: Any, dtype: str) -> Timed:
        rows, candidates = rows_of(workload, x), {}
        for setting, xla in (("XLA", True), ("no XLA", False)):
            net = network(workload, rows, dtype, xla)
            for name, run in predictions(net.predict_on_batch, rows).items():
                candidates[f"{setting} {name}"] = run
        return fastest(candidates)
