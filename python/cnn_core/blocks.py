"""Blocks: a native layer and perhaps the activation behind it, bound to its buffers.

Between blocks flow rows, arrays (N, ...) in the order of NCHW, or images with the channels
innermost (`_images.pyx`), whose border is the padding that the next block reads. The blocks of rows
are here, those of images in image_blocks.py.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cnn_core import _memory, ops
from cnn_core.image_layers import Dropout
from cnn_core.layers import Affine, Layer
from cnn_core.ops.dense import FEW_SAMPLES
from cnn_core.ops.images import Images, new_images
from cnn_core.parts import Finished, Lane, Packing, Parts, flat

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Border = tuple[int, int, int, int]

NO_BORDER: Border = (0, 0, 0, 0)
STRIP = 128  # inputs, at least, of a strip
MOST_STRIPS = 4
GROUP = 64  # rows, at most, of a part of a strip;
COPIED = 128  # twice as many up to so many outputs, whose rows of W each part copies
MOST_SUMS = 1 << 17  # numbers that the strips' sums may have: they go from core to core
WORK_TO_SHARE = 500_000  # multiply-adds of a sample; below, waiting for each other takes longer
ROWS_TO_ALIGN = 512  # that pay for a copy of W whose rows begin at vectors
MOST_IN_A_LANE = 1 << 17  # weights of a dense layer that are read for every few images


class Block:
    """A native layer and perhaps the activation behind it.

    x, y : buffers of inputs and outputs, y after the activation.
    dy : the gradient by y, None where none is wanted; after `backward` that by the value before the
        activation, in place.
    dx : the gradient by x, or None where nobody needs it.
    sample_shape : of the outputs, at the interface.
    """

    #: "rows", "images", or "any": what comes is passed on
    takes: str = "rows"
    gives: str = "rows"
    #: whether `backward` passes dx through the derivative of the previous block's activation
    takes_activation: ClassVar[bool] = False
    #: whether dx is dy, changed in place
    in_place: ClassVar[bool] = False
    #: whether the backward pass needs neither y nor what lies in its memory
    spare_y: ClassVar[bool] = False

    x: Any
    y: Any
    dy: Any = None
    dx: Any = None
    training = False
    #: whether there will be a backward pass
    gradient = False
    #: whether nobody else reads x again: y may take its place
    spare_x = False
    #: the border that x and dy must have, where they are images
    x_border: Border = NO_BORDER
    dy_border: Border = NO_BORDER

    def __init__(
        self, layer: Layer | None, sample_shape: Shape, activation: Layer | None = None
    ) -> None:
        self.layer, self.sample_shape, self.activation = layer, sample_shape, activation
        self.code = ops.ACTIVATIONS[activation.activation] if activation else 0
        self.slope = float(getattr(activation, "slope", 0.0))

    def output(self, border: Border) -> Any:
        """A buffer for the outputs."""
        n, dtype = len(self.x), self.x.dtype
        if self.gives == "images" or (self.gives == "any" and isinstance(self.x, Images)):
            return new_images((n, *_sizes(self.sample_shape)), border, dtype)
        return _memory.empty((n, *self.sample_shape), dtype)

    def input_gradient(self, border: Border) -> Any:
        """A buffer for the gradient by x."""
        if self.in_place:
            return self.dy
        if isinstance(self.x, Images):
            return new_images(self.x.shape, border, self.x.dtype)
        return _memory.empty(self.x.shape, self.x.dtype)

    def forward(self) -> Parts:
        raise NotImplementedError

    def forward_with(self, behind: Block) -> Parts | None:
        """The outputs of the block behind, without those between; None where that is not done."""
        return None

    def backward(self, previous: Block | None) -> Parts:
        """Gradients by x and by the parameters, from dy before the activation."""
        raise NotImplementedError

    def activation_backward(self) -> Parts:
        """dy through the derivative of this block's activation, in place."""
        if isinstance(self.dy, Images):
            images = ops.native.images.activation_backward
            return Parts(rows=[images(self.y, self.dy, self.dy, self.code, self.slope)])
        dy = flat(self.dy)
        task = ops.native.activations.backward(flat(self.y), dy, dy, self.code, self.slope)
        return Parts(rows=[task])


def _sizes(sample_shape: Shape) -> tuple[int, int, int]:
    """Channels, height, width; a sample of one dimension is an image of one pixel."""
    if len(sample_shape) == 1:
        return sample_shape[0], 1, 1
    channels, height, width = sample_shape
    return channels, height, width


def activation_of(previous: Block | None) -> tuple[Any, int, float]:
    """What a gradient of the input needs to go through the activation before it."""
    if previous is None or not previous.code:
        return None, 0, 0.0
    return previous.y, previous.code, previous.slope


class AffineBlock(Block):
    takes_activation = True
    layer: Affine
    #: whether x is data, of which much may be 0
    reads_data = False
    #: W with rows that begin at vectors, for many rows
    aligned: Array | None = None
    #: strips of the inputs and groups of rows in which a training step computes the outputs
    strips: tuple[int, int] | None = None

    def cut(self) -> None:
        """Compute the outputs in strips where that pays. Nothing but the sizes decides."""
        n, (n_in, n_out) = len(self.x), self.layer.params["W"].shape
        n_strips = MOST_STRIPS
        while n_strips > 1 and (n_in < STRIP * n_strips or n * n_out * n_strips > MOST_SUMS):
            n_strips //= 2
        if n_strips > 1:
            self.strips = n_strips, -(-n // (GROUP if n_out > COPIED else 2 * GROUP))

    def forward_from(self, place: Array) -> Parts:
        """The outputs of rows that lie elsewhere than in `x`: at the address place[0]."""
        W, b = self.layer.params["W"], self.layer.params["b"]
        options = self.y, self.code, self.slope, False, place, self.reads_data
        row = ops.native.gemm.aligned_row(W.shape[1], W.dtype == np.float32)
        parts = Parts()
        if W.shape[1] != row and len(self.y) >= ROWS_TO_ALIGN:
            if self.aligned is None:
                self.aligned = _memory.zeros((len(W), row), W.dtype)
            parts.packing = [Packing(W, [ops.native.gemm.align_rows(W, self.aligned)])]
            W = self.aligned
        parts.rows = [ops.native.affine.forward(self.x, W, b, *options)]
        return parts

    def forward_strips(self, *following: Array) -> Parts:
        """The outputs in strips.

        following : to fetch the next batch, where x is read from: source, indices, place of the
            first index.
        """
        assert self.strips is not None
        W, b = self.layer.params["W"], self.layer.params["b"]
        n_strips, n_groups = self.strips
        sums = _memory.empty((n_strips - 1, *self.y.shape), self.y.dtype)
        options = self.x, W, b, self.y, sums, n_groups, self.code, self.slope
        products, total = ops.native.affine.forward_strips(*options, *following)
        return Parts(strips=[products], rows=[total])

    def forward(self) -> Parts:
        W, b = self.layer.params["W"], self.layer.params["b"]
        if self.strips is not None:
            return self.forward_strips()
        few = len(self.x) < FEW_SAMPLES
        by_columns = few and W.size > WORK_TO_SHARE
        options = self.y, self.code, self.slope, by_columns, None, few or self.reads_data
        task = self.in_the_lane(ops.native.affine.forward(self.x, W, b, *options))
        return Parts(rows=[[[task]] if by_columns else task])

    def in_the_lane(self, task: ops.Task) -> ops.Task:
        """In a training step, the same in chunks as small as those of the lane: what they have
        written is read again on the way back, which costs more than the weights if it must come
        from afar."""
        if self.dy is not None and self.layer.params["W"].size <= MOST_IN_A_LANE:
            task.least = 1
        return task

    def backward(self, previous: Block | None) -> Parts:
        affine, W, grads = ops.native.affine_gradient, self.layer.params["W"], self.layer.grads
        dW: Lane = [affine.weight_gradient(self.x, self.dy, grads["W"], self.reads_data)]
        db: Lane = [affine.bias_gradient(self.dy, grads["b"])]
        factors = (self.x, self.dy) if len(self.x) < FEW_SAMPLES else None
        finished = [Finished(grads["W"], dW, factors), Finished(grads["b"], db)]
        parts = Parts(after=[dW, db], finished=finished)
        if self.dx is not None:
            y, code, slope = activation_of(previous)
            behind = None if y is None else flat(y), code, slope
            packing, task = ops.affine_input_gradient(self.dy, W, self.dx, *behind)
            parts.packing = [Packing(W, packing)]
            parts.rows = [self.in_the_lane(task) if packing else [[task]]]
        return parts


class DropoutBlock(Block):
    in_place = True
    layer: Dropout

    def output(self, border: Border) -> Any:
        if not self.training:
            return self.x
        words = ops.native.dropout.mask_words(math.prod(self.sample_shape))
        self.mask = np.empty((len(self.x), words), np.uint64)
        return self.x if self.spare_x else _memory.empty(self.x.shape, self.x.dtype)

    def forward(self) -> Parts:
        if not self.training:
            return Parts()
        layer, x, y = self.layer, flat(self.x), flat(self.y)
        options = layer.rate, layer.seed, layer.stream, layer.step, self.mask
        return Parts(rows=[ops.native.dropout.dropout(x, y, *options)])

    def backward(self, previous: Block | None) -> Parts:
        if not self.training:
            return Parts()
        dy = flat(self.dy)
        return Parts(rows=[ops.native.dropout.keep(dy, dy, self.layer.rate, self.mask)])


class ActivationBlock(Block):
    """An activation that follows no layer which could take it."""

    takes = gives = "any"
    in_place = True

    def __init__(self, layer: Layer, sample_shape: Shape) -> None:
        super().__init__(layer, sample_shape, layer)

    def forward(self) -> Parts:
        if isinstance(self.x, Images):
            images = ops.native.images.activation_forward
            return Parts(rows=[images(self.x, self.y, self.code, self.slope)])
        task = ops.native.activations.forward(flat(self.x), flat(self.y), self.code, self.slope)
        return Parts(rows=[task])

    def backward(self, previous: Block | None) -> Parts:
        return Parts()


class SoftmaxBlock(Block):
    def forward(self) -> Parts:
        return Parts(rows=[ops.native.activations.softmax_forward(flat(self.x), flat(self.y))])

    def backward(self, previous: Block | None) -> Parts:
        if self.dx is None:
            return Parts()
        softmax = ops.native.activations.softmax_backward
        return Parts(rows=[softmax(flat(self.y), flat(self.dy), flat(self.dx))])


class FlattenBlock(Block):
    """No work: rows are the same memory under another shape; images stay what they are."""

    in_place = True

    def output(self, border: Border) -> Any:
        return self.x if isinstance(self.x, Images) else flat(self.x)

    def input_gradient(self, border: Border) -> Any:
        return self.dy if isinstance(self.x, Images) else self.dy.reshape(self.x.shape)

    def forward(self) -> Parts:
        return Parts()

    def backward(self, previous: Block | None) -> Parts:
        return Parts()
