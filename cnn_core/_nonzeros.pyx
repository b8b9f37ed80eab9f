"""Products with a matrix that may be mostly zeros, as images of digits are.

    C[m, n] = A[m, k] B[k, n] + bias

A few rows of A are taken together. Where they share enough zeros, the other terms are listed, and
their rows of B are multiplied by those elements; else the rows are multiplied as dense ones. Terms
are added in the same order, and those that are left out are 0: the sums are the same to the last
bit, unless B holds infinite numbers or NaN, or they are sums of -0.
"""

from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport free, malloc

from cnn_core._gemm cimport MOST_AHEAD, multiply_add, multiply_add_fetching
from cnn_core._simd cimport lanes, transpose
from cnn_core._simd_images cimport (
    copy_rows, listed_vectors, multiply_nonzero_terms, nonzero_rows, pick_any,
)
from cnn_core._types cimport LINE_BYTES, next_line, real, round_up

cdef enum:
    ROWS = 4             # of A at once, at least nonzero_rows: what is fetched comes bit by bit;
    LISTED_ROWS = 48     # where each has a list, made beside the products of the row before:
    LISTED_ROWS_AHEAD = 12    # of A as it lies in memory is the one that comes in meanwhile,
    ROWS_AHEAD = 8       # at least where rows are not listed in turn
    BLOCK_K = 1024       # terms at once, at most,
    BLOCK_BYTES = 64 << 10     # of whose rows of B stay in the nearer caches for each row of A
    NARROW_BYTES = 256   # of a row of B: of shorter ones
    NARROW_BLOCK_BYTES = 64 << 10    # stay near, also where rows of A share lists
    NEAR_TERMS = 136     # whose parts of rows of B stay in the nearest cache for many rows of A
    WIDEST_BYTES = 512   # of a row of B that is copied, or read at once
    ROWS_THAT_PAY = 24   # for a copy of B whose rows begin at vectors
    TURNED = 16          # columns of A that are turned, or used, at once: a cache line or two;
    MORE_TURNED = 32     # where they use each row of B in parts, which stay in the nearest cache;
    TURNED_K = 256       # of so many terms
    ROOM = 2 * 1024 + 32    # words, two terms of a list each: ROWS of BLOCK_K, TURNED of TURNED_K
    MOST_LANES = 16


cdef inline bint in_parts(Py_ssize_t n, const real* like) noexcept nogil:
    """Whether many rows of A use a part of the rows of B after each other, then the next part."""
    return n * <Py_ssize_t>sizeof(real) > WIDEST_BYTES


cdef inline Py_ssize_t rows_with_room(Py_ssize_t k, const real* like) noexcept nogil:
    """The rows whose lists and their ends have room, however many of k terms are not 0."""
    return (2 * ROOM - MOST_LANES - 1) // (k + 1) * nonzero_rows(like)


cdef inline bint listed_in_turn(Py_ssize_t n, Py_ssize_t b_columns,
                                const real* like) noexcept nogil:
    """Whether the list of a row of A is made beside the products of the row before, and then left:
    rows of B are few whole vectors."""
    cdef Py_ssize_t whole = round_up(n, lanes(like))
    return 0 < whole <= min(listed_vectors(like) * lanes(like), b_columns)


cdef inline Py_ssize_t block_terms(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, Py_ssize_t b_row,
                                   bint by_rows, const real* like) noexcept nogil:
    """Terms at once, of k: whole cache lines of rows of A. A few rows use each row of B once."""
    cdef Py_ssize_t row = min(n * <Py_ssize_t>sizeof(real), <Py_ssize_t>WIDEST_BYTES)
    cdef Py_ssize_t bytes = (NARROW_BLOCK_BYTES if row <= NARROW_BYTES and m > ROWS
                             else nonzero_rows(like) * BLOCK_BYTES)
    cdef Py_ssize_t most = min(max(bytes // row, 1), BLOCK_K if by_rows else TURNED_K), blocks
    if in_parts(n, like) and m > ROWS and b_row % lanes(like) != 0:
        most = NEAR_TERMS
    blocks = (k + most - 1) // most
    return round_up((k + blocks - 1) // blocks, MOST_LANES)


cdef inline double most_terms(Py_ssize_t n, const real* like) noexcept nogil:
    """The share of terms up to which a list of them pays, for n columns of B. Both ways take the
    vectors of a row of B, for rows that share a list about as often; tiles of few vectors have room
    for more rows."""
    cdef double vectors = (n + lanes(like) - 1) // lanes(like)
    if nonzero_rows(like) > 1:
        return 0.9 if vectors >= 4 else 0.8 if vectors >= 2 else 0.5
    return (0.85 * vectors - 0.8) / (vectors + 0.2)


cdef inline bint copy_pays(Py_ssize_t m, Py_ssize_t n, Py_ssize_t b_row,
                           const real* like) noexcept nogil:
    """Whether rows of B meet so many rows of A that they are copied first, so that no vector lies
    in two cache lines: if rows of A are by themselves, each row of B is loaded more often."""
    return (nonzero_rows(like) == 1 and m >= ROWS_THAT_PAY
            and n * <Py_ssize_t>sizeof(real) <= WIDEST_BYTES and b_row % lanes(like) != 0)


cdef bint seems_sparse(Py_ssize_t m, Py_ssize_t k, const real* a, Py_ssize_t a_row,
                       Py_ssize_t together, double most) noexcept nogil:
    """Whether few enough of k terms are not 0 for some rows of A in the middle."""
    cdef int32_t at[BLOCK_K + MOST_LANES]
    cdef Py_ssize_t p = 0, count = 0
    together = min(together, m)
    a += (m - together) // 2 * a_row
    while p < k:
        count += pick_any(together, min(k - p, BLOCK_K), a + p, a_row, at)
        p += BLOCK_K
    return count <= most * k


cdef inline void multiply_rows(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, Py_ssize_t b_columns, bint add, const real* bias, real* c,
    Py_ssize_t c_row, double most, const real** ahead,
) noexcept nogil:
    """C = A B + bias, or C += A B where `add`, for a few rows and a block of terms."""
    cdef uint64_t room[ROOM]
    cdef Py_ssize_t made = multiply_nonzero_terms(
        m, n, k, a, a_row, a_col, b, b_row, b_columns, <const real*>c if add else bias,
        c_row if add else 0, c, c_row, <Py_ssize_t>(most * k), room, ahead)
    if made == m:
        return
    m -= made
    a += made * a_row
    c += made * c_row
    if ahead == NULL:
        multiply_add(m, n, k, a, a_row, a_col, b, b_row, add, bias, c, c_row)
    else:
        multiply_add_fetching(m, n, k, a, a_row, a_col, b, b_row, add, bias, c, c_row, ahead + made)


cdef inline void multiply_block(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, const real* b,
    Py_ssize_t b_row, Py_ssize_t b_columns, bint add, const real* bias, real* c, Py_ssize_t c_row,
    double most, const real** ahead, Py_ssize_t p,
) noexcept nogil:
    """The same for all rows and a block of terms, which begins with term p of `ahead`."""
    cdef Py_ssize_t i = 0, j, rows, most_rows = LISTED_ROWS, rows_ahead = LISTED_ROWS_AHEAD
    cdef const real* soon[MOST_AHEAD]
    if not listed_in_turn(n, b_columns, a):
        most_rows = min(MOST_AHEAD if in_parts(n, a) and k <= round_up(NEAR_TERMS, MOST_LANES)
                        else ROWS, rows_with_room(k, a))
        rows_ahead = max(most_rows, <Py_ssize_t>ROWS_AHEAD)
    while i < m:
        rows = min(m - i, most_rows)
        for j in range(rows):
            soon[j] = (ahead[i + j] + p if ahead != NULL
                       else a + (i + j + rows_ahead) * a_row)
        multiply_rows(rows, n, k, a + i * a_row, a_row, 1, b, b_row, b_columns, add, bias,
                      c + i * c_row, c_row, most, soon)
        i += rows


cdef inline void multiply_turned(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_col, const real* b,
    Py_ssize_t b_row, Py_ssize_t b_columns, bint add, const real* bias, real* c, Py_ssize_t c_row,
    double most,
) noexcept nogil:
    """The same where the columns of A lie in memory as rows: they are turned, and then listed, only
    where a list is used more than once."""
    cdef real turned[MORE_TURNED * TURNED_K]
    cdef Py_ssize_t i = 0, rows
    cdef Py_ssize_t most_rows = min(MORE_TURNED if in_parts(n, a) else TURNED, rows_with_room(k, a))
    while i < m:
        rows = min(m - i, most_rows)
        if nonzero_rows(a) == 1 and not in_parts(n, a):    # used once
            multiply_rows(rows, n, k, a + i, 1, a_col, b, b_row, b_columns, add, bias,
                          c + i * c_row, c_row, most, <const real**>NULL)
        else:
            transpose(k, rows, a + i, a_col, turned, TURNED_K)
            multiply_rows(rows, n, k, turned, TURNED_K, 1, b, b_row, b_columns, add, bias,
                          c + i * c_row, c_row, most, <const real**>NULL)
        i += rows


cdef void multiply_nonzeros(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, Py_ssize_t b_columns, const real* bias, real* c,
    Py_ssize_t c_row, const real** ahead=NULL,
) noexcept nogil:
    """C = A B + bias; a_row or a_col is 1. bias[n] may be NULL, and so may ahead[m], see
    `multiply_add_fetching`. b_columns : as many of each row of B may be read, n or more."""
    cdef double most = most_terms(n, a)
    cdef Py_ssize_t terms, block, row = b_row, p = 0, lead = 0
    cdef bint by_rows = a_col == 1
    cdef void* room = NULL
    cdef real* copy
    cdef const real* rows
    if (min(m, k) > 0 and most > 0
            and (seems_sparse(m, k, a, a_row, nonzero_rows(a), most) if by_rows
                 else seems_sparse(k, m, a, a_col, 1, most))):
        if by_rows and a_row * <Py_ssize_t>sizeof(real) % LINE_BYTES == 0:
            lead = <size_t>a % LINE_BYTES // sizeof(real)
        block = block_terms(m, n, k + lead, b_row, by_rows, a)
        if copy_pays(m, n, b_row, a):
            row = round_up(n, lanes(a))
            room = malloc(LINE_BYTES + min(block, k) * row * sizeof(real))
            copy = <real*>next_line(room)
            if room == NULL:
                row = b_row
            else:
                b_columns = row
        while p < k:
            terms, rows = min(block, k - p), b + p * b_row
            if p == 0:    # the other blocks begin at cache lines of A
                terms = min(block - lead, k)
            if room != NULL:
                copy_rows(terms, n, rows, b_row, copy, row)
                rows = copy
            if by_rows:
                multiply_block(m, n, terms, a + p, a_row, rows, row, b_columns, p > 0, bias, c,
                               c_row, most, ahead, p)
            else:
                multiply_turned(m, n, terms, a + p * a_col, a_col, rows, row, b_columns, p > 0,
                                bias, c, c_row, most)
            p += terms
        free(room)
    elif ahead == NULL:
        multiply_add(m, n, k, a, a_row, a_col, b, b_row, False, bias, c, c_row)
    else:
        multiply_add_fetching(m, n, k, a, a_row, a_col, b, b_row, False, bias, c, c_row, ahead)
