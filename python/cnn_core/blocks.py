"""Blocks: a layer that the native half knows, with the activation behind it, as compiled tasks.

A block owns the buffers of one batch size and says what is to run, as `Parts` of a program; the
order of things is the business of plan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import ops
from cnn_core.layers import Affine, Flatten, Layer, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Lane = list[ops.Task]

ACTIVATION_LAYERS = (Sigmoid, Tanh, ReLU, LeakyReLU)


@dataclass
class Parts:
    """What goes into a program, by the place it has there (see plan.py)."""

    before: list[Lane] = field(default_factory=list)
    rows: list[ops.Task] = field(default_factory=list)
    after: list[Lane] = field(default_factory=list)
    update: list[Lane] = field(default_factory=list)

    def __add__(self, other: Parts) -> Parts:
        return Parts(
            self.before + other.before,
            self.rows + other.rows,
            self.after + other.after,
            self.update + other.update,
        )

    def program(self) -> ops.Program:
        return ops.Program([self.before, [self.rows], self.after, self.update])


def flat(array: Array) -> Array:
    """(N, ...) as (N, size); a view."""
    return array.reshape(len(array), -1)


class Block:
    """A native layer and perhaps the activation behind it.

    x, y : buffers of inputs and outputs, y after the activation.
    dy : the gradient by y; after `backward` that by the value before the activation, in place.
    dx : the gradient by x, or None where nobody needs it.
    """

    x: Array
    y: Array
    dy: Array
    dx: Array | None = None

    def __init__(self, layer: Layer, activation: Layer | None = None) -> None:
        self.layer = layer
        self.activation = activation
        self.code = ops.ACTIVATIONS[activation.activation] if activation else 0
        self.slope = float(getattr(activation, "slope", 0.0))

    def output(self, x: Array) -> Array:
        """A buffer for the outputs."""
        return np.empty((len(x), *self.layer.output_shape(x.shape[1:])), x.dtype)

    def input_gradient(self) -> Array:
        """A buffer for the gradient by x."""
        return np.empty_like(self.x)

    def forward(self) -> Parts:
        raise NotImplementedError

    def backward(self, previous: Block | None) -> Parts:
        """Gradients by x and by the parameters, from dy before the activation.

        Where `takes_activation`, dx is also passed through the derivative of `previous`.
        """
        raise NotImplementedError

    takes_activation = False

    def activation_backward(self) -> Parts:
        """dy through the derivative of this block's activation, in place."""
        dy = flat(self.dy)
        task = ops.native.activations.backward(flat(self.y), dy, dy, self.code, self.slope)
        return Parts(rows=[task])


class AffineBlock(Block):
    takes_activation = True

    def forward(self) -> Parts:
        W, b = self.layer.params["W"], self.layer.params["b"]
        task = ops.native.affine.forward(self.x, W, b, self.y, self.code, self.slope)
        return Parts(rows=[task])

    def backward(self, previous: Block | None) -> Parts:
        affine, W, grads = ops.native.affine, self.layer.params["W"], self.layer.grads
        parts = Parts(
            after=[
                [affine.weight_gradient(self.x, self.dy, grads["W"])],
                [affine.bias_gradient(self.dy, grads["b"])],
            ]
        )
        if self.dx is not None:
            packed = ops.packed_buffer(W)
            parts.before = [[ops.native.gemm.pack_transposed(W, packed)]]
            y, code, slope = None, 0, 0.0
            if previous is not None and previous.code:
                y, code, slope = flat(previous.y), previous.code, previous.slope
            parts.rows = [affine.input_gradient(self.dy, packed, self.dx, y, code, slope)]
        return parts


class ActivationBlock(Block):
    """An activation that follows no layer which could take it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer, layer)

    def forward(self) -> Parts:
        task = ops.native.activations.forward(flat(self.x), flat(self.y), self.code, self.slope)
        return Parts(rows=[task])

    def input_gradient(self) -> Array:
        return self.dy

    def backward(self, previous: Block | None) -> Parts:
        return Parts()


class SoftmaxBlock(Block):
    def forward(self) -> Parts:
        x, y = flat(self.x), flat(self.y)
        return Parts(rows=[ops.native.activations.softmax_forward(x, y)])

    def backward(self, previous: Block | None) -> Parts:
        if self.dx is None:
            return Parts()
        softmax = ops.native.activations.softmax_backward
        return Parts(rows=[softmax(flat(self.y), flat(self.dy), flat(self.dx))])


class FlattenBlock(Block):
    """No work: the same memory under another shape."""

    def output(self, x: Array) -> Array:
        return flat(x)

    def input_gradient(self) -> Array:
        return self.dy.reshape(self.x.shape)

    def forward(self) -> Parts:
        return Parts()

    def backward(self, previous: Block | None) -> Parts:
        return Parts()


def blocks_of(layers: Sequence[Layer], sample_shapes: Sequence[Shape]) -> list[Block | Layer]:
    """Blocks and, where a layer is not native, the layer itself. A subclass is not native."""
    blocks: list[Block | Layer] = []
    position = 0
    while position < len(layers):
        layer = layers[position]
        behind = layers[position + 1] if position + 1 < len(layers) else None
        position += 1
        if type(layer) is Affine:
            fused = behind if type(behind) in ACTIVATION_LAYERS else None
            blocks.append(AffineBlock(layer, fused))
            position += fused is not None
        elif type(layer) in ACTIVATION_LAYERS:
            blocks.append(ActivationBlock(layer))
        elif type(layer) is Softmax and len(sample_shapes[position - 1]) == 1:
            blocks.append(SoftmaxBlock(layer))
        elif type(layer) is Flatten:
            blocks.append(FlattenBlock(layer))
        else:
            blocks.append(layer)
    return blocks
