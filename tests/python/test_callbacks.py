"""Callbacks: their order, stopping, what they may do during a fit; and the trainer's errors."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cnn_core as cc
from reference import Unchanged, same_bits
from reference_network import make, make_batch

WORDS = ["affine 8", "tanh", "affine 4"]


def data(rows):
    return make_batch(make(WORDS), rows)


# ---- callbacks -----------------------------------------------------------------------------------


class Notes(cc.Callback):
    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def note(self, event, trainer):
        figures = len(trainer.history["loss"])
        self.notes.append((self.name, event, trainer.epoch, trainer.iteration, figures))

    def on_fit_begin(self, trainer):
        self.note("fit", trainer)

    def on_epoch_begin(self, trainer):
        self.note("epoch", trainer)

    def on_step_end(self, trainer):
        self.note("step", trainer)

    def on_epoch_end(self, trainer):
        self.note("end", trainer)

    def on_fit_end(self, trainer):
        self.note("done", trainer)


def test_callbacks_are_called_in_order():
    notes = []
    callbacks = [Notes("a", notes), Notes("b", notes)]
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), callbacks)
    x, t = data(20)
    trainer.fit(x, t, epochs=2, iterations=3, batch_size=10, verbose=False)
    events = [
        ("fit", 0, 0, 0),
        ("epoch", 1, 0, 0),
        ("step", 1, 1, 0),
        ("step", 1, 2, 0),
        ("end", 1, 2, 1),
        ("epoch", 2, 2, 1),
        ("step", 2, 3, 1),
        ("end", 2, 3, 2),
        ("done", 2, 3, 2),
    ]
    assert notes == [(name, *event) for event in events for name in "ab"]


@pytest.mark.parametrize(
    ("event", "updates", "figures"),
    [
        ("on_fit_begin", 0, 0),
        ("on_epoch_begin", 1, 1),
        ("on_step_end", 1, 1),
        ("on_epoch_end", 3, 1),
    ],
)
@pytest.mark.parametrize("report", ["running", "book"])
def test_stop_ends_the_training(event, updates, figures, report):
    class Stop(cc.Callback):
        pass

    setattr(Stop, event, lambda self, trainer: setattr(trainer, "stop", True))
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), [Stop()])
    x, t = data(30)
    history = trainer.fit(x, t, epochs=5, batch_size=10, report=report, verbose=False)
    assert trainer.iteration == updates
    assert len(history["loss"]) == figures
    trainer.callbacks.clear()
    trainer.fit(x, t, batch_size=10, verbose=False)  # the next fit begins afresh
    assert trainer.iteration == updates + 3


def test_a_callback_may_ask_the_network_and_change_the_rate():
    x, t = data(30)

    class Asks(cc.Callback):
        def on_step_end(self, trainer):
            net = trainer.network
            for n in range(1, 13):  # more plans than are kept
                net.predict(2 * x[:n])
            net.gradient(3 * x[:10], t[:10])
            net.evaluate(x, t)

        def on_epoch_end(self, trainer):
            trainer.optimizer.lr /= 2

    nets = [make(WORDS), make(WORDS)]
    trainer = cc.Trainer(nets[0], cc.SGD(0.4), [Asks()])
    trainer.fit(x, t, epochs=3, batch_size=10, verbose=False)
    assert trainer.optimizer.lr == 0.05
    plain = cc.Trainer(nets[1], cc.SGD())
    for epoch in range(3):
        plain.optimizer.lr = 0.4 / 2**epoch
        plain.fit(x, t, batch_size=10, verbose=False)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


def test_other_threads_may_predict_during_a_fit():
    x, t = data(60)
    nets = [make(["affine 8", "sine", "affine 4"]) for _ in range(2)]
    trainers = [cc.Trainer(net, cc.SGD(0.1, 0.9)) for net in nets]
    fit = {"epochs": 15, "batch_size": 7, "verbose": False}
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(trainers[0].fit, x, t, **fit)
        answers = [pool.submit(nets[0].predict, x[:n]) for n in (7, 20, 60) * 10]
        running.result(timeout=60)
    assert all(np.isfinite(answer.result()).all() for answer in answers)
    trainers[1].fit(x, t, **fit)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


def test_a_callback_may_train_too():
    x, t = data(20)

    class Extra(cc.Callback):
        def on_step_end(self, trainer):
            trainer.step(x[:10], t[:10])

    net, twin = make(WORDS), make(WORDS)
    fit = {"batch_size": 10, "sampling": "sequential", "verbose": False}
    cc.Trainer(net, cc.SGD(0.1, 0.9), [Extra()]).fit(x, t, **fit)
    plain = cc.Trainer(twin, cc.SGD(0.1, 0.9))
    for start in (0, 0, 10, 0):
        plain.step(x[start : start + 10], t[start : start + 10])
    assert same_bits(net.flat_params, twin.flat_params)


def test_an_error_in_a_callback_ends_the_fit_in_order():
    notes = []

    class Fails(cc.Callback):
        def on_step_end(self, trainer):
            raise RuntimeError("enough")

        def on_fit_end(self, trainer):
            notes.append("done")

    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1), [Fails()])
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(*data(20), verbose=False)
    assert notes == ["done"]
    trainer.callbacks.clear()
    trainer.fit(*data(20), verbose=False)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"network": 3}, TypeError, "network: expected a Sequential, got 3"),
        ({"optimizer": "sgd"}, TypeError, "optimizer: expected a cnn_core.Optimizer, got 'sgd'"),
        ({"optimizer": cc.SGD}, TypeError, "optimizer: expected a cnn_core.Optimizer"),
        ({"callbacks": [print]}, TypeError, "callbacks: expected a cnn_core.Callback"),
        ({"callbacks": cc.Callback()}, TypeError, "callbacks: expected a list"),
        ({"callbacks": None}, TypeError, "callbacks: expected a list"),
        ({"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
        ({"seed": "x"}, TypeError, "seed: expected an integer >= 0, got 'x'"),
    ],
)
def test_bad_arguments_of_a_trainer_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        cc.Trainer(**{"network": make(WORDS), "optimizer": cc.SGD(), **arguments})


X, T = np.zeros((5, 6)), [0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected an integer >= 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs: expected an integer, got 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer >= 1, got 0"),
        ({"batch_size": "all"}, TypeError, "batch_size: expected an integer, got 'all'"),
        ({"iterations": 0}, ValueError, "iterations: expected an integer >= 1, got 0"),
        ({"sampling": "random"}, ValueError, "sampling: expected one of .*, got 'random'"),
        ({"report": "all"}, ValueError, "report: expected one of .*, got 'all'"),
        ({"validation_data": X}, ValueError, r"validation_data: expected a pair \(x, t\)"),
        ({"validation_data": (X,)}, ValueError, r"validation_data: expected a pair \(x, t\)"),
        ({"validation_data": (X[:, :5], T)}, ValueError, "validation_data: x: expected shape"),
        ({"validation_data": (X, T[1:])}, ValueError, "validation_data: t: expected shape"),
        ({"validation_data": (X, [9] * 5)}, ValueError, "validation_data: t: .* got 9"),
        ({"validation_data": (X[:0], [])}, ValueError, "validation_data: x: expected at least"),
    ],
    ids=str,
)
def test_bad_arguments_of_fit_are_named_before_anything_happens(arguments, error, message):
    net, notes = make(WORDS), []
    trainer = cc.Trainer(net, cc.SGD(1), [Notes("a", notes)])
    with Unchanged(net.flat_params), pytest.raises(error, match=message):
        trainer.fit(X, T, verbose=False, **arguments)
    assert notes == []
    assert trainer.iteration == 0
