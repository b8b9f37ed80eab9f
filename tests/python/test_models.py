"""The networks of the books, by name."""

import numpy as np
import pytest

import cnn_core as cc


def kinds(net):
    return [type(layer).__name__ for layer in net.layers]


def test_two_layer_net_is_the_books():
    net = cc.models.two_layer_net()
    assert kinds(net) == ["Affine", "ReLU", "Affine"]
    shapes = {name: value.shape for name, value in net.params.items()}
    assert shapes == {"W1": (784, 50), "b1": (50,), "W2": (50, 10), "b2": (10,)}
    assert net.params["W1"].std() == pytest.approx(0.01, rel=0.02)
    assert net.params["W2"].std() == pytest.approx(0.01, rel=0.2)
    assert not net.params["b1"].any()
    assert not net.params["b2"].any()
    assert net.dtype == np.float32
    assert type(net.loss_function) is cc.SoftmaxCrossEntropy


def test_arguments_reach_the_network():
    loss = cc.MeanSquaredError()
    net = cc.models.two_layer_net(
        20, 7, 3, activation="sigmoid", weight_init_std=1.0, loss=loss, dtype="float64", seed=4
    )
    assert kinds(net) == ["Affine", "Sigmoid", "Affine"]
    assert (net.input_shape, net.output_shape, net.seed) == ((20,), (3,), 4)
    assert net.dtype == np.float64
    assert net.loss_function is loss
    assert 0.7 < net.params["W1"].std() < 1.3


@pytest.mark.parametrize(
    ("activation", "variance"),
    [("relu", 2 / 200), ("leaky_relu", 2 / 200), ("tanh", 2 / 300), ("sigmoid", 2 / 300)],
)
def test_multi_layer_net_begins_with_weights_that_suit_its_activation(activation, variance):
    net = cc.models.multi_layer_net(200, [100, 100], 10, activation=activation)
    name = kinds(net)[1]
    assert kinds(net) == ["Affine", name, "Affine", name, "Affine"]
    assert name.lower() == activation.replace("_", "")
    assert net.params["W1"].var() == pytest.approx(variance, rel=0.05)


def test_multi_layer_net_takes_an_initializer_and_any_depth():
    net = cc.models.multi_layer_net(5, [], 2, initializer=cc.Uniform(1, 2))
    assert kinds(net) == ["Affine"]
    assert net.params["W1"].min() >= 1


def test_the_seed_alone_decides():
    nets = [cc.models.multi_layer_net(9, [8], 3, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(nets[0].flat_params, nets[1].flat_params)
    assert not np.array_equal(nets[0].flat_params, nets[2].flat_params)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'swish'"):
        cc.models.two_layer_net(activation="swish")
    with pytest.raises(ValueError, match="std"):
        cc.models.two_layer_net(weight_init_std=-1)
    with pytest.raises(TypeError, match=r"hidden_sizes: expected a list of integers, got 50"):
        cc.models.multi_layer_net(9, 50, 3)
    with pytest.raises(TypeError, match=r"units: expected an integer, got 1.5"):
        cc.models.multi_layer_net(9, [1.5], 3)
