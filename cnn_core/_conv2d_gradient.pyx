"""Gradients of a 2D convolution: kernels. The formulas stand in _conv2d.pyx.

dx for any stride and dilation, row by row, by adding dy W^T to the pixels that each tap had read;
dW and db, by x^T dy over the output pixels, in partial sums over fixed groups of images that are
added in order.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from cnn_core._conv2d_shape cimport CACHE_BYTES, MOST_TAPS, conv_args
from cnn_core._conv2d_spans cimport span_gradients_image, takes_span_gradients
from cnn_core._images cimport pixel
from cnn_core._simd cimport (
    activate_backward, add, lanes, max_columns, multiply_add_taps, sum_rows, transpose,
)
from cnn_core._simd_images cimport fold_row
from cnn_core._types cimport real, round_up
from cnn_core._winograd cimport takes_winograd, winograd_weight_gradient

cdef enum:
    FEW_ROWS = 12                 # of dW that one kernel row gives: less than a tile


# ------------------------------------------------------- gradient of the input, any stride


cdef bint products_of_row(const spread_args* spread, Py_ssize_t y, Py_ssize_t g, Py_ssize_t part,
                          Py_ssize_t at, Py_ssize_t width, const real* dy, const real* weights,
                          real* products) noexcept nogil:
    """products[OW, width] = sum over the kernel rows that reach row y of dy W^T, for the panel
    that begins at padded column `at` of part `part`; false if none does.

    inner: filters per group, outer: channels per group; x is the layout of dy.
    """
    cdef const conv_args* a = &spread.conv
    cdef Py_ssize_t r, above, oy, count = 0
    cdef Py_ssize_t dy_taps[MOST_TAPS]
    cdef Py_ssize_t w_taps[MOST_TAPS]
    cdef real zeros[64]
    cdef const real* start = zeros
    memset(zeros, 0, sizeof(zeros))
    for r in range(a.kh + 1):
        if count == MOST_TAPS or (r == a.kh and count > 0):
            multiply_add_taps(a.out_width, width, a.inner, count, dy + g * a.inner, dy_taps,
                              a.x.channels, 1, weights + a.inner * at, w_taps,
                              round_up(width, lanes(dy)), start, products, width)
            start, count = NULL, 0
        above = y - r * a.dy
        oy = above if a.sy == 1 else above // a.sy
        if r < a.kh and above >= 0 and oy * a.sy == above and oy < a.out_height:
            dy_taps[count] = oy * a.x.row
            w_taps[count] = ((g * a.kh + r) * spread.parts + part) * spread.block
            count += 1
    return start == NULL


cdef void spread_row(const spread_args* spread, Py_ssize_t y, const real* dy, const real* weights,
                     real* products, real* row) noexcept nogil:
    """row[ox sx + s dx] += dy[oy, ox] W[:, :, r, s]^T for all oy, r with oy sy + r dy = y."""
    cdef const conv_args* a = &spread.conv
    cdef Py_ssize_t g, part, j0, at, width, s, taps
    for g in range(a.groups):
        for part in range(spread.parts):
            j0 = at = 0
            while j0 < spread.columns:
                width = min(spread.panel, spread.columns - j0)
                if not products_of_row(spread, y, g, part, at, width, dy, weights, products):
                    return
                s = j0 // a.outer + part
                taps = width // a.outer if width > a.outer else 1    # more than one: not dilated
                fold_row((a.out_width - 1) * a.sx + taps, a.out_width, taps, min(width, a.outer),
                         a.sx, products, width,
                         row + s * a.dx * a.y.channels + g * a.outer + j0 % a.outer,
                         a.y.channels)
                at += round_up(width, lanes(dy))
                j0 += spread.panel


cdef inline void pack_spread_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end,
                                  const real* W, real* packed) noexcept nogil:
    """Rows begin..end over (group, run, inner) of the weights for `spread_row`."""
    cdef Py_ssize_t columns = run_columns(a, W), panel = panel_columns(a, W)
    cdef Py_ssize_t item, block, i, j0, at, j, tap, width, stride
    cdef Py_ssize_t area = a.kh * a.kw, taps = columns // a.outer, runs = area // taps
    cdef const real* filter
    cdef real* to
    for item in range(begin, end):
        block = item // a.inner
        i = item - block * a.inner
        filter = W + ((block // runs) * a.inner + i) * a.outer * area
        j0 = at = 0
        while j0 < columns:
            width = min(panel, columns - j0)
            stride = round_up(width, lanes(W))
            to = packed + a.inner * (block * padded_columns(a, W) + at) + i * stride
            memset(to, 0, stride * sizeof(real))
            for j in range(width):
                tap = (block % runs) * taps + (j0 + j) // a.outer
                to[j] = filter[((j0 + j) % a.outer) * area + tap]
            at += stride
            j0 += panel


cdef void spread_images(const spread_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dy,
                        const real* weights, const real* previous, real* dx) noexcept nogil:
    cdef Py_ssize_t n, y, size = a.width * a.out.channels
    cdef real* to
    cdef real* row = <real*>malloc((a.conv.y.row + a.products_size) * sizeof(real))
    for n in range(begin, end):
        for y in range(a.height):
            to = <real*>pixel(dx, &a.out, n, y, 0)
            if row == NULL:    # no memory: NaN is seen, a wrong number is not
                memset(to, 0xFF, size * sizeof(real))
                continue
            memset(row, 0, a.conv.y.row * sizeof(real))
            spread_row(a, y + a.top, pixel(dy, &a.conv.x, n, 0, 0), weights,
                       row + a.conv.y.row, row)
            if previous != NULL:
                activate_backward(a.conv.activation, a.conv.slope, size,
                                  pixel(previous, &a.conv.previous, n, y, 0),
                                  row + a.conv.y.offset, to)
            else:
                memcpy(to, row + a.conv.y.offset, size * sizeof(real))
    free(row)


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

    x_taps: the rows of x that go with the rows of dy, w_taps: those rows of dy. Some rows at a time
    stay in the cache while the tiles of dW pass by.
    """
    cdef Py_ssize_t oy = 0, rows = max(CACHE_BYTES // <Py_ssize_t>(
        (a.sy * a.x.row + a.y.row) * sizeof(real)), 1)
    while oy < a.out_height:
        weight_gradient_rows(a, x, dy, dW, oy, min(rows, a.out_height - oy))
        oy += rows


cdef inline void weight_gradient_rows(const conv_args* a, const real* x, const real* dy, real* dW,
                                      Py_ssize_t oy, Py_ssize_t rows) noexcept nogil:
    """The same for output rows oy..oy + rows."""
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
                    m, min(widest, a.outer - j0), a.out_width, rows,
                    x + r * a.dy * a.x.row + s * a.dx * a.x.channels + g * a.inner,
                    a.x_taps + oy, 1, a.sx * a.x.channels, dy + g * a.outer + j0, a.w_taps + oy,
                    a.y.channels,
                    <const real*>NULL, dW + run * m * a.outer + j0, a.outer)
                j0 += widest
        dW += a.kh * a.kw * a.inner * a.outer


cdef inline void weight_gradient_few_filters(const conv_args* a, const real* x, const real* dy,
                                             real* dW, real* padded) noexcept nogil:
    """The same for few filters: element t of a row of x meets the KW pixels of dy that end at t,
    which stand side by side in `padded`, the rows of dy between KW - 1 zero pixels."""
    cdef Py_ssize_t widest = max_columns(x), width = a.kw * a.outer, oy, c, j0
    for oy in range(a.out_height):
        memcpy(padded + a.w_taps[oy] + width - a.outer, dy + oy * a.y.row,
               a.out_width * a.outer * sizeof(real))
    for c in range(a.inner):
        j0 = 0
        while j0 < width:
            multiply_add_taps(a.kh, min(widest, width - j0), a.out_width + a.kw - 1, a.out_height,
                              x + c, a.x_taps, a.dy * a.x.row, a.x.channels, padded + j0, a.w_taps,
                              a.outer, <const real*>NULL, dW + j0, width)
            j0 += widest
        dW += a.kh * width


cdef void shift_rows(const conv_args* a, const real* x, real* shifted) noexcept nogil:
    """shifted[y, s, c, ox] = x[y, ox sx + s dx, c]: every pixel that a tap sees along a row."""
    cdef Py_ssize_t _, s, c, ox, at, step = a.sx * a.x.channels
    for _ in range((a.out_height - 1) * a.sy + a.kh):
        for s in range(a.kw):
            for c in range(a.inner):
                at = s * a.dx * a.x.channels + c
                if step == 1:
                    memcpy(shifted, x + at, a.out_width * sizeof(real))
                else:
                    for ox in range(a.out_width):
                        shifted[ox] = x[at + ox * step]
                shifted += a.out_width
        x += a.x.row


cdef inline void weight_gradient_few_channels(const conv_args* a, const real* x, const real* dy,
                                              real* dW, real* shifted) noexcept nogil:
    """The same for few channels, whose kernel rows alone would fill too few registers: in the
    shifted rows all (r, s, c) of an output row are a matrix [KH KW C, OW]."""
    cdef Py_ssize_t widest = max_columns(x), j0 = 0
    shift_rows(a, x, shifted)
    while j0 < a.outer:
        multiply_add_taps(a.kh * a.kw * a.inner, min(widest, a.outer - j0), a.out_width,
                          a.out_height, shifted, a.x_taps, a.out_width, 1, dy + j0, a.w_taps,
                          a.y.channels, <const real*>NULL, dW + j0, a.outer)
        j0 += widest


cdef Py_ssize_t plan_rows(conv_args* a, const real* like, Py_ssize_t* x_taps,
                          Py_ssize_t* w_taps) noexcept nogil:
    """Where the rows of x and dy that belong together begin, in a copy where one is made; the
    elements of that copy."""
    cdef Py_ssize_t oy, x_row = a.x.row, y_row = a.y.row, size = 0
    if few_filters(a, like):
        y_row = (a.out_width + 2 * (a.kw - 1)) * a.outer
        size = a.out_height * y_row + lanes(like)    # the last vector is read whole
    elif (a.groups == 1 and a.dy == 1 and a.kw * a.inner < FEW_ROWS
          and not takes_span_gradients(a)):
        x_row = a.kw * a.inner * a.out_width
        size = ((a.out_height - 1) * a.sy + a.kh) * x_row
    for oy in range(a.out_height):
        x_taps[oy] = oy * a.sy * x_row
        w_taps[oy] = oy * y_row
    return size


cdef void weight_gradient_sums(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                               const real* dy, real* partial) noexcept nogil:
    """Images begin..end, whole partial sums: of dW, and behind it of db."""
    cdef Py_ssize_t n, filters = a.groups * a.outer, width = a.out_width * filters
    cdef real* sums
    cdef real* columns       # sums over the rows of an image, pixel by pixel
    cdef real* copy
    cdef const real* image
    cdef const real* gradient
    if takes_winograd(a):
        winograd_weight_gradient(a, begin, end, x, dy, partial)
        return
    columns = <real*>calloc(width + a.copy_size, sizeof(real))
    copy = columns + width
    for n in range(begin, end):
        sums = partial + n // a.images_per_sum * a.partial_size
        if columns == NULL:    # no memory: NaN is seen, a wrong number is not
            memset(sums, 0xFF, a.partial_size * sizeof(real))
            continue
        if n % a.images_per_sum == 0:
            memset(sums, 0, a.partial_size * sizeof(real))
        image, gradient = pixel(x, &a.x, n, 0, 0), pixel(dy, &a.y, n, 0, 0)
        if few_filters(a, x):
            weight_gradient_few_filters(a, image, gradient, sums, copy)
        elif takes_span_gradients(a):
            span_gradients_image(a, image, gradient, sums)
        elif a.copy_size:
            weight_gradient_few_channels(a, image, gradient, sums, copy)
        else:
            weight_gradient_image(a, image, gradient, sums)
        memset(columns, 0, width * sizeof(real))
        sum_rows(a.out_height, width, gradient, a.y.row, columns)
        sum_rows(a.out_width, filters, columns, filters, sums + a.partial_size - filters)
    free(columns)


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
        if few_filters(&a.conv, partial):
            c = item // area
            tap = item - c * area
            tap += a.conv.kw - 1 - 2 * (tap % a.conv.kw)
        else:
            tap = (item - g * rows) // a.conv.inner
            c = item - g * rows - tap * a.conv.inner
        for f in range(outer):
            dW[((g * outer + f) * a.conv.inner + c) * area + tap] = sums[f]


cdef inline void reduce_filters(const reduce_args* a, Py_ssize_t begin, Py_ssize_t end,
                                real* partial, real* dW, real* db) noexcept nogil:
    """The same where each filter's weights (r, s, c) stand together: filters begin..end, and db."""
    cdef Py_ssize_t f, k, n, filters = a.conv.outer, area = a.conv.kh * a.conv.kw
    cdef Py_ssize_t size = area * a.conv.inner
    cdef real* sums
    for f in range(begin, end):
        n = size if f < filters else filters
        sums = partial + f * size
        for k in range(1, a.n_sums):
            add(n, sums + k * a.conv.partial_size, sums)
        if f == filters:
            memcpy(db, sums, n * sizeof(real))
        else:
            transpose(area, a.conv.inner, sums, a.conv.inner, dW + f * size, area)


cdef void reduce_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const reduce_args* a = <const reduce_args*>args
    if a.by_filters and a.conv.is_float:
        reduce_filters(a, begin, end, <float*>a.conv.partial, <float*>a.dW, <float*>a.db)
    elif a.by_filters:
        reduce_filters(a, begin, end, <double*>a.conv.partial, <double*>a.dW, <double*>a.db)
    elif a.conv.is_float:
        reduce_rows(a, begin, end, <float*>a.conv.partial, <float*>a.dW, <float*>a.db)
    else:
        reduce_rows(a, begin, end, <double*>a.conv.partial, <double*>a.dW, <double*>a.db)
