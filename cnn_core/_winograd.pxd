"""Winograd's convolution; the kernels of _conv2d.pyx and _conv2d_gradient.pyx call it."""

from cnn_core._conv2d_shape cimport conv_args
from cnn_core._simd cimport lanes, max_columns
from cnn_core._types cimport LINE_BYTES, real, round_up


cdef enum:
    FEWEST_CHANNELS = 16    # on both sides; with fewer, and with
    FEWEST_WEIGHTS = 384    # per tap, the transforms cost what the products save
    PLANES = 16             # of a tile: 4 x 4


cdef inline bint takes_winograd(const conv_args* a) noexcept nogil:
    """Whether the convolution is computed by tiles. Nothing but its own shape decides."""
    return (a.kh == a.kw == 3 and a.sy == a.sx == a.dy == a.dx == 1 and a.groups == 1
            and min(a.inner, a.outer) >= FEWEST_CHANNELS and a.inner * a.outer >= FEWEST_WEIGHTS)


cdef inline Py_ssize_t plane_size(Py_ssize_t size, const real* like) noexcept nogil:
    """Elements from one plane to the next; a line more, so that the same element of all planes does
    not fall into the same few sets of the cache."""
    return round_up(size, lanes(like)) + LINE_BYTES // sizeof(real)


cdef inline Py_ssize_t winograd_size(const conv_args* a, const real* like) noexcept nogil:
    """Elements of the packed weights: panels of max_columns filters; in a panel the planes, in a
    plane one row per channel, rounded up to whole vectors."""
    cdef Py_ssize_t widest = max_columns(like), whole = a.outer // widest
    return (PLANES * whole * plane_size(a.inner * widest, like) + PLANES
            * plane_size(a.inner * round_up(a.outer - whole * widest, lanes(like)), like))


cdef void pack_winograd(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* W,
                        real* packed) noexcept nogil
cdef void winograd_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                        const real* weights, const real* b, const real* previous,
                        real* y) noexcept nogil
cdef void winograd_weight_gradient(const conv_args* a, Py_ssize_t begin, Py_ssize_t end,
                                   const real* x, const real* dy, real* partial) noexcept nogil
