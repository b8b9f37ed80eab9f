"""Winograd's convolution over rows; the kernels of _conv2d.pyx call it."""

from cnn_core._conv2d_shape cimport conv_args
from cnn_core._simd cimport lanes, max_columns
from cnn_core._types cimport real, round_up
from cnn_core._winograd cimport plane_size


cdef enum:
    FEWEST_TERMS = 12        # of a row of the kernel; with fewer the transforms cost as much as
    FEWEST_FILTERS = 8       # the products save
    MOST_WIDTH = 8           # of the kernel
    TILE_ROWS = 4
    ROW_PLANES = 8


cdef inline bint takes_winograd_rows(const conv_args* a) noexcept nogil:
    """Whether the convolution is computed by tiles of rows. Nothing but its own shape decides."""
    return (a.kh == 5 and a.kw <= MOST_WIDTH and a.sy == a.sx == a.dy == a.dx == 1
            and a.groups == 1 and a.inner > 1 and a.kw * a.inner >= FEWEST_TERMS
            and a.outer >= FEWEST_FILTERS)


cdef inline Py_ssize_t winograd_rows_size(const conv_args* a, const real* like) noexcept nogil:
    """Elements of the packed weights: panels of max_columns filters; in a panel the planes, in a
    plane one row per weight of a row of the kernel, rounded up to whole vectors."""
    cdef Py_ssize_t widest = max_columns(like), whole = a.outer // widest, terms = a.kw * a.inner
    return ROW_PLANES * (whole * plane_size(terms * widest, like) + plane_size(
        terms * round_up(a.outer - whole * widest, lanes(like)), like))


cdef void pack_winograd_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* W,
                             real* packed) noexcept nogil
cdef void winograd_tile_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                             const real* weights, const real* b, const real* previous,
                             real* y) noexcept nogil
