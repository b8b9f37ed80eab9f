"""The convolution of images of one channel, for the other modules of convolutions."""

from libc.stdint cimport uint8_t, uint64_t

from cnn_core._conv2d_shape cimport conv_args
from cnn_core._simd_images cimport nonzero_bits
from cnn_core._types cimport real

cdef extern from *:
    int count_low "__builtin_ctzll"(uint64_t bits) nogil     # zeros below the lowest one
    int count_high "__builtin_clzll"(uint64_t bits) nogil

cdef enum:
    MOST_SIDE = 8                # rows and columns of a kernel that passes along a span
    BITS = 64                    # elements of x that are looked at together
    MOST_AREA = 16               # pixels of a window: their numbers take a byte


cdef struct Windows:
    # of maxima, which lie apart
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t sy                # strides
    Py_ssize_t sx
    Py_ssize_t out_height        # how many there are
    Py_ssize_t out_width
    uint8_t* which               # [N, OH, OW, F]: number of the pixel that was the maximum; or NULL


cdef inline bint find_span(Py_ssize_t n, const real* x, Py_ssize_t* first,
                           Py_ssize_t* last) noexcept nogil:
    """The first element that is not 0, and behind the last one; false if all are 0."""
    cdef Py_ssize_t at = 0
    cdef uint64_t bits
    first[0], last[0] = n, 0
    while at < n:
        bits = nonzero_bits(min(n - at, <Py_ssize_t>BITS), x + at)
        if bits:
            first[0], last[0] = min(first[0], at + count_low(bits)), at + BITS - count_high(bits)
        at += BITS
    return first[0] < n


cdef bint takes_spans(const conv_args* a) noexcept nogil
cdef bint convolve_spans(const conv_args* a, const Windows* windows, Py_ssize_t begin,
                         Py_ssize_t end, const real* x, const real* weights, const real* b,
                         real* y) noexcept nogil
cdef bint takes_span_gradients(const conv_args* a) noexcept nogil
cdef void span_gradients_image(const conv_args* a, const real* x, const real* dy,
                               real* dW) noexcept nogil
