"""The affine map; its gradients are in `_affine_gradient.pyx`.

    out[N, O] = f(x[N, I] W[I, O] + b[O])        f: an activation, or nothing

The inputs can be cut into strips, whose products with their rows of W are added afterwards:

    out = f(sum over strips of x[:, strip] W[strip, :] + b)

A thread then reads, multiplies and, in the update, writes the same strips of x and W in each step,
and only the sums go from core to core.

Saito, Deep Learning from Scratch, section 5.6.
"""

from libc.stdint cimport int64_t

from cnn_core._bounds cimport expect
from cnn_core._gemm cimport MOST_AHEAD, multiply_add
from cnn_core._nonzeros cimport multiply_nonzeros
from cnn_core._parallel cimport Task, kernel_t, new_task
from cnn_core._simd cimport ACTIVATION_NONE, activate, add
from cnn_core._simd_images cimport nonzero_rows
from cnn_core._strips cimport group_begin, strip_begin
from cnn_core._types cimport LINE_BYTES, real

cdef enum:
    MOST_ROWS = 96      # rows of a batch that stay in the cache from layer to layer
    LEAST_ROWS = 12     # that pay for reading weights which do not fit into the nearest caches
    MOST_LINES = 64
    FEW_ROWS = 4
    FEW_WEIGHTS = 65536
    MOST_ROWS_OF_MANY = 1024    # more, where even the farther caches do not hold the weights


cdef struct affine_args:
    Py_ssize_t n_rows
    Py_ssize_t n_in
    Py_ssize_t n_out
    Py_ssize_t w_row     # elements from row to row of W
    const void* x
    const void* W
    const void* b
    void* out
    int activation
    double slope
    bint is_float
    void* sums           # [n_strips - 1, n_rows, n_out]: all strips but the first, whose is `out`
    Py_ssize_t n_strips
    Py_ssize_t n_groups  # of rows
    bint zeros           # whether x is worth a look for them
    const int64_t* place # the address of the rows that count instead of x, or 0; may be NULL
    const void* source   # of x: row i is source[indices[offset[0] + i]]; NULL if not known
    const int64_t* indices
    const int64_t* offset
    Py_ssize_t n_indices


cdef void affine_forward_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_in, Py_ssize_t n_out, const real* x,
    const real* W, const real* b, int activation, double slope, real* out,
) noexcept nogil:
    """out = f(x W + b) for rows begin..end; b may be NULL."""
    out += begin * n_out
    multiply_add(end - begin, n_out, n_in, x + begin * n_in, n_in, 1, W, n_out, False, b, out,
                 n_out)
    if activation != ACTIVATION_NONE:
        activate(activation, slope, (end - begin) * n_out, out, out)


cdef inline void multiply(const affine_args* a, Py_ssize_t m, Py_ssize_t first, Py_ssize_t n,
                          const real* x, const real* W, const real* b, real* out) noexcept nogil:
    """out = x W + b for m rows and n columns from `first` on, which is where W, b and out begin."""
    if a.zeros:
        multiply_nonzeros(m, n, a.n_in, x, a.n_in, 1, W, a.w_row, a.w_row - first, b, out, a.n_out)
    else:
        multiply_add(m, n, a.n_in, x, a.n_in, 1, W, a.w_row, False, b, out, a.n_out)


cdef inline void forward_range(const affine_args* a, Py_ssize_t begin, Py_ssize_t end,
                               const real* x, const real* W, const real* b,
                               real* out) noexcept nogil:
    """`affine_forward_rows`, of the rows at a.place."""
    if a.place != NULL and a.place[0] != 0:
        x = <const real*><size_t>a.place[0]
    out += begin * a.n_out
    multiply(a, end - begin, 0, a.n_out, x + begin * a.n_in, W, b, out)
    if a.activation != ACTIVATION_NONE:
        activate(a.activation, a.slope, (end - begin) * a.n_out, out, out)


cdef inline void affine_forward_columns(const affine_args* a, Py_ssize_t begin, Py_ssize_t end,
                                        const real* x, const real* W, const real* b,
                                        real* out) noexcept nogil:
    """out = f(x W + b) for begin..end times LINE_BYTES of a row of it; b may be NULL."""
    cdef Py_ssize_t line = LINE_BYTES // sizeof(real), first = begin * line, i
    cdef Py_ssize_t n = min(end * line, a.n_out) - first
    multiply(a, a.n_rows, first, n, x, W + first, b + first if b != NULL else b, out + first)
    if a.activation != ACTIVATION_NONE:
        for i in range(a.n_rows):
            activate(a.activation, a.slope, n, out + i * a.n_out + first,
                     out + i * a.n_out + first)


cdef inline void affine_strip(const affine_args* a, Py_ssize_t item, const real* x, const real* W,
                              const real* b, real* out, real* sums,
                              const real* source) noexcept nogil:
    """The product of one strip for one group of rows; the first strip begins with b. Meanwhile
    the same part of the next batch is fetched.
    """
    cdef Py_ssize_t strip = item // a.n_groups, group = item % a.n_groups
    cdef Py_ssize_t row = group_begin(group, a.n_groups, a.n_rows)
    cdef Py_ssize_t m = group_begin(group + 1, a.n_groups, a.n_rows) - row
    cdef Py_ssize_t p = strip_begin(strip, a.n_strips, a.n_in)
    cdef Py_ssize_t k = strip_begin(strip + 1, a.n_strips, a.n_in) - p
    if strip > 0:
        out = sums + (strip - 1) * a.n_rows * a.n_out
    cdef const real* ahead[MOST_AHEAD]
    cdef Py_ssize_t next_row, i
    cdef bint known = a.source != NULL and m <= MOST_AHEAD
    if known:
        next_row = a.offset[0] + a.n_rows + row
        known = next_row + m <= a.n_indices
    if known:
        for i in range(m):
            ahead[i] = source + a.indices[next_row + i] * a.n_in + p
    if strip > 0:
        b = NULL
    multiply_nonzeros(m, a.n_out, k, x + row * a.n_in + p, a.n_in, 1, W + p * a.n_out, a.n_out,
                      a.n_out, b, out + row * a.n_out, a.n_out, ahead if known else NULL)


cdef void strips_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const affine_args* a = <const affine_args*>args
    cdef Py_ssize_t item
    for item in range(begin, end):
        if a.is_float:
            affine_strip(a, item, <const float*>a.x, <const float*>a.W, <const float*>a.b,
                         <float*>a.out, <float*>a.sums, <const float*>a.source)
        else:
            affine_strip(a, item, <const double*>a.x, <const double*>a.W, <const double*>a.b,
                         <double*>a.out, <double*>a.sums, <const double*>a.source)


cdef inline void add_strips(const affine_args* a, Py_ssize_t begin, Py_ssize_t end,
                            const real* sums, real* out) noexcept nogil:
    """out = f(out + the sums of the other strips) for rows begin..end."""
    cdef Py_ssize_t size = (end - begin) * a.n_out, s
    out += begin * a.n_out
    for s in range(a.n_strips - 1):
        add(size, sums + (s * a.n_rows + begin) * a.n_out, out)
    if a.activation != ACTIVATION_NONE:
        activate(a.activation, a.slope, size, out, out)


cdef void add_strips_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const affine_args* a = <const affine_args*>args
    if a.is_float:
        add_strips(a, begin, end, <const float*>a.sums, <float*>a.out)
    else:
        add_strips(a, begin, end, <const double*>a.sums, <double*>a.out)


cdef void forward_columns_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const affine_args* a = <const affine_args*>args
    if a.is_float:
        affine_forward_columns(a, begin, end, <const float*>a.x, <const float*>a.W,
                               <const float*>a.b, <float*>a.out)
    else:
        affine_forward_columns(a, begin, end, <const double*>a.x, <const double*>a.W,
                               <const double*>a.b, <double*>a.out)


cdef void forward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const affine_args* a = <const affine_args*>args
    if a.is_float:
        forward_range(a, begin, end, <const float*>a.x, <const float*>a.W, <const float*>a.b,
                      <float*>a.out)
    else:
        forward_range(a, begin, end, <const double*>a.x, <const double*>a.W, <const double*>a.b,
                      <double*>a.out)


cdef double work_of(Py_ssize_t n_rows, double weights) noexcept nogil:
    """Of so many weights, for a row. With few rows their way to another core takes longer than the
    arithmetic."""
    return weights / 8 if n_rows < FEW_ROWS else weights


cdef Task rows_task(kernel_t kernel, const void* args, size_t size, Py_ssize_t n_rows,
                    Py_ssize_t n_in, Py_ssize_t n_out, tuple arrays):
    cdef double weights = <double>n_in * n_out
    cdef Py_ssize_t most = min(MOST_ROWS, max(MANY_ELEMENTS // max(n_in, 1), LEAST_ROWS))
    if weights > MANY_WEIGHTS:
        most = MOST_ROWS_OF_MANY
    cdef Task task = new_task(kernel, args, size, n_rows, 1, most, work_of(n_rows, weights), arrays)
    if weights > FEW_WEIGHTS:
        task.least = LEAST_ROWS
    return task


def forward(const real[:, ::1] x, const real[:, ::1] W, const real[::1] b, real[:, ::1] out,
            int activation=ACTIVATION_NONE, double slope=0.0, bint by_columns=False,
            const int64_t[::1] place=None, bint zeros=False):
    """Task over rows, or over cache lines of a row where `by_columns`: out = f(x W + b).

    W may have more columns than out, which are not used. b may be None.
    place : unless place[0] is 0, the rows at this address are read when the task runs, not x; the
        caller sees to it that they are there, of x's shape and dtype. Not where `by_columns`.
    zeros : whether x may be mostly zeros.
    """
    cdef affine_args args
    args.zeros = zeros
    cdef Py_ssize_t line = LINE_BYTES // sizeof(real)
    expect(x.shape[1] == W.shape[0] and 0 < out.shape[1] <= W.shape[1]
           and (b is None or b.shape[0] == out.shape[1]), "x, W, b, out")
    expect(out.shape[0] == x.shape[0]
           and (place is None or place.shape[0] == 1 and not by_columns), "x, place")
    args.n_rows = out.shape[0]
    args.place = NULL
    if place is not None:
        args.place = &place[0]
    args.n_in = W.shape[0]
    args.n_out = out.shape[1]
    args.w_row = W.shape[1]
    args.x = &x[0, 0]
    args.W = &W[0, 0]
    args.b = NULL
    if b is not None:
        args.b = &b[0]
    args.out = &out[0, 0]
    args.activation = activation
    args.slope = slope
    args.is_float = real is float
    arrays = (x.base, W.base, None if b is None else b.base, out.base,
              None if place is None else place.base)
    cdef Task task
    if not by_columns:
        task = rows_task(forward_kernel, &args, sizeof(args), args.n_rows, args.n_in, args.n_out,
                         arrays)
        if zeros and args.n_rows > MOST_ROWS:
            task.step = nonzero_rows(&x[0, 0])
        return task
    return new_task(forward_columns_kernel, &args, sizeof(args),
                    (args.n_out + line - 1) // line, 1, MOST_LINES,
                    <double>args.n_rows * args.n_in * line, arrays)


def forward_strips(const real[:, ::1] x, const real[:, ::1] W, const real[::1] b,
                   real[:, ::1] out, real[:, :, ::1] sums, Py_ssize_t n_groups,
                   int activation=ACTIVATION_NONE, double slope=0.0,
                   const real[:, ::1] source=None, const int64_t[::1] indices=None,
                   const int64_t[::1] offset=None):
    """Two tasks for out = f(x W + b): the products of the strips, and their sum.

    sums[n_strips - 1, N, O] : all strips but the first, whose product goes to `out`.
    The first task is over n_strips * n_groups parts, the groups of rows of a strip one after the
    other; the second over rows, when the first has ended.
    source, indices, offset : where `_batches.gather_rows` has x from, to fetch the rows behind.
    """
    cdef affine_args args
    cdef Py_ssize_t n_strips = sums.shape[0] + 1
    expect(x.shape[1] == W.shape[0] and out.shape[0] == x.shape[0] and out.shape[1] == W.shape[1]
           and b.shape[0] == W.shape[1] and sums.shape[1] == x.shape[0]
           and sums.shape[2] == W.shape[1] and 0 < n_groups <= x.shape[0], "x, W, b, out, sums")
    args.n_rows = x.shape[0]
    args.n_in = W.shape[0]
    args.n_out = W.shape[1]
    args.x = &x[0, 0]
    args.W = &W[0, 0]
    args.b = &b[0]
    args.out = &out[0, 0]
    args.sums = &sums[0, 0, 0] if n_strips > 1 else NULL
    args.n_strips = n_strips
    args.n_groups = n_groups
    args.source = NULL
    if source is not None:
        expect(indices is not None and offset is not None and source.shape[1] == W.shape[0]
               and offset.shape[0] == 1, "source, indices, offset")
        args.source = &source[0, 0]
        args.indices = &indices[0]
        args.offset = &offset[0]
        args.n_indices = indices.shape[0]
    args.activation = activation
    args.slope = slope
    args.is_float = real is float
    cdef double weights = <double>args.n_in * args.n_out
    cdef double work = args.n_rows * work_of(args.n_rows, weights) / (n_strips * n_groups)
    arrays = (x.base, W.base, b.base, out.base, sums.base, None if source is None
              else (source.base, indices.base, offset.base))
    return (new_task(strips_kernel, &args, sizeof(args), n_strips * n_groups, 1, 1, work, arrays),
            add_strips_of(sums, out, activation, slope))


def add_strips_of(const real[:, :, ::1] sums, real[:, ::1] out, int activation=ACTIVATION_NONE,
                  double slope=0.0):
    """Task over rows: out = f(out + the sums of the other strips), sums[n_strips - 1, N, O]."""
    cdef affine_args args
    expect(out.shape[0] > 0 and out.shape[1] > 0 and sums.shape[1] == out.shape[0]
           and sums.shape[2] == out.shape[1], "sums, out")
    args.n_rows, args.n_out, args.n_strips = out.shape[0], out.shape[1], sums.shape[0] + 1
    args.out, args.sums = &out[0, 0], NULL
    if args.n_strips > 1:
        args.sums = <void*>&sums[0, 0, 0]
    args.activation, args.slope, args.is_float = activation, slope, real is float
    return new_task(add_strips_kernel, &args, sizeof(args), args.n_rows, 1, MOST_ROWS,
                    args.n_strips * args.n_out, (sums.base, out.base))
