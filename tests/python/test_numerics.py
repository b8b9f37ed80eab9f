"""Numbers at their limits: sums over 100,000 rows, and subnormal numbers, which count as zero.

Extreme scores and targets stand in test_ops_losses.py and test_ops_activations.py, learning rates
in test_stop_on_nan.py.
"""

import numpy as np
import pytest

import cnn_core as cc
from reference_network import make, make_batch

ROWS = 100_000


# ---- float32 against float64 ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    """Positive numbers, whose sums grow all the way; labels."""
    rng = np.random.default_rng(0)
    return rng.random((ROWS, 20), np.float32), rng.integers(0, 10, ROWS)


def both(layers, shape, loss=None):
    """The same network in float32 and in float64, with the same parameters."""
    nets = [
        cc.Sequential(layers(), input_shape=shape, loss=loss and loss(), dtype=dtype)
        for dtype in ("float32", "float64")
    ]
    nets[1].flat_params[...] = nets[0].flat_params
    return nets


def relative(actual, exact):
    return float(np.abs(actual / exact - 1).max())


def test_gradients_of_a_dense_layer(rows):
    x, dout = rows[0], rows[0][::-1, :10]
    dW, db = cc.ops.affine_backward(dout, x, np.zeros((20, 10), np.float32))[1:]
    wide = x.astype(np.float64), dout.astype(np.float64)
    assert relative(dW, wide[0].T @ wide[1]) < 5e-5
    assert relative(db, wide[1].sum(axis=0)) < 2e-6


def test_a_sum_over_many_inputs(rows):
    x, W = rows[0].T, rows[0][::-1, :10]
    y = cc.ops.affine_forward(x, W, np.zeros(10, np.float32))
    assert relative(y, x.astype(np.float64) @ W) < 5e-5


@pytest.mark.parametrize(
    "loss",
    [cc.SoftmaxCrossEntropy, cc.BinaryCrossEntropy, cc.MeanSquaredError, cc.SumSquaredError],
)
@pytest.mark.parametrize("training", [False, True])
def test_losses_and_accuracies(rows, loss, training):
    x, t = rows
    net, wide = both(lambda: [cc.Affine(10)], (20,), loss)
    t = t if loss is cc.SoftmaxCrossEntropy else x[:, 10:]
    expected = wide.loss(x, t, training=training)
    assert net.loss(x, t, training=training) == pytest.approx(expected, rel=1e-7)
    assert abs(net.accuracy(x, t) - wide.accuracy(x, t)) <= 3 / ROWS


def test_a_loss_is_the_sum_of_those_of_the_rows(rows):
    """Summed in float64: the same to the last digits however many rows there are."""
    x, t = rows
    net = both(lambda: [cc.Affine(10)], (20,))[0]
    parts = [net.loss(x[i : i + 100], t[i : i + 100]) for i in range(0, ROWS, 100)]
    assert net.loss(x, t) == pytest.approx(np.mean(parts), rel=1e-13)


@pytest.mark.parametrize(("mean", "bound"), [(0, 2e-6), (3, 2e-6), (100, 1e-5), (1000, 1e-4)])
def test_the_statistics_of_a_batch(mean, bound):
    rng = np.random.default_rng(mean)
    x = (rng.standard_normal((ROWS, 7)) + mean).astype(np.float32)
    net = cc.Sequential([cc.BatchNorm(momentum=1)], input_shape=(7,), loss=cc.MeanSquaredError())
    net.forward(x, training=True)
    wide = x.astype(np.float64)
    assert np.abs(net.state["running_mean1"] - wide.mean(axis=0)).max() < 1e-6 * max(mean, 1)
    assert relative(net.state["running_var1"], wide.var(axis=0, ddof=1)) < bound


def test_gradients_of_images():
    """100,000 pixels per sum."""
    rng = np.random.default_rng(0)
    x, t = rng.random((1000, 3, 12, 12), np.float32), -2 - rng.random((1000, 4, 10, 10))
    layers = lambda: [cc.Conv2D(4, 3), cc.BatchNorm()]  # noqa: E731
    net, wide = both(layers, (3, 12, 12), cc.SumSquaredError)
    exact = wide.gradient(x, t)
    for name, gradient in net.gradient(x, t).items():
        assert np.abs(gradient - exact[name]).max() < 2e-5 * np.abs(t).sum(), name
    mean = cc.Sequential([cc.GlobalAvgPool2D()], input_shape=(2, 320, 320))
    x = rng.random((2, 2, 320, 320), np.float32)
    assert relative(mean.forward(x), x.astype(np.float64).mean((2, 3))) < 2e-5


def test_a_softmax_over_many_classes(rows):
    y = cc.ops.softmax_forward(8 * rows[0].T)
    assert np.abs(y.sum(axis=1, dtype=np.float64) - 1).max() < 5e-6


# ---- subnormal numbers ---------------------------------------------------------------------------


def subnormal(array):
    """Whether there are any; from the bits, as arithmetic may take them for zero."""
    magnitude = np.abs(array)
    return bool(((magnitude < np.finfo(array.dtype).tiny) & (magnitude > 0)).any())


DECAYING = {
    "velocity": lambda: cc.SGD(0.1, momentum=0.9),
    "nesterov": lambda: cc.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: cc.Adam(beta1=0.7, beta2=0.8),
    "adamw": lambda: cc.AdamW(beta1=0.7, beta2=0.8),
    "rmsprop": lambda: cc.RMSprop(decay_rate=0.7, momentum=0.9),
}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", DECAYING)
def test_what_an_optimizer_has_accumulated_becomes_no_subnormal_number(kind, count, threads):
    """Such numbers made each later step take more than twice as long."""
    threads(count)
    net = make(["affine 200", "relu", "affine 4"], input_shape=(300,), dtype="float32")
    trainer = cc.Trainer(net, DECAYING[kind]())
    x, t = make_batch(net, 5)
    trainer.step(x, t)
    n = net.params["W1"].size  # the gradient of W1 is zero from now on
    moments = [v for v in trainer.optimizer.state().values() if v.size > 1]
    assert all(moment[:n].any() for moment in moments)
    for step in range(1200):
        trainer.step(x * 0, t)
        if step % 20 == 0:
            assert not any(subnormal(moment[:n]) for moment in moments)
    # Where it is m - (1 - beta) m, it ends as soon as the second part is zero.
    assert max(np.abs(moment[:n]).max() for moment in moments) < 10 * np.finfo(np.float32).tiny


@pytest.mark.parametrize("count", [1, 3])
def test_they_count_again_for_who_has_called(count, threads):
    threads(count)
    net = make(["affine 300", "tanh", "affine 4"], input_shape=(700,), dtype="float32")
    x, t = make_batch(net, 100)
    half = np.full(2, np.finfo(np.float32).tiny) / 2
    seen = []

    class Halves(cc.Layer):
        def forward(self, x, training=False):
            seen.append((half / 2).copy())
            return x

        def backward(self, dout):
            seen.append((half / 2).copy())
            return dout

    own = cc.Sequential([cc.Affine(300), Halves(), cc.Affine(4)], input_shape=(700,))
    for each in (net, own):
        cc.Trainer(each, cc.Adam()).fit(x, t, epochs=2, verbose=False)
        each.predict(x)
        seen.append((half / 2).copy())
    assert len(seen) > 5 and all((values * 4 == half * 2).all() and values.all() for values in seen)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scores_far_below_the_largest_one(dtype):
    """A softmax's share that would be subnormal is zero, and so is its gradient."""
    lowest = np.log(float(np.finfo(dtype).smallest_subnormal))
    scores = np.linspace(lowest, 0, 57)[np.newaxis].astype(dtype)
    y = cc.ops.softmax_forward(scores)
    assert not subnormal(y)
    loss, gradient = cc.ops.softmax_cross_entropy(scores, np.array([3]))
    assert not subnormal(gradient) and loss == pytest.approx(-float(scores[0, 3]), rel=0.01)
