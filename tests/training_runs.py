"""Trainings that are stopped and resumed: how they are made, and everything that they end with.

As a program, one such training for the tests that kill it:

    python training_runs.py FOLDER EVERY

says "ready", trains (or goes on, if FOLDER holds a checkpoint), and prints what it ended with.
"""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np

import cnn_core as cc
from reference_network import LogCosh, Sine

ROWS = 47
VALIDATION = 13


class Stateful(cc.Callback):
    """A callback that changes the training by what it has counted, kept in numbers and arrays."""

    def __init__(self):
        self.count, self.noise = 0, np.zeros(3)

    def on_fit_begin(self, trainer):
        self.count, self.noise = 0, np.zeros(3)
        trainer.history["count"] = []

    def on_step_end(self, trainer):
        self.count += 1
        self.noise += trainer.rng.standard_normal(3)  # moves the generator within the epoch
        trainer.optimizer.lr *= 1 + 1e-3 * np.tanh(self.noise[0])

    def on_epoch_end(self, trainer):
        trainer.history["count"].append(float(self.count))

    def state(self):
        return {"count": self.count, "noise": self.noise}

    def load_state(self, state):
        self.count, self.noise = state["count"], state["noise"].copy()


def layers(own=False):
    middle = [Sine()] if own else []
    return [
        *(cc.Conv2D(3, 3), cc.BatchNorm(), cc.ReLU(), cc.Dropout(0.2), cc.MaxPool2D(2), *middle),
        *(cc.Flatten(), cc.Affine(7), cc.BatchNorm(), cc.Tanh(), cc.Dropout(0.3), cc.Affine(4)),
    ]


def make_data(dtype="float64"):
    rng = np.random.default_rng(5)
    x, t = rng.standard_normal((ROWS + VALIDATION, 1, 6, 6)), np.arange(ROWS + VALIDATION) % 4
    x = (100 + 20 * x).astype(dtype) if dtype == "uint8" else x.astype(dtype)
    return (x[:ROWS], t[:ROWS]), (x[ROWS:], t[ROWS:])


# Name to what differs from the usual case below.
CASES = {
    "usual": {},
    "sgd": {"optimizer": lambda: cc.SGD(0.1)},
    "nesterov": {"optimizer": lambda: cc.SGD(0.1, 0.9, True, 1e-3, lr_multipliers={"W1": 0.5})},
    "adamw": {"optimizer": lambda: cc.AdamW(0.01, lr_multipliers={"b1": 0})},
    "float64": {"dtype": "float64"},
    "bytes": {"data": "uint8"},
    "replacement": {"fit": {"sampling": "replacement"}},
    "sequential": {"fit": {"sampling": "sequential"}},
    "book": {"fit": {"report": "book"}},
    "ended within an epoch": {"fit": {"iterations": 14}},
    "all rows": {"fit": {"batch_size": None}},
    "no validation": {"validation": False},
    "weights": {"weights": {"class_weight": "balanced", "sample_weight": np.arange(ROWS) / 20}},
    "in python": {"own": True},
    "own loss": {"loss": LogCosh},
    "schedule": {"callbacks": lambda: [cc.LearningRateSchedule(cc.schedules.CosineDecay(0.2))]},
    "stopped early": {"callbacks": lambda: [cc.EarlyStopping("loss", 1, min_delta=1)]},
    "of the library": {
        "callbacks": lambda: [
            cc.LearningRateSchedule(cc.schedules.CosineDecay(0.2)),
            cc.EarlyStopping("loss", 5),
        ]
    },
    "own callback": {"callbacks": lambda: [Stateful()]},
}


class Run:
    """A training of one of the cases; another one of the same case does the same."""

    def __init__(self, case, folder, every=1, callbacks=()):
        self.case, self.folder = CASES[case], str(folder)
        loss = self.case.get("loss", cc.SoftmaxCrossEntropy)()
        self.network = cc.Sequential(
            layers(self.case.get("own", False)),
            input_shape=(1, 6, 6),
            loss=loss,
            dtype=self.case.get("dtype", "float32"),
            seed=3,
        )
        optimizer = self.case.get("optimizer", lambda: cc.Adam(0.01))()
        own = self.case.get("callbacks", list)()
        checkpoint = [] if every is None else [cc.Checkpoint(folder, every or None)]
        # The checkpoint's place among the callbacks must not matter.
        self.trainer = cc.Trainer(self.network, optimizer, [*checkpoint, *own, *callbacks])

    def data(self):
        train, validation = make_data(self.case.get("data", "float64"))
        if self.case.get("loss"):
            train, validation = ((x, np.eye(4)[t]) for x, t in (train, validation))
        given = {"validation_data": validation} if self.case.get("validation", True) else {}
        return train, {**given, **self.case.get("weights", {})}

    def fit(self, **more):
        train, given = self.data()
        settings = {"epochs": 3, "batch_size": 8, **self.case.get("fit", {}), **more}
        return self.trainer.fit(*train, **given, **settings, verbose=False)

    def resume(self, path=None):
        train, given = self.data()
        return self.trainer.resume(path or self.folder, *train, **given, verbose=False)

    def result(self):
        """Everything that the training ended with, as text and numbers."""
        trainer, network = self.trainer, self.network
        arrays = {"params": network.flat_params, "step": network.step, **network.state}
        arrays |= {f"optimizer {n}": value for n, value in trainer.optimizer.state().items()}
        history = {n: np.array(v) for n, v in trainer.history.items() if n != "seconds"}
        arrays |= {f"history {n}": value for n, value in history.items()}
        arrays["last loss"] = np.array(trainer.last_loss)
        return {
            **{name: hash_of(value) for name, value in arrays.items()},
            "figures": {name: len(value) for name, value in trainer.history.items()},
            "lr": trainer.optimizer.lr,
            "epoch": trainer.epoch,
            "iteration": trainer.iteration,
            "generator": json.dumps(trainer.rng.bit_generator.state),
        }


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
    try:
        run.resume(path) if path else run.fit()
    except Crash:
        return
    raise AssertionError("no crash")


def start(folder, every):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, str(folder), str(every)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def soon():
    """0.2 s, and as much more as other programs take of this machine."""
    return 0.2 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


def hash_of(array):
    described = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(described + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def main(folder, every):
    run = Run("usual", folder, int(every))
    print("ready", flush=True)
    if os.path.exists(os.path.join(folder, "checkpoint.safetensors")):
        run.resume()
    else:
        run.fit(epochs=20)
    print(json.dumps(run.result()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
