"""The affine map behind images, whose channels are innermost (`_images.pyx`), and its gradients.

    out[n, o]        = b[o] + sum over p, c of x[n, p, c] W[c P + p, o], by strips of pixels
    dx[n, p, c]      = (sum over o of dout[n, o] W[c P + p, o]) f'(x[n, p, c])    P pixels an image
    dW[c P + p, o]   = sum over n of x[n, p, c] dout[n, o]

The rows of W are in the order of NCHW. Those of neighbouring pixels are read and written where they
lie: neither x nor dx is turned into rows. A thread reads, multiplies and updates the weights of the
same pixels in each step.

Saito, Deep Learning from Scratch, sections 5.6 and 7.5.
"""

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cnn_core._affine_images_shape cimport (
    IMAGES, MOST_COLUMNS, TERMS, images_args, pack_panel,
)
from cnn_core._affine_seen cimport (
    GROUP_ROW, forward_pixel, group_images, input_gradient_pixel, is_shared, weight_gradient_pixel,
)
from cnn_core._bounds cimport expect
from cnn_core._gemm cimport MOST_AHEAD, fetch_rows
from cnn_core._images cimport Images, pixel
from cnn_core._parallel cimport kernel_t, new_task
from cnn_core._simd cimport (
    ACTIVATION_NONE, activate_backward, lanes, max_columns, multiply_add_taps,
    multiply_add_tile,
)
from cnn_core._simd_images cimport copy_rows
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up

cdef enum:
    INPUTS = 512         # elements of an image at once: their weights stay in the next cache
    PIXELS_AT_ONCE = 64  # whose images are grouped
    LEAST_CHANNELS = 16  # of images that share: they are the terms of a sum that is added to others


MOST_IN_PLACE = TERMS    # columns of W, up to which dx may be y


cdef inline void multiply_panel(
    const images_args* a, Py_ssize_t width, Py_ssize_t begin, Py_ssize_t terms, const real* dout,
    const real* panel, const real* y, real* dx,
) noexcept nogil:
    """dx = the products of the terms from `begin` on, or dx += those behind the first; with the
    last ones times f'(y). Where all terms are there, dx may be y."""
    cdef bint last = begin + terms == a.n_out and a.activation != ACTIVATION_NONE
    cdef bint whole = last and begin == 0
    cdef Py_ssize_t n = 0, count, i, row = MOST_COLUMNS if whole else a.at.image
    cdef Py_ssize_t panel_row = round_up(width, lanes(panel))
    cdef real zeros[MOST_COLUMNS]
    cdef real room[IMAGES * MOST_COLUMNS + LINE_BYTES]
    cdef real* sums = <real*>next_line(room)
    memset(zeros, 0, sizeof(zeros))
    while n < a.n_images:
        count = min(<Py_ssize_t>IMAGES, a.n_images - n)
        if y != dx:    # else dW has just read it
            fetch_rows(count, width, dx + n * a.at.image, a.at.image)
            if last:
                fetch_rows(count, width, y + n * a.before.image, a.before.image)
        if not whole:
            sums = dx + n * a.at.image
        multiply_add_tile(count, width, terms, dout + n * a.n_out + begin, a.n_out, 1, panel,
                          panel_row, &zeros[0] if begin == 0 else NULL, sums, row)
        for i in range(count if last else 0):
            activate_backward(a.activation, a.slope, width, y + (n + i) * a.before.image,
                              sums + i * row, dx + (n + i) * a.at.image)
        n += count


cdef inline void input_gradient_run(
    const images_args* a, Py_ssize_t first, Py_ssize_t size, const real* dout, const real* W,
    const real* y, real* dx,
) noexcept nogil:
    """`size` elements of every image from element `first` on; y and dx point at those of the first
    image."""
    cdef Py_ssize_t widest = max_columns(W), j = 0, k, width, terms
    cdef real room[TERMS * MOST_COLUMNS + LINE_BYTES]
    cdef real* panel = <real*>next_line(room)
    while j < size:
        width, k = min(widest, size - j), 0
        while k < a.n_out:
            terms = min(<Py_ssize_t>TERMS, a.n_out - k)
            pack_panel(a, first + j, width, terms, W + k, panel, round_up(width, lanes(W)))
            multiply_panel(a, width, k, terms, dout, panel, y + j if y != NULL else y, dx + j)
            k += terms
        j += width


cdef inline void weight_gradient_run(
    const images_args* a, Py_ssize_t p, Py_ssize_t pixels, const real* dout, const real* x,
    real* dW,
) noexcept nogil:
    """The rows of dW for `pixels` pixels from pixel p on; x points at that of the first image."""
    cdef Py_ssize_t widest = max_columns(x), channels = a.at.channels, n = 0, i, j, terms, width
    cdef Py_ssize_t plane = a.n_pixels * a.n_out, whole
    cdef real zeros[MOST_COLUMNS]
    cdef real room[TERMS * MOST_COLUMNS + LINE_BYTES]
    cdef real* panel = <real*>next_line(room)
    cdef real* rows
    memset(zeros, 0, sizeof(zeros))
    while n < a.n_images:
        terms, j = min(<Py_ssize_t>TERMS, a.n_images - n), 0
        while j < a.n_out:
            width = min(widest, a.n_out - j)
            whole = round_up(width, lanes(x))
            copy_rows(terms, width, dout + n * a.n_out + j, a.n_out, panel, whole)
            for i in range(pixels):
                rows = dW + (p + i) * a.n_out + j
                fetch_rows(channels, width, rows, plane)
                multiply_add_tile(channels, width, terms, x + n * a.at.image + i * channels, 1,
                                  a.at.image, panel, whole, &zeros[0] if n == 0 else NULL, rows,
                                  plane)
            j += width
        n += terms


cdef inline Py_ssize_t run_from(const images_args* a, Py_ssize_t begin, Py_ssize_t end,
                                Py_ssize_t* row, Py_ssize_t* column) noexcept nogil:
    """How many of the pixels begin..end lie without a gap from the first on, and its place."""
    row[0] = begin // a.run
    column[0] = begin - row[0] * a.run
    return min(end - begin, a.run - column[0])


cdef inline Py_ssize_t common_from(const images_args* a, Py_ssize_t begin,
                                   Py_ssize_t count) noexcept nogil:
    """How many of these pixels, from the first on, are taken as all images have them."""
    cdef Py_ssize_t p
    for p in range(begin, begin + count if a.groups != NULL else begin):
        if is_shared(a, p):
            return p - begin
    return count


cdef inline void input_gradient_range(
    const images_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dout, const real* W,
    const real* y, real* dx,
) noexcept nogil:
    cdef Py_ssize_t row, column, count
    cdef const real* values = y
    cdef real* to
    while begin < end:
        count = common_from(a, begin, run_from(a, begin, end, &row, &column))
        to = <real*>pixel(dx, &a.at, 0, row, column)
        if y != NULL:
            values = pixel(y, &a.before, 0, row, column)
        if count > 0:
            input_gradient_run(a, begin * a.at.channels, count * a.at.channels, dout, W, values, to)
        else:
            input_gradient_pixel(a, begin, dout, W, values, to)
        begin += max(count, 1)


cdef inline void weight_gradient_range(
    const images_args* a, Py_ssize_t begin, Py_ssize_t end, const real* dout, const real* x,
    real* dW,
) noexcept nogil:
    cdef Py_ssize_t row, column, count, line = round_up(a.n_out, LINE_BYTES // sizeof(real))
    cdef void* room = NULL
    cdef real* lines = NULL
    if a.groups != NULL:
        room = malloc(LINE_BYTES + (a.n_images + 1) * line * sizeof(real))
        lines = <real*>next_line(room)
        if room != NULL:
            copy_rows(a.n_images, a.n_out, dout, a.n_out, lines, line)
    while begin < end:
        count = run_from(a, begin, end, &row, &column)
        if room != NULL:
            count = common_from(a, begin, count)
        if count > 0:
            weight_gradient_run(a, begin, count, dout, pixel(x, &a.at, 0, row, column), dW)
        else:
            weight_gradient_pixel(a, begin, lines, line, pixel(x, &a.at, 0, row, column), dW)
        begin += max(count, 1)
    free(room)


cdef inline Py_ssize_t taps_of(Py_ssize_t terms, Py_ssize_t line) noexcept nogil:
    """In how many equal taps of no more than a line the terms can be cut, or 1."""
    cdef Py_ssize_t taps
    for taps in range((terms + line - 1) // line, terms // (line // 2) + 1):
        if terms % taps == 0:
            return taps
    return 1


cdef inline void multiply_fetching(
    const images_args* a, Py_ssize_t width, Py_ssize_t terms, const real* x, const real* panel,
    Py_ssize_t whole, real* out,
) noexcept nogil:
    """out += the products of adjacent elements of all images; meanwhile those behind are fetched,
    line by line: all together they would keep the products waiting."""
    cdef Py_ssize_t taps = taps_of(terms, LINE_BYTES // sizeof(real)), n = 0, count, i
    cdef Py_ssize_t a_at[TERMS]
    cdef Py_ssize_t b_at[TERMS]
    cdef const real* ahead[MOST_AHEAD]
    for i in range(taps):
        a_at[i] = i * (terms // taps)
        b_at[i] = a_at[i] * whole
    while n < a.n_images:
        count = min(a.n_images - n, <Py_ssize_t>MOST_AHEAD)
        for i in range(count):
            ahead[i] = x + (n + i) * a.at.image + terms
        multiply_add_taps(count, width, terms // taps, taps, x + n * a.at.image, a_at, a.at.image,
                          1, panel, b_at, whole, <const real*>NULL, out + n * a.out_row, a.out_row,
                          ahead)
        n += count


cdef inline void forward_run(
    const images_args* a, Py_ssize_t first, Py_ssize_t pixels, Py_ssize_t channel,
    Py_ssize_t channels, const real* x, const real* W, real* out,
) noexcept nogil:
    """out += the products of some channels of some pixels of all images; x points at those of the
    first image."""
    cdef Py_ssize_t widest = max_columns(W), plane = a.n_pixels * a.n_out, j = 0, width, whole, i
    cdef real room[TERMS * MOST_COLUMNS + LINE_BYTES]
    cdef real* panel = <real*>next_line(room)
    W += channel * plane + first * a.n_out
    while j < a.n_out:
        width = min(widest, a.n_out - j)
        whole = round_up(width, lanes(W))
        for i in range(pixels):
            copy_rows(channels, width, W + i * a.n_out + j, plane, panel + i * channels * whole,
                      whole)
        if first + pixels < a.n_pixels:
            fetch_rows(channels, width, W + j + pixels * a.n_out, plane)
        if j == 0:
            multiply_fetching(a, width, pixels * channels, x, panel, whole, out)
        else:
            multiply_add_tile(a.n_images, width, pixels * channels, x, a.at.image, 1, panel, whole,
                              <const real*>NULL, out + j, a.out_row)
        j += width


cdef inline void forward_pixels(const images_args* a, Py_ssize_t begin, Py_ssize_t end,
                                const real* x, const real* W, real* out) noexcept nogil:
    """out += the products of pixels begin..end."""
    cdef Py_ssize_t row, column, count, c
    cdef Py_ssize_t channels = min(a.at.channels, <Py_ssize_t>TERMS), most = TERMS // channels
    while begin < end:
        count = common_from(a, begin, min(run_from(a, begin, end, &row, &column), most))
        if count == 0:
            forward_pixel(a, begin, pixel(x, &a.at, 0, row, column), W, out)
            begin += 1
            continue
        c = 0
        while c < a.at.channels:    # several pixels, or one with several parts of its channels
            forward_run(a, begin, count, c, min(channels, a.at.channels - c),
                        pixel(x, &a.at, 0, row, column) + c, W, out)
            c += channels
        begin += count


cdef inline void forward_strip(const images_args* a, Py_ssize_t strip, const real* x,
                               const real* W, const real* b, real* out) noexcept nogil:
    """The products of a strip; the first one begins with b, which may be NULL."""
    cdef Py_ssize_t begin = strip * a.n_pixels // a.n_strips, i, size = a.n_out * sizeof(real)
    cdef Py_ssize_t end = (strip + 1) * a.n_pixels // a.n_strips
    cdef images_args args = a[0]
    cdef real* sums = out
    cdef void* room = NULL
    if strip > 0:
        out, b = <real*>a.sums + (strip - 1) * a.n_images * a.n_out, NULL
    if size % LINE_BYTES or <size_t>out % LINE_BYTES:    # sums in rows that begin at cache lines
        args.out_row = round_up(a.n_out, LINE_BYTES // sizeof(real))
        room = malloc(LINE_BYTES + a.n_images * args.out_row * sizeof(real))
        sums = <real*>next_line(room)
    if room == NULL:
        sums, args.out_row = out, a.n_out
    for i in range(a.n_images):
        if b == NULL:
            memset(sums + i * args.out_row, 0, size)
        else:
            memcpy(sums + i * args.out_row, b, size)
    forward_pixels(&args, begin, end, x, W, sums)
    for i in range(a.n_images if room != NULL else 0):
        memcpy(out + i * a.n_out, sums + i * args.out_row, size)
    free(room)


cdef void forward_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const images_args* a = <const images_args*>args
    cdef Py_ssize_t strip
    for strip in range(begin, end):
        if a.is_float:
            forward_strip(a, strip, <const float*>a.images, <const float*>a.W, <const float*>a.b,
                          <float*>a.gradient)
        else:
            forward_strip(a, strip, <const double*>a.images, <const double*>a.W,
                          <const double*>a.b, <double*>a.gradient)


cdef void input_gradient_kernel(const void* args, Py_ssize_t begin,
                                Py_ssize_t end) noexcept nogil:
    cdef const images_args* a = <const images_args*>args
    if a.is_float:
        input_gradient_range(a, begin, end, <const float*>a.dout, <const float*>a.W,
                             <const float*>a.images, <float*>a.gradient)
    else:
        input_gradient_range(a, begin, end, <const double*>a.dout, <const double*>a.W,
                             <const double*>a.images, <double*>a.gradient)


cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const images_args* a = <const images_args*>args
    if a.is_float:
        weight_gradient_range(a, begin, end, <const float*>a.dout, <const float*>a.images,
                              <float*>a.gradient)
    else:
        weight_gradient_range(a, begin, end, <const double*>a.dout, <const double*>a.images,
                              <double*>a.gradient)


cdef inline bint without_gaps(Images images):
    return (images.layout.row == images.width * images.channels
            and images.layout.image == images.height * images.layout.row)


cdef images_args gradient_args(Images images, const real[:, ::1] dout, Py_ssize_t n_in,
                               Py_ssize_t n_out) except *:
    """Of dx or x, for weights of n_in rows."""
    cdef images_args args
    memset(&args, 0, sizeof(args))
    expect(images.n == dout.shape[0] and n_out == dout.shape[1]
           and n_in == images.channels * images.height * images.width
           and images.is_float == (sizeof(real) == sizeof(float)), "images, dout, W")
    args.at = images.layout
    args.n_images = images.n
    args.n_pixels = images.height * images.width
    args.run = args.n_pixels if without_gaps(images) else images.width
    args.n_out = args.out_row = n_out
    args.dout = &dout[0, 0]
    args.activation = ACTIVATION_NONE
    args.is_float = images.is_float
    return args


cdef object pixels_task(kernel_t kernel, images_args* args, tuple arrays):
    cdef double work = <double>args.at.channels * args.n_out * args.n_images
    return new_task(kernel, args, sizeof(args[0]), args.n_pixels, 1,
                    max(INPUTS // args.at.channels, 1), work, arrays)


def shares(Py_ssize_t channels, Py_ssize_t n_out, bint is_float):
    """Whether the tasks below take groups for images with so many channels, and it pays."""
    cdef Py_ssize_t vector = lanes(<float*>NULL) if is_float else lanes(<double*>NULL)
    return (n_out <= TERMS and channels >= LEAST_CHANNELS
            and 4 * channels >= 3 * round_up(channels, vector))


def groups_shape(Py_ssize_t n, Py_ssize_t n_pixels):
    """Of the groups of n images at each pixel."""
    return (n + TERMS - 1) // TERMS, n_pixels, GROUP_ROW


cdef struct group_args:
    Py_ssize_t n_images
    Py_ssize_t n_pixels
    const uint8_t* seen
    int32_t* groups


cdef void group_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const group_args* a = <const group_args*>args
    cdef Py_ssize_t p
    for p in range(begin, end):
        group_images(a.n_images, a.n_pixels, p, a.seen, a.groups)


def group(const uint8_t[:, ::1] seen, int32_t[:, :, ::1] groups):
    """Task over pixels: which images share what they have there.

    seen : [N, P], 0 where x[n, p] is what all others with 0 have at this pixel, too.
    groups : of `groups_shape`.
    """
    cdef group_args args
    args.n_images, args.n_pixels = seen.shape[0], seen.shape[1]
    expect(groups_shape(args.n_images, args.n_pixels)
           == (groups.shape[0], groups.shape[1], groups.shape[2]), "seen, groups")
    args.seen, args.groups = &seen[0, 0], &groups[0, 0, 0]
    return new_task(group_kernel, &args, sizeof(args), args.n_pixels, 1, PIXELS_AT_ONCE,
                    2 * args.n_images, (seen.base, groups.base))


cdef note_groups(images_args* args, const int32_t[:, :, ::1] groups):
    if groups is not None:
        expect(groups_shape(args.n_images, args.n_pixels)
               == (groups.shape[0], groups.shape[1], groups.shape[2])
               and args.n_out <= TERMS, "groups")
        args.groups = &groups[0, 0, 0]


def forward_strips(Images x, const real[:, ::1] W, const real[::1] b, real[:, ::1] out,
                   real[:, :, ::1] sums, const int32_t[:, :, ::1] groups=None):
    """Task over strips of pixels: their products. The first begins with b, which may be None, and
    goes to `out`, the others to sums[n_strips - 1, N, O], which `_affine.add_strips_of` adds.

    groups : as `group` has left them.
    """
    cdef images_args args = gradient_args(x, out, W.shape[0], W.shape[1])
    args.n_strips = sums.shape[0] + 1
    expect(sums.shape[1] == out.shape[0] and sums.shape[2] == out.shape[1]
           and args.n_strips <= args.n_pixels and (b is None or b.shape[0] == out.shape[1]),
           "x, b, out, sums")
    args.images, args.W, args.b = x.data, &W[0, 0], NULL
    if b is not None:
        args.b = &b[0]
    args.gradient, args.sums = &out[0, 0], NULL
    if args.n_strips > 1:
        args.sums = &sums[0, 0, 0]
    note_groups(&args, groups)
    cdef double work = <double>W.shape[0] * W.shape[1] * x.n / args.n_strips
    return new_task(forward_kernel, &args, sizeof(args), args.n_strips, 1, 1, work,
                    (x, W.base, None if b is None else b.base, out.base, sums.base,
                     None if groups is None else groups.base))


def input_gradient(const real[:, ::1] dout, const real[:, ::1] W, Images dx, Images y=None,
                   int activation=ACTIVATION_NONE, double slope=0.0,
                   const int32_t[:, :, ::1] groups=None):
    """Task over pixels: dx = (dout W^T) f'(y), the rows of W in the order of NCHW. dx may be y
    where W has no more columns than MOST_IN_PLACE.

    groups : as above, for y: of dx of those that share a pixel, in a group, only the sum is right.
    """
    cdef images_args args = gradient_args(dx, dout, W.shape[0], W.shape[1])
    expect(activation == ACTIVATION_NONE if y is None
           else y.shape == dx.shape and y.is_float == dx.is_float, "y")
    args.W = &W[0, 0]
    args.gradient = dx.data
    if y is not None:
        expect(y.data != dx.data or args.n_out <= TERMS, "dx, which is y")
        args.before, args.images = y.layout, y.data
        args.activation, args.slope = activation, slope
        if not without_gaps(y):
            args.run = dx.width
    note_groups(&args, groups)
    return pixels_task(input_gradient_kernel, &args,
                       (dout.base, W.base, dx, y, None if groups is None else groups.base))


def weight_gradient(Images x, const real[:, ::1] dout, real[:, ::1] dW,
                    const int32_t[:, :, ::1] groups=None):
    """Task over pixels: dW = x^T dout, the rows of dW in the order of NCHW.

    groups : as above.
    """
    cdef images_args args = gradient_args(x, dout, dW.shape[0], dW.shape[1])
    args.images = x.data
    args.gradient = &dW[0, 0]
    note_groups(&args, groups)
    return pixels_task(weight_gradient_kernel, &args,
                       (x, dout.base, dW.base, None if groups is None else groups.base))
