"""A convolution behind which a maximum is taken of windows that lie apart: both in one pass
(_conv2d_windows.pyx), and their gradients (_conv2d_pooled_gradient.pyx). The tasks.

Saito, Deep Learning from Scratch, sections 7.3 and 7.4.
"""

from libc.stdint cimport INT32_MAX, int64_t, uint8_t
from libc.string cimport memset

from cnn_core._bounds cimport expect
from cnn_core._conv2d cimport Convolution, padded_layout, through_activation
from cnn_core._conv2d_pooled_gradient cimport (
    elements, gradients_pay, input_gradient_kernel, pack_kernel, pooled_args,
    weight_gradient_kernel,
)
from cnn_core._conv2d_shape cimport conv_args
from cnn_core._conv2d_spans cimport MOST_AREA, takes_spans
from cnn_core._conv2d_windows cimport forward_args, forward_kernel, takes_windows
from cnn_core._images cimport Images, images_at_once
from cnn_core._parallel cimport new_task
from cnn_core._seen cimport seen_args, seen_kernel
from cnn_core._types cimport real


cdef class PooledConvolution:
    """The tasks of one convolution and the windows behind it.

    size, stride : of the windows, pairs (vertical, horizontal); they lie apart, without padding.
    """

    cdef Convolution convolution
    cdef readonly tuple size, stride

    def __cinit__(self, Convolution convolution, size, stride):
        self.convolution = convolution
        self.size, self.stride = tuple(size), tuple(stride)
        if min(self.size) < 1 or stride[0] < size[0] or stride[1] < size[1]:
            raise ValueError(f"stride: expected at least the size {size}, got {stride}")

    @property
    def takes_forward(self):
        """Whether there is a `forward`."""
        cdef conv_args args = self.convolution.shape
        args.x.channels = self.convolution.channels
        return takes_spans(&args) and self.size[0] * self.size[1] <= MOST_AREA

    def takes_rows(self, Images x, int activation):
        """Whether `forward` takes rows in place of the images x."""
        cdef forward_args args = self.bind_forward(x)
        args.conv.activation = activation
        if x.is_float:
            return takes_windows(&args.conv, &args.windows, <float*>NULL)
        return takes_windows(&args.conv, &args.windows, <double*>NULL)

    cdef forward_args bind_forward(self, Images x):
        cdef forward_args args
        cdef Convolution of = self.convolution
        memset(&args, 0, sizeof(args))
        args.conv = of.shape
        args.conv.n, args.conv.is_float = x.n, x.is_float
        args.conv.out_height, args.conv.out_width = of.output_size(x.height, x.width)
        args.conv.x, args.conv.x_data = padded_layout(x, of.padding), x.data
        args.windows.height, args.windows.width = self.size
        args.windows.sy, args.windows.sx = self.stride
        outputs = self.outputs(args.conv.out_height, args.conv.out_width)
        args.windows.out_height, args.windows.out_width = outputs
        return args

    def forward(self, Images x, real[::1] packed, const real[::1] b, Images y, uint8_t[::1] which,
                int activation, double slope, const real[:, ::1] rows=None,
                const int64_t[::1] place=None):
        """Task over images: y = maxima of f(conv(x) + b), and which[N OH OW F] if not None.

        rows : read in place of x, where `takes_rows`; `place` as in `_images.from_rows`.
        """
        cdef forward_args args = self.bind_forward(x)
        cdef Convolution of = self.convolution
        if not self.takes_forward:
            raise ValueError("forward: not of this convolution and these windows")
        self.check(x, y, which)
        of.check_packed(False, packed.shape[0], sizeof(real) == sizeof(float), x.is_float)
        if b.shape[0] != of.filters:
            raise ValueError(f"b: expected {of.filters} elements, got {b.shape[0]}")
        tables, work = of.tap_tables(&args.conv), of.work(args.conv)
        args.conv.y, args.conv.y_data = y.layout, y.data
        args.conv.weights, args.conv.b = &packed[0], &b[0]
        args.conv.activation, args.conv.slope = activation, slope
        if which is not None:
            args.windows.which = &which[0]
        if rows is not None:
            expect(rows.shape[0] == x.n and rows.shape[1] == x.height * x.width and len(place) == 1
                   and takes_windows(&args.conv, &args.windows, &packed[0]), "rows, place")
            args.conv.x_data = &rows[0, 0]
            args.rows.place = &place[0]
            args.rows.top, _, args.rows.left, _ = of.padding
            args.rows.height, args.rows.width = x.height, x.width
        arrays = (x, packed.base, b.base, y, tables, None if which is None else which.base,
                  None if rows is None else (rows.base, place.base))
        return new_task(forward_kernel, &args, sizeof(args), x.n, 1, images_at_once(x, y), work,
                        arrays)

    def outputs(self, height, width):
        """How many windows there are, of images of the convolution's outputs."""
        return ((height - self.size[0]) // self.stride[0] + 1,
                (width - self.size[1]) // self.stride[1] + 1)

    def pays(self, Py_ssize_t height, Py_ssize_t width, bint is_float):
        """Whether the gradients below are taken for images of this size, not all pixels'."""
        cdef pooled_args args
        memset(&args, 0, sizeof(args))
        args.conv = self.convolution.shape
        args.area, args.columns = self.size[0] * self.size[1], self.size[1]
        args.sy, args.sx = self.stride
        if (args.conv.groups > 1 or args.conv.dx > 1 or args.area > MOST_AREA
                or not self.counts(height, width)):
            return False
        if is_float:
            return gradients_pay(&args, <const float*>NULL)
        return gradients_pay(&args, <const double*>NULL)

    cdef bint counts(self, height, width):
        """Whether pixels, gradients and weights of an image can be counted in 32 bits."""
        cdef Convolution of = self.convolution
        top, bottom, left, right = of.padding
        # In Python, whose integers do not overflow.
        most = max((height + top + bottom) * (width + left + right), of.filters * of.shape.kh)
        return most * max(of.filters, of.channels * of.shape.kw) <= INT32_MAX

    cdef check(self, Images x, Images y, const uint8_t[::1] which):
        """Of images of the input, of the windows' outputs, and of room for which."""
        cdef Convolution of = self.convolution
        size = self.outputs(*of.output_size(x.height, x.width))
        if x.channels != of.channels or y.channels != of.filters or of.shape.groups > 1:
            raise ValueError("images: wrong number of channels")
        if (y.height, y.width) != size or x.n != y.n or x.is_float != y.is_float:
            raise ValueError(f"images: expected {x.n} of {size}, got {y.n} of "
                             f"{(y.height, y.width)}, of one dtype")
        if which is not None and which.shape[0] < y.n * y.height * y.width * y.channels:
            raise ValueError("which is too small")

    cdef pooled_args bind(self, Images x, Images dy, const uint8_t[::1] which):
        """The geometry of x and the gradient by the windows' outputs, checked."""
        cdef pooled_args args
        cdef Convolution of = self.convolution
        memset(&args, 0, sizeof(args))
        self.check(x, dy, which)
        if any(dy.border):
            raise ValueError("dy: expected images without a border")
        args.conv = of.shape
        args.conv.n, args.conv.out_height, args.conv.out_width = x.n, dy.height, dy.width
        args.conv.y, args.conv.y_data = dy.layout, dy.data
        args.conv.x.channels = x.channels
        args.conv.is_float = x.is_float
        args.area, args.columns = self.size[0] * self.size[1], self.size[1]
        args.sy, args.sx = self.stride
        args.top, args.left = of.padding[0], of.padding[2]
        args.height, args.width = x.height, x.width
        args.padded_height = x.height + of.padding[0] + of.padding[1]
        args.padded_width = x.width + of.padding[2] + of.padding[3]
        args.which = &which[0]
        if not self.counts(x.height, x.width):
            raise ValueError("images: elements are counted in 32 bits")
        return args

    cdef seen_args bind_seen(self, Images x, uint8_t[:, ::1] seen):
        cdef seen_args args
        cdef conv_args* shape = &self.convolution.shape
        memset(&args, 0, sizeof(args))
        height, width = self.outputs(*self.convolution.output_size(x.height, x.width))
        args.out_height, args.out_width = height, width
        args.sy, args.sx = self.stride[0] * shape.sy, self.stride[1] * shape.sx
        args.rows = (self.size[0] - 1) * shape.sy + (shape.kh - 1) * shape.dy + 1
        args.columns = (self.size[1] - 1) * shape.sx + (shape.kw - 1) * shape.dx + 1
        args.x, args.data = padded_layout(x, self.convolution.padding), x.data
        args.is_float = x.is_float
        if seen is not None:
            expect(x.channels == 1 and (seen.shape[0], seen.shape[1]) == (x.n, height * width),
                   "x, seen")
            args.seen = &seen[0, 0]
        return args

    def find_seen(self, Images x, uint8_t[:, ::1] seen):
        """Task over images of one channel: seen[N, OH OW], see _seen.pyx."""
        cdef seen_args args = self.bind_seen(x, seen)
        return new_task(seen_kernel, &args, sizeof(args), x.n, 1, images_at_once(x, x),
                        x.height * x.width, (x, seen.base))

    def weight_gradient(self, Images x, Images dy, const uint8_t[::1] which, real[:, ::1] partial,
                        uint8_t[:, ::1] seen=None):
        """Task over images, whole partial sums (see Convolution.sums): gradients of W and b, which
        Convolution.reduce joins `by_filters`.

        seen : as `find_seen` has left it; else it is found here.
        """
        cdef pooled_args args = self.bind(x, dy, which)
        per_sum, n_sums, size = self.convolution.sums(x.n)
        if (partial.shape[0], partial.shape[1]) != (n_sums, size):
            raise ValueError(f"partial: expected shape {(n_sums, size)}")
        if x.is_float != (sizeof(real) == sizeof(float)):
            raise TypeError("partial: expected the images' dtype")
        args.conv.x, args.conv.x_data = padded_layout(x, self.convolution.padding), x.data
        args.padded_width = args.conv.x.row // args.conv.x.channels
        args.seen = self.bind_seen(x, seen)
        args.conv.partial, args.conv.partial_size = &partial[0, 0], size
        args.conv.images_per_sum = per_sum
        return new_task(weight_gradient_kernel, &args, sizeof(args), x.n, per_sum,
                        images_at_once(x, dy), self.convolution.work(args.conv),
                        (x, dy, which.base, partial.base, None if seen is None else seen.base))

    def pack(self, const real[:, :, :, ::1] W, real[::1] packed):
        """Task over filters: W[F, C, KH, KW] as `input_gradient` reads it, in as many elements."""
        cdef conv_args args = self.convolution.shape
        self.convolution.check_weights(W.shape[0], W.shape[1], W.shape[2], W.shape[3])
        if packed.shape[0] < W.shape[0] * elements(&args):
            raise ValueError("packed is too small")
        args.x_data, args.y_data = &W[0, 0, 0, 0], &packed[0]
        args.is_float = sizeof(real) == sizeof(float)
        return new_task(pack_kernel, &args, sizeof(args), W.shape[0], 1, 8, 2 * elements(&args),
                        (W.base, packed.base))

    def input_gradient(self, Images dy, const uint8_t[::1] which, real[::1] packed, Images dx,
                       Images previous=None, int activation=0, double slope=0.0):
        """Task over images: dx = gradient by x, through f'(x) where `previous` is x = f(...)."""
        cdef pooled_args args = self.bind(dx, dy, which)
        if packed.shape[0] < self.convolution.filters * elements(&args.conv):
            raise ValueError("packed is too small")
        if dx.is_float != (sizeof(real) == sizeof(float)):
            raise TypeError("packed: expected the images' dtype")
        through_activation(&args.conv, dx, previous, activation, slope)
        args.conv.weights = &packed[0]
        args.out, args.dx = dx.layout, dx.data
        return new_task(input_gradient_kernel, &args, sizeof(args), dx.n, 1,
                        images_at_once(dy, dx), self.convolution.work(args.conv),
                        (dy, which.base, packed.base, dx, previous))
