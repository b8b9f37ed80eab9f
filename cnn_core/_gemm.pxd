"""Products of whole matrices from the micro-kernel's tiles."""

from cnn_core._parallel cimport Task
from cnn_core._simd cimport fetch
from cnn_core._types cimport real


cdef enum:
    MOST_AHEAD = 128     # rows that are fetched at once


cdef inline bint rows_behind(Py_ssize_t m, Py_ssize_t k, const real* a, Py_ssize_t a_row,
                             Py_ssize_t a_col, const real** ahead) noexcept nogil:
    """The m rows that follow whole rows of k elements, likely to come next; false if A is no such
    rows, or too many."""
    cdef Py_ssize_t i
    if m > MOST_AHEAD or a_row != k or a_col != 1:
        return False
    for i in range(m):
        ahead[i] = a + (m + i) * k
    return True


cdef inline void fetch_rows(Py_ssize_t m, Py_ssize_t n, const real* x,
                            Py_ssize_t x_row) noexcept nogil:
    """Bring m rows of n > 0 elements nearer: they lie too far apart for the processor to see them
    coming."""
    cdef Py_ssize_t i, j
    for i in range(m):
        j = 0
        while j < n:
            fetch(x + i * x_row + j)
            j += 64 // sizeof(real)    # a cache line
        fetch(x + i * x_row + n - 1)


cdef void multiply_add(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, const real* bias, real* c, Py_ssize_t c_row,
) noexcept nogil

cdef void multiply_add_fetching(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, const real* bias, real* c, Py_ssize_t c_row,
    const real** ahead,
) noexcept nogil

cdef void copy_panels(Py_ssize_t n, Py_ssize_t k, const real* b, Py_ssize_t b_row,
                      real* panels) noexcept nogil

cdef void multiply_add_copies(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, bint a_by_columns, const real* panels,
    bint add, const real* bias, real* c, Py_ssize_t c_row,
) noexcept nogil

cdef void multiply_add_packed(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* packed, bint add, const real* bias, real* c, Py_ssize_t c_row,
) noexcept nogil

cdef Py_ssize_t packed_elements(Py_ssize_t n, Py_ssize_t k, const real* like) noexcept nogil

cdef void pack_transposed_panel(
    Py_ssize_t panel, Py_ssize_t n, Py_ssize_t k, const real* b_transposed, real* packed,
) noexcept nogil
