"""Seed 003: 784-300-100-10 with ReLU, an L2 penalty and shuffled batches, on all of MNIST.

All 70,000 images, their pixels 0 to 255 as they are; the loss of each epoch:

    python examples/seed_003_l2_net.py --epochs 20
    python examples/seed_003_l2_net.py --epochs 20 --sparse

Four pixels of five are 0: --sparse trains from a SciPy sparse matrix, to the same bits.

The seed fixes no random numbers and prints no figures. Here its draws come in its own order from
np.random.RandomState(--seed): after np.random.seed of the same number the seed's program prints
the same losses. Two seconds per epoch.
"""

import argparse
from itertools import pairwise

import numpy as np

import cnn_core as cc

LAYER_UNITS = [784, 300, 100, 10]
BATCH, ALPHA, LEARNING_RATE = 200, 0.0001, 0.001


class ClippedCrossEntropy(cc.Loss):
    """The mean over the batch, of probabilities cut at 1e-10 and 1 - 1e-10; the gradient of the
    sum, without the cut."""

    def forward(self, scores: np.ndarray, t: np.ndarray) -> float:
        y = cc.ops.softmax_forward(scores)
        self.difference = y - t
        return float(-(t * np.log(np.clip(y, 1e-10, 1 - 1e-10))).sum() / len(t))

    def backward(self) -> np.ndarray:
        return self.difference


class Penalty(cc.Callback):
    """Adds up alpha/2 of the squares of all weights, as they are before each update."""

    def on_epoch_begin(self, trainer: cc.Trainer) -> None:
        self.sum, self.before = 0.0, self.of(trainer.network)

    def on_step_end(self, trainer: cc.Trainer) -> None:
        self.sum += self.before
        self.before = self.of(trainer.network)

    def of(self, net: cc.Sequential) -> float:
        return ALPHA / 2 * sum(np.vdot(net.params[W], net.params[W]) for W in ("W1", "W2", "W3"))


def network(random: np.random.RandomState) -> cc.Sequential:
    """Weights uniform within sqrt(6 / (inputs + outputs)).

    Quirk: the program draws biases in the same way and updates them, but never adds them to
    anything. Here they are drawn, for the sake of the random stream, and stay 0.
    """
    layers: list[cc.Layer] = []
    for inputs, outputs in pairwise(LAYER_UNITS):
        bound = np.sqrt(6 / (inputs + outputs))
        weights = random.uniform(-bound, bound, (inputs, outputs))
        random.uniform(-bound, bound, outputs)
        layers += [cc.Affine(outputs, weights), cc.ReLU()]
    return cc.Sequential(
        layers[:-1],
        input_shape=(784,),
        loss=ClippedCrossEntropy(),
        dtype="float64",
        input_scale=1,  # the pixels as they are
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="default: 20, as the program")
    parser.add_argument("--images", type=int, default=70_000, help="default: 70000, all")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--sparse", action="store_true", help="a sparse matrix; needs SciPy")
    arguments = parser.parse_args()
    n_images = arguments.images
    if not 1 <= n_images <= 70_000:
        parser.error(f"--images: expected 1 to 70000, got {n_images}")

    both = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    X, y = (np.concatenate(parts)[:n_images] for parts in zip(*both, strict=True))
    if arguments.sparse:
        from scipy.sparse import csr_array

        X = csr_array(X)
    print("X shape:", X.shape)
    print("y shape:", y.shape)
    print("====>layer_units:", LAYER_UNITS)
    print("====>n_layers: ", len(LAYER_UNITS))

    random = np.random.RandomState(arguments.seed)
    net, penalty = network(random), Penalty()
    # Quirk: the gradient of a batch, a sum, is divided by the number of all images.
    sgd = cc.SGD(
        LEARNING_RATE / n_images,
        weight_decay=ALPHA,
        lr_multipliers={"b1": 0, "b2": 0, "b3": 0},
    )
    trainer = cc.Trainer(net, sgd, callbacks=[penalty])
    for it in range(arguments.epochs):
        order = np.arange(n_images)
        random.shuffle(order)
        X, y = X[order], y[order]
        history = trainer.fit(X, y, batch_size=BATCH, sampling="sequential", verbose=False)
        loss = history["loss"][0] + penalty.sum / n_images
        print(f"interation: {it}, loss={loss:.8f}", flush=True)


if __name__ == "__main__":
    main()
