"""A mini-batch from a data set: out[i] = scale source[indices[i]], converted while it is copied.

The source may be float32, float64 or uint8 (pixels stay bytes until they are used).
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport fetch, scale_f32, scale_f64, scale_u8
from cnn_core._simd_images cimport copy_fetching
from cnn_core._strips cimport group_begin, strip_begin
from cnn_core._types cimport LINE_BYTES, real

cdef enum:
    MOST_ROWS = 48
    ROWS_AHEAD = 6       # is the one that is fetched

ctypedef fused source_type:
    uint8_t
    float
    double

cdef enum SourceKind:
    SOURCE_U8
    SOURCE_F32
    SOURCE_F64


cdef struct gather_args:
    Py_ssize_t row
    const void* source
    SourceKind kind
    const int64_t* indices
    const int64_t* offset       # the batch begins at indices[offset[0]]
    double scale
    void* out
    bint is_float
    Py_ssize_t n_rows
    Py_ssize_t n_indices
    Py_ssize_t row_bytes
    Py_ssize_t n_strips
    Py_ssize_t n_groups


cdef inline Py_ssize_t row_of(const gather_args* a, Py_ssize_t i) noexcept nogil:
    """Where row i of the batch lies; of rows behind the last index, the last."""
    return a.indices[min(a.offset[0] + i, a.n_indices - 1)]


cdef inline void fetch_row(const gather_args* a, Py_ssize_t row) noexcept nogil:
    cdef Py_ssize_t byte = 0
    while byte < a.row_bytes:
        fetch(<const char*>a.source + row * a.row_bytes + byte)
        byte += LINE_BYTES


cdef inline void gather(const gather_args* a, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first,
                        Py_ssize_t stop, real* out) noexcept nogil:
    """Columns first..stop of the rows begin..end."""
    cdef Py_ssize_t i, at, ahead, n = stop - first
    cdef SourceKind same = SOURCE_F32 if real is float else SOURCE_F64
    cdef bint copies = a.scale == 1 and a.kind == same
    for i in range(begin, end):
        at, ahead = row_of(a, i) * a.row + first, row_of(a, i + ROWS_AHEAD)
        if copies:    # to the last bit, subnormal numbers too
            copy_fetching(n, <const real*>a.source + at,
                          <const real*>a.source + ahead * a.row + first, out + i * a.row + first)
            continue
        if n == a.row:
            fetch_row(a, ahead)
        if a.kind == SOURCE_U8:
            scale_u8(n, <const uint8_t*>a.source + at, a.scale, out + i * a.row + first)
        elif a.kind == SOURCE_F32:
            scale_f32(n, <const float*>a.source + at, a.scale, out + i * a.row + first)
        else:
            scale_f64(n, <const double*>a.source + at, a.scale, out + i * a.row + first)


cdef void gather_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const gather_args* a = <const gather_args*>args
    if a.is_float:
        gather(a, begin, end, 0, a.row, <float*>a.out)
    else:
        gather(a, begin, end, 0, a.row, <double*>a.out)


cdef void gather_strips_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const gather_args* a = <const gather_args*>args
    cdef Py_ssize_t item, strip, group, row, row_end, first, stop
    for item in range(begin, end):
        strip, group = item // a.n_groups, item % a.n_groups
        row = group_begin(group, a.n_groups, a.n_rows)
        row_end = group_begin(group + 1, a.n_groups, a.n_rows)
        first = strip_begin(strip, a.n_strips, a.row)
        stop = strip_begin(strip + 1, a.n_strips, a.row)
        if a.is_float:
            gather(a, row, row_end, first, stop, <float*>a.out)
        else:
            gather(a, row, row_end, first, stop, <double*>a.out)


def gather_rows(const source_type[:, ::1] source, const int64_t[::1] indices,
                const int64_t[::1] offset, double scale, real[:, ::1] out,
                Py_ssize_t n_strips=0, Py_ssize_t n_groups=0):
    """Task over rows: out[i] = scale source[indices[offset[0] + i]].

    n_strips, n_groups : over parts instead, as in `_affine.forward_strips`.
    The caller has checked that every index is a row of the source.
    """
    cdef gather_args args
    expect(source.shape[1] == out.shape[1] and offset.shape[0] == 1
           and indices.shape[0] >= out.shape[0], "source, indices, out")
    args.row = source.shape[1]
    args.source = &source[0, 0]
    args.kind = (SOURCE_U8 if source_type is uint8_t
                 else SOURCE_F32 if source_type is float else SOURCE_F64)
    args.indices = &indices[0]
    args.offset = &offset[0]
    args.scale = scale
    args.out = &out[0, 0]
    args.is_float = real is float
    args.n_rows = out.shape[0]
    args.n_indices = indices.shape[0]
    args.row_bytes = source.shape[1] * sizeof(source_type)
    args.n_strips = n_strips
    args.n_groups = n_groups
    arrays = (source.base, indices.base, offset.base, out.base)
    if n_strips == 0:
        return new_task(gather_kernel, &args, sizeof(args), out.shape[0], 1, MOST_ROWS, args.row,
                        arrays)
    expect(n_strips > 0 and 0 < n_groups <= args.n_rows, "n_strips, n_groups")
    return new_task(gather_strips_kernel, &args, sizeof(args), n_strips * n_groups, 1, 1,
                    <double>args.n_rows * args.row / (n_strips * n_groups), arrays)


cdef struct labels_args:
    const int64_t* source
    const int64_t* indices
    const int64_t* offset
    int64_t* out


cdef void labels_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const labels_args* a = <const labels_args*>args
    cdef Py_ssize_t i
    for i in range(begin, end):
        a.out[i] = a.source[a.indices[a.offset[0] + i]]


def gather_labels(const int64_t[::1] source, const int64_t[::1] indices,
                  const int64_t[::1] offset, int64_t[::1] out):
    """Task over rows: out[i] = source[indices[offset[0] + i]]."""
    cdef labels_args args
    expect(offset.shape[0] == 1 and indices.shape[0] >= out.shape[0], "indices, out")
    args.source = &source[0]
    args.indices = &indices[0]
    args.offset = &offset[0]
    args.out = &out[0]
    return new_task(labels_kernel, &args, sizeof(args), out.shape[0], 1, MOST_ROWS, 1,
                    (source.base, indices.base, offset.base, out.base))


cdef struct write_args:
    const void* rows
    Py_ssize_t row_bytes
    const int64_t* place


cdef void write_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const write_args* a = <const write_args*>args
    cdef char* to = <char*><size_t>a.place[0]
    if to != NULL:
        memcpy(to + begin * a.row_bytes, <const char*>a.rows + begin * a.row_bytes,
               (end - begin) * a.row_bytes)


def write_rows(const real[:, ::1] rows, const int64_t[::1] place):
    """Task over rows: copies them to the address place[0] where that is not 0; the caller sees to
    it that an array of their shape and dtype is there.
    """
    cdef write_args args
    expect(place.shape[0] == 1, "place")
    args.rows = &rows[0, 0]
    args.row_bytes = rows.shape[1] * sizeof(real)
    args.place = &place[0]
    return new_task(write_kernel, &args, sizeof(args), rows.shape[0], 1, rows.shape[0],
                    rows.shape[1], (rows.base, place.base))


cdef struct next_args:
    int64_t* offset
    int64_t rows
    int64_t* steps


cdef void next_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const next_args* a = <const next_args*>args
    a.offset[0] += a.rows
    a.steps[0] += 1


def next_batch(int64_t[::1] offset, int64_t rows, int64_t[::1] steps):
    """Task of one item, behind all that reads them: offset[0] += rows, steps[0] += 1."""
    cdef next_args args
    expect(offset.shape[0] == 1 and steps.shape[0] == 1, "offset, steps")
    args.offset, args.rows, args.steps = &offset[0], rows, &steps[0]
    return new_task(next_kernel, &args, sizeof(args), 1, 1, 1, 1, (offset.base, steps.base))
