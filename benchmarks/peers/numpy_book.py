"""NumPy, by hand, as in the books: fully connected layers, and the numerical gradient's loop."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from peers import HIDDEN, Timed, Unsupported, fastest, matrices, predictions, repeat
from workloads import Workload

SAMPLE = 20  # parameters of the numerical gradient that are timed


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softmax(x: Any) -> Any:
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


class Net:
    """Affine layers with one activation between them, softmax and cross entropy."""

    def __init__(self, sizes: list[int], activation: str, dtype: str) -> None:
        rng = np.random.default_rng(0)
        shapes = list(pairwise(sizes))
        self.W = [rng.normal(0, 0.01, shape).astype(dtype) for shape in shapes]
        self.b = [np.zeros(units, dtype) for _, units in shapes]
        self.relu = activation == "relu"

    def predict(self, x: Any) -> Any:
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            x = x @ W + b
            x = np.maximum(x, 0) if self.relu else sigmoid(x)
        return x @ self.W[-1] + self.b[-1]

    def loss(self, x: Any, t: Any) -> float:
        y = softmax(self.predict(x))
        return float(-np.log(y[np.arange(len(t)), t] + 1e-7).mean())

    def update(self, x: Any, t: Any, lr: float) -> None:
        inputs = [x]
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            z = inputs[-1] @ W + b
            inputs.append(np.maximum(z, 0) if self.relu else sigmoid(z))
        dy = softmax(inputs[-1] @ self.W[-1] + self.b[-1])
        dy[np.arange(len(t)), t] -= 1
        dy /= len(t)
        for i in reversed(range(len(self.W))):
            x, dW, db = inputs[i], inputs[i].T @ dy, dy.sum(axis=0)
            if i:
                dy = dy @ self.W[i].T
                dy *= x > 0 if self.relu else x * (1 - x)
            self.W[i] -= lr * dW
            self.b[i] -= lr * db


def network(workload: Workload, dtype: str) -> Net:
    if not workload.fully_connected:
        raise Unsupported("fully connected networks only")
    units = [arguments[0] for name, *arguments in workload.layers if name == "affine"]
    return Net([784, *units], str(workload.layers[1][0]), dtype)


class NumPy:
    packages = ("numpy",)

    def __init__(self, threads: int) -> None:
        threadpool_limits(threads)

    def product(self, n: int) -> Timed:
        x, W, out = matrices(n)
        return Timed(repeat(lambda: np.matmul(x, W, out=out)))

    def training(self, workload: Workload, x: Any, t: Any, dtype: str) -> Timed:
        net, rng = network(workload, dtype), np.random.default_rng(0)

        def run(n: int) -> None:
            for index in rng.integers(0, len(x), (n, workload.batch)):
                net.update(x[index], t[index], workload.lr)

        return Timed(run)

    def inference(self, workload: Workload, x: Any, dtype: str) -> Timed:
        return fastest(predictions(network(workload, dtype).predict, x))

    def gradient(self, x: Any, t: Any) -> Timed:
        """The loop over SAMPLE weights of the first layer; each costs two losses, as all do."""
        net, h = Net([784, HIDDEN, 10], "sigmoid", "float64"), 1e-4
        weights = net.W[0].reshape(-1)

        def sample() -> None:
            for i in range(SAMPLE):
                kept = weights[i]
                weights[i] = kept + h
                above = net.loss(x, t)
                weights[i] = kept - h
                (above - net.loss(x, t)) / (2 * h)
                weights[i] = kept

        n_params = sum(array.size for array in (*net.W, *net.b))
        return Timed(repeat(sample), n_params / SAMPLE, f"{SAMPLE} of {n_params:,} parameters")
