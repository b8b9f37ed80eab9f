"""The convolution of images of one channel, which are mostly zeros where they show digits.

    y[oy, ox, f] = act(b[f] + sum over r, s of x[oy + r, ox + s] W[f, r, s]), or the maxima of it

Of each row of x, pairs of neighbours that are not both 0 are listed, and added to the sums of all
pixels that see them: kh rows of kw + 1 pixels, a vector of filters each. The sums of kh rows of y
stay in the nearest cache, in turns; maxima of windows that lie apart are taken of them there. Terms
are added in the same order as in _conv2d.pyx, and those that are left out are 0: the sums are the
same to the last bit, unless W holds infinite numbers or NaN, or they are sums of -0. Pixels beside
those that have seen something are f(b), which is computed once.

Saito, Deep Learning from Scratch, sections 7.2 and 7.3.
"""

from libc.math cimport INFINITY
from libc.stdint cimport INT32_MAX, int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cnn_core._conv2d_rows cimport conv_rows
from cnn_core._conv2d_shape cimport conv_args
from cnn_core._images cimport pixel
from cnn_core._simd cimport (
    ACTIVATION_RELU, ACTIVATION_SIGMOID, ACTIVATION_TANH, activate, lanes, least_lanes, max_columns,
)
from cnn_core._simd_images cimport copy_rows, max_taps, pick_pairs, spread_pairs
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up

cdef enum:
    MOST_SIDE = 8        # rows and columns of the kernel
    SEEN_ROWS = 4        # one in so many tells whether an image is sparse
    MOST_TURNS = MOST_SIDE + MOST_AREA    # rows of sums


cdef double MOST_PAIRS = 0.7    # of all, up to which to list them pays


cdef struct Room:
    void* memory
    void* sums[MOST_TURNS]    # of the last rows of y, the newest first: of the first pixel of each
    void* begin          # what those of a row begin with: b
    void* blank          # f of it, as y has it
    int32_t first[MOST_SIDE]  # column that is not 0, of the last rows of x, the newest first,
    int32_t last[MOST_SIDE]   # and behind the last one
    void* values         # pairs of one row of x
    int32_t* at
    Py_ssize_t turns     # rows
    Py_ssize_t width     # of x, with its padding
    Py_ssize_t step      # from pixel to pixel
    Py_ssize_t size      # of a row of sums
    Py_ssize_t taps[MOST_AREA]    # of a window of maxima, as `max_taps` takes them
    int32_t numbers[MOST_AREA]


cdef bint takes_pairs(const conv_args* a) noexcept nogil:
    return (a.x.channels == 1 and a.groups == 1 and a.sy == a.sx == a.dy == a.dx == 1
            and a.kh <= MOST_SIDE and 2 <= a.kw <= MOST_SIDE)


cdef bint find_room(const conv_args* a, Py_ssize_t turns, const real* b,
                    Room* room) noexcept nogil:
    """False without memory."""
    cdef Py_ssize_t i, j, pairs
    cdef real* rows
    cdef real* begin
    room.turns = turns
    room.width = a.out_width + a.kw - 1
    room.step = round_up(a.outer, least_lanes(b))
    room.size = round_up((room.width + a.kw) * room.step, lanes(b))
    pairs = room.width // 2 + 1 + lanes(b)
    room.memory = malloc(LINE_BYTES + ((turns + 2) * room.size + 2 * pairs) * sizeof(real)
                         + pairs * sizeof(int32_t))
    if room.memory == NULL:
        return False
    rows = <real*>next_line(room.memory)
    for i in range(turns):
        room.sums[i] = rows + i * room.size + (a.kw - 1) * room.step
    room.begin = rows + turns * room.size
    room.blank = <real*>room.begin + room.size
    room.values = <real*>room.blank + room.size
    room.at = <int32_t*>(<real*>room.values + 2 * pairs)
    begin = <real*>room.begin
    memset(begin, 0, room.size * sizeof(real))
    for i in range(a.out_width if b != NULL else 0):
        for j in range(a.outer):
            begin[i * room.step + j] = b[j]
    copy_rows(a.out_width, a.outer, begin, room.step, <real*>room.blank, a.outer)
    activate(a.activation, a.slope, a.out_width * a.outer, <real*>room.blank, <real*>room.blank)
    # What pixels add beside a row is never read.
    memset(rows, 0, turns * room.size * sizeof(real))
    return True


cdef inline void next_row(Room* room) noexcept nogil:
    """The oldest sums become the newest ones."""
    cdef void* oldest = room.sums[room.turns - 1]
    cdef Py_ssize_t i
    for i in range(room.turns - 1, 0, -1):
        room.sums[i] = room.sums[i - 1]
    for i in range(MOST_SIDE - 1, 0, -1):
        room.first[i], room.last[i] = room.first[i - 1], room.last[i - 1]
    room.sums[0] = oldest


cdef bint seems_dense(const conv_args* a, const real* x, const Room* room) noexcept nogil:
    """Whether to list the pairs of an image would not pay. Few filters leave more of the vectors
    of a product empty than of pairs."""
    cdef Py_ssize_t i, seen = (a.out_height + a.kh - 1 + SEEN_ROWS // 2) // SEEN_ROWS, count = 0
    if a.outer <= least_lanes(x) < lanes(x):
        return False
    for i in range(seen):
        count += pick_pairs(room.width, x + (i * SEEN_ROWS + SEEN_ROWS // 2 - 1) * a.x.row,
                            <real*>room.values, room.at)
    return 2 * count > MOST_PAIRS * seen * room.width


cdef inline void spread_row(const conv_args* a, const real* x, const real* weights, Py_ssize_t row,
                            Py_ssize_t count, Room* room) noexcept nogil:
    """Add to the sums of the first `count` rows of y what the newest row of x gives to them."""
    cdef Py_ssize_t widest = max_columns(x), j0 = 0, r, width, stride
    cdef Py_ssize_t first = max(row - count + 1, 0), rows = min(row, a.kh - 1) + 1 - first
    cdef Py_ssize_t pairs = pick_pairs(room.width, x, <real*>room.values, room.at)
    cdef real* sums[MOST_SIDE]
    room.first[0], room.last[0] = INT32_MAX, 0
    if pairs == 0:
        return
    room.first[0], room.last[0] = room.at[0], room.at[pairs - 1] + 2
    for r in range(rows):
        sums[r] = <real*>room.sums[first + r] - (a.kw - 1) * room.step
    while j0 < a.outer:
        width = min(widest, a.outer - j0)
        stride = round_up(width, lanes(x))
        spread_pairs(pairs, room.at, <const real*>room.values, a.kw, rows, width,
                     weights + (a.kh * j0 + first * stride) * a.kw, a.kw * stride, stride, sums,
                     room.step)
        for r in range(rows):
            sums[r] += width
        j0 += widest


cdef inline void write_row(const conv_args* a, real* y, const Room* room) noexcept nogil:
    """A row of y from its sums; the last row that it sees is the newest one of x."""
    cdef Py_ssize_t first = 0, last = a.out_width, size, r
    cdef const real* sums = <const real*>room.sums[a.kh - 1]
    if a.activation == ACTIVATION_SIGMOID or a.activation == ACTIVATION_TANH:    # others cost less
        first, last = a.out_width, 0
        for r in range(a.kh):
            first, last = min(first, room.first[r] - a.kw + 1), max(last, room.last[r])
        last = min(last, a.out_width)
        first = min(max(first, 0), last)
        memcpy(y, room.blank, first * a.outer * sizeof(real))
        memcpy(y + last * a.outer, room.blank, (a.out_width - last) * a.outer * sizeof(real))
    size = (last - first) * a.outer
    sums += first * room.step
    y += first * a.outer
    if room.step == a.outer:
        activate(a.activation, a.slope, size, sums, y)
    else:
        copy_rows(last - first, a.outer, sums, room.step, y, a.outer)
        activate(a.activation, a.slope, size, y, y)


cdef inline void write_maxima(const conv_args* a, const Windows* windows, void* const* last,
                              real* y, uint8_t* which, Room* room) noexcept nogil:
    """A row of maxima, whose last row of sums is `last`."""
    cdef Py_ssize_t t, r, s
    cdef real* sums = <real*>last[windows.height - 1]
    cdef real* row
    cdef bint is_relu = a.activation == ACTIVATION_RELU    # of the maximum the same, and less work
    for r in range(windows.height if a.activation and not is_relu else 0):
        row = <real*>last[r]
        activate(a.activation, a.slope, a.out_width * room.step, row, row)
    for t in range(windows.height * windows.width):
        r = t // windows.width
        s = t - r * windows.width
        room.taps[t] = <real*>last[windows.height - 1 - r] - sums + s * room.step
        room.numbers[t] = <int32_t>t
    max_taps(windows.out_width, windows.sx * room.step, a.outer, windows.height * windows.width,
             sums, room.taps, room.numbers, 0 if is_relu else -INFINITY, y, which, 1)


cdef inline void finish_row(const conv_args* a, const Windows* windows, Py_ssize_t row,
                            void* const* last, real* y, uint8_t* which,
                            Room* room) noexcept nogil:
    """Write what the first `row` + 1 rows of sums allow to be written, of which `last` is the last
    one; y and which are those of an image's first row."""
    cdef Py_ssize_t at, size = 0
    if windows == NULL:
        write_row(a, y + row * a.y.row, room)
        return
    at = row // windows.sy
    if row - at * windows.sy == windows.height - 1 and at < windows.out_height:
        if which != NULL:
            size = windows.out_width * a.outer
        write_maxima(a, windows, last, y + at * a.y.row, which + at * size, room)


cdef void dense_image(const conv_args* a, const Windows* windows, const real* x,
                      const real* weights, const real* b, real* y, uint8_t* which,
                      Room* room) noexcept nogil:
    """The maxima of one image, from sums of all terms."""
    cdef conv_args sums = a[0]
    cdef Py_ssize_t row
    sums.y.channels = room.step
    for row in range(a.out_height):
        next_row(room)
        conv_rows(&sums, x + row * a.x.row, weights, b, <real*>room.sums[0], 1)
        finish_row(a, windows, row, room.sums, y, which, room)


cdef void image_rows(const conv_args* a, const Windows* windows, Py_ssize_t count, const real* x,
                     const real* weights, real* y, uint8_t* which, Room* room) noexcept nogil:
    """`count` rows of y from x, the first row that the first of them sees."""
    cdef Py_ssize_t row, bytes = a.out_width * room.step * sizeof(real)
    for row in range(count + a.kh - 1):
        next_row(room)
        if row < count:
            memcpy(room.sums[0], room.begin, bytes)
        spread_row(a, x + row * a.x.row, weights, row, count, room)
        if row >= a.kh - 1:
            finish_row(a, windows, row + 1 - a.kh, room.sums + a.kh - 1, y, which, room)


cdef bint convolve_pairs(const conv_args* a, const Windows* windows, Py_ssize_t begin,
                         Py_ssize_t end, const real* x, const real* weights, const real* b,
                         real* y) noexcept nogil:
    """Rows begin..end of the convolution, of whole images where there are windows, counted over
    all images; false, and nothing done, without memory, or without windows where the first image
    is no sparse one."""
    cdef Py_ssize_t n, oy, count
    cdef uint8_t* which = NULL
    cdef bint dense
    cdef Room room
    if not find_room(a, a.kh + (windows.height - 1 if windows != NULL else 0), b, &room):
        return False
    dense = seems_dense(a, pixel(x, &a.x, begin // a.out_height, 0, 0), &room)
    if dense and windows == NULL:
        free(room.memory)
        return False
    while begin < end:
        n = begin // a.out_height
        oy = begin - n * a.out_height
        count = min(a.out_height - oy, end - begin)
        if windows != NULL and windows.which != NULL:
            which = windows.which + n * windows.out_height * windows.out_width * a.outer
        if dense:
            dense_image(a, windows, pixel(x, &a.x, n, 0, 0), weights, b,
                        <real*>pixel(y, &a.y, n, 0, 0), which, &room)
        else:
            image_rows(a, windows, count, pixel(x, &a.x, n, oy, 0), weights,
                       <real*>pixel(y, &a.y, n, oy, 0), which, &room)
        begin += count
    free(room.memory)
    return True
