"""Where the C-level declarations lie, for Cython and C code that calls the kernels directly."""

from __future__ import annotations

import os


def get_include() -> str:
    """The folder to put on ``include_dirs``, with which ``#include "simd/simd.h"`` works.

    Its parent is the folder for Cython's ``include_path``, with which
    ``from cnn_core._gemm cimport multiply_add`` works. A setup.py of one's own is no more than::

        from pathlib import Path

        import cnn_core as cc
        from Cython.Build import cythonize
        from setuptools import Extension, setup

        include = Path(cc.get_include())
        module = Extension("mine", ["mine.pyx"], include_dirs=[str(include)])
        setup(ext_modules=cythonize([module], include_path=[str(include.parent)]))

    Returns
    -------
    str
        The installed package's folder or, for an editable install, the checkout's ``cnn_core``.

    Raises
    ------
    FileNotFoundError
        If the declarations are in neither place.
    """
    package = os.path.dirname(os.path.realpath(__file__))
    checkout = os.path.join(os.path.dirname(os.path.dirname(package)), "cnn_core")
    for folder in (package, checkout):
        if os.path.isfile(os.path.join(folder, "_types.pxd")):
            return folder
    raise FileNotFoundError(f"the declarations of cnn_core: in neither {package} nor {checkout}")
