"""Children of a test: Python programs with a time limit, so that what hangs fails."""

import subprocess
import sys
import textwrap

from native.c_build import environment

START = """
import os, sys, threading
import numpy as np
import cnn_core as cc

def make(seed=0):
    layers = [cc.Conv2D(7, 3), cc.ReLU(), cc.MaxPool2D(2), cc.Flatten(), cc.Dropout(0.2)]
    return cc.Sequential([*layers, cc.Affine(5)], input_shape=(3, 17, 15), seed=seed)

rng = np.random.default_rng(0)
x, t = rng.random((64, 3, 17, 15), np.float32), rng.integers(0, 5, 64)

def train(seed=0, steps=6):
    net = make(seed)
    trainer = cc.Trainer(net, cc.Adam(0.01))
    for _ in range(steps):
        trainer.step(x, t)
    return cc.fingerprint(net)
"""


def run(*code, before="", timeout=60, path=None, **changes):
    """What a fresh process prints, its lines split into words.

    START comes before the pieces of code, and `before` before it. `path`: they become that file,
    which children of the child can import. `changes` of the environment; None removes a variable.
    """
    program = before + START + "".join(map(textwrap.dedent, code))
    if path is None:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    else:
        path.write_text(program)
        command = [sys.executable, "-W", "ignore::DeprecationWarning", str(path)]
    variables = {**environment(), "OMP_NUM_THREADS": "2", **changes}
    done = subprocess.run(
        command,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return [line.split() for line in done.stdout.splitlines()]
