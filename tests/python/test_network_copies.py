"""Copies of a network, and figures of networks with one output or with NaN in them."""

import copy

import numpy as np
import pytest

import cnn_core as cc


def conv_net():
    layers = [cc.Conv2D(3, 3), cc.BatchNorm(), cc.ReLU(), cc.Flatten(), cc.Dropout(0.3)]
    return cc.Sequential([*layers, cc.Affine(4)], input_shape=(2, 6, 6), dtype="float64", seed=3)


def test_a_deep_copy_is_a_network_of_its_own():
    net, rng = conv_net(), np.random.default_rng(0)
    x, t = rng.standard_normal((9, 2, 6, 6)), rng.integers(0, 4, 9)
    cc.Trainer(net, cc.SGD(0.1)).fit(x, t, epochs=2, batch_size=3, verbose=False)
    before = net.predict(x)
    twin = copy.deepcopy(net)
    assert np.array_equal(twin.predict(x), before)
    gradient = net.gradient(x, t, training=False)
    for name, value in twin.gradient(x, t, training=False).items():
        assert np.array_equal(value, gradient[name])
    cc.Trainer(twin, cc.SGD(0.5)).step(x, t)
    assert not np.array_equal(twin.predict(x), before)
    assert np.array_equal(net.predict(x), before)
    twin.params["W1"][...] = 0
    assert not twin.layers[0].params["W"].any() and net.params["W1"].any()


def test_a_row_with_nan_is_never_correct():
    net = cc.models.two_layer_net(6, 5, 4)
    net.params["W1"][...] = np.nan
    x, t = np.ones((8, 6), np.float32), np.zeros(8, int)
    assert net.accuracy(x, t) == 0


@pytest.mark.parametrize(
    ("loss", "threshold"), [(cc.BinaryCrossEntropy(), 0.0), (cc.MeanSquaredError(), 0.5)]
)
def test_one_output_tells_two_classes_apart(loss, threshold):
    net = cc.Sequential([cc.Affine(1)], input_shape=(1,), loss=loss, dtype="float64")
    net.params["W1"][...] = 1
    x = np.array([[-1.0], [0.2], [0.4], [0.7], [2.0]])
    t = np.array([[0.0], [1.0], [0.0], [0.0], [1.0]])
    predicted = x[:, 0] > threshold
    matrix = net.confusion_matrix(x, t)
    for true in (0, 1):
        for guess in (0, 1):
            assert matrix[true, guess] == np.sum((t[:, 0] == true) & (predicted == guess))
    assert net.accuracy(x, t) == np.mean(predicted == t[:, 0])
