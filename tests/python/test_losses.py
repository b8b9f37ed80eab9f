"""Losses by themselves: values and gradients, configurations, errors, and losses of one's own."""

import numpy as np
import pytest

import cnn_core as cc
import reference
from cnn_core import losses
from reference import DTYPES, Unchanged, assert_close, check_gradient, random_array
from reference_network import LOSSES, LogCosh

COMPILED = [name for name in LOSSES if name != "log_cosh"]


def batch(name, n, dtype, rows=True):
    rng = np.random.default_rng([7, n])
    y = random_array(rng, (n, 5), dtype)
    if name == "softmax_cross_entropy":
        labels = rng.integers(0, 5, n)
        return y, np.eye(5, dtype=dtype)[labels] if rows else labels
    return y, rng.random((n, 5)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", COMPILED)
def test_a_loss_follows_the_reference(name, reduction, dtype):
    for n in (1, 2, 13, 100, 513):
        for rows in (True, False):
            y, t = batch(name, n, dtype, rows)
            loss = LOSSES[name](reduction)
            with Unchanged(y, t):
                value = loss.forward(y, t)
                dy = loss.backward()
            expected, gradient = getattr(reference, name)(y, t, reduction=reduction)
            assert type(value) is float
            assert value == pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-12)
            magnitude = np.abs(gradient) + np.abs(gradient).max()
            assert_close(dy, gradient, dtype, magnitude=magnitude)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_passes_the_gradient_check(name):
    y, t = batch("softmax_cross_entropy" if name == "softmax_cross_entropy" else name, 4, "float64")
    loss = LOSSES[name]()

    def backward(dout, y):
        loss.forward(y, t)
        return [float(dout) * loss.backward()]

    check_gradient(lambda y: np.asarray(loss.forward(y, t)), backward, [y])


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_scales_of_a_compiled_loss_are_those_of_its_function(name, reduction):
    loss = LOSSES[name](reduction)
    y, t = batch(name, 6, "float64")
    net = cc.Sequential([cc.Flatten()], input_shape=(5,), loss=loss, dtype="float64")
    assert net.loss(y, t, training=True) == pytest.approx(loss.forward(y, t), rel=1e-14)


@pytest.mark.parametrize("name", COMPILED)
def test_a_loss_comes_back_from_its_configuration(name):
    loss = LOSSES[name]("sum")
    again = losses.from_config(loss.get_config())
    assert type(again) is type(loss)
    assert again.reduction == "sum"
    assert repr(again) == f"{LOSSES[name].__name__}(reduction='sum')"


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="reduction: expected 'mean' or 'sum', got 'none'"):
        cc.SoftmaxCrossEntropy("none")
    with pytest.raises(ValueError, match=r"loss: expected one of .* got 'Loss'"):
        losses.from_config({"class": "Loss"})
    with pytest.raises(RuntimeError, match=r"SumSquaredError.backward: call forward first"):
        cc.SumSquaredError().backward()
    with pytest.raises(ValueError, match=r"t: expected integers in 0..2, got 3"):
        cc.SoftmaxCrossEntropy().forward(np.zeros((1, 3)), [3])
    with pytest.raises(NotImplementedError):
        cc.Loss().forward(np.zeros((1, 1)), np.zeros((1, 1)))


def test_a_subclass_of_a_compiled_loss_runs_its_own_code():
    class Tripled(cc.MeanSquaredError):
        def forward(self, y, t):
            return 3 * super().forward(y, t)

        def backward(self):
            return 3 * super().backward()

    x, t = np.ones((2, 3)), np.zeros((2, 2))
    layers = [lambda: cc.Affine(2, cc.Normal(1)) for _ in range(2)]
    plain, tripled = (
        cc.Sequential([make()], input_shape=(3,), loss=loss, dtype="float64")
        for make, loss in zip(layers, (cc.MeanSquaredError(), Tripled()), strict=True)
    )
    assert tripled.loss(x, t) == pytest.approx(3 * plain.loss(x, t), rel=1e-14)
    np.testing.assert_allclose(
        tripled.gradient(x, t)["W1"], 3 * plain.gradient(x, t)["W1"], rtol=1e-14
    )


def test_a_users_loss_needs_no_constructor():
    class Own(LogCosh):
        def __init__(self):
            self.calls = 0

    net = cc.Sequential([cc.Affine(2)], input_shape=(3,), loss=Own())
    assert net.loss(np.ones((4, 3)), np.zeros((4, 2))) > 0


def test_a_loss_that_was_nan_once_is_right_the_next_time():
    net = cc.Sequential([cc.Affine(2)], input_shape=(3,), loss=LogCosh(), dtype="float64")
    x, t = np.ones((4, 3)), np.zeros((4, 2))
    expected = net.loss(x, t)
    assert np.isnan(net.loss(np.full((4, 3), np.nan), t))
    assert net.loss(x, t) == expected


@pytest.mark.parametrize("name", LOSSES)
def test_accuracy_counts_the_rows_whose_largest_output_is_the_targets(name):
    net = cc.Sequential([cc.Flatten()], input_shape=(3,), loss=LOSSES[name](), dtype="float64")
    x = np.array([[3.0, 1, 2], [0, 5, 1], [1, 2, 3], [9, 0, 0]])
    t = np.eye(3)[[0, 1, 0, 1]]
    assert net.accuracy(x, t) == 0.5


@pytest.mark.parametrize(
    ("name", "threshold"),
    [("binary_cross_entropy", 0.0), ("mean_squared_error", 0.5), ("log_cosh", 0.5)],
)
def test_one_output_is_told_apart_by_a_threshold(name, threshold):
    net = cc.Sequential([cc.Flatten()], input_shape=(1,), loss=LOSSES[name](), dtype="float64")
    x = threshold + np.array([[-0.3], [0.2], [0.1], [-0.1]])
    assert net.accuracy(x, np.array([0, 1, 0, 1])) == 0.5
    assert net.accuracy(x, np.array([[0.0], [1], [1], [0]])) == 1
