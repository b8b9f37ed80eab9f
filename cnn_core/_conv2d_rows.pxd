"""Rows of a convolution's outputs, by products over all terms."""

from libc.string cimport memset

from cnn_core._conv2d_shape cimport CACHE_BYTES, MOST_TAPS, conv_args, packed_group
from cnn_core._simd cimport lanes, max_columns, multiply_add_taps
from cnn_core._types cimport real, round_up


cdef inline void conv_panel(const conv_args* a, const real* x, const real* weights,
                            Py_ssize_t stride, Py_ssize_t width, const real* start, real* y,
                            Py_ssize_t rows) noexcept nogil:
    """Some taps, or some terms of one tap, for all rows; then the next ones."""
    cdef Py_ssize_t t, row, first = 0, p0 = 0, count, terms
    cdef Py_ssize_t w_taps[MOST_TAPS]    # multiples of the panel's own stride
    cdef Py_ssize_t most_terms = max(CACHE_BYTES // <Py_ssize_t>(stride * sizeof(real)), 1)
    if rows == 1:
        most_terms = a.k * MOST_TAPS
    while first < a.taps:
        count = max(min(min(a.taps - first, MOST_TAPS), most_terms // a.k), 1)
        terms = min(a.k - p0, most_terms)
        for t in range(count):
            w_taps[t] = ((first + t) * a.k + p0) * stride
        for row in range(rows):
            multiply_add_taps(a.out_width, width, terms, count, x + row * a.sy * a.x.row + p0,
                              a.x_taps + first, a.sx * a.x.channels, 1, weights, w_taps, stride,
                              start, y + row * a.y.row, a.y.channels)
        p0 += terms
        if p0 >= a.k:
            first, p0 = first + count, 0
        start = NULL    # the rest of the terms is added


cdef inline void conv_rows(const conv_args* a, const real* x, const real* weights, const real* b,
                           real* y, Py_ssize_t count) noexcept nogil:
    """`count` rows of output pixels of one image."""
    cdef Py_ssize_t g, j0, width, widest = max_columns(x), vector = lanes(x)
    cdef Py_ssize_t rows = a.kh * a.kw * a.inner
    cdef real zeros[64]
    if b == NULL:
        memset(zeros, 0, sizeof(zeros))
    for g in range(a.groups):
        j0 = 0
        while j0 < a.outer:
            width = min(widest, a.outer - j0)
            conv_panel(a, x + g * a.inner, weights + rows * j0, round_up(width, vector), width,
                       b + g * a.outer + j0 if b != NULL else zeros, y + g * a.outer + j0, count)
            j0 += widest
        weights += packed_group(a, a.inner, a.outer, weights)
