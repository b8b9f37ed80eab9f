"""The convolution of images of one channel, which are mostly zeros where they show digits.

    y[oy, ox, f] = act(b[f] + sum over r, s of x[oy + r, ox + s] W[f, r, s]), or the maxima of it

Of each row of x, the span from the first to the last pixel that is not 0 is added to the sums of
all pixels that see it, in kh rows. While it passes, the sums of the pixels that see the present one
move through the registers, with a vector of filters each. The rows of sums stay in the nearest
cache, in turns; maxima of windows that lie apart are taken of them there. Terms are added in the
same order as in _conv2d.pyx, and those that are left out are 0: the sums are the same to the last
bit, unless W holds infinite numbers or NaN, or they are sums of -0. Pixels that have seen nothing
are f(b), which is computed once.

Saito, Deep Learning from Scratch, sections 7.2 and 7.3.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cnn_core._conv2d_rows cimport conv_rows
from cnn_core._conv2d_shape cimport conv_args
from cnn_core._images cimport pixel
from cnn_core._simd cimport (
    ACTIVATION_RELU, ACTIVATION_SIGMOID, ACTIVATION_TANH, activate, lanes, least_lanes, max_columns,
)
from cnn_core._simd_images cimport copy_rows, gradient_spans, max_taps, spread
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up

cdef enum:
    ROWS_AT_ONCE = 32    # of y, whose gradients are added to those of the kernel,
    X_ROWS = 128         # and of x, which they see
    SEEN_ROWS = 4        # one in so many tells whether an image is sparse
    MOST_TURNS = MOST_SIDE + MOST_AREA    # rows of sums


cdef double MOST_SEEN = 0.7    # of the pixels, up to which to leave out those beside spans pays


cdef struct Sums:
    # of a row of y
    void* at             # that of the first pixel
    Py_ssize_t first     # pixels that something has been added to; none where first >= last
    Py_ssize_t last      # and one


cdef struct Room:
    void* memory
    Sums rows[MOST_TURNS]
    Py_ssize_t turns     # rows
    Py_ssize_t newest    # the one before it, in a circle, is that of the row of y above
    void* begin          # what sums begin with: b
    void* blank          # f of it, as y has it
    void* values         # of a span at the end of a row, and zeros
    Py_ssize_t width     # of x, with its padding
    Py_ssize_t step      # from pixel to pixel
    Py_ssize_t size      # of a row of sums
    Py_ssize_t taps[MOST_AREA]    # of a window of maxima, as `max_taps` takes them
    int32_t numbers[MOST_AREA]


cdef inline Py_ssize_t quotient(Py_ssize_t n, Py_ssize_t stride) noexcept nogil:
    """n / stride, rounded down, without a division where it is 1 or 2."""
    return n if stride == 1 else n >> 1 if stride == 2 else n // stride


cdef bint takes_spans(const conv_args* a) noexcept nogil:
    return (a.x.channels == 1 and a.groups == 1 and a.sy == a.sx == a.dy == a.dx == 1
            and a.kh <= MOST_SIDE and 2 <= a.kw <= MOST_SIDE)


cdef bint find_room(const conv_args* a, Py_ssize_t turns, const real* b,
                    Room* room) noexcept nogil:
    """False without memory."""
    cdef Py_ssize_t i, j
    cdef real* rows
    cdef real* begin
    room.turns, room.newest = turns, 0
    room.width = a.out_width + a.kw - 1
    room.step = round_up(a.outer, least_lanes(b))
    room.size = round_up((room.width + 2 * a.kw - 2) * room.step, lanes(b))
    room.memory = malloc(LINE_BYTES + ((turns + 2) * room.size + room.width + a.kw) * sizeof(real))
    if room.memory == NULL:
        return False
    rows = <real*>next_line(room.memory)
    room.begin = rows + turns * room.size
    room.blank = <real*>room.begin + room.size
    room.values = <real*>room.blank + room.size
    begin = <real*>room.begin
    memset(begin, 0, room.size * sizeof(real))
    for i in range(a.out_width if b != NULL else 0):
        for j in range(a.outer):
            begin[i * room.step + j] = b[j]
    copy_rows(a.out_width, a.outer, begin, room.step, <real*>room.blank, a.outer)
    activate(a.activation, a.slope, a.out_width * a.outer, <real*>room.blank, <real*>room.blank)
    memset(rows, 0, turns * room.size * sizeof(real))    # what is added beside a row is never read
    for i in range(turns):
        room.rows[i] = Sums(rows + i * room.size + (a.kw - 1) * room.step, 0, a.out_width)
    for i in range(MOST_AREA):
        room.numbers[i] = <int32_t>i
    return True


cdef inline Sums* row_of(Room* room, Py_ssize_t age) noexcept nogil:
    """The sums of the newest row, or of one that is older by so many."""
    cdef Py_ssize_t i = room.newest + age
    return &room.rows[i if i < room.turns else i - room.turns]


cdef inline void next_row(Room* room) noexcept nogil:
    """The oldest sums become the newest ones."""
    room.newest = (room.newest if room.newest > 0 else room.turns) - 1


cdef inline void restore(Sums* sums, const Room* room, const real* like) noexcept nogil:
    """They begin with b again."""
    cdef Py_ssize_t first = sums.first * room.step, size = sums.last * room.step - first
    if size > 0:
        memcpy(<real*>sums.at + first, <real*>room.begin + first, size * sizeof(real))
    sums.first, sums.last = room.width, 0


cdef bint seems_dense(const conv_args* a, const real* x, const Room* room) noexcept nogil:
    """Whether to leave out zeros of an image would not pay. Few filters leave more of the vectors
    of a product empty than of spans."""
    cdef Py_ssize_t i, seen = (a.out_height + a.kh - 1 + SEEN_ROWS // 2) // SEEN_ROWS, count = 0
    cdef Py_ssize_t first, last
    if a.outer <= least_lanes(x) < lanes(x):
        return False
    for i in range(seen):
        if find_span(room.width, x + (i * SEEN_ROWS + SEEN_ROWS // 2 - 1) * a.x.row, &first, &last):
            count += last - first
    return count > MOST_SEEN * seen * room.width


cdef inline void spread_row(const conv_args* a, const real* x, const real* weights, Py_ssize_t row,
                            Py_ssize_t count, Room* room) noexcept nogil:
    """Add to the sums of the first `count` rows of y what the newest row of x gives to them."""
    cdef Py_ssize_t widest = max_columns(x), j0 = 0, r, width, stride, begin, end
    cdef Py_ssize_t first = max(row - count + 1, 0), rows = min(row, a.kh - 1) + 1 - first
    cdef const real* span
    cdef real* to[MOST_SIDE]
    cdef Sums* sums
    if not find_span(room.width, x, &begin, &end):
        return
    span = x + begin
    if end + a.kw - 1 > room.width:    # the kernel reads whole taps
        span = <const real*>room.values
        memcpy(room.values, x + begin, (end - begin) * sizeof(real))
        memset(<real*>room.values + end - begin, 0, (a.kw - 1) * sizeof(real))
    for r in range(rows):
        sums = row_of(room, first + r)
        sums.first = min(sums.first, max(begin - a.kw + 1, 0))
        sums.last = max(sums.last, min(end + a.kw - 1, a.out_width))
        to[r] = <real*>sums.at + (begin - a.kw + 1) * room.step
    while j0 < a.outer:
        width = min(widest, a.outer - j0)
        stride = round_up(width, lanes(x))
        spread(end - begin, span, a.kw, rows, width,
               weights + (a.kh * j0 + first * stride) * a.kw, a.kw * stride, stride, to, room.step)
        for r in range(rows):
            to[r] += width
        j0 += widest


cdef inline void write_row(const conv_args* a, real* y, Room* room) noexcept nogil:
    """A row of y from its sums; the last row that it sees is the newest one of x."""
    cdef Sums* row = row_of(room, a.kh - 1)
    cdef Py_ssize_t first = 0, last = a.out_width, size
    cdef const real* sums = <const real*>row.at
    if a.activation == ACTIVATION_SIGMOID or a.activation == ACTIVATION_TANH:    # others cost less
        first, last = min(row.first, a.out_width), row.last
        memcpy(y, room.blank, first * a.outer * sizeof(real))
        last = max(first, last)
        memcpy(y + last * a.outer, room.blank, (a.out_width - last) * a.outer * sizeof(real))
    size = (last - first) * a.outer
    sums += first * room.step
    y += first * a.outer
    if room.step == a.outer:
        activate(a.activation, a.slope, size, sums, y)
    else:
        copy_rows(last - first, a.outer, sums, room.step, y, a.outer)
        activate(a.activation, a.slope, size, y, y)


cdef inline void write_blank(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, real* y,
                             uint8_t* which, const Room* room) noexcept nogil:
    """The maxima of windows begin..end of a row, none of which has seen anything."""
    memcpy(y + begin * a.outer, room.blank, (end - begin) * a.outer * sizeof(real))
    if which != NULL:
        memset(which + begin * a.outer, 0, (end - begin) * a.outer)


cdef inline void write_maxima(const conv_args* a, const Windows* windows, Py_ssize_t age, real* y,
                              uint8_t* which, Room* room) noexcept nogil:
    """A row of maxima, whose last row of sums has this age."""
    cdef Py_ssize_t r, s, first = a.out_width, last = 0, begin, place
    cdef bint is_relu = a.activation == ACTIVATION_RELU    # of the maximum the same, and less work
    cdef Sums* row
    cdef real* sums
    for r in range(windows.height):
        row = row_of(room, age + r)
        first, last = min(first, row.first), max(last, row.last)
    begin = quotient(max(first - windows.width + windows.sx, 0), windows.sx)
    last = min(quotient(last + windows.sx - 1, windows.sx), windows.out_width)
    begin = min(begin, last)
    first = begin * windows.sx
    for r in range(windows.height if a.activation and not is_relu and begin < last else 0):
        row = row_of(room, age + r)
        row.first, row.last = first, (last - 1) * windows.sx + windows.width
        sums = <real*>row.at + first * room.step
        activate(a.activation, a.slope, (row.last - first) * room.step, sums, sums)
    write_blank(a, 0, begin, y, which, room)
    write_blank(a, last, windows.out_width, y, which, room)
    sums = <real*>row_of(room, age + windows.height - 1).at + first * room.step
    for r in range(windows.height):
        place = <real*>row_of(room, age + windows.height - 1 - r).at + first * room.step - sums
        for s in range(windows.width):
            room.taps[r * windows.width + s] = place + s * room.step
    place = begin * a.outer
    max_taps(last - begin, windows.sx * room.step, a.outer, windows.height * windows.width, sums,
             room.taps, room.numbers, 0 if is_relu else -INFINITY, y + place,
             which + place if which != NULL else which, 1)


cdef inline void finish_row(const conv_args* a, const Windows* windows, Py_ssize_t row,
                            Py_ssize_t age, real* y, uint8_t* which, Room* room) noexcept nogil:
    """Write what the first `row` + 1 rows of sums allow to be written, the last of which has this
    age; y and which are those of an image's first row."""
    cdef Py_ssize_t at, size = 0
    if windows == NULL:
        write_row(a, y + row * a.y.row, room)
        return
    at = quotient(row, windows.sy)
    if row - at * windows.sy == windows.height - 1 and at < windows.out_height:
        if which != NULL:
            size = windows.out_width * a.outer
        write_maxima(a, windows, age, y + at * a.y.row, which + at * size, room)


cdef void dense_image(const conv_args* a, const Windows* windows, const real* x,
                      const real* weights, const real* b, real* y, uint8_t* which,
                      Room* room) noexcept nogil:
    """The maxima of one image, from sums of all terms."""
    cdef conv_args sums = a[0]
    cdef Py_ssize_t row
    sums.y.channels = room.step
    for row in range(a.out_height):
        next_row(room)
        row_of(room, 0).first, row_of(room, 0).last = 0, a.out_width
        conv_rows(&sums, x + row * a.x.row, weights, b, <real*>row_of(room, 0).at, 1)
        finish_row(a, windows, row, 0, y, which, room)


cdef void image_rows(const conv_args* a, const Windows* windows, Py_ssize_t count, const real* x,
                     const real* weights, real* y, uint8_t* which, Room* room) noexcept nogil:
    """`count` rows of y from x, the first row that the first of them sees."""
    cdef Py_ssize_t row
    for row in range(count + a.kh - 1):
        next_row(room)
        if row < count:
            restore(row_of(room, 0), room, x)
        spread_row(a, x + row * a.x.row, weights, row, count, room)
        if row >= a.kh - 1:
            finish_row(a, windows, row + 1 - a.kh, a.kh - 1, y, which, room)


cdef bint convolve_spans(const conv_args* a, const Windows* windows, Py_ssize_t begin,
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


# ------------------------------------------------------------------------------ gradient of W


cdef bint takes_span_gradients(const conv_args* a) noexcept nogil:
    return (a.inner == 1 and a.groups == 1 and a.dx == 1 and 2 <= a.kw <= MOST_SIDE
            and a.sy <= X_ROWS // 2 and (a.kh - 1) * a.dy < X_ROWS // 2)


cdef inline Py_ssize_t find_windows(const conv_args* a, Py_ssize_t rows, const Py_ssize_t* first,
                                    const Py_ssize_t* last, Py_ssize_t* sizes, Py_ssize_t* x_at,
                                    Py_ssize_t* y_at) noexcept nogil:
    """Of some rows of y the pixels from the first to the last one that have seen something, given
    the spans of the rows of x; returns in how many rows there are any."""
    cdef Py_ssize_t oy, r, y, begin, end, count = 0
    for oy in range(rows):
        begin, end = a.x.row, 0
        for r in range(a.kh):
            y = oy * a.sy + r * a.dy
            begin, end = min(begin, first[y]), max(end, last[y])
        begin = quotient(max(begin - a.kw + a.sx, 0), a.sx)
        end = min(quotient(end + a.sx - 1, a.sx), a.out_width)
        sizes[count] = end - begin
        x_at[count] = oy * a.sy * a.x.row + begin * a.sx
        y_at[count] = oy * a.y.row + begin * a.y.channels
        count += begin < end
    return count


cdef void span_gradients_image(const conv_args* a, const real* x, const real* dy,
                               real* dW) noexcept nogil:
    """dW[r, s, f] += sum over the pixels of y of x dy, of one image."""
    cdef Py_ssize_t width = (a.out_width - 1) * a.sx + a.kw, reach = (a.kh - 1) * a.dy + 1
    cdef Py_ssize_t oy = 0, rows, y, count
    cdef Py_ssize_t first[X_ROWS]
    cdef Py_ssize_t last[X_ROWS]
    cdef Py_ssize_t sizes[ROWS_AT_ONCE]
    cdef Py_ssize_t x_at[ROWS_AT_ONCE]
    cdef Py_ssize_t y_at[ROWS_AT_ONCE]
    while oy < a.out_height:
        rows = min(a.out_height - oy, min((X_ROWS - reach) // a.sy + 1, <Py_ssize_t>ROWS_AT_ONCE))
        for y in range((rows - 1) * a.sy + reach):
            find_span(width, x + y * a.x.row, &first[y], &last[y])
        count = find_windows(a, rows, first, last, sizes, x_at, y_at)
        gradient_spans(count, sizes, x_at, y_at, a.outer, x, a.dy * a.x.row, a.sx, dy, a.y.channels,
                       a.kh, a.kw, dW)
        x += rows * a.sy * a.x.row
        dy += rows * a.y.row
        oy += rows
