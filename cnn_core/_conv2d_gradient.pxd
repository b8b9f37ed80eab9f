"""Kernels of the gradients of a convolution; the tasks are made in _conv2d.pyx."""

from cnn_core._conv2d_shape cimport conv_args, round_up
from cnn_core._images cimport Layout
from cnn_core._simd cimport lanes
from cnn_core._types cimport real


cdef struct spread_args:
    conv_args conv               # x: dy, y: one padded row
    Py_ssize_t top               # padding
    Py_ssize_t height            # of dx
    Py_ssize_t width
    Py_ssize_t products_size
    Layout out
    void* dx


cdef struct reduce_args:
    conv_args conv
    Py_ssize_t n_sums
    void* dW
    void* db


cdef inline Py_ssize_t run_columns(const conv_args* a) noexcept nogil:
    """How many columns of dx one product gives: (s, c), or c."""
    return a.kw * a.outer if a.groups == 1 and a.dx == 1 else a.outer


cdef inline Py_ssize_t spread_size(const conv_args* a, const real* like) noexcept nogil:
    """Elements of the packed weights: for each group and run, panels of [inner, columns]."""
    cdef Py_ssize_t columns = run_columns(a)
    return (a.groups * (a.kh * a.kw * a.outer // columns) * a.inner
            * round_up(columns, lanes(like)))


cdef void spread_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void pack_spread_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void reduce_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
