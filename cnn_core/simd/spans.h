/* Spans of rows of an image of one channel, met by rows of a kernel: the pixels of a span are added to the
 * sums of those that see them, and the gradients of these to the kernel's. Included once per type, after
 * sparse.h. */

/* ROWS rows of the kernel and one vector of its filters. The sums of the pixels that see the present one
 * move through the registers: each is read and written once. */
#define SPREAD_PARAMETERS                                                                         \
    ptrdiff_t count, const REAL *x, const REAL *w, ptrdiff_t w_row, ptrdiff_t w_tap,              \
        REAL *const *sums, ptrdiff_t step, ptrdiff_t column
#define DEFINE_SPREAD(TAPS, ROWS, P)                                                              \
    static void NAME(spread_##P##ROWS##x##TAPS)(SPREAD_PARAMETERS) {                              \
        P##vec weight[ROWS][TAPS], sum[ROWS][TAPS];                                               \
        REAL *to[ROWS];                                                                           \
        UNROLL for (int r = 0; r < ROWS; r++) {                                                   \
            UNROLL for (int s = 0; s < TAPS; s++)                                                 \
                weight[r][s] = NAME(P##load)(w + r * w_row + s * w_tap);                          \
            to[r] = sums[r] + column;                                                             \
            UNROLL for (int j = 0; j < TAPS - 1; j++) sum[r][j] = NAME(P##load)(to[r] + j * step); \
        }                                                                                         \
        for (ptrdiff_t i = 0; i < count; i += TAPS)                                               \
            UNROLL for (int u = 0; u < TAPS; u++) {                                               \
                const P##vec element = NAME(P##low)(NAME(splat)(x[i + u]));                       \
                UNROLL for (int r = 0; r < ROWS; r++) {                                           \
                    sum[r][(u + TAPS - 1) % TAPS] = NAME(P##load)(to[r] + (TAPS - 1) * step);     \
                    UNROLL for (int j = 0; j < TAPS; j++)                                         \
                        sum[r][(u + j) % TAPS] += element * weight[r][TAPS - 1 - j];              \
                    NAME(P##store)(to[r], sum[r][u]);                                             \
                    to[r] += step;                                                                \
                }                                                                                 \
            }                                                                                     \
        UNROLL for (int r = 0; r < ROWS; r++)                                                     \
            UNROLL for (int j = 0; j < TAPS - 1; j++) NAME(P##store)(to[r] + j * step, sum[r][j]); \
    }
#define TAPS_TO_3(X, ...) X(2, __VA_ARGS__) X(3, __VA_ARGS__)
#define TAPS_TO_5(X, ...) TAPS_TO_3(X, __VA_ARGS__) X(4, __VA_ARGS__) X(5, __VA_ARGS__)
#define TAPS_TO_7(X, ...) TAPS_TO_5(X, __VA_ARGS__) X(6, __VA_ARGS__) X(7, __VA_ARGS__)
#define TAPS_TO_8(X, ...) TAPS_TO_7(X, __VA_ARGS__) X(8, __VA_ARGS__)
/* As many rows as registers hold weights and sums of. */
#if VECTOR_REGISTERS == 32
#define MOST_SPREAD(taps) ((taps) <= 3 ? 4 : (taps) <= 5 ? 3 : (taps) <= 7 ? 2 : 1)
#define ALL_SPREAD(X, P) TAPS_TO_8(X, 1, P) TAPS_TO_7(X, 2, P) TAPS_TO_5(X, 3, P) TAPS_TO_3(X, 4, P)
#else
#define MOST_SPREAD(taps) 2
#define ALL_SPREAD(X, P) TAPS_TO_8(X, 1, P) TAPS_TO_8(X, 2, P)
#endif
ALL_SPREAD(DEFINE_SPREAD, )
#if VECTOR_BYTES == 64
ALL_SPREAD(DEFINE_SPREAD, half_)
#endif

#define SPREAD_CASE(TAPS, ROWS, P)                                                                \
    case 8 * ROWS + TAPS:                                                                         \
        NAME(spread_##P##ROWS##x##TAPS)(count, x, w + column, w_row, w_tap, sums, step, column);  \
        break;
static void NAME(spread)(ptrdiff_t count, const REAL *x, ptrdiff_t taps, ptrdiff_t rows,
                         ptrdiff_t n, const REAL *w, ptrdiff_t w_row, ptrdiff_t w_tap,
                         REAL *const *sums, ptrdiff_t step) {
    const ptrdiff_t most = MOST_SPREAD(taps);
    for (ptrdiff_t some; rows > 0; rows -= some, w += some * w_row, sums += some) {
        some = rows <= most ? rows : rows < 2 * most ? (rows + 1) / 2 : most;
        for (ptrdiff_t column = 0; column < n; column += LANES) {
#if VECTOR_BYTES == 64
            if (2 * (n - column) <= LANES) {
                switch (8 * some + taps) { ALL_SPREAD(SPREAD_CASE, half_) }
                continue;
            }
#endif
            switch (8 * some + taps) { ALL_SPREAD(SPREAD_CASE, ) }
        }
    }
}

/* Gradients of ROWS rows of the kernel for a vector of filters: they stay in registers for all spans. */
#define GRADIENT_PARAMETERS                                                                       \
    ptrdiff_t count, const ptrdiff_t *sizes, const ptrdiff_t *x_at, const ptrdiff_t *g_at,        \
        ptrdiff_t n, const REAL *x, ptrdiff_t x_row, ptrdiff_t x_step, const REAL *g,             \
        ptrdiff_t g_step
#define DEFINE_GRADIENT(TAPS, ROWS, ...)                                                          \
    static void NAME(gradient_##ROWS##x##TAPS)(GRADIENT_PARAMETERS, REAL *sums, ptrdiff_t w_tap) { \
        vec sum[ROWS * TAPS];                                                                     \
        UNROLL for (int t = 0; t < ROWS * TAPS; t++) sum[t] = NAME(load_n)(sums + t * w_tap, n, 0); \
        for (ptrdiff_t k = 0; k < count; k++) {                                                   \
            const REAL *pixel = x + x_at[k], *gradients = g + g_at[k];                            \
            for (ptrdiff_t i = 0; i < sizes[k]; i++, pixel += x_step, gradients += g_step) {      \
                const vec gradient = NAME(load_last)(gradients, n);                               \
                UNROLL for (int r = 0; r < ROWS; r++)                                             \
                    UNROLL for (int s = 0; s < TAPS; s++)                                         \
                        sum[r * TAPS + s] += NAME(splat)(pixel[r * x_row + s]) * gradient;        \
            }                                                                                     \
        }                                                                                         \
        UNROLL for (int t = 0; t < ROWS * TAPS; t++) NAME(store_n)(sums + t * w_tap, n, sum[t]);  \
    }
#if VECTOR_REGISTERS == 32
#define MOST_GRADIENT(taps) ((taps) <= 5 ? 5 : 3)
#define ALL_GRADIENTS(X)                                                                          \
    TAPS_TO_8(X, 1, ) TAPS_TO_8(X, 2, ) TAPS_TO_8(X, 3, ) TAPS_TO_5(X, 4, ) TAPS_TO_5(X, 5, )
#else
#define MOST_GRADIENT(taps) ((taps) <= 3 ? 3 : (taps) <= 5 ? 2 : 1)
#define ALL_GRADIENTS(X) TAPS_TO_8(X, 1, ) TAPS_TO_5(X, 2, ) TAPS_TO_3(X, 3, )
#endif
ALL_GRADIENTS(DEFINE_GRADIENT)

#define GRADIENT_CASE(TAPS, ROWS, ...)                                                            \
    case 8 * ROWS + TAPS:                                                                         \
        NAME(gradient_##ROWS##x##TAPS)(count, sizes, x_at, g_at, last, x + r * x_row, x_row,      \
                                       x_step, g + f, g_step, sums + r * taps * n + f, n);        \
        break;
static void NAME(gradient_spans)(GRADIENT_PARAMETERS, ptrdiff_t kh, ptrdiff_t taps, REAL *sums) {
    for (ptrdiff_t f = 0; f < n; f += LANES) {
        const ptrdiff_t last = n - f < LANES ? n - f : LANES;
        for (ptrdiff_t r = 0, rows; r < kh; r += rows) {
            rows = NAME(part_of)(kh - r, MOST_GRADIENT(taps));
            switch (8 * rows + taps) { ALL_GRADIENTS(GRADIENT_CASE) }
        }
    }
}
