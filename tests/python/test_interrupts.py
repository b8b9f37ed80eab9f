"""Ctrl-C and SIGTERM: between two updates, soon, and with everything left as it should be."""

import contextlib
import os
import signal
import threading
import time

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import _interrupts, checkpoints, gradient_check
from reference import Unchanged, same_bits
from training_runs import Run, soon

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
FILE = "checkpoint.safetensors"


@pytest.fixture(autouse=True)
def heard():
    """A shell's background job ignores interrupts, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def interrupt(number=signal.SIGINT):
    signal.raise_signal(number)


# ---- a training ----------------------------------------------------------------------------------


class Probe(cc.Layer):
    """A layer in plain Python that is interrupted in one of its calls, or notes them all."""

    def __init__(self, at=None):
        self.at, self.calls = at, []

    def note(self, what):
        self.calls.append(what)
        if len(self.calls) - 1 == self.at:
            interrupt()

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, x, training=False):
        self.note("training" if training else "inference")
        return x

    def backward(self, dout):
        self.note("backward")
        return dout


class Events(cc.Callback):
    """The same for the calls of a callback."""

    def __init__(self, at=None):
        self.at, self.calls, self.params = at, [], []

    def note(self, what):
        self.calls.append(what)
        if len(self.calls) - 1 == self.at:
            interrupt()

    def on_fit_begin(self, trainer):
        self.note("fit begin")

    def on_epoch_begin(self, trainer):
        self.note("epoch begin")

    def on_step_end(self, trainer):
        self.params.append(trainer.network.flat_params.tobytes())
        self.note("step end")

    def on_epoch_end(self, trainer):
        self.note("epoch end")


class Training:
    def __init__(self, folder, layer_at=None, event_at=None, report="running"):
        self.folder, self.report = folder, report
        self.layer, self.events = Probe(layer_at), Events(event_at)
        layers = [cc.Affine(6), cc.BatchNorm(), self.layer, cc.Dropout(0.4), cc.Affine(4)]
        self.network = cc.Sequential(layers, input_shape=(6,), dtype="float32")
        schedule = cc.LearningRateSchedule(cc.schedules.CosineDecay(0.2))
        callbacks = [cc.Checkpoint(folder, every=0), self.events, schedule]
        self.trainer = cc.Trainer(self.network, cc.Adam(0.01), callbacks)
        rng = np.random.default_rng(1)
        x, t = rng.random((24, 6)), np.arange(24) % 4
        self.data = (x[:17], t[:17])
        self.more = {"validation_data": (x[17:], t[17:]), "verbose": False}

    def fit(self):
        settings = {"epochs": 2, "batch_size": 6, "report": self.report}
        return self.trainer.fit(*self.data, **self.more, **settings)

    def resume(self):
        return self.trainer.resume(self.folder, *self.data, **self.more)

    def result(self):
        history = {k: v for k, v in self.trainer.history.items() if k != "seconds"}
        return self.network.flat_params.tobytes(), history, self.trainer.optimizer.lr


@pytest.mark.parametrize("report", ["running", "book"])
def test_an_interrupt_anywhere_stops_after_the_update_and_loses_nothing(report, tmp_path):
    whole = Training(tmp_path / "whole", report=report)
    whole.fit()
    places = [{"layer_at": number} for number in range(len(whole.layer.calls))]
    places += [{"event_at": number} for number in range(len(whole.events.calls))]
    assert len(places) >= 25
    for number, place in enumerate(places):
        stopped = Training(tmp_path / str(number), **place, report=report)
        with pytest.raises(KeyboardInterrupt):
            stopped.fit()
        made = stopped.trainer.iteration
        params = stopped.network.flat_params.tobytes()
        assert made == stopped.network.step[0] == len(stopped.events.params) or report == "book"
        assert made == 0 or params == whole.events.params[made - 1], place
        assert os.listdir(tmp_path / str(number)) == [FILE], place
        resumed = Training(tmp_path / str(number), report=report)
        resumed.resume()
        assert resumed.result() == whole.result(), place
        # No step end is told of twice, and none is left out.
        told = [*stopped.events.params, *resumed.events.params]
        assert told == whole.events.params, place


def test_an_interrupt_in_the_last_moment_of_a_training_that_has_ended(tmp_path):
    class AtEnd(cc.Callback):
        def on_fit_end(self, trainer):
            interrupt()

    run = Run("usual", tmp_path, callbacks=[AtEnd()])
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    assert run.trainer.iteration == 18 and os.listdir(tmp_path) == [FILE]


def test_without_a_checkpoint_the_trainer_can_go_on(tmp_path):
    run = Run("usual", "", every=None, callbacks=[Events(at=9)])
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    made = run.trainer.iteration
    assert 0 < made < 18 and run.network.step[0] == made
    free = threading.Thread(target=run.network.predict, args=(np.zeros((3, 1, 6, 6)),))
    free.start()
    free.join(10)
    assert not free.is_alive()  # another thread gets the network's lock
    run.fit()
    assert run.trainer.iteration == made + 18


def test_the_second_signal_does_not_wait(tmp_path):
    class Hangs(cc.Callback):
        def on_step_end(self, trainer):
            if trainer.iteration == 9:
                interrupt()
                interrupt()
                raise AssertionError("went on")

    run = Run("usual", tmp_path, callbacks=[Hangs()])
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    assert os.listdir(tmp_path) == [FILE]
    run = Run("usual", tmp_path)
    run.resume()
    whole = Run("usual", "", every=None)
    whole.fit()
    assert run.result() == whole.result()


def test_an_error_that_nobody_asked_for_saves_nothing(tmp_path):
    class Raises(cc.Callback):
        def on_step_end(self, trainer):
            if trainer.iteration == 9:
                raise KeyboardInterrupt  # in the middle of something, unlike a signal

    run = Run("usual", tmp_path, every=100, callbacks=[Raises()])
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    assert checkpoints.read(tmp_path).metadata["position"]["done"] == 0


def test_handlers_of_ones_own(tmp_path):
    """They are called after the update, and decide what happens."""
    heard = []

    def note(number, frame):
        heard.append((number, run.trainer.iteration, run.trainer._fit.due))

    def leave(number, frame):
        raise SystemExit(3)

    before = signal.signal(signal.SIGINT, note)
    old = signal.signal(signal.SIGTERM, leave)
    try:
        run = Run("in python", tmp_path)
        run.network.layers[5].forward = lambda x, training=False: (
            interrupt() if training and run.trainer.iteration in (1, 4) else None,
            np.sin(x),
        )[1]
        run.network.layers[5].backward = lambda dout: dout
        run.fit()
        assert heard == [(signal.SIGINT, 2, False), (signal.SIGINT, 5, False)]
        run = Run("usual", tmp_path, callbacks=[Events(at=9)])
        run.trainer.callbacks[1].note = lambda what: interrupt(signal.SIGTERM)
        with pytest.raises(SystemExit):
            run.fit()
        assert signal.getsignal(signal.SIGTERM) is leave
        run = Run("usual", tmp_path)
        run.resume()
        assert run.trainer.iteration == 18
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, old)


def test_signals_that_python_does_not_handle_are_left_alone(tmp_path):
    seen = []

    class Sees(cc.Callback):
        def on_step_end(self, trainer):
            seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    old = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Run("usual", tmp_path, callbacks=[Sees()]).fit(iterations=1)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, old)
    assert seen == [(signal.SIG_IGN, signal.SIG_DFL)]


def test_a_fit_in_another_thread_changes_no_handler(tmp_path):
    seen = []

    class Sees(cc.Callback):
        def on_step_end(self, trainer):
            seen.append(signal.getsignal(signal.SIGINT))

    run = Run("usual", tmp_path, callbacks=[Sees()])
    thread = threading.Thread(target=run.fit)
    thread.start()
    thread.join()
    assert set(seen) == {signal.default_int_handler} and run.trainer.iteration == 18


def test_a_training_within_a_training_stops_too():
    class Inner(cc.Callback):
        def on_step_end(self, trainer):
            inner = Run("usual", "", every=None, callbacks=[Events(at=2)])
            made.append(inner)
            inner.fit()

    made = []
    outer = Run("usual", "", every=None, callbacks=[Inner()])
    with pytest.raises(KeyboardInterrupt):
        outer.fit()
    assert outer.trainer.iteration == 1 and len(made) == 1 and made[0].trainer.iteration == 1


def test_a_deferral_lets_go_of_what_it_has_kept():
    with pytest.raises(KeyboardInterrupt), _interrupts.Deferral() as deferral:
        interrupt()
        assert deferral.pending == signal.SIGINT
    with pytest.raises(ValueError, match="other"), _interrupts.Deferral():
        interrupt()
        raise ValueError("other")
    with _interrupts.Deferral() as deferral:
        with pytest.raises(KeyboardInterrupt), deferral.at_once():
            interrupt()
        assert deferral.safe and deferral.pending is None


# ---- long calls ----------------------------------------------------------------------------------


def seconds_until_stopped(call, *arrays, delay=0.15):
    """Interrupt a long call after a while; how long it takes to stop, at best of three."""

    def stop(number, frame):
        raise KeyboardInterrupt

    waited = []
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(3):
            began = time.perf_counter()
            with Unchanged(*arrays), contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, delay)
                call()
                raise AssertionError("too short to be interrupted")
            waited.append(time.perf_counter() - began - delay)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return min(waited)


def million(shape, dtype="float32"):
    """A million rows in little memory."""
    return np.broadcast_to(np.ones((1, *shape), dtype), (10**6, *shape))


@pytest.mark.parametrize("what", ["predict", "evaluate", "accuracy", "confusion_matrix"])
def test_a_million_rows(what):
    net = cc.models.lenet5()
    x, t = million((1, 28, 28)), np.zeros(10**6, np.int64)
    expected = net.predict(x[:700])
    call = (lambda: net.predict(x)) if what == "predict" else (lambda: getattr(net, what)(x, t))
    assert seconds_until_stopped(call, net.flat_params, *net.state.values()) < soon()
    assert same_bits(net.predict(x[:700]), expected)


@pytest.mark.parametrize("model", ["two_layer", "lenet5"])
def test_the_numerical_gradient(model):
    """Compiled and, behind convolutions, parameter by parameter."""
    make = {"two_layer": lambda: cc.models.two_layer_net(784, 400, 10), "lenet5": cc.models.lenet5}
    net = make[model]()
    x, t = np.random.default_rng(0).random((500, *net.input_shape)), np.arange(500) % 10
    arrays = [net.flat_params, *net.state.values()]
    assert seconds_until_stopped(lambda: net.numerical_gradient(x, t), *arrays) < soon()
    small = net.gradient(x[:5], t[:5])
    assert set(small) == set(net.params)


def test_the_numerical_gradient_does_not_depend_on_its_pieces(monkeypatch):
    net = cc.models.two_layer_net(7, 5, 3)
    x, t = np.random.default_rng(0).random((6, 7)), np.arange(6) % 3
    whole = net.numerical_gradient(x, t)
    for work in (1, 1e4, 1e99):
        monkeypatch.setattr(gradient_check, "WORK_AT_ONCE", work)
        pieces = net.numerical_gradient(x, t)
        assert all(same_bits(pieces[name], whole[name]) for name in whole)


def test_a_training_and_its_validation():
    net = cc.models.lenet5()
    x, t = million((1, 28, 28)), np.zeros(10**6, np.int64)
    trainer = cc.Trainer(net, cc.SGD(0.0))

    def train(rows, **more):
        return lambda: trainer.fit(x[:rows], t[:rows], batch_size=100, verbose=False, **more)

    assert seconds_until_sigint(train(20_000, epochs=100)) < soon()
    assert seconds_until_sigint(train(100, validation_data=(x, t))) < soon()
    assert seconds_until_sigint(train(100, report="book", validation_data=(x, t))) < soon()


def seconds_until_sigint(call, delay=0.3):
    """The same for SIGINT, which a training keeps waiting."""
    waited = []
    for _ in range(3):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        began = time.perf_counter()
        with contextlib.suppress(KeyboardInterrupt):
            timer.start()
            call()
            raise AssertionError("too short to be interrupted")
        waited.append(time.perf_counter() - began - delay)
    return min(waited)
