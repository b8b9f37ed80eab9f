"""Seed 000: the two-layer network with sigmoid, its gradients and its 17 lines."""

import numpy as np

import cnn_core as cc
import reference_network
from seed_figures import SIGMOID_LINES, check_lines, train

WORDS = ["affine 100", "sigmoid", "affine 10"]


def random_targets():
    """The seed's stand-ins for images and labels: rows that do not even sum to 1."""
    rng = np.random.default_rng(0)
    return rng.random((100, 784)), rng.random((100, 10))


def test_the_shapes_that_are_printed():
    net = cc.models.two_layer_net(784, 100, 10, activation="sigmoid")
    assert net.params["W1"].shape == (784, 100)
    assert net.params["b1"].shape == (100,)
    assert net.params["W2"].shape == (100, 10)
    assert net.params["b2"].shape == (10,)
    assert net.n_params == 79510


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


def test_the_seventeen_lines(mnist, threads):
    threads(1)  # the same bits as with more, and no waiting for a core that others use
    check_lines(train("sigmoid", mnist), SIGMOID_LINES)
