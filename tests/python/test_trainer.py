"""Trainer: steps against NumPy, which rows an epoch uses, its figures, callbacks, state, errors."""

import re

import numpy as np
import pytest

import cnn_core as cc
import reference
from reference import DTYPES, Unchanged, lay_out, same_bits
from reference_network import LOSSES, TOLERANCE, Sine, make, make_batch, run

WORDS = ["affine 8", "tanh", "affine 4"]
SAMPLINGS = ("shuffle", "replacement", "sequential")


def data(rows, *, seed=0, dtype="float64"):
    return make_batch(make(WORDS, dtype=dtype), rows, seed=seed)


class Recorder(Sine):
    """A first layer that notes the first column of every training batch."""

    def __init__(self):
        self.batches = []

    def forward(self, x, training=False):
        if training:
            self.batches.append(x[:, 0].astype(int).tolist())
        return x

    def backward(self, dout):
        return dout


def rows_used(rows, **arguments):
    """The numbers of the rows in each batch of a fit; labels must come with their rows."""
    recorder = Recorder()
    net = cc.Sequential([recorder, cc.Affine(5)], input_shape=(2,), dtype="float64")
    numbers = np.arange(rows)
    x = np.stack([numbers, np.zeros(rows)], axis=1)
    trainer = cc.Trainer(net, cc.SGD(0), seed=arguments.pop("seed", 0))
    history = trainer.fit(x, numbers % 5, verbose=False, **arguments)
    return recorder.batches, trainer, history


# ---- steps ---------------------------------------------------------------------------------------


class PassOn(cc.Layer):
    """A layer in plain Python that changes nothing, but cuts the step into pieces."""

    def forward(self, x, training=False):
        return x

    def backward(self, dout):
        return dout


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [cc.SGD, cc.Adam])
def test_updates_behind_their_gradients_are_those_of_a_pass_of_their_own(kind, dtype, threads):
    """The lane of a dense layer's gradient, or one pass over the flat array: the same bits."""
    options = {"momentum": 0.9} if kind is cc.SGD else {}
    factors = {"W1": 0.5, "b2": 0, "W3": -1}
    x, t = np.random.default_rng(0).random((37, 70)), np.arange(37) % 4
    nets = []
    for own in ([], [PassOn()]):
        layers = [cc.Affine(300), cc.ReLU(), cc.Affine(65), cc.Tanh(), cc.Affine(4), *own]
        nets.append(cc.Sequential(layers, input_shape=(70,), dtype=dtype))
        optimizer = kind(0.01, **options, lr_multipliers=factors)
        for n in (1, 2, 7):
            threads(n)
            cc.Trainer(nets[-1], optimizer).fit(x, t, epochs=2, batch_size=20, verbose=False)
    assert all(same_bits(value, nets[1].params[name]) for name, value in nets[0].params.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_equals_plain_numpy_and_returns_the_loss_before_it(loss, dtype):
    for n in (1, 2, 13, 100, 513):
        net = make(WORDS, loss=loss, dtype=dtype)
        x, t = make_batch(net, n, loss)
        value, gradient, _, _ = run(WORDS, net.params, x, t, loss)
        expected = {name: net.params[name] - 0.5 * gradient[name] for name in gradient}
        before = net.loss(x, t, training=True)
        with Unchanged(x, t):
            returned = cc.Trainer(net, cc.SGD(0.5)).step(x, t)
        assert type(returned) is float
        assert returned == before
        assert returned == pytest.approx(value, rel=1e-5 if dtype == "float32" else 1e-12)
        for name in expected:
            np.testing.assert_allclose(
                net.params[name], expected[name], rtol=0, atol=TOLERANCE[dtype]
            )


def test_fit_and_step_make_the_same_updates_and_share_their_velocity():
    x, t = data(40)
    one, two = make(WORDS), make(WORDS)
    stepping, mixed = (cc.Trainer(net, cc.SGD(0.1, momentum=0.9)) for net in (one, two))
    for _ in range(4):
        for start in range(0, 40, 10):
            stepping.step(x[start : start + 10], t[start : start + 10])
    fit = {"batch_size": 10, "sampling": "sequential", "verbose": False}
    mixed.fit(x, t, epochs=1, **fit)
    for start in range(0, 40, 10):
        mixed.step(x[start : start + 10], t[start : start + 10])
    mixed.fit(x, t, epochs=2, **fit)
    assert same_bits(one.flat_params, two.flat_params)
    assert stepping.iteration == mixed.iteration == 16


def test_a_step_uses_the_optimizer_that_the_trainer_has_now():
    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1))
    trainer.step(*data(9))
    trainer.optimizer = cc.SGD(0)
    before = net.flat_params.copy()
    trainer.step(*data(9))
    assert np.array_equal(net.flat_params, before)


def test_two_trainers_of_one_network_do_not_disturb_each_other():
    x, t = data(9)
    net, alone = make(WORDS), make(WORDS)
    first, second = cc.Trainer(net, cc.SGD(0.1)), cc.Trainer(net, cc.SGD(0.3))
    one = cc.Trainer(alone, cc.SGD(0.1))
    for _ in range(3):
        for trainer, lr in ((first, 0.1), (second, 0.3)):
            one.optimizer.lr = lr
            assert trainer.step(x, t) == one.step(x, t)
    assert same_bits(net.flat_params, alone.flat_params)


def test_gradients_and_answers_between_steps_change_nothing():
    x, t = data(9)
    net, alone = make(WORDS), make(WORDS)
    trainer, other = cc.Trainer(net, cc.SGD(0.1, 0.9)), cc.Trainer(alone, cc.SGD(0.1, 0.9))
    for n in (9, 4, 9):
        trainer.step(x[:n], t[:n])
        other.step(x[:n], t[:n])
        net.gradient(2 * x, t)
        net.predict(3 * x)
        net.numerical_gradient(x[:2], t[:2])
    assert same_bits(net.flat_params, alone.flat_params)


# ---- the rows of an epoch ------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 9, 10, 11, 25])
def test_sequential_takes_the_rows_in_order_and_keeps_the_last_batch(rows):
    batches, trainer, _ = rows_used(rows, epochs=2, batch_size=10, sampling="sequential")
    epoch = [list(range(start, min(start + 10, rows))) for start in range(0, rows, 10)]
    assert batches == 2 * epoch
    assert (trainer.epoch, trainer.iteration) == (2, 2 * len(epoch))


@pytest.mark.parametrize("rows", [9, 10, 25, 101])
def test_shuffle_takes_every_row_once_per_epoch_in_a_new_order(rows):
    batches, _, _ = rows_used(rows, epochs=3, batch_size=10)
    per_epoch = -(-rows // 10)
    epochs = [np.concatenate(batches[i * per_epoch :][:per_epoch]).tolist() for i in range(3)]
    assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [len(batch) for batch in batches[:per_epoch]][-1] == (rows % 10 or min(rows, 10))


def test_replacement_draws_full_batches_from_all_rows():
    batches, _, _ = rows_used(25, epochs=40, batch_size=10, sampling="replacement")
    assert [len(batch) for batch in batches] == [10] * 120
    counts = np.bincount(np.ravel(batches), minlength=25)
    assert len(counts) == 25
    # 1,200 draws of 25: 48 each, give or take 6.8.
    assert 20 < counts.min() < 48 < counts.max() < 80
    assert any(len(set(batch)) < 10 for batch in batches)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_batch_larger_than_the_data_is_all_of_it(sampling):
    batches, trainer, _ = rows_used(7, epochs=2, batch_size=100, sampling=sampling)
    assert [len(batch) for batch in batches] == [7, 7]
    assert trainer.iteration == 2


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_labels_come_with_their_rows(sampling):
    rng = np.random.default_rng(0)
    t = rng.integers(0, 4, 101)
    x = np.eye(4)[t] * 3 - 1  # the label can be read off the row
    net = cc.Sequential([cc.Affine(4, np.eye(4) * 20)], input_shape=(4,), dtype="float64")
    for targets in (t, t.astype(np.uint8), np.eye(4)[t], np.eye(4, dtype=np.float32)[t]):
        history = cc.Trainer(net, cc.SGD(0)).fit(
            x, targets, batch_size=10, sampling=sampling, verbose=False
        )
        assert history["accuracy"] == [1.0]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_seed_decides_which_rows(sampling):
    seeds = (0, 0, 1)
    runs = [rows_used(30, epochs=2, batch_size=7, sampling=sampling, seed=s)[0] for s in seeds]
    assert runs[0] == runs[1]
    assert (runs[0] == runs[2]) == (sampling == "sequential")


def test_iterations_stop_inside_an_epoch():
    batches, trainer, history = rows_used(25, epochs=9, iterations=5, batch_size=10)
    assert [len(batch) for batch in batches] == [10, 10, 5, 10, 10]
    assert (trainer.epoch, trainer.iteration) == (2, 5)
    assert len(history["loss"]) == 2
    more, _, _ = rows_used(25, epochs=1, iterations=50, batch_size=10)
    assert len(more) == 3  # epochs are a limit, too


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_data_of_every_dtype_arrives_as_it_is(kind, dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 6)).astype(kind)
    t = np.arange(50) % 4
    floats = pixels.astype(dtype) * (np.asarray(1 / 255, dtype) if kind == np.uint8 else 1)
    nets = [make(WORDS, dtype=dtype) for _ in range(2)]
    for net, x in zip(nets, (pixels, floats), strict=True):
        with Unchanged(x):
            cc.Trainer(net, cc.SGD(0.001)).fit(x, t, epochs=2, batch_size=8, verbose=False)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_train_like_pixels_divided_by_255(dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 6), dtype=np.uint8)
    t = np.arange(50) % 4
    nets = [make(WORDS, dtype=dtype) for _ in range(2)]
    for net, x in zip(nets, (pixels, pixels / 255), strict=True):
        trainer = cc.Trainer(net, cc.SGD(0.1))
        trainer.fit(x, t, epochs=3, batch_size=8, verbose=False)
        trainer.step(x, t)
    close = {"float32": 1e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(nets[0].flat_params, nets[1].flat_params, rtol=0, atol=close)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_memory_mapped_data(tmp_path, kind):
    images = np.random.default_rng(0).integers(0, 256, (40, 2, 3)).astype(kind)
    labels = np.arange(40) % 4
    for name, array in (("x", images), ("t", labels)):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xt"]
    nets = [make(WORDS, dtype="float32") for _ in range(2)]
    histories = [
        cc.Trainer(net, cc.SGD(0.01)).fit(*pair, validation_data=pair, batch_size=9, verbose=False)
        for net, pair in zip(nets, (mapped, (images, labels)), strict=True)
    ]
    assert same_bits(nets[0].flat_params, nets[1].flat_params)
    assert histories[0]["val_loss"] == histories[1]["val_loss"]


@pytest.mark.parametrize("layout", ["fortran", "reversed", "strided", "unaligned", "readonly"])
def test_data_of_any_strides(layout):
    x, t = data(50)
    nets = [make(WORDS) for _ in range(2)]
    for net, pair in zip(nets, ((x, t), (lay_out(x, layout), lay_out(t, layout))), strict=True):
        cc.Trainer(net, cc.SGD(0.1)).fit(*pair, batch_size=9, verbose=False)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


# ---- figures -------------------------------------------------------------------------------------


def test_running_figures_are_means_over_the_rows_as_they_were_trained_on():
    x, t = data(25)
    x_val, t_val = data(11, seed=5)
    net, twin = make(WORDS), make(WORDS)
    history = cc.Trainer(net, cc.SGD(0.3)).fit(
        x,
        t,
        epochs=3,
        batch_size=10,
        sampling="sequential",
        verbose=False,
        validation_data=(x_val, t_val),
    )
    expected = {key: [] for key in ("loss", "accuracy", "val_loss", "val_accuracy")}
    trainer = cc.Trainer(twin, cc.SGD(0.3))
    for _ in range(3):
        loss = correct = 0
        for start in (0, 10, 20):
            batch = x[start : start + 10], t[start : start + 10]
            correct += np.count_nonzero(twin.predict(batch[0]).argmax(axis=1) == batch[1])
            loss += trainer.step(*batch) * len(batch[0])
        expected["loss"].append(loss / 25)
        expected["accuracy"].append(correct / 25)
        expected["val_loss"].append(twin.loss(x_val, t_val))
        expected["val_accuracy"].append(twin.accuracy(x_val, t_val))
    for key, values in expected.items():
        assert history[key] == pytest.approx(values, rel=1e-14), key


def test_book_figures_are_measured_after_the_first_update_of_each_epoch():
    x, t = data(25)
    x_val, t_val = data(11, seed=5)
    net, twin = make(WORDS), make(WORDS)
    history = cc.Trainer(net, cc.SGD(0.3)).fit(
        x,
        t,
        epochs=3,
        iterations=7,
        batch_size=10,
        sampling="sequential",
        report="book",
        verbose=False,
        validation_data=(x_val, t_val),
    )
    expected = {key: [] for key in ("loss", "accuracy", "val_loss", "val_accuracy")}
    trainer = cc.Trainer(twin, cc.SGD(0.3))
    for step in range(7):
        start = step % 3 * 10
        trainer.step(x[start : start + 10], t[start : start + 10])
        if step % 3 == 0:
            for prefix, pair in (("", (x, t)), ("val_", (x_val, t_val))):
                expected[f"{prefix}loss"].append(twin.loss(*pair))
                expected[f"{prefix}accuracy"].append(twin.accuracy(*pair))
    for key, values in expected.items():
        assert history[key] == values, key
    assert len(history["loss"]) == 3
    assert same_bits(net.flat_params, twin.flat_params)


@pytest.mark.parametrize("report", ["running", "book"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "log_cosh"])
def test_a_history_holds_plain_floats_one_per_epoch(loss, report):
    net = make(WORDS, loss=loss)
    x, t = make_batch(net, 25, loss)
    arguments = {"epochs": 4, "batch_size": 10, "report": report, "verbose": False}
    trainer = cc.Trainer(net, cc.SGD(0.1))
    history = trainer.fit(x, t, validation_data=(x, t), **arguments)
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    for key, values in history.items():
        assert [type(value) for value in values] == [float] * 4, key
    assert history["seconds"] == sorted(history["seconds"])
    assert trainer.history is history
    assert list(trainer.fit(x, t, **arguments)) == ["loss", "accuracy", "seconds"]
    assert len(history["loss"]) == 4  # the next fit has a history of its own


def test_training_learns():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 6))
    t = (x[:, 0] * x[:, 1] > 0).astype(int)  # not linear
    net = cc.models.multi_layer_net(6, [20], 2, activation="tanh")
    history = cc.Trainer(net, cc.SGD(0.1, momentum=0.9)).fit(
        x, t, epochs=100, batch_size=20, verbose=False
    )
    assert history["accuracy"][0] < 0.7
    assert history["accuracy"][-1] > 0.97
    assert history["loss"][-1] < 0.1 < 0.6 < history["loss"][0]


def test_verbose_lines_go_to_stdout_and_nothing_else_is_printed(capfd):
    x, t = data(25)
    arguments = {"epochs": 2, "batch_size": 10, "validation_data": (x, t)}
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1))
    trainer.fit(x, t, verbose=False, **arguments)
    assert capfd.readouterr() == ("", "")
    for report in ("running", "book"):
        history = trainer.fit(x, t, report=report, **arguments)
        out, err = capfd.readouterr()
        assert err == ""
        lines = out.splitlines()
        assert len(lines) == 2
        figures = zip(history["loss"], history["val_accuracy"], strict=True)
        for line, (loss, accuracy) in zip(lines, figures, strict=True):
            assert re.fullmatch(
                rf"epoch +\d+  loss {loss:.4f}  accuracy \d\.\d{{4}}  val loss \d\.\d{{4}}"
                rf"  val accuracy {accuracy:.4f}  \d+\.\d\d s",
                line,
            )


# ---- seeds -------------------------------------------------------------------------------------


def test_the_drawing_of_batches_has_a_seed_of_its_own():
    def train(net_seed, seed):
        net = make(WORDS, seed=net_seed)
        trainer = cc.Trainer(net, cc.SGD(0.1), seed=seed)
        trainer.fit(*data(50), batch_size=10, verbose=False)
        return net.flat_params

    assert same_bits(train(3, None), train(3, 3))
    assert not np.array_equal(train(3, None), train(3, 4))


def test_the_second_fit_goes_on_where_the_first_ended():
    x, t = data(50)
    one, two = make(WORDS), make(WORDS)
    fit = {"batch_size": 10, "verbose": False}
    cc.Trainer(one, cc.SGD(0.1, 0.9)).fit(x, t, epochs=4, **fit)
    trainer = cc.Trainer(two, cc.SGD(0.1, 0.9))
    for epochs in (1, 3):
        trainer.fit(x, t, epochs=epochs, **fit)
    assert same_bits(one.flat_params, two.flat_params)
    assert (trainer.epoch, trainer.iteration) == (4, 20)


def test_a_network_without_parameters_only_reports():
    net = make(["tanh", "sine"])
    x, t = make_batch(net, 12)
    trainer = cc.Trainer(net, cc.SGD(0.1, momentum=0.9))
    history = trainer.fit(x, t, epochs=2, batch_size=5, verbose=False)
    assert history["loss"] == pytest.approx([net.loss(x, t)] * 2, rel=1e-12)


def test_layers_of_ones_own_train_like_compiled_ones():
    class OwnTanh(cc.Layer):
        def forward(self, x, training=False):
            self.y = cc.ops.tanh_forward(x)
            return self.y

        def backward(self, dout):
            return cc.ops.tanh_backward(dout, self.y)

    class OwnLoss(cc.Loss):
        def forward(self, y, t):
            loss, self.dy = cc.ops.softmax_cross_entropy(y, t)
            return loss

        def backward(self):
            return self.dy

    def net(layer, loss):
        layers = [cc.Affine(8, cc.Normal(0.4)), layer, cc.Affine(4, cc.Normal(0.4))]
        return cc.Sequential(layers, input_shape=(6,), loss=loss, dtype="float32")

    nets = [net(cc.Tanh(), None), net(OwnTanh(), None), net(OwnTanh(), OwnLoss())]
    histories = []
    for each in nets:
        trainer = cc.Trainer(each, cc.SGD(0.1, 0.9))
        history = trainer.fit(*data(53, dtype="float32"), epochs=3, batch_size=10, verbose=False)
        histories.append((history["loss"], history["accuracy"]))
    for each, history in zip(nets[1:], histories[1:], strict=True):
        assert same_bits(each.flat_params, nets[0].flat_params)
        assert history == histories[0]


def test_nan_in_the_data_shows_in_the_figures():
    x, t = data(20)
    x[3, 2] = np.nan
    net = make(WORDS)
    history = cc.Trainer(net, cc.SGD(0.1)).fit(x, t, batch_size=20, verbose=False)
    assert np.isnan(history["loss"][0])
    assert np.isnan(net.params["W1"]).any()


def test_one_step_by_hand():
    net = cc.Sequential(
        [cc.Affine(1, [[2.0]], [1.0])],
        input_shape=(1,),
        loss=cc.SumSquaredError(),
        dtype="float64",
    )
    # y = 2 * 3 + 1 = 7; loss = (7 - 5)^2 / 2 = 2; dW = 2 * 3, db = 2.
    assert cc.Trainer(net, cc.SGD(0.1)).step([[3.0]], [[5.0]]) == 2.0
    assert net.params["W1"][0, 0] == pytest.approx(2 - 0.6, rel=1e-15)
    assert net.params["b1"][0] == pytest.approx(1 - 0.2, rel=1e-15)
    assert reference.sum_squared_error([[7.0]], [[5.0]])[0] == 2
