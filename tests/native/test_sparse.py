"""Products with sparse rows at C level: bits of the dense kernels, cuts, guards, on every table."""

import itertools

import numpy as np
import pytest

from cnn_core import _parallel, _sparse
from native.c_kernels import ACTIVATIONS, NONE, exact_operands, term_by_term
from native.c_sparse import compressed
from reference import random_array, same_bits

SHAPES = ((1, 1, 1), (7, 5, 3), (13, 129, 65), (49, 20, 10), (3, 784, 300))  # N, I, O
SLOPE = 0.25


def sparse_array(rng, shape, dtype, density=0.3):
    """Normal random numbers amid zeros; the first row and the last column are empty."""
    x = random_array(rng, shape, dtype) * (rng.random(shape) < density)
    if min(shape) > 1:
        x[0], x[:, -1] = 0, 0
    return x.astype(dtype)


def cuts(n):
    """Ranges of 0..n: the whole, nothing, and pieces that begin and end anywhere."""
    return {(0, n), (0, 0), (n, n), (0, n // 2), (n // 2, n), (n // 3, n - n // 4), (n - 1, n)}


# ---- the micro-kernel ----------------------------------------------------------------------------


@pytest.mark.parametrize("b_gap", [0, 1, 70])
def test_product_at_edge_sizes_in_the_order_of_the_terms(kernels, rng, b_gap):
    """Around every number of vectors of one pass and of two; no row of B is read past n."""
    most = 17 * kernels.lanes + 1
    values, b, start = exact_operands(rng, 1, most, 60, kernels.dtype)
    rows = rng.integers(0, 60, 60)
    sums = term_by_term(values, b[rows], start)
    assert not same_bits(sums[-1], term_by_term(values[:, ::-1], b[rows[::-1]], start)[-1])
    for n in kernels.sizes(vectors=17):
        for k in (0, 1, 2, 60):
            args = values[0, :k], rows[:k], np.ascontiguousarray(b[:, :n])
            actual = kernels.product_sparse(*args, start[0, :n], b_gap=b_gap)
            assert same_bits(actual, sums[k][0, :n]), f"n={n} k={k}"
            zeros = kernels.product_sparse(*args, np.zeros(n, kernels.dtype), b_gap=b_gap)
            assert same_bits(kernels.product_sparse(*args, b_gap=b_gap), zeros), f"n={n} k={k}"


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 6, 7, 11])
def test_rows_and_taps_that_overlap(kernels, rng, taps):
    """Rows of 0 to 3 terms, whose places in C overlap, as do the rows and the taps of B."""
    most, ends, c_at, strides = 9 * kernels.lanes + 1, [0, 2, 2, 5, 6], [3, 0, 2, 70], (3, 5)
    values, b, c = exact_operands(rng, 1, 7 * 3 + taps * 5 + most, 6, kernels.dtype)
    values, b = values[0], b[0]
    rows = rng.integers(0, 8, 6)
    for n in kernels.sizes(vectors=9):
        c_tap = n + 80
        c = (rng.integers(-99, 100, taps * c_tap) / 8).astype(kernels.dtype)
        expected = c.copy()
        for i, at in enumerate(c_at):
            for t, p in itertools.product(range(taps), range(ends[i], ends[i + 1])):
                term = b[3 * rows[p] + 5 * t :][:n]
                expected[at + t * c_tap :][:n] += values[p] * term
        args = taps, n, ends, values, rows, b, strides, c, c_at, c_tap
        assert same_bits(kernels.add_sparse_taps(*args), expected), f"n={n}"


@pytest.mark.parametrize("surplus", [False, True])
@pytest.mark.parametrize("gap", [0, 1, 70])
def test_product_of_what_is_not_zero(kernels, rng, gap, surplus):
    """-0 is 0. Around every number of vectors of one pass and of two, and of groups of A's rows."""
    most, group = 17 * kernels.lanes + 1, kernels.nonzero_rows
    rows = 2 * group + 4 if group > 1 else 2 * kernels.lanes + 3
    a, b, c = exact_operands(rng, rows, most, 130, kernels.dtype)
    shares = rng.permutation(np.linspace(0, 1, len(a)))[:, np.newaxis]
    a *= np.where(rng.random(a.shape) < shares, 1, rng.choice([0.0, -0.0], a.shape))
    gaps = {"a_gap": gap, "b_gap": gap, "c_gap": gap, "surplus": surplus}
    sizes = [(0, 5), (1, 0), (1, 1), (2, 17), (3, kernels.lanes), (len(a), 2)]
    sizes += [(m, 60) for m in (1, group - 1, group, group + 1, len(a))]
    sizes += [(len(a), k) for k in (63, 64, 65, 130)]
    for n, (m, k) in itertools.product(kernels.sizes(vectors=17), sizes):
        operands = a[:m, :k].copy(), b[:k, :n].copy(), c[:m, :n].copy()
        counts = [(operands[0][i : i + group] != 0).any(axis=0).sum() for i in range(0, m, group)]
        most = -(-sum(counts) // max(len(counts), 1))
        for start, options in ((c[0, :n], {"bias": c[0, :n]}), (operands[2], {"add": True})):
            expected = term_by_term(*operands[:2], np.broadcast_to(start, (m, n)))[-1]
            actual = kernels.product_nonzeros(*operands, most, **options, **gaps)
            assert same_bits(actual, expected), f"m={m} n={n} k={k}"
            if group == 1 and m + gap > 1:  # else columns are rows
                options |= {"by_columns": True}
                actual = kernels.product_nonzeros(*operands, most, **options, **gaps)
                assert same_bits(actual, expected), f"m={m} n={n} k={k}"
                if sum(counts) > 0:
                    options = {"by_columns": True, **gaps}
                    few = (sum(counts) - 1) // len(counts)
                    assert len(kernels.product_nonzeros(*operands, few, **options)) == 0
        ahead = [0, 1 << 40, *range(64, 64 * m, 64)][:m]
        zeros = term_by_term(*operands[:2], np.zeros_like(operands[2]))[-1]
        actual = kernels.product_nonzeros(*operands, most, ahead=ahead, **gaps)
        assert np.array_equal(actual, zeros), f"m={m} n={n} k={k}"
        if sum(counts) > 0:
            most = (sum(counts) - 1) // len(counts)
            some = kernels.product_nonzeros(*operands, most, **gaps)
            assert len(some) < m and np.array_equal(some, zeros[: len(some)])


@pytest.mark.parametrize("gap", [0, 3])
def test_columns_in_which_a_row_is_not_zero(kernels, rng, gap):
    smallest = np.finfo(kernels.dtype).tiny
    for m, n in itertools.product(range(1, kernels.nonzero_rows + 1), kernels.sizes()):
        choices, shares = [0.0, -0.0, 1.0, np.nan, smallest], [0.5, 0.3, 0.1, 0.05, 0.05]
        x = rng.choice(choices, (m, n), p=shares).astype(kernels.dtype)
        expected = np.flatnonzero((x != 0).any(axis=0))
        assert np.array_equal(kernels.pick_any(x, gap=gap), expected), f"m={m} n={n}"


def test_bits_of_what_is_not_zero(kernels, rng):
    smallest = np.finfo(kernels.dtype).smallest_subnormal
    for n in (*kernels.sizes(), 63, 64):
        x = rng.choice([0.0, -0.0, 1.0, np.nan, smallest], min(n, 64)).astype(kernels.dtype)
        expected = sum(1 << int(place) for place in np.flatnonzero(x))
        assert kernels.nonzero_bits(x) == expected, f"n={n}"


def test_nan_and_infinity_come_through(kernels):
    for value, expected in ((np.nan, np.nan), (np.inf, np.inf)):
        values, b = np.array([1, value], kernels.dtype), np.ones((2, 5), kernels.dtype)
        actual = kernels.product_sparse(values, np.arange(2), b)
        np.testing.assert_array_equal(actual, np.full(5, expected))
        a, c = values[np.newaxis], np.zeros((1, 5), kernels.dtype)
        np.testing.assert_array_equal(kernels.product_nonzeros(a, b, c, 2)[0], actual)


# ---- rows and columns ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_rows_have_the_bits_of_the_dense_ones(kernels, rng, shape, name):
    n, i, o = shape
    x, kind = sparse_array(rng, (n, i), kernels.dtype), ACTIVATIONS.get(name, NONE)
    W, b = random_array(rng, (i, o), kernels.dtype), random_array(rng, o, kernels.dtype)
    indices = rng.integers(0, n, n + 2)
    for bias in (b, None):
        dense = kernels.forward_rows(0, n + 2, x[indices], W, bias, kind, SLOPE)
        for begin, end in cuts(n + 2):
            part = kernels.sparse_forward_rows(begin, end, x, indices, W, bias, kind, SLOPE)
            assert same_bits(part[begin:end], dense[begin:end]), f"rows {begin}..{end}"
            assert np.isnan(part[:begin]).all() and np.isnan(part[end:]).all()


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_transposed_columns(kernels, rng, shape, density):
    n, i, _ = shape
    x = sparse_array(rng, (n, i), kernels.dtype, density)
    indices = rng.integers(0, n, n)
    expected = compressed(np.ascontiguousarray(x[indices].T))
    parts = ([(0, i)], [(i // 2, i), (0, i // 2)], [(c, c + 1) for c in reversed(range(i))])
    for pieces in parts:
        ends, rows, values = kernels.transposed(x, indices, pieces)
        assert same_bits(ends, expected[0][1:])
        assert same_bits(rows, expected[1]) and same_bits(values, expected[2])


def test_parts_of_the_transposed_columns_stay_within_their_bounds(kernels, rng):
    x, indices = sparse_array(rng, (9, 50), kernels.dtype), np.arange(9)
    for begin, end in cuts(50):
        ends, rows, values = kernels.transposed(x, indices, [(begin, end)])
        before, inside = (np.count_nonzero(x[:, slice(*c)]) for c in ((0, begin), (begin, end)))
        written = np.zeros(len(rows), bool)
        written[before : before + inside] = True
        assert ((rows != -7) == written).all() and (np.isnan(values) == ~written).all()
        assert (ends[:begin] == -7).all() and (ends[end:] == -7).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient_rows_have_the_bits_of_the_dense_ones(kernels, rng, shape):
    n, i, o = shape
    x, dout = sparse_array(rng, (n, i), kernels.dtype), random_array(rng, (n, o), kernels.dtype)
    dense = kernels.weight_gradient_rows(0, i, x, dout)
    by_columns = kernels.transposed(x, np.arange(n), [(0, i)])
    for begin, end in cuts(i):
        part = kernels.sparse_weight_gradient_rows(begin, end, by_columns, dout)
        assert same_bits(part[begin:end], dense[begin:end]), f"rows {begin}..{end}"
        assert np.isnan(part[:begin]).all() and np.isnan(part[end:]).all()


# ---- batches -------------------------------------------------------------------------------------


def bound(x, n, width=4, transposed=True):
    """A batch of n rows as wide as x, its tasks with all weights 1, out and dW."""
    batch = _sparse.Batch(n, x.shape[1], x.dtype, transposed)
    W, out = np.ones((x.shape[1], width), x.dtype), np.full((n, width), np.nan, x.dtype)
    dout, dW = np.ones_like(out), np.full_like(W, np.nan)
    tasks = [_sparse.forward(batch, W, None, out)]
    if transposed:
        tasks += [_sparse.transpose(batch), _sparse.weight_gradient(batch, dout, dW)]
    return batch, tasks, out, dW


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_reads_one_matrix_after_the_other(rng, dtype):
    """Bound once; every batch has more entries than the last one, then fewer."""
    shape, start = (40, 300), np.zeros(1, np.int64)
    batch, tasks, out, dW = bound(np.zeros(shape, dtype), 10)
    for density in (0.0, 0.1, 0.9, 1.0, 0.2):
        x = sparse_array(rng, shape, dtype, density).round()
        indices = rng.integers(0, 40, 25)
        for start[0] in (0, 3, 15):
            batch.read(*compressed(x), indices, start)
            _parallel.run(*tasks)
            rows = x[indices[start[0] :][:10]]
            assert batch.entries == np.count_nonzero(rows)
            assert (out == rows.sum(axis=1, keepdims=True)).all()
            assert (dW == rows.sum(axis=0)[:, np.newaxis]).all()


def test_a_batch_that_has_read_nothing_is_empty(rng):
    x = sparse_array(rng, (5, 8), np.dtype(np.float32))
    batch, tasks, out, dW = bound(x, 5)
    for _ in range(2):
        _parallel.run(*tasks)
        assert not out.any() and not dW.any()
        batch.read(*compressed(x), np.arange(5), np.zeros(1, np.int64))
        _parallel.run(*tasks)
        assert out.any() and dW.any()
        batch.release()
        assert batch.entries == 0


def test_what_a_batch_reads_lives_until_it_lets_go(rng):
    x = np.ones((3, 4), np.float32)
    batch, tasks, out, _ = bound(x, 3)
    batch.read(*(part.copy() for part in compressed(x)), np.arange(3), np.zeros(1, np.int64))
    junk = [np.full(12, 77, np.int32) for _ in range(100)]
    _parallel.run(*tasks)
    assert (out == 4).all() and len(junk) == 100


def test_wrong_batches_are_refused():
    f4 = np.dtype(np.float32)
    for n, columns in ((0, 1), (1, 0), (-1, 1), (2**31, 1), (1, 2**31)):
        with pytest.raises(ValueError, match=r"\bx\b"):
            _sparse.Batch(n, columns, f4, False)


# ---- the copy of the columns ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_copied_columns_are_checked(dtype):
    indptr = np.array([0, 2, 2, 5])
    for columns, expected in (
        ([0, 3, 0, 1, 2], (-1, True)),
        ([3, 0, 0, 1, 2], (-1, False)),
        ([0, 3, 1, 1, 2], (-1, False)),
        ([0, 4, 0, 1, 2], (1, False)),
        ([0, 3, 0, 1, -1], (4, False)),
        ([0, 3, 0, 2**31 - 1, 1], (3, False)),
    ):
        out = np.full(5, -7, np.int32)
        assert _sparse.copy_columns(np.array(columns, dtype), indptr, 4, out) == expected
        if expected[0] < 0:
            assert out.tolist() == columns
    wide = np.array([2**32], np.int64)
    assert _sparse.copy_columns(wide, np.array([0, 1]), 4, np.zeros(1, np.int32)) == (0, False)
