"""The activations: values, accuracy in ulps, limits, NaN, layouts, gradients, threads, errors."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn_core as cc
import reference
from reference import (
    DTYPES,
    LAYOUTS,
    SIZES,
    TIGHT,
    Unchanged,
    assert_close,
    check_gradient,
    lay_out,
    random_array,
    same_bits,
    ulps,
)

NAMES = ("sigmoid", "tanh", "relu", "leaky_relu", "softmax")
ELEMENTWISE = NAMES[:4]
THREADS = (1, 2, 3, 7)
MOST_ULPS = 4

by_name = pytest.mark.parametrize("name", NAMES)
elementwise = pytest.mark.parametrize("name", ELEMENTWISE)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def forward_of(name, module=None):
    return getattr(module or cc.ops, f"{name}_forward")


def backward_of(name, module=None):
    return getattr(module or cc.ops, f"{name}_backward")


def check_forward(name, x, note="", **options):
    actual = forward_of(name)(x, **options)
    assert actual.flags.c_contiguous, note
    expected = forward_of(name, reference)(x, **options)
    assert_close(actual, expected, x.dtype, note=f"{name} {note}")


def check_backward(name, dout, y, note="", **options):
    actual = backward_of(name)(dout, y, **options)
    assert actual.flags.c_contiguous, note
    expected = backward_of(name, reference)(dout, y, **options)
    magnitude = np.abs(dout, dtype="float64") * max(1.0, options.get("slope", 1.0))
    if name == "softmax":
        weight = np.abs(y, dtype="float64")
        magnitude = weight * (magnitude + (magnitude * weight).sum(axis=-1, keepdims=True))
    assert_close(actual, expected, dout.dtype, magnitude=magnitude, note=f"{name} {note}")


# ---- values --------------------------------------------------------------------------------------


@by_name
@by_dtype
def test_values_at_edge_sizes(name, dtype):
    rng = np.random.default_rng(0)
    for size in (0, *SIZES):
        for shape in ((1, size), (size, 1), (7, size), (size, 10), (2, 3, size)):
            if name == "softmax" and shape[-1] == 0:
                continue
            x = 3 * random_array(rng, shape, dtype)
            check_forward(name, x, note=f"shape={shape}")
            y = forward_of(name, reference)(x).astype(dtype)
            check_backward(name, random_array(rng, shape, dtype), y, note=f"shape={shape}")


@elementwise
@by_dtype
def test_zero_rank(name, dtype):
    x = np.array(0.5, dtype)
    y = forward_of(name)(x)
    assert_close(y, forward_of(name, reference)(x), dtype)
    assert_close(backward_of(name)(x, y), backward_of(name, reference)(x, y), dtype)


@by_name
@by_dtype
def test_lists_of_floats_are_float64(name, dtype):
    values = [[0.5, -1.25, 2.0]]
    y = forward_of(name)(values)
    assert_close(y, forward_of(name, reference)(values), "float64")
    dx = backward_of(name)(values, y.tolist())
    assert_close(dx, backward_of(name, reference)(values, y), "float64", magnitude=np.ones((1, 3)))


@by_dtype
def test_known_values(dtype):
    x = np.array([-1.0, -0.0, 0.0, 2.0], dtype)
    ones = np.ones(4, dtype)
    assert cc.ops.relu_forward(x).tolist() == [0, 0, 0, 2]
    assert cc.ops.relu_backward(ones, cc.ops.relu_forward(x)).tolist() == [0, 0, 0, 1]
    y = cc.ops.leaky_relu_forward(x, 0.25)
    assert y.tolist() == [-0.25, 0, 0, 2]
    assert cc.ops.leaky_relu_backward(ones, y, 0.25).tolist() == [0.25, 0.25, 0.25, 1]
    assert cc.ops.sigmoid_forward(x)[1:3].tolist() == [0.5, 0.5]
    assert cc.ops.sigmoid_backward(ones, ones / 2).tolist() == [0.25] * 4
    assert cc.ops.tanh_backward(ones, ones / 2).tolist() == [0.75] * 4
    assert cc.ops.softmax_forward(np.zeros((3, 4), dtype)).tolist() == [[0.25] * 4] * 3
    assert cc.ops.softmax_forward(np.full((2, 1), 7, dtype)).tolist() == [[1.0], [1.0]]
    assert cc.ops.softmax_backward(x, ones / 4).tolist() == [-0.3125, -0.0625, -0.0625, 0.4375]


@by_dtype
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0, 2.0])
def test_slopes(slope, dtype):
    rng = np.random.default_rng(1)
    x, dout = random_array(rng, (7, 33), dtype), random_array(rng, (7, 33), dtype)
    check_forward("leaky_relu", x, slope=slope)
    y = cc.ops.leaky_relu_forward(x, slope)
    check_backward("leaky_relu", dout, y, slope=slope)
    if slope == 0:
        assert np.array_equal(y, cc.ops.relu_forward(x))
    default = cc.ops.leaky_relu_forward(x, 0.01), cc.ops.leaky_relu_backward(dout, y, 0.01)
    assert same_bits(cc.ops.leaky_relu_forward(x), default[0])
    assert same_bits(cc.ops.leaky_relu_backward(dout, y), default[1])


@by_dtype
def test_softmax_of_large_scores(dtype):
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    expected = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]
    assert_close(cc.ops.softmax_forward(x), np.array(expected), dtype, table=TIGHT)
    x = np.array([[-np.inf, 3.0, -np.inf], [0.0, -np.inf, 0.0]], dtype)
    assert cc.ops.softmax_forward(x).tolist() == [[0, 1, 0], [0.5, 0, 0.5]]


@by_dtype
def test_softmax_rows_add_up_to_one(dtype):
    x = 10 * random_array(np.random.default_rng(2), (65, 257), dtype)
    sums = cc.ops.softmax_forward(x).sum(axis=-1, dtype="float64")
    assert np.abs(sums - 1).max() < {"float32": 1e-5, "float64": 1e-13}[dtype]


# ---- accuracy ------------------------------------------------------------------------------------


def wide_range(dtype):
    """Numbers of both signs from the smallest subnormal to saturation, dense in the middle."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(3)
    exponents = np.linspace(np.log10(info.smallest_subnormal) + 0.5, 3.3, 4001)
    tiny = info.smallest_subnormal * np.array([1, 2, 3, 1000], np.float64)
    positive = np.concatenate(
        [10.0**exponents, tiny, np.linspace(0, 30, 6001), rng.uniform(0, 110, 4000)]
    ).astype(dtype)
    edges = [info.tiny, info.max, np.log(2) / 2, np.log(2), 0.625, 1.0, 88.0, 709.0, 745.0]
    positive = np.concatenate([positive, np.array(edges, dtype)])
    return np.concatenate([positive, -positive])


def precise(name, x):
    """Sigmoid or tanh in the longest floating point format, which must be longer than x."""
    x = x.astype(np.longdouble)
    if name == "tanh":
        return np.tanh(x)
    with np.errstate(under="ignore"):
        e = np.exp(-np.abs(x))
    return np.where(x < 0, e / (1 + e), 1 / (1 + e))


def worst_ulps(name, x):
    if np.finfo(np.longdouble).nmant - np.finfo(x.dtype).nmant < 8:
        pytest.skip("long double is no longer than the format under test")
    exact = precise(name, x)
    error = ulps(forward_of(name)(x), exact)
    worst = int(np.argmax(error))
    return error[worst], f"{name}({x[worst]!r}) is {error[worst]:.2f} ulp off {exact[worst]!r}"


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@by_dtype
def test_accuracy_in_ulps(name, dtype):
    x = wide_range(dtype)
    # Beyond, the results are subnormal: next test.
    x = x[x > np.log(np.finfo(dtype).tiny)] if name == "sigmoid" else x[abs(x) >= tiny_of(dtype)]
    error, message = worst_ulps(name, x)
    assert error <= MOST_ULPS, message


def tiny_of(dtype):
    """The smallest normal number."""
    return np.finfo(dtype).tiny


@by_dtype
def test_subnormal_results_are_zero(dtype):
    lowest, highest = np.log(float(np.finfo(dtype).smallest_subnormal)), np.log(tiny_of(dtype))
    x = np.linspace(lowest + 0.1, highest - 0.01, 501).astype(dtype)
    assert not cc.ops.sigmoid_forward(x).any()
    y = cc.ops.softmax_forward(np.stack([np.zeros_like(x), x], axis=-1))
    assert (y == [1, 0]).all()


@by_dtype
def test_accuracy_of_softmax_with_two_classes(dtype):
    x = np.linspace(0, 80, 2001).astype(dtype)
    y = cc.ops.softmax_forward(np.stack([np.zeros_like(x), -x], axis=-1))
    for column, exact in enumerate((precise("sigmoid", x), precise("sigmoid", -x))):
        worst = ulps(y[:, column], exact).max()
        assert worst <= 2 * MOST_ULPS, f"column {column}: {worst} ulp"


@by_dtype
def test_tiny_arguments_of_tanh_come_back(dtype):
    info = np.finfo(dtype)
    tiny = [1e-20, info.tiny, 1e-10, 0.0]
    x = np.array([*tiny, *(-float(v) for v in tiny)] * 3, dtype)
    assert same_bits(cc.ops.tanh_forward(x), x)  # the sign of zero too
    x = np.array([info.tiny / 4, -info.smallest_subnormal] * 9, dtype)
    assert same_bits(cc.ops.tanh_forward(x), x * 0)  # subnormal numbers are zero


@by_dtype
def test_limits(dtype):
    x = np.array([-np.inf, np.inf, -np.finfo(dtype).max, np.finfo(dtype).max, -1e3, 1e3], dtype)
    assert cc.ops.tanh_forward(x).tolist() == [-1, 1, -1, 1, -1, 1]
    assert cc.ops.sigmoid_forward(x).tolist() == [0, 1, 0, 1, 0, 1]
    assert cc.ops.relu_forward(x).tolist() == np.maximum(x, 0).tolist()
    x = x[1:]
    assert cc.ops.leaky_relu_forward(x, 0.5).tolist() == np.where(x > 0, x, x / 2).tolist()


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
@by_dtype
def test_monotone_bounded_and_symmetric(name, dtype):
    x = np.linspace(0, 40, 20001).astype(dtype)
    above, below = forward_of(name)(x), forward_of(name)(-x)
    assert above.max() <= 1 and below.min() >= (-1 if name == "tanh" else 0)
    if name == "tanh":
        assert np.array_equal(above, -below)
    # A step back of an ulp or two is rounding; more would be a seam between two approximations.
    assert np.diff(above).min() >= -2 * np.finfo(dtype).eps


# ---- NaN -----------------------------------------------------------------------------------------


@elementwise
@by_dtype
@pytest.mark.parametrize("size", [1, 7, 16, 33, 100])
def test_nan_goes_through_forward(name, size, dtype):
    for place in range(0, size, 3):
        x = random_array(np.random.default_rng(4), size, dtype)
        x[place] = np.nan if place % 2 else -np.nan
        assert np.flatnonzero(np.isnan(forward_of(name)(x))).tolist() == [place]


@elementwise
@by_dtype
def test_nan_goes_through_backward(name, dtype):
    for place in range(33):
        dout = random_array(np.random.default_rng(5), 33, dtype)
        y = np.full(33, 0.5, dtype)
        # ReLUs read only the sign of y, and a NaN in y has none: see the next test.
        for array in (dout,) if "relu" in name else (dout, y):
            before, array[place] = array[place], np.nan
            assert np.flatnonzero(np.isnan(backward_of(name)(dout, y))).tolist() == [place]
            array[place] = before


@by_dtype
@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_nan_at_a_relu_is_treated_as_by_pytorch(name, dtype):
    """PyTorch's threshold_backward: 0 (slope dout) where y <= 0, and dout where not, NaN or not."""
    dout, nan = random_array(np.random.default_rng(5), 33, dtype), np.full(33, np.nan, dtype)
    assert same_bits(backward_of(name)(dout, nan), dout)
    closed = np.zeros(33, dtype)
    closed[::2] = -1
    if name == "relu":
        assert same_bits(backward_of(name)(nan, closed), np.zeros_like(dout))
    else:
        assert np.isnan(backward_of(name)(nan, closed)).all()


@by_dtype
def test_nan_fills_its_row_of_a_softmax(dtype):
    for place in range(33):
        x = random_array(np.random.default_rng(6), (3, 33), dtype)
        x[1, place] = np.nan
        y = cc.ops.softmax_forward(x)
        assert np.isnan(y[1]).all() and not np.isnan(y[[0, 2]]).any()
        dout = np.ones_like(x)
        dout[2, place] = np.nan
        dx = cc.ops.softmax_backward(dout, y)
        assert np.isnan(dx[1:]).all() and not np.isnan(dx[0]).any()


@by_dtype
def test_softmax_without_a_finite_maximum_is_nan(dtype):
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [0.0, 0.0]], dtype)
    y = cc.ops.softmax_forward(x)
    assert np.isnan(y[0]).all() and np.isnan(y[1, 0]) and y[2].tolist() == [0.5, 0.5]


# ---- any layout, any shape -----------------------------------------------------------------------

shapes = st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple)
layouts = st.sampled_from(LAYOUTS)


@by_name
@given(
    shape=shapes,
    last=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    stored=st.tuples(layouts, layouts),
    seed=st.integers(0, 99),
)
def test_any_layout(name, shape, last, dtype, stored, seed):
    shape = (*shape[:2], last)
    rng = np.random.default_rng(seed)
    x = lay_out(3 * random_array(rng, shape, dtype), stored[0])
    dout = lay_out(random_array(rng, shape, dtype), stored[1])
    y = lay_out(forward_of(name, reference)(x).astype(dtype), stored[0])
    with Unchanged(x, dout, y):
        check_forward(name, x)
        check_backward(name, dout, y)


# ---- gradients -----------------------------------------------------------------------------------


@by_name
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 4), (17,)])
def test_gradients_by_central_differences(name, shape):
    x = np.random.default_rng(7).standard_normal(shape)
    x += np.sign(x) * 0.01  # away from the kink of a ReLU

    def backward(dout, x):
        return (backward_of(name)(dout, forward_of(name)(x)),)

    check_gradient(forward_of(name), backward, [x])


def test_gradient_of_a_steep_leaky_relu():
    x = np.random.default_rng(8).standard_normal((4, 5))
    forward = partial(cc.ops.leaky_relu_forward, slope=1.5)
    check_gradient(
        forward, lambda dout, x: (cc.ops.leaky_relu_backward(dout, forward(x), 1.5),), [x]
    )


# ---- threads and positions -----------------------------------------------------------------------


@by_name
@by_dtype
@pytest.mark.parametrize("shape", [(5,), (3, 70001), (20011, 10), (300007, 1)])
def test_results_do_not_depend_on_the_number_of_threads(name, shape, dtype, threads):
    rng = np.random.default_rng(9)
    x, dout = random_array(rng, shape, dtype), random_array(rng, shape, dtype)
    results = []
    for count in THREADS:
        threads(count)
        y = forward_of(name)(x)
        results.append((y, backward_of(name)(dout, y)))
    for count, result in zip(THREADS[1:], results[1:], strict=True):
        assert same_bits(results[0][0], result[0]), f"forward, {count} threads"
        assert same_bits(results[0][1], result[1]), f"backward, {count} threads"


@elementwise
@by_dtype
def test_an_element_does_not_depend_on_its_position(name, dtype):
    rng = np.random.default_rng(10)
    x, dout = 3 * random_array(rng, 101, dtype), random_array(rng, 101, dtype)
    y = forward_of(name)(x)
    dx = backward_of(name)(dout, y)
    for k in range(101):
        assert same_bits(forward_of(name)(x[k : k + 1]), y[k : k + 1]), k
        assert same_bits(forward_of(name)(x[k:]), y[k:]), k
        assert same_bits(backward_of(name)(dout[k:], y[k:]), dx[k:]), k


@by_dtype
@pytest.mark.parametrize("classes", [1, 2, 7, 10, 16, 33, 100])
def test_a_row_of_a_softmax_does_not_depend_on_its_batch(classes, dtype):
    rng = np.random.default_rng(11)
    x, dout = (random_array(rng, (37, classes), dtype) for _ in range(2))
    y = cc.ops.softmax_forward(x)
    dx = cc.ops.softmax_backward(dout, y)
    for row in range(len(x)):
        one = slice(row, row + 1)
        assert same_bits(cc.ops.softmax_forward(x[one]), y[one]), row
        assert same_bits(cc.ops.softmax_backward(dout[one], y[one]), dx[one]), row


# ---- out= and errors -----------------------------------------------------------------------------


@by_name
@by_dtype
def test_out_is_filled_and_returned(name, dtype):
    rng = np.random.default_rng(12)
    x, dout = random_array(rng, (7, 33), dtype), random_array(rng, (7, 33), dtype)
    out = np.full_like(x, np.nan)
    with Unchanged(x):
        assert forward_of(name)(x, out=out) is out
    y = forward_of(name)(x)
    assert same_bits(out, y)
    with Unchanged(dout, y):
        assert backward_of(name)(dout, y, out=out) is out
    assert same_bits(out, backward_of(name)(dout, y))


@by_name
@by_dtype
def test_bad_out_is_refused(name, dtype):
    x = np.ones((4, 6), dtype)
    readonly = np.empty_like(x)
    readonly.flags.writeable = False
    store = np.ones(48, dtype)
    inside = store[:24].reshape(4, 6)
    bad = [
        np.empty((4, 5), dtype),
        np.empty((1, 4, 6), dtype),
        np.empty(24, dtype),
        np.empty((4, 6), "float64" if dtype == "float32" else "float32"),
        np.empty((4, 6), dtype, order="F"),
        np.empty((4, 12), dtype)[:, ::2],
        readonly,
    ]
    for out in bad:
        with pytest.raises(ValueError, match=r"\bout\b"):
            forward_of(name)(x, out=out)
        with pytest.raises(ValueError, match=r"\bout\b"):
            backward_of(name)(x, x, out=out)
    for out in (inside, store[1:25].reshape(4, 6), store[23:47].reshape(4, 6)):
        with pytest.raises(ValueError, match=r"\bout\b"):
            forward_of(name)(inside, out=out)
        with pytest.raises(ValueError, match=r"\bout\b"):
            backward_of(name)(inside, x, out=out)
        with pytest.raises(ValueError, match=r"\bout\b"):
            backward_of(name)(x, inside, out=out)
    assert (store == 1).all(), "a refused call has written something"
    neighbor = store[24:].reshape(4, 6)
    assert forward_of(name)(inside, out=neighbor) is neighbor
    assert (inside == 1).all()


@by_name
@pytest.mark.parametrize("wrong", ["float16", "complex128", "int64", "uint8", "bool", "object"])
def test_wrong_dtypes_are_refused(name, wrong):
    good, bad = np.ones((2, 3)), np.ones((2, 3), wrong)
    with pytest.raises(TypeError, match=r"\bx\b"):
        forward_of(name)(bad)
    with pytest.raises(TypeError, match=r"\bdout\b"):
        backward_of(name)(bad, good)
    with pytest.raises(TypeError, match=r"\by\b"):
        backward_of(name)(good, bad)


@by_name
def test_mixed_dtypes_and_shapes_are_refused(name):
    one = np.ones((2, 3))
    for dout, y in ((one, one.astype("f4")), (one.astype("f4"), one)):
        with pytest.raises(TypeError, match=r"\b(dout|y)\b"):
            backward_of(name)(dout, y)
    for shape in ((3, 2), (2, 1), (1, 3), (3,), (1, 2, 3), (6,), ()):
        with pytest.raises(ValueError, match=r"\b(dout|y)\b"):
            backward_of(name)(one, np.ones(shape))
        with pytest.raises(ValueError, match=r"\b(dout|y)\b"):
            backward_of(name)(np.ones(shape), one)


def test_softmax_needs_an_axis():
    with pytest.raises(ValueError, match=r"\bx\b"):
        cc.ops.softmax_forward(np.array(1.0))


@pytest.mark.parametrize("slope", [-0.1, float("nan"), -float("inf")])
def test_bad_slope_is_refused(slope):
    one = np.ones(3)
    with pytest.raises(ValueError, match=r"\bslope\b"):
        cc.ops.leaky_relu_forward(one, slope)
    with pytest.raises(ValueError, match=r"\bslope\b"):
        cc.ops.leaky_relu_backward(one, one, slope)
