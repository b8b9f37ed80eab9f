"""Maxima of a convolution of one channel, for the other modules of convolutions."""

from cnn_core._conv2d_pairs cimport Windows
from cnn_core._conv2d_shape cimport conv_args
from cnn_core._types cimport real


cdef bint convolve_windows(const conv_args* a, const Windows* windows, Py_ssize_t begin,
                           Py_ssize_t end, const real* x, const real* weights, const real* b,
                           real* y) noexcept nogil
