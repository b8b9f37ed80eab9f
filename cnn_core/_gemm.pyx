"""Products of whole matrices: which part of A and B the micro-kernel sees, and when.

    C[m, n] += A[m, k] B[k, n]

A is read where it lies, with any strides. B is read where it lies too (`multiply_add`) or from
panels packed beforehand (`multiply_add_packed`):

    packed B:  panel 0 | panel 1 | ...      panel = k rows of max_columns adjacent elements,
                                            columns past n are zero

Terms are added in the order of k, in blocks of BLOCK_K so that the block of B stays in the first
level of the cache while the rows of A pass by.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport lanes, max_columns, multiply_add_taps, multiply_add_tile, transpose
from cnn_core._simd_images cimport copy_rows
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up

cdef enum:
    BLOCK_K = 128
    BLOCK_N = 1024       # columns of C that stay in the second level of the cache, whole panels
    # The micro-kernel reads whole vectors: fewer than 16 columns over 15 rows, or one row of 64.
    TAIL_ELEMENTS = 256
    MOST_COLUMNS = 64    # of a tile, at least max_columns
    # Rows so far apart share few lines of the nearest cache and need a page each: they are copied
    # together where they are read often enough.
    FAR_BYTES = 1536
    ROWS_THAT_PAY = 24
    COLUMNS_THAT_PAY = 256
    LANE_WEIGHTS = 1 << 16    # of up to so many a dense layer follows the one before in a lane
    MOST_LINES = 16      # of a row in BLOCK_K terms
    COPIED_K = 384       # of copied blocks: a panel of B and some rows of A in the nearer caches,
    COPIED_M = 256       # the block of A beside them,
    COPIED_N = 2048      # that of B in the farthest
    ROWS_COPIED = 16     # of B at once: the processor sees the next lines of so many coming
    COMPARED = 1 << 14   # bytes at once


cdef void multiply_add(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, const real* bias, real* c, Py_ssize_t c_row,
) noexcept nogil:
    """C = A B + bias, or C += A B where `add`, with B row by row in memory (b_row >= n), read
    nowhere past its last element. bias[n] may be NULL.
    """
    cdef const real* ahead[MOST_AHEAD]
    # Short rows are mostly what a layer before has just written.
    if (m >= ROWS_THAT_PAY and k > BLOCK_K and n * k > LANE_WEIGHTS
            and rows_behind(m, k, a, a_row, a_col, ahead)):
        multiply_add_fetching(m, n, k, a, a_row, a_col, b, b_row, add, bias, c, c_row, ahead)
    else:
        multiply_add_fetching(m, n, k, a, a_row, a_col, b, b_row, add, bias, c, c_row, NULL)


cdef void multiply_add_fetching(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, const real* bias, real* c, Py_ssize_t c_row,
    const real** ahead,
) noexcept nogil:
    """The same; as each row of A is read, ahead[i] is brought nearer, which need not be there.

    ahead[m] may be NULL, and is used up; with it, a_col is 1.
    """
    cdef Py_ssize_t far = FAR_BYTES // sizeof(real)
    cdef bint far_a = n >= COLUMNS_THAT_PAY and max(a_row, a_col) >= far
    cdef bint far_b = m >= ROWS_THAT_PAY and b_row >= far
    if far_a and far_b and multiply_add_copied(m, n, k, a, a_row, a_col, b, b_row, add, bias, c,
                                               c_row):
        return
    multiply_add_in_place(m, n, k, a, a_row, a_col, b, b_row, add, bias, c, c_row, far_a, far_b,
                          ahead)


cdef inline Py_ssize_t part(Py_ssize_t size, Py_ssize_t most) noexcept nogil:
    """The first of the fewest parts of at most `most`, all nearly of one size."""
    cdef Py_ssize_t parts = max((size + most - 1) // most, 1)
    return (size + parts - 1) // parts


cdef bint multiply_add_copied(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, const real* bias, real* c, Py_ssize_t c_row,
) noexcept nogil:
    """The same through copies of blocks of A and B; false without memory for them."""
    cdef Py_ssize_t widest = max_columns(b), n0 = 0, p0, i0, columns, block, rows
    cdef Py_ssize_t b_elements = COPIED_K * round_up(min(n, COPIED_N), widest)
    cdef void* copies = malloc(
        LINE_BYTES + (b_elements + COPIED_K * min(m, COPIED_M)) * sizeof(real))
    cdef real* b_copy = <real*>next_line(copies)
    if copies == NULL:
        return False
    while n0 < n:
        columns, p0 = min(round_up(part(n - n0, COPIED_N), widest), n - n0), 0
        while p0 < k or p0 == 0:
            block, i0 = part(k - p0, COPIED_K), 0
            copy_panels(columns, block, b + p0 * b_row + n0, b_row, b_copy)
            while i0 < m:
                rows = part(m - i0, COPIED_M)
                copy_block(rows, block, a + i0 * a_row + p0 * a_col, a_row, a_col,
                           b_copy + b_elements)
                multiply_add_copies(
                    rows, columns, block, b_copy + b_elements, a_row == 1, b_copy, add or p0 > 0,
                    bias + n0 if bias != NULL else bias, c + i0 * c_row + n0, c_row)
                i0 += rows
            p0 += max(block, 1)
        n0 += columns
    free(copies)
    return True


cdef void copy_panels(Py_ssize_t n, Py_ssize_t k, const real* b, Py_ssize_t b_row,
                      real* panels) noexcept nogil:
    """Panels of B[k, n], rows padded to whole vectors."""
    cdef Py_ssize_t widest = max_columns(b), p0 = 0, j0, rows, row
    while p0 < k:
        rows, j0 = min(ROWS_COPIED, k - p0), 0
        while j0 < n:
            row = round_up(min(widest, n - j0), lanes(b))
            copy_rows(rows, min(widest, n - j0), b + p0 * b_row + j0, b_row,
                      panels + j0 * k + p0 * row, row)
            j0 += widest
        p0 += rows


cdef void multiply_add_copies(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, bint a_by_columns, const real* panels,
    bint add, const real* bias, real* c, Py_ssize_t c_row,
) noexcept nogil:
    """C = A B + bias, or C += A B, from such panels and A[m, k] without gaps, row by row or
    column by column."""
    cdef Py_ssize_t widest = max_columns(a), j0 = 0, width
    cdef real zeros[MOST_COLUMNS]
    memset(zeros, 0, sizeof(zeros))
    while j0 < n:
        width = min(widest, n - j0)
        multiply_add_tile(
            m, width, k, a, 1 if a_by_columns else k, m if a_by_columns else 1, panels + j0 * k,
            round_up(width, lanes(a)), start_of(add, 0, bias, j0, zeros), c + j0, c_row)
        j0 += widest


cdef void multiply_add_in_place(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, const real* bias, real* c, Py_ssize_t c_row,
    bint copy_a, bint copy_b, const real** ahead,
) noexcept nogil:
    """The same from where A and B lie, but for the one whose rows lie far apart."""
    cdef Py_ssize_t widest = max_columns(b), n0 = 0, p0, j0, block, i
    cdef void* copies = NULL
    cdef real* b_copy = NULL     # of BLOCK_K rows of a panel of B
    cdef real* a_copy = NULL     # of BLOCK_K columns of A
    cdef real zeros[MOST_COLUMNS]
    memset(zeros, 0, sizeof(zeros))
    if copy_a or copy_b:
        copies = malloc(LINE_BYTES + BLOCK_K * (widest + (m if copy_a else 0)) * sizeof(real))
        if copies == NULL:
            copy_a = copy_b = False
        b_copy = <real*>next_line(copies)
        a_copy = b_copy + BLOCK_K * widest
    while n0 < n:
        p0 = 0
        while p0 < k or p0 == 0:
            block = min(BLOCK_K, k - p0)
            if copy_a:
                copy_block(m, block, a + p0 * a_col, a_row, a_col, a_copy)
            j0 = n0
            while j0 < min(n0 + BLOCK_N, n):
                panel_product(
                    m, n - j0, block, k - p0, a_copy if copy_a else a + p0 * a_col,
                    a_row if not copy_a else 1 if a_row == 1 else block,
                    a_col if not copy_a else m if a_row == 1 else 1,
                    b + p0 * b_row + j0, b_row, b_copy if copy_b else <real*>NULL,
                    start_of(add, p0, bias, j0, zeros), c + j0, c_row,
                    ahead if j0 == 0 else NULL)
                j0 += widest
            if ahead != NULL and n0 == 0:
                for i in range(m):
                    ahead[i] += block
            p0 += BLOCK_K
        n0 += BLOCK_N
    free(copies)


cdef inline void panel_product(
    Py_ssize_t m, Py_ssize_t n_left, Py_ssize_t block, Py_ssize_t k_left, const real* a,
    Py_ssize_t a_row, Py_ssize_t a_col, const real* b, Py_ssize_t b_row, real* b_copy,
    const real* start, real* c, Py_ssize_t c_row, const void* ahead,
) noexcept nogil:
    """The product of `block` terms for a panel of columns, n_left columns and k_left rows before
    the end of B; through b_copy unless it is NULL.
    """
    cdef Py_ssize_t width = min(max_columns(b), n_left), whole = round_up(width, lanes(b)), tail
    cdef Py_ssize_t safe
    cdef real padded[TAIL_ELEMENTS]
    if b_copy != NULL:
        copy_rows(block, width, b, b_row, b_copy, whole)
        multiply_add_tile(m, width, block, a, a_row, a_col, b_copy, whole, start, c, c_row)
        return
    # Only the rows at the very end of B are followed by memory that is not B's.
    tail = tail_rows(n_left, width, b_row, lanes(b))
    safe = max(min(block, k_left - tail), 0)
    multiply_add_lines(m, width, safe, a, a_row, a_col, b, b_row, start, c, c_row, ahead)
    if safe < block:
        copy_rows(block - safe, width, b + safe * b_row, b_row, padded, whole)
        multiply_add_tile(m, width, block - safe, a + safe * a_col, a_row, a_col, padded, whole,
                          <const real*>NULL, c, c_row)


cdef inline void multiply_add_lines(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, const real* start, real* c, Py_ssize_t c_row,
    const void* ahead,
) noexcept nogil:
    """A tile; where `ahead` is not NULL, the terms of a line of A are a tap."""
    cdef Py_ssize_t line = LINE_BYTES // sizeof(real), taps = k // line, done = taps * line, t
    cdef Py_ssize_t a_at[MOST_LINES]
    cdef Py_ssize_t b_at[MOST_LINES]
    if ahead == NULL or taps == 0:
        multiply_add_tile(m, n, k, a, a_row, a_col, b, b_row, start, c, c_row)
        return
    for t in range(taps):
        a_at[t], b_at[t] = t * line, t * line * b_row
    multiply_add_taps(m, n, line, taps, a, a_at, a_row, a_col, b, b_at, b_row, start, c, c_row,
                      ahead)
    if done < k:
        multiply_add_tile(m, n, k - done, a + done * a_col, a_row, a_col, b + done * b_row, b_row,
                          <const real*>NULL, c, c_row)


cdef inline void copy_block(Py_ssize_t m, Py_ssize_t k, const real* a, Py_ssize_t a_row,
                            Py_ssize_t a_col, real* copy) noexcept nogil:
    """A[m, k] without gaps, in the order in which it lies in memory."""
    cdef Py_ssize_t i
    if a_row == 1:
        for i in range(k):
            memcpy(copy + i * m, a + i * a_col, m * sizeof(real))
    else:
        for i in range(m):
            memcpy(copy + i * k, a + i * a_row, k * sizeof(real))


cdef inline const real* start_of(bint add, Py_ssize_t p0, const real* bias, Py_ssize_t j0,
                                 const real* zeros) noexcept nogil:
    """What the rows of C begin with: their own values, but in the first block of terms."""
    if add or p0 > 0:
        return NULL
    return bias + j0 if bias != NULL else zeros


cdef inline Py_ssize_t tail_rows(Py_ssize_t left, Py_ssize_t width, Py_ssize_t b_row,
                                 Py_ssize_t vector) noexcept nogil:
    """How many last rows of B would be read past B's end, `left` columns standing in each."""
    cdef Py_ssize_t surplus = round_up(width, vector) - left
    return (surplus + b_row - 1) // b_row if surplus > 0 else 0


cdef void multiply_add_packed(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* packed, bint add, const real* bias, real* c, Py_ssize_t c_row,
) noexcept nogil:
    """The same with B in packed panels."""
    cdef Py_ssize_t widest = max_columns(packed), p0 = 0, j0
    cdef real zeros[MOST_COLUMNS]
    memset(zeros, 0, sizeof(zeros))
    while p0 < k or p0 == 0:
        j0 = 0
        while j0 < n:
            multiply_add_tile(m, min(widest, n - j0), min(BLOCK_K, k - p0), a + p0 * a_col,
                              a_row, a_col, packed + j0 * k + p0 * widest, widest,
                              start_of(add, p0, bias, j0, zeros), c + j0, c_row)
            j0 += widest
        p0 += BLOCK_K


cdef Py_ssize_t packed_elements(Py_ssize_t n, Py_ssize_t k, const real* like) noexcept nogil:
    """The size of B[k, n] in packed panels."""
    return round_up(n, max_columns(like)) * k


cdef void pack_transposed_panel(
    Py_ssize_t panel, Py_ssize_t n, Py_ssize_t k, const real* b_transposed, real* packed,
) noexcept nogil:
    """One packed panel of B[k, n] from its transpose, b_transposed[n, k]."""
    cdef Py_ssize_t widest = max_columns(packed), j0 = panel * widest
    cdef Py_ssize_t width = min(widest, n - j0)
    cdef real* out = packed + j0 * k
    if width < widest:
        memset(out, 0, k * widest * sizeof(real))
    transpose(width, k, b_transposed + j0 * k, k, out, widest)


cdef struct pack_args:
    Py_ssize_t n
    Py_ssize_t k
    const void* source
    void* packed
    bint is_float


cdef void pack_transposed_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const pack_args* a = <const pack_args*>args
    cdef Py_ssize_t panel
    for panel in range(begin, end):
        if a.is_float:
            pack_transposed_panel(panel, a.n, a.k, <const float*>a.source, <float*>a.packed)
        else:
            pack_transposed_panel(panel, a.n, a.k, <const double*>a.source, <double*>a.packed)


def pack_transposed(const real[:, ::1] source, real[::1] packed):
    """Task: packed panels of the transpose of source[n, k] (`packed_size` elements)."""
    cdef pack_args args
    cdef Py_ssize_t widest = max_columns(&packed[0])
    args.n = source.shape[0]
    args.k = source.shape[1]
    args.source = &source[0, 0]
    args.packed = &packed[0]
    args.is_float = real is float
    if packed.shape[0] < packed_elements(args.n, args.k, &packed[0]):
        raise ValueError("packed is too small")
    return new_task(pack_transposed_kernel, &args, sizeof(args), round_up(args.n, widest) // widest,
                    1, 1, 2 * widest * args.k, (source.base, packed.base))


cdef struct align_args:
    const void* source
    void* aligned
    size_t size          # bytes of a row of each
    size_t row


cdef void align_rows_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const align_args* a = <const align_args*>args
    cdef Py_ssize_t i
    for i in range(begin, end):
        memcpy(<char*>a.aligned + i * a.row, <const char*>a.source + i * a.size, a.size)


def align_rows(const real[:, ::1] source, real[:, ::1] aligned):
    """Task over rows: source[k, n] in the first n columns of `aligned`."""
    cdef align_args args
    expect(source.shape[0] == aligned.shape[0] and 0 < source.shape[1] <= aligned.shape[1],
           "source, aligned")
    args.source, args.aligned = &source[0, 0], &aligned[0, 0]
    args.size, args.row = source.shape[1] * sizeof(real), aligned.shape[1] * sizeof(real)
    return new_task(align_rows_kernel, &args, sizeof(args), source.shape[0], 1, source.shape[0],
                    source.shape[1], (source.base, aligned.base))


def aligned_row(Py_ssize_t n, bint is_float):
    """Elements from row to row of n columns whose vectors lie in one cache line each."""
    return round_up(n, lanes(<float*>NULL) if is_float else lanes(<double*>NULL))


def packed_size(Py_ssize_t n, Py_ssize_t k, bint is_float):
    """Elements that the packed panels of a matrix of k rows and n columns take."""
    if is_float:
        return packed_elements(n, k, <const float*>NULL)
    return packed_elements(n, k, <const double*>NULL)


cdef struct watched:
    const unsigned char* now
    unsigned char* before
    Py_ssize_t size
    Py_ssize_t first     # item of the comparison


cdef struct compare_args:
    const watched* pairs
    Py_ssize_t n_pairs
    unsigned char* differs


cdef void compare_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const compare_args* a = <const compare_args*>args
    cdef const watched* pair
    cdef Py_ssize_t item, i = 0, at
    for item in range(begin, end):
        while i + 1 < a.n_pairs and a.pairs[i + 1].first <= item:
            i += 1
        pair = a.pairs + i
        at = (item - pair.first) * COMPARED
        a.differs[item] = memcmp(pair.now + at, pair.before + at,
                                 min(pair.size - at, <Py_ssize_t>COMPARED)) != 0


cdef class Snapshot:
    """Copies of C-contiguous arrays, to tell whether what was packed from them still holds."""

    cdef list arrays             # and the copies: keeps the memory behind the pointers alive
    cdef watched* pairs
    cdef Py_ssize_t n_pairs
    cdef Py_ssize_t n_items
    cdef unsigned char* differs    # of each item

    def __cinit__(self, arrays):
        cdef const unsigned char[::1] now
        cdef unsigned char[::1] before
        cdef watched* pair
        self.arrays = []
        self.pairs = <watched*>malloc(max(len(arrays), 1) * sizeof(watched))
        if self.pairs == NULL:
            raise MemoryError()
        for array in arrays:
            now = memoryview(array).cast("B")
            before = bytearray(now.shape[0])
            self.arrays += [now, before]
            pair = self.pairs + self.n_pairs
            pair.now, pair.before, pair.size = &now[0], &before[0], now.shape[0]
            pair.first = self.n_items
            self.n_items += (pair.size + COMPARED - 1) // COMPARED
            self.n_pairs += 1
        self.differs = <unsigned char*>malloc(max(self.n_items, 1))
        if self.differs == NULL:
            raise MemoryError()
        self.take()

    def __dealloc__(self):
        free(self.pairs)
        free(self.differs)

    def compare(self):
        """Task: `changed` becomes true where a bit is another than at the last `take`."""
        cdef compare_args args
        args.pairs, args.n_pairs, args.differs = self.pairs, self.n_pairs, self.differs
        return new_task(compare_kernel, &args, sizeof(args), self.n_items, 1, 1, COMPARED // 64,
                        self)

    @property
    def changed(self):
        cdef Py_ssize_t i
        for i in range(self.n_items):
            if self.differs[i]:
                return True
        return False

    def take(self):
        """Copy the arrays as they are."""
        cdef Py_ssize_t i
        memset(self.differs, 0, self.n_items)
        for i in range(self.n_pairs):
            memcpy(self.pairs[i].before, self.pairs[i].now, self.pairs[i].size)
