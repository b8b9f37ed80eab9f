"""The affine map of sparse rows, and the gradient of its weights.

    out[N, O] = f(x[N, I] W[I, O] + b[O])      f: an activation, or nothing
    dW[I, O]  = x^T dout

The map reads the entries of x by rows (CSR), the gradient by columns: those of a batch are counted,
then filled in row by row. Both products add in the order of the dense ones. A term that they leave
out would have added 0, so all bits are those of the dense products while W and dout are finite.

F. G. Gustavson, "Two fast algorithms for sparse matrices", ACM TOMS 4 (1978), 250-269.
"""

from libc.stdint cimport INT32_MAX, int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport ACTIVATION_NONE, activate, add, multiply_sparse_row
from cnn_core._strips cimport strip_begin
from cnn_core._types cimport real

cdef enum:
    MOST_ROWS = 96           # as of the dense map
    MOST_ROWS_OF_DW = 128
    STRIP_COLUMNS = 128      # of the outputs at once
    LEAST_COLUMNS = 4096     # transposed at once: each part looks for its begin in every row

ctypedef fused index_type:
    int32_t
    int64_t


def copy_columns(const index_type[::1] source, const int64_t[::1] indptr, Py_ssize_t n_columns,
                 int32_t[::1] out):
    """Copy the column indices of rows; returns (wrong, ascending).

    wrong : where the first index stands that is not one of 0..n_columns-1, or -1.
    ascending : whether the columns of every row ascend, none of them twice.
    """
    cdef Py_ssize_t i, p, wrong = -1
    cdef int64_t column, last
    cdef bint ascending = True
    expect(source.shape[0] == out.shape[0] and indptr.shape[0] > 0
           and indptr[indptr.shape[0] - 1] <= out.shape[0], "source, indptr, out")
    with nogil:
        for i in range(indptr.shape[0] - 1):
            last = -1
            for p in range(indptr[i], indptr[i + 1]):
                column = source[p]
                if column < 0 or column >= n_columns:
                    wrong = p
                    break
                ascending = ascending and column > last
                last = column
                out[p] = <int32_t>column
            if wrong >= 0:
                break
    return wrong, ascending and wrong < 0


cdef inline Py_ssize_t first_from(const int32_t* columns, Py_ssize_t begin, Py_ssize_t end,
                                  Py_ssize_t least) noexcept nogil:
    """The first of the places begin..end whose column is at least `least`, else end."""
    cdef Py_ssize_t middle
    if least == 0:
        return begin
    while begin < end:
        middle = begin + (end - begin) // 2
        if columns[middle] < least:
            begin = middle + 1
        else:
            end = middle
    return begin


cdef void sparse_forward_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_out, const int64_t* indptr,
    const int32_t* columns, const real* values, const int64_t* indices, const real* W,
    const real* b, int activation, double slope, real* out,
) noexcept nogil:
    """out = f(x W + b) for rows begin..end; row i of x is row indices[i]; b may be NULL."""
    cdef Py_ssize_t i
    cdef int64_t first
    for i in range(begin, end):
        first = indptr[indices[i]]
        multiply_sparse_row(n_out, indptr[indices[i] + 1] - first, values + first, columns + first,
                            W, n_out, b, out + i * n_out)
    if activation != ACTIVATION_NONE:
        out += begin * n_out
        activate(activation, slope, (end - begin) * n_out, out, out)


cdef void sparse_forward_strips(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_in, Py_ssize_t n_out, Py_ssize_t n_strips,
    const int64_t* indptr, const int32_t* columns, const real* values, const int64_t* indices,
    const real* W, const real* b, int activation, double slope, real* out,
) noexcept nogil:
    """The same, added in strips of the inputs, as `_affine.forward_strips` adds."""
    cdef Py_ssize_t i, strip, p, stop, last, j, width
    cdef real sums[STRIP_COLUMNS]
    for i in range(begin, end):
        p, stop = indptr[indices[i]], indptr[indices[i] + 1]
        for strip in range(n_strips):
            last = first_from(columns, p, stop, strip_begin(strip + 1, n_strips, n_in))
            j = 0
            while j < n_out:
                width = min(STRIP_COLUMNS, n_out - j)
                multiply_sparse_row(width, last - p, values + p, columns + p, W + j, n_out,
                                    b + j if strip == 0 else <const real*>NULL,
                                    out + i * n_out + j if strip == 0 else sums)
                if strip > 0:
                    add(width, sums, out + i * n_out + j)
                j += width
            p = last
    if activation != ACTIVATION_NONE:
        out += begin * n_out
        activate(activation, slope, (end - begin) * n_out, out, out)


cdef void transpose_columns(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows, const int64_t* indptr,
    const int32_t* columns, const real* values, const int64_t* indices, int64_t* ends,
    int32_t* rows, real* transposed,
) noexcept nogil:
    """Columns begin..end: `ends`, and the entries, in the order of the rows."""
    cdef Py_ssize_t i, p, stop, column
    cdef int64_t at = 0, count
    memset(ends + begin, 0, (end - begin) * sizeof(int64_t))
    for i in range(n_rows):
        stop = indptr[indices[i] + 1]
        p = first_from(columns, indptr[indices[i]], stop, begin)
        at += p - indptr[indices[i]]
        while p < stop and columns[p] < end:
            ends[columns[p]] += 1
            p += 1
    # Where each column begins, which moves to its end as the column is filled.
    for column in range(begin, end):
        count = ends[column]
        ends[column] = at
        at += count
    for i in range(n_rows):
        stop = indptr[indices[i] + 1]
        p = first_from(columns, indptr[indices[i]], stop, begin)
        while p < stop and columns[p] < end:
            at = ends[columns[p]]
            ends[columns[p]] = at + 1
            rows[at] = <int32_t>i
            transposed[at] = values[p]
            p += 1


cdef void sparse_weight_gradient_rows(
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_out, const int64_t* ends, const int32_t* rows,
    const real* values, const real* dout, real* dW,
) noexcept nogil:
    """Rows begin..end of dW = x^T dout, x by columns."""
    cdef Py_ssize_t i
    cdef int64_t first = ends[begin - 1] if begin > 0 else 0
    for i in range(begin, end):
        multiply_sparse_row(n_out, ends[i] - first, values + first, rows + first, dout, n_out,
                            <const real*>NULL, dW + i * n_out)
        first = ends[i]


cdef class Batch:
    """n rows of a sparse matrix with n_columns columns, as the tasks below read them.

    Which rows these are, `read` says, between the runs of a task; before that they are empty.

    dtype : float32 or float64.
    transposed : whether there is to be a weight gradient.
    """

    def __cinit__(self, Py_ssize_t n, Py_ssize_t n_columns, dtype, bint transposed):
        if not (1 <= n <= INT32_MAX and 1 <= n_columns <= INT32_MAX):
            raise ValueError(f"x: expected 1..{INT32_MAX} rows and columns, got {(n, n_columns)}")
        self.n, self.n_columns, self.dtype = n, n_columns, dtype
        self.is_float = dtype.itemsize == sizeof(float)
        self.zeros = <int64_t*>calloc(max(n, 2), sizeof(int64_t))
        if transposed:
            self.transposed.ends = <int64_t*>calloc(n_columns, sizeof(int64_t))
        if self.zeros == NULL or (transposed and self.transposed.ends == NULL):
            raise MemoryError()
        self.release()

    def __dealloc__(self):
        free(self.zeros)
        free(self.transposed.ends)
        free(self.transposed.rows)
        free(self.transposed.values)

    def __len__(self):
        return self.n

    @property
    def shape(self):
        """(N, I)"""
        return self.n, self.n_columns

    def release(self):
        """Let go of what `read` was given; all rows are empty again."""
        self.x.indptr = self.x.indices = self.x.offset = self.zeros
        self.x.columns = NULL
        self.x.values = NULL
        self.source = None
        self.entries = 0

    def read(self, const int64_t[::1] indptr, const int32_t[::1] columns, values,
             const int64_t[::1] indices, const int64_t[::1] offset):
        """From now on row i is row indices[offset[0] + i] of the matrix that the others describe.

        The caller has checked the columns.
        """
        cdef const float[::1] f32
        cdef const double[::1] f64
        cdef Py_ssize_t i, row, entries = 0
        expect(offset.shape[0] == 1 and 0 <= offset[0] <= indices.shape[0] - self.n
               and columns.shape[0] == len(values), "columns, values, indices")
        self.release()
        for i in range(self.n):
            row = indices[offset[0] + i]
            expect(0 <= row < indptr.shape[0] - 1
                   and 0 <= indptr[row] <= indptr[row + 1] <= columns.shape[0], "indptr, indices")
            entries += indptr[row + 1] - indptr[row]
        if self.transposed.ends != NULL and entries > self.capacity:
            self.reserve(entries)
        if self.is_float:
            f32 = values
            self.x.values = &f32[0] if columns.shape[0] else NULL
        else:
            f64 = values
            self.x.values = &f64[0] if columns.shape[0] else NULL
        self.x.indptr = &indptr[0]
        self.x.columns = &columns[0] if columns.shape[0] else NULL
        self.x.indices = &indices[0]
        self.x.offset = &offset[0]
        self.source = indptr.base, columns.base, values, indices.base, offset.base
        self.entries = entries

    def converted(self, dtype):
        """The same rows as a batch of another element type, with room for its transpose."""
        other = Batch(self.n, self.n_columns, dtype, True)
        if self.source is not None:
            indptr, columns, values, indices, offset = self.source
            other.read(indptr, columns, values.astype(dtype), indices, offset)
        return other

    cdef int reserve(self, Py_ssize_t entries) except -1:
        """Room for the entries of this batch and some more, as the next one may have them."""
        cdef Py_ssize_t item = sizeof(float) if self.is_float else sizeof(double)
        free(self.transposed.rows)
        free(self.transposed.values)
        self.capacity = entries + entries // 8
        self.transposed.rows = <int32_t*>malloc(self.capacity * sizeof(int32_t))
        self.transposed.values = malloc(self.capacity * item)
        if self.transposed.rows == NULL or self.transposed.values == NULL:
            self.capacity = 0
            raise MemoryError()
        return 0


cdef struct sparse_args:
    Py_ssize_t n_rows
    Py_ssize_t n_out
    const SparseRows* x
    const SparseColumns* transposed
    const void* W          # weights, or dout for their gradient
    const void* b
    void* out
    int activation
    double slope
    bint is_float
    Py_ssize_t n_in
    Py_ssize_t n_strips


cdef void forward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const sparse_args* a = <const sparse_args*>args
    cdef const int64_t* indices = a.x.indices + a.x.offset[0]
    if a.is_float:
        sparse_forward_rows(begin, end, a.n_out, a.x.indptr, a.x.columns, <const float*>a.x.values,
                            indices, <const float*>a.W, <const float*>a.b, a.activation, a.slope,
                            <float*>a.out)
    else:
        sparse_forward_rows(begin, end, a.n_out, a.x.indptr, a.x.columns, <const double*>a.x.values,
                            indices, <const double*>a.W, <const double*>a.b, a.activation, a.slope,
                            <double*>a.out)


cdef void forward_strips_kernel(const void* args, Py_ssize_t begin,
                                Py_ssize_t end) noexcept nogil:
    cdef const sparse_args* a = <const sparse_args*>args
    cdef const int64_t* indices = a.x.indices + a.x.offset[0]
    if a.is_float:
        sparse_forward_strips(begin, end, a.n_in, a.n_out, a.n_strips, a.x.indptr, a.x.columns,
                              <const float*>a.x.values, indices, <const float*>a.W,
                              <const float*>a.b, a.activation, a.slope, <float*>a.out)
    else:
        sparse_forward_strips(begin, end, a.n_in, a.n_out, a.n_strips, a.x.indptr, a.x.columns,
                              <const double*>a.x.values, indices, <const double*>a.W,
                              <const double*>a.b, a.activation, a.slope, <double*>a.out)


cdef void transpose_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const sparse_args* a = <const sparse_args*>args
    cdef const int64_t* indices = a.x.indices + a.x.offset[0]
    cdef const SparseColumns* t = a.transposed
    if a.is_float:
        transpose_columns(begin, end, a.n_rows, a.x.indptr, a.x.columns, <const float*>a.x.values,
                          indices, t.ends, t.rows, <float*>t.values)
    else:
        transpose_columns(begin, end, a.n_rows, a.x.indptr, a.x.columns, <const double*>a.x.values,
                          indices, t.ends, t.rows, <double*>t.values)


cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const sparse_args* a = <const sparse_args*>args
    cdef const SparseColumns* t = a.transposed
    if a.is_float:
        sparse_weight_gradient_rows(begin, end, a.n_out, t.ends, t.rows, <const float*>t.values,
                                    <const float*>a.W, <float*>a.out)
    else:
        sparse_weight_gradient_rows(begin, end, a.n_out, t.ends, t.rows, <const double*>t.values,
                                    <const double*>a.W, <double*>a.out)


def forward(Batch x, const real[:, ::1] W, const real[::1] b, real[:, ::1] out,
            int activation=ACTIVATION_NONE, double slope=0.0, Py_ssize_t n_strips=1):
    """Task over rows: out = f(x W + b). b may be None, unless n_strips > 1.

    n_strips : of the inputs, added one after the other, as in `_affine.forward_strips`.
    """
    cdef sparse_args args
    cdef double entries = <double>x.entries / x.n
    args.is_float = real is float
    expect(x.is_float == args.is_float and x.n_columns == W.shape[0] and out.shape[0] == x.n
           and out.shape[1] == W.shape[1] and (b is None or b.shape[0] == W.shape[1])
           and n_strips >= 1 and (b is not None or n_strips == 1), "x, W, b, out, n_strips")
    args.n_in = x.n_columns
    args.n_strips = n_strips
    args.n_out = W.shape[1]
    args.x = &x.x
    args.W = &W[0, 0]
    args.b = NULL
    if b is not None:
        args.b = &b[0]
    args.out = &out[0, 0]
    args.activation = activation
    args.slope = slope
    return new_task(forward_kernel if n_strips == 1 else forward_strips_kernel, &args,
                    sizeof(args), x.n, 1, MOST_ROWS,
                    (entries + 1) * args.n_out,
                    (x, W.base, None if b is None else b.base, out.base))


def transpose(Batch x):
    """Task over columns: the batch by columns, for `weight_gradient`."""
    cdef sparse_args args
    expect(x.transposed.ends != NULL, "x")
    args.n_rows = x.n
    args.x = &x.x
    args.transposed = &x.transposed
    args.is_float = x.is_float
    return new_task(transpose_kernel, &args, sizeof(args), x.n_columns, 1,
                    max(LEAST_COLUMNS, x.n_columns // 16), 1 + 8.0 * x.entries / x.n_columns,
                    (x,))


def weight_gradient(Batch x, const real[:, ::1] dout, real[:, ::1] dW):
    """Task over rows of dW: dW = x^T dout, after `transpose`."""
    cdef sparse_args args
    args.is_float = real is float
    expect(x.transposed.ends != NULL and x.is_float == args.is_float and dout.shape[0] == x.n
           and dW.shape[0] == x.n_columns and dW.shape[1] == dout.shape[1], "x, dout, dW")
    args.n_out = dout.shape[1]
    args.transposed = &x.transposed
    args.W = &dout[0, 0]
    args.out = &dW[0, 0]
    return new_task(weight_gradient_kernel, &args, sizeof(args), x.n_columns, 1, MOST_ROWS_OF_DW,
                    (1 + <double>x.entries / x.n_columns) * args.n_out, (x, dout.base, dW.base))
