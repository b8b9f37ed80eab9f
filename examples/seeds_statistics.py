"""Do the two-layer networks of the seeds reach, on average, what the seeds print?

Trains 784-50-10 on MNIST with 10,000 batches of 100 images drawn with replacement, learning rate
0.1 and weights 0.01 * normal, once per seed and activation, and compares the mean of the last line
(accuracy on all training and all test images after update 9,601) with the printed figures:

    python examples/seeds_statistics.py --seeds 10

The exit status is 1 if a mean is further than 0.003 away. About five seconds per training.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import numpy.typing as npt

import cnn_core as cc

# Last line of seed 000 (sigmoid) and of seed 002 (ReLU): accuracy in training and in test.
PRINTED = {"sigmoid": (0.9477, 0.9471), "relu": (0.97998, 0.9696)}
TOLERANCE = 0.003

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]


def last_line(activation: str, seed: int, data: tuple[Pair, Pair]) -> tuple[float, float]:
    """Train one network and return the two accuracies of its seventeenth line."""
    (x_train, t_train), (x_test, t_test) = data
    net = cc.models.two_layer_net(activation=activation, seed=seed)
    history = cc.Trainer(net, cc.SGD(lr=0.1)).fit(
        x_train,
        t_train,
        epochs=17,
        iterations=10_000,
        batch_size=100,
        sampling="replacement",
        report="book",
        validation_data=(x_test, t_test),
        verbose=False,
    )
    return history["accuracy"][-1], history["val_accuracy"][-1]


def compare(activation: str, lines: npt.NDArray[np.float64]) -> bool:
    """Print the means beside the printed figures; whether they are near enough."""
    good = True
    for column, name in enumerate(("train", "test")):
        mean, std = lines[:, column].mean(), lines[:, column].std()
        printed = PRINTED[activation][column]
        near = bool(abs(mean - printed) <= TOLERANCE)
        good = good and near
        print(
            f"{activation:<8} {name:<6} mean {mean:.5f}  std {std:.5f}  printed {printed:.5f}"
            f"  difference {mean - printed:+.5f}  {'ok' if near else 'TOO FAR'}"
        )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 on (default: 10)")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {arguments.seeds}")
    data = cc.datasets.load_mnist(normalize=True, one_hot_label=True)
    good = True
    for activation in PRINTED:
        lines = []
        for seed in range(arguments.seeds):
            lines.append(last_line(activation, seed, data))
            train, test = lines[-1]
            print(f"{activation:<8} seed {seed:>2}  {train:.5f}  {test:.5f}", flush=True)
        good &= compare(activation, np.array(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
