"""A user's own Cython module takes the kernels by `cimport`, built by the documented recipe."""

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cnn_core import _include
from native import c_build

MODULE = """
# cython: language_level=3
from cpython.array cimport array
from cnn_core._gemm cimport multiply_add
from cnn_core._simd cimport ACTIVATION_RELU, activate


def relu_of_product(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, array a, array b, array c):
    cdef double* out = c.data.as_doubles
    multiply_add(m, n, k, a.data.as_doubles, k, 1, b.data.as_doubles, n, True,
                 <const double*>NULL, out, n)
    activate(ACTIVATION_RELU, 0.0, m * n, out, out)
"""

USE = """
from array import array

import numpy as np
from mine import relu_of_product

rng = np.random.default_rng(0)
a, b = rng.standard_normal((5, 7)), rng.standard_normal((7, 3))
c = array("d", [0.0] * 15)
relu_of_product(5, 3, 7, array("d", a.ravel()), array("d", b.ravel()), c)
expected = np.maximum(a @ b, 0).ravel()
assert (expected == 0).any() and (expected > 0).any()
assert np.allclose(c, expected, rtol=1e-12, atol=1e-12)
print("works")
"""


def recipe():
    """The setup.py in the docstring of `get_include`."""
    text = inspect.getdoc(_include.get_include)
    return textwrap.dedent(text.split("::\n", 1)[1].split("Returns\n", 1)[0])


def test_the_documented_recipe_builds_a_module_that_works(tmp_path):
    missing = c_build.missing_tool()
    if missing:
        pytest.skip(f"the recipe has to compile: {missing}")
    c_build.build("mine", MODULE, tmp_path, recipe())
    command = [sys.executable, "-c", USE]
    done = subprocess.run(
        command, cwd=tmp_path, env=c_build.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "works\n", done.stderr


def test_the_folder_has_the_declarations():
    folder = Path(_include.get_include())
    assert folder.name == "cnn_core"
    for name in ("__init__.pxd", "_types.pxd", "_gemm.pxd", "_affine.pxd", "_simd.pxd"):
        assert (folder / name).is_file(), name
    assert (folder / "simd" / "simd.h").is_file()


def test_missing_declarations_are_an_error_that_names_the_places(tmp_path, monkeypatch):
    package = tmp_path / "python" / "cnn_core"
    monkeypatch.setattr(_include, "__file__", str(package / "_include.py"))
    with pytest.raises(FileNotFoundError, match="cnn_core") as caught:
        _include.get_include()
    assert str(package) in str(caught.value) and str(tmp_path / "cnn_core") in str(caught.value)
    for folder in (tmp_path / "cnn_core", package):  # an editable install, then an installed one
        folder.mkdir(parents=True)
        (folder / "_types.pxd").touch()
        assert _include.get_include() == str(folder)
