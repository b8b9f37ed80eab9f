"""The affine map at C level: plain pointers, contiguous rows, a range of rows per call."""

from cnn_core._parallel cimport Task, kernel_t
from cnn_core._types cimport real

cdef enum:
    MANY_WEIGHTS = 262144
    MANY_ELEMENTS = 131072   # of rows that stay in the cache beside the weights


cdef void affine_forward_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_in, Py_ssize_t n_out, const real* x,
    const real* W, const real* b, int activation, double slope, real* out,
) noexcept nogil

# For `_affine_gradient` too: the work of a row, and a task over rows.
cdef double work_of(Py_ssize_t n_rows, double weights) noexcept nogil
cdef Task rows_task(kernel_t kernel, const void* args, size_t size, Py_ssize_t n_rows,
                    Py_ssize_t n_in, Py_ssize_t n_out, tuple arrays)
