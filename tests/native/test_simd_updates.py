"""The micro-kernels that update parameters or limit their gradients, on every table."""

import numpy as np
import pytest

import reference
import reference_updates
from reference import TIGHT, assert_close, random_array, same_bits


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("l2", "decay"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.03)])
def test_sgd(kernels, rng, momentum, nesterov, l2, decay):
    rule = {"momentum": momentum, "nesterov": nesterov, "weight_decay": l2, "decay": decay}
    for n in kernels.sizes():
        p, grad, v = (random_array(rng, n, kernels.dtype) for _ in range(3))
        given = v if momentum else None
        new_p, new_v = kernels.sgd(p, grad, given, 0.1, **rule)
        expected_p, expected_v = reference.sgd_update(p, grad, 0.1, velocity=given, **rule)
        size, note = np.full(n, 8.0), f"n={n}"
        assert_close(new_p, expected_p, kernels.dtype, magnitude=size, table=TIGHT, note=note)
        if momentum:
            assert_close(new_v, expected_v, kernels.dtype, magnitude=size, table=TIGHT, note=note)


def check(kernels, name, arrays, numbers, note):
    """One call against the reference of the same name; arrays[0] is p, arrays[1] its gradient."""
    rounded = [float(kernels.dtype.type(number)) for number in numbers]
    wide = [None if value is None else value.astype(np.float64) for value in arrays]
    expected = getattr(reference_updates, name)(*wide, *rounded)
    found = getattr(kernels, name)(*arrays, *numbers)
    g = np.abs(wide[1]) + rounded[-1] * np.abs(wide[0])
    for actual, value in zip(found, expected, strict=True):
        if value is None:
            assert actual is None
            continue
        size = np.abs(value) + g + g * g + 1
        assert_close(actual, value, kernels.dtype, magnitude=size, table=TIGHT, note=note)


@pytest.mark.parametrize(("l2", "decay"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.003)])
def test_adam(kernels, rng, l2, decay):
    for n in kernels.sizes():
        p, grad, m, v = (random_array(rng, n, kernels.dtype) for _ in range(4))
        numbers = (0.002, 1.7, 0.9, 0.999, 1e-8, l2, decay)
        check(kernels, "adam", (p, grad, m, np.abs(v)), numbers, f"n={n}")


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_adagrad(kernels, rng, l2):
    for n in kernels.sizes():
        p, grad, total = (random_array(rng, n, kernels.dtype) for _ in range(3))
        check(kernels, "adagrad", (p, grad, np.abs(total)), (0.05, 1e-10, l2), f"n={n}")


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [None, 0.0, 0.9])
def test_rmsprop(kernels, rng, momentum, l2):
    for n in kernels.sizes():
        p, grad, square, v = (random_array(rng, n, kernels.dtype) for _ in range(4))
        arrays = (p, grad, np.abs(square), None if momentum is None else v)
        check(kernels, "rmsprop", arrays, (0.01, 0.97, momentum or 0, 1e-8, l2), f"n={n}")


def updates(kernels, rng, n):
    """Each update as a function of a slice of its arrays."""
    p, grad, m, v = (random_array(rng, n, kernels.dtype) for _ in range(4))
    v = np.abs(v)
    yield lambda s: kernels.sgd(p[s], grad[s], None, 0.1)[:1]
    yield lambda s: kernels.sgd(p[s], grad[s], m[s], 0.1, 0.9, True, 0.01)
    yield lambda s: kernels.sgd(p[s], grad[s], m[s], 0.1, 0.9, False, 0.0, 0.01)
    yield lambda s: kernels.adam(p[s], grad[s], m[s], v[s], 0.1, 1.1, 0.9, 0.999, 1e-8, 0.01, 0.1)
    yield lambda s: kernels.adagrad(p[s], grad[s], v[s], 0.1, 1e-10, 0.01)
    yield lambda s: kernels.rmsprop(p[s], grad[s], v[s], m[s], 0.1, 0.99, 0.9, 1e-8, 0.01)
    yield lambda s: kernels.rmsprop(p[s], grad[s], v[s], None, 0.1, 0.99, 0.0, 1e-8, 0.01)[:2]


def test_an_element_does_not_depend_on_where_it_stands(kernels, rng):
    n = 4 * kernels.lanes + 3
    for update in updates(kernels, rng, n):
        whole = update(slice(0, n))
        for begin in range(0, kernels.lanes + 1, 3):
            for end in range(begin + 1, n + 1, 5):
                part = slice(begin, end)
                for found, expected in zip(update(part), whole, strict=True):
                    assert same_bits(found, expected[part])


# ---- clipping ------------------------------------------------------------------------------------


def test_clamp_moves_what_is_outside_and_keeps_nan(kernels, rng):
    for n in kernels.sizes():
        x = random_array(rng, n, kernels.dtype)
        assert same_bits(kernels.clamp(x, 0.5), np.clip(x, -0.5, 0.5))
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 0.5, -0.5, 1e-40], kernels.dtype)
    for shift in range(len(values)):
        x = np.resize(np.roll(values, shift), 3 * kernels.lanes + 1)
        assert same_bits(kernels.clamp(x, 0.5), np.clip(x, -0.5, 0.5))


def test_sum_squares_is_added_in_float64(kernels, rng):
    for n in (*kernels.sizes(), 4096):
        x = random_array(rng, n, kernels.dtype)
        exact = float((x.astype(np.longdouble) ** 2).sum())
        assert kernels.sum_squares(x) == pytest.approx(exact, rel=1e-15 * (1 + n / 8))
    large = np.full(100, 1e30, kernels.dtype)  # its square is no float32
    assert kernels.sum_squares(large) == pytest.approx(1e62, rel=1e-6)
    for place in range(20):
        x = np.ones(20, kernels.dtype)
        x[place] = np.nan
        assert np.isnan(kernels.sum_squares(x))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_product_is_the_product_and_then_sgd(kernels, rng, decay):
    for n in kernels.sizes():
        for m, k in ((0, 3), (1, 0), (1, 1), (1, 257), (2, 5), (2, 256), (5, 3)):
            W, x, dout = (random_array(rng, s, kernels.dtype) for s in ((k, n), (m, k), (m, n)))
            zeros = np.zeros((k, n), kernels.dtype)
            grad = kernels.gemm(np.ascontiguousarray(x.T), dout, zeros)
            expected, _ = kernels.sgd(W.ravel(), grad.ravel(), None, 0.1, weight_decay=decay)
            actual = kernels.sgd_product(W, x, dout, 0.1, decay)
            assert same_bits(actual, expected.reshape(k, n)), f"m={m} k={k} n={n}"
            x *= rng.random((1, k)) < 0.5  # inputs that are 0 in all rows
            grad = kernels.gemm(np.ascontiguousarray(x.T), dout, zeros)
            expected, _ = kernels.sgd(W.ravel(), grad.ravel(), None, 0.1, weight_decay=decay)
            actual = kernels.sgd_product(W, x, dout, 0.1, decay)
            assert same_bits(actual, expected.reshape(k, n)), f"m={m} k={k} n={n}"
