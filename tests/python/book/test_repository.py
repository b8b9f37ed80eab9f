"""The book's own scripts, run with its modules and with ours: the same figures, printed, plotted or
written to files.

    git clone https://github.com/oreilly-japan/deep-learning-from-scratch
    CNN_CORE_BOOK=deep-learning-from-scratch python -m pytest tests/python/book/test_repository.py

Copies of the scripts are run, on few samples and for few updates, so that the book's modules, too,
are done in minutes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnn_core.book import load_params
from cnn_core.book.dataset import mnist

BOOK = Path(os.environ.get("CNN_CORE_BOOK", "/nowhere"))
SCRIPTS = [path.relative_to(BOOK) for path in sorted(BOOK.glob("ch0[3-8]/*.py"))]

pytestmark = pytest.mark.skipif(not SCRIPTS, reason="CNN_CORE_BOOK names no copy of the book")

FEW = "x_train, t_train, x_test, t_test = (a[:300] for a in (x_train, t_train, x_test, t_test))\n"
SHORTER = [
    (r"(?m)^( *)(\(x_train.*load_mnist\(.*\)\n)", r"\1\2\1" + FEW),
    (r"\b(iters_num|max_iterations|optimization_trial|max_epochs) = \d+", r"\1 = 12"),
    (r"\bepochs=\d+", "epochs=4"),
    (r"hidden_size_list=\[100, 100\]", "hidden_size_list=[9, 8]"),
    (r"hidden_size=50\b", "hidden_size=7"),
    (r"weight_scale_list = .*", "weight_scale_list = [1, 0.1, 0.01]"),
]
PROLOGUE = """
import matplotlib.pyplot, numpy
def show():
    numbers = matplotlib.pyplot.get_fignums()
    axes = [axis for number in numbers for axis in matplotlib.pyplot.figure(number).axes]
    arrays = [line.get_xydata() for axis in axes for line in axis.lines]
    arrays += [image.get_array() for axis in axes for image in axis.images]
    numpy.savez("plotted", *[numpy.asarray(array) for array in arrays])
matplotlib.pyplot.show = show
numpy.random.seed(4)
"""
ADDRESS = re.compile(r" at 0x[0-9A-F]+")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the book with the data in its place, and shorter scripts."""
    folder = tmp_path_factory.mktemp("book") / "copy"
    shutil.copytree(BOOK, folder, ignore=shutil.ignore_patterns(".git", "*.ipynb"))
    for name in mnist.key_file.values():
        shutil.copy(Path(mnist.dataset_dir) / name, folder / "dataset" / name)
    for name in SCRIPTS:
        text = (folder / name).read_text(encoding="utf-8")
        for pattern, other in SHORTER:
            text = re.sub(pattern, other, text)
        (folder / name).write_text(PROLOGUE + text, encoding="utf-8")
    command = [sys.executable, "-c", "from dataset.mnist import init_mnist; init_mnist()"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def run(command, folder):
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    files = {path.name: load_params(path) for path in folder.glob("*.pkl")}
    for path in folder.glob("plotted.npz"):
        files["plotted"] = dict(np.load(path))
    return ADDRESS.sub("", done.stdout), files


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_script_of_the_book_gives_the_same_figures(copy, tmp_path, script):
    results = []
    for command in ([], ["-m", "cnn_core.book"]):
        folder = tmp_path / str(len(results))
        shutil.copytree(copy, folder)
        results.append(run([*command, script.name], folder / script.parent))
    (text, files), (our_text, our_files) = results
    # NumPy sets columns by the digits that it prints.
    assert NUMBER.sub("#", our_text).split() == NUMBER.sub("#", text).split()
    numbers, ours = (np.array(NUMBER.findall(t), float) for t in (text, our_text))
    np.testing.assert_allclose(ours, numbers, rtol=1e-6, atol=1e-12)
    assert our_files.keys() == files.keys()
    for name, arrays in files.items():
        for key, array in arrays.items():
            np.testing.assert_allclose(our_files[name][key], array, rtol=1e-6, atol=1e-12)


def test_the_shipped_parameters_are_read():
    params = load_params(BOOK / "ch08" / "deep_convnet_params.pkl")
    assert params["W1"].shape == (16, 1, 3, 3) and params["W8"].shape == (50, 10)
    assert all(array.dtype == np.float64 for array in params.values())
    assert load_params(BOOK / "ch03" / "sample_weight.pkl")["W1"].dtype == np.float32
