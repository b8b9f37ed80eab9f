"""Pooling of images with the channels innermost.

    max        y[n, oy, ox, c] = max over the window of x[n, iy, ix, c]
    average    y[n, oy, ox, c] = mean over the window

The window of output (oy, ox) begins at (oy sy - top, ox sx - left). Only windows that begin and end
inside the padded image are taken (a rest at the right or the bottom is left out); of a window, only
the pixels of the image itself count, so padding is never a maximum and not part of a mean. Of equal
values the first is the maximum; the first NaN is larger than all.

Saito, Deep Learning from Scratch, section 7.3.
"""

import numpy as np

from libc.math cimport INFINITY
from libc.stdint cimport INT32_MAX, UINT8_MAX, int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cnn_core._images cimport Images, Layout, fill_nan, images_at_once, pixel
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport activate_backward, add_scaled
from cnn_core._simd_images cimport max_taps, scatter_taps
from cnn_core._types cimport real


cdef struct pool_args:
    Py_ssize_t kh
    Py_ssize_t kw
    Py_ssize_t sy
    Py_ssize_t sx
    Py_ssize_t top
    Py_ssize_t left
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t out_height
    Py_ssize_t out_width
    Layout x
    Layout y
    Layout values
    void* x_data
    void* y_data
    const void* values_data      # of the activation before: x, or y where is_apart
    int activation
    double slope
    char* which          # [N, OH, OW, C]: number of the tap that was the maximum,
    int bytes            # of so many bytes
    bint is_average
    bint is_relu                 # y passes through a ReLU
    bint is_apart                # maxima of windows that do not overlap and lie in the image
    bint covers                  # and leave no pixel out
    bint is_float


cdef struct Window:
    Py_ssize_t taps
    Py_ssize_t first          # offset of the window's first pixel from the image's
    bint whole                # whether the tables hold all taps
    Py_ssize_t* at            # offsets of the taps from the window's first pixel
    int32_t* numbers
    void* row                 # room for one row of y


cdef inline void find_taps(const pool_args* a, Py_ssize_t y, Py_ssize_t x,
                           Window* window) noexcept nogil:
    """The taps of the window at pixel (y, x) that lie in the image."""
    cdef Py_ssize_t count = 0, r, s
    for r in range(max(-y, 0), min(a.kh, a.height - y)):
        for s in range(max(-x, 0), min(a.kw, a.width - x)):
            window.at[count] = r * a.x.row + s * a.x.channels
            window.numbers[count] = <int32_t>(r * a.kw + s)
            count += 1
    window.taps = count


cdef Py_ssize_t next_windows(const pool_args* a, Py_ssize_t oy, Py_ssize_t ox,
                             Window* window) noexcept nogil:
    """The windows from (oy, ox) on that have the same taps: a run of whole ones, or one at the
    edge."""
    cdef Py_ssize_t y = oy * a.sy - a.top, x = ox * a.sx - a.left
    cdef bint whole = y >= 0 and y + a.kh <= a.height and x >= 0 and x + a.kw <= a.width
    window.first = y * a.x.row + x * a.x.channels
    if not whole or not window.whole:
        find_taps(a, y, x, window)
    window.whole = whole
    return min(a.out_width - ox, (a.width - a.kw - x) // a.sx + 1) if whole else 1


cdef void forward_row(const pool_args* a, Py_ssize_t oy, const real* source, real* out,
                      char* which, Window* window) noexcept nogil:
    cdef Py_ssize_t ox = 0, run, w, t, c = a.x.channels, step = a.sx * a.x.channels
    while ox < a.out_width:
        run = next_windows(a, oy, ox, window)
        if a.is_average:
            memset(out, 0, run * c * sizeof(real))
            for w in range(run):
                for t in range(window.taps):
                    add_scaled(c, out + w * c, 1.0 / window.taps,
                               source + window.first + w * step + window.at[t], out + w * c)
        else:
            max_taps(run, step, c, window.taps, source + window.first, window.at, window.numbers,
                     0 if a.is_relu else -INFINITY, out, which, a.bytes)
        ox += run
        out += run * c
        if which != NULL:
            which += run * c * a.bytes


cdef void forward_images(const pool_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                         real* y, Window* window) noexcept nogil:
    cdef Py_ssize_t n, oy, row = a.out_width * a.x.channels
    cdef char* which = NULL
    for n in range(begin, end):
        for oy in range(a.out_height):
            if a.which != NULL:
                which = a.which + (n * a.out_height + oy) * row * a.bytes
            forward_row(a, oy, pixel(x, &a.x, n, 0, 0), <real*>pixel(y, &a.y, n, oy, 0), which,
                        window)


cdef void backward_row(const pool_args* a, Py_ssize_t oy, const real* dy, const char* which,
                       real* image, Window* window) noexcept nogil:
    cdef Py_ssize_t ox = 0, run, w, t, c = a.x.channels, step = a.sx * a.x.channels
    cdef real* to
    while ox < a.out_width:
        run = next_windows(a, oy, ox, window)
        if a.is_average:
            for w in range(run):
                for t in range(window.taps):
                    to = image + window.first + w * step + window.at[t]
                    add_scaled(c, to, 1.0 / window.taps, dy + w * c, to)
        else:
            scatter_taps(not a.is_apart, run, step, c, window.taps, window.at, window.numbers,
                         which, a.bytes, dy, image + window.first)
            which += run * c * a.bytes
        ox += run
        dy += run * c


cdef void backward_images(const pool_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dy,
                          const real* values, real* dx, Window* window) noexcept nogil:
    """dx from dy; `values` is y where a.is_apart, else x."""
    cdef Py_ssize_t n, oy, c = a.x.channels, row = a.out_width * a.x.channels
    cdef const char* which = NULL
    cdef const real* gradient
    cdef real* image
    cdef real* scratch = <real*>window.row
    for n in range(begin, end):
        image = <real*>pixel(dx, &a.x, n, 0, 0)
        for oy in range(a.height):
            if not a.covers:
                memset(image + oy * a.x.row, 0, a.width * c * sizeof(real))
        for oy in range(a.out_height):
            gradient = pixel(dy, &a.y, n, oy, 0)
            if a.which != NULL:
                which = a.which + (n * a.out_height + oy) * row * a.bytes
            if a.is_apart and values != NULL:
                activate_backward(a.activation, a.slope, row,
                                  pixel(values, &a.values, n, oy, 0), gradient, scratch)
                gradient = scratch
            backward_row(a, oy, gradient, which, image, window)
        if values != NULL and not a.is_apart:
            for oy in range(a.height):
                activate_backward(a.activation, a.slope, a.width * c,
                                  pixel(values, &a.values, n, oy, 0), image + oy * a.x.row,
                                  image + oy * a.x.row)


cdef void run_images(const pool_args* a, Py_ssize_t begin, Py_ssize_t end,
                     bint backward) noexcept nogil:
    cdef Window window
    cdef Py_ssize_t area = min(a.kh, a.height) * min(a.kw, a.width)    # of the image's pixels
    window.at = <Py_ssize_t*>malloc(
        area * (sizeof(Py_ssize_t) + sizeof(int32_t))
        + a.out_width * a.x.channels * (sizeof(float) if a.is_float else sizeof(double))
        + sizeof(double)
    )
    if window.at == NULL:    # no memory: NaN is seen, a wrong number is not
        fill_nan(&a.x if backward else &a.y, a.height if backward else a.out_height,
                 a.width if backward else a.out_width, begin, end,
                 <char*>(a.x_data if backward else a.y_data),
                 sizeof(float) if a.is_float else sizeof(double))
        return
    window.numbers = <int32_t*>(window.at + area)
    window.row = <char*>(window.numbers + area + area % 2)
    window.whole = False
    if a.is_float and backward:
        backward_images(a, begin, end, <const float*>a.y_data, <const float*>a.values_data,
                        <float*>a.x_data, &window)
    elif a.is_float:
        forward_images(a, begin, end, <const float*>a.x_data, <float*>a.y_data, &window)
    elif backward:
        backward_images(a, begin, end, <const double*>a.y_data, <const double*>a.values_data,
                        <double*>a.x_data, &window)
    else:
        forward_images(a, begin, end, <const double*>a.x_data, <double*>a.y_data, &window)
    free(window.at)


cdef void forward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    run_images(<const pool_args*>args, begin, end, False)


cdef void backward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    run_images(<const pool_args*>args, begin, end, True)


def output_size(Py_ssize_t height, Py_ssize_t width, size, stride, padding):
    """(OH, OW), not positive where the window does not fit; padding (top, bottom, left, right)."""
    top, bottom, left, right = padding
    return ((height + top + bottom - size[0]) // stride[0] + 1,
            (width + left + right - size[1]) // stride[1] + 1)


cdef pool_args bind(Images x, Images y, size, stride, padding, bint average):
    cdef pool_args args
    memset(&args, 0, sizeof(args))
    if (y.height, y.width) != output_size(x.height, x.width, size, stride, padding):
        raise ValueError("images: sizes do not fit")
    if x.n != y.n or x.channels != y.channels or x.is_float != y.is_float:
        raise ValueError("images: expected one number, dtype and number of channels")
    # A window of padding only has no maximum.
    if 2 * max(padding[:2]) > size[0] or 2 * max(padding[2:]) > size[1]:
        raise ValueError("padding: expected at most half of the window")
    if not average and size[0] * size[1] > INT32_MAX:
        raise ValueError("size: a window's pixels are counted in 32 bits")
    args.kh, args.kw = size
    args.sy, args.sx = stride
    args.top, args.left = padding[0], padding[2]
    args.height, args.width = x.height, x.width
    args.out_height, args.out_width = y.height, y.width
    args.x, args.y = x.layout, y.layout
    args.x_data, args.y_data = x.data, y.data
    args.is_average = average
    args.is_float = x.is_float
    return args


cdef numbers(pool_args* args, which, Images y):
    """Note the address of [N OH OW C] numbers, of one byte where that is enough for the window."""
    cdef uint8_t[::1] small
    cdef int32_t[::1] large
    if which is None:
        raise ValueError("which: expected numbers, got None")
    if which.dtype == np.uint8 and args.kh * args.kw <= UINT8_MAX + 1:
        small = which
        args.which, args.bytes = <char*>&small[0], 1
    else:
        large = which
        args.which, args.bytes = <char*>&large[0], sizeof(int32_t)
    if which.shape[0] < y.n * y.height * y.width * y.channels:
        raise ValueError("which is too small")


def forward(Images x, Images y, which, size, stride, padding, bint average, bint relu=False):
    """Task over images. which: [N OH OW C] of uint8, for windows of up to 256 pixels, or int32, for
    the backward pass of the maximum, or None.

    relu : whether the maximum passes through a ReLU, as that of such outputs would be.
    """
    cdef pool_args args = bind(x, y, size, stride, padding, average)
    if which is not None:
        numbers(&args, which, y)
    args.is_relu = relu
    return new_task(forward_kernel, &args, sizeof(args), x.n, 1, images_at_once(x, y),
                    2.0 * y.height * y.width * y.channels * min(args.kh, args.height)
                    * min(args.kw, args.width), (x, y, which))


def apart(size, stride, padding, bint average):
    """Whether `backward` takes y, not x, for the derivative of the activation before.

    Where windows of a maximum lie apart, a pixel's gradient is that of one y, or 0; and y has the
    value of the pixel that the gradient goes to.
    """
    return not average and not any(padding) and stride[0] >= size[0] and stride[1] >= size[1]


def backward(Images dy, Images dx, which, size, stride, padding, bint average,
             Images values=None, int activation=0, double slope=0.0):
    """Task over images: dx, through f' where x = f(...); `values` is x, or y where `apart`."""
    cdef pool_args args = bind(dx, dy, size, stride, padding, average)
    if not average:
        numbers(&args, which, dy)
    args.is_apart = apart(size, stride, padding, average)
    args.covers = (args.is_apart and (args.sy, args.sx) == (args.kh, args.kw)
                   and dx.height == dy.height * args.kh and dx.width == dy.width * args.kw)
    if values is not None:
        if values.shape != (dy if args.is_apart else dx).shape or values.is_float != dx.is_float:
            raise ValueError("values: expected the shape and dtype of x, or of y where apart")
        args.values, args.values_data = values.layout, values.data
        args.activation, args.slope = activation, slope
    return new_task(backward_kernel, &args, sizeof(args), dx.n, 1, images_at_once(dy, dx),
                    4.0 * dx.height * dx.width * dx.channels,
                    (dy, dx, which, values))
