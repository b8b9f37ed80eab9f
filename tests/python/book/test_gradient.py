"""common.gradient: central differences of any function."""

import numpy as np
import pytest

from cnn_core.book.common.gradient import numerical_gradient, numerical_gradient_2d


def test_every_element_of_an_array_of_any_shape():
    x = np.arange(24.0).reshape(2, 3, 4)
    before = x.copy()
    gradient = numerical_gradient(lambda x: np.sum(x**2 + 3 * x), x)
    np.testing.assert_allclose(gradient, 2 * before + 3, rtol=1e-8)
    np.testing.assert_array_equal(x, before)


def test_the_step_is_1e_4_and_f_may_read_the_array_by_another_name():
    W = np.array([[1.0, -2.0]])
    seen = []
    numerical_gradient(lambda _: seen.append(W.copy()) or 0.0, W)
    h = 1e-4
    wanted = [[1 + h, -2], [1 - h, -2], [1, -2 + h], [1, -2 - h]]
    np.testing.assert_array_equal(np.concatenate(seen), wanted)


def test_the_quotient_is_that_of_the_book():
    x = np.array([0.3])
    gradient = numerical_gradient(lambda x: np.exp(x[0]), x)
    assert gradient[0] == (np.exp(0.3 + 1e-4) - np.exp(0.3 - 1e-4)) / (2 * 1e-4)


def test_views_and_float32_keep_their_dtype():
    x = np.ones((3, 4), np.float32).T[:, ::2]
    gradient = numerical_gradient(lambda x: float(np.sum(x.astype(float) * 2)), x)
    assert gradient.dtype == np.float32 and gradient.shape == (4, 2)
    np.testing.assert_allclose(gradient, 2, rtol=1e-2)
    np.testing.assert_array_equal(x, 1)


def test_rows_of_a_matrix_are_points():
    X = np.array([[1.0, 2.0], [3.0, -4.0], [0.5, 0.0]])
    points = X.copy()
    gradient = numerical_gradient_2d(lambda x: np.sum(x**2), X)
    np.testing.assert_allclose(gradient, 2 * points, atol=1e-8)
    one = numerical_gradient_2d(lambda x: np.sum(x**2), X[1])
    np.testing.assert_array_equal(one, gradient[1])
    np.testing.assert_array_equal(X, points)


def test_an_array_of_no_elements_has_a_gradient_of_none():
    with np.errstate(all="raise"):
        assert numerical_gradient(lambda x: pytest.fail("called"), np.empty((0, 3))).size == 0
