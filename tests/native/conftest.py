"""Compiles the C-level test module once per session and hands out the kernels of each table."""

from pathlib import Path

import numpy as np
import pytest

from cnn_core import _simd
from native import c_build
from native.c_kernels import Kernels

ISAS = _simd.supported_isas()
TABLES = [(isa, dtype) for isa in ISAS for dtype in ("float32", "float64")]


@pytest.fixture(scope="session")
def c_level_path(tmp_path_factory):
    """The compiled c_level.pyx with c_images.pxi, for children of the test to load."""
    missing = c_build.missing_tool()
    if missing:
        pytest.skip(f"tests at C level have to compile: {missing}")
    parts = (Path(__file__).with_name(name) for name in ("c_level.pyx", "c_images.pxi"))
    source = "\n\n".join(part.read_text() for part in parts)
    return c_build.build("c_level", source, tmp_path_factory.mktemp("c_level"))


@pytest.fixture(scope="session")
def c_level(c_level_path):
    """The module itself; the instruction set in use is that of the session."""
    return c_build.load("c_level", c_level_path)


@pytest.fixture(params=TABLES, ids=lambda table: "-".join(table))
def kernels(request, c_level):
    """The kernels of each instruction set and element type; all of cnn_core uses them meanwhile."""
    isa, dtype = request.param
    c_level.use_isa(ISAS.index(isa))
    yield Kernels(c_level, isa, dtype)
    c_level.use_isa(ISAS.index(_simd.active_isa))


@pytest.fixture
def rng():
    return np.random.default_rng(20)
