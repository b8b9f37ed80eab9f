"""What training changes besides parameters: the count of updates, masks and running statistics."""

import numpy as np
import pytest

import cnn_core as cc
from reference import same_bits

CASES = {
    "compiled": [],
    "with a layer in Python": ["plain"],
}


class Plain(cc.Layer):
    def output_shape(self, input_shape):
        return input_shape

    def forward(self, x, training=False):
        return x

    def backward(self, dout):
        return dout


def make_net(case="compiled", seed=0):
    middle = [Plain() for _ in CASES[case]]
    layers = [cc.Conv2D(3, 2), cc.BatchNorm(), cc.Tanh(), *middle, cc.Flatten(), cc.Dropout(0.4)]
    layers += [cc.Affine(6), cc.BatchNorm(), cc.Sigmoid(), cc.Dropout(0.2), cc.Affine(3)]
    return cc.Sequential(layers, input_shape=(1, 4, 4), dtype="float64", seed=seed)


def batch(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1, 4, 4)), rng.integers(0, 3, n)


by_case = pytest.mark.parametrize("case", CASES)


@by_case
def test_every_update_counts(case):
    net, (x, t) = make_net(case), batch()
    trainer = cc.Trainer(net, cc.SGD(0.1))
    assert net.step.dtype == np.int64 and net.step.shape == (1,) and net.step[0] == 0
    for expected in (1, 2):
        trainer.step(x, t)
        assert net.step[0] == expected
    trainer.fit(x, t, epochs=2, batch_size=5, verbose=False)
    assert net.step[0] == trainer.iteration == 2 + 2 * 3
    net.gradient(x, t)
    net.loss(x, t, training=True)
    net.predict(x)
    net.numerical_gradient(x[:2], t[:2])
    assert net.step[0] == 8


@by_case
def test_masks_change_from_step_to_step_and_only_then(case):
    net, (x, t) = make_net(case), batch()
    trainer = cc.Trainer(net, cc.SGD(0))  # nothing but the masks can change the loss
    losses = [net.loss(x, t, training=True) for _ in range(2)]
    losses += [trainer.step(x, t) for _ in range(3)]
    assert losses[0] == losses[1] == losses[2]
    assert len(set(losses[2:])) == 3
    history = trainer.fit(x, t, epochs=3, sampling="sequential", verbose=False)
    assert len({*losses, *history["loss"]}) == 6


@by_case
def test_step_and_fit_draw_the_same_masks(case):
    nets, (x, t) = [make_net(case), make_net(case)], batch()
    stepping = cc.Trainer(nets[0], cc.Adam(0.01))
    for start in (0, 5, 10) * 2:
        stepping.step(x[start : start + 5], t[start : start + 5])
    fitting = cc.Trainer(nets[1], cc.Adam(0.01))
    fitting.fit(x, t, epochs=2, batch_size=5, sampling="sequential", verbose=False)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)
    assert all(same_bits(nets[0].state[name], nets[1].state[name]) for name in nets[0].state)


@by_case
def test_gradient_and_numerical_gradient_see_the_same_masks_at_every_step(case):
    net, (x, t) = make_net(case), batch(6)
    trainer = cc.Trainer(net, cc.SGD(0.1))
    for _ in range(3):
        numerical = net.numerical_gradient(x, t, h=1e-5)
        for name, value in net.gradient(x, t).items():
            # The bias before a BatchNorm changes nothing: its gradient is 0 but for rounding.
            np.testing.assert_allclose(value, numerical[name], rtol=1e-6, atol=1e-9)
        trainer.step(x, t)


@by_case
def test_the_numerical_gradient_leaves_the_running_statistics_alone(case):
    net, (x, t) = make_net(case), batch(6)
    cc.Trainer(net, cc.SGD(0.1)).step(x, t)
    before = {name: value.copy() for name, value in net.state.items()}
    arrays = dict(net.state)
    for training in (True, False):
        net.numerical_gradient(x, t, training=training)
        for name, value in before.items():
            assert same_bits(net.state[name], value)
            assert net.state[name] is arrays[name]


def test_the_statistics_are_put_back_after_an_error():
    class Fails(Plain):
        calls = 0

        def forward(self, x, training=False):
            Fails.calls += 1
            if Fails.calls > 5:
                raise RuntimeError("enough")
            return x

    layers = [cc.Affine(4), cc.BatchNorm(), Fails(), cc.Affine(3)]
    net = cc.Sequential(layers, input_shape=(5,), dtype="float64")
    before = {name: value.copy() for name, value in net.state.items()}
    with pytest.raises(RuntimeError, match="enough"):
        net.numerical_gradient(np.random.default_rng(0).random((6, 5)), [0, 1, 2, 0, 1, 2])
    assert all(same_bits(net.state[name], value) for name, value in before.items())


def test_training_moves_the_running_statistics_and_answers_do_not():
    net, (x, t) = make_net(), batch()
    before = {name: value.copy() for name, value in net.state.items()}
    net.predict(x)
    net.evaluate(x, t)
    assert all(same_bits(net.state[name], value) for name, value in before.items())
    cc.Trainer(net, cc.SGD(0.1)).step(x, t)
    assert not any(same_bits(net.state[name], value) for name, value in before.items())
