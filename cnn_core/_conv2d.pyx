"""2D convolution, direct, with the channels innermost.

    y[n, oy, ox, f] = act(b[f] + sum over r, s, c of
                          x[n, oy sy + r dy, ox sx + s dx, c] W[f, c, r, s])

    x  [N, H, W, C] with its padding around it     W [F, C / groups, KH, KW]     y [N, OH, OW, F]

No matrix of windows is made. For one row of output pixels the sum over (s, c) is a sum over adjacent
elements of x, one such run per kernel row r: a tap. A tile of output pixels x filters stays in
registers over all taps; elements of x are broadcast, weights are loaded as vectors. With dilation
or groups a tap is one (r, s) and the sum over c.

    dx: with stride and dilation 1 the same convolution of dy, padded by KH - 1 - padding, with the
        kernels turned around; otherwise dy W^T is added to the pixels that each tap had read
    dW: x^T dy over the pixels, one row of output pixels being a tap; images are summed in fixed
        groups, whose sums are then added in order

Saito, Deep Learning from Scratch, chapter 7; Dumoulin and Visin, A guide to convolution arithmetic
for deep learning (2016).
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cnn_core._affine cimport column_sums
from cnn_core._images cimport Images, Layout, pixel
from cnn_core._parallel cimport Task, new_task
from cnn_core._simd cimport (
    activate, activate_backward, add, lanes, max_columns, multiply_add_taps, multiply_add_tile,
)
from cnn_core._types cimport real

cdef enum:
    MOST_IMAGES = 8
    MOST_GROUPS_OF_IMAGES = 32    # partial sums of dW: the most threads that it can use
    FEW_ROWS = 12                 # of dW that one kernel row gives: less than a tile


cdef struct conv_args:
    Py_ssize_t groups
    Py_ssize_t inner             # channels of x per group
    Py_ssize_t outer             # channels of y per group
    Py_ssize_t kh
    Py_ssize_t kw
    Py_ssize_t sy
    Py_ssize_t sx
    Py_ssize_t dy
    Py_ssize_t dx
    Py_ssize_t n
    Py_ssize_t out_height
    Py_ssize_t out_width
    Layout x                     # at the top left of the padding
    Layout y
    Layout previous              # of the activation whose derivative is taken last
    const void* x_data
    const void* weights          # packed
    const void* b
    void* y_data
    const void* previous_data
    int activation
    double slope
    const Py_ssize_t* x_taps
    const Py_ssize_t* w_taps
    Py_ssize_t taps
    Py_ssize_t k                 # terms of one tap
    Py_ssize_t images_per_sum
    void* partial
    Py_ssize_t partial_size
    bint flip
    bint is_float


cdef inline Py_ssize_t round_up(Py_ssize_t n, Py_ssize_t unit) noexcept nogil:
    return (n + unit - 1) // unit * unit


# ------------------------------------------------------------------------------- packed weights
#
# For each group, panels of max_columns output channels; in a panel one row per (r, s, channel of
# the sum), as long as the panel is wide, rounded up to whole vectors.


cdef inline Py_ssize_t packed_group(const conv_args* a, Py_ssize_t inner, Py_ssize_t outer,
                                    const real* like) noexcept nogil:
    return a.kh * a.kw * inner * round_up(outer, lanes(like))


cdef inline void pack_rows(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* W,
                           real* packed) noexcept nogil:
    """Rows begin..end over (group, r, s, inner). With a.flip the sum runs over the filters and the
    kernel is turned around, as dx needs it; else over the channels."""
    cdef Py_ssize_t widest = max_columns(W), vector = lanes(W), rows = a.kh * a.kw * a.inner
    cdef Py_ssize_t item, g, p, tap, i, j, j0, width, stride, channels, area = a.kh * a.kw
    cdef real* to
    for item in range(begin, end):
        g = item // rows
        p = item - g * rows
        tap = p // a.inner
        i = p - tap * a.inner
        j0 = 0
        while j0 < a.outer:
            width = min(widest, a.outer - j0)
            stride = round_up(width, vector)
            to = packed + g * packed_group(a, a.inner, a.outer, W) + rows * j0 + p * stride
            for j in range(width):
                if a.flip:
                    to[j] = W[((g * a.inner + i) * a.outer + j0 + j) * area + area - 1 - tap]
                elif a.images_per_sum:    # transposed, not turned around
                    to[j] = W[((g * a.inner + i) * a.outer + j0 + j) * area + tap]
                else:
                    to[j] = W[((g * a.outer + j0 + j) * a.inner + i) * area + tap]
            for j in range(width, stride):
                to[j] = 0
            j0 += widest


cdef void pack_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const conv_args* a = <const conv_args*>args
    if a.is_float:
        pack_rows(a, begin, end, <const float*>a.x_data, <float*>a.y_data)
    else:
        pack_rows(a, begin, end, <const double*>a.x_data, <double*>a.y_data)


# -------------------------------------------------------------------------------------- forward


cdef void conv_images(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                      const real* weights, const real* b, const real* previous,
                      real* y) noexcept nogil:
    """Images begin..end, row by row of output pixels while they are in the cache."""
    cdef Py_ssize_t n, oy
    cdef real* row
    for n in range(begin, end):
        for oy in range(a.out_height):
            row = <real*>pixel(y, &a.y, n, oy, 0)
            conv_row(a, pixel(x, &a.x, n, oy * a.sy, 0), weights, b, row)
            if previous != NULL:
                activate_backward(a.activation, a.slope, a.out_width * a.y.channels,
                                  pixel(previous, &a.previous, n, oy, 0), row, row)
            elif a.activation:
                activate(a.activation, a.slope, a.out_width * a.y.channels, row, row)


cdef inline void conv_row(const conv_args* a, const real* x, const real* weights, const real* b,
                          real* y) noexcept nogil:
    cdef Py_ssize_t g, j0, ox, width, widest = max_columns(x), vector = lanes(x)
    cdef Py_ssize_t rows = a.kh * a.kw * a.inner
    if b == NULL:
        memset(y, 0, a.out_width * a.y.channels * sizeof(real))
    else:
        for ox in range(a.out_width):
            memcpy(y + ox * a.y.channels, b, a.y.channels * sizeof(real))
    for g in range(a.groups):
        j0 = 0
        while j0 < a.outer:
            width = min(widest, a.outer - j0)
            conv_panel(a, x + g * a.inner, weights + rows * j0, round_up(width, vector), width,
                       y + g * a.outer + j0)
            j0 += widest
        weights += packed_group(a, a.inner, a.outer, weights)


cdef inline void conv_panel(const conv_args* a, const real* x, const real* weights,
                            Py_ssize_t stride, Py_ssize_t width, real* y) noexcept nogil:
    cdef Py_ssize_t t, first
    cdef Py_ssize_t w_taps[64]
    cdef Py_ssize_t count
    first = 0
    while first < a.taps:    # w_taps holds multiples of the panel's own stride
        count = min(a.taps - first, 64)
        for t in range(count):
            w_taps[t] = (first + t) * a.k * stride
        multiply_add_taps(a.out_width, width, a.k, count, x, a.x_taps + first,
                          a.sx * a.x.channels, 1, weights, w_taps, stride, y, a.y.channels)
        first += count


cdef void conv_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const conv_args* a = <const conv_args*>args
    if a.is_float:
        conv_images(a, begin, end, <const float*>a.x_data, <const float*>a.weights,
                    <const float*>a.b, <const float*>a.previous_data, <float*>a.y_data)
    else:
        conv_images(a, begin, end, <const double*>a.x_data, <const double*>a.weights,
                    <const double*>a.b, <const double*>a.previous_data, <double*>a.y_data)


# ------------------------------------------------------- gradient of the input, any stride


cdef void spread_image(const conv_args* a, const real* dy, const real* weights,
                       real* padded) noexcept nogil:
    """padded[oy sy + r dy, ox sx + s dx] += dy[oy, ox] W[:, :, r, s]^T for one image.

    inner: filters per group, outer: channels per group; x is the layout of dy, y that of padded.
    """
    cdef Py_ssize_t widest = max_columns(dy), vector = lanes(dy), rows = a.kh * a.kw * a.inner
    cdef Py_ssize_t g, tap, r, s, oy, j0, width, stride
    cdef const real* w
    for g in range(a.groups):
        for tap in range(a.kh * a.kw):
            r = tap // a.kw
            s = tap - r * a.kw
            j0 = 0
            while j0 < a.outer:
                width = min(widest, a.outer - j0)
                stride = round_up(width, vector)
                w = weights + rows * j0 + tap * a.inner * stride
                for oy in range(a.out_height):
                    multiply_add_tile(
                        a.out_width, width, a.inner, dy + oy * a.x.row + g * a.inner,
                        a.x.channels, 1, w, stride,
                        padded + (oy * a.sy + r * a.dy) * a.y.row + s * a.dx * a.y.channels
                        + g * a.outer + j0, a.sx * a.y.channels)
                j0 += widest
        weights += packed_group(a, a.inner, a.outer, weights)


cdef struct spread_args:
    conv_args conv               # x: dy, y: one padded image
    Py_ssize_t height            # of dx
    Py_ssize_t width
    Py_ssize_t padded_size
    Layout out
    void* dx


cdef void spread_images(const spread_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dy,
                        const real* weights, const real* previous, real* dx) noexcept nogil:
    cdef Py_ssize_t n, y, size = a.width * a.out.channels
    cdef real* row
    cdef real* padded = <real*>malloc(a.padded_size * sizeof(real))
    for n in range(begin, end):
        if padded != NULL:
            memset(padded, 0, a.padded_size * sizeof(real))
            spread_image(&a.conv, pixel(dy, &a.conv.x, n, 0, 0), weights, padded)
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
                    dW + run * m * a.outer + j0, a.outer)
                j0 += widest
        dW += a.kh * a.kw * a.inner * a.outer


cdef inline void weight_gradient_few_channels(const conv_args* a, const real* x, const real* dy,
                                              real* dW, real* windows) noexcept nogil:
    """The same for few channels, one row of output pixels at a time.

    A kernel row alone would fill too few registers, so the pixels that all taps see along one row
    are first copied: windows[(r, s, c), OW].
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
            multiply_add_tile(rows, min(widest, a.outer - j0), ow, windows, ow, 1,
                              dy + oy * a.y.row + j0, a.y.channels, dW + j0, a.outer)
            j0 += widest


cdef void weight_gradient_sums(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                               const real* dy, real* partial) noexcept nogil:
    """Partial sums begin..end: of dW, and behind it of db."""
    cdef Py_ssize_t item, n, oy, ox, filters = a.groups * a.outer
    cdef real* sums
    cdef const real* row
    cdef real* windows = NULL
    if a.groups == 1 and a.kw * a.inner < FEW_ROWS:
        windows = <real*>malloc(a.kh * a.kw * a.inner * a.out_width * sizeof(real))
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
                for ox in range(a.out_width):
                    add(filters, row + ox * filters, sums + a.partial_size - filters)
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


cdef struct reduce_args:
    conv_args conv
    Py_ssize_t n_sums
    void* dW
    void* db


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


# ------------------------------------------------------------------------------------------ tasks


cdef Layout padded_layout(Images images, padding):
    """The layout of x from the top left of a convolution's padding, which the border must hold."""
    cdef Layout at = images.layout
    if any(have < need for have, need in zip(images.border, padding)):
        raise ValueError(f"images: border {images.border} does not hold the padding {padding}")
    at.offset -= <Py_ssize_t>padding[0] * at.row + <Py_ssize_t>padding[2] * at.channels
    return at


cdef class Convolution:
    """The geometry of one convolution, and its tasks.

    kernel, stride, dilation : pairs (vertical, horizontal).
    padding : (top, bottom, left, right).
    empty : numpy.empty, for the tables of offsets.
    """

    cdef conv_args shape
    cdef readonly tuple padding
    cdef readonly Py_ssize_t filters, channels
    cdef object empty

    def __cinit__(self, Py_ssize_t channels, Py_ssize_t filters, kernel, stride, padding, dilation,
                  Py_ssize_t groups, empty):
        self.channels, self.filters = channels, filters
        self.shape.groups = groups
        self.shape.inner, self.shape.outer = channels // groups, filters // groups
        self.shape.kh, self.shape.kw = kernel
        self.shape.sy, self.shape.sx = stride
        self.shape.dy, self.shape.dx = dilation
        self.padding = tuple(padding)
        self.empty = empty

    def output_size(self, Py_ssize_t height, Py_ssize_t width):
        """(OH, OW), not positive where the kernel does not fit."""
        top, bottom, left, right = self.padding
        reach_y = self.shape.dy * (self.shape.kh - 1) + 1
        reach_x = self.shape.dx * (self.shape.kw - 1) + 1
        return ((height + top + bottom - reach_y) // self.shape.sy + 1,
                (width + left + right - reach_x) // self.shape.sx + 1)

    @property
    def turned(self):
        """Whether dx is the convolution of dy with the kernels turned around."""
        top, bottom, left, right = self.padding
        unit = self.shape.sy == self.shape.sx == self.shape.dy == self.shape.dx == 1
        return (unit and max(top, bottom) <= self.shape.kh - 1
                and max(left, right) <= self.shape.kw - 1)

    @property
    def gradient_border(self):
        """The border that dy must have for `input_gradient`."""
        if not self.turned:
            return 0, 0, 0, 0
        top, bottom, left, right = self.padding
        return (self.shape.kh - 1 - top, self.shape.kh - 1 - bottom,
                self.shape.kw - 1 - left, self.shape.kw - 1 - right)

    def packed_size(self, bint backward, bint is_float):
        """Elements of the packed weights, for the forward pass or for `input_gradient`."""
        cdef Py_ssize_t inner = self.shape.outer if backward else self.shape.inner
        cdef Py_ssize_t outer = self.shape.inner if backward else self.shape.outer
        if is_float:
            return self.shape.groups * packed_group(&self.shape, inner, outer, <const float*>NULL)
        return self.shape.groups * packed_group(&self.shape, inner, outer, <const double*>NULL)

    def pack(self, real[:, :, :, ::1] W, real[::1] packed, bint backward):
        """Task: W[F, C / groups, KH, KW] as the forward pass or `input_gradient` reads it."""
        cdef conv_args args = self.shape
        self.check_weights(W.shape[0], W.shape[1], W.shape[2], W.shape[3])
        if packed.shape[0] < self.packed_size(backward, sizeof(real) == sizeof(float)):
            raise ValueError("packed is too small")
        if backward:
            args.inner, args.outer = args.outer, args.inner
            args.flip = self.turned
        args.images_per_sum = backward
        args.x_data = &W[0, 0, 0, 0]
        args.y_data = &packed[0]
        args.is_float = real is float
        return new_task(pack_kernel, &args, sizeof(args),
                        args.groups * args.kh * args.kw * args.inner, 1, 64, 2 * args.outer,
                        (W.base, packed.base))

    cdef check_weights(self, Py_ssize_t f, Py_ssize_t c, Py_ssize_t kh, Py_ssize_t kw):
        expected = (self.filters, self.shape.inner, self.shape.kh, self.shape.kw)
        if (f, c, kh, kw) != expected:
            raise ValueError(f"W: expected shape {expected}, got {(f, c, kh, kw)}")

    cdef tuple tap_tables(self, conv_args* args):
        """Where each tap begins in x, and how many terms it has."""
        cdef bint whole_rows = args.groups == 1 and args.dx == 1
        cdef Py_ssize_t taps = args.kh if whole_rows else args.kh * args.kw, t, r, s
        cdef int64_t[::1] table = self.empty(taps, "int64")
        for t in range(taps):
            r = t if whole_rows else t // args.kw
            s = 0 if whole_rows else t - r * args.kw
            table[t] = r * args.dy * args.x.row + s * args.dx * args.x.channels
        args.x_taps = <const Py_ssize_t*>&table[0]
        args.taps = taps
        args.k = args.kw * args.inner if whole_rows else args.inner
        return (table,)

    cdef conv_args bind(self, Images x, Images y):
        """The geometry of a pass from x to y (or dy), checked."""
        cdef conv_args args = self.shape
        sizes = self.output_size(x.height, x.width)
        if x.channels != self.channels or y.channels != self.filters:
            raise ValueError("images: wrong number of channels")
        if (y.height, y.width) != sizes or x.n != y.n or x.is_float != y.is_float:
            raise ValueError(f"images: expected {x.n} of {sizes}, got {y.n} of "
                             f"{(y.height, y.width)}, of one dtype")
        args.x = padded_layout(x, self.padding)
        args.y = y.layout
        args.n = x.n
        args.out_height, args.out_width = y.height, y.width
        args.is_float = x.is_float
        return args

    def forward(self, Images x, real[::1] packed, const real[::1] b, Images y, int activation,
                double slope):
        """Task over images: y = f(conv(x) + b); b may be None."""
        cdef conv_args args = self.bind(x, y)
        tables = self.tap_tables(&args)
        if packed.shape[0] < self.packed_size(False, sizeof(real) == sizeof(float)) or args.is_float != (sizeof(real) == sizeof(float)):
            raise ValueError("packed: wrong size or dtype")
        args.x_data = x.data
        args.weights = &packed[0]
        if b is not None:
            args.b = &b[0]
        args.y_data = y.data
        args.activation, args.slope = activation, slope
        return new_task(conv_kernel, &args, sizeof(args), args.n, 1, MOST_IMAGES, self.work(args),
                        (x, packed.base, None if b is None else b.base, y, tables))

    cdef double work(self, conv_args args):
        return (<double>args.out_height * args.out_width * args.kh * args.kw * args.groups
                * args.inner * args.outer)

    def input_gradient(self, Images dy, real[::1] packed, Images dx, Images previous=None,
                       int activation=0, double slope=0.0):
        """Task over images: dx = gradient by x, through f'(x) where `previous` is x = f(...)."""
        cdef conv_args args = self.bind_back(dy, dx, previous, activation, slope)
        cdef spread_args spread
        if packed.shape[0] < self.packed_size(True, sizeof(real) == sizeof(float)) or args.is_float != (sizeof(real) == sizeof(float)):
            raise ValueError("packed: wrong size or dtype")
        args.weights = &packed[0]
        if self.turned:
            args.x = padded_layout(dy, self.gradient_border)
            args.y = dx.layout
            args.y_data = dx.data
            args.out_height, args.out_width = dx.height, dx.width
            tables = self.tap_tables(&args)
            return new_task(conv_kernel, &args, sizeof(args), args.n, 1, MOST_IMAGES,
                            self.work(args), (dy, packed.base, dx, previous, tables))
        top, bottom, left, right = self.padding
        args.x = dy.layout
        args.y.channels = self.channels
        args.y.row = (left + dx.width + right) * self.channels
        args.y.offset = top * args.y.row + left * self.channels
        spread.conv = args
        spread.height, spread.width = dx.height, dx.width
        spread.padded_size = (top + dx.height + bottom) * args.y.row
        spread.out = dx.layout
        spread.dx = dx.data
        return new_task(spread_kernel, &spread, sizeof(spread), args.n, 1, MOST_IMAGES,
                        self.work(args), (dy, packed.base, dx, previous))

    cdef conv_args bind_back(self, Images dy, Images dx, Images previous, int activation,
                             double slope):
        cdef conv_args args = self.shape
        if (dy.height, dy.width) != self.output_size(dx.height, dx.width) or dy.n != dx.n:
            raise ValueError("images: sizes do not fit")
        if dx.channels != self.channels or dy.channels != self.filters:
            raise ValueError("images: wrong number of channels")
        if dx.is_float != dy.is_float:
            raise TypeError("images: expected one dtype")
        args.n = dy.n
        args.inner, args.outer = self.shape.outer, self.shape.inner
        args.out_height, args.out_width = dy.height, dy.width
        args.x_data = dy.data
        args.is_float = dy.is_float
        if previous is not None:
            if previous.shape != dx.shape or previous.is_float != dx.is_float:
                raise ValueError("previous: expected the shape and dtype of dx")
            args.previous, args.previous_data = previous.layout, previous.data
            args.activation, args.slope = activation, slope
        return args

    def sums(self, Py_ssize_t n):
        """(images per partial sum, number of partial sums, elements of each) for n images."""
        per_sum = max((n + MOST_GROUPS_OF_IMAGES - 1) // MOST_GROUPS_OF_IMAGES, 4)
        size = self.shape.groups * self.shape.kh * self.shape.kw * self.shape.inner * self.shape.outer
        return per_sum, (n + per_sum - 1) // per_sum, size + self.filters

    def weight_gradient(self, Images x, Images dy, real[:, ::1] partial):
        """Task over partial sums (see `sums`): gradients of W and b."""
        cdef conv_args args = self.bind(x, dy)
        cdef int64_t[::1] x_rows = self.empty(dy.height, "int64")
        cdef int64_t[::1] y_rows = self.empty(dy.height, "int64")
        cdef Py_ssize_t oy
        per_sum, n_sums, size = self.sums(x.n)
        if (partial.shape[0], partial.shape[1]) != (n_sums, size):
            raise ValueError(f"partial: expected shape {(n_sums, size)}")
        if args.is_float != (sizeof(real) == sizeof(float)):
            raise TypeError("partial: expected the images' dtype")
        for oy in range(dy.height):
            x_rows[oy] = oy * args.sy * args.x.row
            y_rows[oy] = oy * args.y.row
        args.x_taps, args.w_taps = <const Py_ssize_t*>&x_rows[0], <const Py_ssize_t*>&y_rows[0]
        args.x_data, args.y_data = x.data, dy.data
        args.partial, args.partial_size, args.images_per_sum = &partial[0, 0], size, per_sum
        return new_task(weight_gradient_kernel, &args, sizeof(args), n_sums, 1, 1,
                        self.work(args) * per_sum, (x, dy, partial.base, x_rows, y_rows))

    def reduce(self, real[:, ::1] partial, real[:, :, :, ::1] dW, real[::1] db):
        """Task over rows: dW[F, C / groups, KH, KW] and db[F] from their partial sums."""
        cdef reduce_args args
        self.check_weights(dW.shape[0], dW.shape[1], dW.shape[2], dW.shape[3])
        args.conv = self.shape
        args.conv.partial, args.conv.partial_size = &partial[0, 0], partial.shape[1]
        args.conv.is_float = real is float
        args.n_sums = partial.shape[0]
        args.dW, args.db = &dW[0, 0, 0, 0], &db[0]
        rows = self.shape.groups * self.shape.kh * self.shape.kw * self.shape.inner + 1
        return new_task(reduce_kernel, &args, sizeof(args), rows, 1, 64,
                        args.n_sums * self.shape.outer, (partial.base, dW.base, db.base))
