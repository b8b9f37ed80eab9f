"""Grokking Deep Learning, chapter 8: dropout in batches of 100, faster and smoother.

The net of grokking_chapter08_dropout.py with 100 hidden values instead of 40:

    python examples/grokking_chapter08_mini_batches.py

A line every tenth epoch. Five seconds.
"""

import argparse

import numpy as np

import cnn_core as cc

IMAGES, BATCH, HIDDEN_SIZE, ALPHA = 1000, 100, 100, 0.01


class ReLUDropout(cc.Layer):
    """ReLU and dropout in one. Quirks: the derivative of the ReLU is 1 everywhere (see
    grokking_chapter08_mnist.py), and the doubling has no part in the gradient."""

    def __init__(self, random: np.random.RandomState) -> None:
        self.random = random

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        y = np.maximum(x, 0)
        if training:
            self.mask = self.random.randint(2, size=x.shape)
            y *= self.mask * 2
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return dout * self.mask


def network() -> cc.Sequential:
    """The program's net with its initial weights; the masks go on in the same random stream."""
    random = np.random.RandomState(1)  # the stream of np.random.seed(1)
    weights_0_1 = 0.2 * random.random((784, HIDDEN_SIZE)) - 0.1
    weights_1_2 = 0.2 * random.random((HIDDEN_SIZE, 10)) - 0.1
    return cc.Sequential(
        [
            cc.Affine(HIDDEN_SIZE, weights=weights_0_1),
            ReLUDropout(random),
            cc.Affine(10, weights=weights_1_2),
        ],
        input_shape=(784,),
        loss=cc.SumSquaredError(),  # half of what the program prints
        dtype="float64",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300, help="default: 300, as the program")
    epochs = parser.parse_args().epochs
    (x, t), (x_test, t_test) = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    # The program has no biases: they stay 0.
    trainer = cc.Trainer(network(), cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0, "b2": 0}))
    for epoch in range(epochs):
        history = trainer.fit(
            x[:IMAGES], t[:IMAGES], batch_size=BATCH, sampling="sequential", verbose=False
        )
        if epoch % 10 == 0:
            test_loss, test_correct = trainer.network.evaluate(x_test, t_test)
            print(
                f"Epochs: {epoch}"
                f"  Train_Error: {str(2 * history['loss'][0])[:5]}"
                f"  Train_Correct: {history['accuracy'][0]}"
                f"  Test_Error: {str(2 * test_loss)[:5]}"
                f"  Test_Correct: {test_correct}",
                flush=True,
            )


if __name__ == "__main__":
    main()
