"""The micro-kernels of the layers for images: taps, maxima, random numbers, moments, Adam.

On every table, amid guards, at edge sizes; see test_simd_product.py for the exact operands.
"""

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import reference_images
from native.c_kernels import exact_operands, term_by_term
from reference import random_array, same_bits

# Of Random123: counter and key alike all zeros, all ones, and digits of pi.
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0, 0, 0), "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 4, "2a881696 57012287 f6c7446e a16a6732"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89),
        "59cd1dbb b8879579 86b5d00c ac8b6d84",
    ),
)


# ---- products over taps --------------------------------------------------------------------------


def around_halves(kernels):
    """Numbers of columns around half a vector, a vector, ...: up to a half the tiles are others."""
    half = kernels.lanes // 2
    ends = range(half, kernels.max_columns, half)
    return {n for end in ends for n in (end, end + 1)} - {0}


@pytest.mark.parametrize("taps", [0, 1, 2, 3, 7])
def test_taps_are_added_in_their_order(kernels, rng, taps):
    """A_t overlap, as the taps of a convolution do, and stand in any order; so do the B_t."""
    most_m, most_k, n_max = 31, 5, kernels.max_columns
    a_at = rng.permutation(taps) * 3
    b_at = rng.permutation(taps) * most_k
    a_row, a_col = 2, 1
    length = 3 * taps + (most_m - 1) * a_row + most_k
    store, b, _ = exact_operands(rng, 1, n_max, length, kernels.dtype)
    store, b = store[0], np.resize(b, (max(taps, 1) * most_k, n_max))
    c = (rng.integers(-99, 100, (most_m, n_max)) / 8).astype(kernels.dtype)
    item = kernels.dtype.itemsize
    for k in (0, 1, 2, most_k):
        views = [
            as_strided(store[begin:], (most_m, k), (a_row * item, a_col * item)) for begin in a_at
        ]
        rows = [b[begin : begin + k] for begin in b_at]
        expected = c
        for view, part in zip(views, rows, strict=True):
            expected = term_by_term(view, part, expected)[-1]
        for n in sorted({1, 2, *around_halves(kernels), n_max - 1, n_max}):
            for m in range(most_m + 1):
                actual = kernels.product_taps(
                    store, a_at, (a_row, a_col), b[:, :n], b_at, c[:m, :n], k, b_gap=3, c_gap=2
                )
                assert same_bits(actual, expected[:m, :n]), f"m={m} n={n} k={k}"


def test_taps_from_a_row_on(kernels, rng):
    """With `start`, what C held does not matter: it holds NaN."""
    a, b, c = exact_operands(rng, 13, kernels.max_columns, 9, kernels.dtype)
    first = c[0]
    expected = term_by_term(a, b, np.repeat(c[:1], 13, axis=0))[-1]
    for n in sorted({1, 2, kernels.lanes, kernels.lanes + 1, kernels.max_columns}):
        for m in (1, 2, 5, 6, 7, 12, 13):
            nan = np.full((m, n), np.nan, kernels.dtype)
            args = a.ravel(), [0, 3, 6], (9, 1), b[:, :n], [0, 3, 6], nan, 3
            actual = kernels.product_taps(*args, start=first[:n], c_gap=1)
            assert same_bits(actual, expected[:m, :n]), f"m={m} n={n}"


@pytest.mark.parametrize("ahead", [1, 2**47 - 64, 2**63])
def test_what_is_fetched_ahead_need_not_be_there(kernels, rng, ahead):
    a, b, c = exact_operands(rng, 13, kernels.max_columns, 9, kernels.dtype)
    for n in sorted({1, kernels.lanes + 1, kernels.max_columns}):
        for strides in ((9, 1), (1, 13)):
            args = a.ravel(), [0], strides, b[:, :n], [0], c[:, :n], 9
            expected = kernels.product_taps(*args)
            assert same_bits(kernels.product_taps(*args, ahead=[ahead] * 13), expected)


def test_a_copy_to_the_last_bit_while_others_are_fetched(kernels, rng):
    bits = np.uint32 if kernels.dtype.itemsize == 4 else np.uint64
    for n in sorted({*kernels.sizes(), 31, 32, 33, 784}):
        x = rng.integers(0, np.iinfo(bits).max, n, bits, endpoint=True).view(kernels.dtype)
        for ahead in (1, 2**63):
            assert np.array_equal(kernels.copy_fetching(x, ahead).view(bits), x.view(bits)), n


def test_sums_of_rows(kernels, rng):
    for n in kernels.sizes():
        for m in (0, 1, 2, 7, 8, 9, 33):
            x = (rng.integers(-64, 65, (m, n)) / 8).astype(kernels.dtype)
            y = (rng.integers(-64, 65, n) / 8).astype(kernels.dtype)
            for gap in (0, 5):
                actual = kernels.sum_rows(x, y, gap=gap)
                assert same_bits(actual, y + x.sum(axis=0, dtype=kernels.dtype)), f"m={m} n={n}"


def test_a_tap_per_product_is_the_product(kernels, rng):
    a, b, c = (
        random_array(rng, shape, kernels.dtype)
        for shape in ((13, 9), (9, kernels.max_columns), (13, kernels.max_columns))
    )
    taps = kernels.product_taps(a.ravel(), [0, 3, 6], (9, 1), b, [0, 3, 6], c, 3)
    assert same_bits(taps, kernels.product(a, b, c))


# ---- maxima and where they stood -----------------------------------------------------------------


def make_taps(rng, n, taps, dtype, values):
    """x, offsets and numbers of the taps: overlapping, the numbers with gaps."""
    at = np.sort(rng.choice(3 * taps, taps, replace=False))
    numbers = np.sort(rng.choice(255, taps, replace=False))
    return rng.choice(values, 3 * taps + n).astype(dtype), at, numbers


def first_largest(values):
    for place, value in enumerate(values):
        if np.isnan(value):
            return place
    return int(np.argmax(values))


@pytest.mark.parametrize("values", ["ties", "nan", "any"])
def test_max_taps(kernels, rng, values):
    values = {
        "ties": np.array([-1.0, -0.0, 0.0, 1.0]),
        "nan": np.array([np.nan, -np.inf, np.inf, 1.0, 2.0]),
        "any": rng.standard_normal(500),
    }[values]
    for n in range(2 * kernels.lanes + 1):
        for taps in (1, 2, 4, 9):
            x, at, numbers = make_taps(rng, n, taps, kernels.dtype, values)
            best, which = kernels.max_taps(x, at, numbers, n)
            again, small = kernels.max_taps(x, at, numbers, n, which=np.uint8)
            assert same_bits(again, best) and same_bits(small, which.astype(np.uint8))
            seen = x[at[:, None] + np.arange(n)]
            place = np.array([first_largest(seen[:, j]) for j in range(n)], int)
            assert same_bits(best, seen[place, np.arange(n)]), f"n={n} taps={taps}"
            assert same_bits(which, numbers[place].astype(np.int32)), f"n={n} taps={taps}"
            alone, nothing = kernels.max_taps(x, at, numbers, n, which=None)
            assert nothing is None and same_bits(alone, best)
            bound, unmoved = kernels.max_taps(x, at, numbers, n, least=0.5)
            assert same_bits(bound, np.where(best < 0.5, best.dtype.type(0.5), best))
            assert same_bits(unmoved, which)


def test_a_row_of_windows_is_each_window_by_itself(kernels, rng):
    """Windows that touch (a step of 3 n over 3 taps), and their gradients put back."""
    taps, windows = 3, 5
    for n in kernels.sizes():
        x = rng.integers(-9, 9, taps * windows * n).astype(kernels.dtype)
        g = (rng.integers(-64, 65, windows * n) / 8).astype(kernels.dtype)
        at, numbers, step = np.arange(taps) * n, [0, 1, 2], taps * n
        best, which = kernels.max_taps(x, at, numbers, n, windows=windows, step=step)
        row = {"windows": windows, "step": step}
        put = kernels.scatter_taps(at, numbers, which, g, np.full_like(x, np.nan), add=False, **row)
        added = kernels.scatter_taps(at, numbers, which, g, x, **row)
        for w in range(windows):
            here, there = slice(w * n, (w + 1) * n), slice(w * step, (w + 1) * step)
            one, number = kernels.max_taps(x[there], at, numbers, n)
            assert same_bits(best[here], one) and same_bits(which[here], number), f"n={n} w={w}"
            alone = kernels.scatter_taps(at, numbers, number, g[here], np.zeros_like(x[there]))
            assert np.array_equal(put[there], alone), f"n={n} w={w}"
            assert np.array_equal(added[there], x[there] + alone), f"n={n} w={w}"


def test_scatter_taps_adds_where_the_maximum_stood(kernels, rng):
    for n in range(2 * kernels.lanes + 1):
        for taps in (1, 2, 4, 9):
            x, at, numbers = make_taps(rng, n, taps, kernels.dtype, np.arange(-9.0, 9.0) / 8)
            g = (rng.integers(-64, 65, n) / 8).astype(kernels.dtype)
            which = rng.choice([*numbers, 255], n).astype(np.int32)  # 255: a tap that is not there
            expected = x.copy()
            for j in range(n):
                for offset, number in zip(at, numbers, strict=True):
                    expected[offset + j] += g[j] if number == which[j] else 0
            for numbered in (which, which.astype(np.uint8)):
                actual = kernels.scatter_taps(at, numbers, numbered, g, x)
                assert np.array_equal(actual, expected), f"n={n} taps={taps}"


def test_a_nan_gradient_reaches_its_own_pixel_only(kernels):
    n = 2 * kernels.lanes + 1
    at, numbers, which = [0, n, 2 * n], [0, 1, 2], np.full(n, 1, np.int32)
    g = np.full(n, np.nan, kernels.dtype)
    x = kernels.scatter_taps(at, numbers, which, g, np.ones(3 * n, kernels.dtype))
    assert np.isnan(x[n : 2 * n]).all() and (x[:n] == 1).all() and (x[2 * n :] == 1).all()


def test_pick_takes_what_has_a_gradient_in_order(kernels, rng):
    """-0 is 0; a NaN is not. Of both kernels, with any numbers that a window of 16 pixels has."""
    for n in kernels.sizes():
        for pixels in (1, 2, 4, 16):
            numbers = rng.integers(0, pixels, n).astype(np.int32)
            g = rng.choice([0.0, -0.0, 1.5, -2.0, np.nan, np.inf], n).astype(kernels.dtype)
            table = rng.integers(-99, 99, 16).astype(np.int32)
            places = rng.choice([-1, 0, 3, 2**30], n).astype(np.int32)
            for number in range(pixels):
                (at,) = np.nonzero((numbers == number) & (g != 0))
                values, actual = kernels.pick(number, numbers.astype(np.uint8), g)
                assert np.array_equal(actual, at) and same_bits(values, g[at]), f"n={n}"
            (at,) = np.nonzero((g != 0) & (places >= 0))
            values, actual = kernels.pick(None, numbers, g, table, places)
            assert np.array_equal(actual, places[at] + table[numbers[at]]), f"n={n}"
            assert same_bits(values, g[at]), f"n={n}"


@pytest.mark.parametrize("step", [1, 2, 3, 8])
def test_fold_row_adds_overlapping_windows(kernels, rng, step):
    windows_and_taps = ((1, 1), (1, 3), (5, 1), (4, 3), (2, 7), (23, 5))
    for n in sorted({1, 2, 6, kernels.lanes - 1, kernels.lanes, kernels.lanes + 1}):
        for windows, taps in windows_and_taps:
            pixels = (windows - 1) * step + taps
            for more, gap in ((0, 2), (3, 2), (0, 0), (3, 0)):  # pixels behind the last window
                products = rng.integers(-64, 65, (windows, taps, n)).astype(kernels.dtype)
                row = rng.integers(-9, 9, (pixels + more, n)).astype(kernels.dtype)
                expected = row.copy()
                for q in range(windows):
                    for s in range(taps):
                        expected[q * step + s] += products[q, s]
                products = products.reshape(windows, taps * n)
                actual = kernels.fold_row(products, row, taps, step, gaps=(more, gap))
                assert same_bits(actual, expected), f"n={n} windows={windows} taps={taps}"


# ---- random numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_the_reference_gives_the_published_numbers(counter, key, words):
    actual = reference_images.threefry4x32(counter, key)
    assert " ".join(f"{word:08x}" for word in actual) == words


KEYS = (
    ((0, 0, 0, 0), (0, 0, 0)),
    ((1, 2, 3, 0), (4, 5, 6)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 3),
)


@pytest.mark.parametrize(("key", "stream"), KEYS)
def test_dropout_draws_the_references_numbers(kernels, rng, key, stream):
    """The number of an element is found by thresholds around it."""
    n = 2 * 64 + 17
    words = reference_images.random_words(n, key, stream)
    x = random_array(rng, n, kernels.dtype)
    for threshold in (0, int(np.median(words)), int(words[70]), int(words[70]) + 1, 2**32 - 1):
        y = kernels.dropout(x, key, stream, threshold, 2.0)
        expected = np.where(words >= threshold, 2 * x, 0).astype(kernels.dtype)
        assert same_bits(y, expected), threshold


def test_dropout_at_edge_sizes(kernels, rng):
    key, stream = KEYS[1]
    sizes = sorted({*kernels.sizes(), 15, 16, 17, 63, 64, 65, 127, 128, 129, 191, 192, 193})
    whole = random_array(rng, sizes[-1], kernels.dtype)
    expected = kernels.dropout(whole, key, stream, 2**31, 1.25)
    for n in sizes:
        for in_place in (False, True):
            y = kernels.dropout(whole[:n], key, stream, 2**31, 1.25, in_place=in_place)
            assert same_bits(y, expected[:n]), n


def test_a_mask_drops_the_same_again(kernels, rng):
    key, stream = KEYS[1]
    for n in (*kernels.sizes(), 63, 64, 65, 200):
        x = random_array(rng, n, kernels.dtype)
        y, mask = kernels.dropout(x, key, stream, 2**31, 1.25, masked=True)
        assert same_bits(y, kernels.dropout(x, key, stream, 2**31, 1.25)), n
        words = reference_images.random_words(n, key, stream)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[:n]
        assert np.array_equal(bits, words >= 2**31), n
        other = random_array(rng, n, kernels.dtype)
        assert same_bits(
            kernels.keep(other, mask, 1.25), kernels.dropout(other, key, stream, 2**31, 1.25)
        ), n


def test_dropout_of_special_values(kernels):
    x = np.resize(np.array([np.nan, np.inf, -np.inf, -0.0], kernels.dtype), 200)
    key, stream = KEYS[1]
    kept = reference_images.random_words(200, key, stream) >= 2**31
    with np.errstate(invalid="ignore"):
        expected = np.where(kept, 2 * x, 0).astype(kernels.dtype)
    y = kernels.dropout(x, key, stream, 2**31, 2.0)
    assert np.array_equal(y, expected, equal_nan=True) and kept.any() and not kept.all()


# ---- batch normalization -------------------------------------------------------------------------


def eighths(rng, n, dtype):
    """Multiples of 1/8, whose products and sums are exact."""
    return (rng.integers(-64, 65, n) / 8).astype(dtype)


def test_sums_of_squares_and_products(kernels, rng):
    for n in kernels.sizes():
        x, y, mean, sums = (eighths(rng, n, kernels.dtype) for _ in range(4))
        assert same_bits(kernels.add_squares(x, mean, sums), sums + (x - mean) ** 2), n
        assert same_bits(kernels.add_products(x, y, mean, sums), sums + x * (y - mean)), n


def test_combine(kernels, rng):
    for n in kernels.sizes():
        x, a, z, b, c, d = (eighths(rng, n, kernels.dtype) for _ in range(6))
        most = b * (z - c) + d
        for into in (None, "z"):
            assert same_bits(kernels.combine(None, None, z, b, c, d, into=into), most), n
        for into in (None, "x", "z"):
            assert same_bits(kernels.combine(x, a, z, b, c, d, into=into), a * x + most), n


def test_nan_stays_in_its_channel(kernels):
    n = 2 * kernels.lanes + 1
    one = np.ones(n, kernels.dtype)
    for i in range(n):
        x = one.copy()
        x[i] = np.nan
        for actual in (
            kernels.add_squares(x, one, one),
            kernels.add_products(one, x, one, one),
            kernels.combine(x, one, one, one, one, one),
            kernels.combine(None, None, x, one, one, one),
        ):
            assert np.flatnonzero(np.isnan(actual)).tolist() == [i]


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4])
def test_maxima_of_windows(kernels, rng, rows):
    """Around vectors of windows and halves of them, of rows that begin and end with zeros."""
    half, whole = kernels.lanes // 2, kernels.lanes
    counts = {1, 2, half, half + 1, whole, whole + 1, whole + half, whole + half + 1, 2 * whole}
    kernel_sizes = [(1, 1), (2, 3), (5, 5), (3, 4)]
    for turn, (windows, (kh, kw)) in enumerate(itertools.product(sorted(counts), kernel_sizes)):
        filters = 1 + turn % kernels.call("least_lanes")
        shape = 2 * rows + kh - 1, 2 * windows + kw - 1
        x = rng.integers(-4, 5, shape).astype(kernels.dtype)
        x[rng.random(len(x)) < 0.4] = 0  # rows that are left out
        if turn % 5:  # windows on both sides, too
            first, last = rng.integers(0, shape[1], (2, len(x), 1))
            x[(np.arange(shape[1]) < first) | (np.arange(shape[1]) > last)] = 0
        w = rng.integers(-4, 5, (kh, kw, filters)).astype(kernels.dtype)
        b = rng.integers(-9, 9, filters).astype(kernels.dtype) if turn % 2 else None
        sums = np.zeros((2 * rows, 2 * windows, filters), kernels.dtype)
        sums += 0 if b is None else b
        for r, s in itertools.product(range(kh), range(kw)):
            sums += x[r : r + 2 * rows, s : s + 2 * windows, np.newaxis] * w[r, s]
        parts = sums.reshape(rows, 2, windows, 2, filters).transpose(0, 2, 4, 1, 3)
        parts = parts.reshape(rows, windows, filters, 4)
        relu, which = turn % 3 == 0, turn % 4 > 0
        options = {"b": b, "relu": relu, "which": which, "more": turn % 3}
        best, numbers = kernels.max_windows(x, w, windows, **options)
        expected = np.maximum(parts.max(axis=-1), 0) if relu else parts.max(axis=-1)
        assert np.array_equal(best, expected), f"windows={windows} kernel={kh}x{kw}"
        assert numbers is None or np.array_equal(numbers, parts.argmax(axis=-1))
