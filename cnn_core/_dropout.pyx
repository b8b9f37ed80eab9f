"""Inverted dropout with a counter-based generator.

    y[n, e] = x[n, e] / (1 - rate) where u(seed, layer, step, n, e) >= rate, else 0

The mask is not stored: the backward pass draws the same numbers again. It depends on the seed, the
layer, the step, the row and the element alone, so it is the same for any number of threads and any
instruction set.

Srivastava et al., Dropout (2014); Saito, Deep Learning from Scratch, section 6.4.3.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport dropout_row
from cnn_core._types cimport real

cdef enum:
    MOST_ROWS = 48


cdef struct dropout_args:
    Py_ssize_t row
    const void* x
    void* y
    uint32_t key[4]
    const int64_t* step
    uint32_t threshold
    double scale
    bint is_float


cdef inline void dropout_rows(const dropout_args* a, Py_ssize_t begin, Py_ssize_t end,
                              const real* x, real* y) noexcept nogil:
    cdef Py_ssize_t n
    cdef uint32_t stream[3]
    cdef uint64_t step = <uint64_t>a.step[0]
    stream[0] = <uint32_t>step
    stream[1] = <uint32_t>(step >> 32)
    for n in range(begin, end):
        stream[2] = <uint32_t>n
        dropout_row(a.row, a.key, stream, a.threshold, a.scale, x + n * a.row, y + n * a.row)


cdef void dropout_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const dropout_args* a = <const dropout_args*>args
    if a.is_float:
        dropout_rows(a, begin, end, <const float*>a.x, <float*>a.y)
    else:
        dropout_rows(a, begin, end, <const double*>a.x, <double*>a.y)


def dropout(const real[:, ::1] x, real[:, ::1] y, double rate, uint64_t seed, uint32_t layer,
            const int64_t[::1] step):
    """Task over rows: y = dropout(x), or dx = dropout(dout); y may be x.

    step[0] is read when the task runs.
    """
    cdef dropout_args args
    if not 0 <= rate < 1:
        raise ValueError("rate: expected 0 <= rate < 1")
    expect(x.shape[0] == y.shape[0] and x.shape[1] == y.shape[1] and step.shape[0] == 1,
           "x, y, step")
    args.row = x.shape[1]
    args.x = &x[0, 0]
    args.y = &y[0, 0]
    args.key[0] = <uint32_t>seed
    args.key[1] = <uint32_t>(seed >> 32)
    args.key[2] = layer
    args.key[3] = 0
    args.step = &step[0]
    args.threshold = <uint32_t>(rate * 4294967296.0)
    args.scale = 1.0 / (1.0 - rate)
    args.is_float = real is float
    return new_task(dropout_kernel, &args, sizeof(args), x.shape[0], 1, MOST_ROWS, 8 * args.row,
                    (x.base, y.base, step.base))
