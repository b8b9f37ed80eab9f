"""Grokking Deep Learning, chapter 9: which last activation and which loss for which problem.

Each row of the table, tried on questions about the images of MNIST: 5,000 to learn from, 1,000
others for the score.

    python examples/grokking_chapter09_last_layers.py

BinaryCrossEntropy and SoftmaxCrossEntropy take scores: their sigmoid and softmax are part of the
loss, and the net has no layer for them.
"""

from collections.abc import Callable

import numpy as np

import cnn_core as cc

TRAIN, TEST, EPOCHS = slice(0, 5000), slice(5000, 6000), 20


def accuracy(outputs: np.ndarray, t: np.ndarray) -> float:
    """The share of right answers; a score above 0 is a probability above one half: yes."""
    if outputs.shape[1] == 10:
        return float((outputs.argmax(axis=1) == t).mean())
    return float(((outputs > 0) == t.reshape(outputs.shape)).mean())


def explained(outputs: np.ndarray, t: np.ndarray) -> float:
    """The share of the targets' variance that the outputs explain, R^2; 1 is perfect."""
    return float(1 - ((outputs[:, 0] - t) ** 2).mean() / t.var())


def explained_by_sigmoid(outputs: np.ndarray, t: np.ndarray) -> float:
    """The same where the sigmoid is part of the loss."""
    return explained(cc.ops.activation_forward(outputs, "sigmoid"), t)


def slant(images: np.ndarray) -> np.ndarray:
    """By how many columns a digit leans to the left per row downwards: negative, 0 or positive."""
    weights = images / images.sum(axis=(1, 2), keepdims=True)
    rows, columns = np.mgrid[:28, :28].astype(float)
    rows = rows - (weights * rows).sum(axis=(1, 2), keepdims=True)
    return -(weights * rows * columns).sum(axis=(1, 2)) / (weights * rows**2).sum(axis=(1, 2))


def solve(
    problem: str,
    x: np.ndarray,
    t: np.ndarray,
    last: list[cc.Layer],
    activation: str,
    loss: cc.Loss,
    score: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    """Train a net with these last layers and this loss, and print its row of the table."""
    net = cc.Sequential([cc.Affine(50), cc.Tanh(), *last], input_shape=(784,), loss=loss)
    cc.Trainer(net, cc.Adam(lr=0.003)).fit(x[TRAIN], t[TRAIN], epochs=EPOCHS, verbose=False)
    figure = score(net.predict(x[TEST]), t[TEST])
    loss_name, score_name = type(loss).__name__, score.__name__.split("_")[0]
    print(f"{problem:<30}  {activation:<7}  {loss_name:<19}  {score_name} {figure:.3f}", flush=True)


def main() -> None:
    (x, digits), _ = cc.datasets.load_mnist(normalize=False)
    x, digits = x[: TEST.stop], digits[: TEST.stop]
    images = x.reshape(-1, 28, 28)
    odd, prime = digits % 2 == 1, np.isin(digits, (2, 3, 5, 7))
    with_loop, large = np.isin(digits, (0, 6, 8, 9)), digits >= 5
    several = np.stack([odd, prime, with_loop, large], axis=1)
    upper = images[:, :14].sum(axis=(1, 2)) / images.sum(axis=(1, 2))
    affine, sigmoid, mse = cc.Affine, cc.Sigmoid, cc.MeanSquaredError()
    binary, categorical = cc.BinaryCrossEntropy(), cc.SoftmaxCrossEntropy()

    solve("two classes: odd?", x, odd, [affine(1)], "sigmoid", binary, accuracy)
    solve("one of ten classes", x, digits, [affine(10)], "softmax", categorical, accuracy)
    solve("odd? prime? with a loop? >= 5?", x, several, [affine(4)], "sigmoid", binary, accuracy)
    solve("any number: the slant", x, slant(images), [affine(1)], "none", mse, explained)
    ink = "0 to 1: ink in the upper half"
    solve(ink, x, upper, [affine(1), sigmoid()], "sigmoid", mse, explained)
    solve(ink, x, upper, [affine(1)], "sigmoid", binary, explained_by_sigmoid)


if __name__ == "__main__":
    main()
