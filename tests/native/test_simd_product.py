"""The micro-kernel of products: C[m, n] += A[m, k] B[k, n] on raw pointers, on every table.

Most operands make every product of two elements exact (see `exact_operands`), so that the bits that
the kernel must give, which tell the order of the terms as well, are known.
"""

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from native.c_kernels import exact_operands, term_by_term
from reference import same_bits

MOST_ROWS = 25  # two tiles of 12 rows and one row more
ROWS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 23, 24, 25)
TERMS = (0, 1, 2, 3, 127, 128, 129)
MOST_TERMS = max(TERMS)


def columns(kernels):
    """Numbers of columns around each number of vectors."""
    whole = range(0, kernels.max_columns + 1, kernels.lanes)
    sizes = {n + d for n in whole for d in (-1, 0, 1)}
    return sorted(n for n in sizes if 0 <= n <= kernels.max_columns)


def test_widths(kernels):
    assert kernels.lanes * kernels.dtype.itemsize in (16, 32, 64)
    assert kernels.max_columns % kernels.lanes == 0
    assert kernels.max_columns // kernels.lanes in (2, 4)


def test_all_edge_sizes_in_the_order_of_the_terms(kernels, rng):
    a, b, c = exact_operands(rng, MOST_ROWS, kernels.max_columns, MOST_TERMS, kernels.dtype)
    sums = term_by_term(a, b, c)
    assert not same_bits(sums[-1], term_by_term(a[:, ::-1], b[::-1], c)[-1]), "any order will do"
    for n in columns(kernels):
        for m in ROWS:
            for k in TERMS:
                actual = kernels.product(a[:m, :k], b[:k, :n], c[:m, :n])
                assert same_bits(actual, sums[k][:m, :n]), f"m={m} n={n} k={k}"


@pytest.mark.parametrize("b_gap", [0, 1, 5, 70])
@pytest.mark.parametrize("c_gap", [1, 3, 70])
def test_rows_apart(kernels, rng, b_gap, c_gap):
    """The gaps of B hold NaN, which may be read and must not be used; those of C are guarded."""
    a, b, c = exact_operands(rng, 13, kernels.max_columns, 9, kernels.dtype)
    expected = term_by_term(a, b, c)[-1]
    for n in columns(kernels):
        actual = kernels.product(a, b[:, :n], c[:, :n], b_gap=b_gap, c_gap=c_gap)
        assert same_bits(actual, expected[:, :n]), f"n={n}"


STRIDES = {
    "rows": (40, 1),
    "columns": (1, 40),
    "gaps": (1000, 3),
    "column gaps": (7, 300),
    "backwards": (-40, -1),
    "rows backwards": (-100, 2),
    "one row": (0, 1),
    "one column": (1, 0),
    "one element": (0, 0),
    "overlapping": (1, 1),
    "overlapping backwards": (2, -1),
}


@pytest.mark.parametrize("name", STRIDES)
def test_strides_of_a(kernels, rng, name):
    a_row, a_col = STRIDES[name]
    k = 33
    size = (MOST_ROWS - 1) * abs(a_row) + (k - 1) * abs(a_col) + 1
    start = (MOST_ROWS - 1) * max(-a_row, 0) + (k - 1) * max(-a_col, 0)
    store, item = np.full(size, np.nan, kernels.dtype), kernels.dtype.itemsize
    view = as_strided(store[start:], (MOST_ROWS, k), (a_row * item, a_col * item))
    for n in (1, kernels.lanes + 1, kernels.max_columns):
        values, b, c = exact_operands(rng, MOST_ROWS, n, k, kernels.dtype)
        view[...] = values
        expected = term_by_term(view, b, c)[-1]
        assert not np.isnan(expected).any()
        for m in ROWS:
            with kernels.memory() as memory:
                a_, b_, c_ = memory.input(store), memory.input(b), memory.inout(c[:m])
                first = a_.address + start * item
                kernels.call("product", m, n, k, first, a_row, a_col, b_.address, n, c_.address, n)
            assert same_bits(c_.array, expected[:m]), f"m={m} n={n}"


def test_one_row_of_b_for_all_terms(kernels, rng):
    a, b, c = exact_operands(rng, 7, kernels.max_columns, 5, kernels.dtype)
    b[...] = b[0]
    expected = term_by_term(a, b, c)[-1]
    for n in columns(kernels)[1:]:
        with kernels.memory() as memory:
            a_, b_, c_ = memory.input(a), memory.input(b[0, :n]), memory.inout(c[:, :n])
            kernels.call("product", 7, n, 5, a_.address, 5, 1, b_.address, 0, c_.address, n)
        assert same_bits(c_.array, expected[:, :n]), f"n={n}"


def test_nothing_to_add_changes_no_bit(kernels):
    bits = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-40], kernels.dtype)
    c = np.resize(bits, (7, kernels.max_columns))
    nothing = np.empty((7, 0), kernels.dtype), np.empty((0, kernels.max_columns), kernels.dtype)
    assert same_bits(kernels.product(*nothing, c), c)


def test_special_values_stay_in_their_row_and_column(kernels, rng):
    a, b, c = exact_operands(rng, 13, kernels.max_columns, 6, kernels.dtype)
    for n in columns(kernels)[1:]:
        for value in (np.nan, np.inf):
            for i in range(13):
                one = a.copy()
                one[i, i % 6] = value
                wrong = ~np.isfinite(kernels.product(one, b[:, :n], c[:, :n]))
                # Infinity times 0 in B is NaN: not finite either way.
                assert wrong[i].all() and not np.delete(wrong, i, axis=0).any(), f"row {i} n={n}"
            for j in range(n):
                one = b[:, :n].copy()
                one[j % 6, j] = value
                wrong = ~np.isfinite(kernels.product(a, one, c[:, :n]))
                assert wrong[:, j].all() and not np.delete(wrong, j, axis=1).any(), f"column {j}"


def test_zero_times_infinity_is_nan(kernels):
    n = kernels.max_columns
    b, c = np.full((1, n), np.inf, kernels.dtype), np.ones((3, n), kernels.dtype)
    assert np.isnan(kernels.product(np.zeros((3, 1), kernels.dtype), b, c)).all()


def test_an_element_does_not_depend_on_where_it_stands(kernels, rng):
    """Of any numbers: what one row and one column alone give is what the whole gives."""
    n, k = kernels.max_columns, 50
    a, b, c = (
        rng.standard_normal(shape).astype(kernels.dtype)
        for shape in ((MOST_ROWS, k), (k, n), (MOST_ROWS, n))
    )
    whole = kernels.product(a, b, c)
    magnitude = np.abs(c) + np.abs(a) @ np.abs(b)
    exact = c.astype(np.longdouble) + a.astype(np.longdouble) @ b.astype(np.longdouble)
    assert (np.abs(whole - exact) <= k * np.finfo(kernels.dtype).eps * magnitude).all()
    for i in range(MOST_ROWS):
        assert same_bits(kernels.product(a[i : i + 1], b, c[i : i + 1]), whole[i : i + 1])
    for j in range(n):
        column = kernels.product(a, b[:, j : j + 1], c[:, j : j + 1])
        assert same_bits(column, np.ascontiguousarray(whole[:, j : j + 1]))
    half = kernels.product(a[:, :23], b[:23], c)
    assert same_bits(kernels.product(a[:, 23:], b[23:], half), whole)


@pytest.mark.parametrize("turned", [False, True])
def test_planes(kernels, rng, turned):
    for n, m, k in itertools.product(columns(kernels)[1:], (0, 1, 6, 13), (0, 1, 9)):
        planes = [exact_operands(rng, m, n, k, kernels.dtype) for _ in range(3)]
        a, b, c = (np.array(operands) for operands in zip(*planes, strict=True))
        start = (rng.integers(-99, 100, n) / 8).astype(kernels.dtype)
        for starts in (None, [None, start, None], [start] * 3):
            begins = [
                c[q] if row is None else np.broadcast_to(row, (m, n))
                for q, row in enumerate(starts or [None] * 3)
            ]
            expected = [term_by_term(a[q], b[q], begins[q])[-1] for q in range(3)]
            actual = kernels.product_planes(a, b, c, starts, turned=turned)
            assert same_bits(actual, np.array(expected)), f"m={m} n={n} k={k}"
