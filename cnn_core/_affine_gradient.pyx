"""Gradients of the affine map.

    dx[N, I] = (dout[N, O] W^T) f'(x)            f: the activation that made x, or nothing
    dW[I, O] = x^T dout
    db[O]    = sum over N of dout

Saito, Deep Learning from Scratch, section 5.6.
"""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cnn_core._affine cimport MANY_ELEMENTS, MANY_WEIGHTS, rows_task, work_of
from cnn_core._bounds cimport expect
from cnn_core._gemm cimport fetch_rows, multiply_add, multiply_add_packed, packed_elements
from cnn_core._nonzeros cimport multiply_nonzeros
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport (
    ACTIVATION_NONE, ACTIVATION_RELU, activate_backward, add, dots, lanes, sum_rows, transpose,
)
from cnn_core._simd_images cimport pick
from cnn_core._types cimport LINE_BYTES, real, round_up

cdef enum:
    MOST_ROWS_OF_DW = 128    # they and a block of terms of x stay in the nearest cache
    MOST_ROWS_OF_MANY_DW = 384    # so that their update finds them in the cache
    FEW_COLUMNS = 16    # of dW: they would leave a part of each vector empty,
    SOME_COLUMNS = 64   # or they may
    INPUTS = 64         # rows of such a dW at once
    SUMS = 256          # of dx at once
    SUM_BLOCK = 256     # rows summed before the sum joins the total, against rounding errors
    SUM_COLUMNS = 64


cdef struct gradient_args:
    Py_ssize_t n_rows
    Py_ssize_t n_in
    Py_ssize_t n_out
    const void* dout
    const void* x        # or, for dx, W or the packed panels of its transpose
    const void* y        # of the activation that dx goes through
    void* gradient
    int activation
    double slope
    bint is_float
    bint zeros           # whether x is worth a look for them


cdef void affine_input_gradient_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_in, Py_ssize_t n_out, const real* dout,
    const real* packed_W_transposed, int activation, double slope, const real* y, real* dx,
) noexcept nogil:
    """dx = (dout W^T) f'(y) for rows begin..end."""
    cdef Py_ssize_t size = (end - begin) * n_in
    dx += begin * n_in
    multiply_add_packed(end - begin, n_in, n_out, dout + begin * n_out, n_out, 1,
                        packed_W_transposed, False, <const real*>NULL, dx, n_in)
    if activation != ACTIVATION_NONE:
        activate_backward(activation, slope, size, y + begin * n_in, dx, dx)


cdef void affine_input_gradient_columns(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const real* dout, const real* W, int activation, double slope, const real* y, real* dx,
) noexcept nogil:
    """dx = (dout W^T) f'(y) for columns begin..end, from W as it lies."""
    cdef Py_ssize_t i, at
    for i in range(n_rows):
        at = i * n_in + begin
        if activation == ACTIVATION_RELU:
            some_dots(end - begin, n_out, W + begin * n_out, dout + i * n_out, y + at, dx + at)
        else:
            dots(end - begin, n_out, W + begin * n_out, n_out, NULL, dout + i * n_out, dx + at)
        if activation != ACTIVATION_NONE:
            activate_backward(activation, slope, end - begin, y + at, dx + at, dx + at)


cdef inline void some_dots(Py_ssize_t m, Py_ssize_t n, const real* W, const real* dout,
                           const real* y, real* dx) noexcept nogil:
    """dx = W dout where y is not 0: there alone a ReLU lets it pass."""
    cdef int32_t at[SUMS + LINE_BYTES]
    cdef real sums[SUMS]
    cdef Py_ssize_t begin = 0, i, count
    memset(dx, 0, m * sizeof(real))
    while begin < m:
        count = pick(min(SUMS, m - begin), 0, NULL, y + begin, <real*>NULL, at)
        dots(count, n, W + begin * n, n, at, dout, sums)
        for i in range(count):
            dx[begin + at[i]] = sums[i]
        begin += SUMS


cdef inline bint is_turned(Py_ssize_t n_out, const real* like) noexcept nogil:
    """Whether so much of the vectors of rows of dW would be empty that it pays to turn them."""
    cdef Py_ssize_t vector = lanes(like)
    cdef Py_ssize_t parts = 5 if vector * sizeof(real) == LINE_BYTES else 10    # one is empty
    return (n_out <= FEW_COLUMNS
            or n_out <= SOME_COLUMNS and parts * n_out <= (parts - 1) * round_up(n_out, vector))


cdef void affine_weight_gradient_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, Py_ssize_t n_in, Py_ssize_t n_out,
    const real* x, const real* dout, real* dW,
) noexcept nogil:
    """Rows begin..end of dW = x^T dout, or (dout^T x)^T, whose vectors are full."""
    cdef Py_ssize_t width
    cdef real* turned = NULL
    if is_turned(n_out, dout):
        turned = <real*>malloc(n_out * INPUTS * sizeof(real))
    if turned == NULL:    # or no memory
        multiply_add(end - begin, n_out, n_rows, x + begin, 1, n_in, dout, n_out, False,
                     <const real*>NULL, dW + begin * n_out, n_out)
        return
    while begin < end:
        width = min(end - begin, INPUTS)
        if begin + width < n_in:    # the next of this thread, likely
            fetch_rows(n_rows, min(n_in - begin - width, <Py_ssize_t>INPUTS), x + begin + width,
                       n_in)
        multiply_add(n_out, width, n_rows, dout, 1, n_out, x + begin, n_in, False,
                     <const real*>NULL, turned, INPUTS)
        transpose(n_out, width, turned, INPUTS, dW + begin * n_out, n_out)
        begin += width
    free(turned)


cdef void column_sums(Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, Py_ssize_t n_columns,
                      const real* x, real* sums, real* scratch) noexcept nogil:
    """sums[j] = sum over rows of x[:, j] for columns begin..end; scratch[end - begin]."""
    cdef Py_ssize_t block, first
    memset(sums + begin, 0, (end - begin) * sizeof(real))
    for block in range((n_rows + SUM_BLOCK - 1) // SUM_BLOCK):
        first = block * SUM_BLOCK
        memset(scratch, 0, (end - begin) * sizeof(real))
        sum_rows(min(SUM_BLOCK, n_rows - first), end - begin, x + first * n_columns + begin,
                 n_columns, scratch)
        add(end - begin, scratch, sums + begin)


cdef inline void weight_gradient_range(const gradient_args* a, Py_ssize_t begin, Py_ssize_t end,
                                       const real* x, const real* dout, real* dW) noexcept nogil:
    """`affine_weight_gradient_rows`, of inputs that may be mostly zeros too."""
    if a.zeros and a.n_out > FEW_COLUMNS:
        multiply_nonzeros(end - begin, a.n_out, a.n_rows, x + begin, 1, a.n_in, dout, a.n_out,
                          a.n_out, <const real*>NULL, dW + begin * a.n_out, a.n_out)
    else:
        affine_weight_gradient_rows(begin, end, a.n_rows, a.n_in, a.n_out, x, dout, dW)


cdef void input_gradient_kernel(const void* args, Py_ssize_t begin,
                                Py_ssize_t end) noexcept nogil:
    cdef const gradient_args* a = <const gradient_args*>args
    if a.is_float:
        affine_input_gradient_rows(begin, end, a.n_in, a.n_out, <const float*>a.dout,
                                   <const float*>a.x, a.activation, a.slope, <const float*>a.y,
                                   <float*>a.gradient)
    else:
        affine_input_gradient_rows(begin, end, a.n_in, a.n_out, <const double*>a.dout,
                                   <const double*>a.x, a.activation, a.slope, <const double*>a.y,
                                   <double*>a.gradient)


cdef void input_gradient_columns_kernel(const void* args, Py_ssize_t begin,
                                        Py_ssize_t end) noexcept nogil:
    cdef const gradient_args* a = <const gradient_args*>args
    if a.is_float:
        affine_input_gradient_columns(begin, end, a.n_rows, a.n_in, a.n_out, <const float*>a.dout,
                                      <const float*>a.x, a.activation, a.slope,
                                      <const float*>a.y, <float*>a.gradient)
    else:
        affine_input_gradient_columns(begin, end, a.n_rows, a.n_in, a.n_out, <const double*>a.dout,
                                      <const double*>a.x, a.activation, a.slope,
                                      <const double*>a.y, <double*>a.gradient)


cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const gradient_args* a = <const gradient_args*>args
    if a.is_float:
        weight_gradient_range(a, begin, end, <const float*>a.x, <const float*>a.dout,
                              <float*>a.gradient)
    else:
        weight_gradient_range(a, begin, end, <const double*>a.x, <const double*>a.dout,
                              <double*>a.gradient)


cdef void bias_gradient_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const gradient_args* a = <const gradient_args*>args
    cdef float scratch_f32[SUM_COLUMNS]
    cdef double scratch_f64[SUM_COLUMNS]
    cdef Py_ssize_t stop
    while begin < end:
        stop = min(begin + SUM_COLUMNS, end)
        if a.is_float:
            column_sums(begin, stop, a.n_rows, a.n_out, <const float*>a.dout, <float*>a.gradient,
                        scratch_f32)
        else:
            column_sums(begin, stop, a.n_rows, a.n_out, <const double*>a.dout, <double*>a.gradient,
                        scratch_f64)
        begin = stop


cdef gradient_args input_gradient_args(const real[:, ::1] dout, const real[:, ::1] y,
                                       real[:, ::1] dx, int activation, double slope) except *:
    cdef gradient_args args
    memset(&args, 0, sizeof(args))
    expect(dx.shape[0] == dout.shape[0], "dout, dx")
    expect(activation == ACTIVATION_NONE if y is None
           else y.shape[0] == dx.shape[0] and y.shape[1] == dx.shape[1], "y")
    args.n_rows = dout.shape[0]
    args.n_in = dx.shape[1]
    args.n_out = dout.shape[1]
    args.dout = &dout[0, 0]
    args.y = NULL
    if y is not None:
        args.y = &y[0, 0]
    args.gradient = &dx[0, 0]
    args.activation = activation
    args.slope = slope
    args.is_float = real is float
    return args


def input_gradient(const real[:, ::1] dout, const real[::1] packed, real[:, ::1] dx,
                   const real[:, ::1] y=None, int activation=ACTIVATION_NONE, double slope=0.0):
    """Task over rows: dx = (dout W^T) f'(y), from `_gemm.pack_transposed` of W."""
    cdef gradient_args args = input_gradient_args(dout, y, dx, activation, slope)
    expect(packed.shape[0] >= packed_elements(args.n_in, args.n_out, &packed[0]), "packed")
    args.x = &packed[0]
    return rows_task(input_gradient_kernel, &args, sizeof(args), args.n_rows, args.n_in, args.n_out,
                     (dout.base, packed.base, dx.base, None if y is None else y.base))


def input_gradient_of_few(const real[:, ::1] dout, const real[:, ::1] W, real[:, ::1] dx,
                          const real[:, ::1] y=None, int activation=ACTIVATION_NONE,
                          double slope=0.0):
    """Task over columns of dx: the same, of so few rows that packing W would not pay. W is read
    again for each.
    """
    cdef gradient_args args = input_gradient_args(dout, y, dx, activation, slope)
    expect(W.shape[0] == args.n_in and W.shape[1] == args.n_out, "W")
    args.x = &W[0, 0]
    cdef double work = args.n_rows * work_of(args.n_rows, args.n_out)
    return new_task(input_gradient_columns_kernel, &args, sizeof(args), args.n_in, 1,
                    max(MANY_ELEMENTS // args.n_out, 1), work,
                    (dout.base, W.base, dx.base, None if y is None else y.base))


def weight_gradient(const real[:, ::1] x, const real[:, ::1] dout, real[:, ::1] dW,
                    bint zeros=False):
    """Task over rows of dW: dW = x^T dout. zeros : whether x may be mostly zeros."""
    cdef gradient_args args
    memset(&args, 0, sizeof(args))
    args.zeros = zeros
    cdef Py_ssize_t most = MOST_ROWS_OF_DW
    expect(x.shape[0] == dout.shape[0] and dW.shape[0] == x.shape[1]
           and dW.shape[1] == dout.shape[1], "x, dout, dW")
    args.n_rows = x.shape[0]
    args.n_in = x.shape[1]
    args.n_out = dout.shape[1]
    args.x = &x[0, 0]
    args.dout = &dout[0, 0]
    args.gradient = &dW[0, 0]
    args.is_float = real is float
    if <double>args.n_rows * args.n_out > MANY_WEIGHTS:
        most = MOST_ROWS_OF_MANY_DW
    return new_task(weight_gradient_kernel, &args, sizeof(args), args.n_in, 1, most,
                    <double>args.n_rows * args.n_out, (x.base, dout.base, dW.base))


def bias_gradient(const real[:, ::1] dout, real[::1] db):
    """Task over columns: db = sum over the rows of dout."""
    cdef gradient_args args
    memset(&args, 0, sizeof(args))
    expect(db.shape[0] == dout.shape[1], "dout, db")
    args.n_rows = dout.shape[0]
    args.n_out = dout.shape[1]
    args.dout = &dout[0, 0]
    args.gradient = &db[0]
    args.is_float = real is float
    return new_task(bias_gradient_kernel, &args, sizeof(args), args.n_out, SUM_COLUMNS, SUM_COLUMNS,
                    args.n_rows, (dout.base, db.base))
