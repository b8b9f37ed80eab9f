/* C[m, n] += sum over taps t of A_t[m, k] B_t[k, n]: a tile of ROWS x VECTORS registers of C, one row
 * of B loaded per term, elements of A broadcast. Included once per type, after vector.h. */

#define PRODUCT_PARAMETERS                                                                        \
    ptrdiff_t n, ptrdiff_t k, ptrdiff_t taps, const REAL *a, const ptrdiff_t *a_at,               \
        ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b, const ptrdiff_t *b_at, ptrdiff_t b_row,  \
        const REAL *start, REAL *c, ptrdiff_t c_row, const REAL *const *ahead
#define PRODUCT_ARGUMENTS                                                                         \
    n, k, taps, a, a_at, a_row, a_col, b, b_at, b_row, start, c, c_row, ahead

/* The last vector of a row of B: what lies behind the row is read, but not used. It may belong to
 * another thread, which ThreadSanitizer would call a race. */
#ifdef __SANITIZE_THREAD__
#define LOAD_PART(at, left) NAME(load_n)(at, left < LANES ? left : LANES, 0)
#else
#define LOAD_PART(at, left) NAME(load)(at)
#endif

/* The compiler forgets how x came about. Else it works out the place of every row of A from the first
 * one, with a register each, and keeps what does not fit in vector registers. */
#define FORGET(x) __asm__("" : "+r"(x))

/* The terms of a tap. FETCH: with each, where a term is a row of A with a line of its own, far from the
 * last one, the line that the next tile reads. The processor would not see it coming. One loop with and
 * without makes convolutions 2 to 4% slower. */
#define LINE ((ptrdiff_t)(64 / sizeof(REAL)))
#define FAR (8 * LINE)

#define TERMS(ROWS, VECTORS, FETCH)                                                               \
    for (ptrdiff_t p = 0; p < k; p++) {                                                           \
        vec row[VECTORS];                                                                         \
        FETCH                                                                                     \
        UNROLL for (int v = 0; v < VECTORS; v++) row[v] = LOAD_PART(bt + v * LANES, n - v * LANES);\
        UNROLL for (int i = 0; i < ROWS; i++) {                                                   \
            vec element = NAME(splat)(at[i / 4][i % 4 == 3 ? row3 : i % 4 * a_row]);              \
            UNROLL for (int v = 0; v < VECTORS; v++) sum[i][v] += element * row[v];               \
        }                                                                                         \
        UNROLL for (int i = 0; i < (ROWS + 3) / 4; i++) at[i] += a_col;                           \
        bt += b_row;                                                                              \
    }

/* One row of A uses each row of B once: where these follow each other they are fetched in time. */
#define ROWS_AHEAD 16
#define FETCH_B(VECTORS)                                                                          \
    UNROLL for (int v = 0; v < VECTORS; v++)                                                      \
        __builtin_prefetch(bt + ROWS_AHEAD * b_row + v * LANES);

#define DEFINE_TILE(ROWS, VECTORS)                                                                \
    static void NAME(tile_##ROWS##x##VECTORS)(PRODUCT_PARAMETERS) {                               \
        vec sum[ROWS][VECTORS];                                                                   \
        const ptrdiff_t last = n - (VECTORS - 1) * LANES;                                         \
        const REAL *from = start ? start : c;                                                     \
        const ptrdiff_t from_row = start ? 0 : c_row;                                             \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                   \
            UNROLL for (int v = 0; v < VECTORS - 1; v++)                                          \
                sum[i][v] = NAME(load)(from + i * from_row + v * LANES);                          \
            sum[i][VECTORS - 1] =                                                                 \
                NAME(load_n)(from + i * from_row + (VECTORS - 1) * LANES, last, 0);               \
        }                                                                                         \
        ptrdiff_t row3 = 3 * a_row;                                                               \
        FORGET(row3);                                                                             \
        const ptrdiff_t soon_col = a_row == 1 && a_col > FAR ? a_col : 0;                         \
        for (ptrdiff_t t = 0; t < taps; t++) {                                                    \
            const REAL *bt = b + b_at[t], *at[(ROWS + 3) / 4];                                    \
            const REAL *soon = a + a_at[t] + LINE;                                                \
            UNROLL for (int i = 0; i < (ROWS + 3) / 4; i++) {                                     \
                at[i] = a + a_at[t] + 4 * i * a_row;                                              \
                FORGET(at[i]);                                                                    \
            }                                                                                     \
            if (ahead)                                                                            \
                UNROLL for (int i = 0; i < ROWS; i++) __builtin_prefetch(ahead[i] + a_at[t]);     \
            if (soon_col) {                                                                       \
                TERMS(ROWS, VECTORS, __builtin_prefetch(soon); soon += soon_col;)                 \
            } else if (ROWS == 1 && VECTORS > 1 && b_row <= VECTORS * LANES) {                    \
                TERMS(ROWS, VECTORS, FETCH_B(VECTORS))                                            \
            } else {                                                                              \
                TERMS(ROWS, VECTORS, )                                                            \
            }                                                                                     \
        }                                                                                         \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                   \
            UNROLL for (int v = 0; v < VECTORS - 1; v++)                                          \
                NAME(store)(c + i * c_row + v * LANES, sum[i][v]);                                \
            NAME(store_n)(c + i * c_row + (VECTORS - 1) * LANES, last, sum[i][VECTORS - 1]);      \
        }                                                                                         \
    }

/* m rows are taken in the fewest tiles of at most MOST rows, all of nearly the same size: a small
 * last tile would leave most registers idle. */
#define TILE_CASE(ROWS, VECTORS)                                                                  \
    case ROWS: NAME(tile_##ROWS##x##VECTORS)(PRODUCT_ARGUMENTS); break;
#define DEFINE_ROWS(MOST, VECTORS)                                                                \
    UP_TO_##MOST(DEFINE_TILE, VECTORS)                                                            \
    static void NAME(rows_##VECTORS)(ptrdiff_t m, PRODUCT_PARAMETERS) {                           \
        for (ptrdiff_t tiles = (m + MOST - 1) / MOST; tiles > 0; tiles--) {                       \
            const ptrdiff_t rows = (m + tiles - 1) / tiles;                                       \
            switch (rows) { UP_TO_##MOST(TILE_CASE, VECTORS) }                                    \
            a += rows * a_row;                                                                    \
            c += rows * c_row;                                                                    \
            if (ahead) ahead += rows;                                                             \
            m -= rows;                                                                            \
        }                                                                                         \
    }
#define UP_TO_6(X, V) X(1, V) X(2, V) X(3, V) X(4, V) X(5, V) X(6, V)
#define UP_TO_8(X, V) UP_TO_6(X, V) X(7, V) X(8, V)
#define UP_TO_12(X, V) UP_TO_8(X, V) X(9, V) X(10, V) X(11, V) X(12, V)
#define UP_TO_14(X, V) UP_TO_12(X, V) X(13, V) X(14, V)

/* The tiles fill the registers: ROWS * VECTORS sums, VECTORS of B and one of A. */
#if VECTOR_REGISTERS == 32
#define MOST_VECTORS 4
DEFINE_ROWS(14, 1)
DEFINE_ROWS(14, 2)
DEFINE_ROWS(8, 3)
DEFINE_ROWS(6, 4)
#else
#define MOST_VECTORS 2
DEFINE_ROWS(12, 1)
DEFINE_ROWS(6, 2)
#endif

static void NAME(product_taps)(ptrdiff_t m, PRODUCT_PARAMETERS) {
    if (n <= 0) return;
    switch ((n + LANES - 1) / LANES) {
#if MOST_VECTORS == 4
    case 4: NAME(rows_4)(m, PRODUCT_ARGUMENTS); break;
    case 3: NAME(rows_3)(m, PRODUCT_ARGUMENTS); break;
#endif
    case 2: NAME(rows_2)(m, PRODUCT_ARGUMENTS); break;
    default: NAME(rows_1)(m, PRODUCT_ARGUMENTS); break;
    }
}

/* A sparse row times B: the sums of up to MOST_SPARSE vectors of columns stay in registers while the
 * rows of B that the values choose pass by. */
#define MOST_SPARSE 8
#define SPARSE_PARAMETERS                                                                         \
    ptrdiff_t n, ptrdiff_t k, const REAL *values, const int32_t *rows, const REAL *b,             \
        ptrdiff_t b_row, const REAL *start, REAL *c
#define DEFINE_SPARSE(VECTORS, UNUSED)                                                            \
    static void NAME(sparse_##VECTORS)(SPARSE_PARAMETERS) {                                       \
        vec sum[VECTORS] = {{0}};                                                                 \
        const ptrdiff_t last = n - (VECTORS - 1) * LANES;                                         \
        if (start) {                                                                              \
            UNROLL for (int v = 0; v < VECTORS - 1; v++) sum[v] = NAME(load)(start + v * LANES);  \
            sum[VECTORS - 1] = NAME(load_n)(start + (VECTORS - 1) * LANES, last, 0);              \
        }                                                                                         \
        for (ptrdiff_t p = 0; p < k; p++) {                                                       \
            const REAL *row = b + rows[p] * b_row;                                                \
            const vec value = NAME(splat)(values[p]);                                             \
            UNROLL for (int v = 0; v < VECTORS - 1; v++)                                          \
                sum[v] += value * NAME(load)(row + v * LANES);                                    \
            sum[VECTORS - 1] += value * NAME(load_n)(row + (VECTORS - 1) * LANES, last, 0);       \
        }                                                                                         \
        UNROLL for (int v = 0; v < VECTORS - 1; v++) NAME(store)(c + v * LANES, sum[v]);          \
        NAME(store_n)(c + (VECTORS - 1) * LANES, last, sum[VECTORS - 1]);                         \
    }
UP_TO_8(DEFINE_SPARSE, )

#define SPARSE_CASE(VECTORS, UNUSED)                                                              \
    case VECTORS: NAME(sparse_##VECTORS)(width, k, values, rows, b, b_row, start, c); break;
static void NAME(product_sparse)(SPARSE_PARAMETERS) {
    ptrdiff_t vectors = (n + LANES - 1) / LANES;
    for (ptrdiff_t parts = (vectors + MOST_SPARSE - 1) / MOST_SPARSE; parts > 0; parts--) {
        const ptrdiff_t some = (vectors + parts - 1) / parts;
        const ptrdiff_t width = some * LANES < n ? some * LANES : n;
        switch (some) { UP_TO_8(SPARSE_CASE, ) }
        vectors -= some;
        n -= width;
        b += width;
        c += width;
        if (start) start += width;
    }
}
