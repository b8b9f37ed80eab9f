"""The affine map at C level: any range of rows alone, any cut, guards, on every table."""

import numpy as np
import pytest

import reference
from cnn_core import _affine
from cnn_core._parallel import run
from native.c_kernels import ACTIVATIONS, NONE, exact_operands, term_by_term
from reference import assert_close, random_array, same_bits

SHAPES = ((1, 1, 1), (7, 5, 3), (13, 129, 65), (49, 20, 10), (3, 784, 50))  # N, I, O
SLOPE = 0.25


def make(rng, shape, dtype):
    """x (N, I), W (I, O), b (O,), dout (N, O)."""
    n, i, o = shape
    return tuple(random_array(rng, size, dtype) for size in ((n, i), (i, o), o, (n, o)))


def cuts(n):
    """Ranges of 0..n: the whole, nothing, and pieces that begin and end anywhere."""
    return {(0, n), (0, 0), (n, n), (0, n // 2), (n // 2, n), (n // 3, n - n // 4), (n - 1, n)}


def check_rows(whole, part, begin, end, note):
    """Rows begin..end of `part` are those of `whole`; the other rows have not been written."""
    assert same_bits(part[begin:end], whole[begin:end]), note
    assert np.isnan(part[:begin]).all() and np.isnan(part[end:]).all(), note


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_rows(kernels, rng, shape, name):
    x, W, b, _ = make(rng, shape, kernels.dtype)
    kind = ACTIVATIONS.get(name, NONE)
    for bias in (b, None):
        out = kernels.forward_rows(0, len(x), x, W, bias, kind, SLOPE)
        expected = reference.affine_forward(x, W, bias, activation=name, slope=SLOPE)
        size = reference.affine_magnitude(x, W, bias)
        assert_close(out, expected, kernels.dtype, magnitude=size, terms=len(W))
        for begin, end in cuts(len(x)):
            part = kernels.forward_rows(begin, end, x, W, bias, kind, SLOPE)
            check_rows(out, part, begin, end, f"rows {begin}..{end}")


@pytest.mark.parametrize("n_out", [1, 15, 16, 17, 50, 300, 1100])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_give_the_bits_of_rows(rng, n, n_out, dtype):
    """The task over columns, on threads that each take some of them."""
    x, W, b, _ = make(rng, (n, 70, n_out), dtype)
    for bias, kind in ((b, NONE), (None, ACTIVATIONS["tanh"])):
        out, expected = np.full((2, n, n_out), np.nan, dtype)
        run(_affine.forward(x, W, bias, expected, kind))
        run(_affine.forward(x, W, bias, out, kind, by_columns=True))
        assert same_bits(out, expected)
    task = _affine.forward(x, W, b, out, by_columns=True)
    line = 64 // W.itemsize
    assert (task.n, task.step) == (-(-n_out // line), 1)


def input_gradient_case(rng, shape, dtype, name):
    """dout, W, y, the number of the activation, and dx."""
    x, W, _, dout = make(rng, shape, dtype)
    y, expected = None, reference.affine_backward(dout, x, W)[0]
    if name:
        slope = (SLOPE,) if name == "leaky_relu" else ()
        y = getattr(reference, f"{name}_forward")(x, *slope).astype(dtype)
        expected = getattr(reference, f"{name}_backward")(expected, y, *slope)
    return dout, W, y, ACTIVATIONS.get(name, NONE), expected


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
@pytest.mark.parametrize("shape", SHAPES)
def test_input_gradient_rows(kernels, rng, shape, name):
    dout, W, y, kind, expected = input_gradient_case(rng, shape, kernels.dtype, name)
    dx = kernels.input_gradient_rows(0, len(dout), dout, W, y, kind, SLOPE)
    size = reference.affine_magnitude(dout, W.T)
    assert_close(dx, expected, kernels.dtype, magnitude=size, terms=W.shape[1])
    for begin, end in cuts(len(dout)):
        part = kernels.input_gradient_rows(begin, end, dout, W, y, kind, SLOPE)
        check_rows(dx, part, begin, end, f"rows {begin}..{end}")


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
@pytest.mark.parametrize("shape", SHAPES)
def test_input_gradient_columns(kernels, rng, shape, name):
    """From W as it lies: what few rows are given, with the bits of many."""
    dout, W, y, kind, _ = input_gradient_case(rng, shape, kernels.dtype, name)
    dx = kernels.input_gradient_columns(0, len(W), dout, W, y, kind, SLOPE)
    assert same_bits(dx, kernels.input_gradient_rows(0, len(dout), dout, W, y, kind, SLOPE))
    for begin, end in cuts(len(W)):
        part = kernels.input_gradient_columns(begin, end, dout, W, y, kind, SLOPE)
        check_rows(dx.T.copy(), part.T.copy(), begin, end, f"columns {begin}..{end}")


@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient_rows(kernels, rng, shape):
    x, W, _, dout = make(rng, shape, kernels.dtype)
    dW = kernels.weight_gradient_rows(0, len(W), x, dout)
    size = reference.affine_magnitude(x.T, dout)
    assert_close(dW, x.T.astype("f8") @ dout.astype("f8"), kernels.dtype, magnitude=size)
    for begin, end in cuts(len(W)):
        part = kernels.weight_gradient_rows(begin, end, x, dout)
        check_rows(dW, part, begin, end, f"rows {begin}..{end}")


@pytest.mark.parametrize(("n_rows", "n_in"), [(1, 1), (13, 63), (128, 64), (257, 65), (9, 200)])
def test_a_column_of_dW_does_not_depend_on_how_many_there_are(kernels, rng, n_rows, n_in):
    """Few columns are computed the other way round."""
    x = random_array(rng, (n_rows, n_in), kernels.dtype)
    dout = random_array(rng, (n_rows, 20), kernels.dtype)
    whole = kernels.weight_gradient_rows(0, n_in, x, dout)
    for n_out in range(1, 20):
        part = kernels.weight_gradient_rows(0, n_in, x, dout[:, :n_out].copy())
        assert same_bits(part, whole[:, :n_out].copy()), n_out


def test_terms_are_added_in_order_to_the_bias(kernels, rng):
    x, W, b = exact_operands(rng, 13, kernels.max_columns + 1, 257, kernels.dtype)
    expected = term_by_term(x, W, np.repeat(b[:1], 13, axis=0))[-1]
    assert same_bits(kernels.forward_rows(0, 13, x, W, b[0]), expected)


# ---- sums of columns -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_columns", [1, 10, 50, 65, 130])
def test_column_sums(kernels, rng, n_columns):
    for n_rows in (0, 1, 2, 255, 256, 257, 513):
        x = random_array(rng, (n_rows, n_columns), kernels.dtype)
        sums = kernels.sum_columns(0, n_columns, x)
        size = np.abs(x).sum(axis=0)
        expected = x.sum(axis=0, dtype=np.float64)
        assert_close(sums, expected, kernels.dtype, magnitude=size, note=f"{n_rows} rows")
        for begin, end in cuts(n_columns):
            part = kernels.sum_columns(begin, end, x)
            check_rows(sums, part, begin, end, f"columns {begin}..{end}")


def test_long_sums_stay_accurate(kernels):
    """Adding 300 000 equal numbers one by one would be off by far more."""
    x = np.full((300_000, 1), 0.1, kernels.dtype)
    exact, eps = 300_000 * float(x[0, 0]), np.finfo(kernels.dtype).eps
    assert abs(kernels.sum_columns(0, 1, x)[0] - exact) <= 1500 * eps * exact
    one_by_one = np.add.accumulate(x[:, 0])[-1]
    assert abs(one_by_one - exact) > 1500 * eps * exact, "the bound says nothing"


def test_nan_stays_in_its_column(kernels):
    for n_columns in (1, 17, 65):
        for column in range(0, n_columns, 4):
            x = np.ones((300, n_columns), kernels.dtype)
            x[299, column] = np.nan
            nan = np.isnan(kernels.sum_columns(0, n_columns, x))
            assert np.flatnonzero(nan).tolist() == [column]


def test_rows_at_once_fit_the_weights():
    """Few beside weights that stay in the cache, many where each chunk reads them anew."""
    most = {}
    for n_in, n_out in ((100, 10), (10_816, 10), (9_000, 64), (20_000, 512)):
        x, W, out = (
            np.ones((1, n_in)),
            np.ones((n_in, n_out)),
            np.ones((1, n_out)),
        )
        most[n_in] = _affine.forward(x, W, None, out).most
    assert most[10_816] < most[100] < most[9_000] == most[20_000]
