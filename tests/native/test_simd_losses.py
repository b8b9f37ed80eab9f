"""The micro-kernels of the losses: values, gradients, NaN and infinity, guards, on every table."""

import numpy as np
import pytest

import reference
from reference import TIGHT, assert_close, random_array, same_bits

ELEMENTWISE = ("binary_cross_entropy", "squared_error")


def weights(rng, shape, dtype):
    """Weights of the classes along the first axis, some of them 0, that sum to 1 or nearly so."""
    t = rng.uniform(size=shape) * (rng.random(shape) < 0.7)
    return (t / np.maximum(t.sum(axis=0), 0.1)).astype(dtype)


def expected_cross_entropy(x, t, scale):
    """Of one row, by the plain reference."""
    t = np.array([t]) if np.ndim(t) == 0 else t[None]
    loss, dx = reference.softmax_cross_entropy(x[None], t, reduction="sum")
    return loss, scale * dx[0]


# ---- one row at a time ---------------------------------------------------------------------------


def test_softmax_cross_entropy_at_edge_sizes(kernels, rng):
    dtype = kernels.dtype
    for n in kernels.sizes()[1:]:
        x = 3 * random_array(rng, n, dtype)
        for t in (0, n // 2, n - 1, weights(rng, n, dtype), np.zeros(n, dtype)):
            loss, dx = kernels.softmax_cross_entropy(x, t, 0.25)
            expected, gradient = expected_cross_entropy(x, t, 0.25)
            assert abs(loss - expected) <= TIGHT[str(dtype)] * (10 + expected), f"n={n}"
            size = np.full(n, 0.25 * 4)
            assert_close(dx, gradient, dtype, magnitude=size, table=TIGHT, note=f"n={n} t={t}")
            alone, _ = kernels.softmax_cross_entropy(x, t, 0.25, gradient=False)
            assert alone == loss, "without its gradient the loss is another"


def test_a_row_per_lane_at_edge_sizes(kernels, rng):
    """Each lane is the softmax cross entropy of its row, whatever stands in the other lanes."""
    dtype, lanes = kernels.dtype, kernels.lanes
    for n in (1, 2, 3, 10, 63, 64):
        x = 3 * random_array(rng, (n, lanes), dtype)
        labels, scales = rng.integers(0, n, lanes), rng.uniform(0.1, 2, lanes)
        losses, correct, dx = kernels.cross_entropy_lanes(x, labels, scales)
        for i in range(lanes):
            expected, gradient = expected_cross_entropy(x[:, i], labels[i], scales[i])
            assert abs(losses[i] - expected) <= TIGHT[str(dtype)] * (10 + expected), f"n={n} i={i}"
            size = np.full(n, 4 * scales[i])
            assert_close(dx[:, i], gradient, dtype, magnitude=size, table=TIGHT, note=f"n={n}")
            assert correct[i] == (np.argmax(x[:, i]) == labels[i])
        alone, hits, _ = kernels.cross_entropy_lanes(x, labels, scales, gradient=False)
        assert same_bits(alone, losses) and (hits == correct).all()
        others = np.full_like(x, np.nan)
        others[:, 0] = x[:, 0]
        first = kernels.cross_entropy_lanes(others, labels, scales)
        assert first[0][0] == losses[0] and same_bits(first[2][:, 0], dx[:, 0])


def test_strange_scores_in_a_lane(kernels):
    """Ties go to the first class; a row with a NaN is never correct, one with infinity may be."""
    lanes, inf, nan = kernels.lanes, np.inf, np.nan
    cases = [  # scores, label, correct, loss
        ([2, 2, 1], 0, 1, np.log(2 + np.exp(-1))),
        ([2, 2, 1], 1, 0, np.log(2 + np.exp(-1))),
        ([nan, 1, 0], 1, 0, nan),
        ([1, 0, nan], 0, 0, nan),
        ([-inf, 0, -inf], 1, 1, 0.0),
        ([-inf, 0, 0], 0, 0, inf),
        ([inf, 0, 0], 0, 1, nan),
        ([1e30, -1e30, 0], 0, 1, 0.0),
    ]
    for scores, label, right, loss in cases:
        x = np.zeros((3, lanes), kernels.dtype)
        x[:, lanes - 1] = scores
        labels = np.full(lanes, label)
        losses, correct, _ = kernels.cross_entropy_lanes(x, labels, np.ones(lanes))
        assert correct[-1] == right, scores
        assert losses[-1] == pytest.approx(loss, rel=1e-6, nan_ok=True), scores


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_losses_at_edge_sizes(kernels, rng, name):
    dtype = kernels.dtype
    plain = {"squared_error": "mean_squared_error"}.get(name, name)
    for n in kernels.sizes():
        x, t = 3 * random_array(rng, n, dtype), rng.uniform(size=n).astype(dtype)
        loss, dx = getattr(kernels, name)(x, t, 0.25)
        expected, gradient = getattr(reference, plain)(x, t, reduction="sum")
        if name == "squared_error":
            gradient = gradient / 2
        assert loss == pytest.approx(expected, rel=1e-13, abs=0), "not summed in float64"
        size = 0.25 * (np.abs(x) + 1)
        assert_close(dx, 0.25 * gradient, dtype, magnitude=size, table=TIGHT, note=f"n={n}")
        assert getattr(kernels, name)(x, t, 0.25, gradient=False)[0] == loss


def test_losses_of_far_scores_are_finite(kernels):
    far = kernels.dtype.type(1e30)
    for n in kernels.sizes()[2:]:
        x = np.full(n, -far, kernels.dtype)
        x[n // 2] = far
        loss, dx = kernels.softmax_cross_entropy(x, n // 2)
        assert loss == 0 and not dx.any()
        loss, dx = kernels.softmax_cross_entropy(x, 0 if n // 2 else n - 1)
        assert loss == float(far) - float(-far) and np.isfinite(dx).all()
        t = (x > 0).astype(kernels.dtype)
        loss, dx = kernels.binary_cross_entropy(x, t)
        assert loss == 0 and not dx.any()
        loss, dx = kernels.binary_cross_entropy(x, 1 - t)
        assert loss == pytest.approx(n * float(far)) and np.isfinite(dx).all()


def test_an_impossible_class_costs_only_who_asks_for_it(kernels):
    for n in kernels.sizes()[2:]:
        x, t = np.zeros(n, kernels.dtype), np.zeros(n, kernels.dtype)
        x[0], t[-1] = -np.inf, 1
        for target in (n - 1, t):
            loss, dx = kernels.softmax_cross_entropy(x, target)
            assert loss == pytest.approx(np.log(n - 1), abs=1e-6) and np.isfinite(dx).all()
        assert kernels.softmax_cross_entropy(x, 0)[0] == np.inf


def test_nan_makes_the_loss_nan(kernels):
    for n in kernels.sizes()[1:]:
        for place in range(n):
            x, t = np.zeros(n, kernels.dtype), np.zeros(n, kernels.dtype)
            x[place], t[0] = np.nan, 1
            for target in (0, n - 1, t, 0 * t):
                loss, dx = kernels.softmax_cross_entropy(x, target)
                assert np.isnan(loss) and np.isnan(dx).all(), f"n={n} place={place}"
            for name in ELEMENTWISE:
                for scores, targets in ((x, t), (t, x)):
                    loss, dx = getattr(kernels, name)(scores, targets)
                    assert np.isnan(loss), f"{name} n={n} place={place}"
                    assert np.flatnonzero(np.isnan(dx)).tolist() == [place], f"{name} n={n}"


# ---- one row per column --------------------------------------------------------------------------


def expected_columns(x, t):
    """The losses of the columns of x, by the plain reference."""
    targets = [int(label) for label in t] if np.ndim(t) == 1 else list(t.T)
    return np.array([expected_cross_entropy(x[:, i], targets[i], 1)[0] for i in range(x.shape[1])])


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 33])
def test_columns_at_edge_sizes(kernels, rng, classes):
    dtype = kernels.dtype
    for m in kernels.sizes():
        x = 3 * random_array(rng, (classes, m), dtype)
        for t in (rng.integers(0, classes, m), weights(rng, (classes, m), dtype)):
            losses = kernels.cross_entropy_columns(x, t)
            expected, size = expected_columns(x, t), np.full(m, 20.0)
            note = f"C={classes} m={m} t={t.ndim}-dimensional"
            assert_close(losses, expected, dtype, magnitude=size, table=TIGHT, note=note)


def test_a_column_does_not_depend_on_where_it_stands(kernels, rng):
    x = random_array(rng, (10, 3 * kernels.lanes + 2), kernels.dtype)
    t = rng.integers(0, 10, x.shape[1])
    losses = kernels.cross_entropy_columns(x, t)
    for begin in range(0, x.shape[1], 3):
        for end in range(begin + 1, x.shape[1] + 1, 4):
            part = kernels.cross_entropy_columns(
                np.ascontiguousarray(x[:, begin:end]), t[begin:end]
            )
            assert same_bits(part, losses[begin:end])


def test_nan_stays_in_its_column(kernels):
    for m in kernels.sizes()[1:]:
        for column in range(m):
            for row in range(3):
                x = np.zeros((3, m), kernels.dtype)
                x[row, column] = np.nan
                first = np.zeros((3, m), kernels.dtype)
                first[0] = 1
                for t in (np.zeros(m, np.int64), first, 0 * first):
                    nan = np.isnan(kernels.cross_entropy_columns(x, t))
                    assert np.flatnonzero(nan).tolist() == [column], f"m={m} row={row}"


def test_impossible_classes_and_far_scores_in_columns(kernels):
    far = 1e30
    x = np.array([[0, -np.inf, far, -far, -np.inf], [0, 0, -far, far, -np.inf]], kernels.dtype)
    second = np.zeros_like(x)
    second[1] = 1
    expected = [np.log(2), 0, float(kernels.dtype.type(far)) * 2, 0, np.nan]
    for t in (np.ones(5, np.int64), second):
        losses = kernels.cross_entropy_columns(x, t)
        assert np.allclose(losses, expected, rtol=TIGHT[str(kernels.dtype)], equal_nan=True)
    assert kernels.cross_entropy_columns(x, np.zeros(5, np.int64))[1] == np.inf
