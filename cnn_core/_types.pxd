"""The element types of all kernels, and whole vectors of them."""

ctypedef fused real:
    float
    double


cdef enum:
    LINE_BYTES = 64      # of a cache line


cdef inline Py_ssize_t round_up(Py_ssize_t n, Py_ssize_t unit) noexcept nogil:
    return (n + unit - 1) // unit * unit


cdef inline char* next_line(const void* memory) noexcept nogil:
    """Where the first cache line begins from `memory` on."""
    return <char*>((<size_t>memory + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES)
