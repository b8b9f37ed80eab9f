"""Winograd's transforms over rows, on every table, against their matrices; and the convolution."""

import numpy as np
import pytest

import reference_images
from native.image_tasks import Convolution
from reference import random_array

POINTS = np.array([0, 1, -1, 2, -2, 0.5, -0.5])
# The polynomial whose roots are all other points, then all points.
B = np.array(
    [
        *([*np.poly(np.delete(POINTS, i))[::-1], 0] for i in range(7)),
        np.poly(POINTS)[::-1],
    ]
)
B[0] *= -1
G = np.zeros((8, 5))
G[:7] = POINTS[:, None] ** np.arange(5) / [
    [np.prod(p - np.delete(POINTS, i))] for i, p in enumerate(POINTS)
]
G[0] *= -1
G[7, 4] = 1
A = np.zeros((4, 8))
A[:, :7] = POINTS ** np.arange(4)[:, None]
A[3, 7] = 1

# F(2, 5): without 0.5 and -0.5, to the same G.
USED = [0, 1, 2, 3, 4, 7]
FEW = POINTS[:5]
B_FEW = np.array([*([*np.poly(np.delete(FEW, i))[::-1], 0] for i in range(5)), np.poly(FEW)[::-1]])
for i, p in enumerate(FEW):
    B_FEW[i] /= np.prod(p - np.delete(FEW, i)) * G[i, 0]
A_FEW = np.zeros((2, 6))
A_FEW[:, :5] = FEW ** np.arange(2)[:, None]
A_FEW[1, 5] = 1


def near(actual, exact, dtype):
    most = np.abs(exact).max(initial=1)
    return actual.dtype == dtype and np.all(
        np.abs(actual - exact) <= 16 * np.finfo(dtype).eps * most
    )


def test_the_matrices_are_a_convolution(rng):
    x, g = rng.integers(-9, 10, 8), rng.integers(-9, 10, 5)
    assert np.allclose(A @ ((G @ g) * (B @ x)), np.correlate(x, g, "valid"))
    assert np.allclose(A_FEW @ ((G[USED] @ g) * (B_FEW @ x[:6])), np.correlate(x[:6], g, "valid"))


def test_transforms(kernels, rng):
    """Rows that are not there count as 0, and are not written."""
    for n in kernels.sizes():
        for rows in (5, 6, 7, 8):
            x = rng.integers(-9, 10, (rows, n)).astype(kernels.dtype)
            actual, exact = kernels.winograd_rows_input(x), B[:, :rows] @ x
            if rows <= 6:
                actual, exact = actual[USED], B_FEW[:, :rows] @ x
            assert near(actual, exact, kernels.dtype), n
            planes = rng.integers(-9, 10, (8, n)).astype(kernels.dtype)
            y = kernels.winograd_rows_output(planes, rows - 4)
            exact = A @ planes if rows > 6 else A_FEW @ planes[USED]
            assert near(y, exact[: rows - 4], kernels.dtype), n
        g = rng.integers(-9, 10, (5, n)).astype(kernels.dtype)
        assert near(kernels.winograd_rows_weights(g), G @ g, kernels.dtype), n


@pytest.mark.parametrize("height", [5, 6, 8, 9, 12, 13])
def test_convolutions_of_any_size(kernels, rng, height):
    """Every number of rows of the last tile, images and rows of them, near the exact sums."""
    unit = {"stride": (1, 1), "dilation": (1, 1)}
    for channels, filters, width in ((3, 8, 5), (6, 16, 5), (12, 65, 1), (2, 33, 8)):
        x = random_array(rng, (2, channels, height, 9), kernels.dtype)
        W = random_array(rng, (filters, channels, 5, width), kernels.dtype)
        b = random_array(rng, filters, kernels.dtype)
        exact = reference_images.conv2d_forward(*(v.astype(float) for v in (x, W, b)))
        for by_rows in (False, True):
            conv = Convolution(x.shape, W.shape, kernels.dtype, padding=(0,) * 4, more=0, **unit)
            y = conv.forward(x, W, b, by_rows=by_rows)
            assert near(y, exact, kernels.dtype), (channels, filters, width)
