"""What the tests of the command line share: a small data set, and checks of failures."""

import builtins
import gzip
import struct
import sys

import numpy as np

JSON_KEYS = {"model", "dataset", "epochs", "test_accuracy", "train_seconds", "parameters"}
JSON_KEYS |= {"threads", "isa", "dtype"}


def write_idx(path, array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def make_images(n, seed):
    """Pictures of 10 x 10 with one bright row: the class is which row."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) % 3
    x = rng.integers(0, 60, (n, 10, 10))
    x[np.arange(n), 3 * t + 1] = 255
    return x, t


def failed(result, code, *words):
    """The command ended with this code and explained it, in one line at its end."""
    got, _, err = result
    assert got == code and "Traceback" not in err, err
    lines = err.strip().splitlines()
    assert code == 2 or len(lines) == 1, err
    for word in words:
        assert word in lines[-1], err


def hide(monkeypatch, package):
    """Let imports of a package fail, as if it were not installed."""
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
