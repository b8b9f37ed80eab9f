"""2D convolution with the channels innermost: direct, by the tiles of _winograd.pyx or of
_winograd_rows.pyx, or, of one channel, by the spans of _conv2d_spans.pyx.

    y[n, oy, ox, f] = act(b[f] + sum over r, s, c of
                          x[n, oy sy + r dy, ox sx + s dx, c] W[f, c, r, s])

    x  [N, H, W, C] with its padding around it     W [F, C / groups, KH, KW]     y [N, OH, OW, F]

No matrix of windows is made. For one row of output pixels the sum over (s, c) is a sum over
adjacent elements of x, one such run per kernel row r: a tap. A tile of output pixels x filters
stays in registers over all taps; elements of x are broadcast, weights are loaded as vectors. With
dilation or groups a tap is one (r, s) and the sum over c.

    dx: with stride and dilation 1 the same convolution of dy, padded by KH - 1 - padding, with the
        kernels turned around; otherwise dy W^T is added to the pixels that each tap had read
    dW: x^T dy over the pixels, one row of output pixels being a tap; images are summed in fixed
        groups, whose sums are then added in order

Saito, Deep Learning from Scratch, chapter 7; Dumoulin and Visin, A guide to convolution arithmetic
for deep learning (2016).
"""

from libc.stdint cimport int64_t
from libc.string cimport memset

from cnn_core._conv2d_gradient cimport (
    pack_spread_kernel, padded_columns, panel_columns, plan_rows, reduce_args, reduce_kernel,
    run_columns, spread_args, spread_kernel, spread_size, weight_gradient_kernel,
)
from cnn_core._conv2d_rows cimport conv_rows
from cnn_core._conv2d_shape cimport CACHE_BYTES, conv_args, kernel_of_channel, packed_group
from cnn_core._conv2d_spans cimport convolve_spans, takes_spans
from cnn_core._images cimport Images, Layout, images_at_once, pixel
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport activate, activate_backward, lanes, max_columns
from cnn_core._types cimport real, round_up
from cnn_core._winograd cimport pack_winograd, takes_winograd, winograd_rows, winograd_size
from cnn_core._winograd_rows cimport (
    TILE_ROWS, pack_winograd_rows, takes_winograd_rows, winograd_rows_size, winograd_tile_rows,
)

cdef enum:
    OUTPUT_BYTES = 16 << 10       # for which one part of the weights is used
    MOST_GROUPS_OF_IMAGES = 32    # partial sums of dW: the most threads that it can use
    FEW_CHANNELS = 12             # of dx: less than a vector


# ------------------------------------------------------------------------------- packed weights
#
# For each group, panels of max_columns output channels; in a panel one row per (r, s, channel of
# the sum), as long as the panel is wide, rounded up to whole vectors.


cdef inline void pack_channels(const conv_args* a, Py_ssize_t begin, Py_ssize_t end,
                               const real* W, real* packed) noexcept nogil:
    """Channels begin..end of the sum, over all groups."""
    cdef Py_ssize_t widest = max_columns(W), vector = lanes(W), area = a.kh * a.kw
    cdef Py_ssize_t item, g, i, tap, j0, width, stride, row
    cdef real* to
    if takes_winograd(a):
        pack_winograd(a, begin, end, W, packed)
        return
    if takes_winograd_rows(a):
        pack_winograd_rows(a, begin, end, W, packed)
        return
    for item in range(begin, end):
        g = item // a.inner
        i = item - g * a.inner
        j0 = 0
        while j0 < a.outer:
            width = min(widest, a.outer - j0)
            stride = round_up(width, vector)
            row = a.inner * stride    # from tap to tap
            to = packed + g * packed_group(a, a.inner, a.outer, W)
            to += area * a.inner * j0 + i * stride
            kernel_of_channel(a, item, j0, width, W, to, row)
            if width < stride:
                for tap in range(area):
                    memset(to + tap * row + width, 0, (stride - width) * sizeof(real))
            j0 += widest


cdef void pack_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const conv_args* a = <const conv_args*>args
    if a.is_float:
        pack_channels(a, begin, end, <const float*>a.x_data, <float*>a.y_data)
    else:
        pack_channels(a, begin, end, <const double*>a.x_data, <double*>a.y_data)


# -------------------------------------------------------------------------------------- forward


cdef inline Py_ssize_t row_items(const conv_args* a) noexcept nogil:
    """What an image is cut into: rows of pixels, or of tiles."""
    cdef Py_ssize_t rows = 1
    if takes_winograd(a):
        rows = 2
    elif takes_winograd_rows(a):
        rows = TILE_ROWS
    return (a.out_height + rows - 1) // rows


cdef void conv_row_range(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                         const real* weights, const real* b, const real* previous,
                         real* y) noexcept nogil:
    """Rows begin..end of output pixels, or of tiles, counted over all images; some at a time while
    they are in the cache."""
    cdef Py_ssize_t n, oy, i, count, block = rows_at_once(a, weights)
    cdef Py_ssize_t size = a.out_width * a.y.channels
    cdef real* row
    if takes_winograd(a):
        winograd_rows(a, begin, end, x, weights, b, previous, y)
        return
    if takes_winograd_rows(a):
        winograd_tile_rows(a, begin, end, x, weights, b, previous, y)
        return
    if (previous == NULL and takes_spans(a)
            and convolve_spans(a, NULL, begin, end, x, weights, b, y)):
        return
    while begin < end:
        n = begin // a.out_height
        oy = begin - n * a.out_height
        count = min(min(block, a.out_height - oy), end - begin)
        row = <real*>pixel(y, &a.y, n, oy, 0)
        conv_rows(a, pixel(x, &a.x, n, oy * a.sy, 0), weights, b, row, count)
        for i in range(count):
            if previous != NULL:
                activate_backward(a.activation, a.slope, size,
                                  pixel(previous, &a.previous, n, oy + i, 0), row, row)
            elif a.activation:
                activate(a.activation, a.slope, size, row, row)
            row += a.y.row
        begin += count


cdef inline Py_ssize_t rows_at_once(const conv_args* a, const real* weights) noexcept nogil:
    """One row, unless the weights are so many that it pays to use a part of them for more."""
    cdef Py_ssize_t panel = a.kh * a.kw * a.inner * min(max_columns(weights), a.outer)
    if panel * sizeof(real) <= CACHE_BYTES:
        return 1
    return max(OUTPUT_BYTES // (a.out_width * a.y.channels * sizeof(real)), 1)


cdef void row_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const conv_args* a = <const conv_args*>args
    if a.is_float:
        conv_row_range(a, begin, end, <const float*>a.x_data, <const float*>a.weights,
                       <const float*>a.b, <const float*>a.previous_data, <float*>a.y_data)
    else:
        conv_row_range(a, begin, end, <const double*>a.x_data, <const double*>a.weights,
                       <const double*>a.b, <const double*>a.previous_data, <double*>a.y_data)


cdef void conv_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t rows = row_items(<const conv_args*>args)
    row_kernel(args, begin * rows, end * rows)


# ------------------------------------------------------------------------------------------ tasks


cdef Layout padded_layout(Images images, padding):
    """The layout of x from the top left of a convolution's padding, which the border must hold."""
    cdef Layout at = images.layout
    if any(have < need for have, need in zip(images.border, padding)):
        raise ValueError(f"images: border {images.border} does not hold the padding {padding}")
    at.offset -= <Py_ssize_t>padding[0] * at.row + <Py_ssize_t>padding[2] * at.channels
    return at


cdef through_activation(conv_args* args, Images dx, Images previous, int activation, double slope):
    """Note the activation before, whose derivative a gradient dx is passed through."""
    if previous is None:
        return
    if previous.shape != dx.shape or previous.is_float != dx.is_float:
        raise ValueError("previous: expected the shape and dtype of dx")
    args.previous, args.previous_data = previous.layout, previous.data
    args.activation, args.slope = activation, slope


cdef class Convolution:
    """The geometry of one convolution, and its tasks.

    kernel, stride, dilation : pairs (vertical, horizontal).
    padding : (top, bottom, left, right).
    empty : numpy.empty, for the tables of offsets.
    """

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
        """Whether dx is the convolution of dy with the kernels turned around.

        With few channels that would fill only a part of each vector, and the products of a whole
        kernel row are cheaper.
        """
        top, bottom, left, right = self.padding
        unit = self.shape.sy == self.shape.sx == self.shape.dy == self.shape.dx == 1
        fits = (max(top, bottom) <= self.shape.kh - 1 and max(left, right) <= self.shape.kw - 1)
        return unit and fits and (self.shape.groups > 1 or self.shape.inner >= FEW_CHANNELS)

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
        cdef conv_args args = self.shape
        cdef const float* f32 = NULL
        cdef const double* f64 = NULL
        if backward:
            args.inner, args.outer = args.outer, args.inner
        if backward and not self.turned:
            return spread_size(&args, f32) if is_float else spread_size(&args, f64)
        if takes_winograd(&args):
            return winograd_size(&args, f32) if is_float else winograd_size(&args, f64)
        if takes_winograd_rows(&args):
            return winograd_rows_size(&args, f32) if is_float else winograd_rows_size(&args, f64)
        if is_float:
            return args.groups * packed_group(&args, args.inner, args.outer, f32)
        return args.groups * packed_group(&args, args.inner, args.outer, f64)

    def pack(self, const real[:, :, :, ::1] W, real[::1] packed, bint backward):
        """Task: W[F, C / groups, KH, KW] as the forward pass or `input_gradient` reads it."""
        cdef conv_args args = self.shape
        cdef Py_ssize_t rows
        self.check_weights(W.shape[0], W.shape[1], W.shape[2], W.shape[3])
        if packed.shape[0] < self.packed_size(backward, sizeof(real) == sizeof(float)):
            raise ValueError("packed is too small")
        if backward:
            args.inner, args.outer = args.outer, args.inner
        args.flip = backward
        args.x_data = &W[0, 0, 0, 0]
        args.y_data = &packed[0]
        args.is_float = sizeof(real) == sizeof(float)
        if backward and not self.turned:
            rows = args.groups * args.kh * args.kw * args.inner * args.outer
            rows //= run_columns(&args, &packed[0])
            return new_task(pack_spread_kernel, &args, sizeof(args), rows, 1, 64, 2 * args.outer,
                            (W.base, packed.base))
        return new_task(pack_kernel, &args, sizeof(args), args.groups * args.inner, 1, 8,
                        2 * args.outer * args.kh * args.kw, (W.base, packed.base))

    cdef check_weights(self, Py_ssize_t f, Py_ssize_t c, Py_ssize_t kh, Py_ssize_t kw):
        expected = (self.filters, self.shape.inner, self.shape.kh, self.shape.kw)
        if (f, c, kh, kw) != expected:
            raise ValueError(f"W: expected shape {expected}, got {(f, c, kh, kw)}")

    cdef check_packed(self, bint backward, Py_ssize_t size, bint is_float, bint images_are_float):
        if size < self.packed_size(backward, is_float) or is_float != images_are_float:
            raise ValueError("packed: wrong size or dtype")

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
                double slope, bint by_rows=False):
        """Task over images, or over the rows of all of them: y = f(conv(x) + b); b may be None."""
        cdef conv_args args = self.bind(x, y)
        tables = self.tap_tables(&args)
        self.check_packed(False, packed.shape[0], sizeof(real) == sizeof(float), args.is_float)
        args.x_data = x.data
        args.weights = &packed[0]
        if b is not None:
            if b.shape[0] != self.filters:
                raise ValueError(f"b: expected {self.filters} elements, got {b.shape[0]}")
            args.b = &b[0]
        args.y_data = y.data
        args.activation, args.slope = activation, slope
        arrays = (x, packed.base, None if b is None else b.base, y, tables)
        if by_rows:
            rows = row_items(&args)
            return new_task(row_kernel, &args, sizeof(args), args.n * rows, 1, rows,
                            self.work(args) / rows, arrays)
        return new_task(conv_kernel, &args, sizeof(args), args.n, 1, images_at_once(x, y),
                        self.work(args), arrays)

    cdef double work(self, conv_args args):
        return (<double>args.out_height * args.out_width * args.kh * args.kw * args.groups
                * args.inner * args.outer)

    def input_gradient(self, Images dy, real[::1] packed, Images dx, Images previous=None,
                       int activation=0, double slope=0.0):
        """Task over images: dx = gradient by x, through f'(x) where `previous` is x = f(...)."""
        cdef conv_args args = self.bind_back(dy, dx, previous, activation, slope)
        cdef spread_args spread
        self.check_packed(True, packed.shape[0], sizeof(real) == sizeof(float), args.is_float)
        args.weights = &packed[0]
        if self.turned:
            args.x = padded_layout(dy, self.gradient_border)
            args.y = dx.layout
            args.y_data = dx.data
            args.out_height, args.out_width = dx.height, dx.width
            tables = self.tap_tables(&args)
            return new_task(conv_kernel, &args, sizeof(args), args.n, 1, images_at_once(dy, dx),
                            self.work(args), (dy, packed.base, dx, previous, tables))
        top, _, left, right = self.padding
        args.x = dy.layout
        args.y.channels = self.channels
        args.y.row = (left + dx.width + right) * self.channels
        args.y.offset = left * self.channels
        spread.conv = args
        spread.top, spread.height, spread.width = top, dx.height, dx.width
        spread.columns = run_columns(&args, &packed[0])
        spread.panel = panel_columns(&args, &packed[0])
        spread.parts = args.kw * args.outer // spread.columns
        spread.block = args.inner * padded_columns(&args, &packed[0])
        spread.products_size = dy.width * spread.panel
        spread.out = dx.layout
        spread.dx = dx.data
        return new_task(spread_kernel, &spread, sizeof(spread), args.n, 1,
                        images_at_once(dy, dx), self.work(args), (dy, packed.base, dx, previous))

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
        through_activation(&args, dx, previous, activation, slope)
        return args

    def sums(self, Py_ssize_t n):
        """(images per partial sum, number of partial sums, elements of each) for n images."""
        per_sum = 4
        while per_sum * MOST_GROUPS_OF_IMAGES < n:
            per_sum *= 2
        size = self.shape.groups * self.shape.kh * self.shape.kw
        size *= self.shape.inner * self.shape.outer
        return per_sum, (n + per_sum - 1) // per_sum, size + self.filters

    def weight_gradient(self, Images x, Images dy, real[:, ::1] partial):
        """Task over images, whole partial sums (see `sums`): gradients of W and b."""
        cdef conv_args args = self.bind(x, dy)
        cdef int64_t[::1] x_rows = self.empty(dy.height, "int64")
        cdef int64_t[::1] y_rows = self.empty(dy.height, "int64")
        per_sum, n_sums, size = self.sums(x.n)
        if (partial.shape[0], partial.shape[1]) != (n_sums, size):
            raise ValueError(f"partial: expected shape {(n_sums, size)}")
        if args.is_float != (sizeof(real) == sizeof(float)):
            raise TypeError("partial: expected the images' dtype")
        args.copy_size = plan_rows(&args, &partial[0, 0], <Py_ssize_t*>&x_rows[0],
                                   <Py_ssize_t*>&y_rows[0])
        args.x_taps, args.w_taps = <const Py_ssize_t*>&x_rows[0], <const Py_ssize_t*>&y_rows[0]
        args.x_data, args.y_data = x.data, dy.data
        args.partial, args.partial_size, args.images_per_sum = &partial[0, 0], size, per_sum
        return new_task(weight_gradient_kernel, &args, sizeof(args), args.n, per_sum,
                        images_at_once(x, dy), self.work(args),
                        (x, dy, partial.base, x_rows, y_rows))

    def reduce(self, real[:, ::1] partial, real[:, :, :, ::1] dW, real[::1] db,
               bint by_filters=False):
        """Task over rows, or filters where the sums are those of _conv2d_pooled.pyx: from them
        dW[F, C / groups, KH, KW] and db[F]."""
        cdef reduce_args args
        self.check_weights(dW.shape[0], dW.shape[1], dW.shape[2], dW.shape[3])
        if db.shape[0] != self.filters or partial.shape[1] != self.sums(1)[2] or not len(partial):
            raise ValueError("partial, db: expected those of `weight_gradient`")
        args.conv = self.shape
        args.conv.partial, args.conv.partial_size = &partial[0, 0], partial.shape[1]
        args.conv.is_float = real is float
        args.n_sums = partial.shape[0]
        args.dW, args.db = &dW[0, 0, 0, 0], &db[0]
        args.by_filters = by_filters
        rows = self.shape.groups * self.shape.kh * self.shape.kw * self.shape.inner
        if by_filters:
            rows = self.filters
        return new_task(reduce_kernel, &args, sizeof(args), rows + 1, 1, 64,
                        <double>args.n_sums * args.conv.partial_size / rows,
                        (partial.base, dW.base, db.base))
