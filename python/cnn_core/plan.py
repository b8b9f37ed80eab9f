"""Which neighbouring layers run as one kernel, and the buffers that they share.

A plan belongs to one batch size. It cuts the layers of a network into segments (see segments.py) of
blocks (see blocks.py), and composes programs from them (see `_parallel.pyx`). A network of native
layers only is one program per step. A layer in plain Python cuts it: the layers around it run as
programs of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _memory, ops
from cnn_core.blocks import AffineBlock, Block, Shape
from cnn_core.layers import Layer
from cnn_core.losses import Loss
from cnn_core.ops.images import Images, to_array
from cnn_core.ops.sparse import Batch
from cnn_core.parts import Finished, Parts, flat
from cnn_core.segments import (
    NativeSegment,
    PythonSegment,
    copy_result,
    native_block,
    read_only,
)
from cnn_core.sparse_block import SparseAffineBlock

Array = npt.NDArray[Any]
Update = Callable[[list[Finished]], Parts]


ROWS_AT_ONCE = 16384  # of a long input, at most: bounds the memory of predict, loss and accuracy
COPIED_AT_ONCE = 2048  # the same of sparse rows, with all their entries
ELEMENTS_AT_ONCE = 2**19  # of the largest layer: the batch stays in the cache
IMAGES_AT_ONCE = 2**22  # elements of images that only pass, which take memory for a few


def no_update(finished: list[Finished]) -> Parts:
    return Parts()


class Plan:
    """The buffers and programs of one network for batches of n samples.

    Parameters
    ----------
    layers : the network's layers, built; their params and grads are views of flat arrays.
    shapes : the sample shapes between them: len(layers) + 1.
    loss : the network's loss.
    n, dtype : batch size and element type.
    targets : "labels" (int64 per sample), "rows" (an array like the outputs), or None for a plan
        that only goes forward.
    training : whether layers behave as in training.
    gradient : whether gradients are computed.
    weighted : whether the loss of each row is multiplied by a weight.
    sparse : whether `x` is a batch of sparse rows, before a first Affine layer.

    Fill `x`, `labels` or `target`, and `weights`, then call `forward`, `evaluate` or `gradient`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shapes: Sequence[Shape],
        loss: Loss,
        n: int,
        dtype: Any,
        *,
        targets: str | None = None,
        training: bool = False,
        gradient: bool = False,
        weighted: bool = False,
        sparse: bool = False,
    ) -> None:
        if len(shapes) != len(layers) + 1:
            expected = f"the {len(shapes) - 1} layers that the network was made of"
            raise ValueError(f"layers: expected {expected}, got {len(layers)}")
        self.n, self.loss, self.training, self.shapes = n, loss, training, shapes
        self.x: Any
        if sparse:
            self.x = Batch(n, shapes[0][0], np.dtype(dtype), transposed=gradient)
        else:
            self.x = _memory.empty((n, *shapes[0]), dtype)
        self.segments = self._segments(layers, shapes, gradient)
        self.y = self.segments[-1].y if self.segments else self.x
        self.correct = np.zeros(n, np.int64)
        self.row_losses = np.zeros(n)
        #: loss and number of correct rows of the last batch; sums of both, of a mean loss times n
        self.totals = np.zeros(4)
        #: by which a batch's loss counts in the sum
        self.loss_weight = n if loss.reduction == "mean" else 1
        self.labels: Array | None = np.zeros(n, np.int64) if targets == "labels" else None
        self.target: Array | None = np.zeros(self.y.shape, dtype) if targets == "rows" else None
        self.weights: Array | None = np.ones(n) if weighted else None
        #: the address of the rows that the steps `in_place` read
        self.place = np.zeros(1, np.int64)
        #: the address to which `forward_steps` write the outputs, too, where `writes_result`, or 0
        self.result = np.zeros(1, np.int64)
        self._steps: dict[str, list[Callable[[], None]]] = {}

    def _segments(
        self, layers: Sequence[Layer], shapes: Sequence[Shape], gradient: bool
    ) -> list[NativeSegment | PythonSegment]:
        segments: list[NativeSegment | PythonSegment] = []
        run: list[Block] = []
        x, index = self.x, 0

        def close() -> Any:
            if not run:
                return x
            segments.append(NativeSegment(list(run), x, self.training, gradient, bool(segments)))
            run.clear()
            return segments[-1].y

        while index < len(layers):
            layer = layers[index]
            behind = layers[index + 1] if index + 1 < len(layers) else None
            block = native_block(layer, behind, shapes[index], shapes[index + 1])
            if index == 0 and isinstance(self.x, Batch):
                assert isinstance(block, AffineBlock)
                block = SparseAffineBlock(layer, shapes[1], block.activation)
            index += 1
            if block is not None:
                run.append(block)
                index += block.activation is behind and behind is not None
                continue
            x = close()
            segments.append(PythonSegment(layer, x, shapes[index], self.training, gradient))
            x = segments[-1].y
        close()
        return segments

    @property
    def native(self) -> bool:
        """Whether a step is one program."""
        return (
            len(self.segments) == 1
            and isinstance(self.segments[0], NativeSegment)
            and self.loss.native is not None
        )

    def loss_parts(self, dy: Array | None) -> Parts:
        """The compiled loss, its gradient into dy, and the sums over the rows."""
        assert self.loss.native is not None
        losses = ops.native.losses
        scale, gradient_scale = self.loss.scales(self.y.shape)
        rows = losses.rows(
            flat(self.y),
            None if self.target is None else flat(self.target),
            self.labels,
            ops.LOSSES[self.loss.native],
            gradient_scale,
            self.row_losses,
            self.correct,
            None if dy is None else flat(dy),
            self.weights,
        )
        sums = scale, self.loss_weight, self.totals
        total = losses.total(self.row_losses, self.correct, *sums)
        return Parts(rows=[rows], after=[[total]])

    def _python_loss(self, dy: Array | None) -> None:
        t = self.labels if self.target is None else self.target
        assert t is not None
        loss = float(self.loss.forward(read_only(self.y), read_only(t)))
        if dy is not None:
            copy_result(self.loss, "backward", self.loss.backward(), dy)
        y, rows = flat(self.y), None if self.target is None else flat(self.target)
        if rows is None:
            right = y.argmax(axis=1) == self.labels
        elif y.shape[1] == 1:  # one output: two classes, told apart by a threshold
            right = ((y > 0.5) == (rows > 0.5))[:, 0]
        else:
            right = y.argmax(axis=1) == rows.argmax(axis=1)
        self.totals[:2] = loss, np.count_nonzero(right)
        self.totals[2:] += loss * self.loss_weight, self.totals[1]

    def fill_targets(self, t: Array, weights: Array | None = None) -> None:
        target = self.labels if self.target is None else self.target
        if target is not None:
            np.copyto(target, t)
        if self.weights is not None and weights is not None:
            np.copyto(self.weights, weights)

    def gather(self, source: Array, indices: Array, start: Array, scale: float) -> Parts:
        """source[indices[start[0]:]] as `x`; scale : of uint8. The data set lies row by row."""
        strips = self.segments[0].strips if self.segments else None
        gather = ops.native.batches.gather_rows
        factor = scale if source.dtype == np.uint8 else 1.0
        options = flat(source), indices, start, factor, flat(self.x)
        if strips is None:
            return Parts(rows=[gather(*options)])
        same = source.dtype == self.x.dtype
        following = [(options[0], indices, start)] if same else []
        return Parts(strips=[gather(*options, *strips)], following=following)

    def forward(self) -> Array:
        """The outputs for `x`: a buffer that the next call overwrites."""
        for segment in self.segments:
            segment.forward()
        return self.y

    def reads_in_place(self, source: Array) -> bool:
        """Whether `steps_in_place` can do without the rows' copy in `x`."""
        segment = self.segments[0] if self.native else None
        if not isinstance(segment, NativeSegment) or segment.strips:
            return False
        return segment.reader is not None and source.dtype == self.x.dtype

    def rows_at_once(self, n: int, in_place: bool) -> int:
        """How many of n rows a plan like this one computes at a time: all parts of nearly one size.

        in_place : whether it reads them where they lie.
        """
        passing = len(self.segments) == 1 and isinstance(self.segments[0], NativeSegment)
        sparse = isinstance(self.x, Batch)
        most = COPIED_AT_ONCE if sparse else ROWS_AT_ONCE
        for position, shape in enumerate(self.shapes):
            if position == 0 and (in_place or sparse):
                continue
            only_passes = passing and position > 0 and len(shape) == 3
            room = IMAGES_AT_ONCE if only_passes else ELEMENTS_AT_ONCE
            most = min(most, max(1, room // math.prod(shape)))
        return -(-n // -(-n // most))

    def steps_in_place(self, evaluates: bool) -> list[Callable[[], None]]:
        """`steps` or `forward_steps` of the rows at the address place[0], where `reads_in_place`
        holds; made once."""
        name = "evaluate in place" if evaluates else "forward in place"
        if name not in self._steps:
            make = partial(self.steps, False) if evaluates else self.forward_steps
            self._steps[name] = make(self.place)
        return self._steps[name]

    @property
    def writes_result(self) -> bool:
        """Whether `forward_steps` are one program, which also writes the outputs to `result`."""
        return len(self.segments) == 1 and isinstance(self.segments[0], NativeSegment)

    def forward_steps(self, read: Parts | Array) -> list[Callable[[], None]]:
        """What to call, in this order, for `y`.

        read : what puts rows into `x`, or an array with the address of rows, see `steps_in_place`.
        """
        if self.writes_result:
            segment = self.segments[0]
            assert isinstance(segment, NativeSegment)
            result = Parts(rows=[ops.native.batches.write_rows(flat(self.y), self.result)])
            parts = segment.reading_parts(read, True) + result
            return [parts.program(segment.images).run]
        assert isinstance(read, Parts)
        return [read.program().run, self._forward_only]

    def steps(
        self,
        gradient: bool,
        read: Parts | Array,
        update: Update = no_update,
        keep_outputs: bool = False,
        keep_gradients: bool = True,
    ) -> list[Callable[[], None]]:
        """What to call, in this order, for one evaluation or one step of training.

        read : as for `forward_steps`.
        update : given what Parts.finished holds, the parts that update the parameters.
        keep_outputs, keep_gradients : whether all layers' outputs are wanted afterwards, and the
            gradients that have been used for their updates.
        """
        dy = self.segments[-1].dy if gradient and self.segments else None
        if self.native:
            segment = self.segments[0]
            assert isinstance(segment, NativeSegment)
            parts = segment.reading_parts(read, not keep_outputs) + self.loss_parts(dy)
            if gradient:
                parts += segment.backward_parts(not keep_outputs)
            images = () if keep_outputs else segment.images
            return [(parts + update(parts.finished)).program(images, keep_gradients).run]
        assert isinstance(read, Parts)
        calls: list[Callable[[], None]] = [read.program().run, self._forward_only]
        if self.loss.native is None:
            calls.append(lambda: self._python_loss(dy))
        else:
            calls.append(self.loss_parts(dy).program().run)
        if gradient:
            calls.append(self._backward_only)
        return [*calls, update([]).program().run]

    def _forward_only(self) -> None:
        self.forward()

    def _backward_only(self) -> None:
        for index in reversed(range(len(self.segments))):
            segment = self.segments[index]
            segment.backward()
            if index:
                assert segment.dx is not None
                np.copyto(self.segments[index - 1].dy, segment.dx)

    def first_not_finite(self) -> Layer | None:
        """The first layer whose outputs for `x`, after an activation that follows, are not."""
        outputs: list[tuple[Layer | None, Any]] = []
        for segment in self.segments:
            if isinstance(segment, NativeSegment):
                outputs += [(block.layer, block.y) for block in segment.blocks]
            else:
                outputs.append((segment.layer, segment.y))
        for layer, y in outputs:
            values = to_array(y) if isinstance(y, Images) else y
            if layer is not None and not np.isfinite(values).all():
                return layer
        return None

    def _position(self, layer: Layer) -> tuple[int, int]:
        """Segment and block that a layer stands in."""
        for at, segment in enumerate(self.segments):
            if isinstance(segment, PythonSegment):
                if segment.layer is layer:
                    return at, 0
                continue
            for index, block in enumerate(segment.blocks):
                if block.layer is layer or block.activation is layer:
                    return at, index
        raise ValueError(f"{layer!r} is not in this plan")

    def blocks_from(self, layer: Layer) -> list[Block]:
        """The blocks from a layer to the outputs; none if a Python layer is among them."""
        at, index = self._position(layer)
        segment = self.segments[at]
        if isinstance(segment, PythonSegment) or at < len(self.segments) - 1:
            return []
        return segment.blocks[index:]

    def rerun_from(self, layer: Layer) -> Callable[[], float]:
        """A function that computes the layers from `layer` on, and the loss, again."""
        at, index = self._position(layer)
        segment = self.segments[at]
        calls: list[Callable[[], None]] = []
        if isinstance(segment, NativeSegment):
            while segment.blocks[index].spare_x:  # its input may be gone: y took its place
                index -= 1
            calls.append(segment.forward_parts(index).program().run)
            at += 1
        for later in self.segments[at:]:
            calls.append(later.forward)
        if self.loss.native is None:
            calls.append(partial(self._python_loss, None))
        else:
            calls.append(self.loss_parts(None).program().run)

        def rerun() -> float:
            for call in calls:
                call()
            return float(self.totals[0])

        return rerun

    def _run(self, name: str, gradient: bool) -> float:
        if name not in self._steps:
            self._steps[name] = self.steps(gradient, Parts(), keep_outputs=True)
        for call in self._steps[name]:
            call()
        return float(self.totals[0])

    def evaluate(self) -> float:
        """The loss of `x` and its targets; `totals` and `correct` hold the rest."""
        return self._run("evaluate", False)

    def gradient(self) -> float:
        """The loss, its gradients left in the layers' `grads`."""
        return self._run("gradient", True)


def target_kind(t: Any, output_shape: Shape, loss: Loss) -> str:
    """Whether targets are "labels" or "rows"."""
    shape = np.shape(t)
    labels = loss.native in ("softmax_cross_entropy", None) and len(shape) == 1
    if labels and np.asarray(t).dtype.kind in "iu" and math.prod(output_shape) > 1:
        return "labels"
    return "rows"
