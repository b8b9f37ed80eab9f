"""Networks with convolutions by the names of their layers, and what holds for all of them."""

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

import cnn_core as cc
from reference import same_bits
from reference_network import LOSSES, Sine, assert_gradients, make_batch, one_by_one


class PerChannel(cc.Layer):
    """A user's layer with parameters: y = a x + c, numbers per channel, on images or rows."""

    def build(self, input_shape, rng):
        channels = input_shape[0]
        return {"a": 1 + 0.3 * rng.standard_normal(channels), "c": np.full(channels, 0.1)}

    def _along(self, values):
        return values.reshape(-1, *(1,) * (self.x.ndim - 2))

    def forward(self, x, training=False):
        self.x = x
        return self._along(self.params["a"]) * x + self._along(self.params["c"])

    def backward(self, dout):
        axes = (0, *range(2, dout.ndim))
        self.grads = {"a": (dout * self.x).sum(axis=axes), "c": dout.sum(axis=axes)}
        return dout * self._along(self.params["a"])


class DoubledConv(cc.Conv2D):
    """A subclass of a compiled layer, which must not be taken for it."""

    def forward(self, x, training=False):
        return 2 * super().forward(x, training)

    def backward(self, dout):
        return super().backward(2 * dout)


class OwnNorm(cc.BatchNorm):
    """Another, which gets read-only views from the plan and hands them on."""


def conv(filters, kernel=3, kind=cc.Conv2D, **options):
    return kind(filters, kernel, weights=cc.Normal(0.3), biases=cc.Uniform(-0.5, 0.5), **options)


ON_IMAGES = {
    "conv": lambda: conv(5, padding="same"),
    "conv 16": lambda: conv(16, (3, 2), padding=1),
    "conv 1x1": lambda: conv(17, 1),
    "conv stride": lambda: conv(4, 3, stride=2, padding=1),
    "conv dilated": lambda: conv(6, 2, dilation=(2, 1), padding=(1, 1, 0, 1)),
    "conv wide": lambda: conv(3, 2, padding=3),
    "max": lambda: cc.MaxPool2D(2, stride=1),
    "max overlapping": lambda: cc.MaxPool2D(3, stride=2, padding=1),
    "avg": lambda: cc.AvgPool2D((2, 1), stride=1, padding=(1, 0)),
}
ANYWHERE = {
    "batch norm": cc.BatchNorm,
    "dropout": lambda: cc.Dropout(0.4),
    "relu": cc.ReLU,
    "leaky relu": lambda: cc.LeakyReLU(0.3),
    "tanh": cc.Tanh,
    "sigmoid": cc.Sigmoid,
}
OWN = {
    "sine": Sine,
    "per channel": PerChannel,
    "doubled conv": lambda: conv(3, 2, DoubledConv, padding=1),
    "own norm": OwnNorm,
}
BETWEEN = {"flatten": cc.Flatten, "global": cc.GlobalAvgPool2D}
ON_ROWS = {"affine": lambda: cc.Affine(7, cc.Normal(0.4)), "softmax": cc.Softmax}
LAYERS = ON_IMAGES | ANYWHERE | OWN | BETWEEN | ON_ROWS
SMOOTH = {"batch norm", "dropout", "tanh", "sigmoid", "sine", "per channel", "doubled conv"}


def stacks(own=True, most=6, names=LAYERS):
    def words(*kinds):
        found = [word for kind in kinds for word in kind if word in names]
        return st.lists(st.sampled_from(found), max_size=most)

    more = (OWN,) if own else ()
    on_rows = [{"sine": 0, "per channel": 0, "own norm": 0}] if own else []
    return st.builds(
        lambda images, between, rows: [*images, *between, *rows],
        words(ON_IMAGES, ANYWHERE, *more),
        st.sampled_from([["flatten"], ["global"]]),
        words(ANYWHERE, ON_ROWS, *on_rows),
    )


def make(words, *, input_shape=(2, 6, 7), loss="sum_squared_error", dtype="float64", seed=0):
    layers = [LAYERS[word]() for word in words]
    return cc.Sequential(
        layers, input_shape=input_shape, loss=LOSSES[loss](), dtype=dtype, seed=seed
    )


def make_if_it_fits(words, **options):
    """`make`, for hypothesis: strides may have left an image smaller than the next window."""
    try:
        return make(words, **options)
    except ValueError as error:
        assume("smaller than" not in str(error))
        raise


def copied_state(layers):
    return [{k: v.copy() for k, v in getattr(layer, "state", {}).items()} for layer in layers]


def check_fused(words, dtype, n, seed, tolerance=0):
    """Bit for bit, but where the order of a sum is another: tolerance, of the largest element."""
    net = make_if_it_fits(words, dtype=dtype, seed=seed)
    net.step[0] = seed
    x, t = make_batch(net, n, "sum_squared_error", seed=seed)
    y, value, gradients = one_by_one(net, x, t)
    actual = net.forward(x, training=True)
    if tolerance:
        assert_gradients({"y": actual}, {"y": y}, dtype, tolerance=tolerance)
    else:
        assert same_bits(actual, y)
    assert net.loss(x, t, training=True) == pytest.approx(value, rel=tolerance, abs=0)
    largest = max((np.abs(value).max(initial=0) for value in gradients.values()), default=0)
    options = {"tolerance": tolerance, "rounding": tolerance * float(largest)}
    assert_gradients(net.gradient(x, t), gradients, dtype, **options)
    alone = x
    for layer in net.layers:
        alone = layer.forward(alone, training=False)
    assert same_bits(net.predict(x), np.ascontiguousarray(alone))
