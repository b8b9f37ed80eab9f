"""cc.ops for images: values, memory, arguments, gradients."""

import numpy as np
import pytest

import cnn_core as cc
import reference_images
from reference import (
    DTYPES,
    LAYOUTS,
    Unchanged,
    assert_close,
    check_gradient,
    lay_out,
    random_array,
    same_bits,
)

ops = cc.ops


@pytest.fixture
def rng():
    return np.random.default_rng(30)


def conv_operands(rng, dtype="float64", shape=(2, 4, 6, 7), W_shape=(6, 2, 3, 2)):
    """x, W, b and dout of a convolution without padding."""
    size = reference_images.output_size(shape[2:], W_shape[2:], (1, 1), (0,) * 4)
    shapes = shape, W_shape, W_shape[:1], (shape[0], W_shape[0], *size)
    return tuple(random_array(rng, s, dtype) for s in shapes)


def raises(error, match):
    return pytest.raises(error, match=f"^{match}")


# ---- convolution ---------------------------------------------------------------------------------

PADDINGS = {
    "none": (0, (0, 0, 0, 0)),
    "valid": ("valid", (0, 0, 0, 0)),
    "number": (2, (2, 2, 2, 2)),
    "one in a list": ([1], (1, 1, 1, 1)),
    "pair": ((1, 2), (1, 1, 2, 2)),
    "four": ([3, 0, 1, 2], (3, 0, 1, 2)),
    "numpy integers": (np.arange(2).tolist(), (0, 0, 1, 1)),
    "same": ("same", (1, 1, 0, 1)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PADDINGS)
def test_padding(rng, name, dtype):
    x, W, b, _ = conv_operands(rng, dtype)
    given, four = PADDINGS[name]
    y = ops.conv2d_forward(x, W, b, padding=given, groups=2)
    exact = reference_images.conv2d_forward(x, W, b, padding=four)
    size = reference_images.conv2d_forward(np.abs(x), np.abs(W), np.abs(b), padding=four)
    assert_close(y, exact, dtype, magnitude=size)
    dout = random_array(rng, y.shape, dtype)
    gradients = ops.conv2d_backward(dout, x, W, padding=given, groups=2)
    exact = reference_images.conv2d_backward(dout, x, W, padding=four)
    sizes = reference_images.conv2d_magnitudes(dout, x, W, padding=four)[1:]
    for actual, value, size in zip(gradients, exact, sizes, strict=True):
        assert_close(actual, value, dtype, magnitude=size)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 5, 7, 8])
def test_same_gives_size_by_stride_rounded_up(size, kernel, stride):
    x, W = np.ones((1, 1, size, size + 1)), np.ones((1, 1, kernel, kernel))
    y = ops.conv2d_forward(x, W, None, stride=stride, padding="same")
    assert y.shape == (1, 1, -(-size // stride), -(-(size + 1) // stride))
    dx, dW, _ = ops.conv2d_backward(y, x, W, stride=stride, padding="same")
    assert dx.shape == x.shape and dW.shape == W.shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_of_a_convolution(rng, layout, dtype):
    x, W, b, dout = (lay_out(value, layout) for value in conv_operands(rng, dtype))
    plain = [np.array(value, order="C") for value in (x, W, b, dout)]
    with Unchanged(x, W, b, dout):
        y = ops.conv2d_forward(x, W, b, groups=2)
        gradients = ops.conv2d_backward(dout, x, W, groups=2)
    assert same_bits(y, ops.conv2d_forward(*plain[:3], groups=2))
    expected = ops.conv2d_backward(plain[3], *plain[:2], groups=2)
    assert all(map(same_bits, gradients, expected))


def test_out_of_a_convolution(rng):
    x, W, b, dout = conv_operands(rng)
    y, gradients = ops.conv2d_forward(x, W, b, groups=2), ops.conv2d_backward(dout, x, W, groups=2)
    out = np.full(y.shape, np.nan)
    assert ops.conv2d_forward(x, W, b, groups=2, out=out) is out and same_bits(out, y)
    outs = tuple(np.full(value.shape, np.nan) for value in gradients)
    back = ops.conv2d_backward(dout, x, W, groups=2, out=outs)
    assert all(a is b for a, b in zip(back, outs, strict=True))
    assert all(map(same_bits, outs, gradients))
    some = ops.conv2d_backward(dout, x, W, groups=2, out=(None, outs[1], None))
    assert some[1] is outs[1] and all(map(same_bits, some, gradients))


def test_bad_out_of_a_convolution(rng):
    x, W, b, dout = conv_operands(rng)
    shape = ops.conv2d_forward(x, W, b, groups=2).shape
    for wrong in (np.empty(shape[1:]), np.empty(shape, "f4"), np.empty(shape[::-1]).T):
        with raises(ValueError, "out"):
            ops.conv2d_forward(x, W, b, groups=2, out=wrong)
    with raises(TypeError, "out"):
        ops.conv2d_forward(x, W, b, groups=2, out=[1.0])
    for place, wrong in ((0, x), (1, W), (2, b[:5])):
        out = [None, None, None]
        out[place] = wrong
        with raises(ValueError, rf"out\[{place}\]"):
            ops.conv2d_backward(dout, x, W, groups=2, out=out)
    with raises(ValueError, "out: expected 3 arrays"):
        ops.conv2d_backward(dout, x, W, groups=2, out=(None, None))


BAD_CONVOLUTIONS = [
    ({"x": np.ones((3, 6, 7))}, ValueError, "x: expected 4"),
    ({"x": np.ones((2, 4, 6, 7), int)}, TypeError, "x: expected float32 or float64"),
    ({"x": np.ones((0, 4, 6, 7))}, ValueError, "x: expected at least one element"),
    ({"x": np.ones((2, 5, 6, 7))}, ValueError, "x: expected 4 channels"),
    ({"x": np.ones((2, 4, 2, 7))}, ValueError, "x: images of 2 x 7"),
    ({"W": np.ones((6, 2, 3))}, ValueError, "W: expected 4"),
    ({"W": np.ones((6, 2, 3, 2), "f4")}, TypeError, "W: expected float64"),
    ({"W": np.ones((6, 2, 0, 2))}, ValueError, "W: expected at least one element"),
    ({"b": np.ones(5)}, ValueError, r"b: expected shape \(6,\)"),
    ({"b": np.ones(6, "f4")}, TypeError, "b: expected float64"),
    ({"groups": 4}, ValueError, "groups: expected a divisor"),
    ({"groups": 0}, ValueError, "groups"),
    ({"groups": 1.0}, TypeError, "groups"),
    ({"stride": 0}, ValueError, "stride"),
    ({"stride": (1, 2, 3)}, ValueError, "stride"),
    ({"stride": 1.5}, TypeError, "stride"),
    ({"dilation": (1, -1)}, ValueError, "dilation"),
    ({"dilation": 3}, ValueError, "x: images of 6 x 7"),
    ({"padding": -1}, ValueError, "padding"),
    ({"padding": (1, 2, 3)}, ValueError, "padding"),
    ({"padding": "SAME"}, ValueError, "padding"),
    ({"padding": 0.5}, TypeError, "padding"),
    ({"padding": None}, TypeError, "padding"),
]


@pytest.mark.parametrize(("change", "error", "match"), BAD_CONVOLUTIONS)
def test_bad_arguments_of_a_convolution(rng, change, error, match):
    x, W, b, dout = conv_operands(rng)
    arguments = {"x": x, "W": W, "b": b, "groups": 2}
    ops.conv2d_forward(**arguments)
    with raises(error, match):
        ops.conv2d_forward(**arguments | change)
    if "b" not in change:
        del arguments["b"]
        with raises(error, match):
            ops.conv2d_backward(dout, **arguments | change)


def test_bad_dout_of_a_convolution(rng):
    x, W, _, dout = conv_operands(rng)
    with raises(ValueError, "dout: expected shape"):
        ops.conv2d_backward(dout[:, :, 1:], x, W, groups=2)
    with raises(TypeError, "dout"):
        ops.conv2d_backward(dout.astype("f4"), x, W, groups=2)


GEOMETRIES = [
    {},
    {"padding": "same"},
    {"stride": (2, 1), "padding": (1, 0, 2, 1)},
    {"dilation": (1, 2), "padding": 2},
    {"stride": 3, "dilation": 2, "padding": 3},
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", GEOMETRIES)
def test_gradients_of_a_convolution(rng, options, groups):
    x, W, b, _ = conv_operands(rng, shape=(2, 2, 5, 5), W_shape=(4, 2 // groups, 3, 2))
    options = {**options, "groups": groups}
    check_gradient(
        lambda x, W, b: ops.conv2d_forward(x, W, b, **options),
        lambda dout, x, W, b: ops.conv2d_backward(dout, x, W, **options),
        [x, W, b],
    )


# ---- pooling -------------------------------------------------------------------------------------

POOLS = [
    (2, {}, ((2, 2), (2, 2), (0, 0, 0, 0))),
    ((3, 2), {"stride": 1}, ((3, 2), (1, 1), (0, 0, 0, 0))),
    (3, {"stride": (2, 1), "padding": 1}, ((3, 3), (2, 1), (1, 1, 1, 1))),
    ((2, 4), {"padding": (1, 2)}, ((2, 4), (2, 4), (1, 1, 2, 2))),
    (2, {"stride": 3, "padding": (1, 0, 0, 1)}, ((2, 2), (3, 3), (1, 0, 0, 1))),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "options", "window"), POOLS)
def test_pooling(rng, size, options, window, dtype):
    x = rng.integers(-3, 4, (2, 3, 6, 7)).astype(dtype)
    y, which = ops.max_pool2d_forward(x, size, **options)
    assert same_bits(y, reference_images.max_pool2d(x, *window).astype(dtype))
    dout = rng.integers(-3, 4, y.shape).astype(dtype)
    with Unchanged(dout, which):
        dx = ops.max_pool2d_backward(dout, which, x.shape, size, **options)
    assert np.array_equal(dx, reference_images.max_pool2d(x, *window, dout)) and dx.dtype == dtype
    mean = ops.avg_pool2d_forward(x, size, **options)
    assert_close(mean, reference_images.avg_pool2d(x, *window), dtype, magnitude=3)
    dx = ops.avg_pool2d_backward(dout, x.shape, size, **options)
    exact = reference_images.avg_pool2d(x, *window, dout)
    size = reference_images.avg_pool2d(x, *window, np.abs(dout))
    assert_close(dx, exact, dtype, magnitude=size)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_pooling(rng, layout):
    x = lay_out(random_array(rng, (2, 3, 6, 6), "float32"), layout)
    dout = lay_out(random_array(rng, (2, 3, 3, 3), "float32"), layout)
    plain, plain_dout = np.array(x, order="C"), np.array(dout, order="C")
    with Unchanged(x, dout):
        y, which = ops.max_pool2d_forward(x, 2)
        dx = ops.max_pool2d_backward(dout, which, x.shape, 2)
        mean = ops.avg_pool2d_forward(x, 2)
        back = ops.avg_pool2d_backward(dout, x.shape, 2)
    expected, expected_which = ops.max_pool2d_forward(plain, 2)
    assert same_bits(y, expected) and same_bits(which, expected_which)
    assert same_bits(dx, ops.max_pool2d_backward(plain_dout, which, x.shape, 2))
    assert same_bits(mean, ops.avg_pool2d_forward(plain, 2))
    assert same_bits(back, ops.avg_pool2d_backward(plain_dout, x.shape, 2))


def test_nan_propagates_through_the_maximum():
    x = np.zeros((1, 2, 4, 4))
    x[0, 1, 2, 1] = np.nan
    y, which = ops.max_pool2d_forward(x, 2)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 1, 1, 0]]
    dx = ops.max_pool2d_backward(np.ones_like(y), which, x.shape, 2)
    assert dx[0, 1, 2, 1] == 1 and dx[0, 1].sum() == 4


def test_out_of_pooling(rng):
    x = random_array(rng, (2, 3, 6, 6), "float64")
    y, which = ops.max_pool2d_forward(x, 2)
    out, dx = np.empty_like(y), np.empty_like(x)
    assert ops.max_pool2d_forward(x, 2, out=out)[0] is out and same_bits(out, y)
    assert ops.max_pool2d_backward(y, which, x.shape, 2, out=dx) is dx
    assert same_bits(dx, ops.max_pool2d_backward(y, which, x.shape, 2))
    assert ops.avg_pool2d_forward(x, 2, out=out) is out
    assert ops.avg_pool2d_backward(y, x.shape, 2, out=dx) is dx
    for wrong in (out[:1], out.astype("f4")):
        with raises(ValueError, "out"):
            ops.max_pool2d_forward(x, 2, out=wrong)
        with raises(ValueError, "out"):
            ops.avg_pool2d_backward(y, x.shape, 2, out=wrong)


def test_bad_arguments_of_pooling(rng):
    x = random_array(rng, (2, 3, 6, 6), "float64")
    for forward in (ops.max_pool2d_forward, ops.avg_pool2d_forward):
        for arguments, options, error, match in (
            ((x[0], 2), {}, ValueError, "x: expected 4"),
            ((x.astype(int), 2), {}, TypeError, "x"),
            ((x, 7), {}, ValueError, "x: images of 6 x 6"),
            ((x, 0), {}, ValueError, "size"),
            ((x, 2.0), {}, TypeError, "size"),
            ((x, 2), {"stride": 0}, ValueError, "stride"),
            ((x, 2), {"padding": 2}, ValueError, "padding: expected at most half"),
            ((x, 2), {"padding": (0, 0, 0, 2)}, ValueError, "padding: expected at most half"),
            ((x, 2), {"padding": "same"}, ValueError, "padding"),
            ((x, 2), {"padding": None}, TypeError, "padding"),
        ):
            with raises(error, match):
                forward(*arguments, **options)
    y, which = ops.max_pool2d_forward(x, 2)
    for wrong in (
        which[1:],
        which.astype("i8"),
        which + 4,
        which - 4,
        None,
        which.reshape(y.shape),
    ):
        with raises(ValueError, "which"):
            ops.max_pool2d_backward(y, wrong, x.shape, 2)
    with raises(ValueError, "dout"):
        ops.avg_pool2d_backward(y[:1], x.shape, 2)
    with raises(ValueError, "input_shape"):
        ops.avg_pool2d_backward(y, x.shape[1:], 2)


def test_gradients_of_pooling(rng):
    x = rng.permutation(np.arange(2.0 * 2 * 5 * 6)).reshape(2, 2, 5, 6)  # no ties within h
    for size, options, _ in POOLS:

        def back(dout, x, size=size, options=options):
            which = ops.max_pool2d_forward(x, size, **options)[1]
            return [ops.max_pool2d_backward(dout, which, x.shape, size, **options)]

        check_gradient(
            lambda x, size=size, options=options: ops.max_pool2d_forward(x, size, **options)[0],
            back,
            [x],
        )
        check_gradient(
            lambda x, size=size, options=options: ops.avg_pool2d_forward(x, size, **options),
            lambda dout, x, size=size, options=options: [
                ops.avg_pool2d_backward(dout, x.shape, size, **options)
            ],
            [x],
        )


# ---- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (3, 200), (2, 3, 5, 7)])
def test_dropout(rng, shape, dtype):
    x = random_array(rng, shape, dtype)
    with Unchanged(x):
        y = ops.dropout(x, 0.3, 11, 2, 5)
    rows = x.reshape(len(x), -1)
    kept = reference_images.kept(rows.shape, 0.3, 11, 2, 5)
    scaled = rows * np.dtype(dtype).type(1 / 0.7)
    assert same_bits(y, np.where(kept, scaled, np.dtype(dtype).type(0)).reshape(shape))
    out = np.empty_like(x)
    assert ops.dropout(x, 0.3, 11, 2, 5, out=out) is out and same_bits(out, y)
    for layout in LAYOUTS[:5]:
        assert same_bits(ops.dropout(lay_out(x, layout), 0.3, 11, 2, 5), y)


def test_statistics_of_dropout():
    x = np.ones((100, 1000))
    for rate in (0.1, 0.5, 0.9):
        y = ops.dropout(x, rate, 0, 0, 1)
        share = np.mean(y == 0)
        assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)
        assert abs(y.mean() - 1) < 0.01 / (1 - rate)
        deviation = np.sqrt(rate * (1 - rate) / 1000)
        rows, columns = np.mean(y == 0, axis=1), np.mean(y == 0, axis=0)
        assert np.abs(rows - rate).max() < 5 * deviation
        assert np.abs(columns - rate).max() < 5 * deviation * np.sqrt(10)
    assert same_bits(ops.dropout(x, 0.0, 0, 0, 1), x)


def test_bad_arguments_of_dropout():
    x = np.ones((2, 3))
    assert ops.dropout(np.ones((0, 3)), 0.5, 1, 2, 3).shape == (0, 3)
    for arguments, error, match in (
        ((x.astype(int), 0.5, 1, 2, 3), TypeError, "x"),
        ((np.float64(1), 0.5, 1, 2, 3), ValueError, "x"),
        ((x, 1.0, 1, 2, 3), ValueError, "rate"),
        ((x, -0.1, 1, 2, 3), ValueError, "rate"),
        ((x, float("nan"), 1, 2, 3), ValueError, "rate"),
        ((x, 0.5, -1, 2, 3), ValueError, "seed"),
        ((x, 0.5, 2**64, 2, 3), ValueError, "seed"),
        ((x, 0.5, 1, 2**32, 3), ValueError, "layer"),
        ((x, 0.5, 1, 2, 2**63), ValueError, "step"),
        ((x, 0.5, 1, 2, 3.0), TypeError, "step"),
    ):
        with raises(error, match):
            ops.dropout(*arguments)
    with raises(ValueError, "out"):
        ops.dropout(x, 0.5, 1, 2, 3, out=x)


# ---- batch normalization -------------------------------------------------------------------------


def norm_operands(rng, shape=(6, 3, 4, 5), dtype="float64"):
    x = random_array(rng, shape, dtype)
    gamma, beta, mean = (random_array(rng, shape[1], dtype) for _ in range(3))
    return x, gamma, beta, mean, np.abs(random_array(rng, shape[1], dtype)) + np.asarray(0.5, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (7, 20), (150, 2), (2, 1, 1, 1)])
def test_batch_norm(rng, shape, training, dtype):
    x, gamma, beta, mean, var = norm_operands(rng, shape, dtype)
    given = [value.astype("f8") for value in (x, gamma, beta, mean, var)]
    options = {"momentum": 0.3, "epsilon": 1e-3, "training": training}
    exact = reference_images.batch_norm_forward(*given, **options)
    with Unchanged(x, gamma, beta, *(() if training else (mean, var))):
        y, table = ops.batch_norm_forward(x, gamma, beta, mean, var, **options)
    scale = np.abs(exact[0]).max()
    assert_close(y, exact[0], dtype, magnitude=scale)
    assert_close(mean, exact[1], dtype, magnitude=1)
    assert_close(var, exact[2], dtype)
    dout = random_array(rng, shape, dtype)
    with Unchanged(dout, x, gamma, table):
        gradients = ops.batch_norm_backward(dout, x, gamma, table, training=training)
    exact = reference_images.batch_norm_backward(dout, *given[:2], *given[3:], 1e-3, training)
    size = np.abs(dout).sum() * max(1, np.abs(y).max()) * float(np.abs(table[1]).max())
    for actual, value in zip(gradients, exact, strict=True):
        assert_close(actual, value, dtype, magnitude=size)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (7, 20)])
def test_any_layout_of_batch_norm(rng, layout, shape):
    x, gamma, beta, mean, var = norm_operands(rng, shape)
    x, gamma, beta = (lay_out(value, layout) for value in (x, gamma, beta))
    dout = lay_out(random_array(rng, shape, "float64"), layout)
    plain = [np.array(value, order="C") for value in (dout, x, gamma, beta)]
    with Unchanged(x, gamma, beta, dout):
        y, table = ops.batch_norm_forward(x, gamma, beta, mean.copy(), var.copy(), training=True)
        gradients = ops.batch_norm_backward(dout, x, gamma, table)
    again, table = ops.batch_norm_forward(*plain[1:], mean.copy(), var.copy(), training=True)
    assert same_bits(y, again)
    assert all(map(same_bits, gradients, ops.batch_norm_backward(*plain[:3], table)))


@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (7, 20)])
def test_out_of_batch_norm(rng, shape):
    x, gamma, beta, mean, var = norm_operands(rng, shape)
    y, table = ops.batch_norm_forward(x, gamma, beta, mean, var)
    out = np.full(shape, np.nan)
    assert ops.batch_norm_forward(x, gamma, beta, mean, var, out=out)[0] is out
    assert same_bits(out, y)
    gradients = ops.batch_norm_backward(y, x, gamma, table)
    outs = tuple(np.full(value.shape, np.nan) for value in gradients)
    back = ops.batch_norm_backward(y, x, gamma, table, out=outs)
    assert all(a is b for a, b in zip(back, outs, strict=True))
    assert all(map(same_bits, outs, gradients))
    with raises(ValueError, "out"):
        ops.batch_norm_forward(x, gamma, beta, mean, var, out=x)
    with raises(ValueError, r"out\[2\]"):
        ops.batch_norm_backward(y, x, gamma, table, out=(None, None, gamma))


def test_bad_arguments_of_batch_norm(rng):
    x, gamma, beta, mean, var = norm_operands(rng)
    good = {"x": x, "gamma": gamma, "beta": beta, "running_mean": mean, "running_var": var}
    _, table = ops.batch_norm_forward(**good)
    for change, error, match in (
        ({"x": x[0]}, ValueError, "x"),
        ({"x": x[:0]}, ValueError, "x"),
        ({"x": x.astype("f4")}, TypeError, "gamma"),
        ({"gamma": gamma[:2]}, ValueError, "gamma"),
        ({"beta": beta.astype("f4")}, TypeError, "beta"),
        ({"beta": beta[:, None]}, ValueError, "beta"),
        ({"running_mean": None}, TypeError, "running_mean"),
        ({"running_mean": mean.tolist()}, TypeError, "running_mean"),
        ({"running_var": var[:2]}, ValueError, "running_var"),
        ({"running_var": var[::-1]}, ValueError, "running_var"),
        ({"running_var": mean}, ValueError, "running_var"),
        ({"running_mean": beta}, ValueError, "running_mean"),
    ):
        with raises(error, match):
            ops.batch_norm_forward(**good | change)
    for arguments, error, match in (
        ((x[:2], x, gamma, table), ValueError, "dout"),
        ((x.astype("f4"), x, gamma, table), TypeError, "dout"),
        ((x, x, gamma[:2], table), ValueError, "gamma"),
        ((x, x, gamma, table[:4]), ValueError, "table"),
        ((x, x, gamma, table.astype("f4")), TypeError, "table"),
    ):
        with raises(error, match):
            ops.batch_norm_backward(*arguments)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3, 2, 2, 3), (5, 4)])
def test_gradients_of_batch_norm(rng, shape, training):
    x, gamma, beta, mean, var = norm_operands(rng, shape)

    def forward(x, gamma, beta):
        running = mean.copy(), var.copy()
        return ops.batch_norm_forward(x, gamma, beta, *running, training=training)

    check_gradient(
        lambda *arguments: forward(*arguments)[0],
        lambda dout, x, gamma, beta: ops.batch_norm_backward(
            dout, x, gamma, forward(x, gamma, beta)[1], training=training
        ),
        [x, gamma, beta],
    )
