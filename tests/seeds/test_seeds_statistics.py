"""Seeds 000 to 002 fix no random numbers: the mean of the last lines over several draws."""

import os

import numpy as np

from seed_figures import load, numbers, printed, run

# Two draws say nearly as much as ten, in a fifth of the time.
DRAWS = 10 if os.environ.get("CNN_CORE_TEST_EFFORT") == "high" else 2


def test_it_compares_with_the_last_lines_that_are_printed():
    expected = load("seeds_statistics").PRINTED
    for activation, name in (
        ("sigmoid", "saito_chapter04_two_layer_net"),
        ("relu", "saito_chapter05_layers"),
    ):
        last = numbers(printed(name)[-1:])
        np.testing.assert_allclose(expected[activation], last, rtol=0, atol=2e-5)


def test_the_mean_of_the_last_lines_is_within_0_003_of_the_printed():
    lines = run("seeds_statistics", "--seeds", str(DRAWS))
    assert len(lines) == 2 * (DRAWS + 2)
    assert sum(line.endswith("ok") for line in lines) == 4


def test_it_says_which_mean_is_too_far(capsys):
    draws = np.array([[0.9477, 0.9400], [0.9477, 0.9410]])
    assert not load("seeds_statistics").compare("sigmoid", draws)
    train, test = capsys.readouterr().out.splitlines()
    assert train.endswith("ok") and test.endswith("TOO FAR")
