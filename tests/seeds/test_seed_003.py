"""Seed 003: 784-300-100-10 with L2; its program prints a loss per epoch, but the seed no figures.

So the figures here are those of the program itself, written out in NumPy.
"""

from itertools import pairwise

import numpy as np
import pytest

import cnn_core as cc
from seed_figures import numbers, run

UNITS = [784, 300, 100, 10]
ALPHA, RATE = 0.0001, 0.001


def losses_of_the_program(n_images, epochs):
    """The program, without its biases: it draws and updates them, but never adds them."""
    (x, t), (x_test, t_test) = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    X = np.concatenate([x, x_test])[:n_images]
    y = np.concatenate([t, t_test])[:n_images]
    random, W = np.random.RandomState(0), []
    for fans in pairwise(UNITS):
        bound = np.sqrt(6.0 / sum(fans))
        W.append(random.uniform(-bound, bound, fans))
        random.uniform(-bound, bound, fans[1])
    for _ in range(epochs):
        order = np.arange(n_images)
        random.shuffle(order)
        X, y = X[order], y[order]
        yield sum(
            step(W, X[i : i + 200], y[i : i + 200], n_images) for i in range(0, n_images, 200)
        )


def step(W, x, t, n_images):
    """One update of all weights; returns the batch's part of the epoch's loss."""
    a = [x.astype(np.float64)]
    for layer, weights in enumerate(W):
        z = a[-1] @ weights
        a.append(np.maximum(z, 0) if layer < 2 else z)
    y = np.exp(a[3] - a[3].max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    loss = -(t * np.log(np.clip(y, 1e-10, 1 - 1e-10))).sum()
    loss += 0.5 * ALPHA * sum((weights**2).sum() for weights in W)
    delta, gradients = y - t, []
    for layer in (2, 1, 0):
        gradients.insert(0, a[layer].T @ delta + ALPHA * W[layer])
        delta = (delta @ W[layer].T) * (a[layer] != 0)
    for weights, gradient in zip(W, gradients, strict=True):
        weights -= RATE * gradient / n_images
    return loss / n_images


# The whole of MNIST, whose last batch is full, and a part with a remainder of 50 rows.
@pytest.mark.parametrize(("n_images", "epochs"), [(70_000, 1), (10_050, 3)])
def test_the_loss_of_each_epoch(n_images, epochs):
    lines = run("seed_003_l2_net", "--epochs", str(epochs), "--images", str(n_images))
    assert lines[:4] == [
        f"X shape: ({n_images}, 784)",
        f"y shape: ({n_images}, 10)",
        "====>layer_units: [784, 300, 100, 10]",
        "====>n_layers:  4",
    ]
    losses = [*enumerate(losses_of_the_program(n_images, epochs))]
    # All eight digits, of which the last may be rounded the other way.
    figures = numbers(lines[4:]).reshape(epochs, 2)
    np.testing.assert_allclose(figures, losses, rtol=0, atol=1e-8)
