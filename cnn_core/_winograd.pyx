"""3 x 3 convolutions of many channels by Winograd's F(2 x 2, 3 x 3).

    y = A^T [sum over c of (G W[f, c] G^T) * (B^T x[c] B)] A + b      for tiles of 2 x 2 pixels of y
    dW[f, c] = G^T [sum over the tiles of (B^T x[c] B) * (A dy[f] A^T)] G
    dx as y, of dy with the kernels turned around

Of each tile 16 numbers per channel, planes, are multiplied by 16 numbers per channel and filter; a
plane of all tiles at hand is one matrix product. The matrices stand in simd/winograd.h. An output
depends on the pixels of its own window only, and its sums have fewer terms than the direct ones:
the rounding is no worse. Sums of large numbers may overflow where the direct ones would not.

Lavin and Gray, Fast algorithms for convolutional neural networks (2016).
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cnn_core._conv2d_shape cimport conv_args, kernel_of_channel
from cnn_core._images cimport pixel
from cnn_core._simd cimport (
    activate, activate_backward, lanes, max_columns, multiply_add_planes, sum_rows,
)
from cnn_core._simd_images cimport (
    winograd_gradient, winograd_input, winograd_output, winograd_weights,
    winograd_weights_gradient,
)
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up
from cnn_core._winograd cimport PLANES, plane_size

cdef enum:
    MOST_TILES = 32    # at once
    WIDEST = 64        # columns of a panel, at most


cdef void pack_winograd(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* W,
                        real* packed) noexcept nogil:
    """Channels begin..end of the sum, as `winograd_size` lays them out."""
    cdef Py_ssize_t widest = max_columns(W), i, j0 = 0, width, stride, plane
    cdef real taps[9 * WIDEST]
    memset(taps, 0, sizeof(taps))
    while j0 < a.outer:
        width = min(widest, a.outer - j0)
        stride = round_up(width, lanes(W))
        plane = plane_size(a.inner * stride, W)
        for i in range(begin, end):
            kernel_of_channel(a, i, j0, width, W, taps, <Py_ssize_t>WIDEST)
            winograd_weights(stride, taps, WIDEST, packed + i * stride, plane)
        packed += PLANES * plane
        j0 += widest


# A block: some rows of tiles, counted over all images, or a part of one row.
cdef struct tile_block:
    Py_ssize_t row
    Py_ssize_t rows
    Py_ssize_t left             # the first tile of each row
    Py_ssize_t width            # tiles of each row
    Py_ssize_t most_rows
    Py_ssize_t most_width
    Py_ssize_t x_plane          # elements from plane to plane: of x,
    Py_ssize_t y_plane          # and of y


cdef inline void* new_block(const conv_args* a, Py_ssize_t more, tile_block* at,
                            real** planes) noexcept nogil:
    """Memory for the planes of a block, x before y, and `more` elements; NULL where there is none.

    planes : the first cache line in it.
    """
    cdef Py_ssize_t tiles
    cdef void* memory
    at.most_width = min((a.out_width + 1) // 2, MOST_TILES)
    at.most_rows = MOST_TILES // at.most_width
    tiles = at.most_rows * at.most_width
    at.x_plane = plane_size(tiles * a.inner, planes[0])
    at.y_plane = plane_size(tiles * a.outer, planes[0])
    memory = malloc((PLANES * (at.x_plane + at.y_plane) + more) * sizeof(real) + LINE_BYTES)
    planes[0] = <real*>next_line(memory)
    return memory


cdef inline bint first_block(const conv_args* a, Py_ssize_t begin, Py_ssize_t end,
                             tile_block* at) noexcept nogil:
    at.row, at.rows = begin, min(end - begin, at.most_rows)
    at.left, at.width = 0, at.most_width
    return at.rows > 0


cdef inline bint next_block(const conv_args* a, Py_ssize_t end, tile_block* at) noexcept nogil:
    """False behind the last one."""
    at.left += at.width
    at.width = min((a.out_width + 1) // 2 - at.left, at.most_width)
    return at.width > 0 or first_block(a, at.row + at.rows, end, at)


cdef inline void block_inputs(const conv_args* a, const tile_block* at, const real* x,
                              real* v) noexcept nogil:
    """v[plane, tile, c] = B^T x B"""
    cdef Py_ssize_t k, n, oy, tile_rows = (a.out_height + 1) // 2, ox = 2 * at.left
    for k in range(at.rows):
        n = (at.row + k) // tile_rows
        oy = 2 * (at.row + k - n * tile_rows)
        winograd_input(at.width, a.inner, pixel(x, &a.x, n, oy, ox), a.x.row,
                       min(a.out_height + 2 - oy, 4), a.out_width + 2 - ox,
                       v + k * at.width * a.inner, at.x_plane)


# ------------------------------------------------------------------ forward, and gradient of x


cdef inline void block_products(const conv_args* a, const tile_block* at, const real* v,
                                const real* weights, real* m) noexcept nogil:
    """m[plane, tile, f] = v[plane, tile, c] weights[plane, c, f]"""
    cdef Py_ssize_t widest = max_columns(v), j0 = 0, width, stride, plane, q
    cdef real zeros[WIDEST]
    cdef const real* starts[PLANES]
    memset(zeros, 0, sizeof(zeros))
    for q in range(PLANES):
        starts[q] = zeros
    while j0 < a.outer:
        width = min(widest, a.outer - j0)
        stride = round_up(width, lanes(v))
        plane = plane_size(a.inner * stride, v)
        multiply_add_planes(PLANES, at.rows * at.width, width, a.inner, v, at.x_plane, a.inner, 1,
                            weights, plane, stride, starts, m + j0, at.y_plane, a.outer)
        weights += PLANES * plane
        j0 += widest


cdef inline void block_outputs(const conv_args* a, const tile_block* at, const real* m,
                               const real* b, const real* previous, real* y) noexcept nogil:
    """y = A^T m A + b, and the activation or the derivative of the one before."""
    cdef Py_ssize_t k, n, oy, r, rows, tile_rows = (a.out_height + 1) // 2, ox = 2 * at.left
    cdef Py_ssize_t columns = min(2 * at.width, a.out_width - ox)
    cdef real* to
    for k in range(at.rows):
        n = (at.row + k) // tile_rows
        oy = 2 * (at.row + k - n * tile_rows)
        rows = min(a.out_height - oy, 2)
        to = <real*>pixel(y, &a.y, n, oy, ox)
        winograd_output(at.width, a.outer, m + k * at.width * a.outer, at.y_plane, b, to, a.y.row,
                        rows, columns)
        for r in range(rows):
            if previous != NULL:
                activate_backward(a.activation, a.slope, columns * a.outer,
                                  pixel(previous, &a.previous, n, oy + r, ox), to, to)
            elif a.activation:
                activate(a.activation, a.slope, columns * a.outer, to, to)
            to += a.y.row


cdef void winograd_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                        const real* weights, const real* b, const real* previous,
                        real* y) noexcept nogil:
    """Rows begin..end of tiles, counted over all images."""
    cdef tile_block at
    cdef real* v = NULL
    cdef void* memory = new_block(a, 0, &at, &v)
    cdef bint more = first_block(a, begin, end, &at)
    while more:
        if memory != NULL:
            block_inputs(a, &at, x, v)
            block_products(a, &at, v, weights, v + PLANES * at.x_plane)
            block_outputs(a, &at, v + PLANES * at.x_plane, b, previous, y)
        else:
            block_failed(a, &at, y)
        more = next_block(a, end, &at)
    free(memory)


cdef void block_failed(const conv_args* a, const tile_block* at, real* y) noexcept nogil:
    """No memory: NaN is seen, a wrong number is not."""
    cdef Py_ssize_t k, r, n, oy, tile_rows = (a.out_height + 1) // 2
    for k in range(at.rows):
        n = (at.row + k) // tile_rows
        oy = 2 * (at.row + k - n * tile_rows)
        for r in range(min(a.out_height - oy, 2)):
            memset(<real*>pixel(y, &a.y, n, oy + r, 0), 0xFF,
                   a.out_width * a.outer * sizeof(real))


# -------------------------------------------------------------------- gradients of W and b


cdef inline void block_gradients(const conv_args* a, const tile_block* at, const real* dy, real* h,
                                 real* db) noexcept nogil:
    """h[plane, tile, f] = A dy A^T; db += dy"""
    cdef Py_ssize_t k, n, oy, r, rows, tile_rows = (a.out_height + 1) // 2, ox = 2 * at.left
    cdef Py_ssize_t columns = min(2 * at.width, a.out_width - ox)
    cdef const real* source
    for k in range(at.rows):
        n = (at.row + k) // tile_rows
        oy = 2 * (at.row + k - n * tile_rows)
        rows = min(a.out_height - oy, 2)
        source = pixel(dy, &a.y, n, oy, ox)
        winograd_gradient(at.width, a.outer, source, a.y.row, rows, columns,
                          h + k * at.width * a.outer, at.y_plane)
        for r in range(rows):
            sum_rows(columns, a.outer, source + r * a.y.row, a.outer, db)


cdef inline void block_sums(const conv_args* a, const tile_block* at, const real* v, const real* h,
                            real* m) noexcept nogil:
    """m[plane, c, f] += v[plane, tile, c] h[plane, tile, f]"""
    cdef Py_ssize_t widest = max_columns(v), j0 = 0
    while j0 < a.outer:
        multiply_add_planes(PLANES, a.inner, min(widest, a.outer - j0), at.rows * at.width, v,
                            at.x_plane, 1, a.inner, h + j0, at.y_plane, a.outer, NULL, m + j0,
                            plane_size(a.inner * a.outer, v), a.outer)
        j0 += widest


cdef void winograd_weight_gradient(const conv_args* a, Py_ssize_t begin, Py_ssize_t end,
                                   const real* x, const real* dy, real* partial) noexcept nogil:
    """Images begin..end, whole partial sums: of dW, and behind it of db."""
    cdef Py_ssize_t n = begin, count, size = a.inner * a.outer, tile_rows = (a.out_height + 1) // 2
    cdef Py_ssize_t plane = plane_size(size, x)
    cdef tile_block at
    cdef real* v = NULL
    cdef real* m
    cdef real* sums
    cdef void* memory = new_block(a, PLANES * plane, &at, &v)
    cdef bint more
    while n < end:
        count = min(end - n, a.images_per_sum)
        sums = partial + n // a.images_per_sum * a.partial_size
        # Without memory: NaN is seen, a wrong number is not.
        memset(sums, 0 if memory != NULL else 0xFF, a.partial_size * sizeof(real))
        if memory != NULL:
            m = v + PLANES * (at.x_plane + at.y_plane)
            memset(m, 0, PLANES * plane * sizeof(real))
            more = first_block(a, n * tile_rows, (n + count) * tile_rows, &at)
            while more:
                block_inputs(a, &at, x, v)
                block_gradients(a, &at, dy, v + PLANES * at.x_plane,
                                sums + a.partial_size - a.outer)
                block_sums(a, &at, v, v + PLANES * at.x_plane, m)
                more = next_block(a, (n + count) * tile_rows, &at)
            winograd_weights_gradient(size, m, plane, sums, size)
        n += count
    free(memory)
