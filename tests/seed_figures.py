"""What the seeds print, and the examples that print it again."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np

import cnn_core as cc

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PRINTED = Path(__file__).resolve().parent / "seeds" / "printed"

NUMBER = re.compile(r"-?\b\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def printed(name):
    """The lines of a block as a seed prints it, without its indentation and its empty lines."""
    return [line for line in (PRINTED / f"{name}.txt").read_text().splitlines() if line]


def load(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *arguments):
    """The lines that an example prints, run with these arguments; without empty lines.

    On one thread: the same bits as with more, and no waiting for a core that others use.
    """
    module, output, threads = load(name), io.StringIO(), cc.get_num_threads()
    arguments = mock.patch.object(sys, "argv", [name, *arguments])
    cc.set_num_threads(1)
    try:
        with arguments, contextlib.redirect_stdout(output):
            status = module.main()
    finally:
        cc.set_num_threads(threads)
    assert not status, output.getvalue()
    return [line for line in output.getvalue().splitlines() if line]


def numbers(lines):
    """All numbers in the lines, as one flat array."""
    return np.array([float(number) for line in lines for number in NUMBER.findall(line)])


def assert_near(lines, expected, rtol):
    """The same text, and every number within this relative distance."""
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", e) for e in expected]
    np.testing.assert_allclose(numbers(lines), numbers(expected), rtol=rtol, atol=0)


def check_seventeen_lines(lines, expected):
    """One run follows the printed run, which was another draw, closely; both (17, 2)."""
    lines, expected = (numbers(part).reshape(-1, 2) for part in (lines, expected))
    assert lines.shape == expected.shape == (17, 2)
    assert lines[0].max() < 0.35  # after one update hardly better than chance
    # It rises as fast, and a line falls behind the one before it by no more than the printed do.
    np.testing.assert_allclose(lines[1], expected[1], atol=0.05)
    np.testing.assert_allclose(lines[2:], expected[2:], atol=0.01)
    assert np.diff(lines, axis=0).min() > -0.005
    np.testing.assert_allclose(lines[-1], expected[-1], atol=0.006)
