"""The losses: values, extreme scores, targets of every kind, gradients, threads, errors."""

import math

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
    TOLERANCE,
    Unchanged,
    assert_close,
    check_gradient,
    lay_out,
    numerical_gradient,
    random_array,
    same_bits,
)

ELEMENTWISE = ("binary_cross_entropy", "mean_squared_error", "sum_squared_error")
NAMES = ("softmax_cross_entropy", *ELEMENTWISE)
REDUCTIONS = ("mean", "sum")
THREADS = (1, 2, 3, 7)

by_name = pytest.mark.parametrize("name", NAMES)
elementwise = pytest.mark.parametrize("name", ELEMENTWISE)
by_dtype = pytest.mark.parametrize("dtype", DTYPES)
by_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)

TARGET = r"\bt\b"
FIRST = r"\b(scores|y)\b"


def loss_of(name, module=None):
    return getattr(module or cc.ops, name)


def make(name, seed, shape, dtype):
    """Random scores, and targets that suit the loss (rows of probabilities for softmax)."""
    rng = np.random.default_rng(seed)
    scores = 3 * random_array(rng, shape, dtype)
    t = rng.uniform(size=shape)
    if name == "softmax_cross_entropy":
        t = t / t.sum(axis=1, keepdims=True)
    return scores, t.astype(dtype)


def check(name, scores, t, note="", **options):
    """Compare the loss and its gradient with the reference."""
    dtype = str(scores.dtype)
    loss, gradient = loss_of(name)(scores, t, **options)
    expected, expected_gradient = loss_of(name, reference)(scores, t, **options)
    note = f"{name} {note}"
    assert type(loss) is float and gradient.flags.c_contiguous, note
    # An element of the loss is a difference of numbers of the size of the scores.
    size = float(np.abs(scores.astype("float64")).max()) + 1
    divisor = {"sum": 1, "mean": len(scores)}[options.get("reduction", "mean")]
    if name in ("binary_cross_entropy", "mean_squared_error") and divisor != 1:
        divisor = scores.size
    count = len(scores) if name == "softmax_cross_entropy" else scores.size
    bound = TOLERANCE[dtype] * (abs(expected) + size * count / divisor)
    assert abs(loss - expected) <= bound, f"{note}: loss {loss!r}, expected {expected!r}"
    magnitude = np.full(gradient.shape, size / divisor)
    assert_close(gradient, expected_gradient, dtype, magnitude=magnitude, note=note)


# ---- values --------------------------------------------------------------------------------------


@by_reduction
@by_dtype
def test_labels_at_edge_sizes(reduction, dtype):
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 33, 100):
        for classes in SIZES:
            scores = 3 * random_array(rng, (n, classes), dtype)
            t = rng.integers(0, classes, n)
            t[0] = classes - 1
            note = f"N={n} C={classes}"
            check("softmax_cross_entropy", scores, t, note, reduction=reduction)


@by_name
@by_reduction
@by_dtype
def test_rows_at_edge_sizes(name, reduction, dtype):
    for n in (1, 2, 7, 33, 100):
        for classes in SIZES:
            scores, t = make(name, n, (n, classes), dtype)
            check(name, scores, t, f"N={n} C={classes}", reduction=reduction)


@elementwise
@by_reduction
@by_dtype
@pytest.mark.parametrize("shape", [(1,), (17,), (5, 1), (2, 3, 4), (3, 1, 5, 7)])
def test_elementwise_losses_take_any_rank(name, shape, reduction, dtype):
    check(name, *make(name, 1, shape, dtype), reduction=reduction)


@by_name
def test_mean_is_the_default(name):
    scores, t = make(name, 2, (5, 3), "float64")
    loss, gradient = loss_of(name)(scores, t)
    mean, mean_gradient = loss_of(name)(scores, t, reduction="mean")
    assert loss == mean and same_bits(gradient, mean_gradient)


@by_dtype
def test_known_values(dtype):
    scores = np.zeros((2, 4), dtype)
    loss, gradient = cc.ops.softmax_cross_entropy(scores, np.array([1, 3]))
    assert loss == pytest.approx(math.log(4), rel=TIGHT[dtype])
    assert gradient.tolist() == [[0.125, -0.375, 0.125, 0.125], [0.125, 0.125, 0.125, -0.375]]
    loss, gradient = cc.ops.binary_cross_entropy(scores, np.ones((2, 4), dtype))
    assert loss == pytest.approx(math.log(2), rel=TIGHT[dtype])
    assert gradient.tolist() == [[-0.0625] * 4] * 2
    y, t = np.array([[1, 2], [3, 4]], dtype), np.array([[0, 0], [3, 8]], dtype)
    loss, gradient = cc.ops.mean_squared_error(y, t)
    assert loss == 5.25 and gradient.tolist() == [[0.5, 1.0], [0.0, -2.0]]
    loss, gradient = cc.ops.mean_squared_error(y, t, reduction="sum")
    assert loss == 21.0 and gradient.tolist() == [[2.0, 4.0], [0.0, -8.0]]
    loss, gradient = cc.ops.sum_squared_error(y, t)
    assert loss == 5.25 and gradient.tolist() == [[0.5, 1.0], [0.0, -2.0]]
    loss, gradient = cc.ops.sum_squared_error(y, t, reduction="sum")
    assert loss == 10.5 and gradient.tolist() == [[1.0, 2.0], [0.0, -4.0]]
    # Three columns tell the two means apart: 2/6 and 1/2 of the same difference.
    y, t = np.full((2, 3), 3, dtype), np.zeros((2, 3), dtype)
    assert cc.ops.mean_squared_error(y, t)[1].tolist() == [[1.0] * 3] * 2
    assert cc.ops.sum_squared_error(y, t)[1].tolist() == [[1.5] * 3] * 2
    assert cc.ops.mean_squared_error(y, t)[0] == 9.0
    assert cc.ops.sum_squared_error(y, t)[0] == 13.5


@by_dtype
def test_labels_and_one_hot_rows_agree(dtype):
    scores, _ = make("softmax_cross_entropy", 3, (33, 10), dtype)
    t = np.random.default_rng(4).integers(0, 10, 33)
    loss, gradient = cc.ops.softmax_cross_entropy(scores, t)
    for kind in (dtype, "uint8", "int64", "bool"):
        rows = np.eye(10, dtype=kind)[t]
        with Unchanged(rows):
            row_loss, row_gradient = cc.ops.softmax_cross_entropy(scores, rows)
        assert row_loss == pytest.approx(loss, rel=TOLERANCE[dtype])
        assert_close(row_gradient, gradient, dtype, magnitude=np.ones_like(gradient))


@by_dtype
@pytest.mark.parametrize(
    "kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
def test_labels_of_any_integer_type(kind, dtype):
    scores, _ = make("softmax_cross_entropy", 5, (6, 4), dtype)
    t = np.array([3, 0, 1, 2, 3, 3])
    loss, gradient = cc.ops.softmax_cross_entropy(scores, t)
    other_loss, other_gradient = cc.ops.softmax_cross_entropy(scores, t.astype(kind))
    assert loss == other_loss and same_bits(gradient, other_gradient)
    assert cc.ops.softmax_cross_entropy(scores, t.tolist())[0] == loss


@elementwise
@by_dtype
@pytest.mark.parametrize("kind", ["uint8", "bool", "int32", "int64"])
def test_integer_targets_are_converted(name, kind, dtype):
    scores, t = make(name, 6, (7, 5), dtype)
    t = (t > 0.5).astype(kind)
    loss, gradient = loss_of(name)(scores, t)
    float_loss, float_gradient = loss_of(name)(scores, t.astype(dtype))
    assert loss == float_loss and same_bits(gradient, float_gradient)


def test_loss_is_accumulated_in_float64():
    size = 2**20 + 1
    y, t = np.full(size, 0.1, "float32"), np.zeros(size, "float32")
    exact = float(np.float32(0.1)) ** 2
    assert cc.ops.mean_squared_error(y, t)[0] == pytest.approx(exact, rel=1e-6)
    assert cc.ops.sum_squared_error(y, t)[0] == pytest.approx(exact / 2, rel=1e-6)
    loss = cc.ops.binary_cross_entropy(np.zeros(size, "float32"), t, reduction="sum")[0]
    assert loss == pytest.approx(size * math.log(2), rel=1e-6)
    scores = np.zeros((size, 2), "float32")
    loss = cc.ops.softmax_cross_entropy(scores, np.zeros(size, "int64"), reduction="sum")[0]
    assert loss == pytest.approx(size * math.log(2), rel=1e-6)


# ---- extreme scores ------------------------------------------------------------------------------


@by_dtype
def test_softmax_cross_entropy_of_large_scores(dtype):
    scores = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [1e4, 1e4, -1e4]], dtype)
    t = np.array([0, 1, 2])
    for target in (t, np.eye(3, dtype=dtype)[t]):
        loss, gradient = cc.ops.softmax_cross_entropy(scores, target, reduction="sum")
        assert loss == pytest.approx(0 + 2e4 + 2e4 + math.log(2), rel=TIGHT[dtype])
        assert gradient.tolist() == [[0, 0, 0], [1, -1, 0], [0.5, 0.5, -1]]
    loss, gradient = cc.ops.softmax_cross_entropy(scores[:1], t[:1])
    assert loss == 0 and not gradient.any()


@by_dtype
def test_minus_infinity_for_wrong_classes(dtype):
    scores = np.array([[-np.inf, 3, -np.inf], [0, -np.inf, 0]], dtype)
    t = np.array([1, 2])
    for target in (t, np.eye(3, dtype=dtype)[t]):
        loss, gradient = cc.ops.softmax_cross_entropy(scores, target, reduction="sum")
        assert loss == pytest.approx(math.log(2), rel=TIGHT[dtype])
        assert gradient.tolist() == [[0, 0, 0], [0.5, 0, -0.5]]


@by_dtype
def test_minus_infinity_for_the_right_class(dtype):
    scores, t = np.array([[0, -np.inf]], dtype), np.array([1])
    for target in (t, np.eye(2, dtype=dtype)[t]):
        loss, gradient = cc.ops.softmax_cross_entropy(scores, target)
        assert loss == np.inf and gradient.tolist() == [[1, -1]]


@by_dtype
def test_binary_cross_entropy_of_large_logits(dtype):
    scores = np.array([1e4, 1e4, -1e4, -1e4], dtype)
    t = np.array([1, 0, 1, 0], dtype)
    loss, gradient = cc.ops.binary_cross_entropy(scores, t, reduction="sum")
    assert loss == 2e4 and gradient.tolist() == [0, 1, -1, 0]
    loss, gradient = cc.ops.binary_cross_entropy(scores[::3].copy(), t[::3].copy())
    assert loss == 0 and not gradient.any()


@by_dtype
@pytest.mark.parametrize("score", [5.0, 20.0, 40.0, 80.0])
def test_small_losses_keep_their_digits(score, dtype):
    """log(1 + e) must not be computed from a rounded 1 + e, nor 1 - y from a rounded y."""
    expected, tolerance = math.log1p(math.exp(-score)), {"float32": 1e-5, "float64": 1e-12}[dtype]
    for value, t in ((score, 1), (-score, 0)):
        logits, target = np.array([value], dtype), np.array([t], dtype)
        loss, gradient = cc.ops.binary_cross_entropy(logits, target)
        assert loss == pytest.approx(expected, rel=tolerance, abs=0)
        assert abs(gradient[0]) <= 1.1 * math.exp(-score) + np.finfo(dtype).eps


# ---- NaN -----------------------------------------------------------------------------------------


@by_name
@by_dtype
@pytest.mark.parametrize("operand", [0, 1])
def test_nan_reaches_the_loss_and_its_gradient(name, operand, dtype):
    for place in range(0, 33, 4):
        operands = make(name, 7, (3, 33), dtype)
        operands[operand][1, place] = np.nan
        loss, gradient = loss_of(name)(*operands)
        assert math.isnan(loss) and np.isnan(gradient[1, place])
        assert not np.isnan(gradient[[0, 2]]).any()
        if name == "softmax_cross_entropy" and operand == 0:
            assert np.isnan(gradient[1]).all()
        if name != "softmax_cross_entropy":
            assert np.isnan(gradient).sum() == 1


@by_dtype
def test_nan_reaches_the_loss_from_any_class(dtype):
    for place in range(10):
        scores = np.zeros((2, 10), dtype)
        scores[0, place] = np.nan
        for target in (np.array([3, 3]), np.eye(10, dtype=dtype)[[3, 3]]):
            loss, gradient = cc.ops.softmax_cross_entropy(scores, target)
            assert math.isnan(loss)
            assert np.isnan(gradient[0]).all() and not np.isnan(gradient[1]).any()


# ---- any layout, any shape -----------------------------------------------------------------------

sizes = st.integers(1, 40)
layouts = st.sampled_from(LAYOUTS)


@by_name
@given(
    shape=st.tuples(sizes, sizes),
    dtype=st.sampled_from(DTYPES),
    stored=st.tuples(layouts, layouts),
    reduction=st.sampled_from(REDUCTIONS),
    seed=st.integers(0, 99),
)
def test_rows_of_any_layout(name, shape, dtype, stored, reduction, seed):
    operands = make(name, seed, shape, dtype)
    scores, t = (lay_out(a, layout) for a, layout in zip(operands, stored, strict=True))
    with Unchanged(scores, t):
        check(name, scores, t, reduction=reduction)


@given(
    shape=st.tuples(sizes, sizes),
    dtype=st.sampled_from(DTYPES),
    stored=st.tuples(layouts, layouts),
    kind=st.sampled_from(["int64", "int32", "uint8"]),
    seed=st.integers(0, 99),
)
def test_labels_of_any_layout(shape, dtype, stored, kind, seed):
    scores = lay_out(make("softmax_cross_entropy", seed, shape, dtype)[0], stored[0])
    labels = np.random.default_rng(seed).integers(0, shape[1], shape[0]).astype(kind)
    t = lay_out(labels, stored[1])
    with Unchanged(scores, t):
        check("softmax_cross_entropy", scores, t)


# ---- gradients -----------------------------------------------------------------------------------


def check_loss_gradient(name, scores, t, reduction):
    """Compare the gradient with central differences of the loss."""

    def loss():
        return loss_of(name)(scores, t, reduction=reduction)[0]

    gradient = loss_of(name)(scores, t, reduction=reduction)[1]
    expected = numerical_gradient(loss, scores, 1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-8 * scores.size)


@by_name
@by_reduction
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 3), (3, 17)])
def test_gradients_by_central_differences(name, shape, reduction):
    check_loss_gradient(name, *make(name, 8, shape, "float64"), reduction)


@by_reduction
def test_gradient_with_labels(reduction):
    scores, _ = make("softmax_cross_entropy", 9, (5, 4), "float64")
    check_loss_gradient("softmax_cross_entropy", scores, np.array([0, 3, 3, 1, 2]), reduction)


@by_reduction
def test_gradient_with_rows_that_do_not_add_up_to_one(reduction):
    scores, t = make("softmax_cross_entropy", 10, (5, 4), "float64")
    t *= np.array([[0.0], [0.5], [1.0], [2.0], [3.0]])
    check("softmax_cross_entropy", scores, t, reduction=reduction)
    check_loss_gradient("softmax_cross_entropy", scores, t, reduction)


@by_name
def test_one_loss_per_sample_under_a_random_weight(name):
    """Weigh the samples at random: an error that a plain sum would cancel shows here."""
    scores, t = make(name, 11, (4, 3), "float64")

    def forward(scores):
        rows = [loss_of(name)(scores[[k]], t[[k]], reduction="sum")[0] for k in range(4)]
        return np.array(rows)

    def backward(dout, scores):
        return (dout[:, None] * loss_of(name)(scores, t, reduction="sum")[1],)

    check_gradient(forward, backward, [scores])


# ---- threads -------------------------------------------------------------------------------------


@by_name
@by_dtype
@pytest.mark.parametrize("shape", [(3, 5), (20011, 10), (3, 70001), (100003, 1)])
def test_results_do_not_depend_on_the_number_of_threads(name, shape, dtype, threads):
    scores, t = make(name, 12, shape, dtype)
    targets = [t]
    if name == "softmax_cross_entropy":
        targets.append(np.random.default_rng(13).integers(0, shape[1], shape[0]))
    for target in targets:
        results = []
        for count in THREADS:
            threads(count)
            results.append(loss_of(name)(scores, target))
        for count, (loss, gradient) in zip(THREADS[1:], results[1:], strict=True):
            assert loss == results[0][0], f"{count} threads"
            assert same_bits(gradient, results[0][1]), f"{count} threads"


# ---- out= and errors -----------------------------------------------------------------------------


@by_name
@by_dtype
def test_out_is_filled_and_returned(name, dtype):
    scores, t = make(name, 14, (7, 33), dtype)
    out = np.full_like(scores, np.nan)
    with Unchanged(scores, t):
        loss, gradient = loss_of(name)(scores, t, out=out)
    assert gradient is out
    expected, expected_gradient = loss_of(name)(scores, t)
    assert loss == expected and same_bits(out, expected_gradient)


@by_name
@by_dtype
def test_bad_out_is_refused(name, dtype):
    store = np.full(48, 0.25, dtype)
    scores, t = store[:24].reshape(4, 6), np.full((4, 6), 1 / 6, dtype)
    readonly = np.empty_like(t)
    readonly.flags.writeable = False
    bad = [
        np.empty((4, 5), dtype),
        np.empty(24, dtype),
        np.empty((4, 6), "float64" if dtype == "float32" else "float32"),
        np.empty((4, 6), dtype, order="F"),
        np.empty((4, 12), dtype)[:, ::2],
        readonly,
        scores,
        t,
        store[1:25].reshape(4, 6),
    ]
    for out in bad:
        with pytest.raises(ValueError, match=r"\bout\b"):
            loss_of(name)(scores, t, out=out)
    assert (store == 0.25).all() and (t == t[0, 0]).all(), "a refused call has written something"


@by_name
def test_mean_of_nothing_is_refused(name):
    for reduction in REDUCTIONS:
        with pytest.raises(ValueError, match=FIRST):
            loss_of(name)(np.empty((0, 3)), np.empty((0, 3)), reduction=reduction)
        with pytest.raises(ValueError, match=FIRST):
            loss_of(name)(np.empty((3, 0)), np.empty((3, 0)), reduction=reduction)
    with pytest.raises(ValueError, match=FIRST):
        cc.ops.softmax_cross_entropy(np.empty((0, 3)), np.empty(0, "int64"))


@pytest.mark.parametrize("label", [5, 6, 100, -1, -5, -100, 2**31, 2**32, -(2**32), 2**62])
def test_labels_out_of_range_are_refused(label):
    scores, t = np.zeros((3, 5)), np.array([0, 4, label])
    # The message names t, the offender, and the range by its last label or by its length.
    with pytest.raises(ValueError, match=rf"(?s)(?=.*\bt\b)(?=.*{label}\b)(?=.*\b[45]\b)"):
        cc.ops.softmax_cross_entropy(scores, t)


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, 5])
def test_large_unsigned_labels_are_refused(value):
    with pytest.raises(ValueError, match=TARGET):
        cc.ops.softmax_cross_entropy(np.zeros((2, 5)), np.array([0, value], "uint64"))
    with pytest.raises(ValueError, match=TARGET):
        cc.ops.softmax_cross_entropy(np.zeros((2, 5)), np.array([250, 0], "uint8"))


@pytest.mark.parametrize("kind", ["float32", "float64", "complex128", "object", "U1"])
def test_labels_must_be_integers(kind):
    with pytest.raises(TypeError, match=TARGET):
        cc.ops.softmax_cross_entropy(np.zeros((3, 5)), np.array([0, 1, 2]).astype(kind))


@by_name
def test_wrong_shapes_are_refused(name):
    scores = np.zeros((4, 3))
    for shape in ((4, 2), (3, 3), (1, 3), (4, 1), (12,), (4, 3, 1), (1, 4, 3), ()):
        # Floats of rank 0 or 1 may as well be refused as labels that are no integers.
        errors = ValueError if len(shape) > 1 else (TypeError, ValueError)
        with pytest.raises(errors, match=TARGET):
            loss_of(name)(scores, np.zeros(shape))


def test_softmax_cross_entropy_refuses_wrong_ranks():
    for shape in ((3,), (2, 3, 4), ()):
        with pytest.raises(ValueError, match=r"\bscores\b"):
            cc.ops.softmax_cross_entropy(np.zeros(shape), np.zeros(3, "int64"))
    for length in (0, 1, 3, 5):
        with pytest.raises(ValueError, match=TARGET):
            cc.ops.softmax_cross_entropy(np.zeros((4, 3)), np.zeros(length, "int64"))


@by_name
@pytest.mark.parametrize("wrong", ["float16", "complex128", "int64", "uint8", "bool", "object"])
def test_wrong_dtypes_are_refused(name, wrong):
    good, bad = np.ones((2, 3)), np.ones((2, 3), wrong)
    with pytest.raises(TypeError, match=FIRST):
        loss_of(name)(bad, good)
    for t in (bad, good.astype("U1")) if bad.dtype.kind not in "iub" else ():
        with pytest.raises(TypeError, match=TARGET):
            loss_of(name)(good, t)


@by_name
def test_targets_of_the_other_float_dtype_are_converted(name):
    scores, t = make(name, 20, (7, 5), "float64")
    for one, two in ((scores, t.astype("f4")), (scores.astype("f4"), t)):
        loss, gradient = loss_of(name)(one, two)
        expected, expected_gradient = loss_of(name)(one, two.astype(one.dtype))
        assert loss == expected and same_bits(gradient, expected_gradient)


@by_name
@pytest.mark.parametrize("reduction", ["none", "Mean", "", None])
def test_unknown_reduction_is_refused(name, reduction):
    with pytest.raises((TypeError, ValueError), match=r"\breduction\b"):
        loss_of(name)(np.ones((2, 3)), np.ones((2, 3)), reduction=reduction)
