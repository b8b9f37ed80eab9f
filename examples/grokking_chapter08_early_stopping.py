"""Grokking Deep Learning, chapter 8: early stopping, the cheapest regularization.

The net of grokking_chapter08_mnist.py, with the true derivative of its ReLU. After each epoch it is
tried on 1,000 images that it does not learn from; when it has not become better on them for ten
epochs, the training ends and the best weights come back:

    python examples/grokking_chapter08_early_stopping.py

For comparison, the same net after all 350 epochs.
"""

import argparse

import numpy as np

import cnn_core as cc

IMAGES, HIDDEN_SIZE, ALPHA = 1000, 40, 0.005


def train(epochs: int, callbacks: list[cc.Callback]) -> cc.Trainer:
    """Train on the first 1,000 images, try on the second."""
    (x, t), _ = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    random = np.random.RandomState(1)  # the stream of np.random.seed(1)
    weights_0_1 = 0.2 * random.random((784, HIDDEN_SIZE)) - 0.1
    weights_1_2 = 0.2 * random.random((HIDDEN_SIZE, 10)) - 0.1
    net = cc.Sequential(
        [cc.Affine(HIDDEN_SIZE, weights_0_1), cc.ReLU(), cc.Affine(10, weights_1_2)],
        input_shape=(784,),
        loss=cc.SumSquaredError(),
        dtype="float64",
    )
    trainer = cc.Trainer(net, cc.SGD(lr=ALPHA, lr_multipliers={"b1": 0, "b2": 0}), callbacks)
    trainer.fit(
        x[:IMAGES],
        t[:IMAGES],
        epochs=epochs,
        batch_size=1,
        sampling="sequential",
        validation_data=(x[IMAGES : 2 * IMAGES], t[IMAGES : 2 * IMAGES]),
        verbose=False,
    )
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=350, help="at most; default: 350")
    epochs = parser.parse_args().epochs
    stopping = cc.EarlyStopping(patience=10)
    _, (x_test, t_test) = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    for name, callbacks in (("early stopping", [stopping]), ("all epochs", [])):
        trainer = train(epochs, callbacks)
        test_loss, test_correct = trainer.network.evaluate(x_test, t_test)
        print(
            f"{name:<14}  {trainer.epoch:>3} epochs"
            f"  Test_Error: {2 * test_loss:.3f}  Test_Correct: {test_correct}"
        )
    print(f"the best epoch: {stopping.best_epoch}")


if __name__ == "__main__":
    main()
