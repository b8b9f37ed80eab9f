"""Seed 004, chapters 3 to 6: the small programs, whose figures are printed in full float64."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seed_figures import assert_near, numbers, printed, run

TESTS = Path(__file__).resolve().parents[1]

# Example, and how many lines the program prints in all; the seed shows the last of them.
PROGRAMS = {
    "grokking_chapter04_hot_and_cold": 1101,
    "grokking_chapter04_gradient_descent": 20,
    "grokking_chapter04_divergence": 20,
    "grokking_chapter04_learning_rate": 20,
    "grokking_chapter05_many_inputs": 3,
    "grokking_chapter05_frozen_weight": 3,
    "grokking_chapter05_many_outputs": 20,
    "grokking_chapter05_many_inputs_and_outputs": 2000,
    "grokking_chapter06_street_lights": 280,
    "grokking_chapter06_deep_net": 6,
}


# Chapter 3 prints nothing in the seed: these are the sums of its products, by hand.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grokking_chapter03_one_input", [0.85]),  # 8.5 * 0.1
        ("grokking_chapter03_many_inputs", [0.98]),  # 8.5 * 0.1 + 0.65 * 0.2 + 1.2 * 0
        ("grokking_chapter03_many_outputs", [0.195, 0.13, 0.585]),  # 0.65 * 0.3, * 0.2, * 0.9
        (
            "grokking_chapter03_many_inputs_and_outputs",
            # 0.85 + 0.065 - 0.36; 0.85 + 0.13 + 0; 0 + 0.845 + 0.12
            [0.555, 0.98, 0.965],
        ),
        (
            "grokking_chapter03_stacked",
            # hidden 0.85 - 0.065 + 0.12, 0.85 + 0.065 + 0.48, -0.85 + 0.585 + 0.12, then
            # 0.2715 + 0.1395 + 0; 0.9955 + 0.279 - 0.1885; -0.2715 + 0 - 0.0145
            [0.411, 1.086, -0.286],
        ),
    ],
)
def test_predictions(name, expected):
    lines = run(name)
    assert len(lines) == 1
    np.testing.assert_allclose(numbers(lines), expected, rtol=1e-14)


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_digits_within_the_rounding(name):
    lines, expected = run(name), printed(name)
    assert len(lines) == PROGRAMS[name]
    assert_near(lines[-len(expected) :], expected, rtol=1e-12)


@pytest.fixture(scope="module")
def without_fma():
    """What the programs print where a product is rounded before it is added, as NumPy does it."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the plainest instruction set of this machine fuses products and sums")
    code = (
        "import json, sys; from seed_figures import run\n"
        "print(json.dumps({name: run(name) for name in sys.argv[1:]}))"
    )
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-c", code, *PROGRAMS],
        env={**os.environ, "CNN_CORE_ISA": "baseline", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_digits(name, without_fma):
    expected = printed(name)
    assert without_fma[name][-len(expected) :] == expected


def test_three_inputs_and_outputs_learn_with_the_deltas_the_right_way_round():
    lines = run("grokking_chapter05_many_inputs_and_outputs", "--correct")
    assert len(lines) == 2000
    assert numbers(lines[-1:]).max() < 1e-28


def test_lights_one_by_one_in_batches_and_all_at_once():
    lines = run("grokking_chapter06_batches")
    updates, first, last = zip(*(numbers([line])[-3:] for line in lines), strict=True)
    # 40 epochs of 6 rows, in batches of 1, 2 and 6.
    assert updates == (240, 120, 40)
    # The mean over more rows is less hasty; row by row it is the program that the seed prints.
    assert last[0] < last[1] < last[2] < min(first)
    end = numbers(printed("grokking_chapter06_street_lights"))[-1]
    assert last[0] == pytest.approx(end, abs=5e-7)
