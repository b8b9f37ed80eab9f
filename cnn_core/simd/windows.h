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
#define NOT_0(v) (uint32_t)_mm512_cmp_ps_mask((__m512)(v), _mm512_setzero_ps(), _CMP_NEQ_UQ)
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
#define EVERY_SECOND(low, high, from)                                                             \
    _mm256_permute4x64_pd(                                                                        \
        (__m256d)_mm256_shuffle_ps((__m256)(low), (__m256)(high), 0x88 + 0x55 * from), 0xD8)
#define NOT_0(v) (uint32_t)_mm256_movemask_ps((__m256)((v) != 0))
#endif

#ifdef EVERY_SECOND
/* A block of up to two vectors, and which of its elements are not 0, a bit each. */
static INLINE uint64_t NAME(split_block)(ptrdiff_t n, const REAL *x, REAL *even, REAL *odd) {
    const vec low = NAME(load_n)(x, n, 0);
    const vec high = n > LANES ? NAME(load_n)(x + LANES, n - LANES, 0) : (vec){0};
    NAME(store_n)(even, (n + 1) / 2, (vec)EVERY_SECOND(low, high, 0));
    NAME(store_n)(odd, (n + 1) / 2, (vec)EVERY_SECOND(low, high, 1));
    return NOT_0(low) | (uint64_t)NOT_0(high) << LANES;
}
#endif

/* even[j] = x[2 j], odd[j] = x[2 j + 1] of x[n], n <= 64; behind an odd n is a 0. Which elements are not 0,
 * a bit each. */
static INLINE uint64_t NAME(split_some)(ptrdiff_t n, const REAL *x, REAL *even, REAL *odd) {
    uint64_t bits = 0;
#ifdef EVERY_SECOND
    ptrdiff_t j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES)
        bits |= NAME(split_block)(2 * LANES, x + j, even + j / 2, odd + j / 2) << j;
    if (j < n && j > 0 && n % 2 == 0) { /* begins a little earlier: no part of a vector is stored */
        j = n - 2 * LANES;
        bits |= NAME(split_block)(2 * LANES, x + j, even + j / 2, odd + j / 2) << j;
    } else if (j < n) {
        bits |= NAME(split_block)(n - j, x + j, even + j / 2, odd + j / 2) << j;
    }
#else
    for (ptrdiff_t j = 0; j < n; j++) {
        (j % 2 ? odd : even)[j / 2] = x[j];
        bits |= (uint64_t)(x[j] != 0) << j;
    }
    if (n % 2) odd[n / 2] = 0;
#endif
    return bits;
}
#undef EVERY_SECOND
#undef NOT_0

static void NAME(split)(ptrdiff_t rows, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *even,
                        REAL *odd, ptrdiff_t y_row, ptrdiff_t left, int32_t *seen) {
    for (; rows > 0; rows--, x += x_row, even += y_row, odd += y_row, seen += 2) {
        seen[0] = seen[1] = 0;
        for (ptrdiff_t j = 0; j < n; j += 64) {
            const ptrdiff_t some = n - j < 64 ? n - j : 64;
            const uint64_t bits = NAME(split_some)(some, x + j, even + j / 2, odd + j / 2);
            if (bits == 0) continue;
            if (seen[1] == 0) seen[0] = (int32_t)(left + j + __builtin_ctzll(bits));
            seen[1] = (int32_t)(left + j + 64 - __builtin_clzll(bits));
        }
    }
}

/* Windows are taken in units: half a vector of them, where a vector's halves can come from two places. */
#if VECTOR_BYTES >= 32
#define UNITS 2
#else
#define UNITS 1
#endif
#define UNIT (LANES / UNITS)
#define UNITS_AT_ONCE 64
#if VECTOR_BYTES == 64
#define HALVES(low, high)                                                                         \
    _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd((const double *)(low))),            \
                       _mm256_loadu_pd((const double *)(high)), 1)
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
#define HALVES(low, high) NAME(load_halves)(low, high)
#elif VECTOR_BYTES == 32
#define HALVES(low, high) _mm256_loadu2_m128d(high, low)
#else
#define HALVES(low, high) NAME(load)(low)
#endif

/* What is the same for all windows; see simd.h. Filters are taken in groups, the first ones of which are
 * larger by one. */
typedef struct {
    ptrdiff_t n, windows, kh, kw, x_row, odd, groups, larger, some;
    const REAL *w, *b;
    int relu, numbers;
} NAME(windows_of);

/* The first window of a unit: its columns of x, which rows of x have seen anything, a bit each, and where
 * its maxima go. */
typedef struct {
    const REAL *x;
    uint32_t seen;
    REAL *y;
    uint8_t *which;
} NAME(unit);

/* Maxima of a vector of windows, filter by filter, and their numbers: of a byte each, as many filters in a
 * lane as it has bytes. */
typedef struct {
    vec best[8]; /* least_lanes is not larger */
    ivec numbers[8 / sizeof(REAL)];
} NAME(maxima);

/* Column s of a row of the kernel, of two rows where both pixels of a window above each other see the row of
 * x: left and right are what those side by side see. */
static INLINE void NAME(window_tap)(const int filters, const int upper, const int lower,
                                    const ptrdiff_t kw, ptrdiff_t s, vec left, vec right, const REAL *w,
                                    vec sum[][4]) {
    UNROLL for (int f = 0; f < filters; f++) {
        if (upper) {
            const vec weight = NAME(splat)(w[s * LANES + f]);
            sum[f][0] += weight * left;
            sum[f][1] += weight * right;
        }
        if (lower) {
            const vec weight = NAME(splat)(w[(s - kw) * LANES + f]);
            sum[f][2] += weight * left;
            sum[f][3] += weight * right;
        }
    }
}

/* A row of x meets one row of the kernel for the upper pixels of the windows, and the one before it for the
 * lower ones. other: from its pixels to those of the second unit, where the two do not lie side by side. */
#define PIXELS(p) (apart ? (vec)HALVES(p, (p) + other) : NAME(load)(p))
#define WINDOW_TAP                                                                                \
    {                                                                                             \
        const REAL *next = (s % 2 ? x : x + odd) + (s + 1) / 2;                                   \
        const vec right = PIXELS(next);                                                           \
        NAME(window_tap)(filters, upper, lower, kw, s, left, right, w, sum);                      \
        left = right;                                                                             \
    }
static INLINE void NAME(window_row)(const int filters, const int upper, const int lower, const int apart,
                                    ptrdiff_t other, const ptrdiff_t kw, const REAL *x, ptrdiff_t odd,
                                    const REAL *w, vec sum[][4]) {
    vec left = PIXELS(x);
    if (kw == 5)
        UNROLL for (ptrdiff_t s = 0; s < 5; s++) WINDOW_TAP
    else
        for (ptrdiff_t s = 0; s < kw; s++) WINDOW_TAP
}
#undef PIXELS
#undef WINDOW_TAP

/* The largest, or NaN where one of them is. */
static INLINE vec NAME(max_of_4)(const vec sum[4]) {
    const ivec ordered = (sum[0] == sum[0]) & (sum[1] == sum[1]) & (sum[2] == sum[2]) & (sum[3] == sum[3]);
    const vec most = NAME(bound_below)(NAME(bound_below)(sum[0], sum[1]), NAME(bound_below)(sum[2], sum[3]));
    return (vec)((ivec)most | ~ordered);
}

/* Filters f0 .. f0 + FILTERS - 1. */
#define DEFINE_WINDOWS(FILTERS, ...)                                                              \
    static INLINE void NAME(max_windows_##FILTERS)(                                               \
        const int apart, const ptrdiff_t kw, const NAME(windows_of) *a, ptrdiff_t f0,             \
        const NAME(unit) *one, const NAME(unit) *two, NAME(maxima) *to) {                         \
        const ptrdiff_t kh = a->kh, other = two->x - one->x, row = a->x_row, odd = a->odd;        \
        const uint32_t seen = one->seen | two->seen;                                              \
        const REAL *x = one->x, *w = a->w + f0;                                                   \
        vec sum[FILTERS][4];                                                                      \
        UNROLL for (int f = 0; f < FILTERS; f++)                                                  \
            UNROLL for (int t = 0; t < 4; t++) sum[f][t] = NAME(splat)(a->b[f0 + f]);             \
        if (seen & 1) NAME(window_row)(FILTERS, 1, 0, apart, other, kw, x, odd, w, sum);          \
        for (ptrdiff_t y = 1; y < kh; y++) {                                                      \
            x += row;                                                                             \
            w += kw * LANES;                                                                      \
            if (seen >> y & 1)                                                                    \
                NAME(window_row)(FILTERS, 1, 1, apart, other, kw, x, odd, w, sum);                \
        }                                                                                         \
        x += row;                                                                                 \
        w += kw * LANES;                                                                          \
        if (seen >> kh) NAME(window_row)(FILTERS, 0, 1, apart, other, kw, x, odd, w, sum);        \
        UNROLL for (int f = 0; f < FILTERS; f++) {                                                \
            vec most = sum[f][0];                                                                 \
            if (a->numbers) {                                                                     \
                ivec number = {0};                                                                \
                UNROLL for (int t = 1; t < 4; t++) {                                              \
                    const LANE_MASK larger = LARGER(sum[f][t], most);                             \
                    most = CHOOSE(larger, sum[f][t], most);                                       \
                    number = CHOOSE_NUMBERS(larger, (ivec){0} + t, number);                       \
                }                                                                                 \
                to->numbers[(f0 + f) / (ptrdiff_t)sizeof(REAL)] |=                                \
                    number << (lane_int)(8 * ((f0 + f) % (ptrdiff_t)sizeof(REAL)));               \
            } else {                                                                              \
                most = NAME(max_of_4)(sum[f]);                                                    \
            }                                                                                     \
            to->best[f0 + f] = a->relu ? NAME(activation)(ACTIVATION_RELU, most, most) : most;    \
        }                                                                                         \
    }
#if VECTOR_REGISTERS == 32
#define ALL_WINDOWS UP_TO_6
#define FILTERS_AT_ONCE 6
#else
#define ALL_WINDOWS(X, ...) UP_TO_2(X, __VA_ARGS__) X(3, __VA_ARGS__)
#define FILTERS_AT_ONCE 3
#endif
ALL_WINDOWS(DEFINE_WINDOWS, )

/* Elements of one window, of which `room` follow in its unit: what is too much the next window overwrites. */
#if VECTOR_BYTES >= 32 && REAL_IS_FLOAT
static INLINE void NAME(store_window)(ptrdiff_t n, ptrdiff_t room, __m256 v, REAL *y) {
    if (room >= 8) {
        _mm256_storeu_ps(y, v);
        return;
    }
#if VECTOR_BYTES == 64
    NAME(half_store_n)(y, n, (half_vec)v);
#else
    NAME(store_n)(y, n, (vec)v);
#endif
}
#endif

static INLINE void NAME(store_numbers_of)(ptrdiff_t n, ptrdiff_t room, const NAME(maxima) *maxima,
                                          ptrdiff_t lane, uint8_t *which) {
    const ptrdiff_t bytes = sizeof(REAL), words = (n + bytes - 1) / bytes;
    const int whole = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && room >= words * bytes;
    for (ptrdiff_t i = 0; i < words; i++) {
        const lane_int word = maxima->numbers[i][lane];
        if (whole) memcpy(which + i * bytes, &word, sizeof word);
        for (ptrdiff_t f = i * bytes; !whole && f < n && f < (i + 1) * bytes; f++)
            which[f] = (uint8_t)(word >> 8 * (f % bytes));
    }
}

/* From filter by filter to window by window. */
static INLINE void NAME(store_units)(const NAME(windows_of) *a, const NAME(maxima) *maxima,
                                     const NAME(unit) *one, const NAME(unit) *two) {
    const ptrdiff_t n = a->n, count = a->windows < UNIT ? a->windows : UNIT;
#if VECTOR_BYTES >= 32 && REAL_IS_FLOAT
    const REAL *rows[8];
    __m256 columns[8];
    for (int f = 0; f < 8; f++) rows[f] = (const REAL *)&maxima->best[f < n ? f : 0];
#endif
    UNROLL for (ptrdiff_t lane = 0; lane < UNITS * UNIT; lane++) {
        const ptrdiff_t i = lane % UNIT, room = (count - i) * n;
        const NAME(unit) *unit = lane < UNIT ? one : two;
#if VECTOR_BYTES >= 32 && REAL_IS_FLOAT
        if (lane % 8 == 0) NAME(columns_of_rows)(rows, lane, columns);
        if (i < count) NAME(store_window)(n, room, columns[lane % 8], unit->y + i * n);
#else
        for (ptrdiff_t f = 0; i < count && f < n; f++) unit->y[i * n + f] = maxima->best[f][lane];
#endif
        if (a->numbers && i < count)
            NAME(store_numbers_of)(n, room, maxima, lane, unit->which + i * n);
    }
}

#define WINDOWS_CASE(FILTERS, ...)                                                                \
    case FILTERS: NAME(max_windows_##FILTERS)(apart, kw, a, f, one, two, &maxima); break;
static INLINE void NAME(max_of_units)(const int apart, const ptrdiff_t kw, const NAME(windows_of) *a,
                                      const NAME(unit) *one, const NAME(unit) *two) {
    NAME(maxima) maxima;
    if (a->numbers) memset(maxima.numbers, 0, sizeof maxima.numbers);
    for (ptrdiff_t g = 0, f = 0, some; g < a->groups; g++, f += some) {
        some = g < a->larger ? a->some + 1 : a->some;
        switch (some) { ALL_WINDOWS(WINDOWS_CASE, ) }
    }
    NAME(store_units)(a, &maxima, one, two);
}

/* Units that are gathered first, so that what is done for them does not wait for the choice of others: the
 * first ones of whole vectors, or halves, two of which share a vector. */
typedef struct {
    ptrdiff_t count;
    NAME(unit) units[UNITS_AT_ONCE];
} NAME(unit_list);

static INLINE NAME(unit) NAME(unit_behind)(const NAME(windows_of) *a, const NAME(unit) *one, ptrdiff_t i) {
    return (NAME(unit)){one->x + i, one->seen, one->y + i * a->n, one->which ? one->which + i * a->n : NULL};
}

static void NAME(max_of_wholes)(const NAME(windows_of) *a, NAME(unit_list) *list) {
    for (ptrdiff_t k = 0; k < list->count; k++) {
        const NAME(unit) *one = list->units + k, two = NAME(unit_behind)(a, one, LANES - UNIT);
        if (a->kw == 5) NAME(max_of_units)(0, 5, a, one, &two);
        else NAME(max_of_units)(0, a->kw, a, one, &two);
    }
    list->count = 0;
}

static void NAME(max_of_pairs)(const NAME(windows_of) *a, NAME(unit_list) *list) {
    for (ptrdiff_t k = 0; k < list->count; k += UNITS) {
        const NAME(unit) *one = list->units + k, *two = k + UNITS <= list->count ? one + UNITS - 1 : one;
        if (a->kw == 5) NAME(max_of_units)(UNITS > 1, 5, a, one, two);
        else NAME(max_of_units)(UNITS > 1, a->kw, a, one, two);
    }
    list->count = 0;
}

/* The unit that begins at window i of a row, if it is wanted. */
static INLINE void NAME(add_unit)(const NAME(windows_of) *a, NAME(unit_list) *list, const NAME(unit) *row,
                                  ptrdiff_t i, int wanted,
                                  void (*take)(const NAME(windows_of) *, NAME(unit_list) *)) {
    list->units[list->count] = NAME(unit_behind)(a, row, i > 0 ? i : 0);
    list->count += wanted;
    if (list->count == UNITS_AT_ONCE) take(a, list);
}

/* The windows of a row that see anything but zeros: the first one, and the one behind the last; the rows of
 * x that hold it. */
static INLINE uint32_t NAME(seen_windows)(const NAME(windows_of) *a, const int32_t *seen, ptrdiff_t *begin,
                                          ptrdiff_t *end) {
    int32_t first = INT32_MAX, last = 0;
    uint32_t rows = 0;
    for (int y = 0; y <= a->kh; y++, seen += 2) {
        const int32_t from = seen[1] > 0 ? seen[0] : INT32_MAX;
        first = from < first ? from : first;
        last = seen[1] > last ? seen[1] : last;
        rows |= (uint32_t)(seen[1] > 0) << y;
    }
    *begin = first > a->kw ? (first - a->kw + 1) / 2 : 0;
    *end = (last + 1) / 2 < a->windows ? (last + 1) / 2 : a->windows;
    return rows;
}

/* What windows have that see nothing but zeros. */
static INLINE void NAME(fill_windows)(ptrdiff_t count, ptrdiff_t n, const REAL *blank, REAL *y) {
    const vec v = NAME(load)(blank);
    ptrdiff_t at = 0;
    for (; at + LANES <= count * n; at += n) NAME(store)(y + at, v); /* n <= LANES: none is left out */
    for (; at < count * n; at += n)
        for (ptrdiff_t f = 0; f < n; f++) y[at + f] = blank[f];
}

static void NAME(max_windows)(ptrdiff_t n, ptrdiff_t rows, ptrdiff_t windows, ptrdiff_t kh, ptrdiff_t kw,
                              const REAL *x, ptrdiff_t x_row, ptrdiff_t odd, const int32_t *seen,
                              const REAL *w, const REAL *b, int relu, REAL *y, ptrdiff_t y_row,
                              uint8_t *which) {
    const ptrdiff_t groups = (n + FILTERS_AT_ONCE - 1) / FILTERS_AT_ONCE;
    REAL start[LANES] = {0}, blank[LANES] = {0};
    const NAME(windows_of) a = {n, windows, kh, kw, x_row, odd, groups, n % groups, n / groups,
                                w, start, relu, which != NULL};
    NAME(unit_list) wholes, pairs;
    wholes.count = pairs.count = 0;
    for (ptrdiff_t f = 0; b && f < n; f++) {
        start[f] = b[f];
        blank[f] = relu && b[f] < 0 ? 0 : b[f];
    }
    if (which) memset(which, 0, (size_t)(rows * windows * n));
    for (ptrdiff_t r = 0; r < rows; r++, seen += 4) {
        NAME(unit) row = {x + 2 * r * x_row, 0, y + r * y_row, which ? which + r * windows * n : NULL};
        ptrdiff_t at, end, left, whole = 0;
        row.seen = NAME(seen_windows)(&a, seen, &at, &end);
        left = end > at ? (end - at + UNIT - 1) / UNIT : 0;
        NAME(fill_windows)(windows, n, blank, row.y);
        for (ptrdiff_t i = 0; windows >= LANES && i < windows; i += LANES, whole += UNITS) {
            const ptrdiff_t first = at + i < windows - LANES ? at + i : windows - LANES;
            NAME(add_unit)(&a, &wholes, &row, first, whole + UNITS <= left, NAME(max_of_wholes));
        }
        if (windows >= LANES) { /* what is left is the end of the row */
            left %= UNITS;
            at = end - left * UNIT;
        }
        for (ptrdiff_t u = 0; u < UNITS - (windows >= LANES); u++, at += UNIT) {
            const ptrdiff_t first = at < windows - UNIT ? at : windows - UNIT;
            NAME(add_unit)(&a, &pairs, &row, first, u < left, NAME(max_of_pairs));
        }
    }
    NAME(max_of_wholes)(&a, &wholes);
    NAME(max_of_pairs)(&a, &pairs);
}
#undef UNITS
#undef UNIT
#undef UNITS_AT_ONCE
#undef HALVES

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
