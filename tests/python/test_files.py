"""Files that are written whole or not at all, and the lock of a folder."""

import os
import subprocess
import sys
import threading

import pytest

from cnn_core._files import Lock, remove_temporaries, write_atomically


def test_a_reader_sees_one_file_or_the_other(tmp_path):
    path, sizes = tmp_path / "f", (10, 300_000)
    write_atomically(path, b"x" * sizes[0])
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            write_atomically(path, bytes([number % 256]) * sizes[number % 2])
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            data = path.read_bytes()
            assert len(data) in sizes and len(set(data)) == 1
    finally:
        stop.set()
        writer.join()
    assert os.listdir(tmp_path) == ["f"]


def test_only_the_files_own_remains_are_removed(tmp_path):
    names = [".f.0a.tmp", ".f.0a.tm", ".g.0a.tmp", "f.tmp", ".f.0b.tmp"]
    for name in ("f", *names):
        (tmp_path / name).write_bytes(b"")
    remove_temporaries(tmp_path / "f")
    assert sorted(os.listdir(tmp_path)) == sorted({"f", *names} - {".f.0a.tmp", ".f.0b.tmp"})


COUNT = """
import sys
import time
from cnn_core._files import Lock
folder, times = sys.argv[1], int(sys.argv[2])
while times:
    lock = Lock(folder + "/lock")
    try:
        lock.acquire()
    except BlockingIOError:
        time.sleep(0.0002)
        continue
    with open(folder + "/count") as file:
        count = int(file.read())
    with open(folder + "/count", "w") as file:
        file.write(str(count + 1))
    lock.release()
    times -= 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no flock here")
def test_one_holder_at_a_time(tmp_path):
    """Processes that count together in a file lose no count; the lock's file goes each time."""
    (tmp_path / "count").write_text("0")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", COUNT, str(tmp_path), "150"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "450"
    assert os.listdir(tmp_path) == ["count"]


def test_a_lock_is_given_back_once(tmp_path):
    lock = Lock(tmp_path / "lock")
    lock.release()
    lock.acquire()
    with pytest.raises(BlockingIOError):
        lock.acquire()
    lock.release()
    lock.acquire()
    lock.release()
    assert os.listdir(tmp_path) == []
