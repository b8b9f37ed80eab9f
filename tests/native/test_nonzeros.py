"""Products with inputs that may be mostly zeros: the bits of the dense ones, on every table."""

import itertools

import numpy as np
import pytest

from cnn_core import _affine, _affine_gradient, _gemm, _parallel
from native.c_kernels import ACTIVATIONS
from native.image_tasks import guarded_array
from reference import random_array, same_bits

# N, I, O: around a vector, a block of terms, a group of rows, and columns taken in parts
SHAPES = (
    *((1, 1, 1), (1, 784, 300), (3, 17, 31), (2, 257, 49), (100, 784, 50), (17, 255, 33)),
    *((49, 256, 64), (16, 40, 129), (33, 600, 300), (130, 64, 100)),
)
SHARES = {"none": 0.0, "few": 0.05, "of digits": 0.2, "half": 0.5, "all": 1.0}


def digits(rng, shape, share, dtype):
    """Numbers amid zeros: whole columns, whole rows, a half that is dense, -0."""
    x = random_array(rng, shape, dtype) * (rng.random(shape) < share)
    if share < 1:
        x[:, rng.random(shape[1]) < 0.3] = 0
        x[rng.random(shape[0]) < 0.2] = -0.0
        x[:, shape[1] // 2 : shape[1] // 2 + shape[1] // 8] = 1.5
    return x.astype(dtype)


def run(make, shape, *args):
    """The result of a task, which writes nowhere else."""
    out, check = guarded_array(shape, args[0].dtype)
    _parallel.run(make(out, *args))
    check()
    return out


def forward(zeros, by_columns=False, code=0):
    return lambda out, x, W, b: _affine.forward(x, W, b, out, code, 0.25, by_columns, None, zeros)


def weight_gradient(zeros):
    return lambda out, x, dout: _affine_gradient.weight_gradient(x, dout, out, zeros)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_bits_of_the_dense_products(kernels, rng, shape, share):
    n, n_in, n_out = shape
    x = digits(rng, (n, n_in), SHARES[share], kernels.dtype)
    sizes = (n_in, n_out), (n_out,), (n, n_out)
    W, b, dout = (random_array(rng, size, kernels.dtype) for size in sizes)
    for bias in (b, None):
        dense = run(forward(False), (n, n_out), x, W, bias)
        assert same_bits(run(forward(True), (n, n_out), x, W, bias), dense)
        assert same_bits(run(forward(True, by_columns=True), (n, n_out), x, W, bias), dense)
    dense = run(weight_gradient(False), (n_in, n_out), x, dout)
    # Sums of nothing but -0 are -0 where terms are added to it, and 0 where none is.
    assert np.array_equal(run(weight_gradient(True), (n_in, n_out), x, dout), dense)


@pytest.mark.parametrize("share", (0.45, 0.6, 0.75, 0.82, 0.9))
def test_long_lists_of_many_rows(kernels, rng, share):
    """Blocks of most terms, of most rows at once: lists fill their room, and bits their words."""
    for n, n_out in itertools.product((256, 272, 1023), (200, 576, 1200)):  # bytes of a row of B
        n_out //= np.dtype(kernels.dtype).itemsize
        x = random_array(rng, (n, 64), kernels.dtype) * (rng.random((n, 64)) < share)
        x, dout = x.astype(kernels.dtype), random_array(rng, (n, n_out), kernels.dtype)
        dense = run(weight_gradient(False), (64, n_out), x, dout)
        assert np.array_equal(run(weight_gradient(True), (64, n_out), x, dout), dense)
        x, W = np.ascontiguousarray(x.T), dout
        dense = run(forward(False), (64, n_out), x, W, None)
        assert same_bits(run(forward(True), (64, n_out), x, W, None), dense)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_any_chunks(kernels, rng, threads, name):
    x = digits(rng, (331, 300), 0.2, kernels.dtype)
    W, b = (random_array(rng, size, kernels.dtype) for size in ((300, 40), (40,)))
    dense = run(forward(False, code=ACTIVATIONS[name]), (331, 40), x, W, b)
    for n in (1, 2, 3, 7):
        threads(n)
        assert same_bits(run(forward(True, code=ACTIVATIONS[name]), (331, 40), x, W, b), dense)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("n_out", [1, 16, 17, 50, 300])
def test_weights_whose_rows_begin_at_cache_lines(kernels, rng, n_out, zeros):
    x = digits(rng, (21, 130), 0.2, kernels.dtype)
    W, b = (random_array(rng, size, kernels.dtype) for size in ((130, n_out), (n_out,)))
    aligned = np.full((130, n_out + 7), np.nan, kernels.dtype)
    _parallel.run(_gemm.align_rows(W, aligned))
    assert same_bits(aligned[:, :n_out], W) and np.isnan(aligned[:, n_out:]).all()
    for by_columns in (False, True):
        expected = run(forward(zeros, by_columns), (21, n_out), x, W, b)
        assert same_bits(run(forward(zeros, by_columns), (21, n_out), x, aligned, b), expected)


@pytest.mark.parametrize("share", SHARES)
def test_strips_and_the_rows_that_are_fetched(kernels, rng, share):
    """Two batches of rows of a data set: the next is fetched, behind the last there is none."""
    n, n_in, n_out, n_strips = 50, 784, 50, 4
    data = digits(rng, (3 * n, n_in), SHARES[share], kernels.dtype)
    W, b = (random_array(rng, size, kernels.dtype) for size in ((n_in, n_out), (n_out,)))
    indices, offset = rng.integers(0, 3 * n, 2 * n), np.zeros(1, np.int64)
    for offset[0] in (0, n):
        x = data[indices[offset[0] :][:n]]
        results = []
        for following in ((), (data, indices, offset)):
            sums = np.zeros((n_strips - 1, n, n_out), kernels.dtype)
            out, check = guarded_array((n, n_out), kernels.dtype)
            tasks = _affine.forward_strips(x, W, b, out, sums, 2, 0, 0.0, *following)
            _parallel.run(*tasks)
            check()
            results.append(out)
        assert same_bits(*results)
        parts = [run(forward(False), (n, n_out), *part) for part in strips(x, W, b, n_strips)]
        assert same_bits(results[0], sum(parts[1:], parts[0]))


def strips(x, W, b, n_strips):
    ends = [s * len(W) // n_strips // 16 * 16 for s in range(n_strips)] + [len(W)]
    for begin, end in itertools.pairwise(ends):
        yield x[:, begin:end].copy(), W[begin:end], b if begin == 0 else np.zeros_like(b)


def test_nan_and_infinite_inputs_come_through(kernels, rng):
    x = digits(rng, (20, 100), 0.1, kernels.dtype)
    x[3, 7], x[5, 90] = np.nan, np.inf
    W, dout = np.ones((100, 40), kernels.dtype), np.ones((20, 40), kernels.dtype)
    out = run(forward(True), (20, 40), x, W, None)
    assert np.isnan(out[3]).all() and np.isposinf(out[5]).all() and np.isfinite(out[6:]).all()
    dW = run(weight_gradient(True), (100, 40), x, dout)
    assert np.isnan(dW[7]).all() and np.isposinf(dW[90]).all() and np.isfinite(dW[8:90]).all()


def test_weights_of_pixels_that_are_zero_do_not_matter(kernels, rng):
    x = np.zeros((20, 64), kernels.dtype)
    x[:, :4] = 1
    W = np.ones((64, 40), kernels.dtype)
    W[4:] = np.nan
    assert (run(forward(True), (20, 40), x, W, None) == 4).all()
