"""Convolutions at native level against seven loops, at edge sizes, on every table.

Operands are small integers: every sum is exact in any order, so results must be equal. Rounding
and real numbers are the matter of test_torch_parity.py and the gradient checks.
"""

import functools

import numpy as np
import pytest

import reference_images
from cnn_core import _conv2d, _images, _parallel
from native.c_kernels import ACTIVATIONS
from native.image_tasks import Convolution, GuardedImages
from reference import random_array, same_bits

CHANNELS = (1, 2, 5, 7, 15, 16, 17, 31, 33, 48, 64, 65)
WIDTHS = (1, 2, 5, 6, 7, 12, 13)

# kernel, stride, padding (top, bottom, left, right), dilation
GEOMETRIES = {
    "1x1": ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "3x3 same": ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "5x5 padded": ((5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    "2x3 odd padding": ((2, 3), (1, 1), (0, 1, 2, 0), (1, 1)),
    "more padding than kernel": ((2, 2), (1, 1), (3, 2, 1, 4), (1, 1)),
    "stride 2": ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "stride beyond the kernel": ((2, 1), (3, 2), (0, 1, 0, 0), (1, 1)),
    "dilated": ((2, 3), (1, 1), (1, 1, 2, 2), (1, 2)),
    "dilated rows, stride": ((3, 2), (1, 2), (2, 2, 0, 1), (2, 1)),
}


@functools.cache
def case(n, channels, filters, groups, height, width, name):
    """Operands of small integers and what must come of them."""
    kernel, stride, padding, dilation = GEOMETRIES[name]
    rng = np.random.default_rng([n, channels, filters, height, width])
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    x = rng.integers(-4, 5, (n, channels, height, width))
    W = rng.integers(-4, 5, (filters, channels // groups, *kernel))
    b = rng.integers(-9, 10, filters)
    y = reference_images.conv2d_forward(x, W, b, **geometry)
    dout = rng.integers(-4, 5, y.shape)
    return geometry, (x, W, b, dout), (y, *reference_images.conv2d_backward(dout, x, W, **geometry))


def check(dtype, more, *sizes):
    geometry, operands, expected = case(*sizes)
    x, W, b, dout = (operand.astype(dtype) for operand in operands)
    conv = Convolution(x.shape, W.shape, dtype, **geometry, more=more)
    actual = (
        conv.forward(x, W, b),
        conv.input_gradient(dout, W),
        *conv.weight_gradient(x, dout, W.shape),
    )
    for name, value, exact in zip(("y", "dx", "dW", "db"), actual, expected, strict=True):
        # Kernels of 5 rows may be transformed by numbers that are no binary fractions.
        near = W.shape[2] == 5 and min(W.shape[:2]) > 1 and name in ("y", "dx")
        terms = 25 * max(W.shape[:2])  # of a sum, none above 16
        most = 16 * np.finfo(dtype).eps * terms if near else 0
        assert value.dtype == dtype and value.shape == exact.shape, (name, sizes)
        assert np.all(np.abs(value - exact) <= most), (name, sizes, np.abs(value - exact).max())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_fast_reference_is_the_seven_loops(name):
    for channels, filters, groups in ((1, 1, 1), (2, 3, 1), (4, 6, 2), (3, 3, 3)):
        sizes = (2, channels, filters, groups, 6, 7, name)
        geometry, (x, W, b, dout), expected = case(*sizes)
        slow = (
            reference_images.slow_conv2d_forward(x, W, b, **geometry),
            *reference_images.slow_conv2d_backward(dout, x, W, **geometry),
        )
        for value, exact in zip(expected, slow, strict=True):
            assert np.array_equal(value, exact)


@pytest.mark.parametrize("channels", CHANNELS)
def test_channels_and_filters_of_edge_sizes(kernels, channels):
    """Every pair of them; widths, geometries and borders take turns."""
    names = list(GEOMETRIES)
    for turn, filters in enumerate(CHANNELS, 5 * CHANNELS.index(channels)):
        name, width = names[turn % len(names)], WIDTHS[turn % len(WIDTHS)]
        check(kernels.dtype, turn % 3, 1 + turn % 2, channels, filters, 1, 5, width, name)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_widths_and_borders(kernels, name, width):
    for more in (0, 1, 3):
        check(kernels.dtype, more, 2, 3, 4, 1, 5, width, name)
        check(kernels.dtype, more, 1, 17, 12, 1, 3, width, name)


@pytest.mark.parametrize("width", [8, 9, 15, 16, 17, 28, 33, 63, 64, 65, 130])
def test_one_channel_and_few_filters(kernels, width):
    """Where pixels stand in the lanes; one filter more and filters do."""
    names = list(GEOMETRIES)
    for filters in range(1, 10):
        name = names[(filters + width) % len(names)]
        check(kernels.dtype, filters % 2, 2, 1, filters, 1, 4, width, name)
        check(kernels.dtype, 0, 1, 1, filters, 1, 3, width, "3x3 same")


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_few_filters_of_wide_kernels(kernels, channels):
    """All taps of a kernel row take more columns than a tile has; a dilated row after the other."""
    GEOMETRIES["wide"] = ((2, 13), (1, 1), (1, 0, 6, 6), (1, 1))
    GEOMETRIES["wide, rows apart"] = ((3, 11), (2, 1), (2, 2, 0, 3), (2, 1))
    try:
        for name in ("wide", "wide, rows apart"):
            for filters in (1, 3, 6, 7):
                check(kernels.dtype, filters % 2, 5, channels, filters, 1, 6, 20, name)
    finally:
        del GEOMETRIES["wide"], GEOMETRIES["wide, rows apart"]


def test_a_filter_does_not_depend_on_how_many_there_are(kernels, rng):
    x = random_array(rng, (2, 1, 9, 37), kernels.dtype)
    W = random_array(rng, (20, 1, 5, 5), kernels.dtype)
    b = random_array(rng, 20, kernels.dtype)
    options = {"stride": (1, 1), "padding": (2, 2, 2, 2), "dilation": (1, 1), "more": 0}
    conv = Convolution(x.shape, W.shape, kernels.dtype, **options)
    whole = conv.forward(x, W, b)
    for n in range(1, 20):
        conv = Convolution(x.shape, W[:n].shape, kernels.dtype, **options)
        assert same_bits(conv.forward(x, W[:n].copy(), b[:n].copy()), whole[:, :n].copy()), n


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(
    ("channels", "filters", "groups"),
    [(2, 2, 2), (6, 4, 2), (4, 12, 4), (17, 17, 17), (32, 64, 2), (34, 34, 2), (5, 65, 5)],
)
def test_groups(kernels, name, channels, filters, groups):
    check(kernels.dtype, 1, 2, channels, filters, groups, 6, 7, name)


def test_all_numbers_of_images(kernels):
    """Up to and beyond those that share a partial sum of dW."""
    for n in (1, 3, 4, 5, 8, 9, 129, 133):
        check(kernels.dtype, 0, n, 2, 3, 1, 4, 5, "3x3 same")


@pytest.mark.parametrize("name", ["3x3 same", "stride 2", "dilated rows, stride", "1x1"])
def test_weights_and_rows_that_are_taken_in_parts(kernels, name):
    """Many channels of a wide image: neither all weights nor all rows stay in the nearest cache."""
    for groups in (1, 2):
        check(kernels.dtype, groups - 1, 2, 70, 68, groups, 9, 26, name)


def test_more_taps_than_one_call_takes(kernels):
    GEOMETRIES["many taps"] = ((9, 9), (1, 1), (4, 4, 4, 4), (1, 1))
    GEOMETRIES["many rows"] = ((70, 1), (1, 1), (35, 34, 0, 0), (1, 1))
    try:
        check(kernels.dtype, 0, 1, 4, 4, 2, 7, 8, "many taps")
        check(kernels.dtype, 0, 1, 3, 2, 1, 7, 4, "many rows")
    finally:
        del GEOMETRIES["many taps"], GEOMETRIES["many rows"]


# ---- activations before and behind ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["3x3 same", "stride 2", "1x1"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_is_the_kernels_own(kernels, name, activation):
    """Fused or afterwards, the same bits."""
    geometry, operands, _ = case(2, 16, 5, 1, 5, 6, name)
    x, W, b, dout = (operand.astype(kernels.dtype) / 16 for operand in operands)
    conv = Convolution(x.shape, W.shape, kernels.dtype, **geometry, more=1)
    kind, slope = ACTIVATIONS[activation], 0.25
    plain = conv.forward(x, W, b)
    y = conv.forward(x, W, b, kind, slope)
    assert same_bits(y, kernels.activate(kind, plain.ravel(), slope).reshape(plain.shape))
    before = kernels.activate(kind, x.ravel(), slope).reshape(x.shape)
    dx = conv.input_gradient(dout, W)
    fused = conv.input_gradient(dout, W, before, kind, slope)
    expected = kernels.activate_backward(kind, before.ravel(), dx.ravel(), slope)
    assert same_bits(fused, expected.reshape(dx.shape))


def test_no_bias_is_a_bias_of_zeros(kernels):
    geometry, (x, W, b, _), _ = case(2, 5, 17, 1, 5, 6, "3x3 same")
    x, W = x.astype(kernels.dtype), W.astype(kernels.dtype)
    conv = Convolution(x.shape, W.shape, kernels.dtype, **geometry)
    zeros = np.zeros(len(b), kernels.dtype)
    assert same_bits(conv.forward(x, W, None), conv.forward(x, W, zeros))


# ---- independence of place and threads -----------------------------------------------------------


@pytest.mark.parametrize("name", ["3x3 same", "stride 2", "dilated"])
@pytest.mark.parametrize("channels", [1, 16])
def test_bits_do_not_depend_on_threads(kernels, rng, threads, name, channels):
    kernel, stride, padding, dilation = GEOMETRIES[name]
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    shape, W_shape = (37, channels, 14, 15), (20, channels, *kernel)
    conv = Convolution(shape, W_shape, kernels.dtype, **geometry)
    x, W, b, dout = (
        random_array(rng, size, kernels.dtype) for size in (shape, W_shape, 20, conv.y_shape)
    )
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        results.append(
            (
                conv.forward(x, W, b),
                conv.input_gradient(dout, W),
                *conv.weight_gradient(x, dout, W_shape),
            )
        )
    for other in results[1:]:
        assert all(map(same_bits, results[0], other))


def test_an_image_does_not_depend_on_the_others(kernels, rng):
    shape, W_shape = (11, 3, 6, 7), (5, 3, 3, 3)
    geometry = dict(zip(("stride", "padding", "dilation"), GEOMETRIES["3x3 same"][1:], strict=True))
    conv = Convolution(shape, W_shape, kernels.dtype, **geometry)
    alone = Convolution((1, *shape[1:]), W_shape, kernels.dtype, **geometry)
    x, W, b, dout = (
        random_array(rng, size, kernels.dtype) for size in (shape, W_shape, 5, conv.y_shape)
    )
    y, dx = conv.forward(x, W, b), conv.input_gradient(dout, W)
    for i in range(len(x)):
        assert same_bits(alone.forward(x[i : i + 1], W, b), y[i : i + 1])
        assert same_bits(alone.input_gradient(dout[i : i + 1], W), dx[i : i + 1])


@pytest.mark.parametrize(("channels", "filters"), [(3, 5), (70, 68)])
def test_rows_are_those_of_whole_images(kernels, rng, threads, channels, filters):
    shape, W_shape = (3, channels, 9, 11), (filters, channels, 3, 3)
    geometry = dict(zip(("stride", "padding", "dilation"), GEOMETRIES["3x3 same"][1:], strict=True))
    conv = Convolution(shape, W_shape, kernels.dtype, **geometry, more=1)
    x, W, b = (random_array(rng, size, kernels.dtype) for size in (shape, W_shape, filters))
    relu = ACTIVATIONS["relu"]
    whole = conv.forward(x, W, b, relu)
    for n in (1, 2, 7):
        threads(n)
        assert same_bits(conv.forward(x, W, b, relu, by_rows=True), whole)


def test_a_nan_pixel_reaches_its_windows_only(kernels):
    shape, W_shape = (2, 2, 7, 8), (3, 2, 3, 3)
    geometry = dict(zip(("stride", "padding", "dilation"), GEOMETRIES["3x3 same"][1:], strict=True))
    conv = Convolution(shape, W_shape, kernels.dtype, **geometry)
    x, W = np.ones(shape, kernels.dtype), np.ones(W_shape, kernels.dtype)
    x[1, 0, 3, 7] = np.nan
    seen = np.zeros(conv.y_shape, bool)
    seen[1, :, 2:5, 6:8] = True
    assert np.array_equal(np.isnan(conv.forward(x, W, None)), seen)


# ---- what does not fit is refused ----------------------------------------------------------------


def test_images_that_do_not_fit_are_refused():
    def images(shape, border=(1, 1, 1, 1), dtype="float32"):
        return GuardedImages(shape, border, np.dtype(dtype)).images

    geometry = _conv2d.Convolution(3, 4, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, np.empty)
    packed = np.zeros(geometry.packed_size(False, True), np.float32)
    x, y = images((2, 3, 5, 5)), images((2, 4, 5, 5))
    geometry.forward(x, packed, None, y, 0, 0.0)
    for wrong_x, wrong_y, message in (
        (images((2, 3, 5, 5), (1, 0, 1, 1)), y, "border"),
        (images((2, 2, 5, 5)), y, "channels"),
        (x, images((2, 4, 5, 4)), "expected 2"),
        (x, images((1, 4, 5, 5)), "expected 2"),
        (x, images((2, 4, 5, 5), dtype="float64"), "dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            geometry.forward(wrong_x, packed, None, wrong_y, 0, 0.0)
    with pytest.raises(ValueError, match="packed"):
        geometry.forward(x, packed[:-1], None, y, 0, 0.0)
    with pytest.raises(ValueError, match="packed"):
        geometry.forward(x, packed.astype("f8"), None, y, 0, 0.0)
    with pytest.raises(ValueError, match="W"):
        geometry.pack(np.zeros((4, 3, 3, 2), np.float32), packed, False)
    for b in (np.zeros(3, np.float32), np.zeros(5, np.float32)):
        with pytest.raises(ValueError, match="b: expected 4"):
            geometry.forward(x, packed, b, y, 0, 0.0)
    W, size = np.zeros((4, 3, 3, 3), np.float32), geometry.sums(2)[2]
    for wrong, db in (((1, size - 1), 4), ((0, size), 4), ((1, size), 3)):
        with pytest.raises(ValueError, match="partial"):
            geometry.reduce(np.zeros(wrong, np.float32), W, np.zeros(db, np.float32))
    with pytest.raises(ValueError, match="partial"):
        geometry.weight_gradient(x, y, np.zeros((1, 5), np.float32))


def test_images_are_checked():
    buffer = np.zeros(_images.buffer_size(2, 3, 4, 5, (1, 0, 2, 0)), np.float32)
    images = _images.Images(2, 3, 4, 5, (1, 0, 2, 0), buffer)
    assert images.shape == (2, 5, 3, 4) and len(images) == 2 and images.dtype == np.float32
    assert images.array.shape == (2, 3, 4, 5)
    with pytest.raises(ValueError, match="too small"):
        _images.Images(2, 3, 4, 5, (1, 0, 2, 0), buffer[:239])
    with pytest.raises(ValueError, match="positive"):
        _images.Images(2, 0, 4, 5, (1, 0, 2, 0), buffer)
    with pytest.raises(ValueError, match="border"):
        _images.Images(2, 3, 4, 5, (1, -1, 2, 0), buffer)


@pytest.mark.parametrize("channels", [1, 2, 17])
def test_images_and_rows(kernels, rng, channels):
    shape = (9, channels, 5, 6)
    values = random_array(rng, shape, kernels.dtype)
    images = GuardedImages(shape, (2, 0, 1, 3), kernels.dtype)
    _parallel.run(_images.from_rows(values.reshape(9, -1), images.images))
    images.check()
    assert same_bits(images.values, values)
    rows = np.full((9, channels * 30), np.nan, kernels.dtype)
    _parallel.run(_images.to_rows(images.images, rows))
    assert same_bits(rows.reshape(shape), values)
    with pytest.raises(ValueError, match="rows"):
        _images.to_rows(images.images, rows[:8])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_images(kernels, rng, activation):
    kind, slope, shape = ACTIVATIONS[activation], 0.25, (9, 5, 3, 4)
    x, dout = random_array(rng, shape, kernels.dtype), random_array(rng, shape, kernels.dtype)
    x_ = GuardedImages(shape, (2, 0, 1, 3), kernels.dtype, x)
    y, dy = GuardedImages(shape, (0, 1, 0, 0), kernels.dtype), None
    _parallel.run(_images.activation_forward(x_.images, y.images, kind, slope))
    expected = kernels.activate(kind, x.ravel(), slope).reshape(shape)
    assert same_bits(y.values, expected)
    dy = GuardedImages(shape, (1, 1, 1, 1), kernels.dtype, dout)
    _parallel.run(_images.activation_backward(y.images, dy.images, dy.images, kind, slope))
    back = kernels.activate_backward(kind, expected.ravel(), dout.ravel(), slope)
    assert same_bits(dy.values, back.reshape(shape))
    for images in (x_, y, dy):
        images.check()
    assert same_bits(x_.values, x)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if ACTIVATIONS[name]])
@pytest.mark.parametrize("borders", [(0, 0), (0, 1), (2, 0), (1, 1)])
def test_rows_to_images_through_a_derivative(kernels, rng, activation, borders):
    """In one pass as in two; large images in runs of pixels."""
    kind, slope = ACTIVATIONS[activation], 0.25
    border, y_border = ((size, 0, size, size) for size in borders)
    for shape in ((9, 1, 3, 4), (2, 7, 5, 6), (3, 16, 13, 11)):
        y, rows = random_array(rng, shape, kernels.dtype), random_array(rng, shape, kernels.dtype)
        y_ = GuardedImages(shape, y_border, kernels.dtype, y)
        dx = GuardedImages(shape, border, kernels.dtype)
        task = _images.from_rows(rows.reshape(len(rows), -1), dx.images, y_.images, kind, slope)
        _parallel.run(task)
        back = kernels.activate_backward(kind, y.ravel(), rows.ravel(), slope)
        assert same_bits(dx.values, back.reshape(shape))
        dx.check()
        y_.check()
    with pytest.raises(ValueError, match="previous"):
        other = GuardedImages((3, 16, 13, 12), y_border, kernels.dtype).images
        _images.from_rows(rows.reshape(3, -1), dx.images, other, kind, slope)
