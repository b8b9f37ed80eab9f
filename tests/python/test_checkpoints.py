"""Trainings that crash and are resumed: the same bits as one that was never stopped."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import checkpoints
from training_runs import CASES, Crash, CrashAt, Run, crash, never_stopped, start

HIGH = os.environ.get("CNN_CORE_TEST_EFFORT") == "high"
FILE = "checkpoint.safetensors"


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_ends_with_the_same_bits(case, tmp_path):
    expected = never_stopped(case)
    updates = expected["iteration"]
    assert updates >= 3
    for update in sorted({1, 2, updates // 2, updates}):
        folder = tmp_path / str(update)
        crash(case, folder, update)
        run = Run(case, folder)
        history = run.resume()
        assert run.result() == expected, update
        assert history is run.trainer.history
        assert history["seconds"] == sorted(history["seconds"])


def test_after_a_crash_at_every_single_update(tmp_path):
    expected = never_stopped("usual")
    for update in range(1, expected["iteration"] + 1):
        crash("usual", tmp_path, update)
        run = Run("usual", tmp_path)
        run.resume()
        assert run.result() == expected, update


@pytest.mark.parametrize("every", [1, 2, 5, 0, 100])  # 0: once per epoch
def test_after_one_crash_after_the_other(every, tmp_path):
    expected = never_stopped("own callback")
    crash("own callback", tmp_path, 3, every)
    for update in (8, 9, 15):
        crash("own callback", tmp_path, update, every, tmp_path)
    run = Run("own callback", tmp_path, every)
    run.resume()
    assert run.result() == expected


def test_after_an_error_in_the_middle_of_an_update(tmp_path):
    class Fails(cc.Layer):
        calls = 0

        def forward(self, x, training=False):
            return x

        def backward(self, dout):
            Fails.calls += 1
            if Fails.calls == 9:
                raise Crash
            return dout

    def make(folder):
        net = cc.Sequential(
            [cc.Affine(5), cc.BatchNorm(), Fails(), cc.Dropout(0.5), cc.Affine(4)],
            input_shape=(6,),
        )
        return cc.Trainer(net, cc.Adam(), [cc.Checkpoint(folder, 1)])

    x, t = np.random.default_rng(0).random((40, 6)), np.arange(40) % 4
    fit = {"epochs": 4, "batch_size": 9, "verbose": False}
    with pytest.raises(Crash):
        make(tmp_path / "a").fit(x, t, **fit)
    resumed, whole = make(tmp_path / "a"), make(tmp_path / "b")
    resumed.resume(tmp_path / "a", x, t, verbose=False)
    whole.fit(x, t, **fit)
    assert resumed.network.flat_params.tobytes() == whole.network.flat_params.tobytes()
    assert resumed.network.step == whole.network.step == resumed.iteration


def test_nan_in_the_figures_comes_back(tmp_path):
    def make():
        run = Run("usual", tmp_path)
        run.network.params["W1"][:] = np.nan
        return run

    whole = make()
    whole.trainer.callbacks.clear()
    whole.fit()
    first = make()
    first.trainer.callbacks.append(CrashAt(13))
    with pytest.raises(Crash):
        first.fit()
    run = Run("usual", tmp_path)
    run.resume()
    assert run.result() == whole.result() and np.isnan(run.trainer.history["loss"]).all()


def test_sparse_rows(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    x, t = sparse.random(40, 30, 0.2, "csr", random_state=0), np.arange(40) % 4

    def make(*callbacks):
        net = cc.Sequential([cc.Affine(5), cc.Tanh(), cc.Affine(4)], input_shape=(30,))
        return cc.Trainer(net, cc.Adam(), [cc.Checkpoint(tmp_path, 1), *callbacks])

    fit = {"epochs": 3, "batch_size": 7, "verbose": False}
    whole = make()
    whole.fit(x, t, **fit)
    with pytest.raises(Crash):
        make(CrashAt(8)).fit(x, t, **fit)
    resumed = make()
    with pytest.raises(cc.CheckpointError, match="data: x: hash of some rows"):
        resumed.resume(tmp_path, 2 * x, t)
    resumed.resume(tmp_path, x, t, verbose=False)
    assert resumed.network.flat_params.tobytes() == whole.network.flat_params.tobytes()


def test_a_second_fit_after_the_resumed_one(tmp_path):
    whole = Run("schedule", "", every=None)
    whole.fit()
    whole.fit(epochs=1)
    crash("schedule", tmp_path, 7)
    run = Run("schedule", tmp_path)
    run.resume()
    run.fit(epochs=1)
    assert run.result() == whole.result()


def test_a_crash_in_a_second_fit(tmp_path):
    whole = Run("schedule", "", every=None)
    whole.fit()
    whole.fit()
    first = Run("schedule", tmp_path, callbacks=[CrashAt(30)])
    first.fit()
    with pytest.raises(Crash):
        first.fit()
    run = Run("schedule", tmp_path)
    assert len(run.resume()["loss"]) == 3  # of the second fit alone
    assert run.result() == whole.result()


def test_the_trainer_that_was_interrupted_can_resume_itself(tmp_path):
    expected = never_stopped("own callback")
    run = Run("own callback", tmp_path, callbacks=[CrashAt(11)])
    with pytest.raises(Crash):
        run.fit()
    run.trainer.callbacks.pop()
    run.resume()
    assert run.result() == expected


def test_a_training_that_has_ended_only_gets_its_state_back(tmp_path):
    for case in ("usual", "stopped early", "schedule"):
        first = Run(case, tmp_path / case)
        first.fit()
        run = Run(case, tmp_path / case, callbacks=[CrashAt(first.trainer.iteration)])
        run.resume()
        assert run.result() == first.result()


def test_another_number_of_threads(tmp_path, threads):
    threads(1)
    expected = never_stopped("usual")
    threads(3)
    crash("usual", tmp_path, 10)
    threads(2)
    run = Run("usual", tmp_path)
    run.resume()
    assert run.result() == expected


@pytest.mark.parametrize("append", [False, True])
def test_a_csv_log_has_every_epoch_once(append, tmp_path):
    def make(*more):
        log = cc.CSVLogger(tmp_path / "log.csv", append=append)
        return Run("usual", tmp_path, every=4, callbacks=[log, *more])

    class CrashAtEnd(cc.Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 2:
                raise Crash

    with pytest.raises(Crash):  # after the line of the epoch and before its checkpoint
        make(CrashAtEnd()).fit()
    make().resume()
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]


# ---- killed --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_at_random_moments(tmp_path):
    """Folders of trainings that are killed again and again until they end."""
    wanted = 100 if HIGH else 5
    rng = random.Random(0)
    with start(tmp_path / "whole", 1) as process:
        began = time.perf_counter()
        expected = process.stdout.readline()
    seconds = time.perf_counter() - began
    assert json.loads(expected)["iteration"] == 120
    kills = inside = trainings = 0
    while kills < wanted:
        folder, every = tmp_path / str(trainings), (1, 3, 0)[trainings % 3]
        trainings += 1
        while True:
            with start(folder, every) as process:
                time.sleep(rng.uniform(0, seconds))
                process.kill()
                result = process.stdout.read()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
            kills += 1
            if folder.exists():  # else it was killed while it started
                inside += any(name.endswith(".tmp") for name in os.listdir(folder))
        assert result == expected
        assert os.listdir(folder) == [FILE]
    print(f"{kills} kills in {trainings} trainings, {inside} of them while a file was written")


# ---- when, where, and what -----------------------------------------------------------------------


@pytest.fixture
def writes(monkeypatch):
    """The numbers of updates after which a checkpoint was written."""
    numbers, write = [], checkpoints.write_atomically

    def record(path, data):
        write(path, data)
        position = checkpoints.read(path).metadata["position"]
        numbers.append((position["done"], position["in_epoch"]))

    monkeypatch.setattr(checkpoints, "write_atomically", record)
    return numbers


def test_when_checkpoints_are_written(tmp_path, writes):
    Run("usual", tmp_path, every=0).fit()  # six updates per epoch
    assert writes == [(0, False), (6, False), (12, False), (18, False)]
    writes.clear()
    Run("usual", tmp_path, every=4).fit()
    expected = [(0, False), (4, True), (8, True), (12, True), (16, True), (18, False)]
    assert writes == expected
    writes.clear()
    run = Run("usual", tmp_path)
    run.trainer.callbacks = [cc.Checkpoint(tmp_path / "new", every=0)]
    run.fit()
    assert writes == [] and os.listdir(tmp_path / "new") == []


def test_a_checkpoint_before_the_first_update(tmp_path):
    crash("usual", tmp_path, 1, every=50)
    run = Run("usual", tmp_path)
    run.resume()
    assert run.result() == never_stopped("usual")


def test_the_file_is_plain_safetensors_with_json(tmp_path):
    from safetensors import safe_open

    run = Run("usual", tmp_path)
    run.trainer.callbacks[0].notes = {"mine": [1, "two"]}
    run.fit()
    with safe_open(tmp_path / FILE, framework="np") as file:
        assert set(file.keys()) == {
            *(f"params.{name}" for name in run.network.params),
            *(f"state.{name}" for name in run.network.state),
            *("optimizer.mean", "optimizer.mean_square", "optimizer.steps"),
            *(f"history.{name}" for name in run.trainer.history),
            "sums",
        }
        assert file.get_tensor("params.W1").tobytes() == run.network.params["W1"].tobytes()
        metadata = json.loads(file.metadata()["cnn_core_checkpoint"])
    assert metadata["network"] == json.loads(json.dumps(run.network.get_config()))
    assert metadata["notes"] == {"mine": [1, "two"]} == checkpoints.read(tmp_path).notes
    assert metadata["finished"] is True


def test_numbers_of_numpy_are_kept_and_other_objects_refused(tmp_path):
    class Counts(cc.Callback):
        def state(self):
            return {"small": np.float32(0.5), "many": [np.int64(3)], "array": np.arange(3)}

        def load_state(self, state):
            loaded.append(state)

    loaded = []
    settings = {"epochs": np.int64(2), "batch_size": np.uint8(9)}
    Run("usual", tmp_path, callbacks=[Counts()]).fit(**settings)
    Run("usual", tmp_path, callbacks=[Counts()]).resume()
    assert loaded[0]["small"] == 0.5 and loaded[0]["many"] == [3]
    assert loaded[0]["array"].tolist() == [0, 1, 2]
    Counts.state = lambda self: {"net": run.network}
    run = Run("usual", tmp_path, callbacks=[Counts()])
    with pytest.raises(TypeError, match="what JSON can hold, got a Sequential"):
        run.fit()
    assert os.listdir(tmp_path) == [FILE]


def test_an_unfinished_training_is_kept_when_another_one_begins(tmp_path):
    crash("usual", tmp_path, 8)
    before = (tmp_path / FILE).read_bytes()
    Run("sgd", tmp_path).fit()
    previous = tmp_path / "checkpoint-previous.safetensors"
    assert previous.read_bytes() == before
    Run("adamw", tmp_path).fit()  # the one of SGD had come to its end
    assert previous.read_bytes() == before
    run = Run("usual", tmp_path)
    run.resume(previous)
    assert run.result() == never_stopped("usual")
    assert sorted(os.listdir(tmp_path)) == [previous.name, FILE]


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    rest, other = tmp_path / f".{FILE}.abcdef.tmp", tmp_path / ".mine.tmp"
    for path in (rest, other, tmp_path / "checkpoint.lock"):
        path.write_bytes(b"half of a f")
    Run("usual", tmp_path).fit()
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", FILE]


def test_integers_of_numpy_can_be_saved(tmp_path):
    net = cc.Sequential([cc.Affine(3)], input_shape=(2,))
    trainer = cc.Trainer(net, cc.SGD(np.float64(0.5)), [cc.Checkpoint(tmp_path, np.int64(2))])
    sizes = {"epochs": np.int64(2), "batch_size": np.int32(2), "iterations": np.uint8(3)}
    trainer.fit(np.ones((4, 2)), np.zeros(4, int), **sizes, verbose=False)
    assert checkpoints.read(tmp_path).settings["iterations"] == 3
