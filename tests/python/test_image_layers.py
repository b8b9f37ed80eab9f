"""The layers for images, each by itself: shapes, parameters, state, errors, gradients."""

import numpy as np
import pytest

import cnn_core as cc
import reference_images
from cnn_core import layers
from reference import (
    DTYPES,
    LAYOUTS,
    Unchanged,
    assert_close,
    check_gradient,
    lay_out,
    random_array,
    same_bits,
)

by_dtype = pytest.mark.parametrize("dtype", DTYPES)

LAYERS = {
    "conv": lambda: cc.Conv2D(4, 3, stride=(2, 1), padding="same", groups=2),
    "max": lambda: cc.MaxPool2D(3, 2, 1),
    "avg": lambda: cc.AvgPool2D((2, 3), 1, (1, 0)),
    "global": cc.GlobalAvgPool2D,
    "dropout": lambda: cc.Dropout(0.3),
    "batch norm": lambda: cc.BatchNorm(0.2, 1e-3),
    "flatten": cc.Flatten,
}
by_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture
def rng():
    return np.random.default_rng(40)


def raises(error, match):
    return pytest.raises(error, match=f"^{match}")


# ---- what all have in common ---------------------------------------------------------------------


@by_layer
@by_dtype
@pytest.mark.parametrize("training", [True, False])
def test_shapes_and_dtypes(rng, name, dtype, training):
    layer, x = LAYERS[name](), random_array(rng, (3, 4, 6, 7), dtype)
    with Unchanged(x):
        y = layer.forward(x, training=training)
    assert y.dtype == dtype and y.shape == (3, *LAYERS[name]().output_shape((4, 6, 7)))
    dout = random_array(rng, y.shape, dtype)
    with Unchanged(dout, x):
        dx = layer.backward(dout)
    assert dx.dtype == dtype and dx.shape == x.shape
    for key, value in getattr(layer, "params", {}).items():
        assert layer.grads[key].shape == value.shape and value.dtype == dtype
        assert layer.grads[key].dtype == dtype


@by_layer
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(rng, name, layout):
    layer, twin = LAYERS[name](), LAYERS[name]()
    x = lay_out(random_array(rng, (3, 4, 6, 7), "float64"), layout)
    y, expected = layer.forward(x, training=True), twin.forward(np.array(x, order="C"), True)
    assert same_bits(np.ascontiguousarray(y), expected)
    dout = lay_out(random_array(rng, y.shape, "float64"), layout)
    dx, expected = layer.backward(dout), twin.backward(np.array(dout, order="C"))
    assert same_bits(np.ascontiguousarray(dx), expected)


@by_layer
def test_configuration_makes_the_same_layer(name):
    layer = LAYERS[name]()
    config = layer.get_config()
    again = layers.from_config(config)
    assert type(again) is type(layer) and again.get_config() == config
    assert again.output_shape((4, 6, 7)) == layer.output_shape((4, 6, 7))
    assert repr(layer).startswith(type(layer).__name__ + "(")


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "flatten"])
def test_backward_before_forward_says_so(name):
    with raises(RuntimeError, f"{type(LAYERS[name]()).__name__}.backward: call forward first"):
        LAYERS[name]().backward(np.ones((3, 4, 6, 7)))


@pytest.mark.parametrize("name", ["conv", "max", "avg", "global", "batch norm"])
def test_bad_inputs(name):
    layer = LAYERS[name]()
    with raises(TypeError, "x: expected float32 or float64"):
        layer.forward(np.ones((3, 4, 6, 7), int))
    for shape in ((4, 6, 7), (0, 4, 6, 7)):
        with pytest.raises(ValueError, match=r"^x: expected|BatchNorm: expected"):
            LAYERS[name]().forward(np.ones(shape))
    kind = type(layer).__name__
    with raises(ValueError, f"{kind}: expected samples"):
        layer.output_shape((4, 6))


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("dropout", "flatten")])
def test_gradients(rng, name):
    layer = LAYERS[name]()
    x = rng.permutation(np.arange(2.0 * 4 * 4 * 5)).reshape(2, 4, 4, 5) / 50
    layer.forward(x, training=True)
    params = list(getattr(layer, "params", {}).values())

    def backward(dout, x, *_):
        layer.forward(x, training=True)
        return [layer.backward(dout), *getattr(layer, "grads", {}).values()]

    # The parameters are the layer's own arrays, changed in place.
    check_gradient(lambda x, *_: layer.forward(x, training=True), backward, [x, *params])


# ---- Conv2D --------------------------------------------------------------------------------------


def test_a_convolution_with_given_parameters(rng):
    x, W, b = (random_array(rng, s, "float32") for s in ((2, 3, 6, 7), (5, 3, 3, 2), 5))
    layer = cc.Conv2D(5, (3, 2), stride=2, padding=(1, 0), weights=W, biases=b)
    geometry = {"stride": (2, 2), "padding": (1, 1, 0, 0)}
    y = layer.forward(x)
    size = reference_images.conv2d_forward(np.abs(x), np.abs(W), np.abs(b), **geometry)
    exact = reference_images.conv2d_forward(x, W, b, **geometry)
    assert_close(y, exact, "float32", magnitude=size)
    dx, exact = layer.backward(y), reference_images.conv2d_backward(y, x, W, **geometry)
    sizes = reference_images.conv2d_magnitudes(y, x, W, **geometry)[1:]
    actual = dx, layer.grads["W"], layer.grads["b"]
    for value, expected, size in zip(actual, exact, sizes, strict=True):
        assert_close(value, expected, "float32", magnitude=size)


def test_parameters_of_a_convolution():
    layer = cc.Conv2D(6, (3, 2), groups=2)
    built = layer.build((4, 8, 8), np.random.default_rng(0))
    assert built["W"].shape == (6, 2, 3, 2) and not built["b"].any()
    # Glorot: of the inputs and outputs that one weight's group has.
    limit = np.sqrt(6 / (2 * 6 + 3 * 6))
    assert limit * 0.8 < np.abs(built["W"]).max() <= limit
    assert layer.output_shape((4, 8, 8)) == (6, 6, 7)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"filters": 0}, ValueError, "filters"),
        ({"filters": 2.5}, TypeError, "filters"),
        ({"kernel_size": 0}, ValueError, "kernel_size"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "kernel_size"),
        ({"kernel_size": "3"}, TypeError, "kernel_size"),
        ({"stride": (1, 0)}, ValueError, "stride"),
        ({"padding": "full"}, ValueError, "padding"),
        ({"padding": -1}, ValueError, "padding"),
        ({"dilation": 0}, ValueError, "dilation"),
        ({"groups": 4}, ValueError, "filters: expected a multiple of groups=4"),
        ({"groups": 0}, ValueError, "groups"),
    ],
)
def test_bad_convolutions(arguments, error, match):
    with raises(error, match):
        cc.Conv2D(**{"filters": 6, "kernel_size": 3} | arguments)


def test_a_convolution_that_does_not_fit():
    with raises(ValueError, "Conv2D: expected channels a multiple of groups=3, got 4"):
        cc.Conv2D(6, 3, groups=3).output_shape((4, 8, 8))
    with raises(ValueError, r"x: images of 2 x 8 with padding \(0, 0, 0, 0\) are smaller"):
        cc.Conv2D(6, 3).output_shape((4, 2, 8))
    with raises(ValueError, "weights"):
        cc.Conv2D(6, 3, weights=np.ones((6, 4, 3, 2))).build((4, 8, 8), np.random.default_rng(0))


# ---- pooling -------------------------------------------------------------------------------------


def test_pooling_values(rng):
    x = random_array(rng, (2, 3, 6, 7), "float64")
    window = ((3, 3), (2, 2), (1, 1, 1, 1))
    layer = cc.MaxPool2D(3, 2, 1)
    y = layer.forward(x)
    assert np.array_equal(y, reference_images.max_pool2d(x, *window))
    assert np.array_equal(layer.backward(y), reference_images.max_pool2d(x, *window, y))
    layer = cc.AvgPool2D(3, 2, 1)
    y = layer.forward(x)
    assert_close(y, reference_images.avg_pool2d(x, *window), "float64", magnitude=3)
    back = reference_images.avg_pool2d(x, *window, y)
    assert_close(layer.backward(y), back, "float64", magnitude=3)


def test_the_stride_is_the_size_by_default():
    assert cc.MaxPool2D((2, 3)).stride == (2, 3)
    assert cc.MaxPool2D((2, 3)).output_shape((4, 7, 7)) == (4, 3, 2)


def test_ties_and_nan():
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 1, 2] = np.nan
    layer = cc.MaxPool2D(2)
    y = layer.forward(x)
    assert y[0, 0, 0, 0] == 0 and np.isnan(y[0, 0, 0, 1])
    dx = layer.backward(np.array([[[[1.0, 2.0]]]]))
    assert dx.tolist() == [[[[1, 0, 0, 0], [0, 0, 2, 0]]]]


def test_the_global_mean(rng):
    x, layer = random_array(rng, (3, 5, 4, 6), "float32"), cc.GlobalAvgPool2D()
    y = layer.forward(x)
    assert_close(y, x.mean(axis=(2, 3), dtype="f8"), "float32", magnitude=1)
    dx = layer.backward(y)
    assert_close(dx, np.broadcast_to(y[..., None, None] / 24, x.shape), "float32")
    with raises(ValueError, "dout"):
        layer.backward(y[:2])


@pytest.mark.parametrize("kind", [cc.MaxPool2D, cc.AvgPool2D])
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((0,), ValueError, "size"),
        ((2.0,), TypeError, "size"),
        ((2, 0), ValueError, "stride"),
        ((2, 1, -1), ValueError, "padding"),
        ((2, 1, "same"), TypeError, "padding"),
        ((3, 1, 2), ValueError, "padding: expected at most half"),
        (((4, 2), 1, (2, 2)), ValueError, "padding: expected at most half"),
    ],
)
def test_bad_pools(kind, arguments, error, match):
    with raises(error, match):
        kind(*arguments)


# ---- Dropout -------------------------------------------------------------------------------------


def test_inference_is_the_identity(rng):
    x, dout = random_array(rng, (2, 3, 4, 5), "float32"), random_array(rng, (2, 3, 4, 5), "float32")
    layer = cc.Dropout(0.9)
    assert same_bits(layer.forward(x), x) and same_bits(layer.backward(dout), dout)
    assert layer.step[0] == 0


def test_the_gradient_goes_where_the_values_went(rng):
    x, layer = np.ones((20, 30)), cc.Dropout(0.25)
    y, dout = layer.forward(x, training=True), random_array(rng, (20, 30), "float64")
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert np.array_equal(layer.backward(dout), dout * y)
    assert np.array_equal(layer.backward(dout), dout * y)


def test_a_layer_alone_draws_anew_each_time():
    x, layer = np.ones((20, 30)), cc.Dropout()
    masks = [layer.forward(x, training=True).tobytes() for _ in range(4)]
    assert len(set(masks)) == 4 and layer.step[0] == 4
    again = cc.Dropout()
    assert [again.forward(x, training=True).tobytes() for _ in range(4)] == masks


def test_what_the_mask_depends_on():
    x, layer = np.ones((20, 30)), cc.Dropout()
    layer._alone = False

    def mask(seed, stream, step):
        layer.seed, layer.stream, layer.step[0] = seed, stream, step
        return layer.forward(x, training=True).tobytes()

    assert mask(1, 2, 3) == mask(1, 2, 3)
    assert len({mask(1, 2, 3), mask(0, 2, 3), mask(1, 0, 3), mask(1, 2, 0)}) == 4
    kept = reference_images.kept(x.shape, 0.5, 1, 2, 3)
    assert mask(1, 2, 3) == np.where(kept, 2.0, 0.0).tobytes()


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan")])
def test_bad_rates(rate):
    with raises(ValueError, "rate: expected"):
        cc.Dropout(rate)


# ---- BatchNorm -----------------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("shape", [(9, 5), (6, 5, 3, 4)])
def test_running_statistics(rng, shape, dtype):
    layer = cc.BatchNorm(momentum=0.2, epsilon=1e-3)
    mean, var = np.zeros(5), np.ones(5)
    options = {"momentum": 0.2, "epsilon": 1e-3}
    for _ in range(4):
        x = (random_array(rng, shape, dtype) * 2 + 3).astype(dtype)
        args = x, np.ones(5), np.zeros(5)
        y = layer.forward(x, training=True)
        exact, mean, var = reference_images.batch_norm_forward(
            *args, mean, var, **options, training=True
        )
        assert_close(y, exact, dtype, magnitude=3)
        assert_close(layer.state["running_mean"], mean, dtype, magnitude=5)
        assert_close(layer.state["running_var"], var, dtype)
    state = {key: value.copy() for key, value in layer.state.items()}
    y = layer.forward(x)
    exact = reference_images.batch_norm_forward(*args, mean, var, **options)[0]
    assert_close(y, exact, dtype, magnitude=5)
    assert all(same_bits(layer.state[key], value) for key, value in state.items())
    dx = layer.backward(y)
    expected = reference_images.batch_norm_backward(y, *args[:2], mean, var, 1e-3, training=False)
    assert_close(dx, expected[0], dtype, magnitude=5)


def test_a_normalized_batch_has_mean_0_and_variance_1(rng):
    x = random_array(rng, (50, 3, 4, 5), "float64") * 7 + 100
    y = cc.BatchNorm(epsilon=1e-12).forward(x, training=True)
    assert np.abs(y.mean(axis=(0, 2, 3))).max() < 1e-12
    assert np.abs(y.var(axis=(0, 2, 3)) - 1).max() < 1e-12


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((-0.1,), "momentum"),
        ((1.1,), "momentum"),
        ((0.1, 0), "epsilon"),
        ((0.1, np.inf), "epsilon"),
    ],
)
def test_bad_batch_norms(arguments, match):
    with raises(ValueError, match):
        cc.BatchNorm(*arguments)
