"""The affine map behind images, at pixels where many images have seen nothing, and its gradients.

What such images hold at a pixel is the same for all of them, x0[p]. They share a row:

    out[n, o]       += sum over c of x0[p, c] W[c P + p, o]           for all of them the same sum
    dW[c P + p, o]   = sum over the others of x[n, p, c] dout[n, o] + x0[p, c] d0[o]
    d0[o]            = sum over them of dout[n, o]
    sum of dx[n, p]  = (sum over o of d0[o] W[c P + p, o]) f'(x0[p, c])

Who reads dx takes no more of them than this sum: it is written for one of them, 0 for the others.
The rows of the other images are found by lists.
"""

from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy, memset

from cnn_core._affine_images_shape cimport (
    IMAGES, MOST_COLUMNS, TERMS, images_args, pack_panel,
)
from cnn_core._gemm cimport copy_panels, fetch_rows, multiply_add_copies
from cnn_core._simd cimport (
    ACTIVATION_NONE, activate_backward, lanes, max_columns, multiply_add_taps, multiply_sparse_row,
)
from cnn_core._simd_images cimport move_rows
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up

cdef enum:
    LEAST_SHARE = 5    # where one image in so many has seen nothing, sharing pays
    CHANNELS = 32      # at once, a multiple of any vector's lanes

cdef int32_t ORDER[TERMS]    # 0, 1, 2, ...
cdef int32_t SAME[TERMS]     # 0
cdef float F32_ONES[TERMS]
cdef double F64_ONES[TERMS]


cdef inline const real* ones(const real* like) noexcept nogil:
    if real is float:
        return F32_ONES
    else:
        return F64_ONES


cdef struct Group:
    # of images, at one pixel
    Py_ssize_t first         # image
    Py_ssize_t count         # images, at most TERMS
    Py_ssize_t seen          # of them have seen something there: a row each, the others share one
    const int32_t* at        # those, then the others, counted from the first one


cdef void group_images(Py_ssize_t n_images, Py_ssize_t n_pixels, Py_ssize_t p,
                       const uint8_t* seen, int32_t* groups) noexcept nogil:
    """groups[first // TERMS, p] = Group.seen, then Group.at; all are seen where too few are not.

    seen : [n_images, n_pixels]
    """
    cdef Py_ssize_t i, first = 0, total = 0, known, count
    cdef int32_t others[TERMS]
    cdef int32_t* row
    cdef int32_t* at
    for i in range(n_images):
        total += seen[i * n_pixels + p] != 0
    while first < n_images:
        count, known = min(<Py_ssize_t>TERMS, n_images - first), 0
        row = groups + (first // TERMS * n_pixels + p) * GROUP_ROW
        at = row + 1
        for i in range(count):    # without branches, which nobody could foresee
            at[known], others[i - known] = <int32_t>i, <int32_t>i
            known += seen[(first + i) * n_pixels + p] != 0
        memcpy(at + known, others, (count - known) * sizeof(int32_t))
        row[0] = <int32_t>known
        if LEAST_SHARE * (n_images - total) < n_images:
            row[0] = <int32_t>count
        first += count


cdef inline Py_ssize_t next_group(const images_args* a, Py_ssize_t p, Py_ssize_t first,
                                  Group* group) noexcept nogil:
    """The images from `first` on, and where the next ones begin."""
    cdef const int32_t* row = a.groups + (first // TERMS * a.n_pixels + p) * GROUP_ROW
    group.first, group.count = first, min(<Py_ssize_t>TERMS, a.n_images - first)
    group.seen, group.at = row[0], row + 1
    return first + group.count


cdef bint is_shared(const images_args* a, Py_ssize_t p) noexcept nogil:
    """Whether some images share what they have at pixel p."""
    cdef Py_ssize_t n = 0
    cdef Group group
    while n < a.n_images:
        n = next_group(a, p, n, &group)
        if group.seen < group.count:
            return True
    return False


cdef inline Py_ssize_t rows_of(const Group* group) noexcept nogil:
    return min(group.seen + 1, group.count)


cdef inline void gather(const Group* group, Py_ssize_t begin, Py_ssize_t count, Py_ssize_t n,
                        const real* x, Py_ssize_t x_row, real* rows, Py_ssize_t row,
                        bint total) noexcept nogil:
    """Some of the rows, from x, which points at the first of all images.

    total : of dout: the row that is shared is the sum of its images'. Else it is that of the first
        of them, and what stands behind each row, the next pixel, is fetched.
    """
    cdef bint shared = total and group.seen < group.count and begin + count > group.seen
    x += group.first * x_row
    move_rows(False, count - shared, n, x, group.at + begin, x_row, rows, ORDER, row,
              not total)
    if shared:
        multiply_sparse_row(n, group.count - group.seen, ones(x), group.at + group.seen, x, x_row,
                            <const real*>NULL, rows + (group.seen - begin) * row)


cdef inline void add_outputs(const Group* group, Py_ssize_t begin, Py_ssize_t count, Py_ssize_t n,
                             const real* sums, Py_ssize_t row, real* out,
                             Py_ssize_t out_row) noexcept nogil:
    """Add some of the rows to what belongs to their images."""
    out += group.first * out_row
    move_rows(True, count, n, sums, ORDER, row, out, group.at + begin, out_row, False)
    if begin <= group.seen < begin + count:
        move_rows(True, group.count - group.seen - 1, n, sums + (group.seen - begin) * row, SAME,
                  row, out, group.at + group.seen + 1, out_row, False)


cdef void forward_pixel(const images_args* a, Py_ssize_t p, const real* x, const real* W,
                        real* out) noexcept nogil:
    """out += the products of pixel p; x points at it in the first image."""
    cdef Py_ssize_t n = 0, c, i, terms, count, row = round_up(a.n_out, lanes(x))
    cdef Py_ssize_t plane = a.n_pixels * a.n_out
    cdef Group group
    cdef real panels_room[CHANNELS * TERMS + LINE_BYTES]
    cdef real rows_room[IMAGES * CHANNELS + LINE_BYTES]
    cdef real sums_room[IMAGES * TERMS + LINE_BYTES]
    cdef real* panels = <real*>next_line(panels_room)
    cdef real* rows = <real*>next_line(rows_room)
    cdef real* sums = <real*>next_line(sums_room)
    W += p * a.n_out
    while n < a.n_images:
        n = next_group(a, p, n, &group)
        c = 0
        while c < a.at.channels:
            terms, i = min(<Py_ssize_t>CHANNELS, a.at.channels - c), 0
            copy_panels(a.n_out, terms, W + c * plane, plane, panels)
            if p + 1 < a.n_pixels:
                fetch_rows(terms, a.n_out, W + c * plane + a.n_out, plane)
            while i < rows_of(&group):
                count = min(<Py_ssize_t>IMAGES, rows_of(&group) - i)
                gather(&group, i, count, terms, x + c, a.at.image, rows, terms, False)
                multiply_add_copies(count, a.n_out, terms, rows, False, panels, False,
                                    <const real*>NULL, sums, row)
                add_outputs(&group, i, count, a.n_out, sums, row, out, a.out_row)
                i += count
            c += terms


cdef inline void through_activation(const images_args* a, const Group* group, Py_ssize_t begin,
                                    Py_ssize_t count, Py_ssize_t width, const real* y, real* sums,
                                    Py_ssize_t row) noexcept nogil:
    """Some rows of sums of gradients by y before they have gone through f'(y)."""
    cdef real room[IMAGES * CHANNELS + LINE_BYTES]
    cdef real* rows = <real*>next_line(room)
    if width < row:    # nothing strange behind a row
        memset(rows, 0, count * row * sizeof(real))
    gather(group, begin, count, width, y, a.before.image, rows, row, False)
    activate_backward(a.activation, a.slope, count * row, rows, sums, sums)


cdef inline void store_gradients(const Group* group, Py_ssize_t begin, Py_ssize_t count,
                                 Py_ssize_t n, const real* sums, Py_ssize_t row, real* dx,
                                 Py_ssize_t dx_row) noexcept nogil:
    """Some of the rows; of the images that share one the first gets it."""
    cdef real zeros[CHANNELS]
    dx += group.first * dx_row
    move_rows(False, count, n, sums, ORDER, row, dx, group.at + begin, dx_row, False)
    if begin <= group.seen < begin + count:
        memset(zeros, 0, sizeof(zeros))
        move_rows(False, group.count - group.seen - 1, n, zeros, SAME, 0, dx,
                  group.at + group.seen + 1, dx_row, False)


cdef inline void pack_panels(const images_args* a, Py_ssize_t p, Py_ssize_t c, Py_ssize_t width,
                             const real* W, real* panels) noexcept nogil:
    """The transpose of the rows of W for some channels of pixel p, a panel of them after the
    other."""
    cdef Py_ssize_t j = 0, columns
    while j < width:
        columns = min(max_columns(W), width - j)
        pack_panel(a, p * a.at.channels + c + j, columns, a.n_out, W, panels + j * a.n_out,
                   round_up(columns, lanes(W)))
        j += columns


cdef void input_gradient_pixel(const images_args* a, Py_ssize_t p, const real* dout, const real* W,
                               const real* y, real* dx) noexcept nogil:
    """dx of pixel p; y and dx point at it in the first image."""
    cdef Py_ssize_t n = 0, c, i, width, count, row
    cdef Group group
    cdef real panels_room[TERMS * CHANNELS + LINE_BYTES]
    cdef real rows_room[IMAGES * TERMS + LINE_BYTES]
    cdef real sums_room[IMAGES * CHANNELS + LINE_BYTES]
    cdef real* panels = <real*>next_line(panels_room)
    cdef real* rows = <real*>next_line(rows_room)
    cdef real* sums = <real*>next_line(sums_room)
    while n < a.n_images:
        n = next_group(a, p, n, &group)
        c = 0
        while c < a.at.channels:
            width, i = min(<Py_ssize_t>CHANNELS, a.at.channels - c), 0
            row = round_up(width, lanes(W))
            pack_panels(a, p, c, width, W, panels)
            while i < rows_of(&group):
                count = min(<Py_ssize_t>IMAGES, rows_of(&group) - i)
                gather(&group, i, count, a.n_out, dout, a.n_out, rows, a.n_out, True)
                multiply_add_copies(count, width, a.n_out, rows, False, panels, False,
                                    <const real*>NULL, sums, row)
                if a.activation != ACTIVATION_NONE:
                    through_activation(a, &group, i, count, width, y + c, sums, row)
                store_gradients(&group, i, count, width, sums, row, dx + c, a.at.image)
                i += count
            c += width


cdef inline Py_ssize_t find_terms(const images_args* a, const Group* group, const real* x,
                                  real* dout, Py_ssize_t row, Py_ssize_t* x_at,
                                  Py_ssize_t* dout_at) noexcept nogil:
    """Where the rows of a group stand in x and dout, of which row n_images becomes the sum of
    those that share one; returns how many there are."""
    cdef Py_ssize_t i
    for i in range(rows_of(group)):
        x_at[i] = (group.first + group.at[i]) * a.at.image
        dout_at[i] = (group.first + group.at[i]) * row
        fetch_rows(1, a.at.channels, x + x_at[i] + a.at.channels, 1)    # of the next pixel
    if group.seen < group.count:
        dout_at[group.seen] = a.n_images * row
        multiply_sparse_row(a.n_out, group.count - group.seen, ones(dout), group.at + group.seen,
                            dout + group.first * row, row, <const real*>NULL,
                            dout + a.n_images * row)
    return rows_of(group)


cdef void weight_gradient_pixel(const images_args* a, Py_ssize_t p, real* dout, Py_ssize_t row,
                                const real* x, real* dW) noexcept nogil:
    """The rows of dW of pixel p; x points at it in the first image.

    dout : [n_images + 1, row], zeros behind n_out.
    """
    cdef Py_ssize_t plane = a.n_pixels * a.n_out, n = 0, first, j, width, terms
    cdef Group group
    cdef Py_ssize_t x_at[TERMS]
    cdef Py_ssize_t dout_at[TERMS]
    cdef real zeros[MOST_COLUMNS]
    memset(zeros, 0, sizeof(zeros))
    dW += p * a.n_out
    while n < a.n_images:
        first, j = n, 0
        n = next_group(a, p, first, &group)
        terms = find_terms(a, &group, x, dout, row, x_at, dout_at)
        while j < a.n_out:
            width = min(max_columns(x), a.n_out - j)
            fetch_rows(a.at.channels, width, dW + j, plane)
            multiply_add_taps(a.at.channels, width, 1, terms, x, x_at, 1, 0, dout + j, dout_at,
                              row, &zeros[0] if first == 0 else NULL, dW + j, plane)
            j += width


for place in range(TERMS):
    ORDER[place], F32_ONES[place], F64_ONES[place] = place, 1, 1
