"""common.layers, each by itself: numbers, dtypes, attributes, what is left alone."""

import copy
import pickle

import numpy as np
import pytest

from cnn_core.book.common import layers
from cnn_core.book.common.util import col2im, im2col
from reference import Unchanged, numerical_gradient


@pytest.fixture
def rng():
    return np.random.default_rng(52)


def close(got, wanted, **kwargs):
    got = np.asarray(got)
    assert got.shape == np.shape(wanted)
    np.testing.assert_allclose(got, wanted, **({"rtol": 1e-12, "atol": 1e-12} | kwargs))


# ---- dense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 6), (3, 6), (2, 3, 1, 2), (300, 6), (2100, 6), (4000, 15)])
@pytest.mark.parametrize("x_dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_affine(rng, shape, x_dtype, dtype):
    inputs = int(np.prod(shape[1:]))
    x = (5 * rng.random(shape)).astype(x_dtype)
    W, b = rng.standard_normal((inputs, 4)).astype(dtype), rng.standard_normal(4).astype(dtype)
    dout = rng.standard_normal((shape[0], 4)).astype(np.result_type(x, W))
    layer, rows = layers.Affine(W, b), x.reshape(shape[0], -1).astype(float)
    single = dout.dtype == np.float32
    limits = {"rtol": 2e-4, "atol": 2e-3} if single else {"atol": 1e-10}
    with Unchanged(x, W, b, dout):
        out = layer.forward(x)
        dx = layer.backward(dout)
    assert out.dtype == dx.dtype == layer.dW.dtype == layer.db.dtype == dout.dtype
    assert layer.original_x_shape == shape and layer.x.shape == rows.shape
    close(out, rows @ W.astype(float) + b, **limits)
    close(dx, (dout.astype(float) @ W.T).reshape(shape), **limits)
    close(layer.dW, rows.T @ dout.astype(float), **limits)
    close(layer.db, dout.sum(axis=0, dtype=float), **limits)


def test_affine_reads_its_parameters_at_each_call(rng):
    x, W, b = rng.random((2, 3)), rng.random((3, 4)), rng.random(4)
    layer = layers.Affine(W, b)
    first = layer.forward(x)
    kept = first.copy()
    W += 1
    close(layer.forward(x), x @ W + b)
    layer.W, layer.b = rng.random((3, 2)), rng.random(2)
    close(layer.forward(x), x @ layer.W + layer.b)
    layer.b = 0
    close(layer.forward(x), x @ layer.W)
    layer.W = layer.W.astype(np.float32)
    layer.forward(x)
    layer.W += 1  # of which the kernel has a copy
    close(layer.forward(x), x @ layer.W.astype(float))
    np.testing.assert_array_equal(first, kept)


def test_affine_refuses_rows_of_another_size(rng):
    layer = layers.Affine(rng.random((3, 4)), np.zeros(4))
    for shape in ((5, 1), (5, 4), (5, 2, 2)):
        with pytest.raises(ValueError, match=r"^x: expected 3 columns"):
            layer.forward(rng.random(shape))


# ---- activations and the loss --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5)])
def test_relu(rng, dtype, shape):
    x, dout = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    x.flat[0], x.flat[1] = 0, np.nan
    layer = layers.Relu()
    assert layer.mask is None
    with Unchanged(x, dout):
        y = layer.forward(x)
        np.testing.assert_array_equal(layer.mask, x <= 0)
        y[...] = 7  # the result is the script's
        dx = layer.backward(dout)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(dx, np.where(x <= 0, 0, dout))
    np.testing.assert_array_equal(layer.forward(x), np.where(x <= 0, 0, x))


def test_sigmoid(rng):
    x, dout = rng.standard_normal((50, 30)), rng.standard_normal((50, 30))
    layer = layers.Sigmoid()
    with Unchanged(x, dout):
        y = layer.forward(x)
        dx = layer.backward(dout)
    assert layer.out is y
    close(y, 1 / (1 + np.exp(-x)))
    close(dx, dout * y * (1 - y))


@pytest.mark.parametrize("n", [1, 3, 200])
def test_softmax_with_loss(rng, n):
    x, labels = rng.standard_normal((n, 10)), rng.integers(0, 10, n)
    y = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    for t in (labels, np.eye(10)[labels], np.eye(10, dtype=int)[labels]):
        layer = layers.SoftmaxWithLoss()
        with Unchanged(x, t):
            loss = layer.forward(x, t)
            dx = layer.backward()
        assert loss is layer.loss and layer.t is t
        assert loss == pytest.approx(-np.mean(np.log(y[np.arange(n), labels] + 1e-7)), rel=1e-12)
        close(layer.y, y)
        close(dx, (y - np.eye(10)[labels]) / n)


def test_softmax_with_loss_of_labels_in_a_column():
    layer, x = layers.SoftmaxWithLoss(), np.array([[1.0, 2.0, 4.0]])
    loss = layer.forward(x, np.array([[1]]))
    assert loss == pytest.approx(-np.log(layer.y[0, 1] + 1e-7), rel=1e-14)
    close(layer.backward(), layer.y - [[0, 1, 0]])


# ---- regularization ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 2, 2)])
def test_dropout_draws_as_the_book_does(rng, shape):
    x, dout, layer = rng.random(shape) + 1, rng.random(shape), layers.Dropout(0.3)
    np.random.seed(12)  # noqa: NPY002
    y = layer.forward(x)
    np.random.seed(12)  # noqa: NPY002
    kept = np.random.rand(*shape) > 0.3  # noqa: NPY002
    np.testing.assert_array_equal(y, np.where(kept, x, 0))
    np.testing.assert_array_equal(layer.mask, kept)
    np.testing.assert_array_equal(layer.backward(dout), np.where(kept, dout, 0))
    np.testing.assert_array_equal(layer.forward(x, train_flg=False), x * 0.7)
    assert layers.Dropout().dropout_ratio == 0.5


def batch_norm_chain(x, gamma, dout):
    """Forward and backward of batch normalization through every step of its graph."""
    n = len(x)
    mean = x.sum(axis=0) / n
    xc = x - mean
    var = (xc**2).sum(axis=0) / n
    std = np.sqrt(var + 1e-6)
    xn = xc / std
    dxn = gamma * dout
    dstd = -(dxn * xc / std**2).sum(axis=0)
    dxc = dxn / std + 2 * xc / n * (dstd / (2 * std))
    dx = dxc - dxc.sum(axis=0) / n
    return xn, mean, var, dx, (xn * dout).sum(axis=0)


@pytest.mark.parametrize("shape", [(7, 5), (4, 2, 3, 2)])
def test_batch_normalization(rng, shape):
    size = int(np.prod(shape[1:]))
    x, dout = 3 * rng.standard_normal(shape) + 1, rng.standard_normal(shape)
    gamma, beta = rng.standard_normal(size), rng.standard_normal(size)
    layer = layers.BatchNormalization(gamma, beta, momentum=0.8)
    rows, dout_rows = x.reshape(shape[0], -1), dout.reshape(shape[0], -1)
    xn, mean, var, dx, dgamma = batch_norm_chain(rows, gamma, dout_rows)
    with Unchanged(x, dout, gamma, beta):
        y = layer.forward(x)
        got = layer.backward(dout)
    close(y, (gamma * xn + beta).reshape(shape))
    close(got, dx.reshape(shape), atol=1e-11)
    close(layer.dgamma, dgamma)
    close(layer.dbeta, dout_rows.sum(axis=0))
    close(layer.running_mean, 0.2 * mean)
    close(layer.running_var, 0.2 * var)
    close(layer.xn, xn)
    close(layer.xc, rows - mean)
    close(layer.std, np.sqrt(var + 1e-6))
    assert layer.batch_size == shape[0] and layer.input_shape == shape
    frozen = layer.forward(x, train_flg=False)
    std = np.sqrt(0.2 * var + 1e-6)
    close(frozen, (gamma * (rows - 0.2 * mean) / std + beta).reshape(shape))
    close(layer.running_mean, 0.2 * mean)


def test_batch_normalization_of_one_sample_is_exactly_beta(rng):
    beta = rng.standard_normal(3)
    layer = layers.BatchNormalization(rng.standard_normal(3), beta)
    np.testing.assert_array_equal(layer.forward(rng.standard_normal((1, 3))), beta[None])
    np.testing.assert_array_equal(layer.backward(rng.standard_normal((1, 3))), np.zeros((1, 3)))


def test_batch_normalization_begins_with_given_running_values():
    mean, var = np.array([1.0, 2.0]), np.array([4.0, 9.0])
    ones, zeros = np.ones(2), np.zeros(2)
    layer = layers.BatchNormalization(ones, zeros, running_mean=mean, running_var=var)
    close(layer.forward(np.array([[3.0, 5.0]]), train_flg=False), [[1, 1]], rtol=1e-6)


# ---- images --------------------------------------------------------------------------------------

#: (N, C, H, W), F, (FH, FW), stride, pad
CONVOLUTIONS = [
    ((2, 1, 7, 7), 3, (3, 3), 1, 0),
    ((3, 2, 8, 6), 4, (3, 2), 1, 1),
    ((2, 3, 9, 9), 5, (3, 3), 2, 0),
    ((1, 2, 10, 7), 2, (4, 3), 3, 2),
    ((5, 16, 6, 6), 8, (3, 3), 1, 2),
    ((2, 3, 4, 4), 2, (4, 4), 1, 0),
    ((2, 2, 3, 3), 3, (1, 1), 1, 3),
]


@pytest.mark.parametrize(("shape", "filters", "size", "stride", "pad"), CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_convolution(rng, shape, filters, size, stride, pad, dtype):
    x = (9 * rng.standard_normal(shape)).astype(dtype)
    W, b = rng.standard_normal((filters, shape[1], *size)), rng.standard_normal(filters)
    layer = layers.Convolution(W, b, stride, pad)
    columns = im2col(x, *size, stride, pad)
    weights = W.reshape(filters, -1).T
    out = columns @ weights + b
    sizes = [(n + 2 * pad - k) // stride + 1 for n, k in zip(shape[2:], size, strict=True)]
    wanted = out.reshape(shape[0], *sizes, filters).transpose(0, 3, 1, 2)
    dout = rng.standard_normal(wanted.shape)
    dout_rows = dout.transpose(0, 2, 3, 1).reshape(-1, filters)
    with Unchanged(x, W, b, dout):
        y = layer.forward(x)
        dx = layer.backward(dout)
    limits = {"atol": 1e-10}
    assert np.asarray(y).dtype == np.asarray(dx).dtype == layer.dW.dtype == np.float64
    close(y, wanted, **limits)
    close(layer.dW, (columns.T @ dout_rows).T.reshape(W.shape), **limits)
    close(layer.db, dout_rows.sum(axis=0), **limits)
    close(dx, col2im(dout_rows @ weights.T, shape, *size, stride, pad), **limits)
    assert layer.x is x
    np.testing.assert_array_equal(layer.col, columns)
    np.testing.assert_array_equal(layer.col_W, weights)


def test_convolution_takes_float32_weights_and_a_number_as_bias(rng):
    x, W = rng.random((2, 3, 5, 5)), rng.random((4, 3, 2, 2)).astype(np.float32)
    wide = layers.Convolution(W.astype(float), np.full(4, 0.5)).forward(x)
    np.testing.assert_array_equal(layers.Convolution(W, 0.5).forward(x), wide)


def test_convolution_refuses_what_does_not_fit(rng):
    layer = layers.Convolution(rng.random((4, 3, 3, 3)), np.zeros(4))
    for shape in ((2, 2, 5, 5), (3, 5, 5), (2, 3)):
        with pytest.raises(ValueError, match=r"^x: expected \(N, 3, H, W\)"):
            layer.forward(rng.random(shape))
    with pytest.raises(ValueError, match=r"^x: images of 2 x 5"):
        layer.forward(rng.random((1, 3, 2, 5)))
    layer.forward(rng.random((2, 3, 5, 5)))
    with pytest.raises(ValueError, match=r"^dout: expected shape \(2, 4, 3, 3\)"):
        layer.backward(rng.random((2, 4, 3, 2)))


def pooled(x, height, width, stride, pad):
    """Every maximum and its place, window by window."""
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    n, channels, *sizes = x.shape
    out_h, out_w = (sizes[0] - height) // stride + 1, (sizes[1] - width) // stride + 1
    y, places = np.empty((n, channels, out_h, out_w)), np.empty((n, out_h, out_w, channels), int)
    for at in np.ndindex(y.shape):
        top, left = at[2] * stride, at[3] * stride
        window = x[at[0], at[1], top : top + height, left : left + width].ravel()
        places[at[0], at[2], at[3], at[1]] = window.argmax()
        y[at] = window.max()
    return y, places.ravel()


POOLINGS = [(2, 2, 2, 0), (3, 2, 1, 0), (2, 3, 3, 0), (2, 2, 4, 1), (3, 3, 2, 1)]


@pytest.mark.parametrize("window", POOLINGS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_pooling(rng, window, dtype):
    x = rng.integers(-9, 3, (3, 2, 6, 7)).astype(dtype)  # with ties
    height, width, stride, pad = window
    layer = layers.Pooling(*window)
    wanted, places = pooled(x, *window)
    dout = rng.standard_normal(wanted.shape)
    with Unchanged(x, dout):
        y = layer.forward(x)
        np.testing.assert_array_equal(layer.arg_max, places)
        dx = layer.backward(dout)
    close(y, wanted)
    padded = np.zeros((3, 2, 6 + 2 * pad, 7 + 2 * pad))
    by_sample = places.reshape(*dout.shape[:1], *dout.shape[2:], 2)
    for at in np.ndindex(dout.shape):
        row, column = divmod(by_sample[at[0], at[2], at[3], at[1]], width)
        padded[at[0], at[1], at[2] * stride + row, at[3] * stride + column] += dout[at]
    close(dx, padded[:, :, pad : pad + 6, pad : pad + 7])
    assert layer.x is x and (layer.pool_h, layer.pool_w) == (height, width)


def test_pooling_refuses_what_does_not_fit(rng):
    layer = layers.Pooling(2, 2)
    assert layer.stride == 2 and layer.pad == 0
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\), got shape \(3, 4\)"):
        layer.forward(rng.random((3, 4)))
    with pytest.raises(ValueError, match=r"^x: images of 1 x 4"):
        layer.forward(rng.random((3, 4, 1, 4)))
    layer.forward(rng.random((3, 4, 4, 4)))
    with pytest.raises(ValueError, match=r"^dout: expected shape \(3, 4, 2, 2\)"):
        layer.backward(rng.random((3, 4, 2, 1)))


# ---- all together --------------------------------------------------------------------------------


def small_convnet(rng):
    W1, W2 = rng.standard_normal((3, 1, 3, 3)), rng.standard_normal((9, 3, 3, 3))
    W3 = rng.standard_normal((36, 4))
    return [
        layers.Convolution(W1, rng.standard_normal(3), pad=1),
        layers.Relu(),
        layers.Pooling(2, 2),
        layers.Convolution(W2, rng.standard_normal(9)),
        layers.Relu(),
        layers.Affine(W3, rng.standard_normal(4)),
    ]


def forward(net, x):
    for layer in net:
        x = layer.forward(x)
    return x


def backward(net, dout):
    for layer in reversed(net):
        dout = layer.backward(dout)
    return dout


def test_a_convolutional_network_against_central_differences(rng):
    net, x, dout = small_convnet(rng), rng.standard_normal((2, 1, 8, 8)), rng.random((2, 4))

    def loss():
        return float(np.sum(np.asarray(forward(net, x)) * dout))

    forward(net, x)
    dx = backward(net, dout)
    np.testing.assert_allclose(dx, numerical_gradient(loss, x), rtol=1e-6, atol=1e-6)
    for layer in (net[0], net[3], net[5]):
        gradients = layer.dW.copy(), layer.db.copy()
        for array, gradient in zip((layer.W, layer.b), gradients, strict=True):
            slope = numerical_gradient(loss, array)
            np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_and_pickles_go_on_where_the_original_stood(rng, copied):
    net, x, dout = small_convnet(rng), rng.standard_normal((2, 1, 8, 8)), rng.random((2, 4))
    y = forward(net, x)
    twin = copied(net)
    dx, dx_twin = (np.asarray(backward(layers, dout)) for layers in (net, twin))
    np.testing.assert_array_equal(dx_twin, dx)
    np.testing.assert_array_equal(twin[3].dW, net[3].dW)
    np.testing.assert_array_equal(forward(twin, x), y)
    twin[0].W[...] = 0
    np.testing.assert_array_equal(forward(net, x), y)
