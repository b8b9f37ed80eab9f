"""Operations on images against torch.nn.functional, on configurations drawn by hypothesis.

Forward and all gradients: float64 to 1e-10 and float32 to 1e-4, relative to the largest element.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn_core as cc
from reference import DTYPES

torch = pytest.importorskip("torch", reason="parity with PyTorch needs torch")
functional = torch.nn.functional

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
EFFORT = 8  # times the profile's examples

dtypes = st.sampled_from(DTYPES)
# Around vectors and tiles; small numbers more often.
channel_counts = st.one_of(st.integers(1, 8), st.sampled_from([15, 16, 17, 31, 33, 64, 65]))


def more_examples(function):
    count = settings.default.max_examples * EFFORT
    return settings(max_examples=count)(function)


def draw_pair(data, name, least, most):
    return data.draw(st.tuples(st.integers(least, most), st.integers(least, most)), label=name)


def arrays(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def tensors(*values):
    return [torch.from_numpy(value.copy()).requires_grad_() for value in values]


def assert_near(name, actual, expected, dtype, scale=0.0):
    """scale: of the terms, where their sum may be close to zero."""
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert actual.shape == expected.shape and actual.dtype == expected.dtype == dtype, name
    scale = max(float(np.abs(expected).max(initial=0.0)), scale)
    error = float(np.abs(actual - expected).max(initial=0.0))
    assert error <= TOLERANCE[dtype] * scale, (name, error, scale)


# ---- convolution ---------------------------------------------------------------------------------


def draw_convolution(data):
    groups = data.draw(st.sampled_from([1, 1, 1, 2, 3, "depthwise"]), label="groups")
    inner, outer = (data.draw(channel_counts, label=name) for name in ("channels", "filters"))
    if groups == "depthwise":
        groups, inner, outer = inner, 1, data.draw(st.integers(1, 3), label="multiplier")
    elif groups > 1:
        inner, outer = min(inner, 17), min(outer, 17)
    kernel, stride = draw_pair(data, "kernel", 1, 5), draw_pair(data, "stride", 1, 3)
    padding, dilation = draw_pair(data, "padding", 0, 4), draw_pair(data, "dilation", 1, 3)
    if data.draw(st.booleans(), label="unit stride and dilation"):
        stride = dilation = (1, 1)
    sizes = []
    for axis in range(2):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        least = max(reach - 2 * padding[axis], 1)
        sizes.append(data.draw(st.integers(least, least + 9), label="size"))
    n = data.draw(st.integers(1, 6), label="batch")
    shapes = (n, groups * inner, *sizes), (groups * outer, inner, *kernel), (groups * outer,)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return shapes, options


@more_examples
@given(data=st.data(), dtype=dtypes, seed=st.integers(0, 999), bias=st.booleans())
def test_conv2d(data, dtype, seed, bias):
    shapes, options = draw_convolution(data)
    x, W, b = arrays(seed, dtype, *shapes)
    expected = functional.conv2d(
        *(given := tensors(x, W, b))[: 2 + bias], **({} if bias else {"bias": None}), **options
    )
    actual = cc.ops.conv2d_forward(x, W, b if bias else None, **options)
    assert_near("y", actual, expected, dtype)
    (dout,) = arrays(seed + 1, dtype, actual.shape)
    expected.backward(torch.from_numpy(dout.copy()))
    gradients = cc.ops.conv2d_backward(dout, x, W, **options)
    for name, value, tensor in zip(("dx", "dW"), gradients, given, strict=False):
        assert_near(name, value, tensor.grad, dtype)
    db = given[2].grad.numpy() if bias else dout.sum(axis=(0, 2, 3), dtype="f8").astype(dtype)
    scale = float(np.abs(dout).sum(axis=(0, 2, 3)).max())
    assert_near("db", gradients[2], db, dtype, scale)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@given(data=st.data(), dtype=dtypes, seed=st.integers(0, 999))
def test_padding_that_keeps_the_size(data, dtype, seed):
    """cc.Conv2D with padding="same", for which PyTorch knows stride 1 only."""
    kernel, dilation = draw_pair(data, "kernel", 1, 4), draw_pair(data, "dilation", 1, 2)
    x, W, b = arrays(seed, dtype, (2, 3, 7, 8), (5, 3, *kernel), 5)
    layer = cc.Conv2D(5, kernel, padding="same", dilation=dilation, weights=W, biases=b)
    given = tensors(x, W, b)
    expected = functional.conv2d(*given, padding="same", dilation=dilation)
    actual = layer.forward(x)
    assert_near("y", actual, expected, dtype)
    expected.backward(torch.from_numpy(actual.copy()))
    dx = layer.backward(actual)
    for name, value, tensor in zip(
        ("dx", "dW", "db"), (dx, layer.grads["W"], layer.grads["b"]), given, strict=True
    ):
        scale = float(np.abs(actual).sum(axis=(0, 2, 3)).max()) if name == "db" else 0.0
        assert_near(name, value, tensor.grad, dtype, scale)


# ---- pooling -------------------------------------------------------------------------------------


def draw_windows(data):
    size, stride = draw_pair(data, "size", 1, 5), draw_pair(data, "stride", 1, 4)
    padding = tuple(data.draw(st.integers(0, s // 2), label="padding") for s in size)
    sizes = tuple(
        data.draw(st.integers(max(s - 2 * p, 1), s + 9), label="image")
        for s, p in zip(size, padding, strict=True)
    )
    shape = data.draw(st.integers(1, 5), label="batch"), data.draw(channel_counts), *sizes
    return shape, {"stride": stride, "padding": padding}, size


@more_examples
@given(data=st.data(), dtype=dtypes, seed=st.integers(0, 999), levels=st.sampled_from([2, 9, 0]))
def test_max_pool2d(data, dtype, seed, levels):
    """levels: of so many different values, so that there are ties; 0: any values."""
    shape, options, size = draw_windows(data)
    (x,) = arrays(seed, dtype, shape)
    if levels:
        x = np.floor(np.abs(x) * levels) % levels - np.asarray(levels // 2, dtype)
        x = x.astype(dtype)
    (given_x,) = tensors(x)
    expected = functional.max_pool2d(given_x, size, **options)
    y, which = cc.ops.max_pool2d_forward(x, size, **options)
    assert np.array_equal(y, expected.detach().numpy())
    (dout,) = arrays(seed + 1, dtype, y.shape)
    expected.backward(torch.from_numpy(dout.copy()))
    dx = cc.ops.max_pool2d_backward(dout, which, x.shape, size, **options)
    scale = float(np.abs(dout).max())
    assert_near("dx", dx, given_x.grad, dtype, scale)


@more_examples
@given(data=st.data(), dtype=dtypes, seed=st.integers(0, 999))
def test_avg_pool2d(data, dtype, seed):
    shape, options, size = draw_windows(data)
    (x,) = arrays(seed, dtype, shape)
    (given_x,) = tensors(x)
    expected = functional.avg_pool2d(given_x, size, **options, count_include_pad=False)
    y = cc.ops.avg_pool2d_forward(x, size, **options)
    assert_near("y", y, expected, dtype, float(np.abs(x).max()))
    (dout,) = arrays(seed + 1, dtype, y.shape)
    expected.backward(torch.from_numpy(dout.copy()))
    dx = cc.ops.avg_pool2d_backward(dout, x.shape, size, **options)
    assert_near("dx", dx, given_x.grad, dtype, float(np.abs(dout).max()))


# ---- batch normalization -------------------------------------------------------------------------


@more_examples
@given(
    n=st.integers(1, 70),
    channels=channel_counts,
    sizes=st.one_of(st.none(), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    dtype=dtypes,
    training=st.booleans(),
    momentum=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 999),
)
def test_batch_norm(n, channels, sizes, dtype, training, momentum, seed):
    shape = (n, channels, *(sizes or ()))
    if training and n * int(np.prod(sizes or (1,))) < 3:
        shape = (n + 2, *shape[1:])  # PyTorch refuses one value; of two, gradients cancel
    x, gamma, beta, mean = arrays(seed, dtype, shape, *[(channels,)] * 3)
    var = np.abs(mean) + np.asarray(0.5, dtype)
    given, running = tensors(x, gamma, beta), [torch.from_numpy(v.copy()) for v in (mean, var)]
    expected = functional.batch_norm(
        given[0], *running, *given[1:], training=training, momentum=momentum, eps=1e-3
    )
    options = {"momentum": momentum, "epsilon": 1e-3, "training": training}
    y, table = cc.ops.batch_norm_forward(x, gamma, beta, mean, var, **options)
    assert_near("y", y, expected, dtype)
    assert_near("running_mean", mean, running[0], dtype, 1.0)
    assert_near("running_var", var, running[1], dtype)
    (dout,) = arrays(seed + 1, dtype, shape)
    expected.backward(torch.from_numpy(dout.copy()))
    gradients = cc.ops.batch_norm_backward(dout, x, gamma, table, training=training)
    axes = (0, 2, 3)[: 1 + (len(shape) - 2)]
    sums = float(np.abs(dout).sum(axis=axes).max())
    # dx is a difference of terms of this size.
    slope = float(np.abs(gamma * table[1]).max() * np.abs(dout).max())
    for name, value, tensor, scale in zip(
        ("dx", "dgamma", "dbeta"), gradients, given, (slope, sums, sums), strict=True
    ):
        assert_near(name, value, tensor.grad, dtype, scale)
