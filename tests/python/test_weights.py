"""Weights of rows and classes: losses, gradients, steps and fits against plain sums and PyTorch."""

import numpy as np
import pytest

import cnn_core as cc
from reference import DTYPES, Unchanged, same_bits
from reference_network import LOSSES, make, make_batch

WORDS = ["affine 8", "tanh", "affine 4"]
CUT = ["affine 8", "sine", "affine 4"]  # a layer in plain Python: several programs per step
COMPILED = [name for name in LOSSES if name != "log_cosh"]
FIT = {"batch_size": 10, "verbose": False}
by_loss = pytest.mark.parametrize("loss", COMPILED)


def weights_of(n, seed=0):
    weights = np.random.default_rng([seed, n]).uniform(0.1, 3, n)
    weights[n // 2] = 0
    return weights


def with_reduction(words, loss, reduction, **more):
    net = make(words, loss=loss, **more)
    net.loss_function = LOSSES[loss](reduction)
    return net


# ---- losses and gradients ------------------------------------------------------------------------


@by_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [False, True])
def test_a_mean_divides_by_the_number_of_rows(loss, reduction, rows):
    net = with_reduction(WORDS, loss, reduction)
    for n in (1, 2, 49, 513):  # more rows than are computed at once
        x, t = make_batch(net, n, loss, rows=rows)
        weights = weights_of(n)
        each = np.array([net.loss(x[i : i + 1], t[i : i + 1]) for i in range(n)])
        expected = (weights * each).sum() / (n if reduction == "mean" else 1)
        with Unchanged(x, t, weights):
            value, accuracy = net.evaluate(x, t, weights)
            training = net.loss(x, t, training=True, sample_weight=weights)
        assert value == pytest.approx(expected, rel=1e-12)
        assert training == pytest.approx(expected, rel=1e-12)
        assert value == net.loss(x, t, sample_weight=weights)
        assert accuracy == net.accuracy(x, t)


@by_loss
@pytest.mark.parametrize("words", [WORDS, CUT], ids=["compiled", "cut"])
def test_the_gradient_is_that_of_the_weighted_loss(loss, words):
    net = make(words, loss=loss)
    x, t = make_batch(net, 12, loss)
    weights = weights_of(12)
    found = net.gradient(x, t, sample_weight=weights)
    numerical = net.numerical_gradient(x, t, h=1e-5, sample_weight=weights)
    for name, value in found.items():
        size = np.abs(numerical[name]).max()
        np.testing.assert_allclose(value, numerical[name], rtol=1e-6, atol=1e-8 * size)
    plain = net.gradient(x, t)
    assert not np.allclose(found["W1"], plain["W1"], rtol=0.01, atol=0)


@by_loss
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_one_change_no_bit_and_others_repeat_rows(loss, dtype):
    net = with_reduction(WORDS, loss, "sum", dtype=dtype)
    x, t = make_batch(net, 9, loss)
    ones = np.ones(9, int)
    for name, value in net.gradient(x, t).items():
        assert same_bits(net.gradient(x, t, sample_weight=ones)[name], value)
    assert net.loss(x, t, sample_weight=ones) == net.loss(x, t)
    times = np.array([0, 1, 2, 3, 0, 1, 1, 2, 4])
    repeated = net.gradient(np.repeat(x, times, axis=0), np.repeat(t, times, axis=0))
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    for name, value in net.gradient(x, t, sample_weight=times).items():
        scale = np.abs(repeated[name]).max()
        np.testing.assert_allclose(value, repeated[name], rtol=0, atol=tolerance * scale)


def torch_losses(torch, loss, y, t, weights):
    """The loss of each row by PyTorch times its weight, over the number of rows or elements."""
    functional, n = torch.nn.functional, len(y)
    if loss == "softmax_cross_entropy":
        return (functional.cross_entropy(y, t, reduction="none") * weights).sum() / n
    if loss == "binary_cross_entropy":
        each = functional.binary_cross_entropy_with_logits(y, t, reduction="none")
        return (each.mean(1) * weights).sum() / n
    each = functional.mse_loss(y, t, reduction="none")
    half = loss == "sum_squared_error"
    return ((each.sum(1) / 2 if half else each.mean(1)) * weights).sum() / n


@by_loss
def test_loss_and_gradients_equal_pytorchs(loss):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = make(WORDS, loss=loss)
    x, t = make_batch(net, 33, loss)
    weights = weights_of(33)
    theirs = {name: torch.tensor(v.copy(), requires_grad=True) for name, v in net.params.items()}
    hidden = torch.tanh(torch.tensor(x) @ theirs["W1"] + theirs["b1"])
    y = hidden @ theirs["W2"] + theirs["b2"]
    value = torch_losses(torch, loss, y, torch.tensor(t), torch.tensor(weights))
    value.backward()
    assert net.loss(x, t, sample_weight=weights) == pytest.approx(value.item(), rel=1e-12)
    for name, gradient in net.gradient(x, t, sample_weight=weights).items():
        np.testing.assert_allclose(gradient, theirs[name].grad.numpy(), rtol=1e-11, atol=1e-15)


def test_class_weights_are_pytorchs_but_for_the_divisor():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net, by_class = make(WORDS), [0.5, 2.0, 0.0, 1.25]
    x, t = make_batch(net, 33)
    y, labels = torch.tensor(net.predict(x)), torch.tensor(t)
    summed = torch.nn.CrossEntropyLoss(torch.tensor(by_class, dtype=y.dtype), reduction="sum")
    value = net.evaluate(x, t, class_weight=by_class)[0]
    assert value == pytest.approx(summed(y, labels).item() / 33, rel=1e-12)
    mean = torch.nn.CrossEntropyLoss(torch.tensor(by_class, dtype=y.dtype))
    total = np.take(by_class, t).sum()
    assert value * 33 / total == pytest.approx(mean(y, labels).item(), rel=1e-12)


# ---- weights by class ----------------------------------------------------------------------------

T = np.array([0, 2, 2, 0, 0, 2, 0, 0])


@pytest.mark.parametrize(
    ("by_class", "expected"),
    [
        ({0: 0.5, 2: 3}, [0.5, 3, 3, 0.5, 0.5, 3, 0.5, 0.5]),
        ({2: 3}, [1, 3, 3, 1, 1, 3, 1, 1]),
        ({}, np.ones(8)),
        ([2, 1, 4, 9], [2, 4, 4, 2, 2, 4, 2, 2]),
        (np.array([2, 1, 4, 9], np.float32), [2, 4, 4, 2, 2, 4, 2, 2]),
        ("balanced", [0.8, 4 / 3, 4 / 3, 0.8, 0.8, 4 / 3, 0.8, 0.8]),  # 8 / (2 * 5), 8 / (2 * 3)
    ],
    ids=str,
)
@pytest.mark.parametrize("one_hot", [False, True])
def test_weights_by_class_are_weights_of_rows(by_class, expected, one_hot):
    net, x = make(WORDS), make_batch(make(WORDS), 8)[0]
    t = np.eye(4)[T] if one_hot else T
    found = net.evaluate(x, t, class_weight=by_class)[0]
    assert found == pytest.approx(net.evaluate(x, t, expected)[0], rel=1e-14)
    rows = weights_of(8)
    both = net.evaluate(x, t, rows, by_class)[0]
    assert both == pytest.approx(net.evaluate(x, t, rows * expected)[0], rel=1e-14)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_one_output_has_two_classes(loss):
    net = make(["affine 1"], loss=loss)
    x, t = make_batch(net, 6, loss)[0], np.array([0, 1, 1, 0, 1, 1])
    expected = net.evaluate(x, t, np.where(t, 0.25, 3))[0]
    assert net.evaluate(x, t, class_weight={0: 3, 1: 0.25})[0] == expected
    assert net.evaluate(x, t[:, np.newaxis], class_weight=[3, 0.25])[0] == expected
    balanced = net.evaluate(x, t, np.where(t, 6 / 8, 6 / 4))[0]
    assert net.evaluate(x, t, class_weight="balanced")[0] == balanced


# ---- training ------------------------------------------------------------------------------------


@by_loss
@pytest.mark.parametrize("words", [WORDS, CUT], ids=["compiled", "cut"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fit_gathers_the_weights_of_its_rows(loss, words, dtype):
    nets = [make(words, loss=loss, dtype=dtype) for _ in range(2)]
    x, t = make_batch(nets[0], 25, loss)  # the last batch is smaller
    weights = weights_of(25)
    fit, by_hand = (cc.Trainer(net, cc.SGD(0.3, 0.9)) for net in nets)
    order = np.random.default_rng([0, 0x5EED])
    history = fit.fit(x, t, epochs=2, sample_weight=weights, **FIT)
    losses = []
    for _ in range(2):
        rows, total = order.permutation(25), 0.0
        for start in range(0, 25, 10):
            part = rows[start : start + 10]
            total += by_hand.step(x[part], t[part], weights[part]) * len(part)
        losses.append(total / 25)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)
    assert history["loss"] == losses


@pytest.mark.parametrize("report", ["running", "book"])
def test_figures_of_a_weighted_fit(report):
    net, (x, t) = make(WORDS), make_batch(make(WORDS), 30)
    validation = (*make_batch(net, 9, seed=1), weights_of(9))
    options = {"sample_weight": weights_of(30), "class_weight": "balanced"}
    trainer = cc.Trainer(net, cc.SGD(0))
    history = trainer.fit(x, t, validation_data=validation, report=report, **options, **FIT)
    loss, accuracy = net.evaluate(x, t, **options)
    assert history["loss"] == pytest.approx([loss], rel=1e-12)
    assert history["accuracy"] == pytest.approx([accuracy])
    assert history["val_loss"] == [net.evaluate(*validation)[0]]
    assert trainer.step(x, t, **options) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("report", ["running", "book"])
def test_a_sum_is_summed_over_the_epoch(report):
    net = with_reduction(WORDS, "softmax_cross_entropy", "sum")
    x, t = make_batch(net, 25)
    fit = {"report": report, "validation_data": (x, t), **FIT}
    history = cc.Trainer(net, cc.SGD(0)).fit(x, t, **fit)
    assert history["loss"] == pytest.approx(history["val_loss"], rel=1e-12)


def test_weighted_and_plain_steps_do_not_disturb_each_other():
    nets = [make(WORDS) for _ in range(2)]
    x, t = make_batch(nets[0], 9)
    mixed, ones = (cc.Trainer(net, cc.SGD(0.1, 0.9)) for net in nets)
    for number in range(6):
        weights = weights_of(9) if number % 2 else None
        mixed.step(x, t, weights)
        ones.step(x, t, np.ones(9) if weights is None else weights)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


@pytest.mark.parametrize(
    "words", [["affine 100", "tanh", "affine 4"], CUT], ids=["compiled", "cut"]
)
def test_the_same_bits_on_any_number_of_threads(words, threads):
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        net = make(words, dtype="float32")
        x, t = make_batch(net, 300)
        options = {"sample_weight": weights_of(300), "class_weight": "balanced"}
        cc.Trainer(net, cc.Adam(0.01)).fit(x, t, epochs=2, batch_size=64, verbose=False, **options)
        results.append(net.flat_params.tobytes())
    assert len(set(results)) == 1


# ---- errors --------------------------------------------------------------------------------------

X = np.zeros((8, 6))
NAMES_NO_CLASS = "class_weight: expected labels, one-hot rows, or 0 and 1 for one output"


@pytest.mark.parametrize(
    ("t", "arguments", "error", "message"),
    [
        (T, {"sample_weight": np.ones(7)}, ValueError, r"sample_weight: .* \(8,\), got \(7,\)"),
        (T, {"sample_weight": np.ones((8, 1))}, ValueError, r"sample_weight: .*, got \(8, 1\)"),
        (T, {"sample_weight": [np.nan] * 8}, ValueError, "sample_weight: .* finite .*, got nan"),
        (T, {"sample_weight": ["a"] * 8}, TypeError, "sample_weight: expected numbers"),
        (T, {"class_weight": [1, 2, 3]}, ValueError, r"class_weight: .* \(4,\), got \(3,\)"),
        (T, {"class_weight": {4: 1}}, ValueError, r"class_weight: expected classes 0..3, got 4"),
        (T, {"class_weight": {"0": 1}}, ValueError, r"class_weight: .* 0..3, got '0'"),
        (T, {"class_weight": {0: np.inf}}, ValueError, "class_weight: .* finite .*, got inf"),
        (T, {"class_weight": "even"}, ValueError, "class_weight: expected 'balanced', got 'even'"),
        (np.full((8, 4), 0.25), {"class_weight": "balanced"}, ValueError, NAMES_NO_CLASS),
        (np.ones((8, 4)), {"class_weight": "balanced"}, ValueError, NAMES_NO_CLASS),
    ],
    ids=str,
)
def test_bad_weights_are_named(t, arguments, error, message):
    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(1))
    with Unchanged(net.flat_params):
        for call in (trainer.step, trainer.fit, net.evaluate):
            with pytest.raises(error, match=message):
                call(X, t, **arguments)
    assert trainer.iteration == 0


def test_weights_of_validation_rows_are_named():
    trainer = cc.Trainer(make(WORDS), cc.SGD(1))
    with pytest.raises(ValueError, match="validation_data: sample_weight: expected shape"):
        trainer.fit(X, T, validation_data=(X, T, [1, 2]), **FIT)


def test_a_loss_in_plain_python_takes_no_weights():
    net = make(WORDS, loss="log_cosh")
    x, t = make_batch(net, 8, "log_cosh")
    for name in ("sample_weight", "class_weight"):
        with pytest.raises(ValueError, match=f"{name}: LogCosh in plain Python takes no weights"):
            net.evaluate(x, t, **{name: np.ones(8)})
