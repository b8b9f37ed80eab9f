"""Gradients of a 2D convolution: kernels. The formulas stand in _conv2d.pyx.

dx for any stride and dilation, by adding dy W^T to the pixels that each tap had read; dW and db, by
x^T dy over the output pixels, in partial sums over fixed groups of images that are added in order.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cnn_core._conv2d_shape cimport conv_args, round_up
from cnn_core._images cimport pixel
from cnn_core._simd cimport (
    activate_backward, add, lanes, max_columns, multiply_add_taps, multiply_add_tile, sum_rows,
)
from cnn_core._types cimport real

cdef enum:
    FEW_ROWS = 12                 # of dW that one kernel row gives: less than a tile


# ------------------------------------------------------- gradient of the input, any stride


cdef void spread_image(const conv_args* a, const real* dy, const real* weights, real* products,
                       real* padded) noexcept nogil:
    """padded[oy sy + r dy, ox sx + s dx] += dy[oy, ox] W[:, :, r, s]^T for one image.

    inner: filters per group, outer: channels per group; x is the layout of dy, y that of padded.
    The columns (s, c) of one kernel row are adjacent in padded, unless they are dilated or grouped;
    those of neighbouring pixels overlap there, so products[OW, columns] are added one by one.
    """
    cdef Py_ssize_t widest = max_columns(dy), vector = lanes(dy), step = a.sx * a.y.channels
    cdef Py_ssize_t g, run, r, s, oy, ox, j0, width, columns = run_columns(a)
    cdef Py_ssize_t per_row = a.kw * a.outer // columns
    cdef real* row
    for g in range(a.groups):
        for run in range(a.kh * per_row):
            r = run // per_row
            s = run - r * per_row
            j0 = 0
            while j0 < columns:
                width = min(widest, columns - j0)
                for oy in range(a.out_height):
                    memset(products, 0, a.out_width * width * sizeof(real))
                    multiply_add_tile(a.out_width, width, a.inner,
                                      dy + oy * a.x.row + g * a.inner, a.x.channels, 1, weights,
                                      round_up(width, vector), products, width)
                    row = (padded + (oy * a.sy + r * a.dy) * a.y.row + s * a.dx * a.y.channels
                           + g * a.outer + j0)
                    for ox in range(a.out_width):
                        add(width, products + ox * width, row + ox * step)
                weights += a.inner * round_up(width, vector)
                j0 += widest


cdef inline void pack_spread_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end,
                                  const real* W, real* packed) noexcept nogil:
    """Rows begin..end over (group, run, inner) of the weights for `spread_image`."""
    cdef Py_ssize_t widest = max_columns(W), vector = lanes(W), columns = run_columns(a)
    cdef Py_ssize_t item, block, i, j0, j, tap, width, stride
    cdef Py_ssize_t area = a.kh * a.kw, taps = columns // a.outer, runs = area // taps
    cdef const real* filter
    cdef real* to
    for item in range(begin, end):
        block = item // a.inner
        i = item - block * a.inner
        filter = W + ((block // runs) * a.inner + i) * a.outer * area
        j0 = 0
        while j0 < columns:
            width = min(widest, columns - j0)
            stride = round_up(width, vector)
            to = packed + a.inner * (block * round_up(columns, vector) + j0) + i * stride
            memset(to, 0, stride * sizeof(real))
            for j in range(width):
                tap = (block % runs) * taps + (j0 + j) // a.outer
                to[j] = filter[((j0 + j) % a.outer) * area + tap]
            j0 += widest


cdef void spread_images(const spread_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dy,
                        const real* weights, const real* previous, real* dx) noexcept nogil:
    cdef Py_ssize_t n, y, size = a.width * a.out.channels
    cdef real* row
    cdef real* padded = <real*>malloc((a.padded_size + a.products_size) * sizeof(real))
    for n in range(begin, end):
        if padded != NULL:
            memset(padded, 0, a.padded_size * sizeof(real))
            spread_image(&a.conv, pixel(dy, &a.conv.x, n, 0, 0), weights,
                         padded + a.padded_size, padded)
        for y in range(a.height):
            row = <real*>pixel(dx, &a.out, n, y, 0)
            if padded == NULL:    # no memory: NaN is seen, a wrong number is not
                memset(row, 0xFF, size * sizeof(real))
                continue
            memcpy(row, padded + a.conv.y.offset + y * a.conv.y.row, size * sizeof(real))
            if previous != NULL:
                activate_backward(a.conv.activation, a.conv.slope, size,
                                  pixel(previous, &a.conv.previous, n, y, 0), row, row)
    free(padded)


cdef void spread_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const spread_args* a = <const spread_args*>args
    if a.conv.is_float:
        spread_images(a, begin, end, <const float*>a.conv.x_data, <const float*>a.conv.weights,
                      <const float*>a.conv.previous_data, <float*>a.dx)
    else:
        spread_images(a, begin, end, <const double*>a.conv.x_data, <const double*>a.conv.weights,
                      <const double*>a.conv.previous_data, <double*>a.dx)


cdef void pack_spread_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const conv_args* a = <const conv_args*>args
    if a.is_float:
        pack_spread_rows(a, begin, end, <const float*>a.x_data, <float*>a.y_data)
    else:
        pack_spread_rows(a, begin, end, <const double*>a.x_data, <double*>a.y_data)


# -------------------------------------------------------------------------- gradients of W and b


cdef inline void weight_gradient_image(const conv_args* a, const real* x, const real* dy,
                                       real* dW) noexcept nogil:
    """dW[group, r, s, c, f] += x^T dy over the output pixels of one image.

    x_taps: the rows of x that go with the rows of dy, w_taps: those rows of dy.
    """
    cdef Py_ssize_t widest = max_columns(x), g, run, j0, runs, m
    cdef Py_ssize_t r, s
    # Adjacent (s, c) of one kernel row are adjacent in x too, unless they are dilated or grouped.
    cdef bint whole_rows = a.groups == 1 and a.dx == 1
    runs = a.kh if whole_rows else a.kh * a.kw
    m = a.kw * a.inner if whole_rows else a.inner
    for g in range(a.groups):
        for run in range(runs):
            r = run if whole_rows else run // a.kw
            s = 0 if whole_rows else run - r * a.kw
            j0 = 0
            while j0 < a.outer:
                multiply_add_taps(
                    m, min(widest, a.outer - j0), a.out_width, a.out_height,
                    x + r * a.dy * a.x.row + s * a.dx * a.x.channels + g * a.inner, a.x_taps, 1,
                    a.sx * a.x.channels, dy + g * a.outer + j0, a.w_taps, a.y.channels,
                    <const real*>NULL, dW + run * m * a.outer + j0, a.outer)
                j0 += widest
        dW += a.kh * a.kw * a.inner * a.outer


cdef inline real* new_windows(const conv_args* a, const real* like) noexcept nogil:
    """Room for `weight_gradient_few_channels`, the row of ones filled in; NULL without memory."""
    cdef Py_ssize_t i, rows = a.kh * a.kw * a.inner
    cdef real* windows = <real*>malloc((rows + 1) * a.out_width * sizeof(real))
    if windows != NULL:
        for i in range(a.out_width):
            windows[rows * a.out_width + i] = 1
    return windows


cdef inline void weight_gradient_few_channels(const conv_args* a, const real* x, const real* dy,
                                              real* dW, real* windows) noexcept nogil:
    """The same for few channels, one row of output pixels at a time; db, too, which stands behind
    dW as the product with a row of ones.

    A kernel row alone would fill too few registers, so the pixels that all taps see along one row
    are first copied: windows[(r, s, c) and ones, OW].
    """
    cdef Py_ssize_t widest = max_columns(x), rows = a.kh * a.kw * a.inner, ow = a.out_width
    cdef Py_ssize_t oy, i, ox, j0, r, s, step = a.sx * a.x.channels
    cdef const real* source
    for oy in range(a.out_height):
        for i in range(rows):
            r = i // (a.kw * a.inner)
            s = i // a.inner - r * a.kw
            source = (x + (oy * a.sy + r * a.dy) * a.x.row + s * a.dx * a.x.channels
                      + i % a.inner)
            if step == 1:
                memcpy(windows + i * ow, source, ow * sizeof(real))
            else:
                for ox in range(ow):
                    windows[i * ow + ox] = source[ox * step]
        j0 = 0
        while j0 < a.outer:
            multiply_add_tile(rows + 1, min(widest, a.outer - j0), ow, windows, ow, 1,
                              dy + oy * a.y.row + j0, a.y.channels, dW + j0, a.outer)
            j0 += widest


cdef void weight_gradient_sums(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                               const real* dy, real* partial) noexcept nogil:
    """Partial sums begin..end: of dW, and behind it of db."""
    cdef Py_ssize_t item, n, oy, filters = a.groups * a.outer
    cdef real* sums
    cdef const real* row
    cdef real* windows = NULL
    if a.groups == 1 and a.kw * a.inner < FEW_ROWS:
        windows = new_windows(a, x)
    for item in range(begin, end):
        sums = partial + item * a.partial_size
        memset(sums, 0, a.partial_size * sizeof(real))
        for n in range(item * a.images_per_sum, min((item + 1) * a.images_per_sum, a.n)):
            if windows != NULL:
                weight_gradient_few_channels(a, pixel(x, &a.x, n, 0, 0), pixel(dy, &a.y, n, 0, 0),
                                             sums, windows)
            else:
                weight_gradient_image(a, pixel(x, &a.x, n, 0, 0), pixel(dy, &a.y, n, 0, 0), sums)
                for oy in range(a.out_height):
                    row = pixel(dy, &a.y, n, oy, 0)
                    sum_rows(a.out_width, filters, row, filters, sums + a.partial_size - filters)
    free(windows)


cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const conv_args* a = <const conv_args*>args
    if a.is_float:
        weight_gradient_sums(a, begin, end, <const float*>a.x_data, <const float*>a.y_data,
                             <float*>a.partial)
    else:
        weight_gradient_sums(a, begin, end, <const double*>a.x_data, <const double*>a.y_data,
                             <double*>a.partial)


cdef inline void reduce_rows(const reduce_args* a, Py_ssize_t begin, Py_ssize_t end, real* partial,
                             real* dW, real* db) noexcept nogil:
    """Row (group, r, s, c) of all partial sums, added in order, into dW[F, C, KH, KW]; the row
    after the last is db."""
    cdef Py_ssize_t item, k, f, tap, c, g, outer = a.conv.outer, size = a.conv.partial_size
    cdef Py_ssize_t rows = a.conv.kh * a.conv.kw * a.conv.inner, area = a.conv.kh * a.conv.kw
    cdef real* sums
    for item in range(begin, end):
        if item == a.conv.groups * rows:
            memcpy(db, partial + item * outer, a.conv.groups * outer * sizeof(real))
            for k in range(1, a.n_sums):
                add(a.conv.groups * outer, partial + k * size + item * outer, db)
            continue
        sums = partial + item * outer
        for k in range(1, a.n_sums):
            add(outer, sums + k * size, sums)
        g = item // rows
        tap = (item - g * rows) // a.conv.inner
        c = item - g * rows - tap * a.conv.inner
        for f in range(outer):
            dW[((g * outer + f) * a.conv.inner + c) * area + tap] = sums[f]


cdef void reduce_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const reduce_args* a = <const reduce_args*>args
    if a.conv.is_float:
        reduce_rows(a, begin, end, <float*>a.conv.partial, <float*>a.dW, <float*>a.db)
    else:
        reduce_rows(a, begin, end, <double*>a.conv.partial, <double*>a.dW, <double*>a.db)
