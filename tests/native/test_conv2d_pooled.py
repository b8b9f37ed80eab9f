"""Gradients of a convolution behind which maxima are taken, at native level, on every table.

Operands are small integers, as in test_conv2d.py: results must equal those of the gradient of all
pixels, most of which are 0.
"""

import numpy as np
import pytest

import reference_images
from cnn_core import _conv2d, _conv2d_pooled, _parallel
from native.c_kernels import ACTIVATIONS
from native.image_tasks import GuardedImages, guarded_array, wider
from reference import assert_close, random_array, same_bits

CHANNELS = (1, 2, 5, 15, 16, 17, 31, 33, 64, 65)

# kernel, stride, padding (top, bottom, left, right), dilation of rows
CONVOLUTIONS = {
    "1x1": ((1, 1), (1, 1), (0, 0, 0, 0), 1),
    "3x3 same": ((3, 3), (1, 1), (1, 1, 1, 1), 1),
    "5x5 padded": ((5, 5), (1, 1), (2, 2, 2, 2), 1),
    "7x5 padded": ((7, 5), (1, 1), (3, 3, 2, 2), 1),
    "2x3": ((2, 3), (1, 1), (0, 0, 0, 0), 1),
    "7x2": ((7, 2), (1, 1), (3, 3, 0, 1), 1),
    "stride": ((3, 3), (2, 3), (1, 0, 2, 1), 1),
    "stride beyond the kernel": ((1, 2), (2, 3), (0, 1, 1, 0), 1),
    "rows apart": ((3, 2), (1, 1), (2, 2, 1, 0), 2),
    "more padding than kernel": ((2, 2), (1, 1), (3, 2, 1, 4), 1),
}
# size, stride
WINDOWS = {
    "2x2": ((2, 2), (2, 2)),
    "1x1": ((1, 1), (1, 1)),
    "3x2 with gaps": ((3, 2), (3, 4)),
    "4x4": ((4, 4), (5, 4)),
}


class Case:
    """Operands, and the gradient by all pixels that goes with that by the windows."""

    def __init__(self, rng, n, channels, filters, sizes, convolution, windows, dtype, alive=0.6):
        kernel, stride, self.padding, dilation = CONVOLUTIONS[convolution]
        self.size, self.stride = WINDOWS[windows]
        self.options = {"stride": stride, "padding": self.padding, "dilation": (dilation, 1)}
        self.x_shape, self.W_shape = (n, channels, *sizes), (filters, channels, *kernel)
        self.convolution = _conv2d.Convolution(
            channels, filters, kernel, stride, self.padding, (dilation, 1), 1, np.empty
        )
        self.gradients = _conv2d_pooled.PooledConvolution(self.convolution, self.size, self.stride)
        whole = self.convolution.output_size(*sizes)
        ends = zip(whole, self.size, self.stride, strict=True)
        shape = n, filters, *((all_ - one) // step + 1 for all_, one, step in ends)
        self.x, self.W = (
            rng.integers(-4, 5, s).astype(dtype) for s in (self.x_shape, self.W_shape)
        )
        self.dout = (rng.integers(-4, 5, shape) * (rng.random(shape) < alive)).astype(dtype)
        self.which = rng.integers(0, np.prod(self.size), shape)
        self.all = np.zeros((n, filters, *whole), dtype)
        i, f, y, x = np.indices(shape)
        down, right = np.divmod(self.which, self.size[1])
        self.all[i, f, y * self.stride[0] + down, x * self.stride[1] + right] = self.dout

    def numbers(self):
        return np.ascontiguousarray(np.moveaxis(self.which, 1, -1), np.uint8).ravel()

    def weight_gradient(self, more=0):
        border = wider(self.padding, more)
        x = GuardedImages(self.x_shape, border, self.x.dtype, self.x)
        dy = GuardedImages(self.dout.shape, (0,) * 4, self.x.dtype, self.dout)
        _, n_sums, size = self.convolution.sums(len(self.x))
        shapes = (n_sums, size), self.W_shape, self.W_shape[:1]
        arrays, checks = zip(*(guarded_array(s, self.x.dtype) for s in shapes), strict=True)
        partial, dW, db = arrays
        _parallel.run(
            self.gradients.weight_gradient(x.images, dy.images, self.numbers(), partial),
            self.convolution.reduce(partial, dW, db, True),
        )
        for check in (x.check, dy.check, *checks):
            check()
        assert same_bits(dy.values, self.dout) and same_bits(x.values, self.x)
        return dW, db

    def input_gradient(self, more=0, behind=()):
        dy = GuardedImages(self.dout.shape, (0,) * 4, self.x.dtype, self.dout)
        dx = GuardedImages(self.x_shape, (2 * more, more, 0, more), self.x.dtype)
        packed, check = guarded_array((self.W.size,), self.x.dtype)
        _parallel.run(self.gradients.pack(self.W, packed))
        check()
        args = dy.images, self.numbers(), packed, dx.images, *behind
        _parallel.run(self.gradients.input_gradient(*args))
        dy.check()
        dx.check()
        assert same_bits(dy.values, self.dout)
        return dx.values

    def check(self, more=0):
        expected = reference_images.conv2d_backward(self.all, self.x, self.W, **self.options)
        actual = self.input_gradient(more), *self.weight_gradient(more)
        for name, value, exact in zip(("dx", "dW", "db"), actual, expected, strict=True):
            assert np.array_equal(value, exact), name


@pytest.mark.parametrize("channels", CHANNELS)
def test_channels_and_filters_of_edge_sizes(kernels, rng, channels):
    """Every pair of them; convolutions, windows and borders take turns."""
    for turn, filters in enumerate(CHANNELS, 7 * CHANNELS.index(channels)):
        names = (list(kinds)[turn % len(kinds)] for kinds in (CONVOLUTIONS, WINDOWS))
        Case(rng, 1 + turn % 2, channels, filters, (9, 13), *names, kernels.dtype).check(turn % 3)


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_sizes_and_borders(kernels, rng, convolution, windows):
    for n, sizes in ((1, (8, 11)), (3, (15, 12)), (2, (9, 30)), (9, (8, 12))):
        case = Case(rng, n, 3, 6, sizes, convolution, windows, kernels.dtype)
        for more in (0, 1, 3):
            case.check(more)


def test_all_numbers_of_images(kernels, rng):
    """Up to and beyond those that share a partial sum of dW."""
    for n in (1, 3, 4, 5, 8, 9, 129, 133):
        Case(rng, n, 2, 3, (5, 6), "3x3 same", "2x2", kernels.dtype).check()


def test_images_and_weights_that_are_taken_in_parts(kernels, rng):
    """Neither all pixels nor all weights stay in the nearest cache."""
    Case(rng, 2, 70, 68, (9, 30), "3x3 same", "2x2", kernels.dtype).check()
    Case(rng, 1, 40, 300, (4, 5), "5x5 padded", "2x2", kernels.dtype).check()


@pytest.mark.parametrize("alive", [0.0, 0.02, 1.0])
def test_few_gradients_and_all(kernels, rng, alive):
    Case(rng, 5, 17, 18, (8, 9), "3x3 same", "2x2", kernels.dtype, alive).check()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dx_through_the_activation_before(kernels, rng, name):
    case = Case(rng, 3, 5, 7, (8, 9), "5x5 padded", "2x2", kernels.dtype)
    y = random_array(rng, case.x_shape, kernels.dtype)
    previous = GuardedImages(case.x_shape, (1, 0, 2, 1), kernels.dtype, y)
    actual = case.input_gradient(1, (previous.images, ACTIVATIONS[name], 0.25))
    expected = kernels.activate_backward(
        ACTIVATIONS[name], y.ravel(), case.input_gradient(1).ravel(), 0.25
    )
    assert same_bits(actual.ravel(), expected)


def test_real_numbers_within_rounding_and_the_same_bits_on_any_chunks(kernels, rng, threads):
    case = Case(rng, 13, 6, 16, (14, 14), "5x5 padded", "2x2", kernels.dtype)
    for name in ("x", "W", "all"):
        setattr(case, name, random_array(rng, getattr(case, name).shape, kernels.dtype))
    i, f, y, x = np.indices(case.dout.shape)
    down, right = np.divmod(case.which, 2)
    case.dout = np.ascontiguousarray(case.all[i, f, 2 * y + down, 2 * x + right])
    case.all[...] = 0
    case.all[i, f, 2 * y + down, 2 * x + right] = case.dout
    args = [array.astype("longdouble") for array in (case.all, case.x, case.W)]
    expected = reference_images.conv2d_backward(*args, **case.options)
    sizes = reference_images.conv2d_backward(*map(np.abs, args), **case.options)
    threads(1)
    actual = case.input_gradient(), *case.weight_gradient()
    for value, exact, size in zip(actual, expected, sizes, strict=True):
        assert_close(value, exact, kernels.dtype, magnitude=size)
    for n in (2, 3, 7):
        threads(n)
        again = case.input_gradient(), *case.weight_gradient()
        assert all(same_bits(a, b) for a, b in zip(actual, again, strict=True))


def test_nan_and_infinite_gradients_come_through(kernels, rng):
    case = Case(rng, 1, 2, 3, (6, 6), "3x3 same", "2x2", kernels.dtype)
    case.dout[0, 1, 1, 1], case.dout[0, 2, 0, 0] = np.nan, np.inf
    dW, db = case.weight_gradient()
    assert np.isnan(dW[1]).any() and np.isnan(db[1]) and np.isfinite(dW[0]).all()
    assert db[2] == np.inf and np.isnan(case.input_gradient()).any()


def test_what_does_not_fit_is_refused(kernels, rng):
    case = Case(rng, 2, 2, 3, (6, 6), "3x3 same", "2x2", kernels.dtype)
    dtype = kernels.dtype
    x = GuardedImages(case.x_shape, case.padding, dtype).images
    dy = GuardedImages(case.dout.shape, (0,) * 4, dtype).images
    which, packed = case.numbers(), np.zeros(case.W.size, dtype)
    _, n_sums, size = case.convolution.sums(2)
    partial = np.zeros((n_sums, size), dtype)

    def images(shape, border=(0, 0, 0, 0), dtype=dtype):
        return GuardedImages(shape, border, dtype).images

    other = np.dtype("float64" if dtype == np.float32 else "float32")
    gradients = case.gradients
    wrong = [
        ("stride", lambda: _conv2d_pooled.PooledConvolution(case.convolution, (2, 2), (2, 1))),
        ("which", lambda: gradients.weight_gradient(x, dy, which[1:], partial)),
        ("which", lambda: gradients.input_gradient(dy, which[1:], packed, x)),
        (
            "border",
            lambda: gradients.input_gradient(images(case.dout.shape, (1,) * 4), which, packed, x),
        ),
        ("packed", lambda: gradients.input_gradient(dy, which, packed[1:], x)),
        ("packed", lambda: gradients.pack(case.W, packed[1:])),
        ("packed", lambda: gradients.input_gradient(dy, which, packed.astype(other), x)),
        ("W", lambda: gradients.pack(case.W[1:], packed)),
        ("partial", lambda: gradients.weight_gradient(x, dy, which, partial[:, 1:].copy())),
        ("partial", lambda: gradients.weight_gradient(x, dy, which, partial.astype(other))),
        ("padding", lambda: gradients.weight_gradient(images(case.x_shape), dy, which, partial)),
        ("channels", lambda: gradients.weight_gradient(images((2, 3, 6, 6)), dy, which, partial)),
        ("images", lambda: gradients.weight_gradient(images((2, 2, 9, 6)), dy, which, partial)),
        (
            "dtype",
            lambda: gradients.input_gradient(dy, which, packed, images(case.x_shape, dtype=other)),
        ),
        ("previous", lambda: gradients.input_gradient(dy, which, packed, x, dy, 3)),
        ("db", lambda: case.convolution.reduce(partial, np.zeros_like(case.W), np.zeros(4, dtype))),
        ("dW|W", lambda: case.convolution.reduce(partial, case.W[1:].copy(), np.zeros(3, dtype))),
    ]
    for text, call in wrong:
        with pytest.raises((ValueError, TypeError), match=text):
            call()


def test_taken_where_most_products_would_be_of_zeros():
    """By the sizes alone; not for groups, dilated columns, or windows of many pixels."""

    def pays(channels, filters, kernel=3, groups=1, dilation=(1, 1), size=(2, 2), image=(28, 28)):
        convolution = _conv2d.Convolution(
            channels, filters, (kernel,) * 2, (1, 1), (1,) * 4, dilation, groups, np.empty
        )
        return _conv2d_pooled.PooledConvolution(convolution, size, size).pays(*image, True)

    assert pays(16, 16) and pays(64, 64) and pays(6, 16, 5) and pays(16, 32, dilation=(2, 1))
    assert not pays(16, 16, size=(1, 1)) and not pays(16, 16, groups=2)
    assert not pays(16, 16, dilation=(1, 2))
    assert not pays(16, 16, size=(5, 4))
    assert pays(16, 16, image=(2**13, 2**12)) and not pays(16, 16, image=(2**14, 2**13))
