"""The element types of all kernels, and whole vectors of them."""

ctypedef fused real:
    float
    double


cdef inline Py_ssize_t round_up(Py_ssize_t n, Py_ssize_t unit) noexcept nogil:
    return (n + unit - 1) // unit * unit
