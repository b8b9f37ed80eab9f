"""Batch normalization at native level: images with borders, edge sizes, every table."""

import numpy as np
import pytest

import reference_images
from cnn_core import _batch_norm, _parallel
from native.image_tasks import GuardedImages, guarded_array
from reference import random_array, same_bits

CHANNELS = (1, 2, 5, 15, 16, 17, 31, 33, 64, 65)
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
MOMENTUM, EPSILON = 0.3, 1e-3


class Norm:
    """The arrays of one batch normalization, guarded."""

    def __init__(self, rng, shape, dtype, more=0):
        self.shape, self.dtype, self.more = shape, np.dtype(dtype), more
        self.x = (random_array(rng, shape, dtype) * 3 + 5).astype(dtype)
        self.dout = random_array(rng, shape, dtype)
        c = shape[1]
        self.gamma, self.beta, self.mean = (random_array(rng, c, dtype) for _ in range(3))
        self.var = np.abs(random_array(rng, c, dtype)) + np.asarray(0.5, dtype)
        self.checks = []

    def _array(self, shape):
        array, check = guarded_array(shape, self.dtype)
        self.checks.append(check)
        return array

    def _images(self, values=None, border=0):
        images = GuardedImages(self.shape, (self.more, border, 0, self.more), self.dtype, values)
        self.checks.append(images.check)
        return images

    def run(self, training, in_place=False):
        """y, running mean and variance, dx, dgamma, dbeta."""
        x, y, dy = self._images(self.x, 1), self._images(), self._images(self.dout)
        dx = dy if in_place else self._images(border=2)
        c = self.shape[1]
        table, dgamma, dbeta = self._array((5, c)), self._array((c,)), self._array((c,))
        partial = self._array((_batch_norm.groups(self.shape[0]), 2, c))
        mean, var = self._array((c,)), self._array((c,))
        mean[:], var[:] = self.mean, self.var
        arrays = (self.gamma, self.beta, mean, var, table, partial)
        more = (MOMENTUM, EPSILON, training)
        _parallel.run(*_batch_norm.forward(x.images, y.images, *arrays, *more))
        arrays = (self.gamma, table, partial, dgamma, dbeta)
        stages = _batch_norm.backward(x.images, dy.images, dx.images, *arrays, training)
        _parallel.run(*stages)
        for check in self.checks:
            check()
        assert same_bits(x.values, self.x)
        assert in_place or same_bits(dy.values, self.dout)
        return y.values, mean.copy(), var.copy(), dx.values, dgamma.copy(), dbeta.copy()

    def expected(self, training):
        wide = [v.astype(np.float64) for v in (self.x, self.gamma, self.beta, self.mean, self.var)]
        forward = reference_images.batch_norm_forward(*wide, MOMENTUM, EPSILON, training)
        args = (self.dout.astype(np.float64), wide[0], wide[1], *wide[3:], EPSILON, training)
        return (*forward, *reference_images.batch_norm_backward(*args))


def check(norm, training):
    names = ("y", "mean", "var", "dx", "dgamma", "dbeta")
    results = norm.run(training), norm.expected(training)
    for name, actual, exact in zip(names, *results, strict=True):
        assert actual.dtype == norm.dtype and actual.shape == exact.shape, name
        scale = max(1.0, float(np.abs(exact).max()))
        if name in ("dgamma", "dbeta"):
            scale = max(scale, float(np.abs(norm.dout).sum(axis=(0, 2, 3)).max()))
        error = float(np.abs(actual - exact).max())
        assert error <= TOLERANCE[str(norm.dtype)] * scale, (name, norm.shape, error)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_channels_of_edge_sizes(kernels, rng, channels, training):
    check(Norm(rng, (3, channels, 3, 4), kernels.dtype, channels % 3), training)
    check(Norm(rng, (5, channels, 1, 1), kernels.dtype), training)


@pytest.mark.parametrize("training", [True, False])
def test_numbers_of_images(kernels, rng, training):
    """Around those that share a partial sum, and beyond the number of partial sums."""
    for n in (2, 4, 5, 8, 9, 127, 128, 129, 133):
        check(Norm(rng, (n, 3, 2, 2), kernels.dtype), training)


def test_a_far_mean_costs_no_digits(kernels, rng):
    """Sums of squares instead of moments would lose all of them."""
    norm = Norm(rng, (9, 3, 5, 5), kernels.dtype)
    far = 1e4 if norm.dtype == np.float32 else 1e8
    norm.x = (norm.x + norm.dtype.type(far)).astype(norm.dtype)
    y, exact = norm.run(True)[0], norm.expected(True)[0]
    assert np.abs(y - exact).max() < 2e-3


def test_dx_may_be_dy(kernels, rng):
    norm = Norm(rng, (9, 17, 3, 4), kernels.dtype, 1)
    for training in (True, False):
        apart, in_place = norm.run(training), norm.run(training, in_place=True)
        assert all(map(same_bits, apart, in_place))


def test_one_value_per_channel_keeps_the_running_variance(kernels, rng):
    norm = Norm(rng, (1, 5, 1, 1), kernels.dtype)
    y, mean, var, dx, _, _ = norm.run(True)
    assert same_bits(var, norm.var) and not same_bits(mean, norm.mean)
    assert np.array_equal(y[0, :, 0, 0], norm.beta)
    scale = np.abs(norm.gamma * norm.dout[0, :, 0, 0]).max() / np.sqrt(EPSILON)
    assert np.abs(dx).max() <= 2 * np.finfo(norm.dtype).eps * scale


def test_nan_stays_in_its_channel(kernels, rng):
    norm = Norm(rng, (6, 19, 2, 3), kernels.dtype)
    norm.x[3, 7, 1, 1] = np.nan
    for value in norm.run(True)[:4]:
        channels = np.isnan(value).any(axis=(0, 2, 3)) if value.ndim == 4 else np.isnan(value)
        assert np.flatnonzero(channels).tolist() == [7]


@pytest.mark.parametrize("training", [True, False])
def test_bits_do_not_depend_on_threads(kernels, rng, threads, training):
    norm, results = Norm(rng, (37, 20, 12, 13), kernels.dtype), []
    for n in (1, 2, 3, 7):
        threads(n)
        results.append(norm.run(training))
    for other in results[1:]:
        assert all(map(same_bits, results[0], other))


def test_arrays_that_do_not_fit_are_refused(rng):
    norm = Norm(rng, (2, 3, 4, 4), np.float32)
    x, y, c = norm._images(norm.x).images, norm._images().images, np.ones(3, np.float32)
    table, partial = np.ones((5, 3), np.float32), np.ones((1, 2, 3), np.float32)
    last = (0.1, 1e-5, True)
    _batch_norm.forward(x, y, c, c, c, c, table, partial, *last)
    for wrong in (
        (c[:2], c, c, c, table, partial),
        (c, c, c, c[:2], table, partial),
        (c, c, c, c, table[:4], partial),
        (c, c, c, c, table, partial[:0]),
    ):
        with pytest.raises(ValueError, match="arrays"):
            _batch_norm.forward(x, y, *wrong, *last)
    other = Norm(rng, (2, 3, 4, 3), np.float32)._images().images
    with pytest.raises(ValueError, match="images"):
        _batch_norm.forward(x, other, c, c, c, c, table, partial, *last)
    _batch_norm.backward(x, y, y, c, table, partial, c, c, True)
    for wrong in (
        (c[:2], table, partial, c, c),
        (c, table[:, :2].copy(), partial, c, c),
        (c, table, partial[:0], c, c),
        (c, table, partial, c[:2], c),
        (c, table, partial, c, c[:2]),
    ):
        with pytest.raises(ValueError, match="arrays"):
            _batch_norm.backward(x, y, y, *wrong, True)
