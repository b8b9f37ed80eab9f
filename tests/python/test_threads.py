"""Many Python threads in the library at once, and errors in the middle of a training."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cnn_core as cc
import reproducibility
from reference import same_bits
from reference_network import Sine, assert_gradients, make, make_batch

CALLERS = 8
CONV = [
    *(lambda: cc.Conv2D(9, 3), cc.ReLU, lambda: cc.MaxPool2D(2), cc.BatchNorm, cc.Flatten),
    *(lambda: cc.Dropout(0.2), lambda: cc.Affine(5)),
]


def at_once(*works, seconds=60):
    """The results of all, begun at the same moment; a thread that hangs fails."""
    barrier = threading.Barrier(len(works))

    def begin(work):
        barrier.wait(seconds)
        return work()

    pool = ThreadPoolExecutor(len(works))
    try:
        return [future.result(seconds) for future in [pool.submit(begin, work) for work in works]]
    finally:
        pool.shutdown(wait=False)


def image_net(seed=0):
    return cc.Sequential([make() for make in CONV], input_shape=(2, 17, 15), seed=seed)


def image_batch(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 2, 17, 15), np.float32), rng.integers(0, 5, n)


# ---- at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
def test_callers_may_ask_one_network_at_once(threads, count):
    threads(count)
    net = make(["affine 70", "relu", "sine", "affine 7"], dtype="float32", input_shape=(80,))
    batches = [make_batch(net, n, seed=n) for n in (1, 3, 50, 200, 513, 700)] * 4
    expected = [(net.predict(x), net.gradient(x, t), net.evaluate(x, t)) for x, t in batches]

    def ask(part):
        return [(net.predict(x), net.gradient(x, t), net.evaluate(x, t)) for x, t in batches[part]]

    parts = [slice(caller, None, CALLERS) for caller in range(CALLERS)]
    for part, answers in zip(parts, at_once(*[lambda p=p: ask(p) for p in parts]), strict=True):
        for (y, gradient, figures), (right, wanted, known) in zip(
            answers, expected[part], strict=True
        ):
            assert same_bits(y, right) and figures == known
            assert_gradients(gradient, wanted, "float32", tolerance=0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_networks_trained_at_once_become_what_they_become_alone(threads, count):
    threads(count)
    cases = ["optimizer: Adam", "layer: BatchNorm", "layer: MaxPool2D", "layer: Dropout"] * 2
    expected = [reproducibility.digest(case, "float32") for case in cases[:4]] * 2
    assert at_once(*[lambda c=c: reproducibility.digest(c, "float32") for c in cases]) == expected


def test_numerical_gradients_at_once():
    net = make(["affine 9", "tanh", "affine 4"], input_shape=(30,))
    batches = [make_batch(net, n, seed=n) for n in range(20, 26)]
    expected = [net.numerical_gradient(x, t) for x, t in batches]
    found = at_once(*[lambda b=b: net.numerical_gradient(*b) for b in batches])
    for gradient, right in zip(found, expected, strict=True):
        assert_gradients(gradient, right, "float64", tolerance=0)


def test_kernels_called_at_once(threads):
    threads(2)
    rng = np.random.default_rng(0)
    sets = [
        (rng.random((60, 200)), rng.random((200, 50 + n)), rng.random(50 + n)) for n in range(6)
    ]
    expected = [cc.ops.affine_forward(*arrays) for arrays in sets]

    def repeat(arrays):
        return [cc.ops.affine_forward(*arrays) for _ in range(30)]

    for results, right in zip(
        at_once(*[lambda s=s: repeat(s) for s in sets]), expected, strict=True
    ):
        assert all(same_bits(result, right) for result in results)


def test_saving_hashing_and_asking_while_training(tmp_path):
    """Every file and every hash is of a moment between two updates."""
    net = image_net()
    (x, t), seen, moments = image_batch(40), [], set()
    trainer, done = cc.Trainer(net, cc.SGD(0.1)), threading.Event()

    def train():
        try:
            moments.add(cc.fingerprint(net))
            for _ in range(60):
                with net.locked():
                    trainer.step(x, t)
                    moments.add(cc.fingerprint(net))
        finally:
            done.set()

    def watch():
        while not done.is_set():
            net.save(tmp_path / "net.safetensors")
            seen.append(cc.fingerprint(cc.load(tmp_path / "net.safetensors")))
            seen.append(cc.fingerprint(net))
            net.predict(x)

    at_once(train, watch)
    assert len(moments) == 61 and seen and set(seen) <= moments


def test_the_number_of_threads_may_change_while_others_train(threads):
    expected, going = reproducibility.digest("layer: Conv2D", "float32"), threading.Event()

    def change():
        while not going.wait(0.001):
            for count in (1, 5, 2, 3):
                threads(count)

    def train():
        try:
            return [reproducibility.digest("layer: Conv2D", "float32") for _ in range(10)]
        finally:
            going.set()

    assert at_once(change, train)[1] == [expected] * 10


# ---- errors --------------------------------------------------------------------------------------

EVENTS = ["on_fit_begin", "on_epoch_begin", "on_step_end", "on_epoch_end", "on_fit_end"]
FIT = {"epochs": 2, "batch_size": 20, "sampling": "sequential", "verbose": False}


class Fails(cc.Callback):
    """Raises at one of its events, once."""

    def __init__(self, event, error):
        self.error = error
        setattr(self, event, self.fail)

    def on_step_end(self, trainer):
        pass

    def fail(self, trainer):
        if self.error is not None:
            error, self.error = self.error, None
            raise error


class Counts(cc.Callback):
    begins = ends = 0

    def on_fit_begin(self, trainer):
        self.begins += 1

    def on_fit_end(self, trainer):
        self.ends += 1


class Records(cc.Callback):
    """The fingerprint after each update."""

    def __init__(self, net):
        self.prints = [cc.fingerprint(net)]

    def on_step_end(self, trainer):
        self.prints.append(cc.fingerprint(trainer.network))


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("error", [RuntimeError("no more"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_in_a_callback_leaves_all_usable(event, error):
    net, twin, (x, t) = image_net(), image_net(), image_batch(60)
    cosine, records = cc.schedules.CosineDecay(), Records(twin)
    unhurt = cc.Trainer(twin, cc.SGD(0.1), callbacks=[cc.LearningRateSchedule(cosine), records])
    unhurt.fit(x, t, **FIT)
    callbacks = [cc.LearningRateSchedule(cosine), Fails(event, error), Counts(), Counts()]
    trainer = cc.Trainer(net, cc.SGD(0.1), callbacks=callbacks)
    with pytest.raises(type(error)):
        trainer.fit(x, t, **FIT)
    made = {"on_fit_begin": 0, "on_epoch_begin": 0, "on_step_end": 1, "on_epoch_end": 3}
    assert trainer.iteration == made.get(event, 6)
    assert cc.fingerprint(net) == records.prints[trainer.iteration]
    assert trainer.optimizer.lr == 0.1, "the schedule has not ended"
    for callback in callbacks[2:]:
        assert callback.ends == callback.begins == (event != "on_fit_begin")
    assert at_once(lambda: net.predict(x))[0].shape == (60, 5), "a lock is still held"
    history = trainer.fit(x, t, **FIT)
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("where", ["forward", "backward", "loss"])
def test_an_error_in_a_layer_or_a_loss_leaves_all_usable(where):
    armed = []

    def trip(place):
        if armed and place == where:
            raise RuntimeError(armed.pop())

    class Layer(Sine):
        def forward(self, x, training=False):
            trip("forward")
            return super().forward(x, training)

        def backward(self, dout):
            trip("backward")
            return super().backward(dout)

    class Loss(cc.Loss):
        def forward(self, y, t):
            trip("loss")
            self.difference = y - t
            return float((self.difference**2).mean())

        def backward(self):
            return 2 * self.difference / self.difference.size

    def build():
        layers = [cc.Affine(30), Layer(), cc.Affine(3)]
        net = cc.Sequential(layers, input_shape=(20,), loss=Loss(), dtype="float64")
        return net, cc.Trainer(net, cc.Adam(0.01))

    rng = np.random.default_rng(0)
    x, t = rng.random((50, 20)), rng.random((50, 3))
    (net, trainer), (twin, unhurt) = build(), build()
    for step in range(4):
        if step == 2:
            armed.append("tripped")
            with pytest.raises(RuntimeError, match="tripped"):
                trainer.step(x, t)
        trainer.step(x, t)
        unhurt.step(x, t)
    assert trainer.iteration == 4 and net.step[0] == 4
    assert cc.fingerprint(net) == cc.fingerprint(twin)
    assert at_once(lambda: net.predict(x))[0].shape == (50, 3)
