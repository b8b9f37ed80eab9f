"""Gradients of the affine map at C level: plain pointers, contiguous rows, a range per call."""

from cnn_core._types cimport real


cdef void affine_input_gradient_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_in, Py_ssize_t n_out, const real* dout,
    const real* packed_W_transposed, int activation, double slope, const real* y, real* dx,
) noexcept nogil

cdef void affine_input_gradient_columns(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const real* dout, const real* W, int activation, double slope, const real* y, real* dx,
) noexcept nogil

cdef void affine_weight_gradient_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const real* x, const real* dout, real* dW,
) noexcept nogil

cdef void column_sums(Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, Py_ssize_t n_columns,
                      const real* x, real* sums, real* scratch) noexcept nogil
