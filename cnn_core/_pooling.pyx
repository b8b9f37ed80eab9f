"""Pooling of images with the channels innermost.

    max        y[n, oy, ox, c] = max over the window of x[n, iy, ix, c]
    average    y[n, oy, ox, c] = mean over the window

The window of output (oy, ox) begins at (oy sy - top, ox sx - left). Only windows that begin and end
inside the padded image are taken (a rest at the right or the bottom is left out); of a window, only
the pixels of the image itself count, so padding is never a maximum and not part of a mean. Of equal
values the first is the maximum; the first NaN is larger than all.

Saito, Deep Learning from Scratch, section 7.3.
"""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cnn_core._images cimport Images, Layout, pixel
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport activate_backward, add_scaled, max_taps, scatter_taps
from cnn_core._types cimport real

cdef enum:
    MOST_IMAGES = 8


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
    Layout previous
    void* x_data
    void* y_data
    const void* previous_data
    int activation
    double slope
    int32_t* which        # [N, OH, OW, C]: number of the tap that was the maximum
    bint is_average
    bint is_float


cdef struct Window:
    Py_ssize_t taps
    Py_ssize_t first          # offset of the window's first pixel from the image's
    bint whole                # whether the tables hold all taps already
    Py_ssize_t* at            # offsets of the taps from the window's first pixel
    int32_t* numbers


cdef void find_window(const pool_args* a, Py_ssize_t oy, Py_ssize_t ox,
                      Window* window) noexcept nogil:
    """The taps of a window that lie in the image; nearly all windows have all of them."""
    cdef Py_ssize_t count = 0, r, s, y = oy * a.sy - a.top, x = ox * a.sx - a.left
    cdef bint whole = (y >= 0 and x >= 0 and y + a.kh <= a.height and x + a.kw <= a.width)
    window.first = y * a.x.row + x * a.x.channels
    if whole and window.whole:
        return
    for r in range(a.kh):
        for s in range(a.kw):
            if 0 <= y + r < a.height and 0 <= x + s < a.width:
                window.at[count] = r * a.x.row + s * a.x.channels
                window.numbers[count] = <int32_t>(r * a.kw + s)
                count += 1
    window.taps = count
    window.whole = whole


cdef void forward_images(const pool_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                         real* y, Window* window) noexcept nogil:
    cdef Py_ssize_t n, oy, ox, t, c = a.x.channels
    cdef const real* source
    cdef real* out
    cdef int32_t* which = NULL
    for n in range(begin, end):
        source = pixel(x, &a.x, n, 0, 0)
        for oy in range(a.out_height):
            for ox in range(a.out_width):
                out = <real*>pixel(y, &a.y, n, oy, ox)
                find_window(a, oy, ox, window)
                if a.is_average:
                    memset(out, 0, c * sizeof(real))
                    for t in range(window.taps):
                        add_scaled(c, out, 1.0 / window.taps,
                                   source + window.first + window.at[t], out)
                    continue
                if a.which != NULL:
                    which = a.which + ((n * a.out_height + oy) * a.out_width + ox) * c
                max_taps(c, window.taps, source + window.first, window.at, window.numbers, out,
                         which)


cdef void backward_images(const pool_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dy,
                          const real* previous, real* dx, Window* window) noexcept nogil:
    cdef Py_ssize_t n, oy, ox, t, c = a.x.channels
    cdef const real* gradient
    cdef const int32_t* which
    cdef real* image
    cdef real* to
    for n in range(begin, end):
        image = <real*>pixel(dx, &a.x, n, 0, 0)
        for oy in range(a.height):
            memset(image + oy * a.x.row, 0, a.width * c * sizeof(real))
        for oy in range(a.out_height):
            for ox in range(a.out_width):
                gradient = pixel(dy, &a.y, n, oy, ox)
                find_window(a, oy, ox, window)
                if a.is_average:
                    for t in range(window.taps):
                        to = image + window.first + window.at[t]
                        add_scaled(c, to, 1.0 / window.taps, gradient, to)
                    continue
                which = a.which + ((n * a.out_height + oy) * a.out_width + ox) * c
                scatter_taps(c, window.taps, window.at, window.numbers, which, gradient,
                             image + window.first)
        if previous != NULL:
            for oy in range(a.height):
                activate_backward(a.activation, a.slope, a.width * c,
                                  pixel(previous, &a.previous, n, oy, 0), image + oy * a.x.row,
                                  image + oy * a.x.row)


cdef void run_images(const pool_args* a, Py_ssize_t begin, Py_ssize_t end,
                     bint backward) noexcept nogil:
    cdef Window window
    window.at = <Py_ssize_t*>malloc(a.kh * a.kw * (sizeof(Py_ssize_t) + sizeof(int32_t)))
    window.numbers = <int32_t*>(window.at + a.kh * a.kw)
    window.whole = False
    if window.at == NULL:
        return
    if a.is_float and backward:
        backward_images(a, begin, end, <const float*>a.y_data, <const float*>a.previous_data,
                        <float*>a.x_data, &window)
    elif a.is_float:
        forward_images(a, begin, end, <const float*>a.x_data, <float*>a.y_data, &window)
    elif backward:
        backward_images(a, begin, end, <const double*>a.y_data, <const double*>a.previous_data,
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


def forward(Images x, Images y, int32_t[::1] which, size, stride, padding, bint average):
    """Task over images. which: [N OH OW C] for the backward pass of the maximum, or None."""
    cdef pool_args args = bind(x, y, size, stride, padding, average)
    if which is not None:
        if which.shape[0] < y.n * y.height * y.width * y.channels:
            raise ValueError("which is too small")
        args.which = &which[0]
    return new_task(forward_kernel, &args, sizeof(args), x.n, 1, MOST_IMAGES,
                    2 * y.height * y.width * y.channels * args.kh * args.kw,
                    (x, y, None if which is None else which.base))


def backward(Images dy, Images dx, int32_t[::1] which, size, stride, padding, bint average,
             Images previous=None, int activation=0, double slope=0.0):
    """Task over images: dx, through f'(x) where `previous` is x = f(...)."""
    cdef pool_args args = bind(dx, dy, size, stride, padding, average)
    if not average:
        if which is None or which.shape[0] < dy.n * dy.height * dy.width * dy.channels:
            raise ValueError("which is too small")
        args.which = &which[0]
    if previous is not None:
        if previous.shape != dx.shape or previous.is_float != dx.is_float:
            raise ValueError("previous: expected the shape and dtype of dx")
        args.previous, args.previous_data = previous.layout, previous.data
        args.activation, args.slope = activation, slope
    return new_task(backward_kernel, &args, sizeof(args), dx.n, 1, MOST_IMAGES,
                    4 * dx.height * dx.width * dx.channels,
                    (dy, dx, None if which is None else which.base, previous))
