"""Images amid guarded memory, and the native tasks on them as functions of arrays (N, C, H, W)."""

import numpy as np

from cnn_core import _conv2d, _images, _parallel
from native.c_buffers import GUARD
from reference import same_bits

PIXELS_WRONG = "a pixel of the border has been written to"


class GuardedImages:
    """Images whose border, slack and surroundings must stay as they are.

    What a kernel may read but must not use holds NaN: the slack, and the values of an output.
    """

    def __init__(self, shape, border, dtype, values=None):
        n, channels, height, width = shape
        size = _images.buffer_size(n, height, width, channels, border)
        self.store = np.full(size + 2 * GUARD, np.nan, dtype)
        buffer = self.store[GUARD : GUARD + size]
        self.images = _images.Images(n, height, width, channels, border, buffer)
        used = n * (height + sum(border[:2])) * (width + sum(border[2:])) * channels
        buffer[:used] = 0
        self.images.array[...] = np.nan if values is None else np.moveaxis(values, 1, -1)
        self.before = self._surroundings()

    def _surroundings(self):
        """All memory, the images proper blanked out."""
        kept = self.images.array.copy()
        self.images.array[...] = 0
        surroundings = self.store.tobytes()
        self.images.array[...] = kept
        return surroundings

    @property
    def values(self):
        """(N, C, H, W)."""
        return np.ascontiguousarray(np.moveaxis(self.images.array, -1, 1))

    def check(self):
        assert self._surroundings() == self.before, PIXELS_WRONG


def wider(border, more):
    return tuple(size + more for size in border)


def guarded_array(shape, dtype):
    """An array of NaN, or 77, to be filled, and a function that checks what lies around it."""
    size, dtype = int(np.prod(shape)), np.dtype(dtype)
    store = np.full(size + 2 * GUARD, np.nan if dtype.kind == "f" else 77, dtype)
    array = store[GUARD : GUARD + size].reshape(shape)

    def check():
        around = np.concatenate([store[:GUARD], store[GUARD + size :]])
        assert np.array_equal(around, [store[0]] * len(around), True), "written outside an array"

    return array, check


class Convolution:
    """One convolution at native level; `more` widens every border beyond what is needed."""

    def __init__(self, x_shape, W_shape, dtype, *, stride, padding, dilation, more=0):
        groups = x_shape[1] // W_shape[1]
        self.geometry = _conv2d.Convolution(
            x_shape[1], W_shape[0], W_shape[2:], stride, padding, dilation, groups, np.empty
        )
        self.x_shape, self.dtype, self.more = x_shape, np.dtype(dtype), more
        self.y_shape = x_shape[0], W_shape[0], *self.geometry.output_size(*x_shape[2:])

    def _packed(self, W, backward):
        size = self.geometry.packed_size(backward, self.dtype == np.float32)
        packed, check = guarded_array((size,), self.dtype)
        _parallel.run(self.geometry.pack(W, packed, backward))
        check()
        return packed

    def forward(self, x, W, b, activation=0, slope=0.0, *, by_rows=False):
        x_ = GuardedImages(self.x_shape, wider(self.geometry.padding, self.more), self.dtype, x)
        y = GuardedImages(self.y_shape, (self.more,) * 4, self.dtype)
        packed = self._packed(W, False)
        options = x_.images, packed, b, y.images, activation, slope, by_rows
        _parallel.run(self.geometry.forward(*options))
        x_.check()
        y.check()
        assert same_bits(x_.values, x), "the input has been written to"
        return y.values

    def input_gradient(self, dout, W, previous=None, activation=0, slope=0.0):
        border = wider(self.geometry.gradient_border, self.more)
        dy = GuardedImages(self.y_shape, border, self.dtype, dout)
        dx = GuardedImages(self.x_shape, (2 * self.more, self.more, 0, self.more), self.dtype)
        packed, behind = self._packed(W, True), ()
        if previous is not None:
            kept = GuardedImages(self.x_shape, (0, self.more, 1, 0), self.dtype, previous)
            behind = kept.images, activation, slope
        _parallel.run(self.geometry.input_gradient(dy.images, packed, dx.images, *behind))
        dy.check()
        dx.check()
        assert same_bits(dy.values, dout), "dout has been written to"
        return dx.values

    def weight_gradient(self, x, dout, W_shape):
        x_ = GuardedImages(self.x_shape, wider(self.geometry.padding, self.more), self.dtype, x)
        dy = GuardedImages(self.y_shape, (self.more,) * 4, self.dtype, dout)
        _, n_sums, size = self.geometry.sums(self.x_shape[0])
        partial, check_partial = guarded_array((n_sums, size), self.dtype)
        dW, check_dW = guarded_array(W_shape, self.dtype)
        db, check_db = guarded_array(W_shape[:1], self.dtype)
        tasks = (
            self.geometry.weight_gradient(x_.images, dy.images, partial),
            self.geometry.reduce(partial, dW, db),
        )
        _parallel.run(*tasks)
        for check in (x_.check, dy.check, check_partial, check_dW, check_db):
            check()
        return dW, db
