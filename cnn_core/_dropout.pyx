"""Inverted dropout with a counter-based generator.

    y[n, e] = x[n, e] / (1 - rate) where u(seed, layer, step, n, e) >= rate, else 0

The mask depends on the seed, the layer, the step, the row and the element alone, so it is the same
for any number of threads and any instruction set. The backward pass draws the same numbers again,
or takes the mask that the forward pass has left, a bit per element, in half the time.

Srivastava et al., Dropout (2014); Saito, Deep Learning from Scratch, section 6.4.3.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd_images cimport dropout_row, keep_row
from cnn_core._types cimport real

cdef enum:
    MOST_ROWS = 48


cdef struct dropout_args:
    Py_ssize_t row
    const void* x
    void* y
    uint32_t key[4]
    const int64_t* step
    uint64_t* mask               # may be NULL
    Py_ssize_t mask_row
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
        dropout_row(a.row, a.key, stream, a.threshold, a.scale, x + n * a.row, y + n * a.row,
                    a.mask + n * a.mask_row if a.mask != NULL else NULL)


cdef void dropout_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const dropout_args* a = <const dropout_args*>args
    if a.is_float:
        dropout_rows(a, begin, end, <const float*>a.x, <float*>a.y)
    else:
        dropout_rows(a, begin, end, <const double*>a.x, <double*>a.y)


cdef inline void keep_rows(const dropout_args* a, Py_ssize_t begin, Py_ssize_t end,
                           const real* x, real* y) noexcept nogil:
    cdef Py_ssize_t n
    for n in range(begin, end):
        keep_row(a.row, a.mask + n * a.mask_row, a.scale, x + n * a.row, y + n * a.row)


cdef void keep_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const dropout_args* a = <const dropout_args*>args
    if a.is_float:
        keep_rows(a, begin, end, <const float*>a.x, <float*>a.y)
    else:
        keep_rows(a, begin, end, <const double*>a.x, <double*>a.y)


cdef dropout_args bind(const real[:, ::1] x, real[:, ::1] y, double rate,
                       uint64_t[:, ::1] mask) except *:
    cdef dropout_args args
    if not 0 <= rate < 1:
        raise ValueError("rate: expected 0 <= rate < 1")
    expect(x.shape[0] == y.shape[0] and x.shape[1] == y.shape[1], "x, y")
    args.row = x.shape[1]
    args.x = &x[0, 0]
    args.y = &y[0, 0]
    args.mask = NULL
    args.mask_row = mask_words(args.row)
    if mask is not None:
        expect(mask.shape[0] == x.shape[0] and mask.shape[1] == args.mask_row, "mask")
        args.mask = &mask[0, 0]
    args.scale = 1.0 / (1.0 - rate)
    args.is_float = real is float
    return args


cpdef Py_ssize_t mask_words(Py_ssize_t row) noexcept:
    """Words of 64 bits that the mask of a row of so many elements takes."""
    return (row + 63) // 64


def dropout(const real[:, ::1] x, real[:, ::1] y, double rate, uint64_t seed, uint32_t layer,
            const int64_t[::1] step, uint64_t[:, ::1] mask=None):
    """Task over rows: y = dropout(x), or dx = dropout(dout); y may be x.

    step[0] is read when the task runs. mask [N, mask_words(row)], or None, is filled.
    """
    cdef dropout_args args = bind(x, y, rate, mask)
    expect(step.shape[0] == 1, "step")
    args.key[0] = <uint32_t>seed
    args.key[1] = <uint32_t>(seed >> 32)
    args.key[2] = layer
    args.key[3] = 0
    args.step = &step[0]
    args.threshold = <uint32_t>(rate * 4294967296.0)
    return new_task(dropout_kernel, &args, sizeof(args), x.shape[0], 1, MOST_ROWS, 8 * args.row,
                    (x.base, y.base, step.base, None if mask is None else mask.base))


def keep(const real[:, ::1] x, real[:, ::1] y, double rate, uint64_t[:, ::1] mask not None):
    """Task over rows: y = dropout(x) by the mask that `dropout` has left; y may be x."""
    cdef dropout_args args = bind(x, y, rate, mask)
    return new_task(keep_kernel, &args, sizeof(args), x.shape[0], 1, MOST_ROWS, args.row,
                    (x.base, y.base, mask.base))
