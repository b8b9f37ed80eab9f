"""Seed 004, chapter 10: the convolutional net, run by the examples that print it again."""

import re

import pytest

from seed_figures import numbers, printed, run

PRINTED = printed("grokking_chapter10_conv")


def test_the_printed_lines_digit_for_digit():
    *lines, seconds = run("grokking_chapter10_conv", "--epochs", "12")
    assert lines == PRINTED
    assert re.fullmatch(r"12 epochs in \d+\.\d s", seconds)


def test_without_its_faults_the_net_does_better():
    *lines, _ = run("grokking_chapter10_conv_correct", "--epochs", "6")
    figures = numbers(lines).reshape(6, 3)[:, 1:]
    assert (figures > numbers(PRINTED).reshape(12, 3)[:6, 1:]).all()
    # In half the epochs it is far ahead of the last line that the seed prints, 0.209 and 0.4023.
    assert figures[-1][0] > 0.8 and figures[-1][1] > 0.75


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("grokking_chapter10_conv", ["--epochs", "0"]),
        ("grokking_chapter10_conv_correct", ["--epochs", "0"]),
        ("grokking_chapter10_conv_correct", ["--images", "60001"]),
        ("grokking_chapter10_conv_correct", ["--seed", "-1"]),
    ],
)
def test_bad_arguments_are_refused(capsys, name, arguments):
    with pytest.raises(SystemExit) as stopped:
        run(name, *arguments)
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err
