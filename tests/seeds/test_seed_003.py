"""Seed 003: 784-300-100-10 with L2; its program prints a loss per epoch, but the seed no figures.

So the figures here are those of the program itself, written out in NumPy.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seed_figures import numbers, run

PROGRAM = Path(__file__).resolve().parent / "seed_003_program.py"


def losses_of_the_program(*arguments):
    threads = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line) for line in result.stdout.splitlines()]


# The whole of MNIST, whose last batch is full, and a part with a remainder of 50 rows.
@pytest.mark.parametrize(("n_images", "epochs"), [(70_000, 1), (5_050, 2)])
def test_the_loss_of_each_epoch(n_images, epochs):
    lines = run("seed_003_l2_net", "--epochs", str(epochs), "--images", str(n_images))
    assert lines[:4] == [
        f"X shape: ({n_images}, 784)",
        f"y shape: ({n_images}, 10)",
        "====>layer_units: [784, 300, 100, 10]",
        "====>n_layers:  4",
    ]
    # All eight digits, of which the last may be rounded the other way.
    figures = numbers(lines[4:]).reshape(epochs, 2)
    losses = losses_of_the_program(n_images, epochs)
    np.testing.assert_allclose(figures, [*enumerate(losses)], rtol=0, atol=1e-8)


def test_the_same_from_a_sparse_matrix():
    pytest.importorskip("scipy")
    arguments = "--epochs", "2", "--images", "2050"
    assert run("seed_003_l2_net", *arguments, "--sparse") == run("seed_003_l2_net", *arguments)
