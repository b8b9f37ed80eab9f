"""Trainings that crash and are resumed: the same bits as one that was never stopped."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cnn_core as cc
import training_runs
from cnn_core import checkpoints
from reference import Unchanged
from training_runs import CASES, Run

HIGH = os.environ.get("CNN_CORE_TEST_EFFORT") == "high"
FILE = "checkpoint.safetensors"


class Crash(Exception):
    pass


class CrashAt(cc.Callback):
    """Ends the training by an error, as the callbacks are told of one of its updates."""

    def __init__(self, update):
        self.update = update

    def on_step_end(self, trainer):
        if trainer.iteration == self.update:
            raise Crash


def never_stopped(case):
    run = Run(case, "", every=None)
    run.fit()
    return run.result()


def crash(case, folder, update, every=1, path=None):
    run = Run(case, folder, every, [CrashAt(update)])
    with pytest.raises(Crash):
        run.resume(path) if path else run.fit()


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


def start(folder, every):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, training_runs.__file__, str(folder), str(every)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


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
        folder, every, trainings = (
            tmp_path / str(trainings),
            (1, 3, 0)[trainings % 3],
            trainings + 1,
        )
        while True:
            with start(folder, every) as process:
                time.sleep(rng.uniform(0, seconds))
                process.kill()
                result = process.stdout.read()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
            kills += 1
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


# ---- two trainings in one folder -----------------------------------------------------------------


def refused_by_the_lock(case, folder):
    run = Run(case, folder)
    before = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    for begin in (run.fit, run.resume):
        with (
            Unchanged(run.network.flat_params),
            pytest.raises(BlockingIOError, match=r"another training .* there") as caught,
        ):
            begin()
        assert caught.value.filename == str(folder)
    assert run.trainer.iteration == 0
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="no flock here")
def test_two_trainings_in_one_folder_are_refused(tmp_path):
    class Second(cc.Callback):
        def on_step_end(self, trainer):
            if trainer.iteration == 2:
                refused_by_the_lock("sgd", tmp_path)

    run = Run("sgd", tmp_path, callbacks=[Second()])
    run.fit()
    assert os.listdir(tmp_path) == [FILE]
    assert run.result() == never_stopped("sgd")


@pytest.mark.skipif(sys.platform == "win32", reason="no flock here")
def test_one_checkpoint_object_for_two_trainings_is_refused(tmp_path):
    class Second(cc.Callback):
        def on_step_end(self, trainer):
            other = Run("sgd", "", every=None)
            other.trainer.callbacks = run.trainer.callbacks[:1]
            with pytest.raises(BlockingIOError):
                other.fit()

    run = Run("sgd", tmp_path, callbacks=[Second()])
    run.fit(iterations=1)


@pytest.mark.skipif(sys.platform == "win32", reason="no flock here")
def test_another_process_is_refused_until_it_is_killed(tmp_path):
    with start(tmp_path, 1) as process:
        try:
            while not (tmp_path / FILE).exists():
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGSTOP)
            refused_by_the_lock("usual", tmp_path)
        finally:
            process.kill()
    run = Run("usual", tmp_path)
    run.resume()
    assert run.trainer.iteration == 120


def test_the_lock_is_given_back_after_an_error(tmp_path):
    class Fails(cc.Callback):
        def on_fit_end(self, trainer):
            raise RuntimeError("enough")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="enough"):
            Run("sgd", tmp_path, callbacks=[Fails()]).fit()
    crash("sgd", tmp_path, 3)
    assert os.listdir(tmp_path) == [FILE]


# ---- disks ---------------------------------------------------------------------------------------


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_checkpoint_and_raises(call, tmp_path, monkeypatch):
    class FullFrom(cc.Callback):
        def on_step_end(self, trainer):
            if trainer.iteration == 9:
                monkeypatch.setattr(os, call, full)

    with pytest.raises(OSError, match="No space left"):
        Run("usual", tmp_path, callbacks=[FullFrom()]).fit()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == [FILE]
    assert checkpoints.read(tmp_path).metadata["position"]["done"] == 8
    run = Run("usual", tmp_path)
    run.resume()
    assert run.result() == never_stopped("usual")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_file_that_may_not_grow(tmp_path):
    """A real write that fails halfway, as on a full disk."""
    import resource

    class LimitFrom(cc.Callback):
        def on_step_end(self, trainer):
            if trainer.iteration == 9:
                size = os.path.getsize(tmp_path / FILE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError) as caught:
            Run("usual", tmp_path, callbacks=[LimitFrom()]).fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == [FILE]
    run = Run("usual", tmp_path)
    run.resume()
    assert run.result() == never_stopped("usual")


@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
def test_a_full_disk_and_a_read_only_one(tmp_path):
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "x", tmp_path]).returncode
    ):
        pytest.skip("may not mount a small disk")
    try:
        folder = tmp_path / "run"
        crash("usual", folder, 7)
        before = (folder / FILE).read_bytes()
        filling = tmp_path / "filling"
        with pytest.raises(OSError, match="No space left"), open(filling, "wb", 0) as file:
            while True:
                file.write(bytes(1024))
        with pytest.raises(OSError, match="No space left"):
            Run("usual", folder).resume()
        assert (folder / FILE).read_bytes() == before and os.listdir(folder) == [FILE]
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            Run("usual", folder).resume()
        with pytest.raises(OSError, match="Read-only file system"):
            Run("usual", tmp_path / "new").fit()
        assert (folder / FILE).read_bytes() == before and os.listdir(folder) == [FILE]
        subprocess.run(["mount", "-o", "remount,rw", tmp_path], check=True)
        filling.unlink()
        run = Run("usual", folder)
        run.resume()
        assert run.result() == never_stopped("usual")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_a_folder_that_may_not_be_written(tmp_path):
    crash("usual", tmp_path, 7)
    os.chmod(tmp_path, 0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("nothing is forbidden to root")
        with pytest.raises(PermissionError):
            Run("usual", tmp_path).resume()
        assert os.listdir(tmp_path) == [FILE]
    finally:
        os.chmod(tmp_path, 0o700)
