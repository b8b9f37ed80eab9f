"""The affine map behind images of which many pixels are alike, for _affine_images.pyx."""

from libc.stdint cimport int32_t, uint8_t

from cnn_core._affine_images_shape cimport TERMS, images_args
from cnn_core._types cimport real


cdef enum:
    GROUP_ROW = TERMS + 1    # numbers of a group


cdef void group_images(Py_ssize_t n_images, Py_ssize_t n_pixels, Py_ssize_t p,
                       const uint8_t* seen, int32_t* groups) noexcept nogil
cdef bint is_shared(const images_args* a, Py_ssize_t p) noexcept nogil
cdef void forward_pixel(const images_args* a, Py_ssize_t p, const real* x, const real* W,
                        real* out) noexcept nogil
cdef void input_gradient_pixel(const images_args* a, Py_ssize_t p, const real* dout, const real* W,
                               const real* y, real* dx) noexcept nogil
cdef void weight_gradient_pixel(const images_args* a, Py_ssize_t p, real* dout, Py_ssize_t row,
                                const real* x, real* dW) noexcept nogil
