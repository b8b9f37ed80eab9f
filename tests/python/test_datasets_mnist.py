"""MNIST as it is delivered: the bytes of its authors, in the shapes of the book."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

import cnn_core as cc
from cnn_core.datasets import load_mnist, read_idx

FOLDER = Path(cc.datasets.__file__).parent / "mnist_data"
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@pytest.fixture(scope="module")
def raw():
    return load_mnist(normalize=False, flatten=False)


@pytest.mark.parametrize("name", SHA256)
def test_content(name):
    content = gzip.decompress((FOLDER / f"{name}.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == SHA256[name]


def test_arrays_are_the_content(raw):
    # What the loader returns, hashed behind its header: nothing is shifted, swapped or rounded.
    (x_train, t_train), (x_test, t_test) = raw
    for name, array in zip(SHA256, (x_train, t_train, x_test, t_test), strict=True):
        with gzip.open(FOLDER / f"{name}.gz") as file:
            head = file.read(16 if "images" in name else 8)
        assert hashlib.sha256(head + array.tobytes()).hexdigest() == SHA256[name]


def test_license_travels_with_the_data():
    text = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    for part in ("Yann LeCun", "Corinna Cortes", "Christopher J. C. Burges", "CC BY-SA 3.0"):
        assert part in text
    assert "https://creativecommons.org/licenses/by-sa/3.0/" in text


def test_shapes_and_types(raw):
    (x_train, t_train), (x_test, t_test) = raw
    assert x_train.shape == (60000, 1, 28, 28)
    assert x_test.shape == (10000, 1, 28, 28)
    assert x_train.dtype == x_test.dtype == np.uint8
    assert t_train.shape == (60000,)
    assert t_test.shape == (10000,)
    assert t_train.dtype == t_test.dtype == np.uint8


def test_figures_of_the_data(raw):
    (x_train, t_train), (x_test, t_test) = raw
    assert t_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert t_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(t_train).tolist() == counts
    # The mean and the deviation that everybody normalizes MNIST with.
    assert x_train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert x_train.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert (x_test.min(), x_test.max()) == (0, 255)


def test_default_is_the_book(raw):
    (x_train, t_train), (x_test, t_test) = load_mnist()
    for x, pixels in ((x_train, raw[0][0]), (x_test, raw[1][0])):
        assert x.dtype == np.float32
        assert x.shape == (len(pixels), 784)
        expected = pixels.reshape(-1, 784).astype(np.float32)
        expected /= 255.0
        assert np.array_equal(x, expected)
        assert (x.min(), x.max()) == (0.0, 1.0)
    assert np.array_equal(t_train, raw[0][1])
    assert np.array_equal(t_test, raw[1][1])


def test_arguments_by_position(raw):
    # normalize, flatten, one_hot_label: the order of the book.
    (x_train, t_train), (_, t_test) = load_mnist(False, True, True)
    assert x_train.dtype == np.uint8
    assert x_train.shape == (60000, 784)
    assert t_train.shape == (60000, 10)
    assert t_train.dtype == np.float64
    assert np.array_equal(t_train, np.eye(10)[raw[0][1]])
    assert np.array_equal(t_test, np.eye(10)[raw[1][1]])


def test_arrays_are_fresh_and_writeable(raw):
    (_, t_train), (x_test, _) = load_mnist(normalize=False, flatten=False)
    for array in (t_train, x_test):
        assert array.flags.writeable
        assert array.flags.c_contiguous
    x_test[:] = 7
    t_train[:] = 7
    (_, again), (x_again, _) = load_mnist(normalize=False, flatten=False)
    assert np.array_equal(again, raw[0][1])
    assert np.array_equal(x_again, raw[1][0])


def test_single_file_agrees(raw):
    assert np.array_equal(read_idx(FOLDER / "t10k-images-idx3-ubyte.gz"), raw[1][0][:, 0])


def test_public_names():
    assert set(cc.datasets.__all__) == {"load_mnist", "load_idx", "read_idx", "DatasetError"}
    for name in cc.datasets.__all__:
        assert hasattr(cc.datasets, name)
