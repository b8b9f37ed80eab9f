"""Networks for the tests: user-made layers and losses, and whole networks in plain NumPy.

A network is described by a list of words, ``["affine 5", "tanh", "scale"]``: `make_layers` turns it
into layers, and `run` computes loss and gradients of the same network from reference.py in float64.
"""

import copy

import numpy as np

import cnn_core as cc
import reference

# How closely a network's gradient follows the reference, relative to the largest element.
TOLERANCE = {"float32": 5e-4, "float64": 1e-11}


class Sine(cc.Layer):
    """y = sin(x): the smallest layer that a user can write."""

    def forward(self, x, training=False):
        self.x = x
        return np.sin(x)

    def backward(self, dout):
        return dout * np.cos(self.x)


class Scale(cc.Layer):
    """y = a x + c for every feature: a user's layer with parameters, in a new dict each time."""

    def build(self, input_shape, rng):
        return {"a": 1 + 0.3 * rng.standard_normal(input_shape), "c": np.full(input_shape, 0.1)}

    def forward(self, x, training=False):
        self.x = x
        return self.params["a"] * x + self.params["c"]

    def backward(self, dout):
        self.grads = {"a": (dout * self.x).sum(axis=0), "c": dout.sum(axis=0)}
        return dout * self.params["a"]


class ScaleInPlace(Scale):
    """The same, writing into the arrays that are already in ``grads``."""

    def backward(self, dout):
        np.sum(dout * self.x, axis=0, out=self.grads["a"])
        self.grads["c"][...] = dout.sum(axis=0)
        return dout * self.params["a"]


class DoubledAffine(cc.Affine):
    """A subclass of a compiled layer, which must not be taken for it: y = 2 (x W + b)."""

    def forward(self, x, training=False):
        return 2 * super().forward(x, training)

    def backward(self, dout):
        return super().backward(2 * dout)


class ShiftedSigmoid(cc.Sigmoid):
    """A subclass of a compiled activation: y = sigmoid(x) - 1/2."""

    def forward(self, x, training=False):
        return super().forward(x, training) - np.asarray(0.5, x.dtype)


class LogCosh(cc.Loss):
    """A user's loss: the mean of log cosh(y - t)."""

    def forward(self, y, t):
        self.difference = np.asarray(y, np.float64) - t
        return np.log(np.cosh(self.difference)).mean()

    def backward(self):
        return np.tanh(self.difference) / self.difference.size


PLAIN = {
    "sigmoid": cc.Sigmoid,
    "tanh": cc.Tanh,
    "relu": cc.ReLU,
    "leaky_relu": cc.LeakyReLU,
    "softmax": cc.Softmax,
    "flatten": cc.Flatten,
    "sine": Sine,
    "scale": Scale,
    "scale in place": ScaleInPlace,
    "shifted": ShiftedSigmoid,
}
SLOPE = 0.3
LOSSES = {
    "softmax_cross_entropy": cc.SoftmaxCrossEntropy,
    "binary_cross_entropy": cc.BinaryCrossEntropy,
    "mean_squared_error": cc.MeanSquaredError,
    "sum_squared_error": cc.SumSquaredError,
    "log_cosh": LogCosh,
}


def make_layers(words):
    """The layers that the words describe; weights large enough to make activations curve."""
    layers = []
    for word in words:
        kind, _, units = word.partition(" ")
        if kind in ("affine", "doubled"):
            make = cc.Affine if kind == "affine" else DoubledAffine
            layers.append(make(int(units), cc.Normal(0.4), cc.Uniform(-0.5, 0.5)))
        elif word == "leaky_relu":
            layers.append(cc.LeakyReLU(SLOPE))
        else:
            layers.append(PLAIN[word]())
    return layers


def make(words, *, input_shape=(6,), loss="softmax_cross_entropy", dtype="float64", seed=0, **more):
    """A network of these layers."""
    return cc.Sequential(
        make_layers(words),
        input_shape=input_shape,
        loss=LOSSES[loss](),
        dtype=dtype,
        seed=seed,
        **more,
    )


def make_batch(net, n, loss="softmax_cross_entropy", *, seed=0, rows=False):
    """Random input of n samples and targets that suit the loss."""
    rng = np.random.default_rng([seed, n])
    x = rng.standard_normal((n, *net.input_shape)).astype(net.dtype)
    outputs = (n, *net.output_shape)
    if loss == "softmax_cross_entropy":
        labels = rng.integers(0, outputs[1], n)
        return x, np.eye(outputs[1], dtype=net.dtype)[labels] if rows else labels
    return x, rng.random(outputs).astype(net.dtype)


def run(words, params, x, t, loss):
    """(loss, gradients by name, outputs, the smallest distance of a ReLU's input from its bend)."""
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}
    x = np.asarray(x, np.float64)
    steps, number, bend = [], 0, np.inf
    for word in words:
        if word.split()[0] in ("affine", "doubled", "scale"):
            number += 1
        if word in ("relu", "leaky_relu"):
            bend = min(bend, float(np.abs(x).min(initial=np.inf)))
        x, step = _forward(word, x, params, number)
        steps.append(step)
    value, dout = _loss(loss, x, t)
    gradients, y = {}, x
    for step in reversed(steps):
        dout = step(dout, gradients)
    return value, gradients, y, bend


def _forward(word, x, params, number):
    """The output of one layer, and the function that goes back through it."""
    kind = word.split()[0]
    if kind in ("affine", "doubled"):
        factor, W, b = 1 + (kind == "doubled"), params[f"W{number}"], params[f"b{number}"]

        def back_affine(dout, gradients):
            dx, dW, db = reference.affine_backward(factor * dout, x, W)
            gradients.update({f"W{number}": dW, f"b{number}": db})
            return dx

        return factor * reference.affine_forward(x, W, b), back_affine
    if kind == "scale":
        a, c = params[f"a{number}"], params[f"c{number}"]

        def back_scale(dout, gradients):
            gradients.update({f"a{number}": (dout * x).sum(axis=0), f"c{number}": dout.sum(axis=0)})
            return dout * a

        return a * x + c, back_scale
    if kind == "flatten":
        return x.reshape(len(x), -1), lambda dout, _: dout.reshape(x.shape)
    if kind == "sine":
        return np.sin(x), lambda dout, _: dout * np.cos(x)
    name, more = ("sigmoid", ()) if kind == "shifted" else (kind, ())
    if kind == "leaky_relu":
        more = (SLOPE,)
    y = getattr(reference, f"{name}_forward")(x, *more)
    kept = y - 0.5 if kind == "shifted" else y
    return kept, lambda dout, _: getattr(reference, f"{name}_backward")(dout, y, *more)


def _loss(name, y, t):
    if name == "log_cosh":
        difference = y - t
        return np.log(np.cosh(difference)).mean(), np.tanh(difference) / difference.size
    return getattr(reference, name)(y, t)


def one_by_one(net, x, t):
    """Outputs, loss and gradients of copies of the layers, each called by itself."""
    layers, loss = copy.deepcopy(net.layers), copy.deepcopy(net.loss_function)
    y = x
    for layer in layers:
        y = layer.forward(y, training=True)
    value = loss.forward(y, t)
    dout = loss.backward().astype(y.dtype)
    for layer in reversed(layers):
        dout = layer.backward(dout)
    gradients, number = {}, 0
    for layer in layers:
        if getattr(layer, "params", None):
            number += 1
            gradients.update({f"{key}{number}": layer.grads[key] for key in layer.params})
    return y, value, gradients


def assert_gradients(actual, expected, dtype, note="", tolerance=None, rounding=0.0):
    """Compare two dicts of gradients, relative to the largest element of each.

    rounding : how far off the expected values may be, all of them.
    """
    assert set(actual) == set(expected), note
    tolerance = TOLERANCE[str(np.dtype(dtype))] if tolerance is None else tolerance
    for name, value in expected.items():
        assert actual[name].dtype == np.dtype(dtype), (note, name)
        assert actual[name].shape == value.shape, (note, name)
        largest = float(np.abs(value).max(initial=0.0))
        error = float(np.abs(actual[name] - value).max(initial=0.0))
        allowed = tolerance * max(largest, 1e-3) + rounding
        assert error <= allowed, (note, name, error, largest)
