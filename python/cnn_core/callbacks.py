"""Callbacks: what happens between the steps and epochs of `Trainer.fit`."""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cnn_core._checks import choice, finite
from cnn_core._optimizer import rate
from cnn_core.layers import positive

if TYPE_CHECKING:
    from cnn_core.trainer import Trainer

Array = npt.NDArray[Any]
Mode = Literal["auto", "min", "max"]


class Callback:
    """Base class. Each method gets the trainer: its network, optimizer, epoch, iteration, history.

    Setting `trainer.stop = True` ends the training after the present step.
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first step."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Before the first step of an epoch; `trainer.epoch` counts from 1."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After every update. Defining it costs a call per step."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After the epoch's figures have been added to `trainer.history`."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step, also when the training was stopped."""

    def on_safe_point(self, trainer: Trainer) -> None:
        """Where a `Checkpoint` may be written: before the first step, after the other methods of
        all callbacks at the end of a step and of an epoch, and when a signal has interrupted the
        fit. Callbacks that define it are the first to get `on_fit_begin`."""

    def _unsaved(self, done: int) -> int:
        """After `done` updates, how many more may be made before `on_safe_point`."""
        return 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of it, by name: arrays, and what JSON can hold."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; called in `Trainer.resume`, after `on_fit_begin`."""


class LearningRateSchedule(Callback):
    """Sets the learning rate before every update: the optimizer's own, times schedule(progress).

    Parameters
    ----------
    schedule : a function of the progress, the share of the fit's updates that have been made, to
        a factor >= 0; see cnn_core.schedules. The progress is that in the middle of the update,
        so that it is neither 0 nor 1.

    When the fit ends, the optimizer has its own learning rate again.

    Examples
    --------
    >>> cosine = cc.LearningRateSchedule(cc.schedules.CosineDecay(warmup=0.1))
    >>> trainer = cc.Trainer(net, cc.Adam(0.003), callbacks=[cosine])
    """

    def __init__(self, schedule: Callable[[float], float]) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule: expected a function of the progress, got {schedule!r}")
        self.schedule = schedule
        self._lr, self._done = 0.0, 0

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._lr, self._done = trainer.optimizer.lr, 0
        self._set(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        self._done += 1
        if self._done < trainer.planned:
            self._set(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        trainer.optimizer.lr = self._lr

    def state(self) -> dict[str, Any]:
        return {"lr": self._lr, "done": self._done}

    def load_state(self, state: dict[str, Any]) -> None:
        self._lr, self._done = rate("lr", state["lr"]), int(state["done"])

    def _set(self, trainer: Trainer) -> None:
        trainer.optimizer.lr = self._lr * self.schedule((self._done + 0.5) / trainer.planned)


class EarlyStopping(Callback):
    """Ends the training when a figure has not become better for some epochs.

    Parameters
    ----------
    monitor : the figure, a key of the history; default "val_loss".
    patience : epochs in a row without a better figure after which the training ends, default 3.
    min_delta : better means better than the best one by more than this, default 0.
    restore_best : when the fit ends, whatever ended it, give the network the parameters and the
        running statistics of the best epoch; default True.
    mode : "min" or "max", what is better; "auto" (default) is "max" for an accuracy, else "min".

    A NaN is never better. The next fit begins afresh.

    Attributes
    ----------
    best, best_epoch : the best figure of the last fit and its epoch; None where there was none.

    Examples
    --------
    >>> trainer = cc.Trainer(net, cc.SGD(0.1), callbacks=[cc.EarlyStopping(patience=3)])
    >>> trainer.fit(x, t, epochs=100, validation_data=(x_test, t_test))

    Source: Trask, Grokking Deep Learning, chapter 8.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        *,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: Mode = "auto",
    ) -> None:
        self.monitor, self.patience = monitor, positive("patience", patience)
        self.min_delta = finite("min_delta", min_delta)
        if self.min_delta < 0:
            raise ValueError(f"min_delta: expected a number >= 0, got {min_delta!r}")
        self.restore_best: bool = bool(restore_best)
        self.mode: Mode = choice("mode", mode, get_args(Mode))
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._waited = 0
        self._kept: dict[str, Array] = {}
        self._arrays: dict[str, Array] = {}

    def on_fit_begin(self, trainer: Trainer) -> None:
        if self.monitor not in trainer.history:
            raise ValueError(
                f"monitor: this fit has no figure {self.monitor!r}; there are"
                f" {list(trainer.history)}"
            )
        self.best = self.best_epoch = None
        self._waited, self._kept = 0, {}
        self._arrays = {**trainer.network.params, **trainer.network.state}

    def on_epoch_end(self, trainer: Trainer) -> None:
        figure = trainer.history[self.monitor][-1]
        if self._is_better(figure):
            self.best, self.best_epoch, self._waited = figure, trainer.epoch, 0
            if self.restore_best:
                self._kept = {n: value.copy() for n, value in self._arrays.items()}
            return
        self._waited += 1
        if self._waited >= self.patience:
            trainer.stop = True

    def on_fit_end(self, trainer: Trainer) -> None:
        for name, value in self._kept.items():
            self._arrays[name][...] = value
        self._kept = {}

    def state(self) -> dict[str, Any]:
        kept = {f"kept.{name}": value for name, value in self._kept.items()}
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self._waited, **kept}

    def load_state(self, state: dict[str, Any]) -> None:
        kept = {name.removeprefix("kept."): state[name] for name in state if "." in name}
        shapes = {name: np.shape(value) for name, value in kept.items()}
        expected = {name: value.shape for name, value in self._arrays.items()}
        if kept and shapes != expected:
            raise ValueError(f"kept: expected the shapes {expected}, got {shapes}")
        self.best = None if state["best"] is None else float(state["best"])
        self.best_epoch = None if state["best_epoch"] is None else int(state["best_epoch"])
        self._waited, self._kept = int(state["waited"]), kept

    def _is_better(self, figure: float) -> bool:
        if self.best is None:
            return not math.isnan(figure)
        upwards = self.mode == "max" or (self.mode == "auto" and "accuracy" in self.monitor)
        gain = figure - self.best if upwards else self.best - figure
        return gain > self.min_delta


class CSVLogger(Callback):
    """Writes a line per epoch with its number and its figures, at once, to a CSV file.

    Parameters
    ----------
    path : of the file, with a line of names at its top. What was there is lost, unless
    append : go on behind the lines of an earlier fit, which must have had the same figures.

    A resumed fit always goes on, behind the line of the last epoch before its checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self.path, self.append = os.fspath(path), bool(append)

    def on_fit_begin(self, trainer: Trainer) -> None:
        names = ["epoch", *trainer.history]
        if (self.append or trainer.resumed) and os.path.exists(self.path):
            with open(self.path, newline="", encoding="utf-8") as file:
                found = next(csv.reader(file), None)
            if found == names:
                return
            if found is not None:
                raise ValueError(f"{self.path}: expected the columns {names}, got {found}")
        self._write("w", names)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._write("a", [trainer.epoch, *(column[-1] for column in trainer.history.values())])

    def state(self) -> dict[str, Any]:
        return {"size": os.path.getsize(self.path)}

    def load_state(self, state: dict[str, Any]) -> None:
        if os.path.getsize(self.path) > int(state["size"]):
            os.truncate(self.path, max(0, int(state["size"])))

    def _write(self, mode: str, row: Sequence[object]) -> None:
        with open(self.path, mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)


class StopOnNaN(Callback):
    """Ends the training after an update whose loss is NaN or infinite, with a RuntimeWarning.

    The warning names the update, where the first numbers were that are not finite - a row of x or
    of t, the outputs of a layer, or the loss alone - and the parameters that are not finite after
    the update.
    """

    def on_step_end(self, trainer: Trainer) -> None:
        if math.isfinite(trainer.last_loss):
            return
        trainer.stop = True
        params = trainer.network.params.items()
        broken = [name for name, value in params if not np.isfinite(value).all()]
        warnings.warn(
            f"training stopped: the loss of update {trainer.iteration} (epoch {trainer.epoch}) is"
            f" {trainer.last_loss}; first not finite: {_first_not_finite(trainer)}; parameters that"
            f" are not finite after the update: {', '.join(broken) or 'none'}",
            RuntimeWarning,
            stacklevel=2,
        )


def _first_not_finite(trainer: Trainer) -> str:
    """Of the last update, in the words of the warning."""
    fit = trainer._fit
    found = None if fit is None else fit.first_not_finite()
    if isinstance(found, tuple):
        return f"row {found[1]} of {found[0]}"
    if found is None:
        return "the loss"
    position = next(i for i, layer in enumerate(trainer.network.layers) if layer is found)
    return f"the outputs of layers[{position}] ({type(found).__name__})"
