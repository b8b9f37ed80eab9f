"""Which windows of images have seen something; the affine map behind them and its gradients, where
those that have not share what they have in common."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_core import _affine, _affine_images, _conv2d, _conv2d_pooled, _parallel
from native.c_kernels import ACTIVATIONS
from native.image_tasks import GuardedImages, guarded_array
from reference import random_array, same_bits

NONE, WIDE = (0, 0, 0, 0), (1, 0, 2, 1)
DTYPES = "float32", "float64"


# ---------------------------------------------------------------------------------------- windows


def found(x, kernel, conv_stride, padding, dilation, size, stride, border=None):
    """By the task over images: seen[N, OH, OW]."""
    shape = (1, 3, kernel, conv_stride, padding, dilation, 1, np.empty)
    pooled = _conv2d_pooled.PooledConvolution(_conv2d.Convolution(*shape), size, stride)
    images = GuardedImages(x.shape, border or padding, x.dtype, x)
    outputs = pooled.outputs(*pooled_sizes(x, kernel, conv_stride, padding, dilation))
    seen, check = guarded_array((len(x), outputs[0] * outputs[1]), "uint8")
    _parallel.run(pooled.find_seen(images.images, seen))
    for one in (images.check, check):
        one()
    return seen.reshape(len(x), *outputs)


def pooled_sizes(x, kernel, stride, padding, dilation):
    return [
        (x.shape[2 + i] + sum(padding[2 * i : 2 * i + 2]) - dilation[i] * (kernel[i] - 1) - 1)
        // stride[i]
        + 1
        for i in range(2)
    ]


def expected_seen(x, kernel, conv_stride, padding, dilation, size, stride):
    """One window after the other, all that lies between the pixels of a dilated kernel with it."""
    top, bottom, left, right = padding
    x = np.pad(x[:, 0], ((0, 0), (top, bottom), (left, right)))
    height, width = (
        (size[i] - 1) * conv_stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in range(2)
    )
    step = [stride[i] * conv_stride[i] for i in range(2)]
    return np.array(
        [
            [
                [
                    image[y : y + height, z : z + width].any()
                    for z in range(0, x.shape[2] - width + 1, step[1])
                ]
                for y in range(0, x.shape[1] - height + 1, step[0])
            ]
            for image in x
        ]
    )


def sparse_images(rng, shape, dtype, share=0.1):
    """Of each image a part, some images empty; some zeros are -0."""
    x = random_array(rng, shape, dtype) * (rng.random(shape) < share)
    x[:, :, : shape[2] // 4] = -0.0
    x[::3] = 0
    return x


PAIRS = st.tuples(*[st.integers(1, 3)] * 2)


@given(
    kernel=PAIRS,
    conv_stride=PAIRS,
    dilation=PAIRS,
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    size=PAIRS,
    more=st.tuples(*[st.integers(0, 1)] * 2),
    image=st.tuples(st.integers(15, 20), st.integers(15, 70)),
    seed=st.integers(0, 99),
)
def test_windows_that_have_seen_something(
    kernel, conv_stride, dilation, padding, size, more, image, seed
):
    rng = np.random.default_rng(seed)
    stride = tuple(np.add(size, more).tolist())
    for dtype in DTYPES:
        x = sparse_images(rng, (4, 1, *image), dtype, 0.02)
        args = x, kernel, conv_stride, padding, dilation, size, stride
        expected = expected_seen(*args)
        if (
            expected.shape[2]
            and (expected.shape[2] - 1) * stride[1] * conv_stride[1]
            + (size[1] - 1) * conv_stride[1]
            + dilation[1] * (kernel[1] - 1)
            + 1
            > 64
        ):
            expected[:] = True  # wider than a word: not looked at
        wide = tuple(side + 1 for side in padding)
        for border in (None, wide):
            assert np.array_equal(found(*args, border), expected)


def test_large_images_count_as_seen():
    one, none = (1, 1), NONE
    for shape, known in (((1, 1, 256, 64), True), ((1, 1, 257, 3), False), ((1, 1, 3, 65), False)):
        seen = found(np.zeros(shape), one, one, none, one, one, one)
        assert seen.all() == (not known) and seen.any() == (not known)


# ------------------------------------------------------------------------------------ affine maps


def shared(rng, shape, seen, dtype, integers=True):
    """x whose pixels without `seen` [N, P] are those of one more image."""
    n, channels, height, width = shape
    size = (n + 1, channels, height * width)
    x = rng.integers(-4, 5, size).astype(dtype) if integers else random_array(rng, size, dtype)
    x = np.where(seen[:, np.newaxis] != 0, x[:-1], x[-1])
    return np.ascontiguousarray(x.reshape(shape))


def run(x, W, b, dout, seen, code=0, slope=0.5, borders=(NONE, NONE), n_strips=1, in_place=False):
    """Outputs, dW and dx."""
    x_ = GuardedImages(x.shape, borders[0], x.dtype, x)
    dx = x_ if in_place else GuardedImages(x.shape, borders[1], x.dtype)
    out, check = guarded_array(dout.shape, W.dtype)
    sums, check_sums = guarded_array((n_strips - 1, *out.shape), W.dtype)
    dW, check_dW = guarded_array(W.shape, W.dtype)
    behind = (x_.images, code, slope) if code else (None, 0, 0.0)
    groups, check_groups = None, check
    if seen is not None:
        shape = _affine_images.groups_shape(*seen.shape)
        groups, check_groups = guarded_array(shape, "int32")
        _parallel.run(_affine_images.group(seen, groups))
    _parallel.run(
        _affine_images.forward_strips(x_.images, W, b, out, sums, groups),
        _affine.add_strips_of(sums, out, 0, 0.0),
        _affine_images.weight_gradient(x_.images, dout, dW, groups),
        _affine_images.input_gradient(dout, W, dx.images, *behind, groups),
    )
    for one in (x_.check, dx.check, check, check_sums, check_dW, check_groups):
        one()
    assert in_place or same_bits(x_.values, x)
    return out, dW, dx.values


def check_gradient(dx, expected, seen):
    """Where something was seen the same; elsewhere the sum, in one place."""
    n = len(dx)
    dx, expected = (array.reshape(n, array.shape[1], -1) for array in (dx, expected))
    known = seen[:, np.newaxis] != 0
    assert np.array_equal(np.where(known, dx, 0), np.where(known, expected, 0))
    for begin in range(0, n, 128):
        part = slice(begin, begin + 128)
        rest = [np.where(known, 0, array)[part] for array in (dx, expected)]
        assert np.array_equal(*(array.sum(axis=0) for array in rest))
        many = ~known[part, 0].all(axis=0) & (5 * (~known[:, 0]).sum(axis=0) >= n)
        assert (np.count_nonzero(rest[0].any(axis=1), axis=0)[many] <= 1).all()


# N, C, H, W, O: 24 and 128 images at once, parts of 32 channels, panels of columns; and one more
SHAPES = [
    (1, 16, 1, 1, 1),
    (24, 30, 2, 3, 100),
    (25, 16, 3, 2, 128),
    (30, 64, 1, 4, 33),
    (47, 31, 2, 1, 127),
    (49, 32, 1, 2, 99),
    (127, 33, 1, 2, 63),
    (23, 65, 2, 1, 64),
    (48, 130, 1, 2, 7),
    (128, 17, 2, 2, 65),
    (129, 30, 1, 3, 15),
    (300, 16, 2, 2, 17),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 1])
def test_integers(rng, shape, share, dtype):
    """Exact in any order; what all share too, and pixels that few or none share."""
    n, channels, height, width, n_out = shape
    seen = (rng.random((n, height * width)) >= share).astype(np.uint8)
    seen[:, 0] = rng.random(n) < 0.9
    seen *= rng.integers(1, 256, seen.shape, dtype=np.uint8)  # any number but 0 will do
    W, dout, b = (
        rng.integers(-4, 5, size).astype(dtype)
        for size in ((channels * height * width, n_out), (n, n_out), n_out)
    )
    x = shared(rng, shape[:4], seen, dtype)
    rows = x.reshape(n, -1)
    for code, borders in (
        (0, (NONE, NONE)),
        (ACTIVATIONS["relu"], (WIDE, NONE)),
        (ACTIVATIONS["leaky_relu"], (NONE, WIDE)),
    ):
        strips = min(3, height * width)
        out, dW, dx = run(x, W, b, dout, seen, code, 0.5, borders, strips)
        assert np.array_equal(out, rows @ W + b)
        assert np.array_equal(dW, rows.T @ dout)
        expected = (dout @ W.T).reshape(x.shape)
        if code:
            slope = 0 if code == ACTIVATIONS["relu"] else 0.5
            expected = np.where(x > 0, expected, slope * expected)
        check_gradient(dx, expected, seen)
        args = x, W, b, dout, seen, code, 0.5, (borders[0],) * 2, strips
        for one, other in zip(run(*args), run(*args, in_place=True), strict=True):
            assert same_bits(one, other), "in the place of x"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_smooth_activation(rng, dtype):
    shape = (40, 20, 3, 3)
    seen = (rng.random((40, 9)) < 0.5).astype(np.uint8)
    x = np.tanh(shared(rng, shape, seen, dtype, integers=False))
    W, dout = random_array(rng, (180, 31), dtype), random_array(rng, (40, 31), dtype)
    _, dW, dx = run(x, W, None, dout, seen, ACTIVATIONS["tanh"])
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    assert np.allclose(dW, x.reshape(40, -1).T @ dout, rtol=tolerance, atol=tolerance)
    expected = ((dout @ W.T).reshape(shape) * (1 - x * x)).reshape(40, 20, 9)
    known = seen[:, np.newaxis] != 0
    dx = dx.reshape(40, 20, 9)
    assert np.allclose(dx * known, expected * known, rtol=tolerance, atol=tolerance)
    sums = [(array * ~known).sum(axis=0) for array in (dx, expected)]
    assert np.allclose(*sums, rtol=tolerance, atol=tolerance)


def test_what_all_images_have_seen_has_the_bits_of_rows(rng):
    x, W, b, dout = (
        random_array(rng, size, "float32") for size in ((40, 30, 4, 4), (480, 100), 100, (40, 100))
    )
    seen = np.ones((40, 16), np.uint8)
    seen[::11] = 0  # too few to share anything
    args = ACTIVATIONS["relu"], 0.5, (NONE, NONE), 4
    for one, other in zip(
        run(x, W, b, dout, seen, *args), run(x, W, b, dout, None, *args), strict=True
    ):
        assert same_bits(one, other)


def test_an_output_does_not_depend_on_the_other_images(rng):
    """Of those that share, at pixels where enough do in both batches."""
    seen = (rng.random((60, 12)) < 0.5).astype(np.uint8)
    x = shared(rng, (60, 30, 3, 4), seen, "float32", integers=False)
    W, b = random_array(rng, (360, 100), "float32"), random_array(rng, 100, "float32")
    dout = random_array(rng, (60, 100), "float32")
    whole, _, _ = run(x, W, b, dout, seen, n_strips=3)
    order = rng.permutation(60)[:45]
    part, _, _ = run(x[order], W, b, dout[order], seen[order], n_strips=3)
    assert (5 * (seen[order] == 0).sum(axis=0) >= 45).all()
    assert same_bits(part, whole[order])


@pytest.mark.parametrize("threads", [2, 3])
def test_bits_do_not_depend_on_the_number_of_threads(rng, threads):
    seen = (rng.random((50, 36)) < 0.6).astype(np.uint8)
    x = shared(rng, (50, 30, 6, 6), seen, "float32", integers=False)
    W, dout = random_array(rng, (1080, 70), "float32"), random_array(rng, (50, 70), "float32")
    before, results = _parallel.get_num_threads(), []
    try:
        for count in (1, threads):
            _parallel.set_num_threads(count)
            args = ACTIVATIONS["relu"], 0.0, (NONE, NONE), 8
            results.append(run(x, W, W[0], dout, seen, *args))
    finally:
        _parallel.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert same_bits(one, other)


def test_what_is_shared():
    for channels, n_out, takes in ((30, 100, True), (16, 128, True), (15, 9, False)):
        assert _affine_images.shares(channels, n_out, False) == takes
    for channels, n_out in itertools.product((16, 30, 64), (129, 1000)):
        assert not _affine_images.shares(channels, n_out, True)


def test_what_does_not_fit_is_refused():
    x = GuardedImages((4, 3, 2, 5), NONE, "float32").images
    W, dout = np.zeros((30, 6), "float32"), np.zeros((4, 6), "float32")
    sums, seen = np.zeros((0, 4, 6), "float32"), np.zeros((4, 10), np.uint8)
    for shape in ((2, 10, 129), (1, 11, 129), (1, 10, 128)):
        bad = np.zeros(shape, np.int32)
        for make in (
            lambda bad=bad: _affine_images.forward_strips(x, W, None, dout, sums, bad),
            lambda bad=bad: _affine_images.weight_gradient(x, dout, W, bad),
            lambda bad=bad: _affine_images.input_gradient(dout, W, x, None, 0, 0.0, bad),
            lambda bad=bad: _affine_images.group(seen, bad),
        ):
            with pytest.raises(ValueError, match="groups: sizes do not fit"):
                make()
    args = np.zeros((4, 129), "float32"), np.zeros((30, 129), "float32")
    with pytest.raises(ValueError, match="groups: sizes do not fit"):
        _affine_images.weight_gradient(x, *args, np.zeros((1, 10, 129), np.int32))
    geometry = _conv2d.Convolution(3, 2, (2, 2), (1, 1), NONE, (1, 1), 1, np.empty)
    pooled = _conv2d_pooled.PooledConvolution(geometry, (1, 2), (1, 2))
    for channels, size in ((3, 2), (1, 3)):
        images = GuardedImages((4, channels, 2, 5), NONE, "float32").images
        with pytest.raises(ValueError, match="x, seen: sizes do not fit"):
            pooled.find_seen(images, np.zeros((4, size), np.uint8))
