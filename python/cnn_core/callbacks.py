"""Callbacks: what happens between the steps and epochs of `Trainer.fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnn_core.trainer import Trainer


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

    def _set(self, trainer: Trainer) -> None:
        trainer.optimizer.lr = self._lr * self.schedule((self._done + 0.5) / trainer.planned)
