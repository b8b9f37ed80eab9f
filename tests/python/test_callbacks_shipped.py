"""The callbacks that come with the library: early stopping, a log of figures. StopOnNaN: apart."""

import csv

import numpy as np
import pytest

import cnn_core as cc
from reference import same_bits
from reference_network import make, make_batch

WORDS = ["affine 8", "tanh", "affine 4"]
FIT = {"batch_size": 10, "verbose": False}


def data(rows, seed=0):
    return make_batch(make(WORDS), rows, seed=seed)


class Figures(cc.Callback):
    """Puts figures of the test's choice into the history and keeps each epoch's parameters."""

    def __init__(self, name, values):
        self.name, self.values, self.params = name, values, []

    def on_fit_begin(self, trainer):
        trainer.history[self.name] = []

    def on_epoch_end(self, trainer):
        trainer.history[self.name].append(self.values[len(self.params)])
        self.params.append(trainer.network.flat_params.copy())


def fit_with(values, name="figure", **options):
    """The epochs made, the best one (from 1), and the parameters: at the end, after each epoch."""
    figures, stopping = Figures(name, values), cc.EarlyStopping(name, **options)
    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1), [figures, stopping])
    trainer.fit(*data(30), epochs=len(values), **FIT)
    return len(figures.params), stopping, net.flat_params, figures.params


# ---- early stopping ------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([5, 4, 3, 3.5, 3.1, 3.2, 1], {}, 6, 3),
        ([5, 4, 3, 3.5, 2, 3.1, 3.2, 3.3, 0], {}, 8, 5),  # a better one begins the count again
        ([5, 5, 5], {"patience": 1}, 2, 1),  # as good is not better
        ([5, 4, 3, 2], {"patience": 1}, 4, 4),  # never stopped
        ([5, 4.95, 4.9, 4.4, 4], {"patience": 2, "min_delta": 0.5}, 3, 1),
        ([5, 4.95, 4.4, 4, 3.8, 3], {"patience": 2, "min_delta": 0.5}, 6, 6),
        ([1, 2, 3, 2, 2, 2, 9], {"mode": "max"}, 6, 3),
        ([1, 2, 3, 2, 2, 2], {"mode": "min", "patience": 2}, 3, 1),
        ([NAN, 3, NAN, NAN, 1], {"patience": 2}, 4, 2),
        ([NAN, NAN, NAN], {"patience": 2}, 2, None),
        ([0.5, NAN, 0.1, 0.2], {"patience": 3}, 4, 3),
    ],
)
def test_when_it_stops_and_what_it_restores(values, options, epochs, best):
    for restore in (True, False):
        made, stopping, after, params = fit_with(values, restore_best=restore, **options)
        assert made == epochs
        assert stopping.best_epoch == best
        assert stopping.best == (None if best is None else values[best - 1])
        kept = best if restore and best is not None else epochs
        assert same_bits(after, params[kept - 1])


@pytest.mark.parametrize("name", ["accuracy", "val_accuracy", "balanced_accuracy"])
def test_an_accuracy_is_better_when_it_is_higher(name):
    if name in ("accuracy", "val_accuracy"):
        assert cc.EarlyStopping(name)._is_better(0.5)
    made, stopping, _, _ = fit_with([0.1, 0.5, 0.4, 0.3, 0.6], "balanced_accuracy", patience=2)
    assert (made, stopping.best) == (4, 0.5)


def test_a_real_validation_loss_and_running_statistics():
    layers = [cc.Affine(30), cc.BatchNorm(), cc.ReLU(), cc.Affine(4)]
    net = cc.Sequential(layers, input_shape=(6,), seed=1)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((60, 6)), rng.integers(0, 4, 60)  # noise: nothing to learn
    stopping = cc.EarlyStopping(patience=2)
    trainer = cc.Trainer(net, cc.Adam(0.02), [stopping])
    history = trainer.fit(x[:40], t[:40], epochs=200, validation_data=(x[40:], t[40:]), **FIT)
    losses = history["val_loss"]
    assert len(losses) < 200
    assert np.argmin(losses) == len(losses) - 3 == stopping.best_epoch - 1
    assert stopping.best == min(losses)
    assert net.evaluate(x[40:], t[40:])[0] == min(losses)  # parameters and statistics are back


def test_each_fit_begins_afresh_and_epochs_go_on_counting():
    stopping = cc.EarlyStopping("loss", patience=1, min_delta=1e9)
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), [stopping])
    for best in (1, 3):
        assert len(trainer.fit(*data(20), epochs=9, **FIT)["loss"]) == 2
        assert stopping.best_epoch == best


def test_the_best_is_restored_after_an_error_too():
    class Fails(cc.Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 3:
                raise RuntimeError("enough")

    figures = Figures("figure", [1, 2, 3])
    stopping, net = cc.EarlyStopping("figure"), make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1), [figures, stopping, Fails()])
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(*data(20), epochs=5, **FIT)
    assert same_bits(net.flat_params, figures.params[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience: expected an integer >= 1, got 0"),
        ({"patience": 1.5}, TypeError, "patience: expected an integer, got 1.5"),
        ({"min_delta": -1}, ValueError, "min_delta: expected a number >= 0, got -1"),
        ({"min_delta": "x"}, TypeError, "min_delta: expected a number"),
        ({"mode": "low"}, ValueError, "mode: expected one of .*, got 'low'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        cc.EarlyStopping(**arguments)


def test_a_figure_that_is_not_there_is_named_before_anything_happens():
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), [cc.EarlyStopping()])
    with pytest.raises(ValueError, match=r"monitor: .* no figure 'val_loss'; there are \['loss'"):
        trainer.fit(*data(20), **FIT)
    assert trainer.iteration == 0


# ---- log -----------------------------------------------------------------------------------------


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_line_per_epoch_with_all_digits(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("what was there\n")
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), [cc.CSVLogger(path)])
    history = trainer.fit(*data(20), epochs=3, validation_data=data(9, 1), **FIT)
    lines = read(path)
    assert lines[0] == ["epoch", *history]
    assert [int(line[0]) for line in lines[1:]] == [1, 2, 3]
    for column, name in enumerate(history, 1):
        assert [float(line[column]) for line in lines[1:]] == history[name]


def test_a_line_is_there_as_soon_as_its_epoch_has_ended(tmp_path):
    path, counts = tmp_path / "log.csv", []

    class Looks(cc.Callback):
        def on_epoch_end(self, trainer):
            counts.append(len(read(path)))

    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), [cc.CSVLogger(path), Looks()])
    trainer.fit(*data(20), epochs=3, **FIT)
    assert counts == [2, 3, 4]


def test_append_goes_on_and_refuses_other_columns(tmp_path):
    path = tmp_path / "log.csv"
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), [cc.CSVLogger(path, append=True)])
    for _ in range(2):
        trainer.fit(*data(20), epochs=2, **FIT)
    assert [line[0] for line in read(path)] == ["epoch", "1", "2", "3", "4"]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"log.csv: expected the columns .*'val_loss'.*, got \["):
        trainer.fit(*data(20), validation_data=data(9), **FIT)
    assert path.read_bytes() == before
    path.write_text("")
    trainer.fit(*data(20), **FIT)
    assert len(read(path)) == 2


def test_a_folder_that_is_not_there_is_an_error_before_the_first_step(tmp_path):
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.1), [cc.CSVLogger(tmp_path / "no" / "log.csv")])
    with pytest.raises(FileNotFoundError, match=r"log\.csv"):
        trainer.fit(*data(20), **FIT)
    assert trainer.iteration == 0


# ---- the last loss -------------------------------------------------------------------------------


def test_the_last_loss_is_that_of_the_last_update():
    trainer, (x, t) = cc.Trainer(make(WORDS), cc.SGD(0.1)), data(20)
    assert np.isnan(trainer.last_loss)
    assert trainer.step(x, t) == trainer.last_loss
    history = trainer.fit(x, t, batch_size=20, sampling="sequential", verbose=False)
    assert trainer.last_loss == history["loss"][0]


# ---- sizes of batches ----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "updates"), [(None, 2), (30, 2), (1, 60), (7, 10)])
def test_all_rows_or_one_row_per_update(size, updates):
    x, t = data(30)
    net, by_hand = make(WORDS), make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1, 0.9))
    fit = {"epochs": 2, "sampling": "sequential", "verbose": False}
    trainer.fit(x, t, batch_size=size, **fit)
    assert trainer.iteration == updates
    stepping, step = cc.Trainer(by_hand, cc.SGD(0.1, 0.9)), size or 30
    for _ in range(2):
        for start in range(0, 30, step):
            stepping.step(x[start : start + step], t[start : start + step])
    assert same_bits(net.flat_params, by_hand.flat_params)
