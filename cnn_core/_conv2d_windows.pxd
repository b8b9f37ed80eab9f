"""Maxima of a convolution of one channel, for the other modules of convolutions."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from cnn_core._conv2d_spans cimport Windows
from cnn_core._conv2d_shape cimport conv_args
from cnn_core._types cimport real


cdef struct Rows:
    # images of one channel without a border
    const int64_t* place    # the address of those that count, or 0
    Py_ssize_t top          # of the border that they would have
    Py_ssize_t left
    Py_ssize_t height
    Py_ssize_t width


cdef struct forward_args:
    conv_args conv           # y: of the maxima
    Windows windows
    Rows rows                # in place of x where rows.place is not NULL


cdef void forward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

cdef bint takes_windows(const conv_args* a, const Windows* windows, const real* like) noexcept nogil

cdef bint takes_window_gradients(
    const conv_args* a, Py_ssize_t area, Py_ssize_t columns, Py_ssize_t sy, Py_ssize_t sx,
    const real* like,
) noexcept nogil

cdef Py_ssize_t window_gradients_room(const conv_args* a, Py_ssize_t height, Py_ssize_t width,
                                      const real* like) noexcept nogil

cdef void window_gradients_image(
    const conv_args* a, Py_ssize_t n_windows, const int32_t* places, const uint8_t* seen,
    const real* x, Py_ssize_t height, Py_ssize_t width, const real* dy, const uint8_t* which,
    real* sums, real* room, int32_t* windows, int32_t* at,
) noexcept nogil
