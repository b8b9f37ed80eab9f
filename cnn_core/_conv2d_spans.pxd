"""The convolution of images of one channel, for the other modules of convolutions."""

from libc.stdint cimport uint8_t

from cnn_core._conv2d_shape cimport conv_args
from cnn_core._types cimport real

cdef enum:
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


cdef bint takes_spans(const conv_args* a) noexcept nogil
cdef bint convolve_spans(const conv_args* a, const Windows* windows, Py_ssize_t begin,
                         Py_ssize_t end, const real* x, const real* weights, const real* b,
                         real* y) noexcept nogil
