"""common.functions and common.util: formulas, for all that NumPy takes."""

import math

import numpy as np
import pytest

from cnn_core.book.common import functions, util
from reference import Unchanged

#: Below and above the size from which a compiled kernel computes.
SHAPES = [(), (3,), (4, 5), (2, 3, 4), (80, 50), (17, 200)]


@pytest.fixture
def rng():
    return np.random.default_rng(81)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_elementwise_functions(rng, shape, dtype):
    x = np.asarray(3 * rng.standard_normal(shape)).astype(dtype)
    single = dtype == np.float32
    close = {"rtol": 1e-5 if single else 1e-13, "atol": 1e-7 if single else 1e-15}
    s = np.array([1 / (1 + math.exp(-v)) for v in x.ravel()]).reshape(shape)
    with Unchanged(x):
        assert functions.identity_function(x) is x
        np.testing.assert_array_equal(functions.step_function(x), np.where(x > 0, 1, 0))
        np.testing.assert_array_equal(functions.relu(x), np.where(x > 0, x, 0))
        np.testing.assert_allclose(functions.sigmoid(x), s, **close)
        np.testing.assert_allclose(functions.sigmoid_grad(x), s * (1 - s), **close)
    assert functions.step_function(x).dtype.kind == "i"
    assert functions.sigmoid(x).dtype == (np.float64 if dtype == np.int64 else dtype)
    assert functions.relu(x).dtype == dtype


def test_functions_of_numbers():
    assert functions.sigmoid(0.0) == 0.5
    assert functions.sigmoid(0) == 0.5
    assert functions.relu(-2.0) == 0
    assert functions.step_function(np.float64(2)) == 1


def test_the_gradient_of_relu_is_one_at_zero():
    x = np.array([[-1.0, 0.0], [2.0, -0.0]], np.float32)
    gradient = functions.relu_grad(x)
    np.testing.assert_array_equal(gradient, [[0, 1], [1, 1]])
    assert gradient.dtype == np.float32


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_softmax_is_over_the_last_axis(rng, shape, dtype):
    x = (4 * rng.standard_normal(shape)).astype(dtype)
    wanted = np.apply_along_axis(
        lambda row: [1 / sum(math.exp(b - a) for b in row) for a in row], -1, x.astype(float)
    )
    with Unchanged(x):
        y = functions.softmax(x)
    np.testing.assert_allclose(y, wanted, rtol=1e-5 if dtype == np.float32 else 1e-13)
    np.testing.assert_allclose(functions.softmax(x + dtype(800)), y, rtol=1e-3)


def test_sum_squared_error(rng):
    y, t = rng.random((4, 3)), rng.random((4, 3))
    wanted = sum((a - b) ** 2 for a, b in zip(y.ravel(), t.ravel(), strict=True)) / 2
    assert functions.sum_squared_error(y, t) == pytest.approx(wanted, rel=1e-14)


def test_cross_entropy_error_of_labels_one_hot_rows_and_one_sample(rng):
    y = rng.dirichlet(np.ones(5), 6)
    labels = np.array([0, 4, 2, 2, 1, 3])
    losses = [-math.log(row[label] + 1e-7) for row, label in zip(y, labels, strict=True)]
    by_labels = functions.cross_entropy_error(y, labels)
    assert by_labels == pytest.approx(np.mean(losses), rel=1e-14)
    assert functions.cross_entropy_error(y, np.eye(5)[labels]) == by_labels
    one = functions.cross_entropy_error(y[1], np.eye(5)[4])
    assert one == pytest.approx(losses[1], rel=1e-14)
    assert functions.cross_entropy_error(y[1], np.array(4)) == one
    scores = np.log(y)
    assert functions.softmax_loss(scores, labels) == pytest.approx(by_labels, rel=1e-13)


def test_a_probability_of_zero_costs_the_logarithm_of_1e_7():
    y = np.array([[0.0, 1.0]])
    assert functions.cross_entropy_error(y, np.array([0])) == -np.log(1e-7)


# ---- util ----------------------------------------------------------------------------------------


def windows(x, height, width, stride, pad):
    """The windows of im2col one by one."""
    x = np.pad(x.astype(float), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    for image in x:
        for top in range(0, image.shape[1] - height + 1, stride):
            for left in range(0, image.shape[2] - width + 1, stride):
                yield image[:, top : top + height, left : left + width].ravel()


GEOMETRIES = [(3, 3, 1, 0), (2, 3, 2, 1), (1, 1, 1, 0), (3, 2, 3, 2), (5, 6, 1, 0)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_im2col(rng, geometry, dtype):
    x = (9 * rng.random((2, 3, 5, 6))).astype(dtype)
    with Unchanged(x):
        rows = util.im2col(x, *geometry)
    assert rows.dtype == np.float64
    assert not np.may_share_memory(rows, x)
    np.testing.assert_array_equal(rows, list(windows(x, *geometry)))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_col2im_is_the_transpose_of_im2col(rng, geometry):
    x = rng.standard_normal((2, 3, 5, 6))
    rows = util.im2col(x, *geometry)
    other = rng.standard_normal(rows.shape)
    back = util.col2im(other, x.shape, *geometry)
    assert back.shape == x.shape
    assert np.sum(rows * other) == pytest.approx(np.sum(x * back), rel=1e-12)


def test_conv_output_size():
    assert util.conv_output_size(28, 5) == 24
    assert util.conv_output_size(7, 3, stride=2, pad=1) == 4


def test_smooth_curve_keeps_length_and_straight_lines():
    x = [float(n) for n in range(30)]
    smooth = util.smooth_curve(x)
    assert smooth.shape == (30,)
    np.testing.assert_allclose(smooth[5:-5], x[5:-5], rtol=1e-12)
    kaiser = np.kaiser(11, 2)
    ends = [5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5]  # the line, mirrored at its first point
    assert smooth[0] == pytest.approx(np.dot(kaiser, ends) / kaiser.sum(), rel=1e-12)


@pytest.mark.parametrize("shape", [(6, 3), (6, 1, 2, 2)])
def test_shuffle_dataset_moves_samples_and_labels_together(shape):
    x, t = np.arange(np.prod(shape)).reshape(shape), np.arange(6)
    np.random.seed(3)  # noqa: NPY002
    mixed, labels = util.shuffle_dataset(x, t)
    np.random.seed(3)  # noqa: NPY002
    order = np.random.permutation(6)  # noqa: NPY002
    np.testing.assert_array_equal(labels, order)
    np.testing.assert_array_equal(mixed, x[order])
