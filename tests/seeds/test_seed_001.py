"""Seed 001: load_mnist in all its variants, and the plot of the two curves."""

import itertools

import numpy as np
import pytest

import cnn_core as cc
from seed_figures import numbers, run

VARIANTS = list(itertools.product((True, False), repeat=3))


@pytest.fixture(scope="module")
def raw():
    return cc.datasets.load_mnist(normalize=False, flatten=True, one_hot_label=False)


@pytest.mark.parametrize(("normalize", "flatten", "one_hot"), VARIANTS)
def test_every_variant_holds_the_same_images_and_labels(raw, normalize, flatten, one_hot):
    pairs = cc.datasets.load_mnist(normalize=normalize, flatten=flatten, one_hot_label=one_hot)
    for (x, t), (pixels, labels), n in zip(pairs, raw, (60000, 10000), strict=True):
        assert x.shape == ((n, 784) if flatten else (n, 1, 28, 28))
        assert x.dtype == (np.float32 if normalize else np.uint8)
        few = pixels[::997].reshape(-1, *x.shape[1:])
        expected = few.astype(np.float32) / np.float32(255) if normalize else few
        assert np.array_equal(x[::997], expected)
        assert t.shape == ((n, 10) if one_hot else (n,))
        assert np.array_equal(t.argmax(axis=1) if one_hot else t, labels)
        if one_hot:
            assert np.array_equal(t.sum(axis=1), np.ones(n))


def test_the_defaults_are_those_of_the_seed(raw):
    (x_train, t_train), (_, t_test) = cc.datasets.load_mnist()
    assert x_train.dtype == np.float32
    assert x_train.max() == 1
    assert t_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert t_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(t_train).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]


def test_a_network_takes_any_variant(raw):
    net = cc.models.two_layer_net(activation="sigmoid", seed=3)
    (pixels, labels), _ = raw
    x, t = pixels[:200], labels[:200]
    loss, accuracy = net.evaluate(x, t)
    floats = x.astype(np.float32) / np.float32(255)
    for images in (floats, floats.reshape(-1, 1, 28, 28), x.reshape(-1, 1, 28, 28)):
        for targets in (t, np.eye(10)[t]):
            assert net.evaluate(images, targets) == (pytest.approx(loss, rel=1e-6), accuracy)


def test_the_plot_of_both_curves_against_the_epochs(tmp_path, monkeypatch):
    plotting = pytest.importorskip("cnn_core.plotting", exc_type=ImportError)
    figures, plot = [], plotting.plot_history
    monkeypatch.setattr(plotting, "plot_history", lambda *args: figures.append(plot(*args)))
    path = tmp_path / "curves.png"
    lines = run("saito_chapter04_curves", "--iterations", "1300", "--output", str(path))
    (axes,) = figures[0].axes
    accuracies = numbers(lines).reshape(3, 2).T  # after 1, 601 and 1201 updates
    for curve, expected in zip(axes.lines, accuracies, strict=True):  # in percent
        np.testing.assert_allclose(curve.get_ydata(), 100 * expected, rtol=1e-12)
    assert path.read_bytes().startswith(b"\x89PNG")
