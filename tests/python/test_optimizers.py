"""Optimizers: updates against plain NumPy through a network, multipliers, state and errors."""

import numpy as np
import pytest

import cnn_core as cc
import reference
from reference import DTYPES, assert_close
from reference_network import make, make_batch

SETTINGS = (
    {},
    {"momentum": 0.9},
    {"momentum": 0.5, "nesterov": True},
    {"weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
)
WORDS = ["affine 5", "tanh", "affine 3"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_equal_plain_numpy_with_lr_changed_in_between(settings, dtype):
    net = make(WORDS, dtype=dtype)
    trainer = cc.Trainer(net, cc.SGD(0.2, **settings))
    params = {name: value.astype(np.float64) for name, value in net.params.items()}
    velocity = dict.fromkeys(params)
    for step, lr in enumerate((0.2, 0.2, 0.05, 0.0, 0.3)):
        trainer.optimizer.lr = lr
        x, t = make_batch(net, 7, seed=step)
        gradient = net.gradient(x, t)
        trainer.step(x, t)
        for name in params:
            params[name], velocity[name] = reference.sgd_update(
                params[name], gradient[name], lr, velocity=velocity[name], **settings
            )
            size = np.abs(params[name]) + 1
            assert_close(net.params[name], params[name], dtype, magnitude=size, note=(step, name))


def test_without_a_rate_nothing_moves():
    net = make(WORDS)
    before = net.flat_params.copy()
    cc.Trainer(net, cc.SGD(0, momentum=0.9)).step(*make_batch(net, 7))
    assert np.array_equal(net.flat_params, before)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_multipliers_freeze_climb_and_scale(momentum):
    x, t = make_batch(make(WORDS), 9)
    nets = {factor: make(WORDS) for factor in (0, 1, -1, 2.5)}
    for factor, net in nets.items():
        optimizer = cc.SGD(0.1, momentum, weight_decay=0.01, lr_multipliers={"W1": factor})
        cc.Trainer(net, optimizer).step(x, t)
    start, gradient = make(WORDS).params, make(WORDS).gradient(x, t)
    assert reference.same_bits(nets[0].params["W1"], start["W1"])
    for factor, net in nets.items():
        step = -0.1 * factor * (gradient["W1"] + 0.01 * start["W1"])
        np.testing.assert_allclose(net.params["W1"] - start["W1"], step, rtol=1e-9, atol=1e-15)
        for name in ("b1", "W2", "b2"):  # the others move as ever
            assert reference.same_bits(net.params[name], nets[1].params[name]), name


def test_a_frozen_parameter_keeps_its_bits_through_training():
    net = make(WORDS, dtype="float32")
    before = {name: value.copy() for name, value in net.params.items()}
    x, t = make_batch(net, 64)
    optimizer = cc.SGD(0.5, 0.9, weight_decay=0.1, lr_multipliers={"b1": 0, "W2": 0})
    cc.Trainer(net, optimizer).fit(x, t, epochs=3, batch_size=10, verbose=False)
    for name, value in net.params.items():
        assert np.array_equal(value, before[name]) == (name in ("b1", "W2")), name


def test_a_frozen_parameter_survives_a_gradient_that_is_nan():
    net = make(WORDS)
    before = net.params["W1"].copy()
    x, t = make_batch(net, 5)
    x[2, 3] = np.nan
    cc.Trainer(net, cc.SGD(0.1, lr_multipliers={"W1": 0})).step(x, t)
    assert np.array_equal(net.params["W1"], before)
    assert np.isnan(net.params["b1"]).any()


def test_climbing_raises_the_loss():
    net = make(WORDS)
    x, t = make_batch(net, 50)
    before = net.loss(x, t)
    cc.Trainer(net, cc.SGD(0.01, lr_multipliers=dict.fromkeys(net.params, -1))).step(x, t)
    assert net.loss(x, t) > before


def test_velocity_starts_at_rest_for_another_network():
    x, t = make_batch(make(WORDS), 9)
    shared = cc.SGD(0.1, momentum=0.9)
    first, second, alone = make(WORDS), make(WORDS, seed=1), make(WORDS, seed=1)
    for _ in range(3):
        cc.Trainer(first, shared).step(x, t)
    cc.Trainer(second, shared).step(x, t)
    cc.Trainer(alone, cc.SGD(0.1, momentum=0.9)).step(x, t)
    assert np.array_equal(second.flat_params, alone.flat_params)


def test_velocity_goes_on_with_another_trainer_of_the_same_network():
    x, t = make_batch(make(WORDS), 9)
    one, two = make(WORDS), make(WORDS)
    trainer, optimizer = cc.Trainer(one, cc.SGD(0.1, 0.9)), cc.SGD(0.1, 0.9)
    for _ in range(4):
        trainer.step(x, t)
        cc.Trainer(two, optimizer).step(x, t)
    assert np.array_equal(one.flat_params, two.flat_params)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, "lr: expected a finite number in 0..inf, got -0.1"),
        ({"lr": np.nan}, ValueError, "lr: expected a finite number"),
        ({"lr": "fast"}, TypeError, "lr: expected a number, got 'fast'"),
        ({"lr": None}, TypeError, "lr: expected a number, got None"),
        ({"momentum": 1.5}, ValueError, "momentum: expected a finite number in 0..1"),
        ({"momentum": -0.5}, ValueError, "momentum"),
        ({"weight_decay": -1}, ValueError, "weight_decay"),
        ({"nesterov": True}, ValueError, "nesterov: needs momentum > 0"),
        ({"lr_multipliers": {"W1": np.inf}}, ValueError, r"lr_multipliers\['W1'\]: expected"),
        ({"lr_multipliers": {"W1": "no"}}, TypeError, r"lr_multipliers\['W1'\]: expected a number"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        cc.SGD(**arguments)


def test_a_bad_rate_is_refused_later_too():
    optimizer = cc.SGD(0.1)
    with pytest.raises(ValueError, match="lr"):
        optimizer.lr = -1
    assert optimizer.lr == 0.1


def test_an_unknown_parameter_is_named():
    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(lr_multipliers={"W9": 0}))
    with pytest.raises(ValueError, match=r"lr_multipliers: no parameter named \['W9'\].*'W1'"):
        trainer.step(*make_batch(net, 3))
