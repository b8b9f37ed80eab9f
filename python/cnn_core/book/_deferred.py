"""Images that a layer hands on before they are computed.

A convolution, the activation behind it and the pooling behind that are much faster as one pass
over a few images at a time than as three over the whole batch. So the layers for images return a
`Deferred`: an array to whoever looks into it, and to another such layer the `Step` that is still to
be made. Steps are made together, where an affine layer or a script wants the numbers or a
convolution its gradients. One that nobody wants, such as the gradient by the network's input, is
never made.

What a step reads belongs to it: the weights and arrays of a script are copied when the layer is
called, and who looks into a result gets a copy. So no result depends on when it is computed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cnn_core import ops
from cnn_core.ops.images import Images, new_images
from cnn_core.ops.windows import NO_BORDER, Border

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Lane = list[ops.Task]
Fill = Callable[[Images], Lane]

_FLOAT64 = np.dtype(np.float64)
_RELU = ops.ACTIVATIONS["relu"]
_KEPT = 2
_MOST_BYTES = 32 << 20  # of images whose memory is kept


class Buffers:
    """Images for one layer's results, in the memory of earlier ones that nobody has any more.

    To find new memory takes the operating system about as long as a layer takes to fill it.
    """

    def __init__(self) -> None:
        self._kept: list[Images] = []

    def images(self, shape: Shape, border: Border = NO_BORDER) -> Images:
        """Images (N, C, H, W), float64, with a border of zeros."""
        for index in range(len(self._kept)):
            if _references(self._kept, index) == _ONLY_OURS:
                kept = self._kept[index]
                if (kept.shape, kept.border) == (shape, border):
                    return kept
        images = new_images(shape, border, _FLOAT64)
        if images.buffer.nbytes <= _MOST_BYTES:
            self._kept = [images, *self._kept[: _KEPT - 1]]
        return images

    def __reduce__(self) -> Any:
        return Buffers, ()


def _references(items: Sequence[Any], index: int) -> int:
    return sys.getrefcount(items[index])


_ONLY_OURS = _references([object()], 0)


# ---------------------------------------------------------------------------------------- steps


class Step:
    """One layer's images (N, C, H, W) for a batch, or what will fill them.

    fill : given images, the tasks that fill them, those of the steps before included.
    through_relu : the same for the images behind a ReLU, in one pass. Called with None for the
        activation itself; with the step of a ReLU's result for its derivative. It returns None
        where there is no such pass.
    """

    def __init__(
        self,
        shape: Shape,
        buffers: Buffers,
        fill: Fill,
        through_relu: Callable[[Images, Step | None], Lane | None] | None = None,
    ) -> None:
        self.shape, self._buffers = shape, buffers
        self._fill: Fill | None = fill
        self._through_relu = through_relu
        self._images: Images | None = None

    def images(self, border: Border = NO_BORDER) -> tuple[Images, Lane]:
        """The images with at least this border, and the tasks to be run before they are read."""
        images = self._images
        if images is None:
            assert self._fill is not None
            images = self._buffers.images(self.shape, border)
            lane = self._fill(images)
            self._images, self._fill, self._through_relu = images, None, None
            return images, lane
        if all(have >= need for have, need in zip(images.border, border, strict=True)):
            return images, []
        copy = self._buffers.images(self.shape, border)
        return copy, [ops.native.images.activation_forward(images, copy, 0, 0.0)]

    def compute(self) -> None:
        """Have the images in memory."""
        ops.Program([[self.images()[1]]]).run()

    def through_relu(self, images: Images, y: Step | None) -> Lane | None:
        """The tasks that fill images behind a ReLU in one pass, if this step is still to be made
        and there is one.
        """
        return None if self._through_relu is None else self._through_relu(images, y)

    def __reduce__(self) -> Any:
        return copied, (self.array(), Buffers())

    def array(self) -> Array:
        """A copy of the images as an array (N, C, H, W)."""
        images, lane = self.images()
        array = np.empty(self.shape)
        lane.append(ops.native.images.to_rows(images, array.reshape(len(array), -1)))
        ops.Program([[lane]]).run()
        return array


def copied(x: Array, buffers: Buffers, border: Border = NO_BORDER) -> Step:
    """The step of an array (N, C, H, W): a copy, made at once."""
    if x.ndim != 4 or not x.size:
        raise ValueError(f"expected images (N, C, H, W), got shape {x.shape}")
    images = buffers.images(x.shape, border)
    if x.dtype == _FLOAT64 and x.flags.c_contiguous:
        ops.run(ops.native.images.from_rows(x.reshape(len(x), -1), images))
    else:
        images.array[...] = x.transpose(0, 2, 3, 1)
    step = Step(x.shape, buffers, lambda _: [])
    step._images = images
    return step


def relu(x: Step, buffers: Buffers) -> Step:
    """max(x, 0)"""

    def fill(images: Images) -> Lane:
        lane = x.through_relu(images, None)
        if lane is None:
            source, lane = x.images()
            lane.append(ops.native.images.activation_forward(source, images, _RELU, 0.0))
        return lane

    return Step(x.shape, buffers, fill)


def relu_gradient(y: Step, dout: Step, buffers: Buffers) -> Step:
    """dout where y > 0, else 0"""

    def fill(images: Images) -> Lane:
        lane = dout.through_relu(images, y)
        if lane is None:
            values, lane = y.images()
            source, more = dout.images()
            backward = ops.native.images.activation_backward
            lane += [*more, backward(values, source, images, _RELU, 0.0)]
        return lane

    return Step(y.shape, buffers, fill)


def convolution(geometry: Any, packed: Array, b: Array, x: Step, buffers: Buffers) -> Step:
    """The convolution of x with packed weights, plus b."""

    def fill(images: Images, code: int = 0) -> Lane:
        source, lane = x.images(geometry.padding)
        return [*lane, geometry.forward(source, packed, b, images, code, 0.0)]

    def through_relu(images: Images, y: Step | None) -> Lane | None:
        return fill(images, _RELU) if y is None else None

    n, _, *sizes = x.shape
    shape = (n, geometry.filters, *geometry.output_size(*sizes))
    return Step(shape, buffers, fill, through_relu)


def convolution_gradient(
    geometry: Any, packed: Array, dy: Images, shape: Shape, buffers: Buffers
) -> Step:
    """The gradient by the input (of this shape) of a convolution."""

    def fill(images: Images, *behind: Any) -> Lane:
        return [geometry.input_gradient(dy, packed, images, *behind)]

    def through_relu(images: Images, y: Step | None) -> Lane | None:
        if y is None:
            return None
        values, lane = y.images()
        return lane + fill(images, values, _RELU, 0.0)

    return Step(shape, buffers, fill, through_relu)


class Window(NamedTuple):
    """The windows of a maximum, without padding."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: Border = NO_BORDER
    average: bool = False


def pooling(x: Step, window: Window, buffers: Buffers) -> tuple[Step, Array]:
    """The maxima of the windows of x, and their places, which are written with them."""
    sizes = ops.images.pool_output_size(x.shape[2:], *window[:3])
    shape = (*x.shape[:2], *sizes)
    which = np.empty(math.prod(shape), np.int32)

    def fill(images: Images) -> Lane:
        source, lane = x.images()
        return [*lane, ops.native.pooling.forward(source, images, which, *window)]

    return Step(shape, buffers, fill), which


def pooling_gradient(
    x: Step, y: Step, dout: Step, window: Window, which: Array, buffers: Buffers
) -> Step:
    """The gradient by x of y, the maxima of its windows."""

    def fill(images: Images, *behind: Any) -> Lane:
        _, lane = y.images()  # which fills `which`
        source, more = dout.images()
        backward = ops.native.pooling.backward
        return [*lane, *more, backward(source, images, which, *window, *behind)]

    def through_relu(images: Images, relu_y: Step | None) -> Lane | None:
        if relu_y is not x:
            return None
        values, lane = (y if ops.native.pooling.apart(*window) else x).images()
        return lane + fill(images, values, _RELU, 0.0)

    return Step(x.shape, buffers, fill, through_relu)


# ------------------------------------------------------------------------------------- deferred


class Deferred(np.lib.mixins.NDArrayOperatorsMixin):
    """An array (N, C, H, W), float64, that is computed when somebody looks into it.

    It has the operators, methods and attributes of an array; numpy.asarray gives the array itself.
    """

    __slots__ = ("_array", "_shape", "_step")

    def __init__(self, step: Step) -> None:
        self._step: Step | None = step
        self._array: Any = None
        self._shape = step.shape

    @property
    def step(self) -> Step | None:
        """What the array is, until somebody has looked into it and may have changed it."""
        return self._step

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def ndim(self) -> int:
        return len(self._shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._step is not None:
            self._array, self._step = self._step.array(), None
        return np.array(self._array, dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            kwargs["out"] = tuple(_looked_into(value) for value in kwargs["out"])
        return getattr(ufunc, method)(*(_looked_into(value) for value in inputs), **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what NumPy and pickle look for before they take `__array__`
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        np.asarray(self)[key] = value

    def __len__(self) -> int:
        return self._shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(np.asarray(self))

    def __bool__(self) -> bool:
        return bool(np.asarray(self))

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def __str__(self) -> str:
        return str(np.asarray(self))

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


def _looked_into(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, Deferred) else value


def as_step(x: Array | Deferred, buffers: Buffers, border: Border = NO_BORDER) -> Step:
    """What x is computed by, or a copy of x with this border."""
    step = x.step if isinstance(x, Deferred) else None
    return copied(np.asarray(x), buffers, border) if step is None else step


def as_rows(x: Array | Deferred) -> Array:
    """x (N, ...) as rows (N, size): a view, or a copy."""
    step = x.step if isinstance(x, Deferred) else None
    array = np.asarray(x) if step is None else step.array()
    return array.reshape(len(array), -1)
