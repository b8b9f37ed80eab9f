"""MNIST, read once for all seeds."""

import pytest

import cnn_core as cc


@pytest.fixture(scope="session")
def mnist():
    """Pixels in 0..1 and one-hot rows, as the seeds load them."""
    return cc.datasets.load_mnist(normalize=True, one_hot_label=True)
