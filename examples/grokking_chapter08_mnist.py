"""Grokking Deep Learning, chapter 8: 1,000 images of MNIST, learned by heart.

Three hundred and fifty epochs, image by image; on other images it gets worse all the while:

    python examples/grokking_chapter08_mnist.py

A line per epoch; the test figures are those of the last tenth epoch. Half a minute.
"""

import argparse

import numpy as np

import cnn_core as cc

IMAGES, HIDDEN_SIZE, ALPHA = 1000, 40, 0.005


class ReLU(cc.Layer):
    """max(x, 0). Quirk: the program asks its output, which is never negative, whether it is >= 0
    and takes that for the derivative, so that gradients pass everywhere."""

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        return np.maximum(x, 0)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return dout


def network() -> cc.Sequential:
    """The program's net with its initial weights."""
    random = np.random.RandomState(1)  # the stream of np.random.seed(1)
    weights_0_1 = 0.2 * random.random((784, HIDDEN_SIZE)) - 0.1
    weights_1_2 = 0.2 * random.random((HIDDEN_SIZE, 10)) - 0.1
    return cc.Sequential(
        [cc.Affine(HIDDEN_SIZE, weights=weights_0_1), ReLU(), cc.Affine(10, weights=weights_1_2)],
        input_shape=(784,),
        loss=cc.SumSquaredError(),  # half of what the program prints
        dtype="float64",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=350, help="default: 350, as the program")
    epochs = parser.parse_args().epochs
    (x, t), (x_test, t_test) = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    # The program has no biases: they stay 0.
    trainer = cc.Trainer(network(), cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0, "b2": 0}))
    for epoch in range(epochs):
        history = trainer.fit(
            x[:IMAGES], t[:IMAGES], batch_size=1, sampling="sequential", verbose=False
        )
        if epoch % 10 == 0 or epoch == epochs - 1:
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
