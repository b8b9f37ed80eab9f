"""Deep Learning from Scratch (Saito), chapter 5: Affine, ReLU, SoftmaxWithLoss; seed 002.

The mean differences between the numerical gradient and back-propagation on three images, and the
training of the two-layer net with ReLU:

    python examples/saito_chapter05_layers.py

The seed fixes no random numbers: these are other draws of the same. Ten seconds.
"""

import argparse

import numpy as np

import cnn_core as cc


class SoftmaxWithLoss(cc.Loss):
    """The book's: 1e-7 is added to the probability before its logarithm is taken.

    The gradient (y - t) / N knows nothing of it, and where y is about 0.1, as before training, the
    loss's own is 1e-7 / 0.1 smaller: that is what the gradient check sees in b2.
    """

    def forward(self, scores: np.ndarray, t: np.ndarray) -> float:
        self.y, self.t = cc.ops.softmax_forward(scores), t
        right = self.y[np.arange(len(t)), t.argmax(axis=1)]
        return float(-np.log(right + 1e-7).mean())

    def backward(self) -> np.ndarray:
        return (self.y - self.t) / len(self.t)


def two_layer_net(loss: cc.Loss, dtype: str, seed: int) -> cc.Sequential:
    weights = cc.Normal(std=0.01)
    return cc.Sequential(
        [cc.Affine(50, weights), cc.ReLU(), cc.Affine(10, weights)],
        input_shape=(784,),
        loss=loss,
        dtype=dtype,
        seed=seed,
    )


def check_gradient(loss: cc.Loss, seed: int) -> None:
    (x_train, t_train), _ = cc.datasets.load_mnist(one_hot_label=True)
    net = two_layer_net(loss, "float64", seed)
    numerical = net.numerical_gradient(x_train[:3], t_train[:3])
    gradient = net.gradient(x_train[:3], t_train[:3])
    for name in numerical:
        print(f"{name}:{np.abs(gradient[name] - numerical[name]).mean()}")


def train(seed: int) -> None:
    (x_train, t_train), (x_test, t_test) = cc.datasets.load_mnist(one_hot_label=True)
    net = two_layer_net(cc.SoftmaxCrossEntropy(), "float32", seed)
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
        print(train_acc, test_acc)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    seed = parser.parse_args().seed
    check_gradient(SoftmaxWithLoss(), seed)
    print("with cc.SoftmaxCrossEntropy, the compiled loss, which adds nothing:")
    check_gradient(cc.SoftmaxCrossEntropy(), seed)
    train(seed)


if __name__ == "__main__":
    main()
