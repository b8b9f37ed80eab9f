"""The affine map behind images, and its gradients, which have the bits of those of rows."""

import functools
import itertools

import numpy as np
import pytest

from cnn_core import _affine, _affine_gradient, _affine_images, _gemm, _parallel
from native.c_kernels import ACTIVATIONS
from native.image_tasks import GuardedImages, guarded_array
from reference import assert_close, random_array, same_bits

# N, C, H, W, O: one of each; panels of 64 elements and one more or less, terms of 128, groups of 24
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 64, 1, 1, 16),
    (3, 5, 4, 3, 7),
    (23, 63, 1, 2, 63),
    (24, 65, 2, 1, 64),
    (25, 30, 3, 5, 65),
    (2, 1, 9, 15, 127),
    (127, 3, 2, 2, 128),
    (129, 2, 1, 3, 129),
    (49, 7, 6, 4, 257),
    (4, 300, 2, 2, 10),
]
NONE, WIDE = (0, 0, 0, 0), (1, 0, 2, 1)


def rows(images):
    return np.ascontiguousarray(images.reshape(len(images), -1))


def of_rows(x, W, dout, code, slope):
    """dx and dW as the tasks over rows compute them."""
    dx, dW = np.empty_like(rows(x)), np.empty_like(W)
    packed = np.empty(_gemm.packed_size(*W.shape, W.dtype == np.float32), W.dtype)
    behind = (rows(x), code, slope) if code else ()
    _parallel.run(
        _gemm.pack_transposed(W, packed),
        _affine_gradient.input_gradient(dout, packed, dx, *behind),
        _affine_gradient.weight_gradient(rows(x), dout, dW),
    )
    return dx.reshape(x.shape), dW


def of_images(x, W, dout, code=0, slope=0.0, borders=(NONE, NONE)):
    x_ = GuardedImages(x.shape, borders[0], x.dtype, x)
    dx = GuardedImages(x.shape, borders[1], x.dtype)
    dW, check = guarded_array(W.shape, W.dtype)
    behind = (x_.images, code, slope) if code else ()
    _parallel.run(
        _affine_images.input_gradient(dout, W, dx.images, *behind),
        _affine_images.weight_gradient(x_.images, dout, dW),
    )
    for images in (x_, dx):
        images.check()
    check()
    assert same_bits(x_.values, x)
    return dx.values, dW


def arrays(shape, dtype, seed=0):
    n, channels, height, width, n_out = shape
    sizes = (shape[:4], (channels * height * width, n_out), (n, n_out))
    rng = np.random.default_rng(seed)
    return [random_array(rng, size, dtype) for size in sizes]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bits_of_rows(shape, dtype):
    x, W, dout = arrays(shape, dtype)
    for code in (0, ACTIVATIONS["relu"], ACTIVATIONS["tanh"], ACTIVATIONS["leaky_relu"]):
        expected = of_rows(x, W, dout, code, 0.1)
        for borders in ((NONE, NONE), (WIDE, NONE), (NONE, WIDE), (WIDE, (0, 3, 0, 1))):
            result = of_images(x, W, dout, code, 0.1, borders)
            for name, array, other in zip(("dx", "dW"), result, expected, strict=True):
                assert same_bits(array, other), (name, code, borders)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dx_in_the_place_of_y(shape, dtype):
    """The bits of dx beside y; refused where sums of some terms would take the place of y."""
    x, W, dout = arrays(shape, dtype)
    for code, border in itertools.product((ACTIVATIONS["relu"], ACTIVATIONS["tanh"]), (NONE, WIDE)):
        images = GuardedImages(x.shape, border, dtype, x)
        args = dout, W, images.images, images.images, code
        if shape[-1] > _affine_images.MOST_IN_PLACE:
            with pytest.raises(ValueError, match="dx, which is y"):
                _affine_images.input_gradient(*args)
            continue
        _parallel.run(_affine_images.input_gradient(*args))
        images.check()
        assert same_bits(images.values, of_images(x, W, dout, code)[0])


def outputs(x, W, b, n_strips, code=0, slope=0.0, border=NONE):
    x_ = GuardedImages(x.shape, border, x.dtype, x)
    out, check = guarded_array((len(x), W.shape[1]), W.dtype)
    sums, check_sums = guarded_array((n_strips - 1, *out.shape), W.dtype)
    _parallel.run(
        _affine_images.forward_strips(x_.images, W, b, out, sums),
        _affine.add_strips_of(sums, out, code, slope),
    )
    for one in (x_.check, check, check_sums):
        one()
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_of_integers(rng, shape, dtype):
    """Exact in any order: strips of every number of pixels, images amid borders."""
    _, channels, height, width, n_out = shape
    x = rng.integers(-4, 5, shape[:4]).astype(dtype)
    W = rng.integers(-4, 5, (channels * height * width, n_out)).astype(dtype)
    b = rng.integers(-4, 5, n_out).astype(dtype)
    strips = sorted({1, 2, 3, 8, height * width} & {*range(1, height * width + 1)})
    for n_strips, border in itertools.product(strips, (NONE, WIDE)):
        expected = rows(x) @ W
        assert np.array_equal(outputs(x, W, None, n_strips, border=border), expected)
        result = outputs(x, W, b, n_strips, ACTIVATIONS["leaky_relu"], 0.5, border)
        expected += b
        assert np.array_equal(result, np.where(expected < 0, expected / 2, expected))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_outputs_are_summed_by_strips(threads, dtype="float32"):
    x, W, dout = arrays((30, 20, 6, 6, 70), dtype)
    before = _parallel.get_num_threads()
    try:
        _parallel.set_num_threads(threads)
        out = outputs(x, W, dout[0].copy(), 8)
    finally:
        _parallel.set_num_threads(before)
    sums = []
    planes, weights = x.reshape(30, 20, 36), W.reshape(20, 36, 70)
    for strip in range(8):
        begin, end = strip * 36 // 8, (strip + 1) * 36 // 8
        part = np.ascontiguousarray(planes[:, :, begin:end])
        part, rest = part.reshape(30, 20, 1, end - begin), weights[:, begin:end].reshape(-1, 70)
        sums.append(outputs(part, rest.copy(), dout[0].copy() if strip == 0 else None, 1))
    assert same_bits(out, functools.reduce(np.add, sums))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_formula(dtype):
    x, W, dout = arrays((33, 17, 5, 7, 40), dtype, 7)
    dx, dW = of_images(x, W, dout)
    wide = [array.astype(np.float64) for array in (rows(x), W, dout)]
    size = np.abs(wide[2]) @ np.abs(wide[1]).T
    assert_close(rows(dx), wide[2] @ wide[1].T, dtype, magnitude=size)
    size = np.abs(wide[0]).T @ np.abs(wide[2])
    assert_close(dW, wide[0].T @ wide[2], dtype, magnitude=size)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_bits_do_not_depend_on_the_number_of_threads(threads):
    x, W, dout = arrays((30, 20, 6, 6, 70), "float32")
    before = _parallel.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            _parallel.set_num_threads(count)
            results.append(of_images(x, W, dout, ACTIVATIONS["relu"]))
    finally:
        _parallel.set_num_threads(before)
    assert all(same_bits(one, other) for one, other in zip(*results, strict=True))


def test_what_does_not_fit_is_refused():
    x, W, dout = arrays((4, 3, 2, 5, 6), "float32")
    images = GuardedImages(x.shape, NONE, x.dtype, x).images
    other = GuardedImages((4, 3, 5, 2), NONE, x.dtype).images
    double = GuardedImages(x.shape, NONE, "float64").images
    for bad in ((dout[1:], W, images), (dout[:, 1:].copy(), W, images), (dout, W[1:], images)):
        with pytest.raises(ValueError, match="images, dout, W: sizes do not fit"):
            _affine_images.input_gradient(*bad)
        with pytest.raises(ValueError, match="images, dout, W: sizes do not fit"):
            _affine_images.weight_gradient(bad[2], bad[0], bad[1])
    for wrong in (other, double):
        with pytest.raises(ValueError, match="y: sizes do not fit"):
            _affine_images.input_gradient(dout, W, images, wrong, ACTIVATIONS["relu"])
    with pytest.raises(ValueError, match="y: sizes do not fit"):
        _affine_images.input_gradient(dout, W, images, None, ACTIVATIONS["relu"])
    with pytest.raises(ValueError, match="images, dout, W: sizes do not fit"):
        _affine_images.input_gradient(dout, W, double)
    b, sums = np.zeros(6, "float32"), np.zeros((1, 4, 6), "float32")
    for bad in (
        (b[1:].copy(), sums),
        (b, sums[:, 1:].copy()),
        (b, np.zeros((10, 4, 6), "float32")),
    ):
        with pytest.raises(ValueError, match="x, b, out, sums: sizes do not fit"):
            _affine_images.forward_strips(images, W, bad[0], dout, bad[1])
    with pytest.raises(ValueError, match="sums, out: sizes do not fit"):
        _affine.add_strips_of(sums, dout[1:])
