/* Products of rows that are mostly zeros. Included once per type, after sparse.h.
 *
 *     C[m, n] = start + A[m, k] B[k, n]        NONZERO_ROWS rows at a time, their sums in registers
 *
 * The terms for which all these rows are 0 are left out. A row of B is loaded once for all of them, which
 * can save more than the terms take that one of the rows alone would not need.
 *
 * Where A lies in memory column by column and NONZERO_ROWS is 1, the terms of a row are not listed but bits of
 * words, and its elements are read where they lie: nothing is turned. */

/* As many rows as registers bear, where a vector holds so much that the terms which only one of them
 * needs cost less than the loads. */
#if VECTOR_BYTES == 64
#define NONZERO_ROWS 4
#define ALL_SHARED(X, P) UP_TO_8(X, 1, P) UP_TO_8(X, 2, P) UP_TO_6(X, 3, P) UP_TO_6(X, 4, P)
#define MOST_SHARED(rows) ((rows) <= 2 ? 8 : 6)
#define MOST_LISTED 0
#else
#define NONZERO_ROWS 1
#define ALL_SHARED(X, P) UP_TO_8(X, 1, P)
#define MOST_SHARED(rows) 8
#define MOST_LISTED (VECTOR_BYTES == 32 ? 8 : 0)
#endif

#if VECTOR_BYTES == 32
/* Lists the places of a row that are not 0 to `at`, a vector at a time. It is loaded from `next`; all lanes of
 * `first` hold the place of its first element. */
typedef struct {
    const REAL *next;
    int32_t *at;
    __m256i first;
} NAME(listing);
static INLINE void NAME(list_vector)(NAME(listing) *list) {
    const vec v = NAME(load)(list->next);
    list->at += NAME(keep_lanes)(NOT_ZERO(v), v, list->first, NULL, list->at);
    list->first = _mm256_add_epi32(list->first, _mm256_set1_epi32((int)LANES));
    list->next += LANES;
}
/* The same for those of n elements that fill no vector. */
static INLINE void NAME(list_rest)(NAME(listing) *list, ptrdiff_t n) {
    for (ptrdiff_t j = n / LANES * LANES; j < n; j++) {
        *list->at = (int32_t)j;
        list->at += *list->next++ != 0;
    }
}
#endif

#if VECTOR_BYTES == 64
/* Adds those of `places` to the list that hold no 0, in a vector of columns from `column` on. */
#define ANY_IN_VECTOR(LOAD, column, ...)                                                          \
    {                                                                                             \
        ivec any = (ivec)NAME(LOAD)(a + (column) __VA_ARGS__);                                    \
        UNROLL for (ptrdiff_t i = 1; i < m; i++)                                                  \
            any |= (ivec)NAME(LOAD)(a + i * a_row + (column) __VA_ARGS__);                        \
        count += NAME(keep_lanes)(ANY_BITS(any, size), (vec)any, places, NULL, at + count);       \
    }
#endif

/* The j with an element that is not 0 in one of the rows of n elements, m or NONZERO_ROWS, in order;
 * returns how many. */
static INLINE ptrdiff_t NAME(any_in_rows)(ptrdiff_t m, ptrdiff_t n, const REAL *a, ptrdiff_t a_row,
                                       int32_t *at) {
    ptrdiff_t count = 0, j = 0;
#if VECTOR_BYTES == 64
    const ivec size = ~NAME(sign_bit)(NAME(splat)(-1)); /* all bits but the sign: -0 is 0 */
    PLACES places = FIRST_PLACES;
    const ptrdiff_t head = (ptrdiff_t)(-(uintptr_t)a % (LINE * sizeof(REAL)) / sizeof(REAL));
    if (head > 0 && head < n) { /* then vectors of the first row do not lie in two cache lines */
        ANY_IN_VECTOR(load_part, j, , head, 0)
        places = ADD_PLACES(places, ALL_PLACES((int)head));
        j = head;
    }
    for (; j + LANES <= n; j += LANES) {
        ANY_IN_VECTOR(load, j, )
        places = ADD_PLACES(places, ALL_PLACES((int)LANES));
    }
    if (j < n) ANY_IN_VECTOR(load_part, j, , n - j, 0)
    j = n;
#elif VECTOR_BYTES == 32
    NAME(listing) list = {.next = a, .at = at}; /* of one row */
    for (; j + LANES <= n; j += LANES) NAME(list_vector)(&list);
    NAME(list_rest)(&list, n);
    count = list.at - at;
    j = n;
#endif
    for (; j < n; j++) {
        int any = a[j] != 0;
        for (ptrdiff_t i = 1; i < m; i++) any |= a[i * a_row + j] != 0;
        at[count] = (int32_t)j;
        count += any;
    }
    return count;
}

static INLINE ptrdiff_t NAME(any_of)(ptrdiff_t m, ptrdiff_t n, const REAL *a, ptrdiff_t a_row,
                                     int32_t *at) {
    /* With a constant m the compiler forms one loop. */
    return m >= NONZERO_ROWS ? NAME(any_in_rows)(NONZERO_ROWS, n, a, a_row, at)
                             : NAME(any_in_rows)(m, n, a, a_row, at);
}

static ptrdiff_t NAME(pick_any)(ptrdiff_t m, ptrdiff_t n, const REAL *a, ptrdiff_t a_row,
                                int32_t *at) {
    return NAME(any_of)(m, n, a, a_row, at);
}

/* A row of B and its products with an element of each row of A. LAST: how the row's last vector is loaded. */
#define SHARED_TERM(ROWS, VECTORS, P, LAST)                                                       \
    {                                                                                             \
        const ptrdiff_t q = (uint32_t)at[p];                                                      \
        const REAL *bt = b + q * b_row, *element = a + q;                                         \
        vec value[ROWS];                                                                          \
        UNROLL for (int i = 0; i < ROWS; i++)                                                     \
            value[i] = NAME(splat)(element[i == 3 ? row3 : i * a_row]);                           \
        UNROLL for (int v = 0; v < VECTORS - 1; v++) {                                            \
            const vec row = NAME(load)(bt + v * LANES);                                           \
            UNROLL for (int i = 0; i < ROWS; i++) sum[i][v] += value[i] * row;                    \
        }                                                                                         \
        const P##vec end = NAME(P##LAST)(bt + (VECTORS - 1) * LANES, loaded);                     \
        UNROLL for (int i = 0; i < ROWS; i++) part[i] += NAME(P##low)(value[i]) * end;            \
        p++;                                                                                      \
    }

/* loaded: columns in the last vector of B, `last` or what follows them, too. A whole one needs no mask.
 * lines: of each row of `ahead`, fetched one with each term, so that they come in as fast as the sums
 * are made. The places stay in memory (volatile): there are not enough registers for them. */
#define SHARED_PARAMETERS                                                                         \
    ptrdiff_t count, const int32_t *at, const REAL *a, ptrdiff_t a_row, const REAL *b,            \
        ptrdiff_t b_row, ptrdiff_t loaded, ptrdiff_t last, const REAL *start,                     \
        ptrdiff_t start_row, REAL *c, ptrdiff_t c_row, const REAL *const volatile *ahead,         \
        ptrdiff_t lines
#define DEFINE_SHARED(VECTORS, ROWS, P)                                                           \
    static void NAME(shared_##P##ROWS##x##VECTORS)(SHARED_PARAMETERS) {                           \
        vec sum[ROWS][VECTORS] = {{{0}}};                                                         \
        P##vec part[ROWS] = {{0}};                                                                \
        ptrdiff_t row3 = 3 * a_row, p = 0, line = 0;                                              \
        FORGET(row3);                                                                             \
        if (start)                                                                                \
            UNROLL for (int i = 0; i < ROWS; i++) {                                               \
                const REAL *from = start + i * start_row;                                         \
                UNROLL for (int v = 0; v < VECTORS - 1; v++)                                      \
                    sum[i][v] = NAME(load)(from + v * LANES);                                     \
                part[i] = NAME(P##load_n)(from + (VECTORS - 1) * LANES, last, 0);                 \
            }                                                                                     \
        for (; line < lines && p + ROWS <= count; line++)                                         \
            UNROLL for (int i = 0; i < ROWS; i++) {                                               \
                __builtin_prefetch(ahead[i] + line * LINE, 0, 2);                                 \
                SHARED_TERM(ROWS, VECTORS, P, load_last)                                                     \
            }                                                                                     \
        while (p < count) SHARED_TERM(ROWS, VECTORS, P, load_last)                                           \
        for (; line < lines; line++)                                                              \
            UNROLL for (int i = 0; i < ROWS; i++)                                                 \
                __builtin_prefetch(ahead[i] + line * LINE, 0, 2);                                 \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                   \
            UNROLL for (int v = 0; v < VECTORS - 1; v++) NAME(store)(c + v * LANES, sum[i][v]);   \
            NAME(P##store_n)(c + (VECTORS - 1) * LANES, last, part[i]);                           \
            c += c_row;                                                                           \
            FORGET(c);                                                                            \
        }                                                                                         \
    }

ALL_SHARED(DEFINE_SHARED, )
#if VECTOR_BYTES == 64
ALL_SHARED(DEFINE_SHARED, half_)
#endif

#if VECTOR_BYTES == 32
static INLINE vec NAME(load_whole)(const REAL *from, ptrdiff_t lanes) {
    (void)lanes;
    return NAME(load)(from);
}

/* Rows one by one, of which the first has a list, and the list of the next one beside the products, which wait
 * for loads: a vector of it with each term. Rows of B are whole vectors. Of `ahead`, if it is not NULL, a line is
 * fetched with two terms (else one that is there: a loop less). Stops before a row whose list is too long, with
 * those before, for `budget`; returns how many it has made. Two lists take turns in `at`. */
#define LISTED_PARAMETERS                                                                         \
    ptrdiff_t m, ptrdiff_t k, ptrdiff_t count, int32_t *at, const REAL *a, ptrdiff_t a_row,       \
        const REAL *b, ptrdiff_t b_row, ptrdiff_t last, const REAL *start, ptrdiff_t start_row,   \
        REAL *c, ptrdiff_t c_row, const REAL *const *ahead, ptrdiff_t budget
#define LISTED_TERM(VECTORS)                                                                      \
    {                                                                                             \
        SHARED_TERM(1, VECTORS, , load_whole)                                                     \
        NAME(list_vector)(&list);                                                                 \
    }
#define DEFINE_LISTED(VECTORS, ...)                                                               \
    static NOINLINE ptrdiff_t NAME(listed_##VECTORS)(LISTED_PARAMETERS) {                         \
        const ptrdiff_t row3 = 0, loaded = LANES;                                                 \
        int32_t *next_at = at + k + LANES;                                                        \
        ptrdiff_t listed = count;                                                                 \
        for (ptrdiff_t i = 0; i < m; i++) {                                                       \
            const int more = i + 1 < m;                                                           \
            const ptrdiff_t vectors = more ? k / LANES : 0;                                       \
            const ptrdiff_t both = (count < vectors ? count : vectors) & ~(ptrdiff_t)1;           \
            NAME(listing) list = {.next = more ? a + a_row : a, .at = next_at};                   \
            const REAL *soon = ahead ? ahead[i] : list.next;                                      \
            ptrdiff_t p = 0, line = 0;                                                            \
            vec sum[1][VECTORS] = {{{0}}}, part[1] = {{0}};                                       \
            if (start) {                                                                          \
                UNROLL for (int v = 0; v < VECTORS - 1; v++)                                      \
                    sum[0][v] = NAME(load)(start + v * LANES);                                    \
                part[0] = NAME(load_n)(start + (VECTORS - 1) * LANES, last, 0);                   \
                start += start_row;                                                               \
            }                                                                                     \
            for (; p < both; line += LINE) {                                                      \
                __builtin_prefetch(soon + line, 0, 2);                                            \
                LISTED_TERM(VECTORS)                                                              \
                LISTED_TERM(VECTORS)                                                              \
            }                                                                                     \
            while (p < count) SHARED_TERM(1, VECTORS, , load_whole)                               \
            UNROLL for (int v = 0; v < VECTORS - 1; v++) NAME(store)(c + v * LANES, sum[0][v]);   \
            NAME(store_n)(c + (VECTORS - 1) * LANES, last, part[0]);                              \
            if (ahead)                                                                            \
                for (; line < k; line += LINE) __builtin_prefetch(soon + line, 0, 2);             \
            if (!more) break;                                                                     \
            for (p = both; p < vectors; p++) NAME(list_vector)(&list);                            \
            NAME(list_rest)(&list, k);                                                            \
            count = list.at - next_at;                                                            \
            next_at = at;                                                                         \
            at = list.at - count;                                                                 \
            listed += count;                                                                      \
            if (listed > budget) return i + 1;                                                    \
            a += a_row;                                                                           \
            c += c_row;                                                                           \
        }                                                                                         \
        return m;                                                                                 \
    }
UP_TO_8(DEFINE_LISTED, )

#define LISTED_CASE(VECTORS, ...)                                                                 \
    case VECTORS:                                                                                 \
        return NAME(listed_##VECTORS)(m, k, count, at, a, a_row, b, b_row, last, start, start_row, \
                                      c, c_row, ahead, budget);
static ptrdiff_t NAME(listed_rows)(ptrdiff_t n, LISTED_PARAMETERS) {
    if (count > budget) return 0;
    switch ((n + LANES - 1) / LANES) { UP_TO_8(LISTED_CASE, ) }
    return 0;
}
#endif

#define SHARED_CASE(VECTORS, ROWS, P)                                                             \
    case 8 * ROWS + VECTORS - 1:                                                                  \
        NAME(shared_##P##ROWS##x##VECTORS)(ends[1] - ends[0], at + ends[0], a, a_row, b, b_row,   \
                                           loaded, last, start, start_row, c, c_row, ahead,       \
                                           lines);                                                \
        break;
/* Some vectors of columns, for as many rows at a time as share a list. */
static void NAME(shared_rows)(ptrdiff_t m, ptrdiff_t n, const int32_t *ends, const int32_t *at,
                              const REAL *a, ptrdiff_t a_row, const REAL *b, ptrdiff_t b_row,
                              ptrdiff_t b_columns, const REAL *start, ptrdiff_t start_row, REAL *c,
                              ptrdiff_t c_row, const REAL *const *ahead, ptrdiff_t lines) {
    const ptrdiff_t vectors = (n + LANES - 1) / LANES, last = n - (vectors - 1) * LANES;
    const ptrdiff_t loaded = VECTOR_BYTES < 64 && b_columns >= vectors * LANES ? LANES : last;
    for (ptrdiff_t i = 0, rows; i < m; i += rows, ends++) {
        rows = m - i < NONZERO_ROWS ? m - i : NONZERO_ROWS;
#if VECTOR_BYTES == 64
        if (2 * last <= LANES) {
            switch (8 * rows + vectors - 1) { ALL_SHARED(SHARED_CASE, half_) }
        } else
#endif
        switch (8 * rows + vectors - 1) { ALL_SHARED(SHARED_CASE, ) }
        a += rows * a_row;
        c += rows * c_row;
        if (start) start += rows * start_row;
        if (lines) ahead += rows;
    }
}

#if NONZERO_ROWS == 1
#define WORD 64
/* Row after row: bit j of word w says whether element WORD w + j, which is a[i + (WORD w + j) a_col], is not 0;
 * returns how many are. Each lane gathers the bits of a row. */
static ptrdiff_t NAME(bits_of_columns)(ptrdiff_t m, ptrdiff_t k, const REAL *a, ptrdiff_t a_col,
                                       uint64_t *bits) {
    const ptrdiff_t lane_bits = 8 * sizeof(REAL), words = (k + WORD - 1) / WORD;
    ptrdiff_t count = 0;
    for (ptrdiff_t w = 0; w < words; w++) {
        FOR_VECTORS(m) {
            ivec parts[2] = {{0}};
            for (ptrdiff_t h = 0; h < WORD / lane_bits; h++) {
                const ptrdiff_t first = w * WORD + h * lane_bits, end = first + lane_bits;
                ivec bit = (ivec){0} + 1;
                for (ptrdiff_t q = first; q < (end < k ? end : k); q++, bit <<= 1)
                    parts[h] |= (NAME(load_n)(a + q * a_col + i, left, 0) != 0) & bit;
            }
            for (ptrdiff_t l = 0; l < (left < LANES ? left : LANES); l++) {
                uint64_t word = (uint64_t)parts[0][l];
                if (REAL_IS_FLOAT) word = (uint32_t)word | (uint64_t)(uint32_t)parts[1][l] << 32;
                bits[(i + l) * words + w] = word;
                count += __builtin_popcountll(word);
            }
        }
    }
    return count;
}

/* Some vectors of columns. loaded: columns in the last vector of B, `last` or what follows them, too. A whole
 * one needs no mask. */
#define BY_BITS_PARAMETERS                                                                        \
    ptrdiff_t m, ptrdiff_t k, const uint64_t *bits, const REAL *a, ptrdiff_t a_col,               \
        const REAL *b, ptrdiff_t b_row, ptrdiff_t loaded, ptrdiff_t last, const REAL *start,      \
        ptrdiff_t start_row, REAL *c, ptrdiff_t c_row
#define DEFINE_BY_BITS(VECTORS, ...)                                                              \
    static NOINLINE void NAME(by_bits_##VECTORS)(BY_BITS_PARAMETERS) {                            \
        const ptrdiff_t words = (k + WORD - 1) / WORD, next = WORD * a_col;                       \
        for (ptrdiff_t i = 0; i < m; i++, a++, c += c_row) {                                      \
            const REAL *elements = a, *rows = b;                                                  \
            vec sum[VECTORS] = {{0}};                                                             \
            if (start) {                                                                          \
                UNROLL for (int v = 0; v < VECTORS - 1; v++)                                      \
                    sum[v] = NAME(load)(start + v * LANES);                                       \
                sum[VECTORS - 1] = NAME(load_n)(start + (VECTORS - 1) * LANES, last, 0);          \
                start += start_row;                                                               \
            }                                                                                     \
            for (ptrdiff_t w = words; w > 0; w--, elements += next, rows += WORD * b_row) {       \
                FORGET(elements);                                                                 \
                FORGET(rows);                                                                     \
                for (uint64_t word = *bits++; word; word &= word - 1) {                           \
                    const ptrdiff_t q = (uint32_t)__builtin_ctzll(word);                          \
                    const REAL *row = rows + q * b_row;                                           \
                    const vec value = NAME(splat)(elements[q * a_col]);                           \
                    UNROLL for (int v = 0; v < VECTORS - 1; v++)                                  \
                        sum[v] += value * NAME(load)(row + v * LANES);                            \
                    sum[VECTORS - 1] += value * NAME(load_last)(row + (VECTORS - 1) * LANES, loaded); \
                }                                                                                 \
            }                                                                                     \
            UNROLL for (int v = 0; v < VECTORS - 1; v++) NAME(store)(c + v * LANES, sum[v]);      \
            NAME(store_n)(c + (VECTORS - 1) * LANES, last, sum[VECTORS - 1]);                     \
        }                                                                                         \
    }
UP_TO_8(DEFINE_BY_BITS, )

#define BY_BITS_CASE(VECTORS, ...)                                                                \
    case VECTORS:                                                                                 \
        NAME(by_bits_##VECTORS)(m, k, bits, a, a_col, b + j, b_row, loaded, last,                 \
                                start ? start + j : NULL, start_row, c + j, c_row);               \
        break;
/* `product_nonzeros` where A lies in memory column by column. */
static int NAME(product_by_bits)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,
                                 ptrdiff_t a_col, const REAL *b, ptrdiff_t b_row,
                                 ptrdiff_t b_columns, const REAL *start, ptrdiff_t start_row,
                                 REAL *c, ptrdiff_t c_row, ptrdiff_t most, uint64_t *bits) {
    if (NAME(bits_of_columns)(m, k, a, a_col, bits) > m * most) return 0;
    for (ptrdiff_t j = 0, width; j < n; j += width) {
        const ptrdiff_t vectors = NAME(part_of)((n - j + LANES - 1) / LANES, 8);
        width = vectors * LANES < n - j ? vectors * LANES : n - j;
        const ptrdiff_t last = width - (vectors - 1) * LANES;
        const ptrdiff_t loaded = b_columns - j >= vectors * LANES ? LANES : last;
        switch (vectors) { UP_TO_8(BY_BITS_CASE, ) }
    }
    return 1;
}
#undef WORD
#endif

static ptrdiff_t NAME(product_nonzeros)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,
                                        ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b,
                                        ptrdiff_t b_row, ptrdiff_t b_columns, const REAL *start,
                                        ptrdiff_t start_row, REAL *c, ptrdiff_t c_row,
                                        ptrdiff_t most, uint64_t *room, const REAL *const *ahead) {
    int32_t *at = (int32_t *)room;
#if NONZERO_ROWS == 1
    if (a_col != 1)
        return NAME(product_by_bits)(m, n, k, a, a_col, b, b_row, b_columns, start, start_row, c,
                                     c_row, most, room) ? m : 0;
#endif
    const ptrdiff_t groups = (m + NONZERO_ROWS - 1) / NONZERO_ROWS, budget = groups * most;
#if VECTOR_BYTES == 32
    const ptrdiff_t all = (n + LANES - 1) / LANES;
    if (m > 1 && all > 0 && all <= MOST_LISTED && b_columns >= all * LANES)
        return NAME(listed_rows)(n, m, k, NAME(any_of)(1, k, a, a_row, at), at, a, a_row, b, b_row,
                                 n - (all - 1) * LANES, start, start_row, c, c_row, ahead, budget);
#endif
    ptrdiff_t lines = ahead ? (k + LINE - 1) / LINE : 0;
    int32_t *ends = at, count = 0;
    at += groups + 1;
    for (ptrdiff_t i = 0, g = 0; i < m; i += NONZERO_ROWS, g++) {
        ends[g] = count;
        count += (int32_t)NAME(any_of)(m - i, k, a + i * a_row, a_row, at + count);
        if (count > budget) return 0;
    }
    ends[groups] = count;
    for (ptrdiff_t j = 0, width; j < n; j += width) {
        const ptrdiff_t left = (n - j + LANES - 1) / LANES;
        const ptrdiff_t vectors = NAME(part_of)(left, MOST_SHARED(m));
        width = vectors * LANES < n - j ? vectors * LANES : n - j;
        NAME(shared_rows)(m, width, ends, at, a, a_row, b + j, b_row, b_columns - j,
                          start ? start + j : NULL, start_row, c + j, c_row, ahead, lines);
        lines = 0;
    }
    return m;
}
#undef SHARED_TERM
#if VECTOR_BYTES == 64
#undef ANY_IN_VECTOR
#undef PLACES
#undef FIRST_PLACES
#undef ADD_PLACES
#undef ALL_PLACES
#undef SAME_PLACES
#undef LOAD_PLACES
#undef ANY_BITS
#endif
#undef NOT_ZERO
