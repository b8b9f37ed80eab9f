"""affine_forward and affine_backward: values, layouts, gradients, threads, out= and errors."""

import os
import re

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
    Unchanged,
    assert_close,
    check_gradient,
    lay_out,
    random_array,
    same_bits,
)

ACTIVATIONS = (None, "sigmoid", "tanh", "relu", "leaky_relu")
THREADS = (1, 2, 3, 7)

# N, I, O: large enough for several threads, in every direction, and away from round numbers.
SPREAD = (
    (1, 1, 1),
    (7, 13, 5),
    (100, 784, 50),
    (100, 50, 10),
    (3, 1999, 501),
    (4001, 17, 9),
    (1025, 129, 257),
    (1, 3001, 65),
    (257, 1, 300),
)


@pytest.fixture(scope="module")
def pool():
    """Three large random arrays whose corners serve as operands of every size."""
    rng = np.random.default_rng(0)
    side = max(SIZES)
    return {dtype: [random_array(rng, (side, side), dtype) for _ in range(3)] for dtype in DTYPES}


def make(seed, n, i, o, dtype):
    """Random x, W, b and dout."""
    rng = np.random.default_rng(seed)
    return [random_array(rng, shape, dtype) for shape in ((n, i), (i, o), (o,), (n, o))]


def check_forward(x, W, b, *, activation=None, slope=0.01, note=""):
    actual = cc.ops.affine_forward(x, W, b, activation=activation, slope=slope)
    assert actual.flags.c_contiguous, note
    expected = reference.affine_forward(x, W, b, activation=activation, slope=slope)
    # The derivative of an activation is at most 1 (or the slope), so the same bound holds after it.
    magnitude = max(1.0, slope) * reference.affine_magnitude(x, W, b)
    magnitude += (activation is not None) * np.abs(expected)
    assert_close(actual, expected, x.dtype, magnitude=magnitude, terms=x.shape[1], note=note)


def check_backward(dout, x, W, *, note=""):
    actual = cc.ops.affine_backward(dout, x, W)
    assert isinstance(actual, tuple) and len(actual) == 3, note
    expected = reference.affine_backward(dout, x, W)
    magnitude = reference.affine_backward(np.abs(dout), np.abs(x), np.abs(W))
    terms = (W.shape[1], len(x), len(x))
    for k, name in enumerate(("dx", "dW", "db")):
        options = {"magnitude": magnitude[k], "terms": terms[k], "note": f"{name} {note}"}
        assert_close(actual[k], expected[k], x.dtype, **options)


def shapes_with(n):
    """Pairs (I, O): every I with a few O, so that together with N every pair of sizes occurs."""
    step = 1 if os.environ.get("CNN_CORE_TEST_EFFORT") == "high" else 5
    first = SIZES.index(n)
    for k, i in enumerate(SIZES):
        for o in np.roll(SIZES, first + k)[::step]:
            yield i, int(o)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_forward_at_edge_sizes(pool, n, dtype):
    x, W, b = pool[dtype]
    for i, o in shapes_with(n):
        operands = [np.array(x[:n, :i]), np.array(W[:i, :o]), np.array(b[0, :o])]
        check_forward(*operands, note=f"N={n} I={i} O={o}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_backward_at_edge_sizes(pool, n, dtype):
    dout, x, W = pool[dtype]
    for i, o in shapes_with(n):
        operands = [np.array(dout[:n, :o]), np.array(x[:n, :i]), np.array(W[:i, :o])]
        check_backward(*operands, note=f"N={n} I={i} O={o}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_with_every_epilogue(pool, activation, bias, dtype):
    x, W, b = pool[dtype]
    for n, i, o in ((1, 1, 1), (5, 7, 6), (13, 12, 17), (16, 64, 48), (33, 2, 65), (7, 100, 129)):
        operands = [x[:n, :i], W[:i, :o], b[0, :o] if bias else None]
        for slope in (0.0, 0.01, 2.0):
            note = f"N={n} I={i} O={o} slope={slope}"
            check_forward(*operands, activation=activation, slope=slope, note=note)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SPREAD)
def test_large_products(shape, dtype):
    x, W, b, dout = make(1, *shape, dtype)
    check_forward(x, W, b)
    check_backward(dout, x, W)


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_integers_are_exact(dtype):
    rng = np.random.default_rng(2)
    x, W, b, dout = (
        rng.integers(-8, 9, shape).astype(dtype) for shape in ((31, 65), (65, 17), (17,), (31, 17))
    )
    assert np.array_equal(cc.ops.affine_forward(x, W, b), x @ W + b)
    dx, dW, db = cc.ops.affine_backward(dout, x, W)
    assert np.array_equal(dx, dout @ W.T)
    assert np.array_equal(dW, x.T @ dout)
    assert np.array_equal(db, dout.sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_empty_batch(activation, dtype):
    x, W, b, dout = make(3, 0, 7, 5, dtype)
    y = cc.ops.affine_forward(x, W, b, activation=activation)
    assert y.shape == (0, 5) and y.dtype == dtype
    out = (np.empty_like(x), np.full_like(W, np.nan), np.full_like(b, np.nan))
    for given_out in (None, out):
        dx, dW, db = cc.ops.affine_backward(dout, x, W, out=given_out)
        assert dx.shape == (0, 7) and dx.dtype == dtype
        assert dW.shape == (7, 5) and not dW.any()
        assert db.shape == (5,) and not db.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_stays_in_its_row_and_column(activation, dtype):
    x, W, b, dout = make(4, 33, 17, 50, dtype)
    x[20, 3] = np.nan
    y = cc.ops.affine_forward(x, W, b, activation=activation)
    assert np.isnan(y[20]).all() and not np.isnan(np.delete(y, 20, axis=0)).any()
    b[49] = np.nan
    y = cc.ops.affine_forward(np.nan_to_num(x), W, b, activation=activation)
    assert np.isnan(y[:, 49]).all() and not np.isnan(y[:, :49]).any()
    dout[32, 7] = np.nan
    dx, dW, db = cc.ops.affine_backward(dout, np.nan_to_num(x), W)
    assert np.isnan(dx[32]).all() and not np.isnan(dx[:32]).any()
    assert np.isnan(dW[:, 7]).all() and not np.isnan(np.delete(dW, 7, axis=1)).any()
    assert np.isnan(db[7]) and not np.isnan(np.delete(db, 7)).any()


def test_zero_times_infinity_is_nan():
    x, W, b = np.zeros((3, 2)), np.ones((2, 4)), np.zeros(4)
    W[1, 2] = np.inf
    y = cc.ops.affine_forward(x, W, b)
    assert np.isnan(y[:, 2]).all() and not np.isnan(np.delete(y, 2, axis=1)).any()


# ---- any layout, any shape -----------------------------------------------------------------------

sizes = st.integers(1, 70)
layouts = st.sampled_from(LAYOUTS)


@given(
    shape=st.tuples(st.integers(0, 70), sizes, sizes),
    dtype=st.sampled_from(DTYPES),
    stored=st.tuples(layouts, layouts, layouts),
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_forward_of_any_layout(shape, dtype, stored, activation, bias, seed):
    operands = make(seed, *shape, dtype)[:3]
    x, W, b = (lay_out(operand, layout) for operand, layout in zip(operands, stored, strict=True))
    with Unchanged(x, W, b):
        check_forward(x, W, b if bias else None, activation=activation)


@given(
    shape=st.tuples(st.integers(0, 70), sizes, sizes),
    dtype=st.sampled_from(DTYPES),
    stored=st.tuples(layouts, layouts, layouts),
    seed=st.integers(0, 99),
)
def test_backward_of_any_layout(shape, dtype, stored, seed):
    x, W, _, dout = make(seed, *shape, dtype)
    operands = [lay_out(a, layout) for a, layout in zip((dout, x, W), stored, strict=True)]
    with Unchanged(*operands):
        check_backward(*operands)


def test_lists_of_floats_are_float64():
    y = cc.ops.affine_forward([[1.0, 2.0]], [[3.0], [4.0]], [0.5])
    assert y.dtype == np.float64 and y.tolist() == [[11.5]]
    dx, dW, db = cc.ops.affine_backward([[2.0]], [[1.0, 2.0]], [[3.0], [4.0]])
    assert (dx.tolist(), dW.tolist(), db.tolist()) == ([[6.0, 8.0]], [[2.0], [4.0]], [2.0])


def test_other_byte_order_is_never_misread():
    x, W, b, _ = make(5, 3, 4, 2, "float64")
    swapped = x.astype(x.dtype.newbyteorder())
    try:
        y = cc.ops.affine_forward(swapped, W, b)
    except TypeError as error:
        assert re.search(r"\bx\b", str(error))
    else:
        assert_close(y, reference.affine_forward(x, W, b), "float64")


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 2), (2, 7, 5), (6, 1, 17)])
def test_gradients_by_central_differences(shape):
    x, W, b, _ = make(6, *shape, "float64")

    def backward(dout, x, W, b):
        return cc.ops.affine_backward(dout, x, W)

    check_gradient(cc.ops.affine_forward, backward, [x, W, b])


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_gradients_through_the_fused_activation(activation):
    x, W, b, _ = make(7, 5, 4, 3, "float64")
    # No value may be so near to the kink of a ReLU that a difference steps over it.
    assert np.abs(reference.affine_forward(x, W, b)).min() > 1e-3

    def forward(x, W, b):
        return cc.ops.affine_forward(x, W, b, activation=activation)

    def backward(dout, x, W, b):
        d = getattr(cc.ops, f"{activation}_backward")(dout, forward(x, W, b))
        return cc.ops.affine_backward(d, x, W)

    check_gradient(forward, backward, [x, W, b])


# ---- the order of additions ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SPREAD)
def test_results_do_not_depend_on_the_number_of_threads(shape, dtype, threads):
    x, W, b, dout = make(8, *shape, dtype)
    results = []
    for count in THREADS:
        threads(count)
        y = cc.ops.affine_forward(x, W, b, activation="tanh")
        results.append((y, *cc.ops.affine_backward(dout, x, W)))
    for count, result in zip(THREADS[1:], results[1:], strict=True):
        for name, one, many in zip(("y", "dx", "dW", "db"), results[0], result, strict=True):
            assert same_bits(one, many), f"{name} differs between 1 and {count} threads"


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_repeat_run_after_run(dtype):
    x, W, b, dout = make(9, 301, 129, 65, dtype)
    first = (cc.ops.affine_forward(x, W, b), *cc.ops.affine_backward(dout, x, W))
    for _ in range(5):
        again = (cc.ops.affine_forward(x, W, b), *cc.ops.affine_backward(dout, x, W))
        assert all(same_bits(one, two) for one, two in zip(first, again, strict=True))


ROWS = [(33, 64, 50), (50, 7, 13), (129, 257, 10), (17, 100, 65), (65, 784, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROWS)
def test_rows_of_y_do_not_depend_on_their_batch(shape, dtype):
    x, W, b, _ = make(10, *shape, dtype)
    y = cc.ops.affine_forward(x, W, b, activation="sigmoid")
    for row in range(len(x)):
        alone = cc.ops.affine_forward(x[row : row + 1], W, b, activation="sigmoid")
        assert same_bits(y[row : row + 1], alone), f"row {row}"
    half = len(x) // 2
    assert same_bits(y[half:], cc.ops.affine_forward(x[half:], W, b, activation="sigmoid"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ROWS)
def test_rows_of_dx_do_not_depend_on_their_batch(shape, dtype):
    x, W, _, dout = make(11, *shape, dtype)
    dx = cc.ops.affine_backward(dout, x, W)[0]
    for row in range(len(x)):
        alone = cc.ops.affine_backward(dout[row : row + 1], x[row : row + 1], W)[0]
        assert same_bits(dx[row : row + 1], alone), f"row {row}"


# ---- out= ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_is_filled_and_returned(dtype):
    x, W, b, dout = make(12, 33, 17, 50, dtype)
    out = np.full((33, 50), np.nan, dtype)
    with Unchanged(x, W, b):
        assert cc.ops.affine_forward(x, W, b, activation="relu", out=out) is out
    assert same_bits(out, cc.ops.affine_forward(x, W, b, activation="relu"))
    outs = tuple(np.full_like(a, np.nan) for a in (x, W, b))
    with Unchanged(dout, x, W):
        returned = cc.ops.affine_backward(dout, x, W, out=outs)
    assert all(one is two for one, two in zip(returned, outs, strict=True))
    fresh = cc.ops.affine_backward(dout, x, W)
    assert all(same_bits(one, two) for one, two in zip(outs, fresh, strict=True))


def test_out_may_touch_an_input_without_overlap():
    store = np.random.default_rng(13).standard_normal(32)
    x, out, W = store[:12].reshape(3, 4), store[12:18].reshape(3, 2), np.ones((4, 2))
    with Unchanged(x, store[18:]):
        cc.ops.affine_forward(x, W, None, out=out)
    assert_close(out, reference.affine_forward(x, W), "float64", magnitude=np.ones((3, 2)))


def test_out_may_lie_in_the_gaps_of_an_input():
    store = np.random.default_rng(13).standard_normal((3, 8))
    x, out, W = store[:, :4], store[1:2, 5:7], np.ones((4, 2))
    with Unchanged(x, store[2]):
        cc.ops.affine_forward(x[:1], W, None, out=out)
        assert_close(out, reference.affine_forward(x[:1], W), "float64", magnitude=np.ones((1, 2)))
        cc.ops.sgd_update(store[1, 5:7], x[::2, 1], 0.0)
        with pytest.raises(ValueError, match=r"\bparams\b"):
            cc.ops.sgd_update(store[1, 3:5], x[:2, 3], 0.0)


def bad_outs(shape, dtype):
    """Arrays that must not serve as out= for a result of this shape (2-D) and dtype."""
    readonly = np.zeros(shape, dtype)
    readonly.flags.writeable = False
    other = "float64" if dtype == "float32" else "float32"
    return {
        "rows": np.zeros((shape[0] + 1, shape[1]), dtype),
        "columns": np.zeros((shape[0], shape[1] - 1), dtype),
        "rank": np.zeros(shape[0] * shape[1], dtype),
        "dtype": np.zeros(shape, other),
        "integers": np.zeros(shape, "int32"),
        "fortran": np.zeros(shape, dtype, order="F"),
        "strided": np.zeros((shape[0], 2 * shape[1]), dtype)[:, ::2],
        "readonly": readonly,
    }


@pytest.mark.parametrize("kind", bad_outs((2, 2), "float32"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_out_is_refused(kind, dtype):
    x, W, b, dout = make(14, 4, 3, 5, dtype)
    with pytest.raises(ValueError, match=r"\bout\b"):
        cc.ops.affine_forward(x, W, b, out=bad_outs((4, 5), dtype)[kind])
    with pytest.raises(ValueError, match=r"\b(out|dx)\b"):
        outs = (bad_outs((4, 3), dtype)[kind], np.empty_like(W), np.empty_like(b))
        cc.ops.affine_backward(dout, x, W, out=outs)
    with pytest.raises(ValueError, match=r"\b(out|dW)\b"):
        outs = (np.empty_like(x), bad_outs((3, 5), dtype)[kind], np.empty_like(b))
        cc.ops.affine_backward(dout, x, W, out=outs)


def test_bad_db_and_bad_tuples_are_refused():
    x, W, _, dout = make(15, 4, 3, 5, "float32")
    for db in (np.zeros(4, "f4"), np.zeros((1, 5), "f4"), np.zeros(5), np.zeros(10, "f4")[::2]):
        with pytest.raises(ValueError, match=r"\b(out|db)\b"):
            cc.ops.affine_backward(dout, x, W, out=(np.empty_like(x), np.empty_like(W), db))
    for outs in ((np.empty_like(x), np.empty_like(W)), np.empty_like(x), ()):
        with pytest.raises((TypeError, ValueError), match=r"\bout\b"):
            cc.ops.affine_backward(dout, x, W, out=outs)


def test_out_that_overlaps_an_input_is_refused():
    store = np.random.default_rng(16).standard_normal(64)
    square, other, row = store[:16].reshape(4, 4), np.ones((4, 4)), store[4:8]
    partly, apart = store[15:31].reshape(4, 4), store[40:56].reshape(4, 4)
    before = store.copy()
    for x, W, b, out in (
        (square, other, None, square),
        (other, square, None, square),
        (other, other, row, square),
        (square, other, None, partly),
        (other, square.T, None, partly),
    ):
        with pytest.raises(ValueError, match=r"\bout\b"):
            cc.ops.affine_forward(x, W, b, out=out)
    vector = store[60:64]
    for dout, x, W, outs in (
        (square, other, other, (square, apart, vector)),
        (other, square, other, (apart, partly, vector)),
        (other, other, square, (apart, np.empty((4, 4)), row)),
        (other, other, other, (apart, apart, vector)),  # two results in one place
    ):
        with pytest.raises(ValueError, match=r"\b(out|dx|dW|db)\b"):
            cc.ops.affine_backward(dout, x, W, out=outs)
    assert np.array_equal(store, before), "a refused call has written something"


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "x", "W", "b"),
    [
        ("x", (4,), (3, 5), (5,)),
        ("x", (2, 2, 3), (3, 5), (5,)),
        ("x", (), (3, 5), (5,)),
        ("W", (4, 3), (3,), (5,)),
        ("W", (4, 3), (1, 3, 5), (5,)),
        ("x|W", (4, 3), (4, 5), (5,)),
        ("x|W", (4, 3), (5, 3), (5,)),
        ("b", (4, 3), (3, 5), (4,)),
        ("b", (4, 3), (3, 5), (1,)),
        ("b", (4, 3), (3, 5), (1, 5)),
        ("b", (4, 3), (3, 5), ()),
        ("x|W", (4, 0), (0, 5), (5,)),
        ("W", (4, 3), (3, 0), (0,)),
    ],
)
def test_forward_refuses_wrong_shapes(names, x, W, b):
    with pytest.raises(ValueError, match=rf"\b({names})\b"):
        cc.ops.affine_forward(np.ones(x), np.ones(W), np.ones(b))


@pytest.mark.parametrize(
    ("names", "dout", "x", "W"),
    [
        ("dout", (5,), (4, 3), (3, 5)),
        ("dout", (1, 5), (4, 3), (3, 5)),
        ("dout", (4, 3), (4, 3), (3, 5)),
        ("dout", (4, 5, 1), (4, 3), (3, 5)),
        ("x", (4, 5), (3,), (3, 5)),
        ("x|W", (4, 5), (4, 2), (3, 5)),
        ("W", (4, 5), (4, 3), (15,)),
        ("x|W", (4, 5), (4, 0), (0, 5)),
        ("W|dout", (4, 0), (4, 3), (3, 0)),
    ],
)
def test_backward_refuses_wrong_shapes(names, dout, x, W):
    with pytest.raises(ValueError, match=rf"\b({names})\b"):
        cc.ops.affine_backward(np.ones(dout), np.ones(x), np.ones(W))


WRONG_DTYPES = ("float16", "complex64", "complex128", "int64", "uint8", "bool", "object", "U8")


@pytest.mark.parametrize("wrong", WRONG_DTYPES)
def test_wrong_dtypes_are_refused(wrong):
    x, W, b, dout = (np.ones(shape) for shape in ((4, 3), (3, 5), (5,), (4, 5)))
    for place, name in enumerate(("x", "W", "b")):
        operands = [a.astype(wrong) if k == place else a for k, a in enumerate((x, W, b))]
        with pytest.raises(TypeError, match=rf"\b{name}\b"):
            cc.ops.affine_forward(*operands)
    for place, name in enumerate(("dout", "x", "W")):
        operands = [a.astype(wrong) if k == place else a for k, a in enumerate((dout, x, W))]
        with pytest.raises(TypeError, match=rf"\b{name}\b"):
            cc.ops.affine_backward(*operands)


@pytest.mark.parametrize("mixed", [0, 1, 2])
def test_mixed_dtypes_are_refused(mixed):
    x, W, b, dout = (np.ones(shape, "float32") for shape in ((4, 3), (3, 5), (5,), (4, 5)))
    operands = [a.astype("float64") if k == mixed else a for k, a in enumerate((x, W, b))]
    with pytest.raises(TypeError, match=r"\b(x|W|b)\b"):
        cc.ops.affine_forward(*operands)
    operands = [a.astype("float64") if k == mixed else a for k, a in enumerate((dout, x, W))]
    with pytest.raises(TypeError, match=r"\b(dout|x|W)\b"):
        cc.ops.affine_backward(*operands)


@pytest.mark.parametrize("activation", ["softmax", "ReLU", "", 1])
def test_unknown_activation_is_refused(activation):
    with pytest.raises((TypeError, ValueError), match=r"\bactivation\b"):
        cc.ops.affine_forward(np.ones((1, 1)), np.ones((1, 1)), None, activation=activation)


@pytest.mark.parametrize("slope", [-0.1, float("nan")])
def test_bad_slope_is_refused(slope):
    with pytest.raises(ValueError, match=r"\bslope\b"):
        cc.ops.affine_forward(
            np.ones((1, 1)), np.ones((1, 1)), None, activation="leaky_relu", slope=slope
        )
