"""The maxima of a convolution of one channel with few filters over 2 x 2 pixels, 2 apart; the
gradient of W from those of such maxima, with the filters in the lanes.

    y[oy, ox, f] = max over p, q < 2 of act(b[f] + sum over r, s of
                                            x[2 oy + p + r, 2 ox + q + s] W[f, r, s])

Few filters would fill a part of a vector; here the windows of a row fill it. Of each row of x the
even and the odd columns are taken apart: from them the pixels that the same pixel of all windows
sees are loaded at once. The four sums of a window stay in registers for some filters at a time.
Rows of x that are 0 are left out, and of each row the windows on both sides that see nothing but
zeros: theirs is act(b). Terms are added in the order of _conv2d.pyx: the maxima are those of its
sums, to the last bit, unless W holds infinite numbers or NaN, or they are sums of -0.

Saito, Deep Learning from Scratch, sections 7.2 and 7.3.
"""

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free

from cnn_core._conv2d_spans cimport Windows, convolve_spans, takes_spans
from cnn_core._conv2d_shape cimport conv_args
from cnn_core._gemm cimport fetch_rows
from cnn_core._images cimport MOST_IMAGES, fill_nan, pixel
from cnn_core._simd cimport ACTIVATION_NONE, ACTIVATION_RELU, lanes, least_lanes, transpose
from cnn_core._simd_images cimport (
    has_window_gradients, interleave, max_windows, split, window_gradients,
)
from cnn_core._types cimport real, round_up


cdef struct Room:
    void* columns        # of the rows of x: the even ones, then the odd ones; to be freed
    int32_t* seen        # of each row of x, as `split` has it
    Py_ssize_t rows      # of x
    Py_ssize_t width     # of x
    Py_ssize_t odd       # from the even columns to the odd ones


cdef bint takes_windows(const conv_args* a, const Windows* windows,
                        const real* like) noexcept nogil:
    """Whether that is faster than the spans of _conv2d_spans.pyx; the bits are the same."""
    cdef Py_ssize_t width = windows.out_width
    return (takes_spans(a) and windows.height == windows.width == windows.sy == windows.sx == 2
            and (a.activation == ACTIVATION_NONE or a.activation == ACTIVATION_RELU)
            and a.outer <= least_lanes(like) and 4 * width >= 3 * round_up(width, lanes(like)))


cdef bint find_room(const conv_args* a, const Windows* windows, const real* like,
                    Room* room) noexcept nogil:
    """False without memory."""
    cdef Py_ssize_t columns, size, width = round_up(windows.out_width, lanes(like))
    room.rows, room.width = a.out_height + a.kh - 1, a.out_width + a.kw - 1
    room.odd = round_up(max(width + a.kw // 2 + 1, (room.width + 1) // 2), lanes(like))
    columns = 2 * room.rows * room.odd
    size = columns * sizeof(real) + 2 * room.rows * sizeof(int32_t)
    room.columns = calloc(1, size)    # zeros: behind a row, too, vectors are read
    room.seen = <int32_t*>(<real*>room.columns + columns)
    return room.columns != NULL


cdef inline void split_image(const Rows* rows, const real* x, const Room* room) noexcept nogil:
    """An image without its border, amid the zeros that stand in `columns`."""
    cdef real* even = <real*>room.columns + 2 * rows.top * room.odd + rows.left // 2
    cdef real* odd = even + room.odd
    if rows.left % 2:
        even, odd = odd, even + 1
    split(rows.height, rows.width, x, rows.width, even, odd, 2 * room.odd, rows.left,
          room.seen + 2 * rows.top)


cdef inline void convolve_image(const conv_args* a, const Windows* windows, const real* weights,
                                const real* b, real* y, uint8_t* which,
                                const Room* room) noexcept nogil:
    """The maxima of one image, which has been split."""
    max_windows(a.outer, windows.out_height, windows.out_width, a.kh, a.kw, <real*>room.columns,
                2 * room.odd, room.odd, room.seen, weights, b, a.activation == ACTIVATION_RELU, y,
                a.y.row, which)


cdef bint convolve_windows(const conv_args* a, const Windows* windows, const Rows* rows,
                           Py_ssize_t begin, Py_ssize_t end, const real* x, const real* weights,
                           const real* b, real* y) noexcept nogil:
    """Images begin..end, as above or by spans; false, and nothing done, without memory.

    rows : where not NULL, x are rows without borders, of a convolution that `takes_windows`.
    """
    cdef Py_ssize_t n, size = windows.out_height * windows.out_width * a.outer, plane
    cdef Room room
    if not takes_windows(a, windows, x):
        return convolve_spans(a, windows, begin * a.out_height, end * a.out_height, x, weights,
                              b, y)
    if not find_room(a, windows, x, &room):
        return False
    if rows != NULL and rows.place[0] != 0:
        x = <const real*><size_t>rows.place[0]
    for n in range(begin, end):
        if rows == NULL:
            split(room.rows, room.width, pixel(x, &a.x, n, 0, 0), a.x.row, <real*>room.columns,
                  <real*>room.columns + room.odd, 2 * room.odd, 0, room.seen)
        else:
            plane = rows.height * rows.width
            fetch_rows(1, plane, x + (n + MOST_IMAGES) * plane, plane)    # in time
            split_image(rows, x + n * plane, &room)
        convolve_image(a, windows, weights, b, <real*>pixel(y, &a.y, n, 0, 0),
                       windows.which + n * size if windows.which != NULL else NULL, &room)
    free(room.columns)
    return True


cdef void forward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const forward_args* a = <const forward_args*>args
    cdef const conv_args* c = &a.conv
    cdef const Rows* rows = &a.rows if a.rows.place != NULL else NULL
    cdef bint done
    if c.is_float:
        done = convolve_windows(c, &a.windows, rows, begin, end, <const float*>c.x_data,
                                <const float*>c.weights, <const float*>c.b, <float*>c.y_data)
    else:
        done = convolve_windows(c, &a.windows, rows, begin, end, <const double*>c.x_data,
                                <const double*>c.weights, <const double*>c.b, <double*>c.y_data)
    if not done:    # no memory: NaN is seen, a wrong number is not
        fill_nan(&c.y, a.windows.out_height, a.windows.out_width, begin, end, c.y_data,
                 sizeof(float) if c.is_float else sizeof(double))


# ------------------------------------------------------------------------------ the gradient of W


cdef bint takes_window_gradients(
    const conv_args* a, Py_ssize_t area, Py_ssize_t columns, Py_ssize_t sy, Py_ssize_t sx,
    const real* like,
) noexcept nogil:
    """Whether `window_gradients_image` takes this convolution and windows of so many pixels."""
    return (has_window_gradients(like) and a.inner == 1 and area == 4 and columns == sy == sx == 2
            and a.sy == a.sx == a.dy == a.dx == 1 and (a.kw == 3 or a.kw == 5)
            and 4 * a.outer >= lanes(like))


cdef Py_ssize_t window_gradients_room(const conv_args* a, Py_ssize_t height, Py_ssize_t width,
                                      const real* like) noexcept nogil:
    """Elements that it needs, for padded images of one channel."""
    return 2 * height * width + lanes(like) + a.kh * a.kw * round_up(a.outer, lanes(like))


cdef void window_gradients_image(
    const conv_args* a, Py_ssize_t n_windows, const int32_t* places, const uint8_t* seen,
    const real* x, Py_ssize_t height, Py_ssize_t width, const real* dy, const uint8_t* which,
    real* sums, real* room, int32_t* windows, int32_t* at,
) noexcept nogil:
    """sums[f, r, s] += sum over windows w of dy[w, f] x[pixel which[w, f] of w][r, s]

    The filters are in the lanes, of each of which a window has another pixel. Of the pixels of
    neighbouring rows, side by side, it is one of 4 that follow each other.
    places[w], seen[w] : the first pixel of a window in x[height, width], and whether it has seen
        anything but zeros.
    windows, at : room for numbers of windows.
    """
    cdef Py_ssize_t w, count = 0, y, taps = a.kh * a.kw, step = round_up(a.outer, lanes(x))
    cdef real* tap_sums = room + 2 * height * width + lanes(x)
    for w in range(n_windows):
        windows[count], at[count] = <int32_t>w, 2 * places[w]
        count += seen[w] != 0
    for y in range(height - 1):
        interleave(width, x + y * a.x.row, x + (y + 1) * a.x.row, room + 2 * y * width)
    transpose(a.outer, taps, sums, taps, tap_sums, step)
    window_gradients(count, windows, at, a.outer, dy, which, room, 2 * width, a.kh, a.kw, tap_sums,
                     step)
    transpose(taps, a.outer, tap_sums, step, sums, taps)
