"""Short steps: many in one call, and the number of threads that `fit` finds by itself."""

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import _fit, _pace


class Machine:
    """Steps that take as long as `seconds` says for a number of threads."""

    def __init__(self, seconds):
        self.seconds, self.pace = seconds, _pace.Pace()

    def train(self, duration, most, noise=lambda: 1.0):
        """Steps for so long, in calls of about a millisecond; the share of time of each number."""
        spent = {}
        while sum(spent.values()) < duration:
            threads = self.pace.choose(most)
            steps = max(int(0.001 / self.seconds(threads)), 1)
            took = steps * self.seconds(threads) * noise()
            spent[threads] = spent.get(threads, 0.0) + took
            self.pace.note(steps, took)
        total = sum(spent.values())
        return {threads: part / total for threads, part in spent.items()}


@pytest.mark.parametrize("most", [1, 2, 7, 64])
@pytest.mark.parametrize("best", [1, 3, 64])
@pytest.mark.parametrize("step", [1e-5, 1e-4, 3e-3])
def test_the_fastest_number_is_found_and_kept(step, best, most):
    def seconds(threads):
        return step * (best / threads if threads <= best else 1 + 0.2 * (threads - best))

    machine = Machine(seconds)
    machine.train(300 * seconds(most) / _pace.TRIAL_SHARE, most)
    shares = machine.train(300 * seconds(1) / _pace.TRIAL_SHARE, most)
    found = max(shares, key=shares.get)
    near = [n for n in shares if seconds(n) < seconds(min(best, most)) * 2]
    assert found in near and shares[found] > 0.95, shares
    assert max(shares) <= most


def test_it_follows_what_changes():
    """Another process takes a core for a while: each of two threads then waits for the other."""
    seconds = {1: 1.4e-4, 2: 0.9e-4}
    machine = Machine(lambda threads: seconds[threads])
    for seconds[2], found in ((0.9e-4, 2), (3e-4, 1), (0.9e-4, 2), (3e-4, 1)):
        machine.train(1.0, 2)
        assert machine.train(1.0, 2)[found] > 0.98


@pytest.mark.parametrize("cold", [1, 2, 3, 10])
def test_slow_first_steps_decide_nothing(cold):
    """Of a short training all calls but those of a trial have the threads that were asked for."""
    slow = iter([5.0] * cold)
    machine = Machine(lambda threads: 4e-3 / threads)
    shares = machine.train(1.0, 2, lambda: next(slow, 1.0))
    assert shares[2] > 0.95 and machine.pace.threads == 2


def test_noise_changes_nothing_for_long():
    rng = np.random.default_rng(0)
    machine = Machine(lambda threads: 1.4e-4 / threads)
    shares = machine.train(20.0, 2, lambda: 1 + rng.exponential(0.3))
    assert shares[2] > 0.95


def test_fewer_threads_than_were_found_are_enough():
    machine = Machine(lambda threads: 1e-4 / threads)
    assert set(machine.train(1.0, 1)) == {1}
    assert max(machine.train(2.0, 8)) == 8
    assert set(machine.train(1.0, 2)) == {1, 2}


def test_the_bits_are_those_of_any_number(monkeypatch, threads):
    """Of every call another number, as no machine would choose."""
    x, t = np.random.default_rng(0).random((3000, 784), np.float32), np.arange(3000) % 10
    results, numbers = [], [[1], [4], [1, 3, 2, 4]]
    for choice in numbers:
        calls = iter(range(10**6))
        monkeypatch.setattr(
            _pace.Pace, "choose", lambda _, most, c=choice, i=calls: c[next(i) % len(c)]
        )
        threads(4)
        layers = [cc.Affine(50), cc.Sigmoid(), cc.Affine(10)]
        net = cc.Sequential(layers, input_shape=(784,), seed=0)
        history = cc.Trainer(net, cc.SGD(0.1)).fit(x, t, epochs=3, verbose=False)
        results.append((net.flat_params.tobytes(), history["loss"]))
    assert results[0] == results[1] == results[2]


class Halve(cc.Callback):
    def on_epoch_end(self, trainer):
        trainer.optimizer.lr *= 0.5


class StepByStep(Halve):
    def on_step_end(self, trainer):
        pass


@pytest.mark.parametrize("sampling", ["shuffle", "replacement", "sequential"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("iterations", [None, 1, 31])
def test_updates_made_in_one_call_are_those_made_one_by_one(
    monkeypatch, iterations, reduction, sampling
):
    """With a mask per step, moments, a learning rate per epoch, and a last batch of 6 rows."""
    x, t = np.random.default_rng(0).random((101, 5)), np.arange(101) % 4
    results = []
    for seconds, callback in ((0.0, Halve), (1e-4, Halve), (1e9, Halve), (1e9, StepByStep)):
        monkeypatch.setattr(_fit, "SECONDS_AT_ONCE", seconds)
        layers = [cc.Affine(16), cc.ReLU(), cc.Dropout(0.3), cc.Affine(4)]
        loss = cc.SoftmaxCrossEntropy(reduction=reduction)
        net = cc.Sequential(layers, input_shape=(5,), loss=loss, dtype="float64", seed=3)
        trainer = cc.Trainer(net, cc.Adam(0.01), callbacks=[callback()])
        options = {"sampling": sampling, "iterations": iterations, "batch_size": 19}
        history = trainer.fit(x, t, epochs=9, verbose=False, **options)
        figures = history["loss"], history["accuracy"], trainer.last_loss, trainer.iteration
        results.append((net.flat_params.tobytes(), int(net.step[0]), figures))
    assert all(result == results[0] for result in results[1:])
    assert results[0][1] == min(iterations or 54, 54)
