"""Seed 004, chapter 10: the convolutional net, run by the examples that print it again."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# As printed after each epoch: accuracy while it trains on 1,000 images, and on all test images.
PRINTED = """\
I: 0   Train_acc: 0.055   Test_acc: 0.0288
I: 1   Train_acc: 0.037   Test_acc: 0.0273
I: 2   Train_acc: 0.037   Test_acc: 0.028
I: 3   Train_acc: 0.04   Test_acc: 0.0292
I: 4   Train_acc: 0.046   Test_acc: 0.0339
I: 5   Train_acc: 0.068   Test_acc: 0.0478
I: 6   Train_acc: 0.083   Test_acc: 0.076
I: 7   Train_acc: 0.096   Test_acc: 0.1316
I: 8   Train_acc: 0.127   Test_acc: 0.2137
I: 9   Train_acc: 0.148   Test_acc: 0.2941
I: 10   Train_acc: 0.181   Test_acc: 0.3563
I: 11   Train_acc: 0.209   Test_acc: 0.4023
""".splitlines()
FIGURES = [tuple(float(cell) for cell in re.findall(r"acc: (\S+)", line)) for line in PRINTED]
# Half of the lines take some seven seconds of one core, and say nearly as much.
EPOCHS = 12 if os.environ.get("CNN_CORE_TEST_EFFORT") == "high" else 6


def run(name, *arguments):
    """The example of this name, imported from its file, and its `main` with these arguments."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *arguments])
        module.main()


def test_the_printed_lines_digit_for_digit(capsys, threads):
    threads(1)  # the same bits as with more, and no waiting for a core that others use
    run("grokking_chapter10_conv", "--epochs", str(EPOCHS))
    *lines, seconds = capsys.readouterr().out.splitlines()
    assert lines == PRINTED[:EPOCHS]
    assert re.fullmatch(rf"{EPOCHS} epochs in \d+\.\d s", seconds)


def test_without_its_faults_the_net_does_better(capsys, threads):
    threads(1)
    run("grokking_chapter10_conv_correct", "--epochs", "6")
    *lines, _ = capsys.readouterr().out.splitlines()
    figures = [tuple(float(cell) for cell in re.findall(r"acc: (\S+)", line)) for line in lines]
    assert len(figures) == 6
    for correct, printed in zip(figures, FIGURES[:6], strict=True):
        assert correct[0] > printed[0] and correct[1] > printed[1]
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
