"""Layers of any configuration against the plain references in NumPy: outputs and gradients.

That networks give the same bits as their layers alone, test_plan.py and test_plan_images.py show.
The examples that are spelled out are cases that kernels treat apart, or that once went wrong.
"""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cnn_core as cc
import reference
import reference_images as images
from reference import DTYPES, LAYOUTS, assert_close, lay_out

more_examples = settings(max_examples=2 * settings.default.max_examples)
#: of the sum of the terms' absolute values, for each 256 terms
TABLE = {"float32": 4e-6, "float64": 1e-14}
channel_counts = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 33])
drawn = {
    "dtype": st.sampled_from(DTYPES),
    "layout": st.sampled_from(LAYOUTS),
    "seed": st.integers(0, 9),
}


def pairs(least, most):
    return st.tuples(st.integers(least, most), st.integers(least, most))


def random(seed, shape, dtype, layout="c"):
    values = np.random.default_rng([seed, len(shape)]).standard_normal(shape).astype(dtype)
    return lay_out(values, layout)


def check(names, actual, exact, magnitudes, dtype, terms):
    for name, a, e, size in zip(names.split(), actual, exact, magnitudes, strict=True):
        assert_close(np.asarray(a), e, dtype, magnitude=size, terms=terms, table=TABLE, note=name)


# ---- dense layers --------------------------------------------------------------------------------


@more_examples
@given(n=st.integers(1, 70), inner=st.integers(1, 90), outer=st.integers(1, 90), **drawn)
@example(n=3, inner=1000, outer=700, dtype="float32", layout="fortran", seed=0)
@example(n=1, inner=1, outer=1, dtype="float64", layout="c", seed=0)
@example(n=257, inner=33, outer=65, dtype="float32", layout="c", seed=0)
def test_affine(n, inner, outer, dtype, layout, seed):
    x, W = random(seed, (n, inner), dtype, layout), random(seed + 1, (inner, outer), dtype)
    b, dout = random(seed, (outer,), dtype), random(seed + 2, (n, outer), dtype, layout)
    layer = cc.Affine(outer, weights=W, biases=b)
    actual = layer.forward(x), layer.backward(dout), layer.grads["W"], layer.grads["b"]
    exact = reference.affine_forward(x, W, b), *reference.affine_backward(dout, x, W)
    size = reference.affine_magnitude(x, W, b)
    sizes = size, *reference.affine_backward(np.abs(dout), np.abs(x), np.abs(W))
    check("y dx dW db", actual, exact, sizes, dtype, max(n, inner, outer))


# ---- convolution ---------------------------------------------------------------------------------


def border_of(padding, sizes, reach, stride):
    """(top, bottom, left, right), where "same" gives as many outputs as steps begin inside."""
    if padding != "same":
        return padding
    border = []
    for size, length, step in zip(sizes, reach, stride, strict=True):
        more = max((-(-size // step) - 1) * step + length - size, 0)
        border += [more // 2, more - more // 2]
    return tuple(border)


PLAIN = {"stride": (1, 1), "dilation": (1, 1), "dtype": "float32", "layout": "C", "seed": 0}


@more_examples
@given(
    n=st.integers(1, 5),
    groups=st.sampled_from([1, 1, 2, 3]),
    inner=channel_counts,
    outer=channel_counts,
    sizes=pairs(1, 14),
    kernel=pairs(1, 5),
    stride=pairs(1, 3),
    dilation=pairs(1, 3),
    padding=st.tuples(*[st.integers(0, 4)] * 4) | st.just("same"),
    **drawn,
)
@example(n=2, groups=1, inner=1, outer=30, sizes=(28, 28), kernel=(5, 5), padding=(0,) * 4, **PLAIN)
@example(n=1, groups=1, inner=3, outer=2, sizes=(40, 3), kernel=(11, 1), padding="same", **PLAIN)
@example(n=3, groups=5, inner=1, outer=1, sizes=(9, 9), kernel=(3, 3), padding="same", **PLAIN)
@example(n=2, groups=1, inner=2, outer=3, sizes=(1, 1), kernel=(1, 1), padding=(9,) * 4, **PLAIN)
def test_conv2d(
    n, groups, inner, outer, sizes, kernel, stride, dilation, padding, dtype, layout, seed
):
    if groups > 1:
        inner, outer = min(inner, 5), min(outer, 5)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    border = border_of(padding, sizes, reach, stride)
    W, b = (
        random(seed, (groups * outer, inner, *kernel), dtype),
        random(seed, (groups * outer,), dtype),
    )
    x = random(seed + 1, (n, groups * inner, *sizes), dtype, layout)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    layer = cc.Conv2D(len(W), kernel, padding=padding, weights=W, biases=b, **options)
    if sizes[0] + sum(border[:2]) < reach[0] or sizes[1] + sum(border[2:]) < reach[1]:
        with pytest.raises(ValueError, match="smaller than the kernel"):
            layer.forward(x)
        return
    geometry = {"stride": stride, "dilation": dilation, "padding": border}
    y = images.conv2d_forward(x, W, b, **geometry)
    dout = random(seed + 2, y.shape, dtype, layout)
    actual = layer.forward(x), layer.backward(dout), layer.grads["W"], layer.grads["b"]
    exact = y, *images.conv2d_backward(dout, x, W, **geometry)
    sizes_of_terms = images.conv2d_magnitudes(dout, x, W, b, **geometry)
    check("y dx dW db", actual, exact, sizes_of_terms, dtype, max(W[0].size, y[:, 0].size))


# ---- pooling -------------------------------------------------------------------------------------


@more_examples
@given(
    kind=st.sampled_from([cc.MaxPool2D, cc.AvgPool2D]),
    n=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 16, 17]),
    sizes=pairs(1, 9),
    size=pairs(1, 5),
    stride=st.none() | pairs(1, 4),
    padding=pairs(0, 2),
    levels=st.sampled_from([2, 1000]),
    **drawn,
)
@example(cc.MaxPool2D, 2, 1, (5, 5), (2, 2), (3, 3), (0, 0), 2, "float32", "C", 0)  # pixels unused
@example(cc.AvgPool2D, 1, 3, (1, 1), (2, 2), None, (1, 1), 2, "float64", "C", 0)
@example(
    cc.MaxPool2D, 1, 17, (4, 4), (4, 4), (1, 1), (2, 2), 2, "float32", "fortran", 1
)  # ties, overlap
def test_pooling(kind, n, channels, sizes, size, stride, padding, levels, dtype, layout, seed):
    border = padding[0], padding[0], padding[1], padding[1]
    x = lay_out(np.round(random(seed, (n, channels, *sizes), dtype) * levels) / levels, layout)
    fits = all(2 * p <= k for p, k in zip(padding, size, strict=True))
    if not fits or any(s + 2 * p < k for s, p, k in zip(sizes, padding, size, strict=True)):
        with pytest.raises(ValueError, match=r"padding|smaller"):
            kind(size, stride, padding).forward(x)
        return
    layer = kind(size, stride, padding)
    plain = images.max_pool2d if kind is cc.MaxPool2D else images.avg_pool2d
    geometry = size, stride or size, border
    y = plain(x, *geometry)
    dout = random(seed + 2, y.shape, dtype, layout)
    exact = y, plain(x, *geometry, dout=dout)
    magnitudes = np.abs(x).max(), plain(x, *geometry, dout=np.abs(dout))
    check("y dx", (layer.forward(x), layer.backward(dout)), exact, magnitudes, dtype, 256)


# ---- batch normalization -------------------------------------------------------------------------


@more_examples
@given(
    n=st.integers(1, 40),
    channels=channel_counts,
    sizes=st.none() | pairs(1, 5),
    momentum=st.sampled_from([0.0, 0.1, 1.0]),
    epsilon=st.sampled_from([1e-5, 0.1]),
    offset=st.sampled_from([0.0, 3.0]),
    training=st.booleans(),
    **drawn,
)
@example(1, 3, None, 0.1, 1e-5, 3.0, True, "float32", "C", 0)  # a variance of one number
@example(1, 3, (1, 2), 1.0, 0.1, 0.0, True, "float64", "C", 0)
def test_batch_norm(n, channels, sizes, momentum, epsilon, offset, training, dtype, layout, seed):
    shape = (n, channels, *(sizes or ()))
    x = lay_out(random(seed, shape, dtype) + np.asarray(offset, dtype), layout)
    layer = cc.BatchNorm(momentum, epsilon)
    layer.params = layer.build(shape[1:], np.random.default_rng(0))
    for number, (name, value) in enumerate(layer.params.items()):
        layer.params[name] = random(seed + number, value.shape, dtype)
    gamma, beta = layer.params["gamma"], layer.params["beta"]
    mean, var = random(seed, (channels,), dtype), 0.5 + np.abs(random(seed + 1, (channels,), dtype))
    layer.state = {"running_mean": mean.copy(), "running_var": var.copy()}
    options = momentum, epsilon, training
    exact = images.batch_norm_forward(x, gamma, beta, mean, var, *options)
    y = layer.forward(x, training)
    used = np.sqrt((_variance(x) if training else exact[2]) + epsilon)
    steep = (np.abs(gamma) * (np.abs(x).max() + np.abs(mean)) / used + np.abs(beta)).max()
    actual = y, layer.state["running_mean"], layer.state["running_var"]
    check("y mean var", actual, exact, (steep, 1 + offset, 1 + np.abs(exact[2])), dtype, 4 * 256)
    dout = random(seed + 2, shape, dtype, layout)
    exact = images.batch_norm_backward(dout, x, gamma, mean, var, epsilon, training)
    actual = layer.backward(dout), layer.grads["gamma"], layer.grads["beta"]
    largest, count = np.abs(dout).max(), x.size // channels
    normal = (np.abs(x).max() + np.abs(mean).max()) / used.min()
    slope = np.abs(gamma).max() / used.min()
    magnitudes = largest * slope * (1 + normal**2), count * largest * normal, count * largest
    check("dx dgamma dbeta", actual, exact, magnitudes, dtype, 4 * 256)


def _variance(x):
    return x.astype(np.float64).var(axis=(0, 2, 3)[: x.ndim - 1] if x.ndim == 4 else 0)
