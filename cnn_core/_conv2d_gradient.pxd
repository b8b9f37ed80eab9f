"""Kernels of the gradients of a convolution; the tasks are made in _conv2d.pyx."""

from cnn_core._conv2d_shape cimport conv_args
from cnn_core._images cimport Layout
from cnn_core._simd cimport lanes, max_columns
from cnn_core._types cimport real, round_up


cdef struct spread_args:
    conv_args conv               # x: dy, y: one padded row
    Py_ssize_t top               # padding
    Py_ssize_t height            # of dx
    Py_ssize_t width
    Py_ssize_t columns           # of the products (see below), in panels of
    Py_ssize_t panel
    Py_ssize_t parts             # of a kernel row
    Py_ssize_t block             # elements of packed weights, of each
    Py_ssize_t products_size
    Layout out
    void* dx


cdef struct reduce_args:
    conv_args conv
    Py_ssize_t n_sums
    bint by_filters              # whether each filter's weights stand together
    void* dW
    void* db


# The products of one kernel row and all pixels of a row of dy have columns (s, c), or c alone where
# those are dilated, grouped or many. A panel of columns holds whole taps s, or a part of one.

cdef inline Py_ssize_t run_columns(const conv_args* a, const real* like) noexcept nogil:
    if a.groups == 1 and a.dx == 1 and a.outer <= max_columns(like):
        return a.kw * a.outer
    return a.outer


cdef inline Py_ssize_t panel_columns(const conv_args* a, const real* like) noexcept nogil:
    cdef Py_ssize_t widest = max_columns(like)
    return widest if a.outer > widest else widest // a.outer * a.outer


cdef inline Py_ssize_t padded_columns(const conv_args* a, const real* like) noexcept nogil:
    """The columns of all panels, each rounded up to whole vectors."""
    cdef Py_ssize_t columns = run_columns(a, like), panel = panel_columns(a, like)
    return (columns // panel * round_up(panel, lanes(like))
            + round_up(columns % panel, lanes(like)))


cdef inline Py_ssize_t spread_size(const conv_args* a, const real* like) noexcept nogil:
    """Elements of the packed weights: for each group and run, panels of [inner, columns]."""
    return (a.groups * (a.kh * a.kw * a.outer // run_columns(a, like)) * a.inner
            * padded_columns(a, like))


# dW of few filters: a product of one channel has all (s, f) of a kernel row as columns, s
# backwards, and all r as rows.

cdef enum:
    CHANNELS_ONE_BY_ONE = 4

cdef inline bint few_filters(const conv_args* a, const real* like) noexcept nogil:
    """Whether the columns fill clearly fewer vectors than the filters of each s by themselves."""
    cdef Py_ssize_t vector = lanes(like)
    return (a.groups == 1 and a.sx == 1 and a.dx == 1 and a.inner <= CHANNELS_ONE_BY_ONE
            and 4 * round_up(a.kw * a.outer, vector) <= 3 * a.kw * round_up(a.outer, vector))


cdef Py_ssize_t plan_rows(conv_args* a, const real* like, Py_ssize_t* x_taps,
                          Py_ssize_t* w_taps) noexcept nogil
cdef void spread_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void pack_spread_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void reduce_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
