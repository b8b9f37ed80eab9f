"""The kernels of _conv2d_pooled_gradient.pyx, for the tasks."""

from libc.stdint cimport uint8_t

from cnn_core._conv2d_shape cimport conv_args
from cnn_core._images cimport Layout
from cnn_core._seen cimport seen_args
from cnn_core._types cimport real


cdef struct pooled_args:
    conv_args conv           # x, and as y the gradient by the outputs of the windows
    Py_ssize_t area          # of a window
    Py_ssize_t columns       # of a window
    Py_ssize_t sy            # stride of the windows
    Py_ssize_t sx
    Py_ssize_t top           # padding of the convolution
    Py_ssize_t left
    Py_ssize_t height        # of dx, and with the padding
    Py_ssize_t width
    Py_ssize_t padded_height
    Py_ssize_t padded_width
    Layout out
    void* dx
    const uint8_t* which     # [N, OH, OW, F]: number of the pixel that was the maximum
    seen_args seen           # where .seen is not NULL, it has been found before


cdef inline Py_ssize_t elements(const conv_args* a) noexcept nogil:
    """Weights of a filter."""
    return a.kh * a.kw * a.inner


cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void pack_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef void input_gradient_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil
cdef bint gradients_pay(const pooled_args* a, const real* like) noexcept nogil
