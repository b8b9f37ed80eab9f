"""One call of `Trainer.fit`: which rows each update uses, the figures, and where it can go on."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core import ops
from cnn_core._inputs import Input, Samples, as_source, reading
from cnn_core._interrupts import Deferral
from cnn_core._pace import Pace
from cnn_core._weights import ClassWeight
from cnn_core.callbacks import Callback
from cnn_core.layers import Layer, positive
from cnn_core.ops.sparse import Rows
from cnn_core.parts import Finished, Lane, Parts, flat
from cnn_core.plan import Plan

if TYPE_CHECKING:
    from cnn_core.trainer import Trainer

Array = npt.NDArray[Any]
History = dict[str, list[float]]
Sampling = Literal["shuffle", "replacement", "sequential"]
Report = Literal["running", "book"]

SECONDS_AT_ONCE = 0.01  # of updates between two looks whether to stop
ROWS_HASHED = 1000  # of each array of the data, evenly spread


class Fit:
    """The data, the compiled steps that read it, the history, and the position in the training.

    At its safe points the attributes from `done` to `drawn_from`, with the network, the optimizer,
    the trainer's generator and the callbacks, are all that is needed to go on in another process.

    Attributes
    ----------
    settings : the arguments of `Trainer.fit` but for the data, as they were given.
    limit, done : updates that are planned, and made.
    number : updates made in the present epoch, if `in_epoch`.
    loss, correct : sums over the rows of the present epoch.
    due : whether the callbacks are still to be told of the last update.
    drawn_from : the generator's state from which the order of the epoch was drawn.
    resumed_from : the path of the checkpoint that this fit goes on from.
    interrupted : by a signal, at a safe point.
    """

    def __init__(
        self,
        trainer: Trainer,
        x: Samples,
        t: npt.ArrayLike,
        weights: tuple[npt.ArrayLike | None, ClassWeight | None],
        settings: dict[str, Any],
        validation_data: Sequence[npt.ArrayLike] | None,
    ) -> None:
        sampling, report = settings["sampling"], settings["report"]
        checks.choice("sampling", sampling, get_args(Sampling))
        checks.choice("report", report, get_args(Report))
        numbers = {
            name: positive(name, settings[name])
            for name in ("epochs", "batch_size", "iterations")
            if name == "epochs" or settings[name] is not None
        }
        settings = {**settings, **numbers}
        self.trainer, self.network, self.settings = trainer, trainer.network, settings
        self.sampling, self.report = sampling, report
        network = self.network
        self.x = as_source(network.check_rows(x), network.dtype, network.input_scale)
        self.kind, self.t = self.network.check_targets(t, len(self.x))
        self.weights = self.network.check_weights(self.kind, self.t, *weights)
        rows = len(self.x)
        self.batch_size = min(numbers.get("batch_size", rows), rows)
        self.validation = None
        if validation_data is not None:
            self.validation = self._check_validation(validation_data)
        self.steps_per_epoch = math.ceil(rows / self.batch_size)
        self.limit = numbers["epochs"] * self.steps_per_epoch
        self.limit = min(self.limit, numbers.get("iterations", self.limit))
        full = self.steps_per_epoch * self.batch_size if sampling == "replacement" else rows
        #: rows in the order of the epoch, and where the present batch begins in it
        self.indices = np.arange(full) if sampling == "sequential" else np.zeros(full, np.int64)
        self.start = np.zeros(1, np.int64)
        self.history: History = {"loss": [], "accuracy": []}
        if self.validation:
            self.history |= {"val_loss": [], "val_accuracy": []}
        self.history["seconds"] = []
        self.began = time.perf_counter()
        self.done = self.number = 0
        self.loss = self.correct = 0.0
        self.in_epoch = self.due = self.interrupted = False
        self.drawn_from: dict[str, Any] | None = None
        self.resumed_from: str | None = None
        self._optimizer = trainer.optimizer.get_config()
        self.deferral = Deferral()
        self.compiled: dict[int, tuple[Plan, list[Callable[..., None]]]] = {}
        self.watched = bool(_listening("on_step_end", trainer))
        self.saving = _listening("on_safe_point", trainer)

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

    def steps(self, n: int) -> tuple[Plan, list[Callable[..., None]]]:
        """The plan for batches of n rows, and what to call for a step with the gathering of it.

        A single call is a program, which can make several steps, batch after batch.
        """
        if n not in self.compiled:
            sparse = isinstance(self.x, Rows)
            plan = self.network.plan(n, self.kind, True, True, self.weights is not None, sparse)
            batches, at = ops.native.batches, (self.indices, self.start)
            read, before, after = reading(self.x, plan, *at, self.network.input_scale)
            targets: Lane = []
            if plan.target is None:
                assert plan.labels is not None
                targets.append(batches.gather_labels(self.t, *at, plan.labels))
            else:
                targets.append(batches.gather_rows(flat(self.t), *at, 1.0, flat(plan.target)))
            if plan.weights is not None and self.weights is not None:
                column, out = self.weights[:, np.newaxis], plan.weights[:, np.newaxis]
                targets.append(batches.gather_rows(column, *at, 1.0, out))
            count = batches.next_batch(self.start, n, self.network.step)

            def update(finished: list[Finished]) -> Parts:
                parts = self.trainer.update_parts(finished, keep_gradients=self.watched)
                return parts + Parts(after=[[count]])

            read = Parts(before=[targets]) + read
            kept = self.watched, self.watched  # outputs and gradients
            calls = plan.steps(True, read, update, *kept)
            self.compiled[n] = plan, [*before, *calls, *after]
        return self.compiled[n]

    @cached_property
    def described(self) -> dict[str, Any]:
        """What must be the same in a process that goes on with this training."""
        arrays = {"x": self.x, "t": self.t, "weights": self.weights}
        if self.validation is not None:
            names = ("validation x", "validation t", "validation weights")
            arrays |= dict(zip(names, self.validation, strict=True))
        return {
            "network": self.network.get_config(),
            "optimizer": self._optimizer,
            "data": {name: _seen(array) for name, array in arrays.items() if array is not None},
        }

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not self.in_epoch and (self.done >= self.limit or self.trainer.stop)

    def train(self, progress: Progress) -> None:
        """All that is left to do, from wherever the position is."""
        while not self.over:
            if not self.in_epoch:
                self._begin_epoch()
            self._updates(progress)
            if self.report == "running":
                self._record(progress)
            self.in_epoch = False
            self.trainer._call("on_epoch_end")
            self.safe_point()

    def _begin_epoch(self) -> None:
        self.trainer.epoch += 1
        self.trainer._call("on_epoch_begin")
        self.drawn_from = dict(self.trainer.rng.bit_generator.state)
        self.draw(self.trainer.rng)
        self.number, self.in_epoch = 0, True
        self.loss = self.correct = 0.0

    def draw(self, rng: np.random.Generator) -> None:
        """The order of the rows in an epoch."""
        rows = len(self.x)
        if self.sampling == "shuffle":
            self.indices[:] = rng.permutation(rows)
        elif self.sampling == "replacement":
            self.indices[:] = rng.integers(0, rows, len(self.indices))

    @property
    def order(self) -> str:
        """The order of the rows as a hash."""
        return _hash_of(self.indices)

    def _updates(self, progress: Progress) -> None:
        """The updates of one epoch that are left, or up to `limit` in all."""
        trainer, left = self.trainer, self.limit - self.done
        last = min(self.steps_per_epoch, self.number + left)
        book = self.report == "book"
        # Who stops the training before an epoch's first update still gets that one.
        while self.due or (self.number < last and not (trainer.stop and self.number)):
            if not self.due:
                one = self.watched or (book and not self.number)
                self._update(min(last, self.number + (1 if one else self._unsaved())), progress)
            if book and self.number == 1:
                self._record(progress)
            if self.watched:
                trainer._call("on_step_end")
            self.due = False
            if self.saving or self.deferral.pending is not None:
                self.safe_point()

    def _unsaved(self) -> int:
        """Updates that may be made before a callback that saves is told."""
        return min([self.limit, *(callback._unsaved(self.done) for callback in self.saving)])

    def _update(self, end: int, progress: Progress) -> None:
        """The updates up to number `end` of the epoch, or until something ends the training."""
        trainer, network = self.trainer, self.network
        batch_size, rows = self.batch_size, len(self.indices)
        number, loss, correct = self.number, self.loss, self.correct
        at_once = 1
        try:
            while number < end:
                self.start[0] = begin = number * batch_size
                n = min(batch_size, rows - begin)
                with network.locked():
                    plan, calls = self.steps(n)
                    pace = trainer._paces.setdefault(n, Pace())
                    plan.totals[2:] = loss, correct
                    began = time.perf_counter()
                    if len(calls) == 1:
                        at_once = max(min(at_once, end - number, (rows - begin) // batch_size), 1)
                        calls[0](at_once, pace.choose(ops.get_num_threads()))
                    else:
                        at_once = 1
                        for call in calls:
                            call()
                    took = max(time.perf_counter() - began, 1e-9)
                    pace.note(at_once, took)
                    last_loss, _, loss, correct = plan.totals.tolist()
                number += at_once
                progress.advance(at_once)
                if trainer.stop or self.deferral.pending is not None:
                    break
                at_once = max(min(2 * at_once, int(at_once * SECONDS_AT_ONCE / took)), 1)
        finally:
            if number > self.number:
                trainer.last_loss = last_loss
                trainer.iteration += number - self.number
                self.done += number - self.number
                self.number, self.loss, self.correct, self.due = number, loss, correct, True

    def first_not_finite(self) -> Layer | tuple[str, int] | None:
        """Of the last update: x or t and the row in it, or the layer, or None if it is neither."""
        rows = self.indices[(self.number - 1) * self.batch_size :][: self.batch_size]
        if len(rows) not in self.compiled:  # the update was made before the fit was resumed
            return None
        plan, x = self.compiled[len(rows)][0], self.x
        batch = [x[row : row + 1].stored for row in rows] if isinstance(x, Rows) else plan.x
        for name, of_rows in (("x", batch), ("t", [] if plan.target is None else plan.target)):
            for row, values in zip(rows, of_rows, strict=False):
                if not np.isfinite(values).all():
                    return name, int(row)
        return plan.first_not_finite()

    def safe_point(self) -> None:
        """Here the training can be resumed, and a signal that waits is heard."""
        self.tell_savers()
        self.deferral.check()

    def tell_savers(self) -> None:
        for callback in self.saving:
            callback.on_safe_point(self.trainer)

    def _record(self, progress: Progress) -> None:
        """The figures of the epoch, added to the history all at once."""
        with self.deferral.at_once():
            if self.report == "book":
                measured = self.network.evaluate(self.x, self.t, self.weights)
            else:
                rows = min(self.number * self.batch_size, len(self.indices))
                mean = self.network.loss_function.reduction == "mean"
                measured = self.loss / (rows if mean else 1), self.correct / rows
            figures = dict(zip(("loss", "accuracy"), measured, strict=True))
            if self.validation:
                figures["val_loss"], figures["val_accuracy"] = self.network.evaluate(
                    *self.validation
                )
        figures["seconds"] = time.perf_counter() - self.began
        for name, figure in figures.items():
            self.history[name].append(figure)
        progress.line(self.trainer.epoch, self.history)


def _seen(data: Input) -> dict[str, Any]:
    """Data, so that others are told from them without reading all of a large file."""
    arrays = (data.indptr, data.columns, data.values) if isinstance(data, Rows) else (data,)
    kind = {"shape": list(data.shape), "dtype": data.dtype.str}
    return {**kind, "hash of some rows": _hash_of(*arrays)}


def _hash_of(*arrays: Array) -> str:
    import hashlib  # here, for what it takes: see `fingerprint`

    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        rows = np.linspace(0, len(array) - 1, min(len(array), ROWS_HASHED)).astype(np.int64)
        digest.update(np.ascontiguousarray(array[rows]).tobytes())
    return digest.hexdigest()


def _listening(event: str, trainer: Trainer) -> list[Callback]:
    """The callbacks that define a method of this name."""
    base = getattr(Callback, event)
    return [
        callback for callback in trainer.callbacks if getattr(type(callback), event) is not base
    ]


class Progress:
    """A line per epoch on stdout; on a terminal also a bar over all steps."""

    def __init__(self, steps: int, done: int, verbose: bool) -> None:
        self.verbose = verbose
        self.bar: Any = None
        if verbose and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, initial=done, unit="step", leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, steps: int) -> None:
        if self.bar is not None:
            self.bar.update(steps)

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
