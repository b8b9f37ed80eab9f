"""Parts of programs: tasks by the place that they have in a step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy.typing as npt

from cnn_core import ops

Array = npt.NDArray[Any]
Lane = list[ops.Task]

NEAR_BYTES = 1 << 15  # of an array that stays in the cache anyway


@dataclass(frozen=True)
class Finished:
    """A parameter's gradient that a lane completes row by row: its update may follow in that lane.

    factors : (x, dout) where the gradient is x^T dout of few rows: an update that takes it from
        them may stand in the lane's place, and the gradient is never stored.
    planes : equal parts of the gradient of each of which an item completes a row.
    """

    grad: Array
    lane: Lane
    factors: tuple[Array, Array] | None = None
    planes: int = 1

    @property
    def items(self) -> int:
        """Rows of the gradient."""
        return self.planes * int(self.lane[0].n)

    @property
    def place(self) -> tuple[Array, int, int, int]:
        """Whose, address of the first row, bytes of a row, rows of a plane: for `Program`."""
        row = self.grad.nbytes // self.items
        return self.grad, self.grad.ctypes.data, row, self.items // self.planes

    def follow(self, tasks: Lane) -> None:
        """Put tasks over the rows of the gradient behind those that complete it."""
        if self.planes > 1:
            tasks = [ops.native.parallel.in_planes(task, self.planes) for task in tasks]
        self.lane.extend(tasks)


@dataclass(frozen=True)
class Packing:
    """A lane that depends on one parameter only."""

    source: Array
    lane: Lane


@dataclass
class Parts:
    """What goes into a program, by the place it has there.

    packing  packed weights
    before   other lanes that need nothing of the step: targets, the optimizer's clock
    strips   tasks over strips of the inputs, one lane beside `before`: x as it is read, and its
             products with the first layer's weights
    rows     tasks over the samples: forward, loss, gradients of the inputs and of kernels. A chunk
             of samples goes through as many of them as want chunks of one size, while it is in the
             cache; a list of lanes among them is a stage of its own, which all samples must have
             reached (batch statistics)
    beside   other lanes beside the first of `rows`
    after    lanes that need all samples: gradients of dense layers, the sum of the loss
    reduce   lanes that join what `after` has left in parts
    update   the optimizer's stages
    finished gradients that lanes complete row by row
    following where the next rows will be read: (source, indices, place of this batch's first index)
    """

    packing: list[Packing] = field(default_factory=list)
    before: list[Lane] = field(default_factory=list)
    strips: Lane = field(default_factory=list)
    rows: list[ops.Task | list[Lane]] = field(default_factory=list)
    beside: list[Lane] = field(default_factory=list)
    after: list[Lane] = field(default_factory=list)
    reduce: list[Lane] = field(default_factory=list)
    update: list[list[Lane]] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    following: list[tuple[Array, Array, Array]] = field(default_factory=list)

    def __add__(self, other: Parts) -> Parts:
        return Parts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def program(
        self, images: Iterable[ops.images.Images] = (), keep_gradients: bool = True
    ) -> ops.Program:
        """images : those that nobody reads after a run, nor the program before it writes them.
        keep_gradients : whether the finished ones are read after a run.
        """
        passing: list[ops.images.Images | Finished] = [*images]
        if not keep_gradients:
            passing += [part for part in self.finished if part.grad.nbytes > NEAR_BYTES]
        packing = [packing.lane for packing in self.packing]
        stages: list[list[Lane]] = [[self.strips, *self.before, *packing], [[]]]
        for item in self.rows:
            if isinstance(item, list):
                stages += [item, [[]]]
                continue
            lane = [*stages[-1][0], item]
            # Some want chunks that stay in the cache, others more rows for the weights they read.
            if max(task.least for task in lane) > min(task.most for task in lane):
                stages.append([[]])
            stages[-1][0].append(item)
        stages[1] = [*stages[1], *self.beside]
        return ops.Program([*stages, self.after, self.reduce, *self.update], passing)


def flat(array: Array) -> Array:
    """(N, ...) as (N, size); a view."""
    return array.reshape(len(array), -1)
