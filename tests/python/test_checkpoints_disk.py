"""Checkpoints and their surroundings: two trainings in one folder, full and read-only disks."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cnn_core as cc
from cnn_core import checkpoints
from reference import Unchanged
from training_runs import Run, crash, never_stopped, start

FILE = "checkpoint.safetensors"


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
