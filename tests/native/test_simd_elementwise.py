"""The micro-kernels on adjacent elements: values, accuracy, NaN, guards, on every table.

The guards of c_buffers.py stand around every buffer of every call.
"""

import numpy as np
import pytest

import reference
from native.c_kernels import ACTIVATIONS, LEAKY_RELU, NONE, RELU, SIGMOID, TANH
from reference import TIGHT, assert_close, random_array, same_bits, ulps

by_name = pytest.mark.parametrize("name", ACTIVATIONS)
SLOPE = 0.25


def backward_reference(name, y, dout):
    slope = (SLOPE,) if name == "leaky_relu" else ()
    return getattr(reference, f"{name}_backward")(dout, y, *slope)


def forward_reference(name, x):
    slope = (SLOPE,) if name == "leaky_relu" else ()
    return getattr(reference, f"{name}_forward")(x, *slope)


def wide(x):
    """The same numbers with more digits."""
    return x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)


def eighths(rng, shape, dtype):
    """Multiples of 1/8 in -8..8, whose differences are exact."""
    return (rng.integers(-64, 65, shape) / 8).astype(dtype)


# ---- activations ---------------------------------------------------------------------------------


@by_name
def test_activate_at_edge_sizes(kernels, rng, name):
    for n in kernels.sizes():
        x = random_array(rng, n, kernels.dtype)
        y = kernels.activate(ACTIVATIONS[name], x, SLOPE)
        assert_close(y, forward_reference(name, x), kernels.dtype, table=TIGHT, note=f"n={n}")
        assert same_bits(y, kernels.activate(ACTIVATIONS[name], x, SLOPE, in_place=True))


@by_name
def test_activate_backward_at_edge_sizes(kernels, rng, name):
    for n in kernels.sizes():
        dout = random_array(rng, n, kernels.dtype)
        y = forward_reference(name, random_array(rng, n, kernels.dtype)).astype(kernels.dtype)
        dx = kernels.activate_backward(ACTIVATIONS[name], y, dout, SLOPE)
        expected, size = backward_reference(name, y, dout), np.abs(dout)
        assert_close(dx, expected, kernels.dtype, magnitude=size, table=TIGHT, note=f"n={n}")
        again = kernels.activate_backward(ACTIVATIONS[name], y, dout, SLOPE, in_place=True)
        assert same_bits(dx, again), f"n={n}"


def test_no_activation_copies(kernels):
    x = np.resize(np.array([1.5, -0.0, np.nan, -np.inf, 1e-40], kernels.dtype), 37)
    for n in kernels.sizes():
        for in_place in (False, True):
            assert same_bits(kernels.activate(NONE, x[:n], in_place=in_place), x[:n])
            dx = kernels.activate_backward(NONE, np.ones_like(x[:n]), x[:n], in_place=in_place)
            assert same_bits(dx, x[:n])


@by_name
def test_an_element_does_not_depend_on_where_it_stands(kernels, rng, name):
    n, kind = 4 * kernels.lanes + 3, ACTIVATIONS[name]
    x, dout = random_array(rng, n, kernels.dtype), random_array(rng, n, kernels.dtype)
    y = kernels.activate(kind, x, SLOPE)
    dx = kernels.activate_backward(kind, y, dout, SLOPE)
    for begin in range(0, kernels.lanes + 1, 3):
        for end in range(begin + 1, n + 1, 5):
            part = slice(begin, end)
            assert same_bits(kernels.activate(kind, x[part], SLOPE), y[part])
            back = kernels.activate_backward(kind, y[part], dout[part], SLOPE)
            assert same_bits(back, dx[part])


@by_name
def test_special_values_in_every_lane(kernels, name):
    info, nan, inf = np.finfo(kernels.dtype), np.nan, np.inf
    tiny, most = info.smallest_subnormal, info.max
    x = np.array([nan, inf, -inf, 0.0, -0.0, tiny, -tiny, most, -most, 1.0, -1.0], kernels.dtype)
    for shift in range(len(x)):
        moved = np.resize(np.roll(x, shift), 3 * kernels.lanes + 1)
        y = kernels.activate(ACTIVATIONS[name], moved, SLOPE)
        assert_close(y, forward_reference(name, moved), kernels.dtype, table=TIGHT)
        if name != "sigmoid":
            zero = moved == 0
            assert (np.signbit(y[zero]) == np.signbit(moved[zero])).all()


def test_slopes(kernels, rng):
    x = random_array(rng, 2 * kernels.lanes + 1, kernels.dtype)
    for slope in (0.0, 0.5, 1.0, 2.0):
        y = kernels.activate(LEAKY_RELU, x, slope)
        assert same_bits(y, np.where(x < 0, x * kernels.dtype.type(slope), x))
        dx = kernels.activate_backward(LEAKY_RELU, y, x, slope)
        assert same_bits(dx, np.where(y <= 0, x * kernels.dtype.type(slope), x))
    assert same_bits(kernels.activate(RELU, x), np.maximum(x, 0))


# ---- accuracy of exp, tanh, sigmoid and log ------------------------------------------------------


def test_exp_below_an_ulp_and_a_half(kernels):
    """sigmoid(x) = e / (1 + e) with e = exp(x) so small that only exp's own error is left."""
    lowest = {"float32": -103, "float64": -744}[str(kernels.dtype)]  # deep in the subnormals
    x = np.linspace(lowest, -40, 20001).astype(kernels.dtype)
    e = np.exp(wide(x))
    assert ulps(kernels.activate(SIGMOID, x), e / (1 + e)).max() <= 1.5


@pytest.mark.parametrize("kind", [SIGMOID, TANH])
def test_sigmoid_and_tanh_within_three_ulps(kernels, kind):
    x = np.concatenate([np.linspace(-12, 12, 20001), np.geomspace(1e-30, 1, 5001)])
    x = x.astype(kernels.dtype)
    exact = np.tanh(wide(x)) if kind == TANH else 1 / (1 + np.exp(-wide(x)))
    assert ulps(kernels.activate(kind, x), exact).max() <= 3


def test_log_within_an_ulp(kernels):
    """Column i holds i + 1 zeros and otherwise -inf: its loss is log(i + 1)."""
    n = 1300
    x = np.where(np.tri(n, dtype=bool).T, 0, -np.inf).astype(kernels.dtype)
    losses = kernels.cross_entropy_columns(x, np.zeros(n, np.int64))
    exact = np.log(wide(np.arange(1, n + 1).astype(kernels.dtype)))
    assert losses[0] == 0 and ulps(losses, exact).max() <= 1


def test_log_between_one_and_two(kernels):
    d = np.linspace(0, 40, 4001).astype(kernels.dtype)
    losses = kernels.cross_entropy_columns(np.stack([0 * d, -d]), np.zeros(len(d), np.int64))
    error = np.abs(losses - np.log1p(np.exp(-wide(d))))
    assert error.max() <= np.finfo(kernels.dtype).eps


# ---- softmax -------------------------------------------------------------------------------------


def test_softmax_at_edge_sizes(kernels, rng):
    for n in kernels.sizes()[1:]:
        x, dout = (eighths(rng, n, kernels.dtype) for _ in range(2))
        y = kernels.softmax(x)
        assert_close(y, reference.softmax_forward(x), kernels.dtype, table=TIGHT, note=f"n={n}")
        assert same_bits(y, kernels.softmax(x, in_place=True))
        assert same_bits(y, kernels.softmax(x + 16)), "only differences matter"
        dx = kernels.softmax_backward(y, dout)
        expected, size = reference.softmax_backward(dout, y), np.full(n, 8)
        assert_close(dx, expected, kernels.dtype, magnitude=size, table=TIGHT, note=f"n={n}")
        assert same_bits(dx, kernels.softmax_backward(y, dout, in_place=True))


def test_softmax_of_far_scores(kernels):
    """The largest score in every place, the others out of exp's reach on either side."""
    far = np.finfo(kernels.dtype).max / 2
    for n in kernels.sizes()[1:]:
        for place in range(n):
            x = np.full(n, -far, kernels.dtype)
            x[place] = far
            expected = (np.arange(n) == place).astype(kernels.dtype)
            assert same_bits(kernels.softmax(x), expected), f"n={n} place={place}"


def test_nan_fills_a_row_of_softmax(kernels):
    for n in kernels.sizes()[1:]:
        for place in range(n):
            x = np.ones(n, kernels.dtype)
            x[place] = np.nan
            assert np.isnan(kernels.softmax(x)).all(), f"n={n} place={place}"
            y = np.full(n, 1 / n, kernels.dtype)
            assert np.isnan(kernels.softmax_backward(y, x)).all(), f"n={n} place={place}"


# ---- sums, scales and updates --------------------------------------------------------------------


def test_add(kernels, rng):
    for n in kernels.sizes():
        x, y = (random_array(rng, n, kernels.dtype) for _ in range(2))
        assert same_bits(kernels.add(x, y), x + y), f"n={n}"


def test_transpose(kernels, rng):
    for m in (*range(10), 16, 17):
        for n in (0, 1, 7, 8, 9, 10, 24, 31):
            x = random_array(rng, (m, n), kernels.dtype)
            for gaps in ((0, 0), (3, 0), (0, 5)):
                assert same_bits(kernels.transpose(x, gaps=gaps), x.T.copy()), f"m={m} n={n}"


def test_dots(kernels, rng):
    for n in kernels.sizes():
        for m in (0, 1, 7, 8, 9, 31, 32, 33, 65):
            a, x = random_array(rng, (m, n), kernels.dtype), random_array(rng, n, kernels.dtype)
            size = np.abs(wide(a)) @ np.abs(wide(x))
            for gap in (0, 3):
                y = kernels.dots(a, x, gap=gap)
                assert_close(y, wide(a) @ wide(x), kernels.dtype, magnitude=size, terms=n)
                for i in range(m):  # no row knows of the others
                    assert same_bits(kernels.dots(a[i : i + 1].copy(), x), y[i : i + 1])
                some = np.arange(m)[::-2]
                assert same_bits(kernels.dots(a, x, some, gap=gap), y[some])


def test_add_scaled(kernels, rng):
    for n in kernels.sizes():
        x, y = (random_array(rng, n, kernels.dtype) for _ in range(2))
        for a in (0.0, 1.0, -0.5):  # products without rounding, fused or not
            assert same_bits(kernels.add_scaled(x, a, y), x + kernels.dtype.type(a) * y)
        size = np.abs(x) + np.abs(y)
        near = wide(x) + wide(kernels.dtype.type(0.3)) * wide(y)
        assert_close(
            kernels.add_scaled(x, 0.3, y), near, kernels.dtype, magnitude=size, table=TIGHT
        )


@pytest.mark.parametrize("source", ["uint8", "float32", "float64"])
def test_scale(kernels, rng, source):
    for n in (*kernels.sizes(), 300):
        x = rng.integers(0, 256, n) if source == "uint8" else 100 * rng.standard_normal(n)
        x = x.astype(source)
        for scale in (1.0, 1 / 255, -3.0):
            expected = x.astype(kernels.dtype) * kernels.dtype.type(scale)
            assert same_bits(kernels.scale(x, scale), expected), f"n={n} scale={scale}"
    every = np.arange(256, dtype="uint8").astype(source)
    assert kernels.scale(every, 1.0).tolist() == list(range(256))


def test_argmax_is_the_first_of_equals(kernels, rng):
    for n in kernels.sizes()[1:]:
        for place in range(n):
            x = rng.integers(-9, 5, n).astype(kernels.dtype)
            x[place:] = np.where(rng.random(n - place) < 0.5, 5, x[place:])
            x[place] = 5
            assert kernels.argmax(x) == place, f"n={n} place={place}"
        for value in (-np.inf, 0.0, np.inf):
            assert kernels.argmax(np.full(n, value, kernels.dtype)) == 0


def test_argmax_takes_the_first_nan(kernels):
    for n in kernels.sizes()[1:]:
        for place in range(n):
            x = np.linspace(-1, 1, n).astype(kernels.dtype)
            x[-1], x[0] = np.inf, np.inf
            x[place::3] = np.nan
            assert kernels.argmax(x) == place, f"n={n} place={place}"
