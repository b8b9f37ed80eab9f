"""Winograd's transforms on every table against their matrices, and the convolution they make.

Operands are small integers: G's halves are exact, so every sum is, and results must be equal.
"""

import numpy as np
import pytest

import reference_images
from native.image_tasks import Convolution
from reference import random_array, same_bits

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]).T
G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]]).T
SIZES = [(1, 4, 4), (1, 3, 3), (2, 4, 5), (2, 3, 6), (5, 4, 12), (5, 4, 11)]  # tiles, rows, columns


def edge_sizes(kernels):
    return 0, 1, kernels.lanes - 1, kernels.lanes, kernels.lanes + 1, 2 * kernels.lanes + 3


def tiles_of(pixels, tiles, size):
    """[tiles, size, size, n]: squares of pixels, two apart; zeros where there are no pixels."""
    rows, columns, n = pixels.shape
    padded = np.zeros((size, 2 * tiles + size, n), pixels.dtype)
    padded[:rows, :columns] = pixels
    return np.stack([padded[:, 2 * t : 2 * t + size] for t in range(tiles)])


def transformed(matrix, tiles):
    """matrix T matrix^T of every tile T, as planes [16, tiles, n]."""
    result = np.einsum("pr,trsn,qs->pqtn", matrix, tiles, matrix)
    return result.reshape(16, *result.shape[2:])


def test_the_matrices_are_a_convolution(rng):
    x, g = rng.integers(-9, 10, (4, 4)), rng.integers(-9, 10, (3, 3))
    y = A.T @ ((G @ g @ G.T) * (B.T @ x @ B)) @ A
    assert np.array_equal(y, reference_images.conv2d_forward(x[None, None], g[None, None])[0, 0])


@pytest.mark.parametrize(("tiles", "rows", "columns"), SIZES)
def test_inputs(kernels, rng, tiles, rows, columns):
    """Rows and columns that are not there are not read: they hold NaN."""
    for n in edge_sizes(kernels):
        x = rng.integers(-9, 10, (rows, columns, n)).astype(kernels.dtype)
        expected = transformed(B.T, tiles_of(x, tiles, 4))
        assert np.array_equal(kernels.winograd_input(x, rows, tiles), expected), n


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("tiles", "rows", "columns"), SIZES)
def test_outputs(kernels, rng, tiles, rows, columns, bias):
    for n in edge_sizes(kernels):
        planes = rng.integers(-9, 10, (16, tiles, n)).astype(kernels.dtype)
        b = rng.integers(-9, 10, n).astype(kernels.dtype)
        y = np.einsum("pr,pqtn,qs->rtsn", A, planes.reshape(4, 4, tiles, n), A)
        y = y.reshape(2, 2 * tiles, n)[: rows - 2, : columns - 2] + (b if bias else 0)
        actual = kernels.winograd_output(planes, b if bias else None, rows - 2, columns - 2)
        assert np.array_equal(actual, y), n


@pytest.mark.parametrize(("tiles", "rows", "columns"), SIZES)
def test_gradients(kernels, rng, tiles, rows, columns):
    for n in edge_sizes(kernels):
        dy = rng.integers(-9, 10, (rows - 2, columns - 2, n)).astype(kernels.dtype)
        expected = transformed(A, tiles_of(dy, tiles, 2))
        assert np.array_equal(kernels.winograd_gradient(dy, tiles), expected), n


def test_weights_and_their_gradient(kernels, rng):
    for n in edge_sizes(kernels):
        g = rng.integers(-9, 10, (9, n)).astype(kernels.dtype)
        expected = np.einsum("pr,rsn,qs->pqn", G, g.reshape(3, 3, n), G).reshape(16, n)
        assert np.array_equal(kernels.winograd_weights(g), expected), n
        planes = rng.integers(-9, 10, (16, n)).astype(kernels.dtype)
        expected = np.einsum("pr,pqn,qs->rsn", G, planes.reshape(4, 4, n), G).reshape(9, n)
        assert np.array_equal(kernels.winograd_weights_gradient(planes), expected), n


# ---- the convolution -----------------------------------------------------------------------------

SAME = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 64), (4, 65), (3, 131), (70, 2)])
@pytest.mark.parametrize(("channels", "filters"), [(16, 24), (25, 17), (48, 65), (130, 16)])
def test_every_size_of_image(kernels, rng, size, channels, filters):
    """Blocks of tiles that end inside an image, hold several, or are a part of one row."""
    for n in (1, 5):
        x = rng.integers(-4, 5, (n, channels, *size))
        W = rng.integers(-4, 5, (filters, channels, 3, 3))
        b = rng.integers(-9, 10, filters)
        y = reference_images.conv2d_forward(x, W, b, **SAME)
        dout = rng.integers(-4, 5, y.shape)
        expected = y, *reference_images.conv2d_backward(dout, x, W, **SAME)
        x, W, b, dout = (operand.astype(kernels.dtype) for operand in (x, W, b, dout))
        conv = Convolution(x.shape, W.shape, kernels.dtype, **SAME, more=1)
        actual = conv.forward(x, W, b), conv.input_gradient(dout, W)
        actual += tuple(conv.weight_gradient(x, dout, W.shape))
        for name, value, exact in zip(("y", "dx", "dW", "db"), actual, expected, strict=True):
            assert np.array_equal(value, exact), (name, n)


def test_a_nan_reaches_its_own_windows_only(kernels, rng):
    x = random_array(rng, (1, 16, 9, 9), kernels.dtype)
    W = random_array(rng, (24, 16, 3, 3), kernels.dtype)
    conv = Convolution(x.shape, W.shape, kernels.dtype, **SAME, more=0)
    for row, column in ((0, 0), (3, 4), (4, 3), (8, 8)):
        x[0, 5, row, column] = np.nan
        y = conv.forward(x, W, None)
        near = np.zeros((9, 9), bool)
        near[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        assert np.array_equal(np.isnan(y), np.broadcast_to(near, y.shape))
        x[0, 5, row, column] = 0


def relative_error(values, exact):
    return np.sqrt(np.mean((values - exact) ** 2) / np.mean(exact**2))


def test_rounding_is_no_worse_than_that_of_one_sum_of_all_terms(kernels, rng):
    x, W = rng.standard_normal((2, 32, 12, 12)), rng.standard_normal((32, 32, 3, 3))
    dout = rng.standard_normal((2, 32, 12, 12))
    x, W, dout = (values.astype(np.float32) for values in (x, W, dout))
    wide = [values.astype(np.float64) for values in (x, W, dout)]
    exact_y = reference_images.conv2d_forward(*wide[:2], **SAME)
    exact_dW = reference_images.conv2d_backward(wide[2], *wide[:2], **SAME)[1]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3)
    )
    plain_y, plain_dW = np.zeros_like(dout), np.zeros_like(W)
    for c, r, s in np.ndindex(32, 3, 3):
        plain_y += windows[:, None, c, :, :, r, s] * W[None, :, c, r, s, None, None]
    for n, oy, ox in np.ndindex(2, 12, 12):
        plain_dW += dout[n, :, None, oy, ox, None, None] * windows[n, :, oy, ox]
    conv = Convolution(x.shape, W.shape, kernels.dtype, **SAME, more=0)
    x, W, dout = (values.astype(kernels.dtype) for values in (x, W, dout))
    y, dW = conv.forward(x, W, None), conv.weight_gradient(x, dout, W.shape)[0]
    assert relative_error(y, exact_y) <= relative_error(plain_y, exact_y)
    assert relative_error(dW, exact_dW) <= relative_error(plain_dW, exact_dW)


def test_one_thread_or_many_and_one_image_or_many(kernels, rng, threads):
    x = random_array(rng, (9, 16, 10, 7), kernels.dtype)
    W = random_array(rng, (32, 16, 3, 3), kernels.dtype)
    threads(3)
    conv = Convolution(x.shape, W.shape, kernels.dtype, **SAME, more=0)
    whole = conv.forward(x, W, None)
    threads(1)
    one = Convolution((1, *x.shape[1:]), W.shape, kernels.dtype, **SAME, more=0)
    for n in range(len(x)):
        assert same_bits(one.forward(x[n : n + 1].copy(), W, None), whole[n : n + 1].copy())
