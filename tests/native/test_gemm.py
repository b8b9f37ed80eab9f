"""Products of whole matrices: blocks of k, panels of n, packing, guards, on every table."""

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from cnn_core import _gemm
from cnn_core._parallel import run
from native.c_kernels import exact_operands, term_by_term
from reference import random_array, same_bits

TERMS = (0, 1, 2, 127, 128, 129, 256, 257)
ROWS = (0, 1, 5, 12, 13, 25)


def widths(kernels):
    """Numbers of columns around a vector, a panel and two panels; the last leaves one column."""
    lanes, most = kernels.lanes, kernels.max_columns
    return (
        0,
        1,
        2,
        lanes - 1,
        lanes,
        lanes + 1,
        lanes + lanes // 2,
        lanes + lanes // 2 + 1,
        most - lanes // 2,
        most - 1,
        most,
        most + 1,
        2 * most - 1,
        2 * most + 1,
    )


def test_multiply_add_at_edge_sizes(kernels, rng):
    dtype = kernels.dtype
    a, b, c = exact_operands(rng, max(ROWS), 2 * kernels.max_columns + 1, max(TERMS), dtype)
    sums = term_by_term(a, b, c)
    for n in widths(kernels):
        for m in ROWS:
            for k in TERMS:
                actual = kernels.gemm(a[:m, :k], b[:k, :n], c[:m, :n])
                assert same_bits(actual, sums[k][:m, :n]), f"m={m} n={n} k={k}"


@pytest.mark.parametrize("m", [23, 24, 128, 129])
def test_rows_behind_which_others_are_fetched(kernels, rng, m):
    """Whole rows one behind the other: a line of terms is a tap of its own, the rest another."""
    line = 64 // kernels.dtype.itemsize
    a, b, c = exact_operands(rng, m, kernels.max_columns + 1, 150, kernels.dtype)
    sums = term_by_term(a, b, c)
    for n in (1, kernels.lanes, kernels.max_columns - 1, kernels.max_columns + 1):
        for k in (0, 1, line - 1, line, line + 1, 128, 128 + line + 1):
            actual = kernels.gemm(a[:, :k], b[:k, :n], c[:, :n])
            assert same_bits(actual, sums[k][:, :n]), f"n={n} k={k}"


@pytest.mark.parametrize("k", [0, 1, 64, 130])
def test_products_from_a_bias_on(kernels, rng, k):
    """What C held does not matter: it holds NaN."""
    m, most = 13, 2 * kernels.max_columns + 1
    a, b, c = exact_operands(rng, m, most, 130, kernels.dtype)
    for n in widths(kernels):
        nan = np.full((m, n), np.nan, kernels.dtype)
        packed = kernels.pack_transposed(np.ascontiguousarray(b[:k, :n].T))
        for bias in (None, c[0, :n].copy()):
            start = np.zeros(n, kernels.dtype) if bias is None else bias
            expected = term_by_term(a[:, :k], b[:k, :n], np.repeat(start[None], m, axis=0))[-1]
            how = {"add": False, "bias": bias}
            assert same_bits(kernels.gemm(a[:, :k], b[:k, :n], nan, **how), expected), f"n={n}"
            assert same_bits(kernels.gemm_packed(a[:, :k], packed, nan, **how), expected)


def test_packed_at_edge_sizes(kernels, rng):
    """Panels give the bits that rows give."""
    dtype = kernels.dtype
    a, b, c = exact_operands(rng, max(ROWS), 2 * kernels.max_columns + 1, max(TERMS), dtype)
    sums = term_by_term(a, b, c)
    for n in widths(kernels):
        for k in TERMS:
            packed = kernels.pack_transposed(np.ascontiguousarray(b[:k, :n].T))
            for m in ROWS:
                actual = kernels.gemm_packed(a[:m, :k], packed, c[:m, :n], c_gap=m % 3)
                assert same_bits(actual, sums[k][:m, :n]), f"m={m} n={n} k={k}"


@pytest.mark.parametrize("b_gap", [1, 2, 17, 100])
@pytest.mark.parametrize("c_gap", [0, 3])
def test_rows_apart(kernels, rng, b_gap, c_gap):
    """The gaps of B hold NaN, those of C are guarded; few columns make the gap's share large."""
    a, b, c = exact_operands(rng, 7, 2 * kernels.max_columns + 1, 130, kernels.dtype)
    expected = term_by_term(a, b, c)[-1]
    for n in widths(kernels):
        actual = kernels.gemm(a, b[:, :n], c[:, :n], b_gap=b_gap, c_gap=c_gap)
        assert same_bits(actual, expected[:, :n]), f"n={n}"


@pytest.mark.parametrize("strides", [(1, 13), (300, 2), (-200, 1), (3, -40), (0, 1), (1, 0)])
def test_strides_of_a(kernels, rng, strides):
    m, n, k, item = 13, kernels.max_columns + 1, 140, kernels.dtype.itemsize
    reach = [(m - 1) * strides[0], (k - 1) * strides[1]]
    start = sum(max(-r, 0) for r in reach)
    store = np.full(start + sum(max(r, 0) for r in reach) + 1, np.nan, kernels.dtype)
    view = as_strided(store[start:], (m, k), [s * item for s in strides])
    values, b, c = exact_operands(rng, m, n, k, kernels.dtype)
    view[...] = values
    expected = term_by_term(view, b, c)[-1]
    packed = kernels.pack_transposed(np.ascontiguousarray(b.T))
    for name in ("gemm", "gemm_packed"):
        with kernels.memory() as memory:
            a_, c_ = memory.input(store), memory.inout(c)
            b_ = memory.input(b if name == "gemm" else packed)
            row = (n,) if name == "gemm" else ()
            first = a_.address + start * item
            args = (b_.address, *row, True, 0, c_.address, n)
            kernels.call(name, m, n, k, first, *strides, *args)
        assert same_bits(c_.array, expected), name


SIZES_OF_COPIES = [
    *((m, n, 130) for m in (23, 24, 25) for n in (255, 256, 1025)),
    *((24, 256, k) for k in (0, 1, 383, 384, 385, 769)),
    *((m, 257, 40) for m in (255, 256, 257, 513)),
    *((24, n, 3) for n in (2047, 2048, 2049, 4097)),
    (257, 2049, 385),
]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), SIZES_OF_COPIES)
def test_rows_far_apart_are_copied_together(kernels, rng, m, n, k, transposed):
    """Copies of A and B give the same bits as reading them where they lie."""
    gap = 400
    a, b, c = exact_operands(rng, m, n, k, kernels.dtype)
    rows, columns = (k, m) if transposed else (m, k)
    store = np.full((rows, columns + gap), np.nan, kernels.dtype)
    store[:, :columns] = a.T if transposed else a
    strides = (1, columns + gap) if transposed else (columns + gap, 1)
    far_b = np.full((k, n + gap), np.nan, kernels.dtype)
    far_b[:, :n] = b
    far_b = far_b.ravel()[: max(far_b.size - gap, 0)]  # nothing behind the last element
    for add in (True, False):
        with kernels.memory() as memory:
            a_, b_ = memory.input(store.ravel()[: max(store.size - gap, 0)]), memory.input(far_b)
            c_, bias = memory.inout(c), memory.input(c[-1])
            args = b_.address, n + gap, add, 0 if add else bias.address, c_.address, n
            kernels.call("gemm", m, n, k, a_.address, *strides, *args)
        expected = c.copy() if add else np.repeat(c[-1:], m, axis=0)
        for p in range(k):
            expected += a[:, p, None] * b[p]
        assert same_bits(c_.array, expected), f"add={add}"


def test_any_numbers(kernels, rng):
    m, n, k = 25, 2 * kernels.max_columns + 3, 300
    a, b, c = (random_array(rng, shape, kernels.dtype) for shape in ((m, k), (k, n), (m, n)))
    exact = c.astype(np.longdouble) + a.astype(np.longdouble) @ b.astype(np.longdouble)
    bound = k * np.finfo(kernels.dtype).eps * (np.abs(c) + np.abs(a) @ np.abs(b))
    actual = kernels.gemm(a, b, c)
    assert (np.abs(actual - exact) <= bound).all()
    packed = kernels.pack_transposed(np.ascontiguousarray(b.T))
    assert same_bits(kernels.gemm_packed(a, packed, c), actual)
    for i in (0, 11, 12, 24):
        assert same_bits(kernels.gemm(a[i : i + 1], b, c[i : i + 1]), actual[i : i + 1]), f"row {i}"


# ---- packing -------------------------------------------------------------------------------------


def expected_panels(kernels, b):
    """All panels of B[k, n], one after the other: k rows of max_columns elements, zeros past n."""
    (k, n), width = b.shape, kernels.max_columns
    panels = -(-n // width)
    padded = np.zeros((k, panels * width), b.dtype)
    padded[:, :n] = b
    return padded.reshape(k, panels, width).swapaxes(0, 1).ravel()


def test_layout_of_the_panels(kernels, rng):
    for n in widths(kernels):
        for k in (0, 1, 2, 15, 16, 17, 33):
            b = random_array(rng, (k, n), kernels.dtype)
            packed = kernels.pack_transposed(np.ascontiguousarray(b.T))
            assert same_bits(packed, expected_panels(kernels, b)), f"n={n} k={k}"
            assert kernels.call("packed_size", n, k) == packed.size
            assert _gemm.packed_size(n, k, kernels.single) == packed.size


def test_a_panel_is_all_that_is_written(kernels, rng):
    n, k = 2 * kernels.max_columns + 1, 5
    b_transposed = random_array(rng, (n, k), kernels.dtype)
    expected = expected_panels(kernels, b_transposed.T).reshape(3, -1)
    for panel in range(3):
        with kernels.memory() as memory:
            source = memory.input(b_transposed)
            packed = memory.output(expected.shape, kernels.dtype)
            kernels.call("pack_panel", panel, n, k, source.address, packed.address)
        assert same_bits(packed.array[panel], expected[panel])
        assert np.isnan(np.delete(packed.array, panel, axis=0)).all()


def test_the_packing_task(kernels, rng):
    n, k = 3 * kernels.max_columns - 2, 40
    b_transposed = random_array(rng, (n, k), kernels.dtype)
    packed = np.full(kernels.call("packed_size", n, k) + 3, np.nan, kernels.dtype)
    run(_gemm.pack_transposed(b_transposed, packed))
    assert same_bits(packed[:-3], expected_panels(kernels, b_transposed.T))
    assert np.isnan(packed[-3:]).all()
    with pytest.raises(ValueError, match="packed"):
        _gemm.pack_transposed(b_transposed, packed[:-4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_snapshot_sees_every_bit_that_changes(dtype, threads):
    """Also at the ends of what is compared at once, 16 KiB, and behind it."""
    arrays = [np.ones(n, dtype) for n in (1, 7, 2**14 // dtype().itemsize, 10_000)]
    snapshot = _gemm.Snapshot(arrays)

    def changed():
        run(snapshot.compare())
        return snapshot.changed

    assert not changed()
    for n, array in itertools.product((1, 3), arrays):
        threads(n)
        edge = 2**14 // array.itemsize
        for place in {0, array.size // 2, edge - 1, edge, array.size - 1} & {*range(array.size)}:
            for value in (np.nan, np.nextafter(dtype(1), dtype(2)), -0.0, 0.0):
                array[place] = value
                assert [changed(), changed()] == [True, True], (place, value)
                array[place] = 1
                snapshot.take()
                assert not snapshot.changed and not changed()


def test_a_snapshot_wants_whole_arrays():
    snapshot = _gemm.Snapshot([])
    run(snapshot.compare())
    assert not snapshot.changed
    with pytest.raises(TypeError, match="contiguous"):
        _gemm.Snapshot([np.ones((4, 6))[:, ::2]])
