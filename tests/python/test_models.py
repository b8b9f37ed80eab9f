"""The networks of the books, by name: their layers, and that their gradients are right."""

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


IMAGE_NETS = {
    "grokking_conv_net": (
        ["Conv2D", "Tanh", "Flatten", "Dropout", "Affine"],
        {"W1": (16, 1, 3, 3), "b1": (16,), "W2": (16 * 26 * 26, 10), "b2": (10,)},
    ),
    "simple_conv_net": (
        ["Conv2D", "ReLU", "MaxPool2D", "Flatten", "Affine", "ReLU", "Affine"],
        {
            "W1": (30, 1, 5, 5),
            "b1": (30,),
            "W2": (30 * 12 * 12, 100),
            "b2": (100,),
            "W3": (100, 10),
            "b3": (10,),
        },
    ),
    "quick_conv_net": (
        ["Conv2D", "ReLU", "Conv2D", "ReLU", "MaxPool2D", "Flatten", "Affine", "ReLU", "Affine"],
        {
            "W1": (16, 1, 5, 5),
            "b1": (16,),
            "W2": (32, 16, 3, 3),
            "b2": (32,),
            "W3": (32 * 6 * 6, 64),
            "b3": (64,),
            "W4": (64, 10),
            "b4": (10,),
        },
    ),
    "lenet5": (
        [*["Conv2D", "ReLU", "MaxPool2D"] * 2, "Flatten", *["Affine", "ReLU"] * 2, "Affine"],
        {
            "W1": (6, 1, 5, 5),
            "b1": (6,),
            "W2": (16, 6, 5, 5),
            "b2": (16,),
            "W3": (400, 120),
            "b3": (120,),
            "W4": (120, 84),
            "b4": (84,),
            "W5": (84, 10),
            "b5": (10,),
        },
    ),
    "deep_conv_net": (
        [
            *["Conv2D", "ReLU", "Conv2D", "ReLU", "MaxPool2D"] * 3,
            *["Flatten", "Affine", "ReLU", "Dropout", "Affine", "Dropout"],
        ],
        {
            "W1": (16, 1, 3, 3),
            "W2": (16, 16, 3, 3),
            "W3": (32, 16, 3, 3),
            "W4": (32, 32, 3, 3),
            "W5": (64, 32, 3, 3),
            "W6": (64, 64, 3, 3),
            "W7": (64 * 4 * 4, 50),
            "W8": (50, 10),
            **{f"b{i}": (n,) for i, n in enumerate((16, 16, 32, 32, 64, 64, 50, 10), 1)},
        },
    ),
}


@pytest.mark.parametrize("name", IMAGE_NETS)
def test_the_networks_for_images_are_the_books(name):
    expected_kinds, expected_shapes = IMAGE_NETS[name]
    net = getattr(cc.models, name)()
    assert kinds(net) == expected_kinds
    assert {key: value.shape for key, value in net.params.items()} == expected_shapes
    assert (net.input_shape, net.output_shape, net.dtype) == ((1, 28, 28), (10,), np.float32)
    assert type(net.loss_function) is cc.SoftmaxCrossEntropy


@pytest.mark.parametrize("name", IMAGE_NETS)
def test_arguments_reach_the_networks_for_images(name):
    loss = cc.SoftmaxCrossEntropy("sum")
    net = getattr(cc.models, name)((3, 20, 24), 7, loss=loss, dtype="float64", seed=4)
    assert (net.input_shape, net.output_shape, net.seed) == ((3, 20, 24), (7,), 4)
    assert net.dtype == np.float64 and net.loss_function is loss
    other = getattr(cc.models, name)((3, 20, 24), 7, dtype="float64", seed=5)
    assert not np.array_equal(net.flat_params, other.flat_params)


def test_the_initial_weights_are_the_books():
    net = cc.models.grokking_conv_net()
    assert 0.009 < abs(net.params["W1"]).max() <= 0.01
    assert 0.099 < abs(net.params["W2"]).max() <= 0.1
    assert cc.models.simple_conv_net(weight_init_std=0.5).params["W2"].std() == pytest.approx(
        0.5, rel=0.01
    )
    deep = cc.models.deep_conv_net(dropout=0.3, hidden_size=20)
    fans = {2: 16 * 9, 3: 16 * 9, 4: 32 * 9, 5: 32 * 9, 6: 64 * 9, 7: 64 * 16}
    for number, fan_in in fans.items():
        assert deep.params[f"W{number}"].var() == pytest.approx(2 / fan_in, rel=0.1)
    assert [layer.rate for layer in deep.layers if isinstance(layer, cc.Dropout)] == [0.3, 0.3]
    assert cc.models.lenet5(activation="tanh").layers[1].activation == "tanh"


# ---- gradients -----------------------------------------------------------------------------------

# A weight whose change makes a ReLU or a maximum switch has no central difference: steps are small,
# and the weights and biases so large that few values lie near a kink.
H = 1e-6
TOLERANCE = 1e-6  # of the largest element


def batch_for(net, n=3, seed=0):
    rng = np.random.default_rng(seed)
    for name, value in net.params.items():
        if name[0] == "b":
            value[...] = rng.uniform(0.05, 0.15, value.shape)
    return rng.random((n, *net.input_shape)), rng.integers(0, 10, n)


def assert_gradients_agree(net, backward, numerical):
    for name in net.params:
        largest = np.abs(numerical[name]).max()
        assert largest > 0, name
        difference = np.abs(backward[name] - numerical[name]).max()
        assert difference <= TOLERANCE * largest, (name, difference, largest)


NETS = {
    "two_layer_net": lambda: cc.models.two_layer_net(activation="sigmoid", dtype="float64"),
    "multi_layer_net": lambda: cc.models.multi_layer_net(dtype="float64"),
    "grokking_conv_net": lambda: cc.models.grokking_conv_net(dtype="float64"),
    "simple_conv_net": lambda: cc.models.simple_conv_net(weight_init_std=0.2, dtype="float64"),
    "quick_conv_net": lambda: cc.models.quick_conv_net(dtype="float64"),
    "lenet5": lambda: cc.models.lenet5(dtype="float64"),
}


@pytest.mark.parametrize("name", NETS)
def test_back_propagation_equals_the_numerical_gradient(name):
    net = NETS[name]()
    x, t = batch_for(net)
    numerical = net.numerical_gradient(x, t, h=H)
    assert_gradients_agree(net, net.gradient(x, t), numerical)


def test_back_propagation_of_the_deep_net_equals_the_numerical_gradient_where_it_is_tried():
    net = cc.models.deep_conv_net(dtype="float64")
    x, t = batch_for(net)
    rng = np.random.default_rng(1)
    backward = net.gradient(x, t)
    for name, value in net.params.items():
        flat, gradient = value.reshape(-1), backward[name].reshape(-1)
        # The largest, and some that are drawn: a wrong index shows in most of them.
        for place in (np.abs(gradient).argmax(), *rng.integers(0, flat.size, 12)):
            one = flat[place : place + 1]
            found = cc.numerical_gradient(lambda _: net.loss(x, t, training=True), one, H)
            largest = np.abs(gradient).max()
            assert largest > 0
            assert abs(gradient[place] - found[0]) <= TOLERANCE * largest, (name, place)


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
