"""Kernels of Winograd's convolution; the tasks are made in _conv2d.pyx."""

from cnn_core._conv2d_shape cimport conv_args, round_up
from cnn_core._simd cimport f32, f64, lanes, max_columns
from cnn_core._types cimport real


cdef enum:
    FEWEST_CHANNELS = 16    # on both sides; with fewer, and with
    FEWEST_WEIGHTS = 384    # per tap, the transforms cost what the products save
    PLANES = 16             # of a tile: 4 x 4
    LINE = 64               # bytes of a cache line


cdef inline bint takes_winograd(const conv_args* a) noexcept nogil:
    """Whether the convolution is computed by tiles. Nothing but its own shape decides."""
    return (a.kh == a.kw == 3 and a.sy == a.sx == a.dy == a.dx == 1 and a.groups == 1
            and min(a.inner, a.outer) >= FEWEST_CHANNELS and a.inner * a.outer >= FEWEST_WEIGHTS)


cdef inline Py_ssize_t plane_size(Py_ssize_t size, const real* like) noexcept nogil:
    """Elements from one plane to the next; a line more, so that the same element of all planes does
    not fall into the same few sets of the cache."""
    return round_up(size, lanes(like)) + LINE // sizeof(real)


cdef inline Py_ssize_t winograd_size(const conv_args* a, const real* like) noexcept nogil:
    """Elements of the packed weights: panels of max_columns filters; in a panel the planes, in a
    plane one row per channel, rounded up to whole vectors."""
    cdef Py_ssize_t widest = max_columns(like), whole = a.outer // widest
    return (PLANES * whole * plane_size(a.inner * widest, like) + PLANES
            * plane_size(a.inner * round_up(a.outer - whole * widest, lanes(like)), like))


# The entries of the tables, see simd/simd.h.

cdef inline void winograd_input(
    Py_ssize_t tiles, Py_ssize_t n, const real* x, Py_ssize_t x_row, Py_ssize_t rows,
    Py_ssize_t columns, real* v, Py_ssize_t plane,
) noexcept nogil:
    if real is float:
        f32.winograd_input(tiles, n, x, x_row, rows, columns, v, plane)
    else:
        f64.winograd_input(tiles, n, x, x_row, rows, columns, v, plane)


cdef inline void winograd_output(
    Py_ssize_t tiles, Py_ssize_t n, const real* m, Py_ssize_t plane, const real* b, real* y,
    Py_ssize_t y_row, Py_ssize_t rows, Py_ssize_t columns,
) noexcept nogil:
    if real is float:
        f32.winograd_output(tiles, n, m, plane, b, y, y_row, rows, columns)
    else:
        f64.winograd_output(tiles, n, m, plane, b, y, y_row, rows, columns)


cdef inline void winograd_weights(Py_ssize_t n, const real* g, Py_ssize_t g_row, real* u,
                                  Py_ssize_t plane) noexcept nogil:
    if real is float:
        f32.winograd_weights(n, g, g_row, u, plane)
    else:
        f64.winograd_weights(n, g, g_row, u, plane)


cdef inline void winograd_gradient(
    Py_ssize_t tiles, Py_ssize_t n, const real* dy, Py_ssize_t dy_row, Py_ssize_t rows,
    Py_ssize_t columns, real* h, Py_ssize_t plane,
) noexcept nogil:
    if real is float:
        f32.winograd_gradient(tiles, n, dy, dy_row, rows, columns, h, plane)
    else:
        f64.winograd_gradient(tiles, n, dy, dy_row, rows, columns, h, plane)


cdef inline void winograd_weights_gradient(Py_ssize_t n, const real* m, Py_ssize_t plane, real* dg,
                                           Py_ssize_t dg_row) noexcept nogil:
    if real is float:
        f32.winograd_weights_gradient(n, m, plane, dg, dg_row)
    else:
        f64.winograd_weights_gradient(n, m, plane, dg, dg_row)


cdef void pack_winograd_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void winograd_image_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void winograd_row_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void winograd_weight_gradient_kernel(const void* args, Py_ssize_t begin,
                                          Py_ssize_t end) noexcept nogil
