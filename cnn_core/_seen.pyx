"""Which windows of images of one channel have seen anything but zeros.

    seen[n, oy, ox] = whether x[n, oy sy + r, ox sx + s] != 0 for some r < rows, s < columns

Of images of digits a third of the windows have seen nothing: what a convolution makes of them is
the same for all, and the gradient of its weights needs nothing of them.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from cnn_core._conv2d_spans cimport BITS
from cnn_core._images cimport pixel
from cnn_core._simd_images cimport nonzero_bits
from cnn_core._types cimport real

cdef enum:
    MOST_ROWS = 256    # of x; windows of larger images count as if they had seen something


cdef void find_seen(const seen_args* a, const real* x, uint8_t* seen) noexcept nogil:
    """The windows of one image."""
    cdef Py_ssize_t y, oy, ox, width = (a.out_width - 1) * a.sx + a.columns
    cdef Py_ssize_t height = (a.out_height - 1) * a.sy + a.rows
    cdef uint64_t bits, found
    cdef uint64_t nonzeros[MOST_ROWS]
    if width > BITS or height > MOST_ROWS:
        memset(seen, 1, a.out_height * a.out_width)
        return
    for y in range(height):
        nonzeros[y] = nonzero_bits(width, x + y * a.x.row)
    for oy in range(a.out_height):
        bits = found = 0
        for y in range(oy * a.sy, oy * a.sy + a.rows):
            bits |= nonzeros[y]
        for ox in range(a.columns):
            found |= bits >> ox
        for ox in range(a.out_width):
            seen[ox] = found >> (ox * a.sx) & 1
        seen += a.out_width


cdef void seen_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const seen_args* a = <const seen_args*>args
    cdef Py_ssize_t n
    cdef uint8_t* seen
    for n in range(begin, end):
        seen = a.seen + n * a.out_height * a.out_width
        if a.is_float:
            find_seen(a, <const float*>pixel(<const float*>a.data, &a.x, n, 0, 0), seen)
        else:
            find_seen(a, <const double*>pixel(<const double*>a.data, &a.x, n, 0, 0), seen)
