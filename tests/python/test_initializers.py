"""Initializers: what they draw, from which seed, and their configurations."""

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import initializers

FANS = (300, 200)

# Standard deviation that each formula gives for FANS, and the limit of a uniform one.
EXPECTED = {
    cc.Normal(0.03): (0.03, None),
    cc.Uniform(-0.3, 0.3): (0.3 / 3**0.5, 0.3),
    cc.GlorotNormal(): ((2 / 500) ** 0.5, None),
    cc.GlorotUniform(): ((2 / 500) ** 0.5, (6 / 500) ** 0.5),
    cc.HeNormal(): ((2 / 300) ** 0.5, None),
    cc.HeUniform(): ((2 / 300) ** 0.5, (6 / 300) ** 0.5),
}
ALL = [*EXPECTED, cc.Zeros()]


@pytest.mark.parametrize("initializer", EXPECTED, ids=repr)
def test_width_and_limits_are_those_of_the_formula(initializer):
    std, limit = EXPECTED[initializer]
    values = initializer(np.random.default_rng(0), FANS, *FANS)
    assert values.shape == FANS
    assert values.dtype == np.float64
    # 60,000 values: the standard error of the mean is std / 245, of the std about std / 346.
    assert abs(values.mean()) < 5 * std / 245
    assert values.std() == pytest.approx(std, rel=5 / 346)
    if limit is None:
        assert 3 * std < np.abs(values).max() < 6 * std
    else:
        assert 0.99 * limit < np.abs(values).max() <= limit


def test_uniform_takes_both_ends():
    values = cc.Uniform(2, 3)(np.random.default_rng(0), (1000,), 1, 1)
    assert 2 <= values.min() < 2.01
    assert 2.99 < values.max() < 3


def test_zeros_are_zeros():
    assert not cc.Zeros()(np.random.default_rng(0), (3, 2), 3, 2).any()


@pytest.mark.parametrize("initializer", ALL, ids=repr)
def test_an_initializer_comes_back_from_its_configuration(initializer):
    again = initializers.from_config(initializer.get_config())
    assert type(again) is type(initializer)
    assert vars(again) == vars(initializer)
    assert repr(again) == repr(initializer)


def test_what_cannot_come_back_from_a_file_becomes_zeros_there():
    class Ones(cc.Initializer):
        def __call__(self, rng, shape, fan_in, fan_out):
            return np.ones(shape)

    for weights in (Ones(), np.ones((2, 3))):
        net = cc.Sequential([cc.Affine(3, weights)], input_shape=(2,))
        assert np.all(net.params["W1"] == 1)
        again = cc.Sequential.from_config(net.get_config())
        assert np.all(again.params["W1"] == 0)


def test_a_network_draws_the_same_in_both_precisions_and_each_layer_its_own():
    nets = [
        cc.Sequential([cc.Affine(20), cc.Affine(20)], input_shape=(20,), dtype=dtype, seed=5)
        for dtype in ("float32", "float64")
    ]
    assert np.array_equal(nets[0].params["W1"], nets[1].params["W1"].astype(np.float32))
    assert abs(np.corrcoef(nets[1].params["W1"].ravel(), nets[1].params["W2"].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cc.Normal(-1), ValueError, "std: expected a finite number >= 0, got -1"),
        (lambda: cc.Normal(np.nan), ValueError, "std"),
        (lambda: cc.Normal("a"), TypeError, "std: expected a number, got 'a'"),
        (lambda: cc.Uniform(1, 0), ValueError, "low, high: expected low <= high, got 1, 0"),
        (lambda: cc.Uniform(0, np.inf), ValueError, "high: expected a finite number"),
        (lambda: initializers.from_config({"class": "Ones"}), ValueError, "initializer: expected"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Short(cc.Initializer):
    def __call__(self, rng, shape, fan_in, fan_out):
        return np.zeros(shape[:-1])


@pytest.mark.parametrize(
    ("weights", "biases", "error", "message"),
    [
        (np.zeros((3, 2)), None, ValueError, r"weights: expected an array of shape \(2, 3\)"),
        (None, np.zeros((1, 3)), ValueError, r"biases: expected an array of shape \(3,\)"),
        ("zeros", None, TypeError, "weights: expected an initializer or numbers"),
        (None, np.zeros(3, complex), TypeError, "biases: expected an initializer or numbers"),
        (Short(), None, ValueError, r"weights: expected an array of shape \(2, 3\), got \(2,\)"),
    ],
)
def test_bad_arrays_are_named(weights, biases, error, message):
    with pytest.raises(error, match=message):
        cc.Sequential([cc.Affine(3, weights, biases)], input_shape=(2,))
