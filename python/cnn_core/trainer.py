"""Training: steps, epochs, and the figures of each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core import checkpoints
from cnn_core._files import PathLike
from cnn_core._fit import Fit, History, Progress, Report, Sampling
from cnn_core._inputs import Samples
from cnn_core._optimizer import Optimizer
from cnn_core._pace import Pace
from cnn_core._weights import ClassWeight
from cnn_core.callbacks import Callback
from cnn_core.network import Sequential
from cnn_core.ops.sparse import Rows
from cnn_core.parts import Finished, Parts
from cnn_core.plan import Plan

Array = npt.NDArray[Any]

__all__ = ["History", "Report", "Sampling", "Trainer"]


class Trainer:
    """Trains a network with an optimizer.

    Parameters
    ----------
    network : a Sequential.
    optimizer : SGD(...), Adam(...) or another Optimizer; belongs to this trainer from now on.
    callbacks : see callbacks.Callback.
    seed : of the batches' drawing; the network's seed by default.

    Attributes
    ----------
    history : figures of the last fit, one value per epoch.
    epoch, iteration : how many have begun, how many updates have been made.
    planned : how many updates the present fit makes unless it is stopped.
    last_loss : the loss of the last update's batch, before that update; NaN before the first.
    resumed : whether the present fit goes on from a checkpoint.
    stop : set by a callback to end the training.

    Examples
    --------
    >>> trainer = Trainer(net, SGD(lr=0.1))
    >>> history = trainer.fit(x_train, t_train, epochs=3, validation_data=(x_test, t_test))
    """

    def __init__(
        self,
        network: Sequential,
        optimizer: Optimizer,
        callbacks: Iterable[Callback] = (),
        *,
        seed: int | None = None,
    ) -> None:
        if not isinstance(network, Sequential):
            raise TypeError(f"network: expected a Sequential, got {network!r}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected a cnn_core.Optimizer, got {optimizer!r}")
        if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
            raise TypeError(f"callbacks: expected a list of callbacks, got {callbacks!r}")
        self.network, self.optimizer, self.callbacks = network, optimizer, list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks: expected a cnn_core.Callback, got {callback!r}")
        optimizer.bind(network.flat_params)
        self.rng = np.random.default_rng(
            [network.seed if seed is None else checks.check_seed(seed), 0x5EED]
        )
        self.history: History = {}
        self.epoch = self.iteration = self.planned = 0
        self.stop = self.resumed = False
        self.last_loss = math.nan
        self._fit: Fit | None = None
        self._paces: dict[int, Pace] = {}  # by batch size
        #: the plan and the optimizer of the last `step`, and what it runs
        self._compiled: tuple[Plan, Optimizer, list[Callable[[], None]]] | None = None

    def update_parts(self, finished: Sequence[Finished] = (), keep_gradients: bool = True) -> Parts:
        """The optimizer's part of a step; `finished` as in Parts, whose lanes get their updates.

        keep_gradients: whether all of network.grads must hold the gradients after the step.
        """
        network, optimizer = self.network, self.optimizer
        names = {view.ctypes.data: name for name, view in network.grads.items()}
        parts = {names[part.grad.ctypes.data]: part for part in finished}
        rows = {name: part.grad.size // part.items for name, part in parts.items()}
        biases = [name for name, value in network.params.items() if value.ndim < 2]
        flat = network.flat_params, network.flat_grads, network.slices
        own, updates = optimizer.tasks(*flat, rows, biases)
        for name, tasks in own.items():
            factors, joint = parts[name].factors, None
            if factors is not None and not keep_gradients:
                joint = optimizer.product_update_task(name, network.params[name], *factors)
            if joint is None:
                parts[name].follow(tasks)
            else:
                parts[name].lane[:] = [joint]
        clock = self.optimizer.clock_tasks()
        return Parts(before=[[task] for task in clock], update=updates)

    def step(
        self,
        x: Samples,
        t: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
    ) -> float:
        """One update from one batch; returns the loss before it.

        Parameters
        ----------
        x : (N, *input_shape), t : labels (N,) or rows (N, *output_shape).
        sample_weight, class_weight : see `fit`.
        """
        network = self.network
        array = network.check_rows(x)
        kind, target = network.check_targets(t, len(array))
        weights = network.check_weights(kind, target, sample_weight, class_weight)
        with network.locked():
            sparse = isinstance(array, Rows)
            plan = network.plan(len(array), kind, True, True, weights is not None, sparse)
            network.fill(plan, array, target, weights)
            made = self._compiled
            if made is None or made[0] is not plan or made[1] is not self.optimizer:
                made = plan, self.optimizer, plan.steps(True, Parts(), self.update_parts)
                self._compiled = made
            for call in made[2]:
                call()
            self.iteration += 1
            network.step[0] += 1
            self.last_loss = float(plan.totals[0])
            return self.last_loss

    def fit(
        self,
        x: Samples,
        t: npt.ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int | None = 100,
        sampling: Sampling = "shuffle",
        iterations: int | None = None,
        validation_data: Sequence[npt.ArrayLike] | None = None,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        report: Report = "running",
        verbose: bool = True,
    ) -> History:
        """Train for some epochs and return the figures of each.

        Parameters
        ----------
        x : (M, *input_shape) float or uint8 (scaled by network.input_scale as it is used; may be
            memory-mapped), t : labels (M,) or rows (M, *output_shape). Before a first Affine layer
            x may be a SciPy sparse matrix (M, I), as in every method of the network that takes x:
            its entries are copied once, never made dense, and give the same bits as the dense x
            as long as all numbers are finite.
        epochs : an epoch is ceil(M / batch_size) updates.
        batch_size : rows per update, None for all of them; the last batch of an epoch holds what is
            left.
        sampling : "shuffle" (every row once per epoch, in a new order), "replacement" (each batch
            drawn at random, as the books do; all batches full) or "sequential".
        iterations : stop after so many updates, even within an epoch.
        validation_data : (x, t) or (x, t, sample_weight), evaluated in inference mode once per
            epoch.
        sample_weight : (M,) finite numbers by which the losses of the rows are multiplied. A loss
            whose reduction is "mean" is still divided by the number of rows (or elements), not by
            the sum of their weights: Keras's definition, not that of PyTorch's
            CrossEntropyLoss(weight). Of the loss only; an accuracy counts every row alike.
        class_weight : the same by class: a dict of class to weight (1 where it names none), a
            weight for each, or "balanced", which is M / (classes that occur * rows of the class).
            A class is a label, the column of the 1 in a one-hot row, or 0 or 1 where the network
            has one output. Multiplies sample_weight. Not applied to validation_data.
        report : "running": the epoch's loss and accuracy are means over its batches as they were
            trained on (of a loss whose reduction is "sum" the sum); validation follows the last
            batch. "book": both are measured in inference mode on all rows, after the first update
            of the epoch, as the loops of the books do.
        verbose : show a progress bar (on a terminal) and a line per epoch.

        Returns
        -------
        dict of lists: "loss", "accuracy", "val_loss", "val_accuracy" (with validation_data) and
        "seconds" since the start.
        """
        settings = {
            "epochs": epochs,
            "batch_size": batch_size,
            "sampling": sampling,
            "iterations": iterations,
            "report": report,
        }
        weights = sample_weight, class_weight
        return self._run(Fit(self, x, t, weights, settings, validation_data), verbose)

    def resume(
        self,
        path: PathLike,
        x: Samples,
        t: npt.ArrayLike,
        *,
        validation_data: Sequence[npt.ArrayLike] | None = None,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        verbose: bool = True,
    ) -> History:
        """Go on with a fit that a `Checkpoint` has saved, and end with the same bits.

        The network, the optimizer, the callbacks and the data must be those of that fit; epochs,
        batch_size, sampling, iterations and report are taken from the checkpoint. "seconds" counts
        the time of training alone. A fit that had come to its end only gets its state back.

        Parameters
        ----------
        path : the folder of a `Checkpoint`, or the file itself.
        x, t, validation_data, sample_weight, class_weight, verbose : as of the fit.

        Returns
        -------
        The history of the whole fit, as `fit` does.

        Raises
        ------
        CheckpointError
            The file is damaged, or is of another network, optimizer, callbacks or data; the
            message names what differs. A ValueError. Nothing has changed then, unless it was a
            callback that could not use its state.
        OSError
            The file cannot be read, FileNotFoundError among others.
        """
        saved = checkpoints.read(path)
        weights = sample_weight, class_weight
        run = Fit(self, x, t, weights, saved.settings, validation_data)
        saved.check(self, run)
        run.resumed_from = os.path.realpath(saved.path)
        return self._run(run, verbose, saved)

    def _run(
        self, run: Fit, verbose: bool, saved: checkpoints.Checkpointed | None = None
    ) -> History:
        self.stop, self.resumed, self.planned = False, saved is not None, run.limit
        self.history, self._fit = run.history, run
        begun: list[Callback] = []
        with run.deferral:
            try:
                self._begin(begun, run.saving)
                if saved is not None:
                    saved.restore(self, run)
                self._begin(begun, [each for each in self.callbacks if each not in run.saving])
                if saved is not None:
                    saved.restore_callbacks(self, run)
                with Progress(run.limit, run.done, verbose) as progress:
                    run.tell_savers()
                    run.train(progress)
            except BaseException:
                if run.deferral.safe:
                    run.interrupted = True
                    run.tell_savers()
                raise
            finally:
                with ExitStack() as ends:  # an error in one does not keep the others from ending
                    for callback in reversed(begun):
                        ends.callback(callback.on_fit_end, self)
                self._fit = None
        return self.history

    def _begin(self, begun: list[Callback], callbacks: list[Callback]) -> None:
        for callback in callbacks:
            callback.on_fit_begin(self)
            begun.append(callback)

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)
