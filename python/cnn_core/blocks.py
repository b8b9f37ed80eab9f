"""Blocks: a native layer and perhaps the activation behind it, bound to its buffers.

Between blocks flow rows, arrays (N, ...) in the order of NCHW, or images with the channels
innermost (`_images.pyx`), whose border is the padding that the next block reads. Where one block
gives what the next does not take, a conversion stands between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cnn_core import _memory, ops
from cnn_core.image_layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    MaxPool2D,
)
from cnn_core.layers import Affine, Flatten, Layer, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from cnn_core.ops.dense import FEW_SAMPLES
from cnn_core.ops.images import Images, as_images, new_images
from cnn_core.parts import Finished, Lane, Packing, Parts, flat

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Border = tuple[int, int, int, int]
Source = tuple[Array, Array]  # rows where they lie, and an array of the place of the first one

NO_BORDER: Border = (0, 0, 0, 0)
STRIP = 128  # inputs, at least, of a strip
MOST_STRIPS = 4
GROUP = 64  # rows, at most, of a part of a strip
MOST_SUMS = 1 << 17  # numbers that the strips' sums may have: they go from core to core
WORK_TO_SHARE = 500_000  # multiply-adds of a sample; below, waiting for each other takes longer
ACTIVATION_LAYERS = (Sigmoid, Tanh, ReLU, LeakyReLU)


class Block:
    """A native layer and perhaps the activation behind it.

    x, y : buffers of inputs and outputs, y after the activation.
    dy : the gradient by y; after `backward` that by the value before the activation, in place.
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
    dy: Any
    dx: Any = None
    training = False
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


def _behind(previous: Block | None) -> tuple[Any, int, float]:
    """What a gradient of the input needs to go through the activation before it."""
    if previous is None or not previous.code:
        return None, 0, 0.0
    return previous.y, previous.code, previous.slope


class AffineBlock(Block):
    takes_activation = True
    layer: Affine
    #: whether x is data, of which much may be 0
    reads_data = False
    #: strips of the inputs and groups of rows in which a training step computes the outputs
    strips: tuple[int, int] | None = None

    def cut(self) -> None:
        """Compute the outputs in strips where that pays. Nothing but the sizes decides."""
        n, (n_in, n_out) = len(self.x), self.layer.params["W"].shape
        n_strips = MOST_STRIPS
        while n_strips > 1 and (n_in < STRIP * n_strips or n * n_out * n_strips > MOST_SUMS):
            n_strips //= 2
        if n_strips > 1:
            self.strips = n_strips, -(-n // GROUP)

    def forward_from(self, source: Source) -> Parts:
        """The outputs of rows that lie elsewhere than in `x`."""
        params, (x, start) = self.layer.params, source
        options = self.y, self.code, self.slope, False, start, self.reads_data
        return Parts(rows=[ops.native.affine.forward(x, params["W"], params["b"], *options)])

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
        task = ops.native.affine.forward(self.x, W, b, *options)
        return Parts(rows=[[[task]] if by_columns else task])

    def backward(self, previous: Block | None) -> Parts:
        affine, W, grads = ops.native.affine_gradient, self.layer.params["W"], self.layer.grads
        dW: Lane = [affine.weight_gradient(self.x, self.dy, grads["W"], self.reads_data)]
        db: Lane = [affine.bias_gradient(self.dy, grads["b"])]
        factors = (self.x, self.dy) if len(self.x) < FEW_SAMPLES else None
        finished = [Finished(grads["W"], dW, factors), Finished(grads["b"], db)]
        parts = Parts(after=[dW, db], finished=finished)
        if self.dx is not None:
            y, code, slope = _behind(previous)
            behind = None if y is None else flat(y), code, slope
            packing, task = ops.affine_input_gradient(self.dy, W, self.dx, *behind)
            parts.packing = [Packing(W, packing)]
            parts.rows = [task if packing else [[task]]]
        return parts


class ConvBlock(Block):
    takes = gives = "images"
    takes_activation = True
    layer: Conv2D
    #: see `join`
    pool: PoolBlock | None = None
    gradients: Any = None

    def __init__(
        self, layer: Conv2D, input_shape: Shape, sample_shape: Shape, activation: Layer | None
    ) -> None:
        super().__init__(layer, sample_shape, activation)
        self.convolution = layer.convolution(input_shape)
        self.x_border = self.convolution.padding
        self.dy_border = self.convolution.gradient_border

    def join(self, behind: Block) -> None:
        """Take the gradient from a pool behind this block, where most pixels would have none."""
        if not isinstance(behind, PoolBlock) or not behind.apart:
            return
        size, stride, _ = behind.window
        gradients = ops.native.conv2d_pooled.PooledGradients(self.convolution, size, stride)
        if gradients.pays(self.x.height, self.x.width, self.x.dtype == np.float32):
            self.pool, self.gradients, behind.joined = behind, gradients, True

    def packed(self, backward: bool) -> tuple[Array, Packing]:
        W = self.layer.params["W"]
        size = self.convolution.packed_size(backward, W.dtype == np.float32)
        packed = _memory.empty(size, W.dtype)
        return packed, Packing(W, [self.convolution.pack(W, packed, backward)])

    def forward(self) -> Parts:
        packed, pack = self.packed(False)
        b = self.layer.params["b"]
        work = self.layer.params["W"].size * self.y.height * self.y.width
        by_rows = len(self.x) < FEW_SAMPLES and work > WORK_TO_SHARE
        options = self.x, packed, b, self.y, self.code, self.slope, by_rows
        task = self.convolution.forward(*options)
        return Parts(packing=[pack], rows=[[[task]] if by_rows else task])

    def backward(self, previous: Block | None) -> Parts:
        _, n_sums, size = self.convolution.sums(len(self.x))
        partial = _memory.empty((n_sums, size), self.x.dtype)
        grads = self.layer.grads
        if self.pool is not None:
            return self.pooled_backward(self.pool, partial, previous)
        parts = Parts(
            rows=[self.convolution.weight_gradient(self.x, self.dy, partial)],
            reduce=[[self.convolution.reduce(partial, grads["W"], grads["b"])]],
        )
        if self.dx is not None:
            packed, pack = self.packed(True)
            parts.packing = [pack]
            parts.rows.append(
                self.convolution.input_gradient(self.dy, packed, self.dx, *_behind(previous))
            )
        return parts

    def pooled_backward(self, pool: PoolBlock, partial: Array, previous: Block | None) -> Parts:
        """The same from the gradient by the outputs of the pool behind."""
        W, grads, gradients = self.layer.params["W"], self.layer.grads, self.gradients
        parts = Parts(
            rows=[gradients.weight_gradient(self.x, pool.dy, pool.which, partial)],
            reduce=[[self.convolution.reduce(partial, grads["W"], grads["b"], True)]],
        )
        if self.dx is not None:
            packed = _memory.empty(W.size, W.dtype)
            parts.packing = [Packing(W, [gradients.pack(W, packed)])]
            options = pool.dy, pool.which, packed, self.dx, *_behind(previous)
            parts.rows.append(gradients.input_gradient(*options))
        return parts


class PoolBlock(Block):
    takes = gives = "images"
    takes_activation = True
    layer: MaxPool2D | AvgPool2D
    #: whether the block before takes dy, not dx
    joined = False

    def __init__(self, layer: Layer, input_shape: Shape, sample_shape: Shape) -> None:
        super().__init__(layer, sample_shape)
        self.average = not isinstance(layer, MaxPool2D)
        self.window = self.layer.window(input_shape)
        self.apart = ops.native.pooling.apart(*self.window, self.average)
        self.which: npt.NDArray[np.int32] | None = None

    def input_gradient(self, border: Border) -> Any:
        return None if self.joined else super().input_gradient(border)

    def forward(self) -> Parts:
        if not self.average and self.which is None:
            self.which = np.zeros(len(self.x) * math.prod(self.sample_shape), np.int32)
        pool = ops.native.pooling.forward
        return Parts(rows=[pool(self.x, self.y, self.which, *self.window, self.average)])

    def backward(self, previous: Block | None) -> Parts:
        x, code, slope = _behind(previous)
        if self.joined and x is not None:
            images = ops.native.images.activation_backward
            return Parts(rows=[images(self.y, self.dy, self.dy, code, slope)])
        if self.dx is None:
            return Parts()
        values = self.y if x is not None and self.apart else x
        options = *self.window, self.average, values, code, slope
        return Parts(rows=[ops.native.pooling.backward(self.dy, self.dx, self.which, *options)])


class BatchNormBlock(Block):
    in_place = True
    layer: BatchNorm

    def __init__(self, layer: Layer, sample_shape: Shape) -> None:
        super().__init__(layer, sample_shape)
        self.takes = self.gives = "images" if len(sample_shape) == 3 else "rows"

    def forward(self) -> Parts:
        layer, dtype = self.layer, self.x.dtype
        channels = len(layer.params["gamma"])
        if not hasattr(self, "table"):
            groups = ops.native.batch_norm.groups(len(self.x))
            self.table = np.empty((5, channels), dtype)
            self.partial = np.empty((groups, 2, channels), dtype)
        stages = ops.native.batch_norm.forward(
            as_images(self.x),
            as_images(self.y),
            layer.params["gamma"],
            layer.params["beta"],
            layer.state["running_mean"],
            layer.state["running_var"],
            self.table,
            self.partial,
            layer.momentum,
            layer.epsilon,
            self.training,
        )
        return _stages(stages)

    def backward(self, previous: Block | None) -> Parts:
        dy = as_images(self.dy)
        return _stages(
            ops.native.batch_norm.backward(
                as_images(self.x),
                dy,
                dy,
                self.layer.params["gamma"],
                self.table,
                self.partial,
                self.layer.grads["gamma"],
                self.layer.grads["beta"],
                self.training,
            )
        )


def _stages(tasks: Sequence[ops.Task]) -> Parts:
    """All but the last task as stages of their own, the last over the samples."""
    return Parts(rows=[*([[task]] for task in tasks[:-1]), tasks[-1]])


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
    """No work: the same memory under another shape."""

    def output(self, border: Border) -> Any:
        return flat(self.x)

    def input_gradient(self, border: Border) -> Any:
        return self.dy.reshape(self.x.shape)

    def forward(self) -> Parts:
        return Parts()

    def backward(self, previous: Block | None) -> Parts:
        return Parts()


class ToImages(Block):
    """Rows in the order of NCHW to images."""

    gives = "images"

    def forward(self) -> Parts:
        return Parts(rows=[ops.native.images.from_rows(flat(self.x), self.y)])

    def backward(self, previous: Block | None) -> Parts:
        if self.dx is None:
            return Parts()
        return Parts(rows=[ops.native.images.to_rows(self.dy, flat(self.dx))])


class ToRows(Block):
    """Images to rows in the order of NCHW."""

    takes = "images"
    spare_y = True
    takes_activation = True

    def forward(self) -> Parts:
        return Parts(rows=[ops.native.images.to_rows(self.x, flat(self.y))])

    def backward(self, previous: Block | None) -> Parts:
        if self.dx is None:
            return Parts()
        task = ops.native.images.from_rows(flat(self.dy), self.dx, *_behind(previous))
        return Parts(rows=[task])


def native_block(layer: Layer, behind: Layer | None, before: Shape, after: Shape) -> Block | None:
    """The block of a layer, with the activation behind it if it takes it; None if not native.

    A subclass of a native layer is not native: its methods may be its own.
    """
    activation = behind if type(behind) in ACTIVATION_LAYERS else None
    kind = type(layer)
    if kind is Affine:
        return AffineBlock(layer, after, activation)
    if kind is Conv2D:
        return ConvBlock(layer, before, after, activation)  # type: ignore[arg-type]
    if kind in (MaxPool2D, AvgPool2D, GlobalAvgPool2D):
        return PoolBlock(layer, before, after)
    if kind is BatchNorm:
        return BatchNormBlock(layer, after)
    if kind is Dropout:
        return DropoutBlock(layer, after)
    if kind in ACTIVATION_LAYERS:
        return ActivationBlock(layer, after)
    if kind is Softmax and len(after) == 1:
        return SoftmaxBlock(layer, after)
    if kind is Flatten:
        return FlattenBlock(layer, after)
    return None


def convert(blocks: list[Block], input_shape: Shape) -> list[Block]:
    """The blocks with conversions between rows and images where they are needed; ends in rows."""
    result: list[Block] = []
    kind, shape = "rows", input_shape
    for block in blocks:
        if block.takes == "images" and kind == "rows":
            result.append(ToImages(None, shape))
        elif block.takes == "rows" and kind == "images":
            result.append(ToRows(None, shape))
        if block.takes != "any":
            kind = block.gives
        result.append(block)
        shape = block.sample_shape
    if kind == "images":
        result.append(ToRows(None, shape))
    return result
