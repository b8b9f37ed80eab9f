"""Convolutions of images of one channel by spans of their rows, and with the maxima behind them.

On every table. Operands are small integers, as in test_conv2d.py: the results must equal those of
all terms, most of which are 0.
"""

import itertools

import numpy as np
import pytest

import reference_images
from cnn_core import _conv2d_pooled, _parallel, _pooling
from native import c_kernels
from native.image_tasks import Convolution, GuardedImages, guarded_array, wider
from reference import random_array, same_bits

ACTIVATIONS = {"none": c_kernels.NONE, **c_kernels.ACTIVATIONS}
UNIT = {"stride": (1, 1), "dilation": (1, 1)}
SHARES = {"none": 0.0, "few": 0.02, "a fifth": 0.2, "nearly all": 0.65, "all": 1.0}


def images(rng, shape, share, dtype):
    """Small integers in spans of so much of a row on average, anywhere, some rows without; some
    zeros, most of them beside the spans, have a sign."""
    *rows, width = shape
    size = rng.binomial(width, min(1.1 * share, 1.0), rows)
    size *= rng.random(rows) < (share == 1) + 0.9
    begin = rng.integers(0, width - size + 1)
    columns = np.arange(width)
    inside = (begin[..., None] <= columns) & (columns < (begin + size)[..., None])
    inside &= rng.random(shape) < (share == 1) + 0.8
    return (rng.integers(1, 5, shape) * np.where(inside, 1, -0.0)).astype(dtype)


@pytest.mark.parametrize("taps", range(2, 9))
def test_a_span_is_added_to_all_that_see_it(kernels, rng, taps):
    """Up to three times the taps, any number of rows, whole vectors and halves."""
    half = kernels.lanes // 2
    for n in sorted({1, half, half + 1, *kernels.sizes()} - {0}):
        for rows, times in ((1, 0), (1, 1), (2, 3), (3, 2), (4, 1), (5, 2), (8, 2)):
            x = rng.integers(-4, 5, times * taps).astype(kernels.dtype)
            w = rng.integers(-4, 5, (rows, taps, n)).astype(kernels.dtype)
            sums = rng.integers(-9, 10, (rows, len(x) + taps - 1, n)).astype(kernels.dtype)
            expected = sums.copy()
            for i, s in itertools.product(range(len(x)), range(taps)):
                expected[:, i + taps - 1 - s] += x[i] * w[:, s]
            # Any size is taken for the next whole one.
            for count in range(max(len(x) - taps + 1, 0), len(x) + 1):
                actual = kernels.spread(x, w, sums, count)
                assert np.array_equal(actual, expected), f"n={n} rows={rows} count={count}"


@pytest.mark.parametrize("kernel", [*itertools.product((1, 2, 5, 7), range(2, 9))])
def test_gradients_of_spans_are_added_to_those_of_the_kernel(kernels, rng, kernel):
    """Spans of any size, one after the other, with a step of 1 or 2; the last one ends with x."""
    kh, taps = kernel
    for n, step in itertools.product(sorted({1, 2, *kernels.sizes()} - {0}), (1, 2)):
        width = 4 * step + taps
        x = rng.integers(-4, 5, (kh + 1, width)).astype(kernels.dtype)
        g = rng.integers(-4, 5, (7, n)).astype(kernels.dtype)
        sums = rng.integers(-9, 10, (kh, taps, n)).astype(kernels.dtype)
        for sizes in ((), (0,), (1,), (3, 0, 2)):
            x_at = [0, 1, width + 3 * step][: len(sizes)]
            g_at = [2, 0, 5][: len(sizes)]
            expected = sums.copy()
            for size, at, place in zip(sizes, x_at, g_at, strict=True):
                for i, (r, s) in itertools.product(range(size), np.ndindex(kh, taps)):
                    expected[r, s] += x.ravel()[at + r * width + i * step + s] * g[place + i]
            actual = kernels.gradient_spans(sizes, x_at, [n * p for p in g_at], x, step, g, sums)
            assert np.array_equal(actual, expected), f"n={n} step={step} sizes={sizes}"


def test_columns_are_taken_apart(kernels, rng):
    for n in (*kernels.sizes(), 2 * kernels.lanes + 5, 4 * kernels.lanes - 3):
        rows = np.full(n, -0.0), rng.integers(-1, 2, n), np.arange(n) // max(n - 1, 1), [np.nan] * n
        rows = *rows, np.arange(n) == n // 2
        for count in range(len(rows) + 1):
            x = np.array(rows[:count]).reshape(count, n).astype(kernels.dtype)
            places = [np.flatnonzero(row) for row in x]
            for gap in (0, 1, 5):
                even, odd, seen = kernels.split(x, gap=gap, left=gap)
                padded = np.pad(x, ((0, 0), (0, n % 2)))
                assert same_bits(even, padded[:, ::2].copy()), f"n={n} gap={gap}"
                assert same_bits(odd, padded[:, 1::2].copy()), f"n={n} gap={gap}"
                wanted = [(gap + p[0], gap + p[-1] + 1) if len(p) else (0, 0) for p in places]
                assert seen.tolist() == [list(w) for w in wanted], f"n={n} gap={gap}"


def test_rows_are_interleaved(kernels, rng):
    for n in kernels.sizes():
        x, below = random_array(rng, (2, n), kernels.dtype)
        expected = np.stack([x, below], axis=1).ravel()
        assert same_bits(kernels.interleave(x, below), expected), n


@pytest.mark.parametrize("kernel", [(1, 3), (2, 3), (4, 3), (1, 5), (3, 5), (5, 5), (7, 5)])
def test_gradients_of_windows_with_filters_in_the_lanes(kernels, rng, kernel):
    """Windows in any order, of an image that ends with the last pixel which one of them sees."""
    if not kernels.call("window_sums"):
        pytest.skip("this table has no such kernel")
    (kh, kw), (oh, ow) = kernel, (2, 3)
    x = rng.integers(-4, 5, (2 * oh + kh - 1, 2 * ow + kw - 1)).astype(kernels.dtype)
    pairs = np.stack([x[:-1], x[1:]], axis=2).ravel()
    places = [(oy, ox) for oy in range(oh) for ox in range(ow)]
    for n in sorted({1, 2, *kernels.sizes()} - {0}):
        g = rng.integers(-4, 5, (oh * ow, n)).astype(kernels.dtype)
        which = rng.integers(0, 4, g.shape).astype(np.uint8)
        sums = rng.integers(-9, 10, (kh, kw, n)).astype(kernels.dtype)
        for windows in ([], [4], [0, 5, 2, 1]):
            expected = sums.copy()
            for w, f in itertools.product(windows, range(n)):
                y, left = 2 * np.array(places[w]) + divmod(which[w, f], 2)
                expected[..., f] += g[w, f] * x[y : y + kh, left : left + kw]
            at = [4 * oy * x.shape[1] + 4 * ox for oy, ox in (places[w] for w in windows)]
            indices = np.array(windows, np.int32), np.array(at, np.int32)
            args = *indices, g, which, pairs, 2 * x.shape[1], sums
            assert np.array_equal(kernels.window_gradients(*args), expected), f"n={n}"


def test_rows_are_copied_together(kernels, rng):
    for n in kernels.sizes():
        for m in (0, 1, 2, 3, 9):
            x = random_array(rng, (m, n), kernels.dtype)
            for gap in (0, 1, 5):
                assert same_bits(kernels.copy_rows(x, gap=gap), x), f"m={m} n={n}"
            whole = -(-n // kernels.lanes) * kernels.lanes
            y = kernels.copy_rows(x, y_row=whole)
            assert same_bits(y[:, :n], x) and not y[:, n:].any(), f"m={m} n={n}"
            y = kernels.copy_rows(x, y_row=whole + 3)
            assert same_bits(y[:, :n], x) and (y[:, whole:] == 7).all(), f"m={m} n={n}"


def test_rows_move_one_after_the_other(kernels, rng):
    """Some twice, some to the same place."""
    for n in kernels.sizes():
        x, y = (random_array(rng, (6, n), kernels.dtype) for _ in range(2))
        for x_at, y_at in (([], []), ([3], [0]), ([5, 0, 5, 2, 1], [4, 1, 2, 4, 0])):
            for add, fetches, gap in itertools.product((False, True), (False, True), (0, 5)):
                expected = y.copy()
                for i, j in zip(x_at, y_at, strict=True):
                    expected[j] = expected[j] + x[i] if add else x[i]
                options = {"add": add, "fetches": fetches, "gap": gap}
                assert same_bits(kernels.move_rows(x, x_at, y, y_at, **options), expected), n


def check(kernels, rng, sizes, filters, kernel, padding, share, name="none", n=2):
    """By images and by rows, amid wider borders, against the sum of all terms."""
    x = images(rng, (n, 1, *sizes), share, kernels.dtype)
    check_images(kernels, rng, x, filters, kernel, padding, name)


def check_images(kernels, rng, x, filters, kernel, padding, name):
    dtype = kernels.dtype
    W = rng.integers(-4, 5, (filters, 1, *kernel)).astype(dtype)
    b = rng.integers(-9, 10, filters).astype(dtype)
    exact = reference_images.conv2d_forward(x, W, b, padding=padding).astype(dtype)
    expected = kernels.activate(ACTIVATIONS[name], exact.ravel(), 0.25).reshape(exact.shape)
    for more, by_rows in ((0, False), (1, True), (2, False)):
        convolution = Convolution(x.shape, W.shape, dtype, padding=padding, more=more, **UNIT)
        actual = convolution.forward(x, W, b, ACTIVATIONS[name], 0.25, by_rows=by_rows)
        assert np.array_equal(actual, expected), f"{x.shape} {filters} {kernel}"


@pytest.mark.parametrize("share", SHARES)
def test_filters_of_edge_numbers(kernels, rng, share):
    """Around half a vector, whole ones, and the panels of the packed weights."""
    for filters in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33, 63, 65, 70):
        check(kernels, rng, (9, 12), filters, (3, 5), (1, 1, 2, 2), SHARES[share])


@pytest.mark.parametrize("side", range(1, 10))
def test_kernels_of_all_sides(kernels, rng, side):
    """Also those that are too small or too large for spans."""
    for other, share in itertools.product((1, 2, 5, 8, 9), (0.05, 1.0)):
        sizes = side + 3, other + 6
        check(kernels, rng, sizes, 5, (side, other), (0, 0, 0, 0), share)
        check(kernels, rng, sizes, 17, (side, other), (side, 1, 2, other), share)


def test_images_of_edge_sizes(kernels, rng):
    for height, width in itertools.product((3, 4, 13), (3, 4, 7, 15, 16, 17, 31, 32, 33, 70)):
        check(kernels, rng, (height, width), 6, (3, 3), (0, 0, 0, 0), 0.3, n=5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(kernels, rng, name):
    for filters in (6, 16):
        check(kernels, rng, (9, 12), filters, (5, 5), (2, 2, 2, 2), 0.2, name)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu"])
def test_beside_what_pixels_have_seen_stands_f_of_b(kernels, rng, name):
    """Digits of one to four pixels at every edge and corner, and nowhere."""
    for rows, columns in ((0, 0), (8, 11), (0, 11), (4, 5), (slice(3, 5), slice(4, 6)), (8, 0)):
        x = np.zeros((2, 1, 9, 12), kernels.dtype)
        x[1, 0, rows, columns] = 3
        for filters, padding in ((5, (0, 0, 0, 0)), (16, (1, 2, 2, 1))):
            check_images(kernels, rng, x, filters, (3, 3), padding, name)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3), (3, 1)])
def test_dw_of_spans_is_that_of_all_pixels(kernels, rng, share, stride):
    """Kernels of all kinds, more rows than are taken at once, more columns than bits, a blank."""
    cases = ((3, 5), (5, 5), 1), ((1, 2), (7, 3), 2), ((2, 8), (9, 4), 3)
    for kernel, more, down in cases:
        for height, width in ((9, 12), (70, 7), (5, 70)):
            sizes = height + kernel[0] * down, width + kernel[1]
            x = images(rng, (3, 1, *sizes), SHARES[share], kernels.dtype)
            x[1] = 0
            W = np.zeros((30, 1, *kernel), kernels.dtype)
            options = {"stride": stride, "dilation": (down, 1), "padding": (1, 0, *more)}
            convolution = Convolution(x.shape, W.shape, kernels.dtype, **options)
            dout = rng.integers(-3, 4, convolution.y_shape).astype(kernels.dtype)
            dW, db = convolution.weight_gradient(x, dout, W.shape)
            _, *expected = reference_images.conv2d_backward(dout, x, W, **options)
            assert np.array_equal(dW, expected[0]), f"{options} {kernel} {sizes}"
            assert np.array_equal(db, expected[1])


def test_nan_and_infinite_pixels_come_through(kernels, rng):
    x = images(rng, (1, 1, 8, 9), 0.1, kernels.dtype)
    x[0, 0, 3, 4], x[0, 0, 7, 8] = np.nan, np.inf
    convolution = Convolution(x.shape, (3, 1, 3, 3), kernels.dtype, padding=(1,) * 4, **UNIT)
    y = convolution.forward(x, np.ones((3, 1, 3, 3), kernels.dtype), np.zeros(3, kernels.dtype))
    assert np.isnan(y[0, :, 2:5, 3:6]).all() and np.isnan(y).sum() == 27
    assert np.isinf(y[0, :, 6:, 7:]).all()


class Pooled:
    """A convolution with the maxima behind it, in one pass and in two."""

    def __init__(
        self,
        rng,
        share,
        dtype,
        *,
        filters=6,
        kernel=(5, 5),
        sizes=(14, 15),
        size=(2, 2),
        stride=(2, 2),
        padding=(2, 2, 1, 3),
        n=3,
    ):
        self.dtype, self.size, self.stride = np.dtype(dtype), size, stride
        self.x = images(rng, (n, 1, *sizes), share, dtype)
        self.W = random_array(rng, (filters, 1, *kernel), dtype)
        self.b = random_array(rng, (filters,), dtype)
        self.one = Convolution(self.x.shape, self.W.shape, dtype, padding=padding, **UNIT)
        self.both = _conv2d_pooled.PooledConvolution(self.one.geometry, size, stride)
        self.shape = n, filters, *self.both.outputs(*self.one.y_shape[2:])

    def guarded(self, more=0):
        y = GuardedImages(self.shape, (more, 0, more, more), self.dtype)
        which, check_which = guarded_array((int(np.prod(self.shape)),), np.uint8)
        return y, which, check_which

    def in_one(self, activation, more=0):
        """y and which of the one pass; y again, where nobody wants to know which."""
        border = wider(self.one.geometry.padding, more)
        x = GuardedImages(self.x.shape, border, self.dtype, self.x)
        packed = self.one._packed(self.W, False)
        results = []
        for wanted in (True, False):
            y, which, check_which = self.guarded(more)
            args = y.images, which if wanted else None, activation, 0.25
            _parallel.run(self.both.forward(x.images, packed, self.b, *args))
            for check_ in (x.check, y.check, check_which):
                check_()
            results.append((y.values, which.copy()))
        return results[0][0], results[0][1], results[1][0]

    def of_rows(self, activation, elsewhere):
        """y of rows without borders, which may lie elsewhere than the task was told; None where
        images are needed."""
        x = GuardedImages(self.x.shape, self.one.geometry.padding, self.dtype)
        if not self.both.takes_rows(x.images, activation):
            return None
        rows, check_rows = guarded_array((len(self.x), self.x[0].size), self.dtype)
        rows[...] = self.x.reshape(rows.shape)
        told = np.full_like(rows, np.nan) if elsewhere else rows
        place = np.array([rows.ctypes.data if elsewhere else 0])
        y, which, check_which = self.guarded()
        args = self.one._packed(self.W, False), self.b, y.images, which, activation, 0.0
        _parallel.run(self.both.forward(x.images, *args, told, place))
        for check_ in (check_rows, y.check, check_which):
            check_()
        return y.values, which

    def in_two(self, activation):
        images_ = self.one.forward(self.x, self.W, self.b, activation, 0.25)
        x = GuardedImages(images_.shape, (0,) * 4, self.dtype, images_)
        y, which, _ = self.guarded()
        args = self.size, self.stride, (0,) * 4, False
        _parallel.run(_pooling.forward(x.images, y.images, which, *args))
        return y.values, which.copy()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_maxima_in_one_pass_are_those_in_two(kernels, rng, name, share):
    for filters in (1, 6, 16, 30, 65):
        case = Pooled(rng, SHARES[share], kernels.dtype, filters=filters)
        expected, numbers = case.in_two(ACTIVATIONS[name])
        for more in (0, 2):
            y, which, alone = case.in_one(ACTIVATIONS[name], more)
            assert np.array_equal(y, expected) and np.array_equal(alone, expected), filters
            # Where a ReLU lets nothing pass, no pixel has a gradient.
            counts = np.moveaxis(expected, 1, -1).ravel() != 0 if name == "relu" else slice(None)
            assert np.array_equal(which[counts], numbers[counts]), filters


@pytest.mark.parametrize("share", ["none", "few", "all"])
def test_few_filters_whose_windows_fill_vectors(kernels, rng, share):
    """Windows stand in the lanes: around whole vectors, odd widths, any kernel; also -0 and NaN."""
    for windows in kernels.sizes()[2:]:
        for filters, kernel in ((1, (2, 2)), (3, (5, 5)), (5, (3, 8)), (7, (8, 3)), (8, (5, 5))):
            width = 2 * windows + kernel[1] - 4 + windows % 2
            if width < 1:
                continue
            args = {"filters": filters, "kernel": kernel, "sizes": (kernel[0] + 3, width), "n": 2}
            case = Pooled(rng, SHARES[share], kernels.dtype, **args)
            case.x[0, 0, 2, width // 2] = np.nan
            for name in ("none", "relu"):
                expected, numbers = case.in_two(ACTIVATIONS[name])
                y, which, alone = case.in_one(ACTIVATIONS[name])
                same = np.array_equal(y, expected, equal_nan=True)
                assert same and np.array_equal(alone, y, equal_nan=True), f"{args} {name}"
                assert name == "relu" or np.array_equal(which, numbers), f"{args}"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (3, 1)])
def test_windows_and_kernels_of_all_kinds(kernels, rng, size):
    for more, kernel in itertools.product((0, 1), ((1, 2), (2, 8), (8, 3))):
        stride = size[0] + more, size[1] + 2 * more
        case = Pooled(rng, 0.2, kernels.dtype, kernel=kernel, size=size, stride=stride)
        expected, _ = case.in_two(0)
        assert np.array_equal(case.in_one(0)[0], expected), f"{kernel} {stride}"


def test_the_same_bits_on_any_number_of_threads(kernels, rng, threads):
    case = Pooled(rng, 0.2, kernels.dtype, n=13)
    threads(1)
    expected = case.in_one(ACTIVATIONS["tanh"])
    for n in (2, 3, 7):
        threads(n)
        again = case.in_one(ACTIVATIONS["tanh"])
        assert all(same_bits(a, b) for a, b in zip(expected, again, strict=True))


@pytest.mark.parametrize("width", [20, 63, 64, 65, 66, 90])
def test_dw_leaves_out_windows_that_have_seen_nothing(kernels, rng, width):
    """Of x with a blank half, wide and narrow; as the gradient of all pixels."""
    case = Pooled(rng, 0.2, kernels.dtype, sizes=(14, width - 4))
    case.x[:, :, :, : width // 2] = 0
    case.x[0] = 0
    dy = rng.integers(-4, 5, case.shape).astype(kernels.dtype)
    which = rng.integers(0, 4, case.shape)
    dout = np.zeros(case.one.y_shape, kernels.dtype)
    i, f, y, x = np.indices(case.shape)
    dout[i, f, 2 * y + which // 2, 2 * x + which % 2] = dy
    numbers = np.ascontiguousarray(np.moveaxis(which, 1, -1), np.uint8).ravel()
    x_ = GuardedImages(case.x.shape, case.one.geometry.padding, kernels.dtype, case.x)
    dy_ = GuardedImages(case.shape, (0,) * 4, kernels.dtype, dy)
    _, n_sums, size = case.one.geometry.sums(len(case.x))
    partial, dW, db = (
        np.full(s, np.nan, kernels.dtype) for s in ((n_sums, size), case.W.shape, case.b.shape)
    )
    _parallel.run(
        case.both.weight_gradient(x_.images, dy_.images, numbers, partial),
        case.one.geometry.reduce(partial, dW, db, True),
    )
    padding = case.one.geometry.padding
    _, *expected = reference_images.conv2d_backward(dout, case.x, case.W, padding=padding)
    assert np.array_equal(dW, expected[0]) and np.array_equal(db, expected[1])


def test_what_does_not_fit_is_refused(kernels, rng):
    case = Pooled(rng, 0.2, kernels.dtype)
    dtype = kernels.dtype
    other = np.dtype("float64" if dtype == np.float32 else "float32")
    x = GuardedImages(case.x.shape, case.one.geometry.padding, dtype).images
    y, which, _ = case.guarded()
    packed = case.one._packed(case.W, False)

    def forward(x=x, packed=packed, b=case.b, y=y.images, which=which):
        return case.both.forward(x, packed, b, y, which, 0, 0.0)

    def of(shape, border=(0,) * 4, dtype=dtype):
        return GuardedImages(shape, border, dtype).images

    n, filters, height, width = case.shape
    wrong = [
        ("which", lambda: forward(which=which[1:])),
        ("windows", lambda: Pooled(rng, 0.2, dtype, kernel=(9, 5)).in_one(0)),
        ("packed", lambda: forward(packed=packed[1:].copy())),
        ("packed", lambda: forward(packed=packed.astype(other), b=case.b.astype(other))),
        ("b:", lambda: forward(b=case.b[1:].copy())),
        ("padding", lambda: forward(x=of(case.x.shape))),
        ("channels", lambda: forward(y=of((n, filters + 1, height, width)))),
        ("images", lambda: forward(y=of((n, filters, height, width + 1)))),
        ("images", lambda: forward(y=of((n + 1, filters, height, width)))),
    ]
    for message, call in wrong:
        with pytest.raises((ValueError, TypeError), match=message):
            call()


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 2, 2, 2), (1, 0, 1, 3), (0, 3, 3, 0)])
@pytest.mark.parametrize("sizes", [(14, 28), (28, 15), (9, 31), (8, 64)])
def test_rows_in_place_of_images_give_the_same_maxima(kernels, rng, sizes, padding):
    taken = 0
    cases = itertools.product((1, 2, 3, 6), ((5, 5), (3, 4)), ("none", "relu"))
    for filters, kernel, name in cases:
        options = {"filters": filters, "kernel": kernel, "sizes": sizes, "padding": padding}
        case = Pooled(rng, 0.3, kernels.dtype, **options)
        for elsewhere in (False, True):
            found = case.of_rows(ACTIVATIONS[name], elsewhere)
            if found is not None:
                y, which, _ = case.in_one(ACTIVATIONS[name])
                assert same_bits(found[0], y) and np.array_equal(found[1], which), (filters, kernel)
                taken += 1
    assert taken or sizes[1] in (15, 31), "never"  # too few windows for a wide vector


def test_rows_are_refused_where_images_are_needed(kernels, rng):
    case = Pooled(rng, 0.3, kernels.dtype, filters=30)
    x = GuardedImages(case.x.shape, case.one.geometry.padding, case.dtype)
    y, which, _ = case.guarded()
    rows, packed = case.x.reshape(len(case.x), -1), case.one._packed(case.W, False)
    assert not case.both.takes_rows(x.images, 0)
    with pytest.raises(ValueError, match="rows, place"):
        case.both.forward(
            x.images, packed, case.b, y.images, which, 0, 0.0, rows, np.zeros(1, np.int64)
        )
