"""Images with the channels innermost and a border, and the ways in and out.

    Images     [N, top + H + bottom, left + W + right, C], the border zero and never written
    NCHW       [N, C, H, W], the layout at the interface

The border is a convolution's padding, so that its loops have no edges. The buffer is longer than
the images by as much as a micro-kernel may read past the last of them.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cnn_core._gemm cimport fetch_rows
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport activate, activate_backward, transpose
from cnn_core._types cimport real

cdef enum:
    SLACK = 64     # elements: the widest panel of the matrix product
    RUN = 2048     # elements that stay in the nearest cache between two passes


cdef class Images:
    """n images of height x width x channels with a border (top, bottom, left, right).

    buffer: a flat array of zeros, `buffer_size` elements; without the slack it may be a view of
    rows [N, C], for kernels that read no further than the last element.
    """

    def __cinit__(self, Py_ssize_t n, Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels,
                  border, buffer):
        cdef Py_ssize_t top, bottom, left, right
        cdef const float[::1] f32    # a kernel's input may be read-only
        cdef const double[::1] f64
        top, bottom, left, right = border
        if min(n, height, width, channels) < 1 or min(border) < 0:
            raise ValueError("Images: expected positive sizes and a border of at least 0")
        self.n, self.height, self.width, self.channels = n, height, width, channels
        self.border = tuple(border)
        self.layout.channels = channels
        self.layout.row = (left + width + right) * channels
        self.layout.image = (top + height + bottom) * self.layout.row
        self.layout.offset = top * self.layout.row + left * channels
        self.buffer = buffer
        self.is_float = buffer.dtype.itemsize == sizeof(float)
        if buffer.shape[0] < n * self.layout.image:
            raise ValueError("buffer is too small")
        if self.is_float:
            f32 = self.buffer
            self.data = <void*>&f32[0]
        else:
            f64 = self.buffer
            self.data = <void*>&f64[0]

    def __len__(self):
        return self.n

    @property
    def shape(self):
        """(N, C, H, W)"""
        return self.n, self.channels, self.height, self.width

    @property
    def place(self):
        """Whose, address of the first image, bytes of an image, how many: for `Program`."""
        item = sizeof(float) if self.is_float else sizeof(double)
        return self, <size_t>self.data, self.layout.image * item, self.n

    @property
    def dtype(self):
        return self.buffer.dtype

    @property
    def array(self):
        """The images proper as an array [N, H, W, C]: a view."""
        top, bottom, left, right = self.border
        whole = self.buffer[:self.n * self.layout.image].reshape(
            self.n, top + self.height + bottom, left + self.width + right, self.channels)
        return whole[:, top:top + self.height, left:left + self.width]


def buffer_size(Py_ssize_t n, Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels, border):
    """Elements of the buffer behind such images."""
    top, bottom, left, right = border
    return n * (top + height + bottom) * (left + width + right) * channels + SLACK


cdef struct convert_args:
    Layout at
    Layout previous              # of the activation whose derivative is taken
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t run               # pixels at once
    const void* source
    const int64_t* place         # the address of the rows that count instead, or 0; may be NULL
    const void* previous_data    # may be NULL
    void* out
    int activation
    double slope
    bint is_float


cdef inline void read_nchw(const convert_args* a, Py_ssize_t begin, Py_ssize_t end,
                           const real* source, const real* previous, real* out) noexcept nogil:
    cdef Py_ssize_t n, p, y, count, channels = a.at.channels, plane = a.height * a.width
    cdef real* to
    cdef bint from_afar = a.place != NULL and a.place[0] != 0
    if from_afar:
        source = <const real*><size_t>a.place[0]
    source += begin * channels * plane
    for n in range(begin, end):
        p = 0
        while p < plane:
            count = min(a.run, plane - p)
            y = p // a.width
            to = <real*>pixel(out, &a.at, n, y, p - y * a.width)
            if from_afar:    # images behind it are fetched in time
                fetch_rows(channels, count, source + MOST_IMAGES * channels * plane + p, plane)
            if channels == 1:
                memcpy(to, source + p, count * sizeof(real))
            else:
                transpose(channels, count, source + p, plane, to, channels)
            if previous != NULL:
                activate_backward(a.activation, a.slope, count * channels,
                                  pixel(previous, &a.previous, n, y, p - y * a.width), to, to)
            p += count
        source += channels * plane


cdef inline void write_nchw(const convert_args* a, Py_ssize_t begin, Py_ssize_t end,
                            const real* source, real* out) noexcept nogil:
    cdef Py_ssize_t n, y, channels = a.at.channels, plane = a.height * a.width
    for n in range(begin, end):
        if a.at.row == a.width * channels:
            transpose(plane, channels, pixel(source, &a.at, n, 0, 0), channels,
                      out + n * channels * plane, plane)
            continue
        for y in range(a.height):
            transpose(a.width, channels, pixel(source, &a.at, n, y, 0), channels,
                      out + n * channels * plane + y * a.width, plane)


cdef void read_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const convert_args* a = <const convert_args*>args
    if a.is_float:
        read_nchw(a, begin, end, <const float*>a.source, <const float*>a.previous_data,
                  <float*>a.out)
    else:
        read_nchw(a, begin, end, <const double*>a.source, <const double*>a.previous_data,
                  <double*>a.out)


cdef void write_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const convert_args* a = <const convert_args*>args
    if a.is_float:
        write_nchw(a, begin, end, <const float*>a.source, <float*>a.out)
    else:
        write_nchw(a, begin, end, <const double*>a.source, <double*>a.out)


cdef convert_args convert(Images images):
    cdef convert_args args
    memset(&args, 0, sizeof(args))
    args.at = images.layout
    args.height = images.height
    args.width = images.width
    args.is_float = images.is_float
    return args


cdef check_rows(Images images, Py_ssize_t rows, Py_ssize_t size, bint is_float):
    cdef Py_ssize_t elements = images.channels * images.height * images.width
    if rows != images.n or size != elements:
        raise ValueError("rows: expected as many elements as the images have")
    if is_float != images.is_float:
        raise TypeError("rows: expected the images' dtype")


def from_rows(const real[:, ::1] rows, Images images, Images previous=None, int activation=0,
              double slope=0.0, const int64_t[::1] place=None):
    """Task over images: from rows [N, C H W] in the order of NCHW; through f'(x) where `previous`
    is f(x).

    place : unless place[0] is 0, the rows at this address are read when the task runs, not `rows`;
        the caller sees to it that they are there, of the same shape and dtype.
    """
    cdef convert_args args = convert(images)
    cdef Py_ssize_t dense = images.width * images.channels
    check_rows(images, rows.shape[0], rows.shape[1], sizeof(real) == sizeof(float))
    args.source = &rows[0, 0]
    if place is not None:
        if place.shape[0] != 1:
            raise ValueError("place: expected one address")
        args.place = &place[0]
    args.out = images.data
    args.run = images.width
    if previous is not None:
        if previous.shape != images.shape or previous.is_float != images.is_float:
            raise ValueError("previous: expected the shape and dtype of images")
        args.previous, args.previous_data = previous.layout, previous.data
        args.activation, args.slope = activation, slope
        if args.at.row == dense and args.previous.row == dense:
            args.run = max(RUN // images.channels, 1)
    elif args.at.row == dense:
        args.run *= images.height
    return new_task(read_kernel, &args, sizeof(args), images.n, 1, images_at_once(images, images),
                    rows.shape[1],
                    (rows.base, images, previous, None if place is None else place.base))


def to_rows(Images images, real[:, ::1] rows):
    """Task over images: to rows [N, C H W] in the order of NCHW."""
    cdef convert_args args = convert(images)
    check_rows(images, rows.shape[0], rows.shape[1], sizeof(real) == sizeof(float))
    args.source = images.data
    args.out = &rows[0, 0]
    return new_task(write_kernel, &args, sizeof(args), images.n, 1, images_at_once(images, images),
                    rows.shape[1], (rows.base, images))


cdef struct elementwise_args:
    Layout x               # input, or dout
    Layout y
    Layout out
    Py_ssize_t height
    Py_ssize_t row         # elements of a row of pixels
    const void* x_data
    const void* y_data
    void* out_data
    int activation
    double slope
    bint is_float


cdef inline void activate_images(const elementwise_args* a, Py_ssize_t begin, Py_ssize_t end,
                                 const real* x, real* out) noexcept nogil:
    cdef Py_ssize_t n, y
    for n in range(begin, end):
        for y in range(a.height):
            activate(a.activation, a.slope, a.row, pixel(x, &a.x, n, y, 0),
                     <real*>pixel(out, &a.out, n, y, 0))


cdef inline void activate_images_backward(
    const elementwise_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dout, const real* y,
    real* out,
) noexcept nogil:
    cdef Py_ssize_t n, row
    for n in range(begin, end):
        for row in range(a.height):
            activate_backward(a.activation, a.slope, a.row, pixel(y, &a.y, n, row, 0),
                              pixel(dout, &a.x, n, row, 0),
                              <real*>pixel(out, &a.out, n, row, 0))


cdef void activate_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const elementwise_args* a = <const elementwise_args*>args
    if a.is_float:
        activate_images(a, begin, end, <const float*>a.x_data, <float*>a.out_data)
    else:
        activate_images(a, begin, end, <const double*>a.x_data, <double*>a.out_data)


cdef void activate_backward_kernel(const void* args, Py_ssize_t begin,
                                   Py_ssize_t end) noexcept nogil:
    cdef const elementwise_args* a = <const elementwise_args*>args
    if a.is_float:
        activate_images_backward(a, begin, end, <const float*>a.x_data, <const float*>a.y_data,
                                 <float*>a.out_data)
    else:
        activate_images_backward(a, begin, end, <const double*>a.x_data, <const double*>a.y_data,
                                 <double*>a.out_data)


cdef elementwise_args elementwise(Images x, Images out, int activation, double slope):
    cdef elementwise_args args
    memset(&args, 0, sizeof(args))
    if x.shape != out.shape or x.is_float != out.is_float:
        raise ValueError("images: expected the same shapes and dtypes")
    args.x, args.out = x.layout, out.layout
    args.height = x.height
    args.row = x.width * x.channels
    args.x_data, args.out_data = x.data, out.data
    args.activation = activation
    args.slope = slope
    args.is_float = x.is_float
    return args


def activation_forward(Images x, Images y, int activation, double slope):
    """Task over images: y = f(x)."""
    cdef elementwise_args args = elementwise(x, y, activation, slope)
    return new_task(activate_kernel, &args, sizeof(args), x.n, 1, images_at_once(x, y),
                    30 * args.row * args.height, (x, y))


def activation_backward(Images y, Images dout, Images dx, int activation, double slope):
    """Task over images: dx = dout f'(x) from y = f(x); dx may be dout."""
    cdef elementwise_args args = elementwise(dout, dx, activation, slope)
    if y.shape != dx.shape or y.is_float != dx.is_float:
        raise ValueError("images: expected the same shapes and dtypes")
    args.y = y.layout
    args.y_data = y.data
    return new_task(activate_backward_kernel, &args, sizeof(args), dout.n, 1,
                    images_at_once(dout, dx), 2 * args.row * args.height, (y, dout, dx))
