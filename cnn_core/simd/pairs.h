/* A row of an image of one channel, met by rows of a kernel: pairs of neighbours that are not both 0 are
 * added to the sums of the pixels that see them. Included once per type, after product.h. */

/* Elements 2 i and 2 i + 1 of x[n] where one of them is not 0: values[2 count], at[count] the first
 * one's place; returns how many. Behind the last of an odd number stands a 0. */
static ptrdiff_t NAME(pick_pairs)(ptrdiff_t n, const REAL *x, REAL *values, int32_t *at) {
    ptrdiff_t count = 0, j = 0;
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    __m256i places = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i sizes = _mm512_set1_epi32(INT32_MAX); /* without the sign, which a 0 may have */
    for (; j < n; j += LANES) {
        const __m512i pairs = (__m512i)NAME(load_n)(x + j, n - j, 0);
        const __mmask8 mask = _mm512_test_epi64_mask(pairs, sizes);
        const __m512i none = (__m512i)NAME(cleared)();
        const __m256i kept = _mm256_mask_compress_epi32(_mm512_castsi512_si256(none), mask, places);
        _mm512_storeu_si512(values + 2 * count, _mm512_mask_compress_epi64(none, mask, pairs));
        _mm256_storeu_si256((__m256i *)(at + count), kept);
        places = _mm256_add_epi32(places, _mm256_set1_epi32((int)LANES));
        count += __builtin_popcount(mask);
    }
#endif
    for (; j < n; j += 2) {
        const REAL second = j + 1 < n ? x[j + 1] : 0;
        values[2 * count] = x[j];
        values[2 * count + 1] = second;
        at[count] = (int32_t)j;
        count += (x[j] != 0) | (second != 0);
    }
    return count;
}

/* ROWS rows of the kernel and one vector of its filters. The sums stay in memory, in the nearest cache:
 * what a row has left out would else choose the registers. */
#define SPREAD_PARAMETERS                                                                         \
    ptrdiff_t count, const int32_t *at, const REAL *values, ptrdiff_t n, const REAL *w,           \
        ptrdiff_t w_row, ptrdiff_t w_tap, REAL *const *sums, ptrdiff_t step, ptrdiff_t column
#define DEFINE_SPREAD(TAPS, ROWS, P)                                                              \
    static void NAME(spread_##P##ROWS##x##TAPS)(SPREAD_PARAMETERS) {                              \
        P##vec weight[ROWS][TAPS];                                                                \
        UNROLL for (int r = 0; r < ROWS; r++)                                                     \
            UNROLL for (int s = 0; s < TAPS; s++)                                                 \
                weight[r][s] = NAME(P##load_n)(w + r * w_row + s * w_tap, n, 0);                  \
        for (ptrdiff_t i = 0; i < count; i++) {                                                   \
            const P##vec first = NAME(P##low)(NAME(splat)(values[2 * i]));                        \
            const P##vec second = NAME(P##low)(NAME(splat)(values[2 * i + 1]));                   \
            UNROLL for (int r = 0; r < ROWS; r++) {                                               \
                REAL *to = sums[r] + at[i] * step + column;                                       \
                UNROLL for (int j = 0; j <= TAPS; j++) {                                          \
                    P##vec sum = NAME(P##load)(to + j * step);                                    \
                    if (j < TAPS) sum += first * weight[r][TAPS - 1 - j];                         \
                    if (j > 0) sum += second * weight[r][TAPS - j];                               \
                    NAME(P##store)(to + j * step, sum);                                           \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
    }
/* As many rows as registers hold weights of: each call begins with all of them, for a few pairs. */
#if VECTOR_REGISTERS == 32
#define MOST_SPREAD(taps) ((taps) <= 5 ? 5 : (taps) == 6 ? 4 : 3)
#define ALL_SPREAD(X, P)                                                                          \
    UP_TO_8(X, 1, P) UP_TO_8(X, 2, P) UP_TO_8(X, 3, P) UP_TO_6(X, 4, P) UP_TO_4(X, 5, P) X(5, 5, P)
#else
#define MOST_SPREAD(taps) 2
#define ALL_SPREAD(X, P) UP_TO_8(X, 1, P) UP_TO_8(X, 2, P)
#endif
ALL_SPREAD(DEFINE_SPREAD, )
#if VECTOR_BYTES == 64
ALL_SPREAD(DEFINE_SPREAD, half_)
#endif

#define SPREAD_CASE(TAPS, ROWS, P)                                                                \
    case 8 * ROWS + TAPS:                                                                         \
        NAME(spread_##P##ROWS##x##TAPS)(count, at, values, n - column, w + column, w_row, w_tap,  \
                                        sums, step, column); break;
static void NAME(spread_pairs)(ptrdiff_t count, const int32_t *at, const REAL *values,
                               ptrdiff_t taps, ptrdiff_t rows, ptrdiff_t n, const REAL *w,
                               ptrdiff_t w_row, ptrdiff_t w_tap, REAL *const *sums,
                               ptrdiff_t step) {
    while (rows > 0) {
        const ptrdiff_t some = rows < MOST_SPREAD(taps) ? rows : MOST_SPREAD(taps);
        for (ptrdiff_t column = 0; column < n; column += LANES) {
#if VECTOR_BYTES == 64
            if (2 * (n - column) <= LANES) {
                switch (8 * some + taps) { ALL_SPREAD(SPREAD_CASE, half_) }
                continue;
            }
#endif
            switch (8 * some + taps) { ALL_SPREAD(SPREAD_CASE, ) }
        }
        rows -= some;
        w += some * w_row;
        sums += some;
    }
}
