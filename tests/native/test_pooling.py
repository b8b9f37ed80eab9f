"""Pooling at native level: windows, borders, ties, NaN, on every table."""

import numpy as np
import pytest

import reference_images
from cnn_core import _parallel, _pooling
from native.c_kernels import ACTIVATIONS
from native.image_tasks import GuardedImages
from reference import assert_close, random_array, same_bits

CHANNELS = (1, 2, 5, 15, 16, 17, 31, 33, 64, 65)

# size, stride, padding (top, bottom, left, right)
WINDOWS = {
    "2x2": ((2, 2), (2, 2), (0, 0, 0, 0)),
    "overlapping": ((3, 3), (2, 2), (1, 1, 1, 1)),
    "every pixel": ((3, 2), (1, 1), (1, 0, 1, 1)),
    "gaps": ((2, 1), (3, 2), (0, 1, 0, 0)),
    "apart": ((2, 1), (3, 2), (0, 0, 0, 0)),
    "one pixel": ((1, 1), (1, 1), (0, 0, 0, 0)),
    "wide padding": ((4, 5), (1, 3), (2, 2, 2, 1)),
}


def pool(x, window, *, average=False, more=0, keep=True, kind=np.int32):
    """(y, which) of images with borders of `more` pixels; which is of type `kind`."""
    size, stride, padding = window
    y_shape = (*x.shape[:2], *_pooling.output_size(*x.shape[2:], size, stride, padding))
    x_ = GuardedImages(x.shape, (more, 0, more, more), x.dtype, x)
    y = GuardedImages(y_shape, (0, more, more, 1), x.dtype)
    which = np.full(int(np.prod(y_shape)), 77, kind) if keep else None
    _parallel.run(_pooling.forward(x_.images, y.images, which, *window, average))
    x_.check()
    y.check()
    assert same_bits(x_.values, x)
    return y.values, which


def pool_backward(dout, which, x_shape, window, *, average=False, more=0, behind=()):
    dy = GuardedImages(dout.shape, (more, more, 0, more), dout.dtype, dout)
    dx = GuardedImages(x_shape, (1, more, more, 0), dout.dtype)
    _parallel.run(_pooling.backward(dy.images, dx.images, which, *window, average, *behind))
    dy.check()
    dx.check()
    assert same_bits(dy.values, dout)
    return dx.values


def check(x, dout, window, more):
    y, which = pool(x, window, more=more)
    assert same_bits(y, reference_images.max_pool2d(x, *window).astype(x.dtype))
    assert same_bits(pool(x, window, keep=False)[0], y)
    dx = pool_backward(dout, which, x.shape, window, more=more)
    assert np.array_equal(dx, reference_images.max_pool2d(x, *window, dout))
    again, small = pool(x, window, more=more, kind=np.uint8)
    assert same_bits(again, y) and same_bits(small, which.astype(np.uint8))
    assert same_bits(pool_backward(dout, small, x.shape, window, more=more), dx)
    mean = pool(x, window, average=True, more=more, keep=False)[0]
    expected, size = (reference_images.avg_pool2d(v, *window) for v in (x, np.abs(x)))
    assert_close(mean, expected, x.dtype, magnitude=size)
    dx = pool_backward(dout, None, x.shape, window, average=True, more=more)
    expected, size = (
        reference_images.avg_pool2d(x, *window, values) for values in (dout, np.abs(dout))
    )
    assert_close(dx, expected, x.dtype, magnitude=size)


def operands(rng, shape, window, dtype):
    """Small integers with many ties: sums of gradients are exact."""
    size = reference_images.output_size(shape[2:], *window)
    return tuple(rng.integers(-3, 4, s).astype(dtype) for s in (shape, (*shape[:2], *size)))


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_channels_of_edge_sizes(kernels, rng, channels, name):
    shape = (2, channels, 4, 5)
    check(*operands(rng, shape, WINDOWS[name], kernels.dtype), WINDOWS[name], channels % 3)


@pytest.mark.parametrize("name", WINDOWS)
def test_sizes(kernels, rng, name):
    for n, height, width in ((1, 2, 2), (3, 3, 2), (2, 7, 13), (9, 2, 6), (1, 12, 7)):
        shape = (n, 3, height, width)
        check(*operands(rng, shape, WINDOWS[name], kernels.dtype), WINDOWS[name], 1)


def test_the_first_of_equals_gets_the_gradient(kernels):
    x = np.zeros((1, 1, 4, 4), kernels.dtype)
    x[0, 0, 1, 0] = -0.0
    dout = np.ones((1, 1, 2, 2), kernels.dtype)
    _, which = pool(x, WINDOWS["2x2"])
    assert which.tolist() == [0, 0, 0, 0]
    dx = pool_backward(dout, which, x.shape, WINDOWS["2x2"])
    assert np.argwhere(dx[0, 0]).tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]


def test_the_first_nan_is_the_maximum(kernels):
    window = ((2, 2), (2, 2), (0, 0, 0, 0))
    for first in range(4):
        for second in range(first + 1, 4):
            x = np.full((1, 17, 2, 2), np.inf, kernels.dtype)
            flat = x.reshape(1, 17, 4)
            flat[:, 5, first] = flat[:, 5, second] = np.nan
            y, which = pool(x, window)
            assert np.flatnonzero(np.isnan(y)).tolist() == [5]
            assert which[5] == first and not which[:5].any() and not which[6:].any()


def test_minus_infinity_is_a_maximum_and_padding_never_is(kernels):
    x = np.full((1, 2, 3, 3), -np.inf, kernels.dtype)
    y, which = pool(x, WINDOWS["overlapping"])
    assert (y == -np.inf).all()
    # Window (0, 0) begins a pixel outside: the image's first pixel is its tap 4.
    assert which.reshape(2, 2, 2)[0, 0].tolist() == [4, 4]


def test_nan_of_a_mean_stays_in_its_windows(kernels):
    x = np.ones((1, 3, 4, 4), kernels.dtype)
    x[0, 1, 3, 0] = np.nan
    y, _ = pool(x, WINDOWS["2x2"], average=True)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["overlapping", "2x2", "gaps", "apart"])
def test_the_derivative_before_it_is_the_kernels_own(kernels, rng, activation, average, name):
    kind, window = ACTIVATIONS[activation], WINDOWS[name]
    x = kernels.activate(kind, random_array(rng, 2 * 5 * 6 * 7, kernels.dtype), 0.25)
    x = x.reshape(2, 5, 6, 7)
    y, which = pool(x, window, average=average)
    dout = random_array(rng, y.shape, kernels.dtype)
    apart = _pooling.apart(*window, average)
    assert apart == (not average and name in ("2x2", "apart"))
    previous = y if apart else x
    previous = GuardedImages(previous.shape, (0, 2, 1, 0), kernels.dtype, previous)
    plain = pool_backward(dout, which, x.shape, window, average=average)
    behind = previous.images, kind, 0.25
    fused = pool_backward(dout, which, x.shape, window, average=average, behind=behind)
    expected = kernels.activate_backward(kind, x.ravel(), plain.ravel(), 0.25)
    assert np.array_equal(fused, expected.reshape(x.shape))  # 0 may come as -0


@pytest.mark.parametrize("average", [False, True])
def test_bits_do_not_depend_on_threads(kernels, rng, threads, average):
    x, window = random_array(rng, (33, 20, 15, 14), kernels.dtype), WINDOWS["overlapping"]
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        y, which = pool(x, window, average=average)
        results.append((y, pool_backward(y, which, x.shape, window, average=average)))
    for other in results[1:]:
        assert all(map(same_bits, results[0], other))


def test_what_does_not_fit_is_refused():
    def images(*shape):
        return GuardedImages(shape, (0, 0, 0, 0), np.float32).images

    x, y = images(2, 3, 4, 4), images(2, 3, 2, 2)
    which = np.zeros(24, np.int32)
    window = WINDOWS["2x2"]
    _pooling.forward(x, y, which, *window, False)
    for wrong in (images(2, 3, 2, 1), images(1, 3, 2, 2), images(2, 4, 2, 2)):
        with pytest.raises(ValueError, match="images"):
            _pooling.forward(x, wrong, None, *window, False)
    with pytest.raises(ValueError, match="which"):
        _pooling.forward(x, y, which[:23], *window, False)
    with pytest.raises(ValueError, match="which"):
        _pooling.backward(y, x, None, *window, False)
    with pytest.raises(ValueError, match="padding"):
        _pooling.forward(x, images(2, 3, 6, 5), None, (2, 2), (1, 1), (2, 1, 1, 1), False)
