"""Segments of a plan (see plan.py): neighbouring native layers as blocks with their buffers, or one
layer in plain Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _memory, ops
from cnn_core.blocks import (
    NO_BORDER,
    ActivationBlock,
    AffineBlock,
    Block,
    DropoutBlock,
    FlattenBlock,
    Shape,
    SoftmaxBlock,
)
from cnn_core.image_blocks import (
    BatchNormBlock,
    ConvBlock,
    ImagesAffineBlock,
    PoolBlock,
    ToImages,
    ToRows,
)
from cnn_core.image_layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    MaxPool2D,
)
from cnn_core.layers import Affine, Flatten, Layer, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from cnn_core.losses import Loss
from cnn_core.ops.dense import FEW_SAMPLES
from cnn_core.ops.images import Images
from cnn_core.parts import Parts, flat

Array = npt.NDArray[Any]
ACTIVATION_LAYERS = (Sigmoid, Tanh, ReLU, LeakyReLU)


class NativeSegment:
    """Neighbouring blocks, with the buffers between them."""

    #: see AffineBlock.strips, of the first block
    strips: tuple[int, int] | None = None
    #: of the parameters that have been packed by `_pack`, where `_forward` does not pack them
    _snapshot: Any = None

    def __init__(
        self, blocks: list[Block], x: Array, training: bool, gradient: bool, need_dx: bool
    ) -> None:
        self.x, self.training, self.gradient = x, training, gradient
        self.blocks = convert(blocks, x.shape[1:], len(x) if gradient else 0)
        self._lay_out(x)
        #: the first block that needs a gradient: none before it has parameters
        self.lowest = 0
        if not need_dx:
            layers = (block.layer for block in self.blocks)
            trained = (i for i, layer in enumerate(layers) if getattr(layer, "params", None))
            self.lowest = next(trained, len(self.blocks))
            if self.dense is not None:
                self.dense.reads_data = True
        if gradient:
            self._lay_out_gradients(need_dx)
            first = next((b for b in self.blocks if not isinstance(b, FlattenBlock)), None)
            if not need_dx and isinstance(first, AffineBlock):
                first.cut()
                self.strips = first.strips

    def _lay_out(self, x: Any) -> None:
        spare = False
        for block, behind in zip(self.blocks, [*self.blocks[1:], None], strict=True):
            block.x, block.spare_x, block.training = x, spare, self.training
            block.gradient = self.gradient
            block.y = x = block.output(behind.x_border if behind is not None else NO_BORDER)
            if isinstance(block, ConvBlock) and behind is not None:
                block.meet(behind)
            spare = block.spare_y or (spare and isinstance(block, FlattenBlock))
        self.y: Array = x

    def _lay_out_gradients(self, need_dx: bool) -> None:
        for previous, block in pairwise(self.blocks):
            if block.in_place:
                block.dy_border = previous.dy_border
            if isinstance(previous, ConvBlock):
                previous.join(block)
        self.dy = dy = _memory.empty(self.y.shape, self.y.dtype)
        for index in reversed(range(self.lowest, len(self.blocks))):
            block = self.blocks[index]
            block.dy = dy
            if index > self.lowest or need_dx:
                border = self.blocks[index - 1].dy_border if index else NO_BORDER
                block.dx = dy = block.input_gradient(border)
        self.dx = self.blocks[0].dx
        match [b for b in self.blocks[self.lowest :] if not isinstance(b, FlattenBlock)]:
            case [ConvBlock() as first, PoolBlock(joined=True), ImagesAffineBlock() as dense, *_]:
                if first.dx is None:
                    dense.share(first)

    @property
    def dense(self) -> AffineBlock | None:
        """The layer that reads `x` as it comes, if it is a dense one."""
        reader = self.reader
        return reader if isinstance(reader, AffineBlock) else None

    @property
    def reader(self) -> AffineBlock | ToImages | None:
        """The block that reads `x` as it comes, if it can read rows that lie elsewhere."""
        block = next((b for b in self.blocks if not isinstance(b, FlattenBlock)), None)
        return block if type(block) is AffineBlock or isinstance(block, ToImages) else None

    @property
    def images(self) -> set[Images]:
        """All buffers of images between the blocks."""
        buffers = (buffer for block in self.blocks for buffer in (block.x, block.y, block.dx))
        return {buffer for buffer in buffers if isinstance(buffer, Images)}

    def forward_parts(self, first: int = 0, passing: bool = False) -> Parts:
        """The forward pass, from block `first` on."""
        return sum((parts for _, parts in self.forward_blocks(first, passing)), Parts())

    def reading_parts(self, read: Parts | Array, passing: bool) -> Parts:
        """The forward pass of rows that `read` puts into `x`, or whose address it holds."""
        reader, dense = self.reader, self.dense
        if not isinstance(read, Parts):
            assert reader is not None
            index = self.blocks.index(reader)
            match self.blocks[index : index + 3]:
                case [ToImages(), ConvBlock() as block, behind] if passing:
                    both = block.forward_with(behind, flat(reader.x), read)
                    if both is not None:
                        return both + self.forward_parts(index + 3, passing)
            first = reader.forward_from(read)
        elif dense is not None and dense.strips and read.following:
            first = read + dense.forward_strips(*read.following[0])
        else:
            return read + self.forward_parts(passing=passing)
        assert reader is not None
        return first + self.forward_parts(self.blocks.index(reader) + 1, passing)

    def backward_parts(self, passing: bool = False) -> Parts:
        """Gradients from self.dy, the gradient by self.y."""
        return sum((parts for _, parts in self.backward_blocks(passing)), Parts())

    def forward_blocks(
        self, first: int = 0, passing: bool = False
    ) -> Iterator[tuple[Block, Parts]]:
        """The forward pass, block by block.

        passing : whether nobody wants all outputs afterwards: some blocks take the next one along.
        """
        blocks = iter(pairwise([*self.blocks[first:], None]))
        for block, behind in blocks:
            assert block is not None
            both = block.forward_with(behind) if passing and behind is not None else None
            yield block, both or block.forward()
            if both:
                next(blocks)

    def backward_blocks(self, passing: bool = False) -> Iterator[tuple[Block, Parts]]:
        """The backward pass, block by block, an activation apart from its layer.

        passing : whether nobody wants all outputs afterwards: a gradient may take their place.
        """
        done, own = False, []
        blocks = [b for b in self.blocks[self.lowest :] if not isinstance(b, FlattenBlock)]
        try:
            for previous, block in reversed([*pairwise([None, *blocks])]):
                assert block is not None
                if passing and isinstance(block, ImagesAffineBlock) and block.overwrites(previous):
                    assert previous is not None and previous.dy is block.dx
                    own.append((block, previous, block.dx))
                    block.dx = previous.dy = block.x
                if block.code and not done:
                    yield block, block.activation_backward()
                yield block, block.backward(previous)
                done = block.takes_activation
        finally:  # other programs of this plan keep the outputs
            for block, previous, dx in own:
                block.dx = previous.dy = dx

    def forward(self) -> None:
        if not hasattr(self, "_forward"):
            parts = self.forward_parts(passing=not (self.training or self.gradient))
            # One sample has little more work than the packing of weights that mostly stay the same.
            if parts.packing and not self.training and len(self.x) < FEW_SAMPLES:
                sources = [packing.source for packing in parts.packing]
                self._pack = Parts(packing=parts.packing).program()
                self._pack.run()
                self._snapshot = ops.native.gemm.Snapshot(sources)
                parts.packing, parts.beside = [], [[self._snapshot.compare()]]
            self._forward = parts.program()
        self._forward.run()
        # Whether they have is found out meanwhile, by threads that would wait.
        if self._snapshot is not None and self._snapshot.changed:
            self._snapshot.take()
            self._pack.run()
            self._forward.run()

    def backward(self) -> None:
        if not hasattr(self, "_backward"):
            self._backward = self.backward_parts().program()
        self._backward.run()


class PythonSegment:
    """One layer in plain Python between buffers."""

    strips = None

    def __init__(
        self, layer: Layer, x: Array, output_shape: Shape, training: bool, gradient: bool
    ) -> None:
        self.layer, self.x, self.training = layer, read_only(x), training
        self.y = np.empty((len(x), *output_shape), x.dtype)
        # The network's views; the layer may put other arrays into `grads`.
        self.grads = dict(layer.grads) if getattr(layer, "params", None) else {}
        if gradient:
            self.dy, self.dx = np.empty_like(self.y), np.empty_like(x)

    def forward(self) -> None:
        copy_result(self.layer, "forward", self.layer.forward(self.x, self.training), self.y)

    def backward(self) -> None:
        copy_result(self.layer, "backward", self.layer.backward(self.dy), self.dx)
        for name, view in self.grads.items():
            result = self.layer.grads.get(name)
            if result is not view:
                copy_result(self.layer, f"grads[{name!r}]", result, view)


def read_only(array: Array) -> Array:
    """A view for a user's code: writing to it would spoil what the layer before has kept."""
    view = array.view()
    view.flags.writeable = False
    return view


def copy_result(layer: Layer | Loss, method: str, result: Any, buffer: Array) -> None:
    if np.shape(result) != buffer.shape:
        raise ValueError(
            f"{type(layer).__name__}.{method}: expected a result of shape {buffer.shape},"
            f" got {np.shape(result)}"
        )
    np.copyto(buffer, result, casting="same_kind")


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


def convert(blocks: list[Block], input_shape: Shape, n: int) -> list[Block]:
    """The blocks with conversions between rows and images where they are needed; ends in rows.

    n : the number of samples whose gradients are computed, or 0.
    """
    result: list[Block] = []
    kind, shape = "rows", input_shape
    for block, behind in zip(blocks, [*blocks[1:], None], strict=True):
        flattens = kind == "images" and isinstance(block, FlattenBlock)
        if flattens and ImagesAffineBlock.suits(behind, shape, n):
            result.append(block)
            continue
        if kind == "images" and ImagesAffineBlock.suits(block, shape, n):
            block = ImagesAffineBlock(block.layer, block.sample_shape, block.activation)
        elif block.takes == "images" and kind == "rows":
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
