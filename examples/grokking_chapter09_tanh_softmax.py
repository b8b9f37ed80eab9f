"""Grokking Deep Learning, chapter 9: tanh and softmax in the net of chapter 8.

    python examples/grokking_chapter09_tanh_softmax.py
    python examples/grokking_chapter09_tanh_softmax.py --weights 0.01

The seed prints both, the second as "with the changed weights": tanh is said to like them small.
A line every tenth epoch. Five seconds.
"""

import argparse

import numpy as np

import cnn_core as cc

IMAGES, BATCH, HIDDEN_SIZE, ALPHA = 1000, 100, 100, 0.02


class TanhDropout(cc.Tanh):
    """tanh and dropout in one, since the program mixes up their derivatives."""

    def __init__(self, random: np.random.RandomState) -> None:
        self.random = random

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        self.y = super().forward(x, training)
        if training:
            self.mask = self.random.randint(2, size=x.shape)
            self.y = self.y * self.mask * 2
        return self.y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        # Two quirks: the doubling has no part in the gradient, and the derivative 1 - y^2 is taken
        # at what is masked and doubled already.
        return dout * (1 - self.y**2) * self.mask


class SquaredErrorOfSoftmax(cc.Loss):
    """What the program prints is the squared error of the softmax, what it descends the gradient
    of the cross entropy."""

    def forward(self, y: np.ndarray, t: np.ndarray) -> float:
        self.difference = cc.ops.softmax_forward(y) - t
        return float((self.difference**2).sum() / len(y))

    def backward(self) -> np.ndarray:
        return self.difference / len(self.difference)


def network(limit: float) -> cc.Sequential:
    """The program's net; initial weights between -limit and limit."""
    random = np.random.RandomState(1)  # the stream of np.random.seed(1)
    weights_0_1 = 2 * limit * random.random((784, HIDDEN_SIZE)) - limit
    weights_1_2 = 2 * limit * random.random((HIDDEN_SIZE, 10)) - limit
    return cc.Sequential(
        [
            cc.Affine(HIDDEN_SIZE, weights=weights_0_1),
            TanhDropout(random),
            cc.Affine(10, weights=weights_1_2),
        ],
        input_shape=(784,),
        loss=SquaredErrorOfSoftmax(),
        dtype="float64",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300, help="default: 300, as the program")
    parser.add_argument("--weights", type=float, default=0.1, help="at most; default: 0.1")
    arguments = parser.parse_args()
    (x, t), (x_test, t_test) = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    net = network(arguments.weights)
    # The program has no biases: they stay 0.
    trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0, "b2": 0}))
    for epoch in range(arguments.epochs):
        history = trainer.fit(
            x[:IMAGES], t[:IMAGES], batch_size=BATCH, sampling="sequential", verbose=False
        )
        if epoch % 10 == 0:
            test_error, test_correct = net.evaluate(x_test, t_test)
            print(
                f"Epochs: {epoch}"
                f"  Train_Error: {str(history['loss'][0])[:5]}"
                f"  Train_Correct: {history['accuracy'][0]}"
                f"  Test_Error: {str(test_error)[:5]}"
                f"  Test_Correct: {test_correct}",
                flush=True,
            )


if __name__ == "__main__":
    main()
