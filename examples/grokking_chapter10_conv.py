"""Chapter 10 of Grokking Deep Learning as the seed runs it, faults and all, digit for digit.

Sixteen 3x3 kernels, tanh, dropout and softmax on the first 1,000 images of MNIST, in float64:

    python examples/grokking_chapter10_conv.py --epochs 12

The first line is "I: 0   Train_acc: 0.055   Test_acc: 0.0288", the twelfth ends in 0.4023. What is
odd about the program is marked "quirk" below; grokking_chapter10_conv_correct.py does without.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import cnn_core as cc

Array = npt.NDArray[Any]

IMAGES, BATCH, ALPHA = 1000, 128, 2
KERNELS, SIDE = 16, 25  # filters, and positions of a window in each direction


class TanhDropout(cc.Tanh):
    """tanh and dropout in one, since the program mixes up their derivatives."""

    def __init__(self, random: np.random.RandomState) -> None:
        self.random = random

    def forward(self, x: Array, training: bool = False) -> Array:
        self.y = super().forward(x, training)
        if training:
            # Drawn in the program's order of axes: a row per image, position by position, kernels
            # last. This layer's own is (images, kernels, rows, columns).
            mask = self.random.randint(2, size=(len(x), SIDE, SIDE, KERNELS))
            self.mask = mask.transpose(0, 3, 1, 2)
            self.y = self.y * self.mask * 2
        return self.y

    def backward(self, dout: Array) -> Array:
        # Two quirks: the doubling has no part in the gradient, and the derivative 1 - y^2 is taken
        # at what is masked and doubled already.
        dx: Array = dout * (1 - self.y**2) * self.mask
        return dx


def network() -> cc.Sequential:
    """The net with the program's initial weights, drawn in its order and laid out in ours."""
    random = np.random.RandomState(1)  # the stream of np.random.seed(1)
    kernels = 0.02 * random.random((3 * 3, KERNELS)) - 0.01
    weights = 0.2 * random.random((SIDE * SIDE * KERNELS, 10)) - 0.1
    # (KH KW, F) to (F, C, KH, KW), and rows (OH, OW, F) to (F, OH, OW).
    kernels = kernels.T.reshape(KERNELS, 1, 3, 3)
    weights = weights.reshape(SIDE, SIDE, KERNELS, 10).transpose(2, 0, 1, 3).reshape(-1, 10)
    return cc.Sequential(
        [
            cc.Conv2D(KERNELS, 3, weights=kernels),
            TanhDropout(random),
            cc.Flatten(),
            cc.Affine(10, weights=weights),
        ],
        # Quirk: the window stops one pixel short of the right and of the lower edge.
        input_shape=(1, SIDE + 2, SIDE + 2),
        dtype="float64",
    )


def lines(epochs: int) -> Iterator[str]:
    """Train, and give the line that the program prints after each epoch."""
    (x_train, t_train), (x_test, t_test) = cc.datasets.load_mnist(normalize=False, flatten=False)
    net = network()
    crop = (..., slice(SIDE + 2), slice(SIDE + 2))
    # Quirk: only full batches are used, seven of 128, though the accuracy is one of 1,000.
    rows = IMAGES // BATCH * BATCH
    x_train, t_train, x_test = x_train[:rows][crop], t_train[:rows], x_test[crop]
    optimizer = cc.SGD(
        # Quirk: the mean over the batch is divided by the size of the batch again.
        lr=ALPHA / BATCH,
        # Quirk: the kernels climb instead of descending. There are no biases: they stay 0.
        lr_multipliers={"W1": -1, "b1": 0, "b2": 0},
    )
    trainer = cc.Trainer(net, optimizer)
    for epoch in range(epochs):
        history = trainer.fit(
            x_train,
            t_train,
            batch_size=BATCH,
            sampling="sequential",
            validation_data=(x_test, t_test),
            verbose=False,
        )
        correct = round(history["accuracy"][0] * rows)
        train, test = correct / IMAGES, history["val_accuracy"][0]
        yield f"I: {epoch}   Train_acc: {train}   Test_acc: {test}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12, help="default: 12; the program: 300")
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs: expected at least 1, got {arguments.epochs}")
    began = time.perf_counter()
    for line in lines(arguments.epochs):
        print(line, flush=True)
    print(f"{arguments.epochs} epochs in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
