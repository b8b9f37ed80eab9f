"""Deep Learning from Scratch (Saito), chapter 4: the two-layer net with sigmoid; seed 000.

Its shapes, its gradient for random images, the same numerically, and its training on MNIST:

    python examples/saito_chapter04_two_layer_net.py

The seed fixes no random numbers: these are other draws of the same. Ten seconds.
"""

import argparse
import time

import numpy as np

import cnn_core as cc


class LossOfTheSeed(cc.Loss):
    """Cross entropy with the class of the largest target, but the gradient (y - t) / N.

    Where each row has one class that is the gradient of SoftmaxCrossEntropy. The seed's random
    targets do not even sum to 1; then it is the gradient of no loss.
    """

    def forward(self, scores: np.ndarray, t: np.ndarray) -> float:
        self.y, self.t = cc.ops.softmax_forward(scores), t
        right = self.y[np.arange(len(t)), t.argmax(axis=1)]
        return float(-np.log(right + 1e-7).mean())

    def backward(self) -> np.ndarray:
        return (self.y - self.t) / len(self.t)


def two_layer_net(loss: cc.Loss, seed: int) -> cc.Sequential:
    return cc.models.two_layer_net(
        784, 100, 10, activation="sigmoid", loss=loss, dtype="float64", seed=seed
    )


def show_gradients(seed: int) -> None:
    net = two_layer_net(LossOfTheSeed(), seed)
    for name in ("W1", "b1", "W2", "b2"):
        print(net.params[name].shape)
    random = np.random.RandomState(seed)
    x, t = random.random((100, 784)), random.random((100, 10))
    print(net.gradient(x, t)["W1"])

    # The seed leaves the numerical gradient out: it takes more than a minute there.
    net, labels = two_layer_net(cc.SoftmaxCrossEntropy(), seed), t.argmax(axis=1)
    began = time.perf_counter()
    numerical = net.numerical_gradient(x, labels)
    seconds = time.perf_counter() - began
    gradient = net.gradient(x, labels)
    most = max(np.abs(numerical[name] - gradient[name]).max() for name in gradient)
    print(f"numerical gradient of {net.n_params:,} parameters: {seconds:.2f} s, off by {most:.1e}")


def train(seed: int) -> None:
    (x_train, t_train), (x_test, t_test) = cc.datasets.load_mnist(one_hot_label=True)
    net = cc.models.two_layer_net(784, 50, 10, activation="sigmoid", seed=seed)
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
    for train_acc, test_acc in zip(history["accuracy"], history["val_accuracy"], strict=True):
        print(f"train acc, test acc | {train_acc}, {test_acc}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    seed = parser.parse_args().seed
    show_gradients(seed)
    train(seed)


if __name__ == "__main__":
    main()
