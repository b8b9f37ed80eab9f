"""Sequential: its gradients against NumPy and central differences, its answers, its errors."""

import copy
import json

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import cnn_core as cc
import reference
from reference import DTYPES, Unchanged, lay_out, same_bits
from reference_network import (
    LOSSES,
    assert_gradients,
    make,
    make_batch,
    run,
)

BATCHES = (1, 2, 13, 100, 513)

STACKS = {
    "affine": ["affine 4"],
    "two affine": ["affine 5", "affine 4"],
    "fused": ["affine 9", "sigmoid", "affine 4"],
    "deep": ["affine 9", "relu", "affine 7", "tanh", "affine 5", "leaky_relu", "affine 4"],
    "activation first": ["tanh", "affine 4"],
    "activation last": ["affine 4", "sigmoid"],
    "two activations": ["affine 7", "sigmoid", "tanh", "affine 4"],
    "three activations": ["affine 7", "leaky_relu", "tanh", "sigmoid", "affine 4"],
    "two activations last": ["affine 4", "tanh", "sigmoid"],
    "softmax inside": ["affine 7", "softmax", "affine 4"],
    "softmax after activation": ["affine 7", "tanh", "softmax", "sigmoid", "affine 4"],
    "softmax first": ["softmax", "affine 4"],
    "softmax last": ["affine 4", "softmax"],
    "flatten first": ["flatten", "affine 5", "relu", "affine 4"],
    "flatten middle": ["affine 5", "tanh", "flatten", "affine 4", "flatten"],
    "python first": ["sine", "affine 5", "sigmoid", "affine 4"],
    "python middle": ["affine 5", "sigmoid", "sine", "tanh", "affine 4"],
    "python last": ["affine 5", "sigmoid", "affine 4", "sine"],
    "python only": ["scale", "sine"],
    "python between": ["affine 5", "sine", "affine 5", "sine", "relu", "affine 4"],
    "subclass": ["doubled 5", "tanh", "affine 6", "shifted", "doubled 4"],
    "own parameters": ["scale", "affine 5", "scale in place", "tanh", "affine 4", "scale"],
    "no parameters": ["tanh", "sine"],
}


def input_shape(words):
    return (2, 3) if words[0] == "flatten" else (6,)


def check_against_numpy(net, words, x, t, loss, note=""):
    value, gradients, y, bend = run(words, net.params, x, t, loss)
    close = {"float32": 1e-4, "float64": 1e-11}[net.dtype.name]
    np.testing.assert_allclose(net.forward(x), y, rtol=close, atol=close, err_msg=str(note))
    assert net.loss(x, t) == pytest.approx(value, rel=close), note
    assert net.loss(x, t, training=True) == pytest.approx(value, rel=close), note
    assert_gradients(net.gradient(x, t), gradients, net.dtype, note)
    return bend


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("stack", STACKS)
def test_loss_and_gradient_equal_those_of_plain_numpy(stack, loss, dtype):
    words = STACKS[stack]
    net = make(words, input_shape=input_shape(words), loss=loss, dtype=dtype)
    for n in BATCHES:
        x, t = make_batch(net, n, loss)
        with Unchanged(x, t, net.flat_params):
            check_against_numpy(net, words, x, t, loss, n)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("stack", STACKS)
def test_gradient_equals_central_differences(stack, loss):
    words = STACKS[stack]
    net = make(words, input_shape=input_shape(words), loss=loss, seed=2)
    x, t = make_batch(net, 3, loss)
    assert run(words, net.params, x, t, loss)[3] > 1e-3  # no ReLU crosses its bend
    expected = {
        name: reference.numerical_gradient(lambda: net.loss(x, t), value, 1e-5)
        for name, value in net.params.items()
    }
    assert_gradients(net.gradient(x, t), expected, "float64", tolerance=1e-7)
    assert_gradients(net.numerical_gradient(x, t, h=1e-5), expected, "float64", tolerance=1e-7)


LAYER_WORDS = st.one_of(
    st.builds("{} {}".format, st.sampled_from(["affine", "doubled"]), st.integers(2, 20)),
    st.sampled_from(
        [
            *("sigmoid", "tanh", "relu", "leaky_relu", "softmax", "flatten"),
            *("sine", "scale", "scale in place", "shifted"),
        ]
    ),
)


@given(
    words=st.lists(LAYER_WORDS, min_size=1, max_size=7),
    loss=st.sampled_from(sorted(LOSSES)),
    dtype=st.sampled_from(DTYPES),
    n=st.sampled_from(BATCHES),
    rows=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_row_of_layers_has_the_gradient_of_plain_numpy(words, loss, dtype, n, rows, seed):
    net = make(words, input_shape=input_shape(words), loss=loss, dtype=dtype, seed=seed)
    # A second batch size needs a second plan of the same layers.
    for size in (n, 5):
        x, t = make_batch(net, size, loss, seed=seed, rows=rows)
        check_against_numpy(net, words, x, t, loss, size)


@given(
    words=st.lists(LAYER_WORDS, min_size=1, max_size=5),
    loss=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 9),
)
@example(words=["affine 7", "affine 18", "doubled 10", "doubled 2"], loss="log_cosh", seed=8)
def test_any_row_of_layers_has_the_gradient_of_central_differences(words, loss, seed):
    net = make(words, input_shape=input_shape(words), loss=loss, seed=seed)
    x, t = make_batch(net, 2, loss, seed=seed)
    value, _, _, bend = run(words, net.params, x, t, loss)
    assume(bend > 1e-3)
    h = 1e-5
    rounding = 4 * np.spacing(abs(value)) / h  # two losses, each a few digits off, over 2 h
    numerical = net.numerical_gradient(x, t, h=h)
    assert_gradients(net.gradient(x, t), numerical, "float64", tolerance=2e-7, rounding=rounding)


def test_samples_of_more_dimensions():
    words = ["sine", "leaky_relu", "flatten", "affine 4"]
    net = make(words, input_shape=(2, 3, 4))
    x, t = make_batch(net, 13)
    check_against_numpy(net, words, x, t, "softmax_cross_entropy")
    words = ["softmax", "tanh", "softmax"]  # over the last axis of three
    net = make(words, input_shape=(2, 3), loss="mean_squared_error")
    x, t = make_batch(net, 13, "mean_squared_error")
    check_against_numpy(net, words, x, t, "mean_squared_error")


def test_labels_one_hot_rows_and_their_dtypes_are_the_same_target():
    net = make(STACKS["fused"])
    x, t = make_batch(net, 13)
    expected = net.gradient(x, t)
    rows = np.eye(4)[t]
    for same in (t.astype(np.uint8), t.tolist(), rows, rows.astype(np.float32), rows.astype(int)):
        assert_gradients(net.gradient(x, same), expected, "float64")
        assert net.accuracy(x, same) == net.accuracy(x, t)


def test_gradients_are_copies_and_the_parameters_stay():
    net = make(STACKS["deep"])
    x, t = make_batch(net, 13)
    with Unchanged(x, t, net.flat_params):
        first = net.gradient(x, t)
    kept = {name: value.copy() for name, value in first.items()}
    net.gradient(2 * x, t)
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


# ---- predict -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stack", ["deep", "softmax inside", "own parameters"])
def test_predict_equals_row_by_row(stack, dtype):
    net = make(STACKS[stack], dtype=dtype)
    x = make_batch(net, 2000)[0]
    rows = np.concatenate([net.predict(x[i : i + 1]) for i in range(len(x))])
    for n in (0, 1, 511, 512, 513, 2000):
        y = net.predict(x[:n])
        assert y.shape == (n, *net.output_shape)
        assert same_bits(y, rows[:n]), n
        assert same_bits(net.forward(x[:n]), rows[:n]), n


@pytest.mark.parametrize("dtype", DTYPES)
def test_input_of_any_strides_or_dtype_gives_the_same_bits(dtype):
    words = ["flatten", "affine 9", "sigmoid", "affine 4"]
    net = make(words, input_shape=(2, 3), dtype=dtype)
    x, t = make_batch(net, 700)
    expected, gradient, figures = net.predict(x), net.gradient(x, t), net.evaluate(x, t)
    for layout in ("fortran", "reversed", "strided", "columns", "unaligned", "readonly"):
        other = lay_out(x, layout)
        assert same_bits(net.predict(other), expected), layout
        assert net.evaluate(other, lay_out(t, layout)) == figures, layout
        assert_gradients(net.gradient(other, t), gradient, dtype, layout, tolerance=0)
    assert same_bits(net.predict(x.reshape(700, 6)), expected)
    assert same_bits(net.predict(x.astype(">f8")), expected)
    assert same_bits(net.predict(x.tolist()), expected)
    whole = np.rint(x)
    for kind in (np.int64, np.int8, np.float16, np.float32, np.float64):
        assert same_bits(net.predict(whole.astype(kind)), net.predict(whole)), kind


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_scaled_and_floats_are_not(dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 6), dtype=np.uint8)
    net = make(STACKS["fused"], dtype=dtype)
    close = {"float32": 1e-5, "float64": 1e-13}[dtype]
    expected = net.predict(pixels / 255)
    np.testing.assert_allclose(net.predict(pixels), expected, rtol=close, atol=close)
    assert same_bits(net.predict(pixels)[:100], net.predict(pixels[:100]))
    raw = make(STACKS["fused"], dtype=dtype, input_scale=1)
    assert same_bits(raw.predict(pixels), raw.predict(pixels.astype(dtype)))


def test_loss_and_accuracy_of_many_rows_are_means_over_all():
    for loss in LOSSES:
        net = make(STACKS["fused"], loss=loss)
        x, t = make_batch(net, 1300, loss)
        value, _, y, _ = run(STACKS["fused"], net.params, x, t, loss)
        right = t if loss == "softmax_cross_entropy" else t.argmax(axis=1)
        assert net.loss(x, t) == pytest.approx(value, rel=1e-12)
        assert net.accuracy(x, t) == pytest.approx((y.argmax(axis=1) == right).mean(), abs=1e-15)
        assert type(net.accuracy(x, t)) is float
        assert type(net.loss(x, t)) is float


def test_a_summed_loss_is_the_sum_over_all_rows():
    net = cc.Sequential([cc.Affine(3)], input_shape=(4,), loss=cc.SoftmaxCrossEntropy("sum"))
    x, t = make_batch(net, 1300)
    expected = reference.softmax_cross_entropy(net.predict(x), t, reduction="sum")[0]
    assert net.loss(x, t) == pytest.approx(expected, rel=1e-6)


# ---- parameters ----------------------------------------------------------------------------------


def test_parameters_are_numbered_by_the_layers_that_have_them():
    net = make(["sine", "affine 5", "relu", "scale", "flatten", "doubled 4"])
    assert list(net.params) == ["W1", "b1", "a2", "c2", "W3", "b3"]
    assert net.n_params == 6 * 5 + 5 + 5 + 5 + 5 * 4 + 4
    for name, value in net.params.items():
        assert value.flags.c_contiguous, name
        assert value.ctypes.data % 64 == net.flat_params.ctypes.data % 64, name
        assert np.shares_memory(value, net.flat_params)
        assert np.shares_memory(net.grads[name], net.flat_grads)
    assert net.layers[1].params["W"] is net.params["W1"]


@pytest.mark.parametrize("stack", ["fused", "own parameters", "subclass"])
def test_parameters_changed_in_place_change_the_answers(stack):
    net, other = make(STACKS[stack], seed=1), make(STACKS[stack], seed=2)
    x, t = make_batch(net, 20)
    before = net.predict(x)
    net.gradient(x, t)
    for name, value in other.params.items():
        net.params[name][...] = value
    assert not np.array_equal(net.predict(x), before)
    assert same_bits(net.predict(x), other.predict(x))
    assert_gradients(net.gradient(x, t), other.gradient(x, t), "float64", tolerance=0)


def test_assigning_to_a_name_changes_the_network():
    net, other = make(STACKS["fused"], seed=1), make(STACKS["fused"], seed=2)
    x = make_batch(net, 20)[0]
    net.predict(x)
    views = dict(net.params)
    net.params["W1"] = other.params["W1"]
    net.params.update(b1=other.params["b1"])
    net.params.update({"W2": other.params["W2"].tolist()})
    net.layers[2].params["b"] = other.params["b2"]
    assert same_bits(net.predict(x), other.predict(x))
    net.params["W1"] -= 1
    net.params["W1"] = net.params["W1"] + 1
    assert all(net.params[name] is view for name, view in views.items())
    with pytest.raises(ValueError, match=r"params\['b1'\]: expected shape \(9,\), got \(1,\)"):
        net.params["b1"] = [0.0]
    with pytest.raises(KeyError, match="no parameter named 'W7'"):
        net.params["W7"] = np.zeros(1)


def test_copied_parameters_are_plain():
    net = make(STACKS["fused"])
    kept = copy.deepcopy(net.params)
    assert type(kept) is dict
    assert not np.shares_memory(kept["W1"], net.params["W1"])
    assert np.array_equal(kept["W1"], net.params["W1"])


def test_a_network_can_be_written_as_its_configuration():
    net = cc.Sequential(
        [cc.Affine(5, cc.Normal(0.3)), cc.LeakyReLU(0.1), cc.Affine(2)],
        input_shape=(3,),
        loss=cc.BinaryCrossEntropy("sum"),
        dtype="float64",
        seed=7,
        input_scale=0.5,
    )
    config = json.loads(json.dumps(net.get_config()))
    again = cc.Sequential.from_config(config)
    assert again.get_config() == net.get_config()
    assert np.array_equal(again.flat_params, net.flat_params)
    lines = net.summary().splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["Affine(units=5)", "(5,)", "20"],
        ["LeakyReLU(slope=0.1)", "(5,)", "0"],
        ["Affine(units=2)", "(2,)", "12"],
        ["total", "32"],
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 256, 257, 1337, 1338, 3000])
def test_rows_read_where_they_lie_and_rows_that_are_copied(dtype, n):
    """A dense layer reads rows of its dtype in place; other layouts and dtypes are copied first."""
    layers = [cc.Flatten(), cc.Affine(20), cc.Tanh(), cc.Affine(3)]
    net = cc.Sequential(layers, input_shape=(1, 28, 28), dtype=dtype)
    x = np.random.default_rng(n).integers(-9, 10, (n, 1, 28, 28)).astype(dtype)
    t = np.arange(n) % 3
    before = x.copy()
    expected, figures = net.predict(x), net.evaluate(x, t)
    blocks = [net.forward(x[first : first + 100]) for first in range(0, n, 100)]
    assert same_bits(expected, np.concatenate(blocks))
    other = "float64" if dtype == "float32" else "float32"
    backwards = np.ascontiguousarray(x[::-1])[::-1]
    for same in (x.astype(other), np.asfortranarray(x), backwards, x.astype(int), x.reshape(n, -1)):
        assert same_bits(net.predict(same), expected)
        assert net.evaluate(same, t) == figures
    assert same_bits(x, before)
