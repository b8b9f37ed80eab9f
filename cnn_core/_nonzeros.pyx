"""Products with a matrix that may be mostly zeros, as images of digits are.

    C[m, n] = A[m, k] B[k, n] + bias

Where few elements of a block of A are not 0, they are gathered, and each is multiplied by its row
of B; where many are, the block is multiplied as a dense one. Terms are added in the same order, and
those that are left out are 0: the sums are the same to the last bit, unless B holds infinite
numbers or NaN, or they are sums of -0.
"""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cnn_core._gemm cimport MOST_AHEAD, multiply_add, multiply_add_fetching, rows_behind
from cnn_core._simd cimport fetch, lanes, multiply_nonzero_terms, transpose
from cnn_core._simd_images cimport pick
from cnn_core._types cimport real, round_up

cdef enum:
    ROWS = 16            # of A at once, where they are gathered from its columns,
    FEW_ROWS = 2         # and where they lie in memory: what is fetched comes bit by bit
    BLOCK_K = 256        # terms at once, at most
    BLOCK_BYTES = 64 << 10    # of the rows of B that stay in the nearer caches meanwhile
    WIDEST_BYTES = 512   # of a row of B that a sparse product takes at once
    ROWS_THAT_PAY = 24   # for a copy of B whose rows begin at cache lines
    LINE_BYTES = 64
    SAMPLES = 4          # rows that are looked at before all others


cdef struct Room:
    void* memory
    void* copy           # of a block's rows of B
    void* turned         # some rows of a block, if they are columns of A
    int32_t* at          # their nonzeros
    Py_ssize_t block     # terms
    Py_ssize_t rows
    Py_ssize_t copied    # elements from row to row of the copy, 0 for none


cdef bint find_room(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, bint by_rows, Py_ssize_t b_row,
                    const real* like, Room* room) noexcept nogil:
    """False without memory."""
    cdef Py_ssize_t line = LINE_BYTES // sizeof(real), wide = round_up(n, line), size
    cdef bint narrow = wide * <Py_ssize_t>sizeof(real) <= WIDEST_BYTES
    room.block = BLOCK_BYTES // (WIDEST_BYTES if not narrow else wide * <Py_ssize_t>sizeof(real))
    room.block = min(min(room.block // line * line, BLOCK_K), round_up(k, line))
    room.rows = FEW_ROWS if by_rows else ROWS
    room.copied = wide if narrow and m >= ROWS_THAT_PAY and b_row % line != 0 else 0
    size = room.rows * room.block
    room.memory = malloc(LINE_BYTES + (size + room.rows + 1 + line) * sizeof(int32_t)
                         + (room.block * room.copied + size) * sizeof(real))
    if room.memory == NULL:
        return False
    room.copy = <char*>room.memory + (LINE_BYTES - <size_t>room.memory % LINE_BYTES)
    room.turned = <real*>room.copy + room.block * room.copied
    room.at = <int32_t*>(<real*>room.turned + size)
    return True


cdef inline double most_nonzeros(Py_ssize_t n, const real* like) noexcept nogil:
    """The share of nonzeros up to which to gather them pays, for n columns of B. Both ways take the
    vectors of a row of B, one way more for each nonzero, the other for each element."""
    cdef double vectors = (n + lanes(like) - 1) // lanes(like)
    return (0.85 * vectors - 1) / (vectors + 1)


cdef bint seems_sparse(Py_ssize_t rows, Py_ssize_t size, const real* a, Py_ssize_t row,
                       double most) noexcept nogil:
    """Whether some rows of A as they lie in memory, `size` elements each, are mostly zeros."""
    cdef int32_t at[BLOCK_K + LINE_BYTES]
    cdef Py_ssize_t i, p, count = 0, samples = min(SAMPLES, rows)
    for i in range(samples):
        p = 0
        while p < size:
            count += pick(min(size - p, BLOCK_K), 0, NULL, a + i * rows // samples * row + p,
                          <real*>NULL, at)
            p += BLOCK_K
    return count <= most * samples * size


cdef inline bint multiply_rows(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, real* c, Py_ssize_t c_row, const Room* room,
    double most,
) noexcept nogil:
    """C = A B, or C += A B where `add`, for a few rows and a block of terms; false if they are
    too dense."""
    if a_col != 1:
        transpose(k, m, a, a_col, <real*>room.turned, room.block)
        a, a_row = <const real*>room.turned, room.block
    return multiply_nonzero_terms(m, n, k, a, a_row, b, b_row, c if add else <const real*>NULL, c,
                                  c_row, <Py_ssize_t>(most * m * k), room.at)


cdef inline void multiply_block(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, bint add, real* c, Py_ssize_t c_row, const Room* room,
    double most, const real** ahead, Py_ssize_t p,
) noexcept nogil:
    """The same for all rows and a block of terms, which begins with term p of `ahead`."""
    cdef Py_ssize_t i = 0, j, q, rows, copy_row = b_row, line = LINE_BYTES // sizeof(real)
    cdef const real* copy = b
    if room.copied:
        copy, copy_row = <const real*>room.copy, room.copied
        for i in range(k):
            memcpy(<real*>room.copy + i * copy_row, b + i * b_row, n * sizeof(real))
        i = 0
    while i < m:
        rows = min(room.rows, m - i)
        if not multiply_rows(rows, n, k, a + i * a_row, a_row, a_col, copy, copy_row, add,
                             c + i * c_row, c_row, room, most):
            multiply_add(rows, n, k, a + i * a_row, a_row, a_col, b, b_row, add,
                         <const real*>NULL, c + i * c_row, c_row)
        if ahead != NULL:
            for j in range(i, i + rows):
                for q in range((k + line - 1) // line):
                    fetch(ahead[j] + p + q * line)
        i += rows


cdef void multiply_nonzeros(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, const real* bias, real* c, Py_ssize_t c_row,
    const real** ahead=NULL,
) noexcept nogil:
    """C = A B + bias; a_row or a_col is 1. bias[n] may be NULL, and so may ahead[m], see
    `multiply_add_fetching`."""
    cdef double most = most_nonzeros(n, a)
    cdef Py_ssize_t i, terms, p = 0
    cdef bint by_rows = a_col == 1
    cdef const real* behind[MOST_AHEAD]
    cdef Room room
    if ahead == NULL and rows_behind(m, k, a, a_row, a_col, behind):
        ahead = behind
    if (k > 0 and most > 0
            and seems_sparse(m if by_rows else k, k if by_rows else m, a,
                             a_row if by_rows else a_col, most)
            and find_room(m, n, k, by_rows, b_row, a, &room)):
        for i in range(m if bias != NULL else 0):
            memcpy(c + i * c_row, bias, n * sizeof(real))
        while p < k:
            terms = min(room.block, k - p)
            multiply_block(m, n, terms, a + p * a_col, a_row, a_col, b + p * b_row, b_row,
                           bias != NULL or p > 0, c, c_row, &room, most, ahead, p)
            p += terms
        free(room.memory)
        return
    if ahead == NULL:
        multiply_add(m, n, k, a, a_row, a_col, b, b_row, False, bias, c, c_row)
    else:
        multiply_add_fetching(m, n, k, a, a_row, a_col, b, b_row, False, bias, c, c_row, ahead)
