"""Optimizers: updates against plain NumPy through a network, multipliers, state and errors."""

import numpy as np
import pytest

import cnn_core as cc
import reference
from reference import DTYPES, assert_close, same_bits
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


# ---- Adam ----------------------------------------------------------------------------------------


def adam_update(p, gradient, state, lr, decoupled, *, betas=(0.9, 0.999), epsilon=1e-8, decay=0.0):
    """The new parameters; `state` holds step, mean and mean square, and is changed."""
    state["t"] = state.get("t", 0) + 1
    gradient = gradient if decoupled else gradient + decay * p
    for name, beta, power in (("m", betas[0], 1), ("v", betas[1], 2)):
        state[name] = beta * state.get(name, 0) + (1 - beta) * gradient**power
    mean, square = (state[n] / (1 - b ** state["t"]) for n, b in zip("mv", betas, strict=True))
    step = mean / (np.sqrt(square) + epsilon)
    return p - lr * (step + decay * p if decoupled else step)


ADAM_SETTINGS = (
    {},
    {"beta1": 0.5, "beta2": 0.9},
    {"beta1": 0.0, "beta2": 0.0},
    {"epsilon": 0.1},
    {"weight_decay": 0.1},
)
by_kind = pytest.mark.parametrize("kind", [cc.Adam, cc.AdamW])


@by_kind
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", ADAM_SETTINGS, ids=str)
def test_adam_equals_plain_numpy_with_lr_changed_in_between(settings, dtype, kind):
    net = make(WORDS, dtype=dtype)
    settings = {"weight_decay": 0.0, **settings}
    trainer = cc.Trainer(net, kind(**settings))
    params = {name: value.astype(np.float64) for name, value in net.params.items()}
    state = {name: {} for name in params}
    reference_settings = {
        "betas": (settings.get("beta1", 0.9), settings.get("beta2", 0.999)),
        "epsilon": settings.get("epsilon", 1e-8),
        "decay": settings["weight_decay"],
    }
    for step, lr in enumerate((0.02, 0.02, 0.005, 0.0, 0.03)):
        trainer.optimizer.lr = lr
        x, t = make_batch(net, 7, seed=step)
        gradient = net.gradient(x, t)
        trainer.step(x, t)
        for name in params:
            params[name] = adam_update(
                params[name],
                gradient[name].astype(np.float64),
                state[name],
                lr,
                kind is cc.AdamW,
                **reference_settings,
            )
            tolerance = 1e-13 if dtype == "float64" else 1e-5
            np.testing.assert_allclose(net.params[name], params[name], tolerance, tolerance)


@by_kind
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_equals_pytorch(kind, decay):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = make(WORDS)
    theirs = {name: torch.tensor(value.copy()) for name, value in net.params.items()}
    other = getattr(torch.optim, kind.__name__)(theirs.values(), lr=0.01, weight_decay=decay)
    trainer = cc.Trainer(net, kind(0.01, weight_decay=decay))
    for step in range(20):
        x, t = make_batch(net, 11, seed=step)
        for name, value in net.gradient(x, t).items():
            theirs[name].grad = torch.tensor(value)
        other.step()
        trainer.step(x, t)
    for name, value in theirs.items():
        np.testing.assert_allclose(net.params[name], value.numpy(), rtol=1e-12, atol=1e-14)


def test_the_defaults_of_adam_are_pytorchs():
    adam, adamw = cc.Adam(), cc.AdamW()
    for optimizer in (adam, adamw):
        found = (optimizer.lr, optimizer.beta1, optimizer.beta2, optimizer.epsilon)
        assert found == (0.001, 0.9, 0.999, 1e-8)
    assert (adam.weight_decay, adamw.weight_decay) == (0, 0.01)


@pytest.mark.parametrize("kind", [cc.Adam, cc.AdamW, cc.AdaGrad, cc.RMSprop])
def test_multipliers_of_adaptive_steps(kind):
    x, t = make_batch(make(WORDS), 9)
    start = make(WORDS).params
    nets = {}
    for factor in (0, 1, -1, 2.5):
        nets[factor] = make(WORDS)
        optimizer = kind(0.01, weight_decay=0.1, lr_multipliers={"W1": factor})
        trainer = cc.Trainer(nets[factor], optimizer)
        trainer.step(x, t)
    assert reference.same_bits(nets[0].params["W1"], start["W1"])
    moved = nets[1].params["W1"] - start["W1"]
    assert np.abs(moved).max() > 1e-3
    for factor, net in nets.items():
        expected = factor * moved
        np.testing.assert_allclose(net.params["W1"] - start["W1"], expected, rtol=1e-9, atol=1e-15)
        for name in ("b1", "W2", "b2"):  # the others move as ever
            assert reference.same_bits(net.params[name], nets[1].params[name]), name


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_decay_of_sgdw_does_not_pass_through_the_velocity(nesterov, dtype):
    net = make(WORDS, dtype=dtype)
    rule = {"momentum": 0.9, "nesterov": nesterov}
    factors = {"W1": 0.5, "W2": -1}
    options = {"weight_decay": 0.1, "decay_biases": False, "lr_multipliers": factors}
    trainer = cc.Trainer(net, cc.SGDW(0.2, **rule, **options))
    params = {name: value.astype(np.float64) for name, value in net.params.items()}
    velocity = dict.fromkeys(params)
    for step in range(5):
        x, t = make_batch(net, 7, seed=step)
        gradient = net.gradient(x, t)
        trainer.step(x, t)
        for name, value in params.items():
            lr = 0.2 * factors.get(name, 1)
            decay = lr * 0.1 if value.ndim > 1 else 0.0
            params[name], velocity[name] = reference.sgd_update(
                value, gradient[name], lr, velocity=velocity[name], decay=decay, **rule
            )
            size = np.abs(params[name]) + 1
            assert_close(net.params[name], params[name], dtype, magnitude=size, note=(step, name))


@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_sgdw_without_momentum_is_sgd(batch_size):
    nets = [make(WORDS, dtype="float32") for _ in range(2)]
    x, t = make_batch(nets[0], 12)
    for net, kind in zip(nets, (cc.SGD, cc.SGDW), strict=True):
        optimizer = kind(0.1, weight_decay=0.1)
        cc.Trainer(net, optimizer).fit(x, t, epochs=3, batch_size=batch_size, verbose=False)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


def test_weight_decay_of_adamw_does_not_pass_through_the_moments():
    nets = [make(WORDS) for _ in range(3)]
    x, t = make_batch(nets[0], 9)
    start = nets[0].params["W1"].copy()
    kinds = (cc.Adam(0.01), cc.AdamW(0.01, weight_decay=0.1), cc.Adam(0.01, weight_decay=0.1))
    for net, optimizer in zip(nets, kinds, strict=True):
        cc.Trainer(net, optimizer).step(x, t)
    plain, decoupled, coupled = (net.params["W1"] for net in nets)
    np.testing.assert_allclose(decoupled, plain - 0.01 * 0.1 * start, rtol=1e-12, atol=1e-15)
    assert not np.allclose(decoupled, coupled, rtol=0, atol=1e-5)


def test_fit_and_step_share_the_moments_and_the_clock():
    x, t = make_batch(make(WORDS), 40)
    one, two = make(WORDS), make(WORDS)
    stepping, mixed = cc.Trainer(one, cc.Adam(0.01)), cc.Trainer(two, cc.Adam(0.01))
    for _ in range(3):
        for start in range(0, 40, 10):
            stepping.step(x[start : start + 10], t[start : start + 10])
    fit = {"batch_size": 10, "sampling": "sequential", "verbose": False}
    mixed.fit(x, t, **fit)
    for start in range(0, 40, 10):
        mixed.step(x[start : start + 10], t[start : start + 10])
    cc.Trainer(two, mixed.optimizer).fit(x, t, **fit)
    assert reference.same_bits(one.flat_params, two.flat_params)


def test_adam_starts_at_rest_for_another_network():
    x, t = make_batch(make(WORDS), 9)
    shared = cc.Adam(0.01)
    first, second, alone = make(WORDS), make(WORDS, seed=1), make(WORDS, seed=1)
    for _ in range(3):
        cc.Trainer(first, shared).step(x, t)
    cc.Trainer(second, shared).step(x, t)
    cc.Trainer(alone, cc.Adam(0.01)).step(x, t)
    assert np.array_equal(second.flat_params, alone.flat_params)


def test_the_clock_counts_where_everything_else_is_frozen():
    x, t = make_batch(make(WORDS), 9)
    net, optimizer = make(WORDS), cc.Adam(0.01)
    optimizer.lr_multipliers = dict.fromkeys(net.params, 0.0)
    before = net.flat_params.copy()
    trainer = cc.Trainer(net, optimizer)
    for _ in range(3):
        trainer.step(x, t)
    assert np.array_equal(net.flat_params, before)
    assert optimizer.state()["steps"][0] == 3


def test_the_first_step_of_adam_has_the_size_of_the_rate():
    net = make(WORDS)
    before = net.flat_params.copy()
    gradient = net.gradient(*make_batch(net, 9))
    cc.Trainer(net, cc.Adam(0.01)).step(*make_batch(net, 9))
    for name, part in net.slices.items():
        moved = (net.flat_params - before)[part].reshape(gradient[name].shape)
        np.testing.assert_allclose(moved, -0.01 * np.sign(gradient[name]), rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (cc.AdaGrad, {"epsilon": 0}, ValueError, "epsilon: expected a number > 0, got 0"),
        (cc.AdaGrad, {"lr": "x"}, TypeError, "lr: expected a number"),
        (cc.RMSprop, {"decay_rate": 1}, ValueError, "decay_rate: expected a number below 1, got 1"),
        (cc.RMSprop, {"momentum": 2}, ValueError, "momentum: expected a finite number in 0..1"),
        (cc.RMSprop, {"epsilon": -1}, ValueError, "epsilon: expected a finite number"),
        (cc.RMSprop, {"weight_decay": -1}, ValueError, "weight_decay: expected"),
    ],
    ids=str,
)
def test_bad_arguments_of_adagrad_and_rmsprop_are_named(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**arguments)


@by_kind
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, "lr: expected a finite number in 0..inf, got -0.1"),
        ({"beta1": 1}, ValueError, "beta1: expected a number below 1, got 1"),
        ({"beta1": -0.1}, ValueError, "beta1: expected a finite number in 0..1"),
        ({"beta2": 1.5}, ValueError, "beta2: expected a finite number in 0..1"),
        ({"beta2": "x"}, TypeError, "beta2: expected a number"),
        ({"epsilon": 0}, ValueError, "epsilon: expected a number > 0, got 0"),
        ({"epsilon": np.nan}, ValueError, "epsilon: expected a finite number"),
        ({"weight_decay": -1}, ValueError, "weight_decay: expected"),
        ({"lr_multipliers": {"W1": np.inf}}, ValueError, r"lr_multipliers\['W1'\]: expected"),
    ],
    ids=str,
)
def test_bad_arguments_of_adam_are_named(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**arguments)


# ---- updates that take the gradient from its factors ---------------------------------------------


class Watch(cc.Callback):
    def on_step_end(self, trainer):
        self.gradient = trainer.network.flat_grads.copy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "rule", [{}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"clip_value": 0.01}]
)
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_gradients_that_nobody_sees_need_not_be_stored(dtype, rule, batch_size):
    """A callback that could look at net.grads changes no bit, and finds them."""
    x, t = np.random.default_rng(0).random((11, 6)), np.arange(11) % 3
    nets, watch = [], Watch()
    for callbacks in ([], [watch]):
        layers = [cc.Affine(5), cc.Tanh(), cc.Affine(3)]
        net = cc.Sequential(layers, input_shape=(6,), dtype=dtype)
        sgd = cc.SGD(0.1, **rule, lr_multipliers={"W1": -0.5, "b2": 0})
        cc.Trainer(net, sgd, callbacks).fit(x, t, epochs=2, batch_size=batch_size, verbose=False)
        nets.append(net)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)
    assert all(np.any(watch.gradient[part]) for part in nets[1].slices.values())


def test_a_subclass_of_sgd_with_a_step_of_its_own_gets_its_gradients():
    class Frozen(cc.SGD):
        def update_task(self, params, grads, part):
            sgd = cc.ops.native.optimizers.sgd
            return sgd(params, grads, None, np.zeros(1), 1.0, 0.0, False, 0.0, 0.0, part.row)

    net = cc.Sequential([cc.Affine(2)], input_shape=(3,))
    before = net.flat_params.copy()
    cc.Trainer(net, Frozen(0.1)).fit(np.ones((4, 3)), [0, 1, 0, 1], batch_size=1, verbose=False)
    assert same_bits(net.flat_params, before)
