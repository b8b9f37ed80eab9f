"""Callbacks: what happens between the epochs of `Trainer.fit`."""

from __future__ import annotations

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
