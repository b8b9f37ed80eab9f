"""Which windows of images of one channel have seen something, for the modules of convolutions."""

from libc.stdint cimport uint8_t

from cnn_core._images cimport Layout
from cnn_core._types cimport real


cdef struct seen_args:
    Layout x                 # at the top left of the padding
    Py_ssize_t out_height    # windows
    Py_ssize_t out_width
    Py_ssize_t sy            # strides
    Py_ssize_t sx
    Py_ssize_t rows          # of a window
    Py_ssize_t columns
    const void* data
    uint8_t* seen            # [N, OH, OW]
    bint is_float


cdef void find_seen(const seen_args* a, const real* x, uint8_t* seen) noexcept nogil

cdef void seen_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
