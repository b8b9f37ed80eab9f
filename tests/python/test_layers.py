"""Layers by themselves: values, gradients, shapes, configurations and errors."""

import copy
import warnings

import numpy as np
import pytest

import cnn_core as cc
import reference
from cnn_core import layers
from reference import DTYPES, Unchanged, assert_close, check_gradient, random_array
from reference_network import DoubledAffine, Scale, Sine

SLOPE = 0.2
ELEMENTWISE = {
    "sigmoid": cc.Sigmoid,
    "tanh": cc.Tanh,
    "relu": cc.ReLU,
    "leaky_relu": lambda: cc.LeakyReLU(SLOPE),
    "softmax": cc.Softmax,
}
SHAPES = ((1, 1), (2, 3), (13, 10), (100, 50), (4, 3, 5), (2, 3, 4, 5))


def more(name):
    return (SLOPE,) if name == "leaky_relu" else ()


def affine(rng, i, o, dtype):
    """An Affine with random parameters, and the parameters."""
    W, b = random_array(rng, (i, o), dtype), random_array(rng, (o,), dtype)
    return cc.Affine(o, W, b), W, b


# ---- values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_layer_follows_the_reference(name, dtype):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        layer = ELEMENTWISE[name]()
        x, dout = random_array(rng, shape, dtype), random_array(rng, shape, dtype)
        with Unchanged(x, dout):
            y = layer.forward(x)
            dx = layer.backward(dout)
        expected = getattr(reference, f"{name}_forward")(x, *more(name))
        back = getattr(reference, f"{name}_backward")(dout, expected, *more(name))
        assert_close(y, expected, dtype, note=shape)
        # Softmax subtracts the sum of dout y, whose terms are as large as the largest dout.
        scale = np.abs(back) + (np.abs(dout).max() if name == "softmax" else np.abs(dout))
        assert_close(dx, back, dtype, magnitude=scale, note=shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 2, 13, 100, 513])
def test_affine_follows_the_reference(n, dtype):
    rng = np.random.default_rng(n)
    layer, W, b = affine(rng, 17, 9, dtype)
    x, dout = random_array(rng, (n, 17), dtype), random_array(rng, (n, 9), dtype)
    with Unchanged(x, dout, W, b):
        y = layer.forward(x)
        dx = layer.backward(dout)
    assert_close(
        y, reference.affine_forward(x, W, b), dtype, magnitude=reference.affine_magnitude(x, W, b)
    )
    expected = reference.affine_backward(dout, x, W)
    sizes = reference.affine_backward(np.abs(dout), np.abs(x), np.abs(W))
    for result, value, size in zip(
        (dx, layer.grads["W"], layer.grads["b"]), expected, sizes, strict=True
    ):
        assert_close(result, value, dtype, magnitude=size, terms=n)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_layer_passes_the_gradient_check(name):
    x = np.random.default_rng(3).standard_normal((5, 7))
    x += np.copysign(0.01, x)  # away from the bend of the ReLUs
    layer = ELEMENTWISE[name]()

    def backward(dout, x):
        layer.forward(x)
        return [layer.backward(dout)]

    check_gradient(layer.forward, backward, [x])


def test_affine_passes_the_gradient_check():
    rng = np.random.default_rng(4)
    layer, W, b = affine(rng, 6, 4, "float64")

    def forward(x, W, b):
        layer.params = {"W": W, "b": b}
        return layer.forward(x)

    def backward(dout, *arguments):
        forward(*arguments)
        dx = layer.backward(dout)
        return dx, layer.grads["W"], layer.grads["b"]

    check_gradient(forward, backward, [rng.standard_normal((5, 6)), W, b])


def test_a_chain_of_layers_passes_the_gradient_check():
    rng = np.random.default_rng(5)
    chain = [affine(rng, 6, 5, "float64")[0], cc.Tanh(), Sine(), cc.Softmax()]

    def forward(x):
        for layer in chain:
            x = layer.forward(x)
        return x

    def backward(dout, x):
        forward(x)
        for layer in reversed(chain):
            dout = layer.backward(dout)
        return [dout]

    check_gradient(forward, backward, [rng.standard_normal((3, 6))])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "leaky_relu"])
def test_nan_goes_through_an_activation(name):
    layer = ELEMENTWISE[name]()
    x = np.array([[np.nan, 1.0, -1.0]])
    assert np.isnan(layer.forward(x)).tolist() == [[True, False, False]]
    # The ReLUs' derivative at NaN is 1, so it is the NaN of dout that must arrive.
    dout = np.array([[np.nan, 1.0, 1.0]])
    assert np.isnan(layer.backward(dout)).tolist() == [[True, False, False]]


@pytest.mark.parametrize("shape", [(0, 2, 3), (1, 2, 3), (5, 2, 3, 4), (5, 7)])
def test_flatten_keeps_the_order_of_the_elements(shape):
    layer = cc.Flatten()
    x = np.arange(np.prod(shape), dtype=float).reshape(shape)
    y = layer.forward(x)
    assert y.shape == (shape[0], np.prod(shape[1:]))
    assert y.ravel().tolist() == x.ravel().tolist()
    back = layer.backward(y)
    assert back.shape == shape
    assert np.array_equal(back, x)
    assert layer.output_shape(shape[1:]) == y.shape[1:]


def test_inputs_of_any_strides_give_the_same_bits():
    rng = np.random.default_rng(6)
    layer, _, _ = affine(rng, 8, 5, "float32")
    x = random_array(rng, (11, 8), "float32")
    expected = layer.forward(x)
    for layout in ("fortran", "reversed", "strided", "columns", "readonly"):
        assert reference.same_bits(layer.forward(reference.lay_out(x, layout)), expected), layout


def test_affine_alone_draws_its_parameters_at_the_first_forward():
    layer = cc.Affine(3)
    assert layer.params == {}
    y = layer.forward(np.ones((2, 4), np.float32))
    assert {name: value.shape for name, value in layer.params.items()} == {"W": (4, 3), "b": (3,)}
    assert np.array_equal(layer.forward(np.ones((2, 4), np.float32)), y)
    assert np.abs(layer.params["W"]).max() <= np.sqrt(6 / 7)


def test_affine_copies_the_arrays_that_it_is_given():
    W = np.ones((2, 3))
    layer = cc.Affine(3, W)
    net = cc.Sequential([layer], input_shape=(2,))
    W[...] = 5
    assert np.all(net.params["W1"] == 1)


# ---- a layer of one's own ------------------------------------------------------------------------


def test_the_output_shape_of_a_users_layer_is_found_by_trying():
    class Halves(cc.Layer):
        def forward(self, x, training=False):
            return x[:, : x.shape[1] // 2]

    assert Halves().output_shape((10,)) == (5,)
    assert Sine().output_shape((2, 3)) == (2, 3)


def test_trying_a_users_layer_on_zeros_raises_no_warning():
    class Log(Sine):
        def forward(self, x, training=False):
            return np.log(x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Log().output_shape((3,)) == (3,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_users_layer_is_tried_in_the_dtype_of_its_parameters(dtype):
    class Mixed(Scale):
        def build(self, input_shape, rng):
            return {"a": np.ones((input_shape[0], 2)), "c": np.zeros(2)}

        def forward(self, x, training=False):
            return cc.ops.affine_forward(x, self.params["a"], self.params["c"])

    net = cc.Sequential([Mixed()], input_shape=(3,), dtype=dtype)
    assert net.output_shape == (2,)
    assert net.predict(np.ones((1, 3))).tolist() == [[3, 3]]


def test_the_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError):
        cc.Layer().forward(np.zeros((1, 1)))
    with pytest.raises(NotImplementedError):
        cc.Layer().backward(np.zeros((1, 1)))


def test_a_copied_layer_shares_nothing():
    layer = DoubledAffine(3)
    net = cc.Sequential([layer], input_shape=(2,))
    twin = copy.deepcopy(layer)
    before = net.params["W1"].copy()
    twin.params["W"][...] = 0
    assert np.array_equal(net.params["W1"], before)


# ---- configurations and errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        cc.Affine(3),
        cc.Affine(4, cc.Normal(0.2), cc.Uniform(-1, 2)),
        cc.Sigmoid(),
        cc.Tanh(),
        cc.ReLU(),
        cc.LeakyReLU(0.25),
        cc.Softmax(),
        cc.Flatten(),
    ],
    ids=repr,
)
def test_a_layer_comes_back_from_its_configuration(layer):
    again = layers.from_config(layer.get_config())
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert repr(again) == repr(layer)


def test_repr_shows_the_arguments():
    assert repr(cc.LeakyReLU(0.25)) == "LeakyReLU(slope=0.25)"
    assert repr(cc.ReLU()) == "ReLU()"


@pytest.mark.parametrize("config", [{"class": "Layer"}, {"class": "os.system"}, {}])
def test_what_is_no_layer_is_refused(config):
    with pytest.raises(ValueError, match="layer: expected one of"):
        layers.from_config(config)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cc.Affine(0), ValueError, "units: expected an integer >= 1, got 0"),
        (lambda: cc.Affine(-3), ValueError, "units: expected an integer >= 1, got -3"),
        (lambda: cc.Affine(2.5), TypeError, "units: expected an integer, got 2.5"),
        (lambda: cc.Affine("10"), TypeError, "units: expected an integer, got '10'"),
        (lambda: cc.LeakyReLU(-0.1), ValueError, "slope"),
        (lambda: cc.LeakyReLU(np.nan), ValueError, "slope"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 5), np.float32), ValueError, r"x: expected 4 columns.*\(2, 5\)"),
        (np.zeros(4, np.float32), ValueError, "x: expected 2 dimension"),
        (np.zeros((2, 4)), TypeError, "float64"),
        (np.zeros((2, 4), int), TypeError, "x: expected float32 or float64, got dtype int64"),
    ],
)
def test_affine_refuses_a_wrong_input(x, error, message):
    layer = cc.Affine(3)
    layer.forward(np.zeros((1, 4), np.float32))
    with pytest.raises(error, match=message):
        layer.forward(x)


@pytest.mark.parametrize("make", [lambda: cc.Affine(3), cc.ReLU, cc.Softmax, cc.Flatten])
def test_backward_needs_a_forward(make):
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        make().backward(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("make", [lambda: cc.Affine(3), cc.ReLU, cc.Softmax])
def test_backward_refuses_a_wrong_dout(make):
    layer = make()
    layer.forward(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"dout: expected shape \(2, 3\), got \(3, 3\)"):
        layer.backward(np.zeros((3, 3), np.float32))
    with pytest.raises(TypeError, match=r"dout: expected .*float32.* got .*float64"):
        layer.backward(np.zeros((2, 3)))
