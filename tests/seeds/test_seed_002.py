"""Seed 002: the same as layers, the gradient check on three images, and its 17 lines."""

import numpy as np
import pytest

import cnn_core as cc
from seed_figures import RELU_LINES, check_lines, train

# Mean absolute differences between the two gradients, as printed.
PRINTED = {
    "W1": 4.785245830260185e-10,
    "b1": 2.9293192807511822e-09,
    "W2": 6.450463716742543e-09,
    "b2": 1.3963579606618426e-07,
}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_gradient_check(mnist, seed):
    (x_train, t_train), _ = mnist
    x, t = x_train[:3], t_train[:3]
    net = cc.models.two_layer_net(activation="relu", dtype="float64", seed=seed)
    numerical, gradient = net.numerical_gradient(x, t), net.gradient(x, t)
    assert list(numerical) == list(gradient) == list(PRINTED)
    for name, most in PRINTED.items():
        assert np.abs(gradient[name]).max() > 1e-3  # there is something to compare
        assert np.abs(gradient[name] - numerical[name]).mean() <= most, name


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


def test_the_seventeen_lines(mnist, threads):
    threads(1)  # the same bits as with more, and no waiting for a core that others use
    check_lines(train("relu", mnist), RELU_LINES)
