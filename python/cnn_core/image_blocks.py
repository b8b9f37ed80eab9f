"""Blocks of images, and the conversions between rows and images; see blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _memory, ops
from cnn_core.blocks import (
    MOST_IN_A_LANE,
    MOST_SUMS,
    WORK_TO_SHARE,
    AffineBlock,
    Array,
    Block,
    Border,
    Shape,
    activation_of,
)
from cnn_core.image_layers import AvgPool2D, BatchNorm, Conv2D, MaxPool2D
from cnn_core.layers import Layer
from cnn_core.ops.dense import FEW_SAMPLES
from cnn_core.ops.images import as_images
from cnn_core.parts import Finished, Lane, Packing, Parts, flat

NUMBERS_IN_A_BYTE = 256
LEAST_PIXELS = 16  # that threads share
PIXEL_STRIPS = 8  # of a dense layer behind images, at most


class ConvBlock(Block):
    takes = gives = "images"
    takes_activation = True
    layer: Conv2D
    #: of this layer and a maximum pool behind it that may join it
    pooled: Any = None
    #: the pool, where the gradient comes from its outputs
    pool: PoolBlock | None = None
    #: where they are wanted: whether each of its windows has seen anything but zeros, [N, P], and
    #: the images by that, for each window
    seen: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]] | None = None

    def __init__(
        self, layer: Conv2D, input_shape: Shape, sample_shape: Shape, activation: Layer | None
    ) -> None:
        super().__init__(layer, sample_shape, activation)
        self.convolution = layer.convolution(input_shape)
        self.x_border = self.convolution.padding
        self.dy_border = self.convolution.gradient_border

    def meet(self, behind: Block) -> None:
        """Note a pool behind this block whose windows lie apart."""
        if isinstance(behind, PoolBlock) and behind.apart:
            size, stride, _ = behind.window
            self.pooled = ops.native.conv2d_pooled.PooledConvolution(self.convolution, size, stride)

    def join(self, behind: Block) -> None:
        """Take the gradient from the pool, where most pixels would have none."""
        is_float = self.x.dtype == np.float32
        if self.pooled is not None and self.pooled.pays(self.x.height, self.x.width, is_float):
            assert isinstance(behind, PoolBlock)
            self.pool, behind.joined = behind, True
            # Who takes the gradient back to the pool passes it through this, by the pool's y.
            behind.code, behind.slope = self.code, self.slope

    def packed(self, backward: bool) -> tuple[Array, Packing]:
        W = self.layer.params["W"]
        size = self.convolution.packed_size(backward, W.dtype == np.float32)
        packed = _memory.empty(size, W.dtype)
        return packed, Packing(W, [self.convolution.pack(W, packed, backward)])

    @property
    def by_rows(self) -> bool:
        """Whether the threads share the rows of an image."""
        work = self.layer.params["W"].size * self.y.height * self.y.width
        return len(self.x) < FEW_SAMPLES and work > WORK_TO_SHARE

    def forward(self) -> Parts:
        packed, pack = self.packed(False)
        options = self.layer.params["b"], self.y, self.code, self.slope, self.by_rows
        task = self.convolution.forward(self.x, packed, *options)
        return Parts(packing=[pack], rows=[[[task]] if self.by_rows else task]) + self.finding()

    def finding(self) -> Parts:
        """What `seen` holds."""
        if self.seen is None:
            return Parts()
        groups = ops.native.affine_images.group(*self.seen)
        return Parts(rows=[self.pooled.find_seen(self.x, self.seen[0]), [[groups]]])

    def forward_with(self, behind: Block, *rows: Array) -> Parts | None:
        """rows : of x and, if not 0, the address of those that are read in their place, where x
        itself is not made."""
        if self.pooled is None or self.by_rows:
            return None
        if rows and (self.seen is not None or not self.pooled.takes_rows(self.x, self.code)):
            return None
        assert isinstance(behind, PoolBlock)
        if not self.pooled.takes_forward and self.code != ops.ACTIVATIONS["relu"]:
            return None
        packed, pack = self.packed(False)
        x, b = self.x, self.layer.params["b"]
        if self.pooled.takes_forward:
            options = packed, b, behind.y, behind.numbers(), self.code, self.slope, *rows
            task = self.pooled.forward(x, *options)
            return Parts(packing=[pack], rows=[task]) + self.finding()
        # The maximum of what a ReLU lets pass is the ReLU of the maximum.
        task = self.convolution.forward(x, packed, b, self.y, 0, 0.0)
        return Parts(packing=[pack], rows=[task]) + behind.forward(relu=True) + self.finding()

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
                self.convolution.input_gradient(self.dy, packed, self.dx, *activation_of(previous))
            )
        return parts

    def pooled_backward(self, pool: PoolBlock, partial: Array, previous: Block | None) -> Parts:
        """The same from the gradient by the outputs of the pool behind."""
        W, grads, gradients = self.layer.params["W"], self.layer.grads, self.pooled
        seen = self.seen[0] if self.seen is not None else None
        parts = Parts(
            rows=[gradients.weight_gradient(self.x, pool.dy, pool.which, partial, seen)],
            reduce=[[self.convolution.reduce(partial, grads["W"], grads["b"], True)]],
        )
        if self.dx is not None:
            packed = _memory.empty(W.size, W.dtype)
            parts.packing = [Packing(W, [gradients.pack(W, packed)])]
            options = pool.dy, pool.which, packed, self.dx, *activation_of(previous)
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
        self.which: npt.NDArray[np.uint8] | npt.NDArray[np.int32] | None = None

    def input_gradient(self, border: Border) -> Any:
        return None if self.joined else super().input_gradient(border)

    def numbers(self) -> npt.NDArray[np.uint8] | npt.NDArray[np.int32] | None:
        """Room for those of the pixels that were the maxima, where the gradient needs them."""
        if self.gradient and not self.average and self.which is None:
            size = len(self.x) * math.prod(self.sample_shape)
            area = math.prod(self.window[0])
            small = area <= NUMBERS_IN_A_BYTE
            self.which = np.zeros(size, np.uint8) if small else np.zeros(size, np.int32)
        return self.which

    def forward(self, relu: bool = False) -> Parts:
        options = self.numbers(), *self.window, self.average, relu
        return Parts(rows=[ops.native.pooling.forward(self.x, self.y, *options)])

    def backward(self, previous: Block | None) -> Parts:
        if self.joined or self.dx is None:
            return Parts()
        x, code, slope = activation_of(previous)
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


class ToImages(Block):
    """Rows in the order of NCHW to images."""

    gives = "images"

    def forward(self) -> Parts:
        return Parts(rows=[ops.native.images.from_rows(flat(self.x), self.y)])

    def forward_from(self, place: Array) -> Parts:
        """Images of rows that lie elsewhere than in `x`: at the address place[0]."""
        return Parts(rows=[ops.native.images.from_rows(flat(self.x), self.y, place=place)])

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
        task = ops.native.images.from_rows(flat(self.dy), self.dx, *activation_of(previous))
        return Parts(rows=[task])


class ImagesAffineBlock(AffineBlock):
    """A dense layer behind images in a training step, with so many weights that it is computed
    pixel by pixel, by threads that share the weights.
    """

    takes = "images"
    #: see ConvBlock.seen
    groups: npt.NDArray[np.int32] | None = None

    @classmethod
    def suits(cls, block: Block | None, shape: Shape, n: int) -> bool:
        """Whether it pays for batches of n images of this shape."""
        if type(block) is not AffineBlock or n < FEW_SAMPLES or len(shape) != 3:
            return False
        weights = block.layer.params["W"].size
        return weights > MOST_IN_A_LANE and shape[1] * shape[2] >= LEAST_PIXELS

    def forward(self) -> Parts:
        W, b, n_strips = self.layer.params["W"], self.layer.params["b"], PIXEL_STRIPS
        n_strips = min(n_strips, self.x.height * self.x.width)
        while n_strips > 1 and self.y.size * n_strips > MOST_SUMS:
            n_strips //= 2
        sums = _memory.empty((n_strips - 1, *self.y.shape), self.y.dtype)
        options = self.x, W, b, self.y, sums, self.groups
        products = ops.native.affine_images.forward_strips(*options)
        total = ops.native.affine.add_strips_of(sums, self.y, self.code, self.slope)
        return Parts(rows=[[[products]], total])

    def share(self, block: ConvBlock) -> None:
        """Compute once what images have in common where they have seen nothing.

        block : the first layer, whose pool is before this one; it needs no more of their dx than
            the sum.
        """
        x, n_out = self.x, self.layer.params["W"].shape[1]
        affine, n_pixels = ops.native.affine_images, x.height * x.width
        if block.x.channels == 1 and affine.shares(x.channels, n_out, x.dtype == np.float32):
            self.groups = np.zeros(affine.groups_shape(len(x), n_pixels), np.int32)
            block.seen = np.zeros((len(x), n_pixels), np.uint8), self.groups

    def overwrites(self, previous: Block | None) -> bool:
        """Whether dx may take the place of x, which nobody reads behind this lane."""
        most = ops.native.affine_images.MOST_IN_PLACE
        joined = isinstance(previous, PoolBlock) and previous.joined
        same = self.dx is not None and self.dx.border == self.x.border
        return joined and same and self.layer.params["W"].shape[1] <= most

    def backward(self, previous: Block | None) -> Parts:
        affine, W, grads = ops.native.affine_images, self.layer.params["W"], self.layer.grads
        lane: Lane = [affine.weight_gradient(self.x, self.dy, grads["W"], self.groups)]
        db: Lane = [ops.native.affine_gradient.bias_gradient(self.dy, grads["b"])]
        if self.dx is not None:
            options = *activation_of(previous), self.groups
            lane.append(affine.input_gradient(self.dy, W, self.dx, *options))
        finished = [Finished(grads["W"], lane, planes=self.x.channels), Finished(grads["b"], db)]
        return Parts(rows=[[lane, db]], finished=finished)
