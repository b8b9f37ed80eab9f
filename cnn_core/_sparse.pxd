"""Products with sparse rows at C level: plain pointers, a range of rows per call.

    rows i     values[indptr[i] .. indptr[i + 1]] in `columns`, ascending
    columns j  values[ends[j - 1] .. ends[j]] in `rows`, ascending; ends[-1] stands for 0
"""

from libc.stdint cimport int32_t, int64_t

from cnn_core._types cimport real


cdef struct SparseRows:
    const int64_t* indptr
    const int32_t* columns
    const void* values
    const int64_t* indices      # row i of the batch is row indices[offset[0] + i]
    const int64_t* offset


cdef struct SparseColumns:
    int64_t* ends
    int32_t* rows
    void* values


cdef class Batch:
    cdef SparseRows x
    cdef SparseColumns transposed
    cdef int64_t* zeros
    cdef object source                   # keeps what x points to alive
    cdef Py_ssize_t capacity             # entries that `transposed` has room for
    cdef bint is_float
    cdef readonly Py_ssize_t n, n_columns, entries
    cdef readonly object dtype
    cdef int reserve(self, Py_ssize_t entries) except -1


cdef void sparse_forward_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_out, const int64_t* indptr,
    const int32_t* columns, const real* values, const int64_t* indices, const real* W,
    const real* b, int activation, double slope, real* out,
) noexcept nogil

cdef void transpose_columns(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, const int64_t* indptr,
    const int32_t* columns, const real* values, const int64_t* indices, int64_t* ends,
    int32_t* rows, real* transposed,
) noexcept nogil

cdef void sparse_weight_gradient_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_out, const int64_t* ends, const int32_t* rows,
    const real* values, const real* dout, real* dW,
) noexcept nogil
