"""Deferred images: at whatever time somebody looks, they are as if computed at once."""

import copy
import pickle

import numpy as np
import pytest

from cnn_core.book import _deferred as deferred
from cnn_core.book.common import layers


@pytest.fixture
def rng():
    return np.random.default_rng(94)


def make_layers(pad=1):
    rng = np.random.default_rng(5)
    W1, W2 = rng.standard_normal((8, 2, 3, 3)), rng.standard_normal((9, 8, 3, 3))
    return [
        layers.Convolution(W1, rng.standard_normal(8), pad=pad),
        layers.Relu(),
        layers.Convolution(W2, rng.standard_normal(9), pad=pad),
        layers.Relu(),
        layers.Pooling(3, 3, stride=2),
        layers.Relu(),
    ]


def run(net, x, dout=None, look=lambda index, value: None):
    """Outputs of all layers, then gradients by their inputs; `look` is shown each at once."""
    results = []
    for layer in net:
        x = layer.forward(x)
        look(len(results), x)
        results.append(x)
    if dout is not None:
        for layer in reversed(net):
            dout = layer.backward(dout)
            look(len(results), dout)
            results.append(dout)
    return results


def at_once(net, x, dout):
    """The results computed one by one, each from an array."""
    results = []
    for layer in net:
        x = np.asarray(layer.forward(x)).copy()
        results.append(x)
    for layer in reversed(net):
        dout = np.asarray(layer.backward(dout)).copy()
        results.append(dout)
    return results


@pytest.fixture
def case(rng):
    x, dout = rng.standard_normal((5, 2, 9, 8)), rng.standard_normal((5, 9, 4, 3))
    return x, dout, at_once(make_layers(), x, dout)


def same(results, wanted):
    for index, (result, expected) in enumerate(zip(results, wanted, strict=True)):
        np.testing.assert_array_equal(result, expected, err_msg=str(index))


@pytest.mark.parametrize("order", [1, -1])
def test_looked_into_at_the_end_in_any_order(case, order):
    x, dout, wanted = case
    results = run(make_layers(), x, dout)
    same(results[::order], wanted[::order])


@pytest.mark.parametrize("looked", range(12))
def test_looked_into_in_between(case, looked):
    x, dout, wanted = case

    def look(index, value):
        if index == looked:
            np.testing.assert_array_equal(value, wanted[index])

    same(run(make_layers(), x, dout, look), wanted)


@pytest.mark.parametrize("changed", ["x", "weights", "dout"])
def test_later_changes_of_what_went_in_change_nothing(case, changed):
    x, dout, wanted = case
    net, x, dout = make_layers(), x.copy(), dout.copy()
    given = {"x": [x], "dout": [dout], "weights": [a for n in (0, 2) for a in (net[n].W, net[n].b)]}

    def look(index, value):
        # The layers read their weights in both passes.
        if index == {"x": 0, "dout": 6, "weights": 11}[changed]:
            for array in given[changed]:
                array[...] = 7

    same(run(net, x, dout, look), wanted)
    at_once(untouched := make_layers(), *case[:2])
    for n in (0, 2):
        np.testing.assert_array_equal(net[n].dW, untouched[n].dW)
        np.testing.assert_array_equal(net[n].db, untouched[n].db)


def test_a_result_may_be_changed_by_the_script(case):
    x, _, _ = case
    net, twin = make_layers(), make_layers()
    h = net[0].forward(x)
    h += 1
    assert isinstance(h, np.ndarray)
    other = np.asarray(twin[0].forward(x)) + 1
    for index in (1, 2, 3, 4):
        h, other = net[index].forward(h), twin[index].forward(other)
    np.testing.assert_array_equal(h, other)

    h = net[0].forward(x)
    y = net[1].forward(h)
    h[:, 0] = -5  # by item; y was made of what was there before
    np.testing.assert_array_equal(y, np.maximum(twin[0].forward(x), 0))
    np.testing.assert_array_equal(net[1].forward(h)[:, 0], 0)


def test_results_outlive_later_batches(rng):
    net, batches = make_layers(), rng.standard_normal((4, 5, 2, 9, 8))
    dout = rng.standard_normal((5, 9, 4, 3))
    held = [run(net, x, dout) for x in batches]
    for x, results in zip(batches, held, strict=True):
        same(results, at_once(make_layers(), x, dout))


def test_nothing_is_computed_that_nobody_asks_for(case):
    x, dout, _ = case
    net = make_layers()
    results = run(net, x, dout)
    assert net[0].dW is not None
    dx = results[-1]
    assert isinstance(dx, deferred.Deferred) and dx.step._images is None
    assert results[0].step._images is None  # the ReLU behind it was computed with it


def test_memory_is_found_once(case, monkeypatch):
    x, dout, _ = case
    net, made = make_layers(), []
    real = deferred.new_images
    monkeypatch.setattr(deferred, "new_images", lambda *a: made.append(a) or real(*a))
    counts = []
    for _ in range(5):
        run(net, x, dout)
        counts.append(len(made))
    assert counts[0] > 0 and counts[2:] == [counts[2]] * 3


def test_threads_do_not_change_a_bit(case, threads):
    x, dout, wanted = case
    threads(1)
    same(run(make_layers(), x, dout), wanted)


def test_a_gradient_of_another_layout_or_dtype(case):
    x, dout, wanted = case
    for other in (np.asfortranarray(dout), dout.astype(np.float32)):
        net = make_layers()
        results = run(net, x, other)
        if other.dtype == dout.dtype:
            same(results, wanted)
        else:
            np.testing.assert_allclose(results[-1], wanted[-1], rtol=1e-5, atol=1e-4)


def test_a_relu_that_is_not_the_one_before_the_pooling(case, rng):
    """The derivative of a ReLU goes into the pooling's only where the two belong together."""
    x, dout, _ = case
    net, other = make_layers(), layers.Relu()
    run(net, x)
    h = layers.Convolution(rng.standard_normal((9, 2, 3, 3)), 0.0, pad=1).forward(x)
    open_units = np.asarray(other.forward(h)) > 0
    dx = net[4].backward(net[5].backward(dout))
    wanted = np.where(open_units, net[4].backward(net[5].backward(dout)), 0)
    np.testing.assert_array_equal(other.backward(dx), wanted)


# ---- as an array ---------------------------------------------------------------------------------


@pytest.fixture
def pair(rng):
    """A deferred array and what it is."""
    layer = layers.Convolution(rng.standard_normal((2, 3, 2, 2)), rng.standard_normal(2))
    x = rng.standard_normal((4, 3, 5, 4))
    return layer.forward(x), np.asarray(layer.forward(x)).copy()


EXPRESSIONS = {
    "operators": lambda a: (2 * a - a / 3) ** 2 @ np.ones((3, 2)),
    "comparison": lambda a: a > 0,
    "unary": lambda a: abs(-a),
    "ufunc": np.exp,
    "reduction": lambda a: np.sum(a, axis=(0, 2)),
    "ufunc method": lambda a: np.add.reduce(a, axis=1),
    "functions": lambda a: np.concatenate([a, np.pad(a, 0)]).argmax(axis=1),
    "where": lambda a: np.where(a > 0, a, 0),
    "methods": lambda a: a.reshape(a.shape[0], -1).mean(axis=0),
    "transpose": lambda a: a.T,
    "items": lambda a: a[1:, 0, ::2],
    "iteration": lambda a: [image.sum() for image in a],
    "like": np.zeros_like,
    "asarray": lambda a: np.asarray(a, np.float32),
    "length": len,
    "facts": lambda a: (a.ndim, a.size, *a.shape),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_it_stands_for_an_array(pair, name):
    late, array = pair
    got, wanted = EXPRESSIONS[name](late), EXPRESSIONS[name](array)
    np.testing.assert_array_equal(got, wanted)
    assert type(np.asarray(got)) is np.ndarray and np.asarray(got).dtype == np.asarray(wanted).dtype


def test_it_prints_and_copies_and_pickles_as_an_array(pair):
    late, array = pair
    assert repr(late) == repr(array) and str(late) == str(array)
    for twin in (pickle.loads(pickle.dumps(late)), copy.deepcopy(late), late.copy()):
        assert type(twin) is np.ndarray
        np.testing.assert_array_equal(twin, array)
        assert not np.may_share_memory(twin, late)


def test_a_ufunc_writes_into_it(pair):
    late, array = pair
    result = np.multiply(late, 2, out=late)
    assert result is np.asarray(late)
    np.testing.assert_array_equal(late, 2 * array)


def test_it_has_no_truth_and_no_attributes_of_its_own(pair):
    late, _ = pair
    with pytest.raises(ValueError, match="ambiguous"):
        bool(late)
    with pytest.raises(AttributeError):
        late.shape = (1, 2)
    with pytest.raises(AttributeError):
        late.note = 1
    with pytest.raises(TypeError):
        hash(late)
