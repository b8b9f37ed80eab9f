"""Seed 004, chapters 8 and 9: MNIST on 1,000 images; every printed line, digit for digit."""

import pytest

from seed_figures import numbers, printed, run


@pytest.mark.parametrize(
    ("name", "n_lines"),
    [
        ("grokking_chapter08_mnist", 350),  # a line per epoch
        ("grokking_chapter08_dropout", 31),  # every tenth, and the last
        ("grokking_chapter08_mini_batches", 30),
        ("grokking_chapter09_tanh_softmax", 30),
    ],
)
def test_every_printed_line(name, n_lines):
    lines, expected = run(name), printed(name)
    assert len(lines) == n_lines
    assert lines[-len(expected) :] == expected


def test_every_printed_line_with_the_changed_weights():
    lines = run("grokking_chapter09_tanh_softmax", "--weights", "0.01")
    assert lines[-13:] == printed("grokking_chapter09_tanh_softmax_narrow")


def test_early_stopping():
    stopped, all_epochs, best = run("grokking_chapter08_early_stopping", "--epochs", "100")
    epochs, error, correct = numbers([stopped])
    assert epochs == numbers([best])[0] + 10 < 100  # ten epochs without a better one
    all_of_them, later_error, later_correct = numbers([all_epochs])
    assert all_of_them == 100
    assert error < later_error and correct > later_correct
    # The last line that the seed prints of this net, after 350 epochs: 0.653 and 0.7073.
    *_, printed_error, printed_correct = numbers(printed("grokking_chapter08_mnist"))
    assert error < printed_error and correct > printed_correct


# The rows of the seed's table: problem, last activation, loss; what share is right or explained.
TABLE = [
    ("two classes", "sigmoid", "BinaryCrossEntropy", 0.93),
    ("one of ten classes", "softmax", "SoftmaxCrossEntropy", 0.9),
    ("odd? prime?", "sigmoid", "BinaryCrossEntropy", 0.93),
    ("any number", "none", "MeanSquaredError", 0.95),
    ("0 to 1", "sigmoid", "MeanSquaredError", 0.95),
    ("0 to 1", "sigmoid", "BinaryCrossEntropy", 0.95),
]


def test_the_table_of_last_activations_and_losses():
    lines = run("grokking_chapter09_last_layers")
    for line, (problem, activation, loss, least) in zip(lines, TABLE, strict=True):
        assert line.startswith(problem)
        assert line.split()[-4:-2] == [activation, loss]
        assert least < float(line.split()[-1]) <= 1
