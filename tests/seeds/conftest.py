"""What several seeds need: MNIST, and the trainings of the two-layer nets."""

import pytest

import cnn_core as cc
from seed_figures import run


@pytest.fixture(scope="session")
def mnist():
    """Pixels in 0..1 and one-hot rows, as the seeds load them."""
    return cc.datasets.load_mnist(normalize=True, one_hot_label=True)


@pytest.fixture(scope="session")
def sigmoid_lines():
    """What the example of seed 000 prints."""
    return run("saito_chapter04_two_layer_net")


@pytest.fixture(scope="session")
def relu_lines():
    """What the example of seed 002 prints."""
    return run("saito_chapter05_layers")
