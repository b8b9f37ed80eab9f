"""Seed 000: the two-layer network with sigmoid, its gradients and its 17 lines."""

import re

import numpy as np

import cnn_core as cc
import reference_network
from seed_figures import check_seventeen_lines, load, numbers, printed

NAME = "saito_chapter04_two_layer_net"
WORDS = ["affine 100", "sigmoid", "affine 10"]


def random_targets():
    """The seed's stand-ins for images and labels: rows that do not even sum to 1."""
    rng = np.random.default_rng(0)
    return rng.random((100, 784)), rng.random((100, 10))


def test_the_shapes_that_are_printed(sigmoid_lines):
    assert sigmoid_lines[:4] == printed("saito_chapter04_shapes")


def test_the_gradient_that_is_printed():
    """The 36 numbers cannot come out: W and x are random, and no seed is fixed. Their size can.

    Column j of dW1 is sum_n x_n da_nj with da_nj about 1/4 sum_k (y - t)_nk W2_jk / 100. x is 1/2
    on average, y 1/10, t 1/2; a sum of ten W2 has the width 0.01 sqrt(10). So a column's mean has
    the width 1/2 1/4 0.4 0.01 sqrt(10) = 1.6e-3, and the rows differ from it by
    1/4 0.01 sqrt(10 (0.4^2 + 1/12)) sqrt(1/12) / sqrt(100) = 1.1e-4.
    """
    module, draws = load(NAME), []
    for loss in (module.LossOfTheSeed(), cc.SoftmaxCrossEntropy()):
        for seed in range(40):
            net, random = module.two_layer_net(loss, seed), np.random.RandomState(seed)
            gradient = net.gradient(random.random((100, 784)), random.random((100, 10)))["W1"]
            draws.append(mean_and_spread(gradient[np.ix_(CORNERS, CORNERS)]))
    seeds, correct = np.array(draws).reshape(2, 40, 2)
    figures = mean_and_spread(numbers(printed("saito_chapter04_gradient")).reshape(6, 6))
    assert (seeds.min(axis=0) < figures).all() and (figures < seeds.max(axis=0)).all()
    # The true gradient for targets that sum to about 5 is smaller: (5 y - t) / N, not (y - t) / N.
    assert (figures > correct.max(axis=0)).all()


CORNERS = [0, 1, 2, -3, -2, -1]  # what NumPy prints of a long axis


def mean_and_spread(dW):
    """The root mean square of the columns' means, and of the differences from them."""
    means = dW.mean(axis=0)
    return np.sqrt((means**2).mean()), (dW - means).std()


def test_the_numerical_gradient_takes_no_minute(sigmoid_lines):
    (line,) = (line for line in sigmoid_lines if line.startswith("numerical"))
    text = r"numerical gradient of 79,510 parameters: (\S+) s, off by (\S+)"
    seconds, difference = map(float, re.fullmatch(text, line).groups())
    assert seconds < 60 and difference < 1e-9


def test_the_gradient_for_random_images_and_labels():
    x, t = random_targets()
    net = cc.models.two_layer_net(784, 100, 10, activation="sigmoid", dtype="float64")
    gradient = net.gradient(x, t)
    expected = reference_network.run(WORDS, net.params, x, t, "softmax_cross_entropy")[1]
    reference_network.assert_gradients(gradient, expected, "float64", tolerance=1e-12)


def test_the_seeds_own_short_cut_needs_rows_that_sum_to_one():
    x, t = random_targets()
    t /= t.sum(axis=1, keepdims=True)
    net = cc.models.two_layer_net(784, 100, 10, activation="sigmoid", dtype="float64")
    # The seed writes (y - t) / N for the gradient of the loss by the scores.
    y = cc.ops.softmax_forward(net.predict(x))
    np.testing.assert_allclose(
        net.gradient(x, t)["b2"], ((y - t) / 100).sum(axis=0), rtol=0, atol=1e-14
    )


def test_the_numerical_gradient_of_all_parameters():
    x, t = random_targets()
    t /= t.sum(axis=1, keepdims=True)
    net = cc.models.two_layer_net(784, 100, 10, activation="sigmoid", dtype="float64")
    gradient, numerical = net.gradient(x, t), net.numerical_gradient(x, t)
    for name in gradient:
        np.testing.assert_allclose(numerical[name], gradient[name], rtol=0, atol=1e-9)


def test_the_seventeen_lines(sigmoid_lines):
    check_seventeen_lines(sigmoid_lines[-17:], printed(NAME))
