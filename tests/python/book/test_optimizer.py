"""common.optimizer: the update rules, on arrays and on numbers."""

import math

import numpy as np
import pytest

from cnn_core.book.common import optimizer

LR = 0.05

# The rules for one number, written down again: (state, p, g, t) -> p.


def sgd(s, p, g, t):
    return p - LR * g


def momentum(s, p, g, t):
    s["v"] = 0.9 * s["v"] - LR * g
    return p + s["v"]


def nesterov(s, p, g, t):
    before, s["v"] = s["v"], 0.9 * s["v"] - LR * g
    return p + (1 + 0.9) * s["v"] - 0.9 * before


def adagrad(s, p, g, t):
    s["h"] += g * g
    return p - LR * g / (math.sqrt(s["h"]) + 1e-7)


def rmsprop(s, p, g, t):
    s["h"] = 0.99 * s["h"] + 0.01 * g * g
    return p - LR * g / (math.sqrt(s["h"]) + 1e-7)


def adam(s, p, g, t):
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g * g
    rate = LR * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return p - rate * s["m"] / (math.sqrt(s["v"]) + 1e-7)


RULES = {
    "SGD": sgd,
    "Momentum": momentum,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSprop": rmsprop,
    "Adam": adam,
}
by_rule = pytest.mark.parametrize("name", RULES)


def trace(rule, p, gradients):
    """The values of one number under a rule."""
    state = dict.fromkeys("vhm", 0.0)
    for t, g in enumerate(gradients, 1):
        p = rule(state, p, g, t)
        yield p


@by_rule
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(3,), (4, 5), (0, 2)])
def test_arrays_are_updated_in_place(name, dtype, shape):
    rng = np.random.default_rng(6)
    start = rng.standard_normal(shape).astype(dtype)
    gradients = rng.standard_normal((4, *shape)).astype(dtype)
    gradients[2] *= 1e-6  # where epsilon counts
    params, rule = {"W": start.copy(), "b": np.ones(2, dtype)}, getattr(optimizer, name)(lr=LR)
    W = params["W"]
    columns = gradients.reshape(4, -1).T
    wanted = [list(trace(RULES[name], float(p), map(float, g)))
              for p, g in zip(start.ravel(), columns, strict=True)]  # fmt: skip
    for t in range(4):
        kept = gradients[t].copy()
        rule.update(params, {"b": np.zeros(2, dtype), "W": gradients[t]})
        np.testing.assert_array_equal(gradients[t], kept)
        assert params["W"] is W and W.dtype == dtype
        close = 1e-12 if dtype == np.float64 else 2e-5
        expected = np.array([values[t] for values in wanted]).reshape(shape)
        np.testing.assert_allclose(W, expected, rtol=close, atol=close)


@by_rule
def test_numbers_and_arrays_of_other_strides(name):
    gradients = [0.4, -1.0, 1e-7, 3.0]
    wanted = list(trace(RULES[name], -7.0, gradients))
    params = {"x": -7.0, "y": np.full((4, 6), -7.0)[::2, ::3].T}
    rule = getattr(optimizer, name)(lr=LR)
    for g in gradients:
        rule.update(params, {"x": g, "y": np.full((2, 2), g)})
    assert float(params["x"]) == pytest.approx(wanted[-1], rel=1e-12)
    np.testing.assert_allclose(params["y"], wanted[-1], rtol=1e-12)


@by_rule
def test_gradients_of_more_names_than_params_are_let_be(name):
    params = {"W": np.ones(3)}
    getattr(optimizer, name)(lr=LR).update(params, {"W": np.ones(3), "more": np.ones(2)})
    assert list(params) == ["W"] and params["W"][0] < 1


def test_the_settings_and_state_have_the_names_of_the_book():
    adam = optimizer.Adam(lr=0.1, beta1=0.8, beta2=0.99)
    assert (adam.lr, adam.beta1, adam.beta2, adam.iter, adam.m, adam.v) == (
        0.1, 0.8, 0.99, 0, None, None)  # fmt: skip
    adam.update({"W": np.zeros(2)}, {"W": np.ones(2)})
    assert adam.iter == 1
    np.testing.assert_allclose(adam.m["W"], 0.2, rtol=1e-12)
    np.testing.assert_allclose(adam.v["W"], 0.01, rtol=1e-12)
    assert optimizer.RMSprop(decay_rate=0.9).decay_rate == 0.9
    assert optimizer.Momentum(momentum=0.8).momentum == 0.8
    assert [getattr(optimizer, name)().lr for name in RULES] == [0.01] * 5 + [0.001]
