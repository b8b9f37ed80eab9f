/* C[m, n] += sum over taps t of A_t[m, k] B_t[k, n]: a tile of ROWS x VECTORS registers of C, one row
 * of B loaded per term, elements of A broadcast. Included once per type, after vector.h. */

#define PRODUCT_PARAMETERS                                                                        \
    ptrdiff_t n, ptrdiff_t k, ptrdiff_t taps, const REAL *a, const ptrdiff_t *a_at,               \
        ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b, const ptrdiff_t *b_at, ptrdiff_t b_row,  \
        const REAL *start, REAL *c, ptrdiff_t c_row
#define PRODUCT_ARGUMENTS n, k, taps, a, a_at, a_row, a_col, b, b_at, b_row, start, c, c_row

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
        for (ptrdiff_t t = 0; t < taps; t++) {                                                    \
            const REAL *at = a + a_at[t], *bt = b + b_at[t];                                      \
            for (ptrdiff_t p = 0; p < k; p++) {                                                   \
                vec row[VECTORS];                                                                 \
                UNROLL for (int v = 0; v < VECTORS; v++) row[v] = NAME(load)(bt + v * LANES);     \
                UNROLL for (int i = 0; i < ROWS; i++) {                                           \
                    vec element = NAME(splat)(at[i * a_row]);                                     \
                    UNROLL for (int v = 0; v < VECTORS; v++) sum[i][v] += element * row[v];       \
                }                                                                                 \
                at += a_col;                                                                      \
                bt += b_row;                                                                      \
            }                                                                                     \
        }                                                                                         \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                   \
            UNROLL for (int v = 0; v < VECTORS - 1; v++)                                          \
                NAME(store)(c + i * c_row + v * LANES, sum[i][v]);                                \
            NAME(store_n)(c + i * c_row + (VECTORS - 1) * LANES, last, sum[i][VECTORS - 1]);      \
        }                                                                                         \
    }

/* Rows are taken in tiles of MOST, then of 4, 2 and 1. */
#define DEFINE_ROWS(MOST, VECTORS)                                                                \
    DEFINE_TILE(MOST, VECTORS)                                                                    \
    DEFINE_TILE(4, VECTORS)                                                                       \
    DEFINE_TILE(2, VECTORS)                                                                       \
    DEFINE_TILE(1, VECTORS)                                                                       \
    static void NAME(rows_##VECTORS)(ptrdiff_t m, PRODUCT_PARAMETERS) {                           \
        while (m > 0) {                                                                           \
            int rows = m >= MOST ? MOST : m >= 4 ? 4 : m >= 2 ? 2 : 1;                            \
            if (rows == MOST) NAME(tile_##MOST##x##VECTORS)(PRODUCT_ARGUMENTS);                   \
            else if (rows == 4) NAME(tile_4x##VECTORS)(PRODUCT_ARGUMENTS);                        \
            else if (rows == 2) NAME(tile_2x##VECTORS)(PRODUCT_ARGUMENTS);                        \
            else NAME(tile_1x##VECTORS)(PRODUCT_ARGUMENTS);                                       \
            a += rows * a_row;                                                                    \
            c += rows * c_row;                                                                    \
            m -= rows;                                                                            \
        }                                                                                         \
    }

/* The tiles fill the registers: ROWS * VECTORS sums, VECTORS of B and one of A. */
#if VECTOR_REGISTERS == 32
#define MOST_VECTORS 4
DEFINE_ROWS(12, 1)
DEFINE_ROWS(12, 2)
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

static void NAME(product)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a, ptrdiff_t a_row,
                          ptrdiff_t a_col, const REAL *b, ptrdiff_t b_row, REAL *c,
                          ptrdiff_t c_row) {
    const ptrdiff_t taps = 1, a_at[1] = {0}, b_at[1] = {0};
    const REAL *start = NULL;
    NAME(product_taps)(m, PRODUCT_ARGUMENTS);
}
