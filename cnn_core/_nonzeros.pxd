"""Products with matrices that may be mostly zeros."""

from cnn_core._types cimport real


cdef void multiply_nonzeros(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, Py_ssize_t b_columns, const real* bias, real* c,
    Py_ssize_t c_row, const real** ahead=?,
) noexcept nogil
