# cython: language_level=3, boundscheck=False
"""Faults on purpose: a tool must find them before its silence means anything."""

from libc.limits cimport INT_MAX
from libc.stdlib cimport free, malloc

from cnn_core._parallel cimport new_task

cdef double MUCH = 1e9    # work per item: a team runs it


cdef struct array_args:
    double* values
    Py_ssize_t n
    double* sums


cdef void write_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const array_args* a = <const array_args*>args
    cdef Py_ssize_t i
    for i in range(begin, end):
        a.values[i] = i


cdef void read_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const array_args* a = <const array_args*>args
    cdef Py_ssize_t i, k
    for i in range(begin, end):
        a.sums[i] = 0
        for k in range(a.n):
            a.sums[i] += a.values[k]


def write(double[::1] values, Py_ssize_t n):
    """Task: values[i] = i for i < n, which may be too many."""
    cdef array_args args = array_args(&values[0], values.shape[0], NULL)
    return new_task(write_kernel, &args, sizeof(args), n, 1, 1, MUCH, values.base)


def read(double[::1] values, double[::1] sums):
    """Task: every sums[i] is the sum of all values."""
    cdef array_args args = array_args(&values[0], values.shape[0], &sums[0])
    return new_task(read_kernel, &args, sizeof(args), sums.shape[0], 1, 1, MUCH,
                    (values.base, sums.base))


def overflow(int n):
    """A sum beyond the largest int."""
    return INT_MAX + n


def uninitialised():
    """A branch on memory that nobody has written to."""
    cdef double* values = <double*>malloc(8 * sizeof(double))
    cdef bint positive = False
    if values != NULL:
        positive = values[3] > 0
        free(values)
    return positive
