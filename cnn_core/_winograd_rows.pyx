"""Convolutions of several channels whose kernels have 5 rows, by Winograd's F(4, 5) over rows.

    y[4 i ... 4 i + 3, ox, f] = A^T [sum over s, c of (G W[f, c, :, s])
                                     * (B^T x[4 i ... 4 i + 7, ox + s, c])] + b[f]

Of 8 rows of x, element by element, 8 planes are made. Plane by plane they are multiplied by what
the weights have become: one matrix product over the columns of the kernel and the channels, which
lie side by side. 8 products take the place of 20, and for up to two last rows 6 that of 10, by
F(2, 5); A, B and G stand in simd/winograd_rows.h. The rounding stays near that of the direct sums
(about twice as large). An output depends on its own tile's rows only. Sums of large numbers may
overflow where the direct ones would not.

Lavin and Gray, Fast algorithms for convolutional neural networks (2016).
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cnn_core._conv2d_shape cimport conv_args, kernel_of_channel
from cnn_core._images cimport pixel
from cnn_core._simd cimport activate, activate_backward, lanes, max_columns, multiply_add_planes
from cnn_core._simd_images cimport (
    winograd_rows_input, winograd_rows_output, winograd_rows_weights,
)
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up
from cnn_core._winograd cimport plane_size
from cnn_core._winograd_rows cimport MOST_WIDTH, ROW_PLANES, TILE_ROWS

cdef enum:
    KERNEL_ROWS = 5
    FEW_ROWS = 2       # of a tile, which need
    FEW_PLANES = 5     # and the last one
    WIDEST = 64        # columns of a panel, at most


cdef void pack_winograd_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* W,
                             real* packed) noexcept nogil:
    """Channels begin..end of the sum, as `winograd_rows_size` lays them out."""
    cdef Py_ssize_t widest = max_columns(W), i, s, j0 = 0, width, stride, plane
    cdef real taps[KERNEL_ROWS * MOST_WIDTH * WIDEST]
    memset(taps, 0, sizeof(taps))
    while j0 < a.outer:
        width = min(widest, a.outer - j0)
        stride = round_up(width, lanes(W))
        plane = plane_size(a.kw * a.inner * stride, W)
        for i in range(begin, end):
            kernel_of_channel(a, i, j0, width, W, taps, <Py_ssize_t>WIDEST)
            for s in range(a.kw):
                winograd_rows_weights(stride, taps + s * WIDEST, a.kw * WIDEST,
                                      packed + (s * a.inner + i) * stride, plane)
        packed += ROW_PLANES * plane
        j0 += widest


cdef struct tile_room:
    Py_ssize_t x_plane         # elements from plane to plane: of x,
    Py_ssize_t y_plane         # and of y
    void* memory
    void* v                    # planes of x
    void* m                    # planes of y
    void* start                # what sums begin with: 0, in plane 1, a term of each row, b


cdef bint find_room(const conv_args* a, const real* b, tile_room* room) noexcept nogil:
    """False without memory."""
    cdef Py_ssize_t start = round_up(a.outer, lanes(b))
    room.x_plane = plane_size((a.out_width + a.kw - 1) * a.inner, b)
    room.y_plane = plane_size(a.out_width * a.outer, b)
    room.memory = malloc(
        LINE_BYTES + (ROW_PLANES * (room.x_plane + room.y_plane) + 2 * start) * sizeof(real))
    if room.memory == NULL:
        return False
    room.v = next_line(room.memory)
    room.m = <real*>room.v + ROW_PLANES * room.x_plane
    room.start = <real*>room.m + ROW_PLANES * room.y_plane
    memset(room.start, 0, 2 * start * sizeof(real))
    if b != NULL:
        memcpy(<real*>room.start + start, b, a.outer * sizeof(real))
    return True


cdef inline void tile_products(const conv_args* a, const real* weights, Py_ssize_t rows,
                               const tile_room* room) noexcept nogil:
    """m[plane, ox, f] = sum over s, c of v[plane, ox + s, c] weights[plane, s, c, f], for those
    planes that `rows` rows need."""
    cdef Py_ssize_t widest = max_columns(weights), j0 = 0, width, stride, plane, q
    cdef Py_ssize_t terms = a.kw * a.inner, first = FEW_PLANES if rows <= FEW_ROWS else ROW_PLANES
    cdef Py_ssize_t last = ROW_PLANES - 1
    cdef const real* starts[ROW_PLANES]
    while j0 < a.outer:
        width = min(widest, a.outer - j0)
        stride = round_up(width, lanes(weights))
        plane = plane_size(terms * stride, weights)
        for q in range(ROW_PLANES):
            starts[q] = <const real*>room.start + j0
        starts[1] += round_up(a.outer, lanes(weights))
        multiply_add_planes(first, a.out_width, width, terms, <const real*>room.v, room.x_plane,
                            a.inner, 1, weights, plane, stride, starts, <real*>room.m + j0,
                            room.y_plane, a.outer)
        if first < ROW_PLANES:
            multiply_add_planes(1, a.out_width, width, terms,
                                <const real*>room.v + last * room.x_plane, 0, a.inner, 1,
                                weights + last * plane, 0, stride, starts,
                                <real*>room.m + last * room.y_plane + j0, 0, a.outer)
        weights += ROW_PLANES * plane
        j0 += widest


cdef void winograd_tile_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                             const real* weights, const real* b, const real* previous,
                             real* y) noexcept nogil:
    """Rows begin..end of tiles, counted over all images."""
    cdef Py_ssize_t tiles = (a.out_height + TILE_ROWS - 1) // TILE_ROWS, item, n, oy, r, rows
    cdef Py_ssize_t size = a.out_width * a.outer, width = (a.out_width + a.kw - 1) * a.inner
    cdef real* to
    cdef tile_room room
    cdef bint found = find_room(a, b, &room)
    for item in range(begin, end):
        n = item // tiles
        oy = TILE_ROWS * (item - n * tiles)
        rows = min(a.out_height - oy, TILE_ROWS)
        to = <real*>pixel(y, &a.y, n, oy, 0)
        if found:
            winograd_rows_input(width, pixel(x, &a.x, n, oy, 0), a.x.row, rows + KERNEL_ROWS - 1,
                                <real*>room.v, room.x_plane)
            tile_products(a, weights, rows, &room)
            winograd_rows_output(size, <const real*>room.m, room.y_plane, to, a.y.row, rows)
        for r in range(rows):
            if not found:    # no memory: NaN is seen, a wrong number is not
                memset(to, 0xFF, size * sizeof(real))
            elif previous != NULL:
                activate_backward(a.activation, a.slope, size,
                                  pixel(previous, &a.previous, n, oy + r, 0), to, to)
            elif a.activation:
                activate(a.activation, a.slope, size, to, to)
            to += a.y.row
    free(room.memory)
