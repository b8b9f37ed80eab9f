"""Training: steps, epochs, and the figures of each."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core import ops
from cnn_core._inputs import Input, Samples, as_source, reading
from cnn_core._weights import ClassWeight
from cnn_core.blocks import Finished, Parts, flat
from cnn_core.callbacks import Callback
from cnn_core.layers import positive
from cnn_core.network import Sequential
from cnn_core.ops.sparse import Rows
from cnn_core.optimizers import Optimizer
from cnn_core.plan import Plan

Array = npt.NDArray[Any]
History = dict[str, list[float]]
Sampling = Literal["shuffle", "replacement", "sequential"]
Report = Literal["running", "book"]


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
        self.stop = False
        self.last_loss = math.nan
        #: the plan and the optimizer of the last `step`, and what it runs
        self._compiled: tuple[Plan, Optimizer, list[Callable[[], None]]] | None = None

    def update_parts(self, finished: Sequence[Finished] = (), keep_gradients: bool = True) -> Parts:
        """The optimizer's part of a step; `finished` as in Parts, whose lanes get their updates.

        keep_gradients: whether all of network.grads must hold the gradients after the step.
        """
        network, optimizer = self.network, self.optimizer
        names = {view.ctypes.data: name for name, view in network.grads.items()}
        parts = {names[part.grad.ctypes.data]: part for part in finished}
        rows = {name: part.grad.size // part.lane[0].n for name, part in parts.items()}
        biases = [name for name, value in network.params.items() if value.ndim < 2]
        flat = network.flat_params, network.flat_grads, network.slices
        own, updates = optimizer.tasks(*flat, rows, biases)
        for name, tasks in own.items():
            lane, factors = parts[name].lane, parts[name].factors
            joint = None
            if factors is not None and not keep_gradients:
                joint = optimizer.product_update_task(name, network.params[name], *factors)
            lane[:] = [*lane, *tasks] if joint is None else [joint]
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
            it is never made dense, and gives the same bits as long as all numbers are finite.
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
        weights = sample_weight, class_weight
        run = _Fit(self, x, t, weights, batch_size, sampling, report, validation_data)
        epochs = positive("epochs", epochs)
        limit = epochs * run.steps_per_epoch
        if iterations is not None:
            limit = min(limit, positive("iterations", iterations))
        self.stop, self.planned = False, limit
        self.history = run.history
        began: list[Callback] = []
        try:
            for callback in self.callbacks:
                callback.on_fit_begin(self)
                began.append(callback)
            with _Progress(limit, verbose) as progress:
                while run.done < limit and not self.stop:
                    run.epoch(limit, progress)
        finally:
            with ExitStack() as ends:  # an error in one does not keep the others from ending
                for callback in reversed(began):
                    ends.callback(callback.on_fit_end, self)
        return self.history

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)


class _Fit:
    """One call of fit: the data, the compiled steps that read it, and the history."""

    def __init__(
        self,
        trainer: Trainer,
        x: Samples,
        t: npt.ArrayLike,
        weights: tuple[npt.ArrayLike | None, ClassWeight | None],
        batch_size: int | None,
        sampling: Sampling,
        report: Report,
        validation_data: Sequence[npt.ArrayLike] | None,
    ) -> None:
        if sampling not in get_args(Sampling):
            raise ValueError(f"sampling: expected one of {get_args(Sampling)}, got {sampling!r}")
        if report not in get_args(Report):
            raise ValueError(f"report: expected one of {get_args(Report)}, got {report!r}")
        self.trainer, self.network = trainer, trainer.network
        self.sampling, self.report = sampling, report
        network = self.network
        self.x = as_source(network.check_rows(x), network.dtype, network.input_scale)
        self.kind, self.t = self.network.check_targets(t, len(self.x))
        self.weights = self.network.check_weights(self.kind, self.t, *weights)
        rows = len(self.x)
        self.batch_size = rows if batch_size is None else positive("batch_size", batch_size)
        self.batch_size = min(self.batch_size, rows)
        self.validation = None
        if validation_data is not None:
            self.validation = self._check_validation(validation_data)
        self.steps_per_epoch = math.ceil(len(self.x) / self.batch_size)
        full = self.steps_per_epoch * self.batch_size if sampling == "replacement" else len(self.x)
        #: rows in the order of the epoch, and where the present batch begins in it
        self.indices = np.arange(full) if sampling == "sequential" else np.zeros(full, np.int64)
        self.start = np.zeros(1, np.int64)
        self.done = 0
        self.began = time.perf_counter()
        self.history: History = {"loss": [], "accuracy": []}
        if self.validation:
            self.history |= {"val_loss": [], "val_accuracy": []}
        self.history["seconds"] = []
        self.compiled: dict[int, tuple[Plan, list[Callable[[], None]]]] = {}
        self.watched = any(
            type(callback).on_step_end is not Callback.on_step_end for callback in trainer.callbacks
        )

    def _check_validation(self, data: Any) -> tuple[Input, Array, Array | None]:
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ValueError(
                "validation_data: expected a pair (x, t) or three with sample_weight, got"
                f" {type(data).__name__}"
            )
        try:
            x = self.network.check_rows(data[0])
            kind, t = self.network.check_targets(data[1], len(x))
            weights = self.network.check_weights(kind, t, data[2] if len(data) == 3 else None)
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation_data: {error}") from None
        return x, np.asarray(data[1]), weights

    def steps(self, n: int) -> tuple[Plan, list[Callable[[], None]]]:
        """The plan for batches of n rows, and its steps with the gathering of the batch."""
        if n not in self.compiled:
            sparse = isinstance(self.x, Rows)
            plan = self.network.plan(n, self.kind, True, True, self.weights is not None, sparse)
            batches, at = ops.native.batches, (self.indices, self.start)
            gather, before, after = reading(self.x, plan.x, *at, self.network.input_scale)
            if plan.target is None:
                assert plan.labels is not None
                gather.append(batches.gather_labels(self.t, *at, plan.labels))
            else:
                gather.append(batches.gather_rows(flat(self.t), *at, 1.0, flat(plan.target)))
            if plan.weights is not None and self.weights is not None:
                column, out = self.weights[:, np.newaxis], plan.weights[:, np.newaxis]
                gather.append(batches.gather_rows(column, *at, 1.0, out))
            update = partial(self.trainer.update_parts, keep_gradients=self.watched)
            calls = plan.steps(True, Parts(rows=[*gather]), update)
            self.compiled[n] = plan, [*before, *calls, *after]
        return self.compiled[n]

    def epoch(self, limit: int, progress: _Progress) -> None:
        """The updates of one epoch, or up to `limit` in all; then its figures."""
        trainer, network = self.trainer, self.network
        trainer.epoch += 1
        trainer._call("on_epoch_begin")
        rng, rows = trainer.rng, len(self.x)
        if self.sampling == "shuffle":
            self.indices[:] = rng.permutation(rows)
        elif self.sampling == "replacement":
            self.indices[:] = rng.integers(0, rows, len(self.indices))
        mean = network.loss_function.reduction == "mean"
        seen, loss, correct = 0, 0.0, 0.0
        for number in range(min(self.steps_per_epoch, limit - self.done)):
            self.start[0] = number * self.batch_size
            n = min(self.batch_size, len(self.indices) - number * self.batch_size)
            with network.locked():
                plan, calls = self.steps(n)
                for call in calls:
                    call()
                network.step[0] += 1
                trainer.last_loss = float(plan.totals[0])
                loss += trainer.last_loss * (n if mean else 1)
                correct += float(plan.totals[1])
            seen += n
            self.done += 1
            trainer.iteration += 1
            if number == 0 and self.report == "book":
                self._record(*network.evaluate(self.x, self.t, self.weights))
                progress.line(trainer.epoch, self.history)
            if self.watched:
                trainer._call("on_step_end")
            if trainer.stop:
                break
            progress.advance()
        if self.report == "running":
            self._record(loss / (seen if mean else 1), correct / seen)
            progress.line(trainer.epoch, self.history)
        trainer._call("on_epoch_end")

    def _record(self, loss: float, accuracy: float) -> None:
        self.history["loss"].append(loss)
        self.history["accuracy"].append(accuracy)
        if self.validation:
            val_loss, val_accuracy = self.network.evaluate(*self.validation)
            self.history["val_loss"].append(val_loss)
            self.history["val_accuracy"].append(val_accuracy)
        self.history["seconds"].append(time.perf_counter() - self.began)


class _Progress:
    """A line per epoch on stdout; on a terminal also a bar over all steps."""

    def __init__(self, steps: int, verbose: bool) -> None:
        self.verbose = verbose
        self.bar: Any = None
        if verbose and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, unit="step", leave=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def line(self, epoch: int, history: History) -> None:
        if not self.verbose:
            return
        text = format_epoch(epoch, history)
        if self.bar is None:
            print(text, flush=True)
        else:
            self.bar.write(text)


def format_epoch(epoch: int, history: History) -> str:
    """The last epoch's figures as one line of a table."""
    cells = [f"epoch {epoch:>3}"]
    for key, label in (
        ("loss", "loss"),
        ("accuracy", "accuracy"),
        ("val_loss", "val loss"),
        ("val_accuracy", "val accuracy"),
    ):
        if history.get(key):
            cells.append(f"{label} {history[key][-1]:.4f}")
    cells.append(f"{history['seconds'][-1]:.2f} s")
    return "  ".join(cells)
