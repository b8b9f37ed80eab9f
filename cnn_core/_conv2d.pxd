"""The geometry of a convolution, for the modules that make tasks of it."""

from cnn_core._conv2d_shape cimport conv_args
from cnn_core._images cimport Images, Layout


cdef Layout padded_layout(Images images, padding)
cdef through_activation(conv_args* args, Images dx, Images previous, int activation, double slope)


cdef class Convolution:
    cdef conv_args shape
    cdef readonly tuple padding
    cdef readonly Py_ssize_t filters, channels
    cdef object empty

    cdef check_weights(self, Py_ssize_t f, Py_ssize_t c, Py_ssize_t kh, Py_ssize_t kw)
    cdef check_packed(self, bint backward, Py_ssize_t size, bint is_float, bint images_are_float)
    cdef tuple tap_tables(self, conv_args* args)
    cdef conv_args bind(self, Images x, Images y)
    cdef double work(self, conv_args args)
    cdef conv_args bind_back(self, Images dy, Images dx, Images previous, int activation,
                             double slope)
