"""Activations on rows of adjacent elements, forward and backward.

    y = f(x)        dx = dout f'(x), computed from y

    sigmoid     1 / (1 + exp(-x))               f' = y (1 - y)
    tanh                                        f' = 1 - y^2
    ReLU        max(x, 0)                       f' = 1 where y > 0, else 0
    leaky ReLU  x where x >= 0, else slope x    f' = 1 where y > 0, else slope
    softmax     exp(x) / sum exp(x) of a row    dx = y (dout - sum dout y)

Saito, Deep Learning from Scratch, sections 3.2, 3.5 and 5.5.
"""

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport (
    activate, activate_backward, softmax_row, softmax_row_backward,
)
from cnn_core._types cimport real

cdef enum:
    MOST_ROWS = 48
    WORK_PER_ELEMENT = 30    # an exponential takes as long as so many multiply-adds
    ELEMENTS_PER_CHUNK = 4096


cdef struct activation_args:
    Py_ssize_t row             # elements of a row
    const void* x              # input, or y
    const void* dout
    void* out
    int activation
    double slope
    bint is_float


cdef inline void forward_rows(const activation_args* a, Py_ssize_t begin, Py_ssize_t end,
                              const real* x, real* y) noexcept nogil:
    activate(a.activation, a.slope, (end - begin) * a.row, x + begin * a.row, y + begin * a.row)


cdef inline void backward_rows(const activation_args* a, Py_ssize_t begin, Py_ssize_t end,
                               const real* y, const real* dout, real* dx) noexcept nogil:
    activate_backward(a.activation, a.slope, (end - begin) * a.row, y + begin * a.row,
                      dout + begin * a.row, dx + begin * a.row)


cdef inline void softmax_rows(Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n, const real* x,
                              real* y) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(begin, end):
        softmax_row(n, x + i * n, y + i * n)


cdef inline void softmax_backward_rows(Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n,
                                       const real* y, const real* dout, real* dx) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(begin, end):
        softmax_row_backward(n, y + i * n, dout + i * n, dx + i * n)


cdef void forward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const activation_args* a = <const activation_args*>args
    if a.is_float:
        forward_rows(a, begin, end, <const float*>a.x, <float*>a.out)
    else:
        forward_rows(a, begin, end, <const double*>a.x, <double*>a.out)


cdef void backward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const activation_args* a = <const activation_args*>args
    if a.is_float:
        backward_rows(a, begin, end, <const float*>a.x, <const float*>a.dout, <float*>a.out)
    else:
        backward_rows(a, begin, end, <const double*>a.x, <const double*>a.dout, <double*>a.out)


cdef void softmax_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const activation_args* a = <const activation_args*>args
    if a.is_float:
        softmax_rows(begin, end, a.row, <const float*>a.x, <float*>a.out)
    else:
        softmax_rows(begin, end, a.row, <const double*>a.x, <double*>a.out)


cdef void softmax_backward_kernel(const void* args, Py_ssize_t begin,
                                  Py_ssize_t end) noexcept nogil:
    cdef const activation_args* a = <const activation_args*>args
    if a.is_float:
        softmax_backward_rows(begin, end, a.row, <const float*>a.x, <const float*>a.dout,
                              <float*>a.out)
    else:
        softmax_backward_rows(begin, end, a.row, <const double*>a.x, <const double*>a.dout,
                              <double*>a.out)


cdef inline Py_ssize_t rows_per_chunk(Py_ssize_t row) noexcept nogil:
    return max(MOST_ROWS, ELEMENTS_PER_CHUNK // max(row, 1))


cdef inline int expect_alike(const real[:, ::1] a, const real[:, ::1] b) except -1:
    return expect(a.shape[0] == b.shape[0] and a.shape[1] == b.shape[1], "rows")


def forward(const real[:, ::1] x, real[:, ::1] y, int activation, double slope):
    """Task over rows: y = f(x)."""
    cdef activation_args args
    expect_alike(x, y)
    args.row = x.shape[1]
    args.x = &x[0, 0]
    args.out = &y[0, 0]
    args.activation = activation
    args.slope = slope
    args.is_float = real is float
    return new_task(forward_kernel, &args, sizeof(args), x.shape[0], 1, rows_per_chunk(args.row),
                    WORK_PER_ELEMENT * args.row, (x.base, y.base))


def backward(const real[:, ::1] y, const real[:, ::1] dout, real[:, ::1] dx, int activation,
             double slope):
    """Task over rows: dx = dout f'(x) from y = f(x); dx may be dout."""
    cdef activation_args args
    expect_alike(y, dout)
    expect_alike(y, dx)
    args.row = y.shape[1]
    args.x = &y[0, 0]
    args.dout = &dout[0, 0]
    args.out = &dx[0, 0]
    args.activation = activation
    args.slope = slope
    args.is_float = real is float
    return new_task(backward_kernel, &args, sizeof(args), y.shape[0], 1, rows_per_chunk(args.row),
                    2 * args.row, (y.base, dout.base, dx.base))


def softmax_forward(const real[:, ::1] x, real[:, ::1] y):
    """Task over rows: y = softmax(x)."""
    cdef activation_args args
    expect_alike(x, y)
    args.row = x.shape[1]
    args.x = &x[0, 0]
    args.out = &y[0, 0]
    args.is_float = real is float
    return new_task(softmax_kernel, &args, sizeof(args), x.shape[0], 1, rows_per_chunk(args.row),
                    WORK_PER_ELEMENT * args.row, (x.base, y.base))


def softmax_backward(const real[:, ::1] y, const real[:, ::1] dout, real[:, ::1] dx):
    """Task over rows: dx = y (dout - sum dout y)."""
    cdef activation_args args
    expect_alike(y, dout)
    expect_alike(y, dx)
    args.row = y.shape[1]
    args.x = &y[0, 0]
    args.dout = &dout[0, 0]
    args.out = &dx[0, 0]
    args.is_float = real is float
    return new_task(softmax_backward_kernel, &args, sizeof(args), y.shape[0], 1,
                    rows_per_chunk(args.row), 4 * args.row, (y.base, dout.base, dx.base))
