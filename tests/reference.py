"""Plain references for ``cnn_core.ops``, and the few tools that the tests share.

Every function here has the name, the arguments and the meaning of its fast twin in ``cnn_core.ops``
(without ``out=``). Arguments of any float dtype are taken to float64 first and the results stay in
float64, so that a comparison measures the rounding of the fast kernel and nothing else.
"""

import numpy as np

DTYPES = ("float32", "float64")

# Sizes around the widths of vectors and of register blocks, where a kernel's tails begin and end.
SIZES = (
    *(1, 2, 5, 6, 7, 12, 13, 15, 16, 17, 31, 32, 33),
    *(47, 48, 49, 50, 63, 64, 65, 100, 128, 129, 257),
)

# Largest error allowed, relative to the sum of the absolute values of the terms (see assert_close).
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}

# The same for what needs a handful of roundings only: an activation, an update, a scaled row.
TIGHT = {"float32": 1e-6, "float64": 2e-15}

# Ways of storing the same values; "broadcast" and "constant" repeat some of them with stride 0.
LAYOUTS = (
    *("c", "fortran", "reversed", "strided", "columns"),
    *("broadcast", "constant", "unaligned", "readonly"),
)


# ---- affine --------------------------------------------------------------------------------------


def affine_forward(x, W, b=None, *, activation=None, slope=0.01):
    """y = activation(x W + b): (N, I), (I, O), (O,) -> (N, O)."""
    y = _float64(x) @ _float64(W)
    if b is not None:
        y = y + _float64(b)
    if activation is None:
        return y
    if activation == "leaky_relu":
        return leaky_relu_forward(y, slope)
    return {"sigmoid": sigmoid_forward, "tanh": tanh_forward, "relu": relu_forward}[activation](y)


def affine_magnitude(x, W, b=None):
    """|x| |W| + |b|: the scale of the rounding errors of ``affine_forward``."""
    return affine_forward(np.abs(x), np.abs(W), None if b is None else np.abs(b))


def affine_backward(dout, x, W):
    """dx = dout W^T (N, I); dW = x^T dout (I, O); db = the sum of dout over the samples (O,)."""
    dout, x, W = _float64(dout), _float64(x), _float64(W)
    return dout @ W.T, x.T @ dout, dout.sum(axis=0)


# ---- activations ---------------------------------------------------------------------------------


def sigmoid_forward(x):
    """y = 1 / (1 + exp(-x))."""
    x = _float64(x)
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x < 0, e / (1 + e), 1 / (1 + e))


def sigmoid_backward(dout, y):
    """dx = dout y (1 - y)."""
    dout, y = _float64(dout), _float64(y)
    return dout * y * (1 - y)


def tanh_forward(x):
    """y = tanh(x)."""
    return np.tanh(_float64(x))


def tanh_backward(dout, y):
    """dx = dout (1 - y^2)."""
    dout, y = _float64(dout), _float64(y)
    return dout * (1 - y) * (1 + y)


def relu_forward(x):
    """y = x where x > 0, else 0; NaN stays NaN."""
    return np.maximum(_float64(x), 0.0)


def relu_backward(dout, y):
    """dx = 0 where y <= 0, whatever dout is, else dout (where y is NaN, too)."""
    dout, y = _float64(dout), _float64(y)
    return np.where(y <= 0, 0.0, dout)


def leaky_relu_forward(x, slope=0.01):
    """y = x where x > 0, else slope x."""
    x = _float64(x)
    return x * np.where(x > 0, 1.0, slope)


def leaky_relu_backward(dout, y, slope=0.01):
    """dx = slope dout where y <= 0, else dout (where y is NaN, too)."""
    dout, y = _float64(dout), _float64(y)
    return dout * np.where(y <= 0, slope, 1.0)


def softmax_forward(x):
    """y = exp(x) / sum(exp(x)) along the last axis."""
    e = np.exp(_below_maximum(_float64(x)))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dout, y):
    """dx = y (dout - sum(dout y)) along the last axis."""
    dout, y = _float64(dout), _float64(y)
    return y * (dout - (dout * y).sum(axis=-1, keepdims=True))


# ---- losses --------------------------------------------------------------------------------------


def softmax_cross_entropy(scores, t, *, reduction="mean"):
    """loss = -sum(t log softmax(scores)); t is (N,) labels or (N, C) rows; "mean" divides by N."""
    scores, t = _float64(scores), np.asarray(t)
    rows = _one_hot(t, scores.shape[1]) if t.ndim == 1 else _float64(t)
    shifted = _below_maximum(scores)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    # A class of probability 0 that nobody asked for costs nothing: 0 * -inf is 0 here.
    terms = np.where((rows == 0) & ~np.isnan(log_p), 0.0, -rows * log_p)
    gradient = softmax_forward(scores) * rows.sum(axis=1, keepdims=True) - rows
    return _reduce(terms, gradient, reduction, len(scores))


def binary_cross_entropy(scores, t, *, reduction="mean"):
    """loss = -sum(t log y + (1 - t) log(1 - y)), y = sigmoid(scores); "mean": over all."""
    scores, t = _float64(scores), _float64(t)
    terms = np.maximum(scores, 0) - scores * t + np.log1p(np.exp(-np.abs(scores)))
    return _reduce(terms, sigmoid_forward(scores) - t, reduction, scores.size)


def mean_squared_error(y, t, *, reduction="mean"):
    """loss = sum((y - t)^2); "mean" divides by the number of elements."""
    difference = _float64(y) - _float64(t)
    return _reduce(difference**2, 2 * difference, reduction, difference.size)


def sum_squared_error(y, t, *, reduction="mean"):
    """loss = 1/2 sum((y - t)^2); "mean" divides by N, the number of samples."""
    difference = _float64(y) - _float64(t)
    return _reduce(0.5 * difference**2, difference, reduction, len(difference))


def _below_maximum(x):
    """x less the maximum of its row, so that exp() cannot overflow and some exp() is 1."""
    return x - x.max(axis=-1, keepdims=True)


def _one_hot(t, classes):
    """Rows of zeros with a one at each label."""
    rows = np.zeros((len(t), classes))
    for row, label in enumerate(t):
        rows[row, label] = 1
    return rows


def _reduce(terms, gradient, reduction, count):
    """Add up the terms; "mean" divides the loss and its gradient by count."""
    divisor = {"mean": count, "sum": 1}[reduction]
    return float(terms.sum()) / divisor, gradient / divisor


# ---- rows and updates ----------------------------------------------------------------------------


def gather_rows(source, indices, *, scale=1.0):
    """The rows source[indices] times scale."""
    source = np.asarray(source)
    rows = np.empty((len(indices), *source.shape[1:]))
    for row, index in enumerate(indices):
        rows[row] = source[index] * np.float64(scale)
    return rows


def sgd_update(
    params, grads, lr, *, momentum=0.0, nesterov=False, weight_decay=0.0, decay=0.0, velocity=None
):
    """Return the new (params, velocity) of PyTorch's SGD; the arguments stay as they are.

    decay : the share of params that goes besides, past the velocity.
    """
    p, g = _float64(params), _float64(grads)
    g = g + weight_decay * p
    v = g if velocity is None else momentum * _float64(velocity) + g
    step = g + momentum * v if nesterov else v
    return p - decay * p - lr * step, v


# ---- gradients by central differences ------------------------------------------------------------


def numerical_gradient(f, x, h=1e-4):
    """The gradient of the scalar f() with respect to the array x, which is perturbed in place.

    As in the book: each element in turn is moved by +h and -h, f is evaluated, the element is put
    back, and (f(x + h) - f(x - h)) / 2h is its derivative.
    """
    gradient = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        before = x[index]
        x[index] = before + h
        above = f()
        x[index] = before - h
        below = f()
        x[index] = before
        gradient[index] = (above - below) / (2 * h)
    return gradient


def check_gradient(forward, backward, arguments, *, seed=0, h=1e-5, rtol=1e-7):
    """Compare backward with the central differences of sum(forward(*arguments) * dout).

    forward(*arguments) gives an array and backward(dout, *arguments) one gradient per argument;
    dout is random (seeded): a sum without weights would be blind for softmax, whose sum is 1.
    The arguments must be writeable float64 arrays.
    """
    assert all(a.dtype == np.float64 for a in arguments), "central differences need float64"
    dout = np.random.default_rng(seed).standard_normal(np.shape(forward(*arguments)))
    gradients = backward(dout.copy(), *arguments)
    assert len(gradients) == len(arguments)
    for number, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        expected = numerical_gradient(lambda: np.sum(forward(*arguments) * dout), argument, h)
        scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
        np.testing.assert_allclose(
            gradient, expected, rtol=0, atol=rtol * scale, err_msg=f"argument {number}"
        )


# ---- tools of the tests --------------------------------------------------------------------------


def random_array(rng, shape, dtype):
    """Normal random numbers of the given shape and dtype."""
    return rng.standard_normal(shape).astype(dtype)


def lay_out(values, layout):
    """Store values in one of LAYOUTS; the gaps between strided elements hold NaN (integers: 77)."""
    values = np.asarray(values)
    gap = np.nan if values.dtype.kind == "f" else 77
    if layout == "fortran":
        return np.array(values, order="F")
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * values.ndim
        return np.array(values[backwards], order="C")[backwards]
    if layout in ("strided", "columns"):
        every = 2 if layout == "strided" else 1
        store = np.full([2 * size + 1 for size in values.shape], gap, values.dtype)
        view = store[tuple(slice(1, 1 + every * size, every) for size in values.shape)]
        view[...] = values
        return view
    if layout in ("broadcast", "constant") and values.size and values.ndim:
        first = values[:1] if layout == "broadcast" else values.ravel()[0]
        return np.broadcast_to(first, values.shape)
    if layout == "unaligned":
        store = np.zeros(values.nbytes + 1, np.uint8)
        view = store[1:].view(values.dtype).reshape(values.shape)
        view[...] = values
        return view
    copy = np.array(values, order="C")
    copy.flags.writeable = layout != "readonly"
    return copy


class Unchanged:
    """A context that fails when one of the arrays has changed by its end, NaN included."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __enter__(self):
        self.before = [array.tobytes() for array in self.arrays]

    def __exit__(self, kind, error, traceback):
        if kind is None:
            for number, (array, before) in enumerate(zip(self.arrays, self.before, strict=True)):
                assert array.tobytes() == before, f"array {number} has been written to"


def assert_close(actual, expected, dtype, *, magnitude=None, terms=1, table=TOLERANCE, note=""):
    """Compare actual with expected: type, shape, dtype, and every element.

    The error allowed is table[dtype] * magnitude, where magnitude is the sum of the absolute
    values of the terms behind an element (default: |expected|), times terms / 256 for long sums.
    """
    assert isinstance(actual, (np.ndarray, np.generic)), note
    assert actual.dtype == np.dtype(dtype), note
    assert actual.shape == np.shape(expected), note
    magnitude = np.abs(expected) if magnitude is None else magnitude
    smallest = float(np.finfo(dtype).smallest_subnormal)
    allowed = table[str(np.dtype(dtype))] * max(1.0, terms / 256) * magnitude + smallest
    with np.errstate(invalid="ignore"):  # inf - inf, where both are infinite
        close = np.abs(actual.astype(np.float64) - expected) <= allowed
    good = close | (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    if not np.all(good):
        worst = tuple(int(i) for i in np.argwhere(~good)[0])
        count = int(np.size(good) - np.count_nonzero(good))
        raise AssertionError(
            f"{note} {count} of {np.size(good)} elements differ, the first at {worst}: "
            f"{actual[worst]!r}, expected {np.asarray(expected)[worst]!r}"
        )


def ulps(actual, exact):
    """The error of actual in units of the last place of exact, which has a higher precision."""
    rounded = np.abs(exact).astype(actual.dtype)
    with np.errstate(invalid="ignore"):
        error = np.abs(actual.astype(exact.dtype) - exact) / np.spacing(rounded).astype(exact.dtype)
    return np.where(actual == rounded * np.sign(exact), 0, error)


def same_bits(a, b):
    """Whether two arrays agree in dtype, shape and every bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _float64(values):
    return np.asarray(values).astype(np.float64)
