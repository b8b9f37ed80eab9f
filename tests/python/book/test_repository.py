"""The book's own scripts, run with its modules and with ours: the same figures, printed, plotted or
written to files.

    git clone https://github.com/oreilly-japan/deep-learning-from-scratch
    CNN_CORE_BOOK=deep-learning-from-scratch python -m pytest tests/python/book/test_repository.py

Copies of the scripts are run, on few samples and for few updates, so that the book's modules, too,
are done in minutes.
"""

import importlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cnn_core.book import load_params

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


def edit(name, text):
    for pattern, other in SHORTER:
        text = re.sub(pattern, other, text)
    return text


@pytest.fixture(scope="module")
def book():
    """The benchmark that runs the scripts; it stands beside its own modules, not in a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
        yield importlib.import_module("book")


@pytest.fixture(scope="module")
def copy(book, tmp_path_factory):
    """A copy of the book with the data in its place, and shorter scripts."""
    return book.copy_of(BOOK, tmp_path_factory.mktemp("book") / "copy", edit)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_script_of_the_book_gives_the_same_figures(book, copy, tmp_path, script):
    results = []
    for ours in (False, True):
        folder = tmp_path / str(ours)
        shutil.copytree(copy, folder)
        results.append(book.run(folder / script, ours, 2)[2:])
    (text, arrays), (our_text, our_arrays) = results
    # NumPy sets columns by the digits that it prints.
    assert book.NUMBER.sub("#", our_text).split() == book.NUMBER.sub("#", text).split()
    numbers, ours = (np.array(book.NUMBER.findall(t), float) for t in (text, our_text))
    np.testing.assert_allclose(ours, numbers, rtol=1e-6, atol=1e-12)
    assert our_arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(our_arrays[name], array, rtol=1e-6, atol=1e-12)


def test_the_shipped_parameters_are_read():
    params = load_params(BOOK / "ch08" / "deep_convnet_params.pkl")
    assert params["W1"].shape == (16, 1, 3, 3) and params["W8"].shape == (50, 10)
    assert all(array.dtype == np.float64 for array in params.values())
    assert load_params(BOOK / "ch03" / "sample_weight.pkl")["W1"].dtype == np.float32
