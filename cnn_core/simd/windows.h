/* Maxima of a convolution of one channel over windows of 2 x 2 pixels, with the windows in the lanes: the
 * four sums of each stay in registers. Included once per type, after images.h. */

#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
/* Every second element of two vectors, from the first or the second one on. */
#define EVERY_SECOND(low, high, from)                                                             \
    _mm512_permutex2var_ps(                                                                       \
        (__m512)(low),                                                                            \
        _mm512_add_epi32(_mm512_set1_epi32(from),                                                 \
                         _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, \
                                           30)),                                                  \
        (__m512)(high))
#define ANY_BUT_0(low, high)                                                                      \
    (_mm512_cmp_ps_mask((__m512)(low), _mm512_setzero_ps(), _CMP_NEQ_UQ)                          \
     | _mm512_cmp_ps_mask((__m512)(high), _mm512_setzero_ps(), _CMP_NEQ_UQ))
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
#define EVERY_SECOND(low, high, from)                                                             \
    _mm256_permute4x64_pd(                                                                        \
        (__m256d)_mm256_shuffle_ps((__m256)(low), (__m256)(high), 0x88 + 0x55 * from), 0xD8)
#define ANY_BUT_0(low, high) _mm256_movemask_ps((__m256)(((low) != 0) | ((high) != 0)))
#endif

/* even[j] = x[2 j], odd[j] = x[2 j + 1] of x[n]; behind an odd n is a 0. Whether one of them is not 0. */
static INLINE unsigned char NAME(split_row)(ptrdiff_t n, const REAL *restrict x, REAL *restrict even,
                                            REAL *restrict odd) {
    int any = 0;
#ifdef EVERY_SECOND
    for (ptrdiff_t j = 0; j < n; j += 2 * LANES) {
        const ptrdiff_t left = n - j;
        const vec low = NAME(load_n)(x + j, left, 0);
        const vec high = left > LANES ? NAME(load_n)(x + j + LANES, left - LANES, 0) : (vec){0};
        any |= ANY_BUT_0(low, high);
        NAME(store_n)(even + j / 2, (left + 1) / 2, (vec)EVERY_SECOND(low, high, 0));
        NAME(store_n)(odd + j / 2, (left + 1) / 2, (vec)EVERY_SECOND(low, high, 1));
    }
#else
    for (ptrdiff_t j = 0; j < n / 2; j++) {
        even[j] = x[2 * j];
        odd[j] = x[2 * j + 1];
        any |= (even[j] != 0) | (odd[j] != 0);
    }
    if (n % 2) {
        even[n / 2] = x[n - 1];
        odd[n / 2] = 0;
        any |= x[n - 1] != 0;
    }
#endif
    return any != 0;
}
#undef EVERY_SECOND
#undef ANY_BUT_0

static void NAME(split)(ptrdiff_t rows, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *even,
                        REAL *odd, ptrdiff_t y_row, unsigned char *any) {
    for (ptrdiff_t r = 0; r < rows; r++, x += x_row, even += y_row, odd += y_row)
        any[r] = NAME(split_row)(n, x, even, odd);
}

/* The last windows of a row that fill half a vector or less share one with those of the row behind. */
#if VECTOR_BYTES == 32
#define ROWS_SHARE 1
#if REAL_IS_FLOAT
#define HALVES(low, high) NAME(load_halves)(low, high)
#define SECOND_HALF(v) (vec)_mm256_permute2f128_ps((__m256)(v), (__m256)(v), 1)
#else
#define HALVES(low, high) _mm256_loadu2_m128d(high, low)
#define SECOND_HALF(v) (vec)_mm256_permute2f128_pd((__m256d)(v), (__m256d)(v), 1)
#endif
#else
#define ROWS_SHARE 0
#define HALVES(low, high) NAME(load)(low)
#define SECOND_HALF(v) (v)
#endif

/* A row of x meets one row of the kernel for the upper pixels of the windows, and the one before it for the
 * lower ones. below: from its pixels to those of the row that has a share. */
static INLINE void NAME(window_row)(const int filters, const int upper, const int lower,
                                    const int shared, ptrdiff_t below, ptrdiff_t kw, const REAL *even,
                                    const REAL *odd, const REAL *w, ptrdiff_t w_tap, vec sum[][4]) {
    vec left = shared ? (vec)HALVES(even, even + below) : NAME(load)(even);
    for (ptrdiff_t s = 0; s < kw; s++) {
        const REAL *next = (s % 2 ? even : odd) + (s + 1) / 2;
        const vec right = shared ? (vec)HALVES(next, next + below) : NAME(load)(next);
        UNROLL for (int f = 0; f < filters; f++) {
            if (upper) {
                const vec weight = NAME(splat)(w[s * w_tap + f]);
                sum[f][0] += weight * left;
                sum[f][1] += weight * right;
            }
            if (lower) {
                const vec weight = NAME(splat)(w[(s - kw) * w_tap + f]);
                sum[f][2] += weight * left;
                sum[f][3] += weight * right;
            }
        }
        left = right;
    }
}

#define WINDOWS_PARAMETERS                                                                        \
    ptrdiff_t windows, ptrdiff_t kh, ptrdiff_t kw, const REAL *x, ptrdiff_t x_row, ptrdiff_t odd, \
        const unsigned char *used, const REAL *w, ptrdiff_t w_tap, const REAL *b, int relu,       \
        REAL *best, int32_t *which, ptrdiff_t plane
#define WINDOWS_ARGUMENTS                                                                         \
    windows, kh, kw, x, x_row, odd, used, w, w_tap, b, relu, best, which, plane
/* The windows of a row from i on, or half a vector of them and as many of the row behind. */
#define DEFINE_WINDOWS(FILTERS, ...)                                                              \
    static INLINE void NAME(windows_at_##FILTERS)(const int shared, ptrdiff_t i,                  \
                                                  WINDOWS_PARAMETERS) {                           \
        vec sum[FILTERS][4];                                                                      \
        UNROLL for (int f = 0; f < FILTERS; f++)                                                  \
            UNROLL for (int t = 0; t < 4; t++) sum[f][t] = NAME(splat)(b ? b[f] : 0);             \
        for (ptrdiff_t y = 0; y <= kh; y++) {                                                     \
            const REAL *even = x + y * x_row + i, *taps = w + y * kw * w_tap;                     \
            if (!(used[y] || (shared && used[y + 2]))) continue;                                  \
            if (y == 0)                                                                           \
                NAME(window_row)(FILTERS, 1, 0, shared, 2 * x_row, kw, even, even + odd, taps,    \
                                 w_tap, sum);                                                     \
            else if (y == kh)                                                                     \
                NAME(window_row)(FILTERS, 0, 1, shared, 2 * x_row, kw, even, even + odd, taps,    \
                                 w_tap, sum);                                                     \
            else                                                                                  \
                NAME(window_row)(FILTERS, 1, 1, shared, 2 * x_row, kw, even, even + odd, taps,    \
                                 w_tap, sum);                                                     \
        }                                                                                         \
        UNROLL for (int f = 0; f < FILTERS; f++) {                                                \
            vec most = sum[f][0];                                                                 \
            ivec number = {0};                                                                    \
            const ptrdiff_t at = f * plane + i;                                                   \
            UNROLL for (int t = 1; t < 4; t++) {                                                  \
                const LANE_MASK larger = LARGER(sum[f][t], most);                                 \
                most = CHOOSE(larger, sum[f][t], most);                                           \
                if (which) number = CHOOSE_NUMBERS(larger, (ivec){0} + t, number);                \
            }                                                                                     \
            if (relu) most = NAME(activation)(ACTIVATION_RELU, most, most);                       \
            NAME(store_n)(best + at, windows - i, most);                                          \
            if (which) NAME(store_numbers)(4, which, at, windows - i, number);                    \
            if (shared) {                                                                         \
                NAME(store_n)(best + at + windows, windows - i, SECOND_HALF(most));               \
                if (which)                                                                        \
                    NAME(store_numbers)(4, which, at + windows, windows - i,                      \
                                        (ivec)SECOND_HALF(number));                               \
            }                                                                                     \
        }                                                                                         \
    }                                                                                             \
    static void NAME(windows_##FILTERS)(ptrdiff_t rows, WINDOWS_PARAMETERS) {                     \
        const ptrdiff_t some = windows % LANES, whole = windows - some;                           \
        const int share = ROWS_SHARE && some > 0 && 2 * some <= LANES;                            \
        for (int second = 0; rows > 0; rows--, second = !second) {                                \
            for (ptrdiff_t i = 0; i < whole; i += LANES)                                          \
                NAME(windows_at_##FILTERS)(0, i, WINDOWS_ARGUMENTS);                              \
            if (share && !second && rows > 1)                                                     \
                NAME(windows_at_##FILTERS)(ROWS_SHARE, whole, WINDOWS_ARGUMENTS);                 \
            else if (some > 0 && !(share && second))                                              \
                NAME(windows_at_##FILTERS)(0, whole, WINDOWS_ARGUMENTS);                          \
            x += 2 * x_row;                                                                       \
            used += 2;                                                                            \
            best += windows;                                                                      \
            if (which) which += windows;                                                          \
        }                                                                                         \
    }
#if VECTOR_REGISTERS == 32
#define ALL_WINDOWS UP_TO_6
#define MOST_WINDOW_FILTERS 6
#else
#define ALL_WINDOWS(X, ...) UP_TO_2(X, __VA_ARGS__) X(3, __VA_ARGS__)
#define MOST_WINDOW_FILTERS 3
#endif
ALL_WINDOWS(DEFINE_WINDOWS, )
#undef ROWS_SHARE
#undef HALVES
#undef SECOND_HALF

#define WINDOWS_CASE(FILTERS, ...)                                                                \
    case FILTERS:                                                                                 \
        NAME(windows_##FILTERS)(rows, WINDOWS_ARGUMENTS); break;
static void NAME(max_windows)(ptrdiff_t n, ptrdiff_t rows, WINDOWS_PARAMETERS) {
    for (ptrdiff_t groups = (n + MOST_WINDOW_FILTERS - 1) / MOST_WINDOW_FILTERS; groups > 0; groups--) {
        const ptrdiff_t filters = (n + groups - 1) / groups;
        switch (filters) { ALL_WINDOWS(WINDOWS_CASE, ) }
        w += filters;
        if (b) b += filters;
        best += filters * plane;
        if (which) which += filters * plane;
        n -= filters;
    }
}

/* y[2 j] = x[j], y[2 j + 1] = below[j], j < n. */
static void NAME(interleave)(ptrdiff_t n, const REAL *restrict x, const REAL *restrict below,
                             REAL *restrict y) {
    for (ptrdiff_t j = 0; j < n; j++) {
        y[2 * j] = x[j];
        y[2 * j + 1] = below[j];
    }
}

/* For one of 4 elements per lane. Of number 2 p + q, pixel q of row p, the place is p + 2 q: the two rows
 * are interleaved. */
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
#define WINDOW_SUMS 25
#define ONE_OF_4(p, lane) _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(p)), (__m512i)(lane))
#elif VECTOR_BYTES == 64
#define WINDOW_SUMS 25
#define ONE_OF_4(p, lane)                                                                         \
    _mm512_permutexvar_pd((__m512i)(lane), _mm512_broadcast_f64x4(_mm256_loadu_pd(p)))
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
#define WINDOW_SUMS 10
#define ONE_OF_4(p, lane)                                                                         \
    _mm256_permutevar_ps(_mm256_broadcast_ps((const __m128 *)(p)), (__m256i)(lane))
#else
#define WINDOW_SUMS 0
#endif

#if WINDOW_SUMS > 0
/* Some rows of the kernel for a vector of filters: sums stay in registers for all windows. */
#define WINDOW_SUMS_PARAMETERS                                                                    \
    ptrdiff_t count, const int32_t *windows, const int32_t *at, ptrdiff_t n, ptrdiff_t last,      \
        const REAL *g, const uint8_t *which, const REAL *pairs, ptrdiff_t pair_row, REAL *sums,   \
        ptrdiff_t step
#define DEFINE_WINDOW_SUMS(ROWS, COLUMNS)                                                         \
    static void NAME(window_sums_##ROWS##x##COLUMNS)(WINDOW_SUMS_PARAMETERS) {                    \
        vec sum[ROWS * COLUMNS];                                                                  \
        UNROLL for (int t = 0; t < ROWS * COLUMNS; t++) sum[t] = NAME(load)(sums + t * step);     \
        for (ptrdiff_t i = 0; i < count; i++) {                                                   \
            const vec gradient = NAME(load_last)(g + windows[i] * n, last);                       \
            const ivec number = NAME(load_bytes)(which + windows[i] * n, last);                   \
            const ivec lane = (number >> 1) + ((number & 1) << 1);                                \
            const REAL *pixel = pairs + at[i];                                                    \
            UNROLL for (int r = 0; r < ROWS; r++) {                                               \
                UNROLL for (int s = 0; s < COLUMNS; s++)                                          \
                    sum[r * COLUMNS + s] += (vec)ONE_OF_4(pixel + 2 * s, lane) * gradient;        \
                pixel += pair_row;                                                                \
            }                                                                                     \
        }                                                                                         \
        UNROLL for (int t = 0; t < ROWS * COLUMNS; t++) NAME(store)(sums + t * step, sum[t]);     \
    }
#if WINDOW_SUMS == 25
#define ALL_WINDOW_SUMS(X) X(1, 3) X(2, 3) X(3, 3) X(1, 5) X(2, 5) X(3, 5) X(4, 5) X(5, 5)
#else
#define ALL_WINDOW_SUMS(X) X(1, 3) X(2, 3) X(3, 3) X(1, 5) X(2, 5)
#endif
ALL_WINDOW_SUMS(DEFINE_WINDOW_SUMS)

#define WINDOW_SUMS_CASE(ROWS, COLUMNS)                                                           \
    case 8 * ROWS + COLUMNS:                                                                      \
        NAME(window_sums_##ROWS##x##COLUMNS)(count, windows, at, n, last, g + f, which + f,       \
                                             pairs + r * pair_row, pair_row,                      \
                                             sums + r * kw * step + f, step);                     \
        break;
#endif
static void NAME(window_gradients)(ptrdiff_t count, const int32_t *windows, const int32_t *at,
                                   ptrdiff_t n, const REAL *g, const uint8_t *which,
                                   const REAL *pairs, ptrdiff_t pair_row, ptrdiff_t kh,
                                   ptrdiff_t kw, REAL *sums, ptrdiff_t step) {
#if WINDOW_SUMS > 0
    const ptrdiff_t most = kw == 3 ? 3 : WINDOW_SUMS / 5;
    for (ptrdiff_t f = 0; f < n; f += LANES) {
        const ptrdiff_t last = n - f < LANES ? n - f : LANES;
        for (ptrdiff_t r = 0, rows; r < kh; r += rows) {
            rows = NAME(part_of)(kh - r, most);
            switch (8 * rows + kw) { ALL_WINDOW_SUMS(WINDOW_SUMS_CASE) }
        }
    }
#endif
}
