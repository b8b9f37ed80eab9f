"""The program of seed 003 in NumPy: prints the loss of each epoch, all digits.

    python seed_003_program.py N_IMAGES EPOCHS

A program of its own, so that the test can give NumPy's products one thread.
"""

import sys
from itertools import pairwise

import numpy as np

import cnn_core as cc

ALPHA, RATE, BATCH = 0.0001, 0.001, 200


def main(n_images, epochs):
    both = cc.datasets.load_mnist(normalize=False, one_hot_label=True)
    X, y = (np.concatenate(parts)[:n_images] for parts in zip(*both, strict=True))
    random, W = np.random.RandomState(0), []
    for fans in pairwise([784, 300, 100, 10]):
        bound = np.sqrt(6.0 / sum(fans))
        W.append(random.uniform(-bound, bound, fans))
        random.uniform(-bound, bound, fans[1])  # biases, which the program never adds
    for _ in range(epochs):
        order = np.arange(n_images)
        random.shuffle(order)
        X, y = X[order], y[order]
        batches = (slice(start, start + BATCH) for start in range(0, n_images, BATCH))
        print(sum(step(W, X[rows], y[rows], n_images) for rows in batches))


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
        if layer:
            delta = (delta @ W[layer].T) * (a[layer] != 0)
    for weights, gradient in zip(W, gradients, strict=True):
        weights -= RATE * gradient / n_images
    return loss / n_images


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
