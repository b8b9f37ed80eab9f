"""Seed 002: the same as layers, the gradient check on three images, and its 17 lines."""

import numpy as np
import pytest

import cnn_core as cc
from seed_figures import NUMBER, check_seventeen_lines, numbers, printed

# Mean absolute differences between the two gradients.
DIFFERENCES = printed("saito_chapter05_gradient_check")


def test_the_gradient_check(relu_lines):
    """The differences come from the 1e-7 that the book adds to y before it takes the logarithm.

    log(y + 1e-7) has the derivative (1 - 1e-7 / y) / y: each row's gradient (y - t) / N by the
    scores is off by (y - t) / N * 1e-7 / y_right. Before training all y are 0.1, so that db2, the
    sum over rows of the classes 5, 0 and 4, is off by |3 * 0.1 - 1| / 3 * 1e-6 in those three and
    by 0.1 * 1e-6 in the other seven: 1.4e-7 on average, as printed. The other three depend on the
    weights drawn.
    """
    by_hand = (3 * abs(3 * 0.1 - 1) / 3 + 7 * 0.1) / 10 * 1e-7 / 0.1
    assert numbers(DIFFERENCES)[3] == pytest.approx(by_hand, rel=0.01)
    lines = relu_lines[:4]
    assert [NUMBER.sub("#", a) for a in lines] == [NUMBER.sub("#", b) for b in DIFFERENCES]
    ratios = numbers(lines) / numbers(DIFFERENCES)
    assert 0.98 < ratios[3] < 1.02
    assert ratios.min() > 0.5 and ratios.max() < 2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_the_addend_the_gradients_are_nearer(mnist, seed):
    (x_train, t_train), _ = mnist
    x, t = x_train[:3], t_train[:3]
    net = cc.models.two_layer_net(activation="relu", dtype="float64", seed=seed)
    numerical, gradient = net.numerical_gradient(x, t), net.gradient(x, t)
    for line in DIFFERENCES:
        name, most = line.split(":")
        assert np.abs(gradient[name]).max() > 1e-3  # there is something to compare
        assert np.abs(gradient[name] - numerical[name]).mean() <= float(most) / 100, name


def test_layers_in_an_ordered_dict_with_the_loss_at_the_end(mnist):
    (x_train, t_train), _ = mnist
    x, t = x_train[:3].astype(np.float64), t_train[:3]
    net = cc.models.two_layer_net(activation="relu", dtype="float64")
    layers = {
        "Affine1": cc.Affine(50, net.params["W1"], net.params["b1"]),
        "Relu1": cc.ReLU(),
        "Affine2": cc.Affine(10, net.params["W2"], net.params["b2"]),
    }
    y = x
    for layer in layers.values():
        y = layer.forward(y)
    last = cc.SoftmaxCrossEntropy()
    assert last.forward(y, t) == net.loss(x, t)
    dout = last.backward()
    for layer in reversed(layers.values()):
        dout = layer.backward(dout)
    gradient = net.gradient(x, t)
    assert np.array_equal(layers["Affine1"].grads["W"], gradient["W1"])
    assert np.array_equal(layers["Affine2"].grads["b"], gradient["b2"])


def test_the_seventeen_lines(relu_lines):
    check_seventeen_lines(relu_lines[-17:], printed("saito_chapter05_layers"))
