"""The modules of Saito, *Deep Learning from Scratch*, over compiled kernels.

    python -m cnn_core.book ch07/train_convnet.py

runs a script of the book as it stands: what it imports from `common` and `dataset` are the modules
of this package, of the same names, classes, arguments, attributes and figures. In a notebook,

    import cnn_core.book
    cnn_core.book.install()

before the first import of them does the same. `load_params` reads the book's files of parameters.
"""

from cnn_core.book._modules import install, run_script
from cnn_core.book._params import ParamsFileError, load_params

__all__ = ["ParamsFileError", "install", "load_params", "run_script"]
