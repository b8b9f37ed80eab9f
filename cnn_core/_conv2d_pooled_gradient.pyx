"""The gradients of a convolution behind which a maximum is taken of windows that lie apart.

Of the pixels of a window one has a gradient, that of the window's output, and the others have none.
For window w and filter f, let g be that gradient, after the derivative of an activation between,
(oy, ox) the pixel that was the maximum, and x[oy, ox][r, s, c] the pixels of x that it has seen:

    dW[f, c, r, s] = sum over w of g[w, f] x[oy, ox][r, s, c]
    db[f]          = sum over w of g[w, f]
    dx[oy, ox][r, s, c] += g[w, f] W[f, c, r, s] for all w, f

Products with sparse rows: for dW, one row per filter with one term per window; for dx, one row per
window and pixel of it with one term per filter that has its maximum there. Gradients that are 0,
as behind a ReLU, are no terms either, nor those of windows that have seen nothing but zeros. Images
are summed in fixed groups, as in _conv2d_gradient.pyx.

Saito, Deep Learning from Scratch, sections 7.3 and 7.4.
"""

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cnn_core._conv2d_shape cimport CACHE_BYTES, conv_args
from cnn_core._conv2d_spans cimport MOST_AREA
from cnn_core._conv2d_windows cimport (
    takes_window_gradients, window_gradients_image, window_gradients_room,
)
from cnn_core._images cimport pixel
from cnn_core._seen cimport find_seen
from cnn_core._simd cimport (
    activate_backward, lanes, least_lanes, max_columns, multiply_sparse_taps, sum_rows, transpose,
)
from cnn_core._simd_images cimport pick, pick_all
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up
from cnn_core._winograd cimport takes_winograd

cdef enum:
    WEIGHTS_BYTES = 16 << 10      # of the weights that all windows of an image meet in turn,
    WHOLE_BYTES = 18 << 10        # where they are those of whole rows of the kernel

cdef double TERM = 5         # cycles that a term of dW takes at least


cdef struct Terms:
    # sparse rows: one per filter for dW, one per window and pixel of it for dx
    int32_t pixels[MOST_AREA]    # of a window, counted from its first one
    void* memory
    void* values
    int32_t* at              # pixels or filters
    int32_t* ends            # of each row's terms, after a 0
    int32_t* targets         # what each row is added to
    void* reals              # for dW the gradients [F, windows], for dx the padded image
    int32_t* numbers         # for dW those of the pixels, [F, windows]
    int32_t* places          # of the windows' first pixels
    int32_t* used            # the same, or -1 where a window has seen nothing but zeros
    uint8_t* seen            # [windows]


cdef bint find_room(const pooled_args* a, Py_ssize_t rows, Py_ssize_t reals, const real* like,
                    Terms* terms) noexcept nogil:
    """Room for so many rows with all terms of an image, and for the rest; false without memory."""
    cdef Py_ssize_t windows = a.conv.out_height * a.conv.out_width, t, w, y, x
    cdef Py_ssize_t numbers = windows * a.conv.y.channels
    cdef Py_ssize_t count = windows * a.conv.y.channels + lanes(like)
    terms.memory = malloc(LINE_BYTES + (count + round_up(reals, lanes(like))) * sizeof(real)
                          + (count + 2 * rows + 1 + numbers + 2 * windows) * sizeof(int32_t)
                          + windows)
    if terms.memory == NULL:
        return False
    terms.reals = next_line(terms.memory)
    terms.values = <real*>terms.reals + round_up(reals, lanes(like))
    terms.at = <int32_t*>(<real*>terms.values + count)
    terms.ends = terms.at + count
    terms.targets = terms.ends + rows + 1
    terms.numbers = terms.targets + rows
    terms.places = terms.numbers + numbers
    terms.used = terms.places + windows
    terms.seen = <uint8_t*>(terms.used + windows)
    terms.ends[0] = 0
    memset(terms.pixels, 0, sizeof(terms.pixels))
    for t in range(a.area):
        terms.pixels[t] = <int32_t>(t // a.columns * a.conv.sy * a.padded_width
                                    + t % a.columns * a.conv.sx)
    for w in range(windows):
        y = w // a.conv.out_width
        x = w - y * a.conv.out_width
        terms.places[w] = <int32_t>(y * a.sy * a.conv.sy * a.padded_width + x * a.sx * a.conv.sx)
    memset(terms.seen, 1, windows)
    return True


# -------------------------------------------------------------------------- gradients of W and b


cdef inline bint by_windows(const pooled_args* a, const real* like) noexcept nogil:
    return takes_window_gradients(&a.conv, a.area, a.columns, a.sy, a.sx, like)


cdef inline void weight_gradient_image(const pooled_args* a, const real* x, const real* dy,
                                       const uint8_t* which, const uint8_t* seen,
                                       const Terms* terms, real* sums) noexcept nogil:
    """sums[f, r, s, c] += dW and, behind, += db of an image; some rows of windows at a time, while
    the pixels that they have seen are in the cache."""
    cdef Py_ssize_t windows = a.conv.out_height * a.conv.out_width, filters = a.conv.y.channels
    cdef Py_ssize_t f, n, count, w = 0, run = a.conv.kw * a.conv.inner
    cdef Py_ssize_t most = a.conv.out_width * max(CACHE_BYTES // <Py_ssize_t>(
        a.sy * a.conv.sy * a.conv.x.row * sizeof(real)), 1)
    cdef real* values = <real*>terms.values
    cdef real* gradients = <real*>terms.reals
    if seen == NULL:
        seen = terms.seen
        if a.conv.x.channels == 1:
            find_seen(&a.seen, x, terms.seen)
    sum_rows(windows, filters, dy, filters, sums + filters * elements(&a.conv))
    if by_windows(a, x):
        window_gradients_image(&a.conv, windows, terms.places, seen, x, a.padded_height,
                               a.padded_width, dy, which, sums, gradients, terms.numbers, terms.at)
        return
    for w in range(windows):
        terms.used[w] = terms.places[w] if seen[w] else -1
    transpose(windows, filters, dy, filters, gradients, windows)
    for w in range(windows * filters):
        terms.at[w] = which[w]
    # Only moved, whatever they are.
    transpose(windows, filters, <const float*>terms.at, filters, <float*>terms.numbers, windows)
    w = 0
    while w < windows:
        n, count = min(most, windows - w), 0
        for f in range(filters):
            count += pick_all(n, terms.pixels, terms.numbers + f * windows + w, terms.used + w,
                              gradients + f * windows + w, values + count, terms.at + count)
            terms.ends[f + 1] = <int32_t>count
        multiply_sparse_taps(filters, a.conv.kh, run, terms.ends, values, terms.at, x,
                             a.conv.x.channels, a.conv.dy * a.conv.x.row, sums, sums,
                             terms.targets, run)
        w += n


cdef void weight_gradient_sums(const pooled_args* a, Py_ssize_t begin, Py_ssize_t end,
                               const real* x, const real* dy, real* partial) noexcept nogil:
    """Images begin..end, whole partial sums."""
    cdef Py_ssize_t n, f, filters = a.conv.y.channels
    cdef Py_ssize_t gradients = a.conv.out_height * a.conv.out_width * filters, size = gradients
    cdef Terms terms
    cdef const uint8_t* seen = NULL
    cdef real* sums
    if by_windows(a, x):
        size = max(size, window_gradients_room(&a.conv, a.padded_height, a.padded_width, x))
    cdef bint found = find_room(a, filters, size, x, &terms)
    for f in range(filters if found else 0):
        terms.targets[f] = <int32_t>(f * elements(&a.conv))
    for n in range(begin, end):
        sums = partial + n // a.conv.images_per_sum * a.conv.partial_size
        if n % a.conv.images_per_sum == 0:    # no memory: NaN is seen, a wrong number is not
            memset(sums, 0 if found else 0xFF, a.conv.partial_size * sizeof(real))
        if a.seen.seen != NULL:
            seen = a.seen.seen + n * a.conv.out_height * a.conv.out_width
        if found:
            weight_gradient_image(a, pixel(x, &a.conv.x, n, 0, 0), pixel(dy, &a.conv.y, n, 0, 0),
                                  a.which + n * gradients, seen, &terms, sums)
    free(terms.memory)


cdef void weight_gradient_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const pooled_args* a = <const pooled_args*>args
    if a.conv.is_float:
        weight_gradient_sums(a, begin, end, <const float*>a.conv.x_data,
                             <const float*>a.conv.y_data, <float*>a.conv.partial)
    else:
        weight_gradient_sums(a, begin, end, <const double*>a.conv.x_data,
                             <const double*>a.conv.y_data, <double*>a.conv.partial)


# ------------------------------------------------------------------------- gradient of the input


cdef inline void pack_filters(const conv_args* a, Py_ssize_t begin, Py_ssize_t end, const real* W,
                              real* packed) noexcept nogil:
    """packed[f, r, s, c] = W[f, c, r, s]"""
    cdef Py_ssize_t f, size = elements(a), area = a.kh * a.kw
    for f in range(begin, end):
        transpose(a.inner, area, W + f * size, area, packed + f * size, a.inner)


cdef void pack_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const conv_args* a = <const conv_args*>args
    if a.is_float:
        pack_filters(a, begin, end, <const float*>a.x_data, <float*>a.y_data)
    else:
        pack_filters(a, begin, end, <const double*>a.x_data, <double*>a.y_data)


cdef inline void find_targets(const pooled_args* a, Terms* terms) noexcept nogil:
    """Where in the padded image each window and pixel of it adds its product."""
    cdef Py_ssize_t w, t
    for w in range(a.conv.out_height * a.conv.out_width):
        for t in range(a.area):
            terms.targets[w * a.area + t] = <int32_t>(
                (terms.places[w] + terms.pixels[t]) * a.conv.x.channels)


cdef inline void find_terms(const pooled_args* a, const real* dy, const uint8_t* which,
                            const Terms* terms) noexcept nogil:
    """For each window of an image and pixel of it, the filters that have their maximum there."""
    cdef Py_ssize_t w, t, count = 0, filters = a.conv.y.channels
    for w in range(a.conv.out_height * a.conv.out_width):
        for t in range(a.area):
            count += pick(filters, <int32_t>t, which, dy, <real*>terms.values + count,
                          terms.at + count)
            terms.ends[w * a.area + t + 1] = <int32_t>count
        dy += filters
        which += filters


cdef inline void spread_image(const pooled_args* a, const real* weights, const Terms* terms,
                              real* image) noexcept nogil:
    """image += the products of all rows, with weights at a time that stay in the nearest cache."""
    cdef Py_ssize_t rows = a.conv.out_height * a.conv.out_width * a.area
    cdef Py_ssize_t run = a.conv.kw * a.conv.inner, filter_bytes = a.conv.y.channels * sizeof(real)
    cdef Py_ssize_t most = max(WHOLE_BYTES // (run * filter_bytes), 1), r = 0, j, taps
    cdef Py_ssize_t widest = max(round_up(WEIGHTS_BYTES // filter_bytes, lanes(image)),
                                 max_columns(image))    # fewer sums would wait for each other
    cdef Py_ssize_t below = a.conv.dy * a.padded_width * a.conv.x.channels
    cdef real* to
    while r < a.conv.kh:
        taps = min(most, a.conv.kh - r)
        j = 0
        while j < run:
            to = image + r * below + j
            multiply_sparse_taps(rows, taps, min(widest, run - j), terms.ends,
                                 <const real*>terms.values, terms.at, weights + r * run + j,
                                 a.conv.kh * run, run, to, to, terms.targets, below)
            j += widest
        r += taps


cdef void input_gradient_images(const pooled_args* a, Py_ssize_t begin, Py_ssize_t end,
                                const real* dy, const real* weights, const real* previous,
                                real* dx) noexcept nogil:
    cdef Py_ssize_t n, y, channels = a.conv.x.channels, row = a.padded_width * channels
    cdef Py_ssize_t windows = a.conv.out_height * a.conv.out_width
    cdef Py_ssize_t count = windows * a.conv.y.channels, size = a.padded_height * row
    cdef Terms terms
    cdef bint found = find_room(a, windows * a.area, size, dy, &terms)
    cdef real* image = <real*>terms.reals
    cdef const real* source
    cdef real* to
    if found:
        find_targets(a, &terms)
    for n in range(begin, end):
        if found:
            memset(image, 0, size * sizeof(real))
            find_terms(a, pixel(dy, &a.conv.y, n, 0, 0), a.which + n * count, &terms)
            spread_image(a, weights, &terms, image)
        for y in range(a.height):
            to = <real*>pixel(dx, &a.out, n, y, 0)
            source = image + (y + a.top) * row + a.left * channels
            if not found:    # no memory: NaN is seen, a wrong number is not
                memset(to, 0xFF, a.width * channels * sizeof(real))
            elif previous != NULL:
                activate_backward(a.conv.activation, a.conv.slope, a.width * channels,
                                  pixel(previous, &a.conv.previous, n, y, 0), source, to)
            else:
                memcpy(to, source, a.width * channels * sizeof(real))
    free(terms.memory)


cdef void input_gradient_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const pooled_args* a = <const pooled_args*>args
    if a.conv.is_float:
        input_gradient_images(a, begin, end, <const float*>a.conv.y_data,
                              <const float*>a.conv.weights, <const float*>a.conv.previous_data,
                              <float*>a.dx)
    else:
        input_gradient_images(a, begin, end, <const double*>a.conv.y_data,
                              <const double*>a.conv.weights, <const double*>a.conv.previous_data,
                              <double*>a.dx)


# -------------------------------------------------------------------------------------- the choice


cdef bint gradients_pay(const pooled_args* a, const real* like) noexcept nogil:
    """Whether dW takes fewer cycles per window, roughly, than products of all its pixels."""
    cdef Py_ssize_t vector = lanes(like), run = a.conv.kw * a.conv.inner, outer = a.conv.outer
    cdef double all_products = <double>a.area * elements(&a.conv) * outer / vector
    cdef double vectors = <double>a.conv.kh * round_up(run, least_lanes(like)) / vector
    if takes_winograd(&a.conv):
        all_products *= 4. / 9
    if by_windows(a, like):    # a choice and a product for each weight
        return 1.3 * elements(&a.conv) * round_up(outer, vector) / vector < all_products
    if a.conv.inner % vector:    # vectors lie across cache lines
        vectors *= 1.5
    return outer * max(vectors, TERM) < all_products
