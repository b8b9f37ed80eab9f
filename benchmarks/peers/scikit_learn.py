"""scikit-learn: MLPClassifier with plain SGD, one update per partial_fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from peers import Timed, Unsupported, fastest, predictions
from workloads import Workload

ACTIVATIONS = {"sigmoid": "logistic", "relu": "relu", "tanh": "tanh"}


def classifier(workload: Workload, x: Any, t: Any) -> MLPClassifier:
    """Fitted once, so that it knows its sizes."""
    if not workload.fully_connected:
        raise Unsupported("fully connected networks only")
    units = [arguments[0] for name, *arguments in workload.layers if name == "affine"]
    activation = next(str(name) for name, *_ in workload.layers if name in ACTIVATIONS)
    model = MLPClassifier(
        units[:-1],
        activation=ACTIVATIONS[activation],
        solver="sgd",
        momentum=0.0,
        alpha=0.0,
        learning_rate_init=workload.lr,
        batch_size=workload.batch,
        random_state=0,
    )
    rows = slice(0, workload.batch)
    return model.partial_fit(x[rows], t[rows], classes=range(10))


class ScikitLearn:
    packages = ("scikit-learn", "scipy", "numpy")

    def __init__(self, threads: int) -> None:
        threadpool_limits(threads)

    def training(self, workload: Workload, x: Any, t: Any, dtype: str) -> Timed:
        model, rng = classifier(workload, x, t), np.random.default_rng(0)

        def run(n: int) -> None:
            for index in rng.integers(0, len(x), (n, workload.batch)):
                model.partial_fit(x[index], t[index])

        return Timed(run)

    def inference(self, workload: Workload, x: Any, dtype: str) -> Timed:
        t = np.zeros(len(x), np.int64)
        return fastest(predictions(classifier(workload, x, t).predict_proba, x))
