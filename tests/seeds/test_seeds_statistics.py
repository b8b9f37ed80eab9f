"""Seeds 000 to 002 fix no random numbers: the mean of the last lines over several draws."""

import os

import numpy as np
import pytest

from seed_figures import load, numbers, printed, run

BLOCKS = {"sigmoid": "saito_chapter04_two_layer_net", "relu": "saito_chapter05_layers"}


@pytest.mark.parametrize("activation", BLOCKS)
def test_it_compares_with_the_last_lines_that_are_printed(activation):
    expected = load("seeds_statistics").PRINTED[activation]
    last = numbers(printed(BLOCKS[activation])[-1:])
    np.testing.assert_allclose(expected, last, rtol=0, atol=2e-5)


@pytest.mark.parametrize("activation", BLOCKS)
def test_the_mean_of_two_last_lines_is_near_the_printed(
    activation, mnist, sigmoid_lines, relu_lines, threads
):
    threads(1)
    module = load("seeds_statistics")
    first = numbers({"sigmoid": sigmoid_lines, "relu": relu_lines}[activation][-1:])
    second = module.last_line(activation, 1, mnist)
    assert not np.array_equal(first, second)
    assert module.compare(activation, np.array([first, second]))


@pytest.mark.skipif(
    os.environ.get("CNN_CORE_TEST_EFFORT") != "high", reason="20 trainings; two say nearly as much"
)
def test_the_mean_of_ten_last_lines_is_near_the_printed():
    lines = run("seeds_statistics", "--seeds", "10")
    assert len(lines) == 24 and sum(line.endswith("ok") for line in lines) == 4


def test_it_says_which_mean_is_too_far(capsys):
    draws = np.array([[0.9477, 0.9400], [0.9477, 0.9410]])
    assert not load("seeds_statistics").compare("sigmoid", draws)
    train, test = capsys.readouterr().out.splitlines()
    assert train.endswith("ok") and test.endswith("TOO FAR")
