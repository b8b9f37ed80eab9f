"""How inputs are cut into strips of columns and groups of rows (`_affine.pyx`, `_batches.pyx`).

A strip begins at a cache line of each row where rows begin at one.
"""

cdef enum:
    LINE = 16    # elements: a cache line of float32, two of float64
    TOGETHER = 4    # rows that kernels take at once


cdef inline Py_ssize_t strip_begin(Py_ssize_t strip, Py_ssize_t n_strips,
                                   Py_ssize_t n_columns) noexcept nogil:
    """The first column of a strip; n_columns for the one past the last."""
    if strip == n_strips:
        return n_columns
    return strip * n_columns // n_strips // LINE * LINE


cdef inline Py_ssize_t group_begin(Py_ssize_t group, Py_ssize_t n_groups,
                                   Py_ssize_t n_rows) noexcept nogil:
    """The first row of a group; n_rows for the one past the last."""
    if group == n_groups:
        return n_rows
    return group * n_rows // n_groups // TOGETHER * TOGETHER
