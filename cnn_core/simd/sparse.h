/* Elements that are not 0, and products with them alone. Included once per type, after product.h. */

#if VECTOR_BYTES == 64
/* 0 in a register that is set anew each time: where lanes are compressed into one, Zen 5 waits for what
 * it held before, even if all other lanes become 0. */
static INLINE vec NAME(cleared)(void) {
    vec none = {0};
    __asm__("" : "+v"(none));
    return none;
}

/* values[] = the lanes of v whose bit is set, at[] those of places; returns how many. Room for a whole
 * vector of each is written to. Here and in the functions below no values are kept where that is NULL:
 * half the work. */
#if REAL_IS_FLOAT
#define PLACES __m512i
#define FIRST_PLACES _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define ADD_PLACES(a, b) _mm512_add_epi32(a, b)
#define ALL_PLACES(a) _mm512_set1_epi32(a)
#define SAME_PLACES(a, b) _mm512_cmpeq_epi32_mask(a, b)
#define LOAD_PLACES(p, n) _mm512_maskz_loadu_epi32((__mmask16)((1u << ((n) < 16 ? (n) : 16)) - 1), p)
#define NOT_ZERO(v) _mm512_cmp_ps_mask((__m512)(v), _mm512_setzero_ps(), _CMP_NEQ_UQ)
#define ANY_BITS(v, bits) _mm512_test_epi32_mask((__m512i)(v), (__m512i)(bits))
#else
#define PLACES __m256i
#define FIRST_PLACES _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)
#define ADD_PLACES(a, b) _mm256_add_epi32(a, b)
#define ALL_PLACES(a) _mm256_set1_epi32(a)
#define SAME_PLACES(a, b) _mm256_cmpeq_epi32_mask(a, b)
#define LOAD_PLACES(p, n) _mm256_maskz_loadu_epi32((__mmask8)((1u << ((n) < 8 ? (n) : 8)) - 1), p)
#define NOT_ZERO(v) _mm512_cmp_pd_mask((__m512d)(v), _mm512_setzero_pd(), _CMP_NEQ_UQ)
#define ANY_BITS(v, bits) _mm512_test_epi64_mask((__m512i)(v), (__m512i)(bits))
#endif
static INLINE ptrdiff_t NAME(keep_lanes)(unsigned mask, vec v, PLACES places, REAL *values,
                                         int32_t *at) {
    const vec none = NAME(cleared)();
#if REAL_IS_FLOAT
    const __mmask16 kept = (__mmask16)mask;
    if (values) _mm512_storeu_ps(values, _mm512_mask_compress_ps((__m512)none, kept, (__m512)v));
    _mm512_storeu_si512(at, _mm512_mask_compress_epi32((__m512i)none, kept, places));
#else
    const __mmask8 kept = (__mmask8)mask;
    const __m256i no_places = _mm512_castsi512_si256((__m512i)none);
    if (values) _mm512_storeu_pd(values, _mm512_mask_compress_pd((__m512d)none, kept, (__m512d)v));
    _mm256_storeu_si256((__m256i *)at, _mm256_mask_compress_epi32(no_places, kept, places));
#endif
    return __builtin_popcount(mask);
}
#elif VECTOR_BYTES == 32
/* The lanes of each mask whose bit is set, in order, a byte each. */
#define KEPT(m, i) ((uint64_t)((m) >> i & 1) * i << 8 * __builtin_popcount((m) & ((1 << i) - 1)))
#define KEPT_OF(m)                                                                                \
    KEPT(m, 1) | KEPT(m, 2) | KEPT(m, 3) | KEPT(m, 4) | KEPT(m, 5) | KEPT(m, 6) | KEPT(m, 7)
#define KEPT_4(m) KEPT_OF(m), KEPT_OF(m + 1), KEPT_OF(m + 2), KEPT_OF(m + 3)
#define KEPT_16(m) KEPT_4(m), KEPT_4(m + 4), KEPT_4(m + 8), KEPT_4(m + 12)
#define KEPT_64(m) KEPT_16(m), KEPT_16(m + 16), KEPT_16(m + 32), KEPT_16(m + 48)
#if REAL_IS_FLOAT
static const uint64_t NAME(kept_lanes)[256] = {KEPT_64(0), KEPT_64(64), KEPT_64(128), KEPT_64(192)};
#define NOT_ZERO(v)                                                                               \
    _mm256_movemask_ps(_mm256_cmp_ps((__m256)(v), _mm256_setzero_ps(), _CMP_NEQ_UQ))
static INLINE vec NAME(in_order)(vec v, __m256i order) {
    return (vec)_mm256_permutevar8x32_ps((__m256)v, order);
}
static INLINE void NAME(store_places)(int32_t *at, __m256i places) {
    _mm256_storeu_si256((__m256i *)at, places);
}
#else
static const uint64_t NAME(kept_lanes)[16] = {KEPT_16(0)};
#define NOT_ZERO(v)                                                                               \
    _mm256_movemask_pd(_mm256_cmp_pd((__m256d)(v), _mm256_setzero_pd(), _CMP_NEQ_UQ))
static INLINE vec NAME(in_order)(vec v, __m256i order) {
    const __m256i first = _mm256_slli_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(order)), 1);
    const __m256i second = _mm256_slli_epi64(_mm256_add_epi64(first, _mm256_set1_epi64x(1)), 32);
    return (vec)_mm256_permutevar8x32_ps((__m256)v, _mm256_or_si256(first, second));
}
static INLINE void NAME(store_places)(int32_t *at, __m256i places) {
    _mm_storeu_si128((__m128i *)at, _mm256_castsi256_si128(places));
}
#endif
#undef KEPT
#undef KEPT_OF
#undef KEPT_4
#undef KEPT_16
#undef KEPT_64
static INLINE __m256i NAME(kept_order)(int mask) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(NAME(kept_lanes) + mask)));
}
/* The same, with v and the places already in the order of the mask. */
static INLINE ptrdiff_t NAME(keep_first)(int mask, vec v, __m256i places, REAL *values, int32_t *at) {
    if (values) NAME(store)(values, v);
    NAME(store_places)(at, places);
    return __builtin_popcount((unsigned)mask);
}
/* The same for the places from that on which all lanes of `first` hold. */
static INLINE ptrdiff_t NAME(keep_lanes)(int mask, vec v, __m256i first, REAL *values,
                                         int32_t *at) {
    const __m256i order = NAME(kept_order)(mask), places = _mm256_add_epi32(order, first);
    return NAME(keep_first)(mask, NAME(in_order)(v, order), places, values, at);
}
#endif

/* The elements j with g[j] != 0 and numbers[j] == number, in order; returns how many. */
static INLINE ptrdiff_t NAME(pick_as)(ptrdiff_t n, int32_t number, const uint8_t *numbers,
                                      const REAL *g, REAL *values, int32_t *at) {
    ptrdiff_t count = 0, j = 0;
#if VECTOR_BYTES == 64
    PLACES places = FIRST_PLACES;
    for (; j < n; j += LANES) {
        const vec v = NAME(load_n)(g + j, n - j, 0);
        unsigned mask = NOT_ZERO(v);
        if (numbers) {
            const unsigned first = (1u << (n - j < LANES ? n - j : LANES)) - 1;
            const __m128i of = _mm_maskz_loadu_epi8((__mmask16)first, numbers + j);
            mask &= _mm_cmpeq_epi8_mask(of, _mm_set1_epi8((char)number));
        }
        count += NAME(keep_lanes)(mask, v, places, values ? values + count : NULL, at + count);
        places = ADD_PLACES(places, ALL_PLACES((int)LANES));
    }
#elif VECTOR_BYTES == 32
    __m256i first = _mm256_setzero_si256();
    for (; j + LANES <= n; j += LANES) {
        const vec v = NAME(load)(g + j);
        int mask = NOT_ZERO(v);
        if (numbers) {
            int64_t bytes = 0;
            memcpy(&bytes, numbers + j, LANES);
            mask &= _mm_movemask_epi8(
                _mm_cmpeq_epi8(_mm_cvtsi64_si128(bytes), _mm_set1_epi8((char)number)));
        }
        REAL *to = values ? values + count : NULL;
        count += NAME(keep_lanes)(mask, v, first, to, at + count);
        first = _mm256_add_epi32(first, _mm256_set1_epi32((int)LANES));
    }
#endif
    for (; j < n; j++) {
        if (values) values[count] = g[j];
        at[count] = (int32_t)j;
        count += (g[j] != 0) & (!numbers || numbers[j] == number);
    }
    return count;
}

static ptrdiff_t NAME(pick)(ptrdiff_t n, int32_t number, const uint8_t *numbers, const REAL *g,
                            REAL *values, int32_t *at) {
    return NAME(pick_as)(n, number, numbers, g, values, at);
}

/* Bit j says whether x[j] is not 0, j < n <= 64. */
static uint64_t NAME(nonzero_bits)(ptrdiff_t n, const REAL *x) {
    uint64_t bits = 0;
    ptrdiff_t j = 0;
#if VECTOR_BYTES == 64
    for (; j < n; j += LANES) bits |= (uint64_t)NOT_ZERO(NAME(load_n)(x + j, n - j, 0)) << j;
#elif VECTOR_BYTES == 32
    for (; j + LANES <= n; j += LANES) bits |= (uint64_t)NOT_ZERO(NAME(load)(x + j)) << j;
#endif
    for (; j < n; j++) bits |= (uint64_t)(x[j] != 0) << j;
    return bits;
}

/* The elements with g[j] != 0 and places[j] >= 0, in order, at places[j] + table[numbers[j]]; returns how
 * many. */
static ptrdiff_t NAME(pick_all)(ptrdiff_t n, const int32_t table[16], const int32_t *numbers,
                                const int32_t *places, const REAL *g, REAL *values, int32_t *at) {
    ptrdiff_t count = 0, j = 0;
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    for (; j < n; j += LANES) {
        const vec v = NAME(load_n)(g + j, n - j, 0);
        const __m512i of = LOAD_PLACES(numbers + j, n - j), from = LOAD_PLACES(places + j, n - j);
        const __m512i more = _mm512_permutexvar_epi32(of, _mm512_loadu_si512(table));
        const unsigned mask = NOT_ZERO(v) & (unsigned)_mm512_cmpge_epi32_mask(from, (__m512i){0});
        count += NAME(keep_lanes)(mask, v, ADD_PLACES(from, more), values + count, at + count);
    }
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
    const __m256i low = _mm256_loadu_si256((const __m256i *)table);
    const __m256i high = _mm256_loadu_si256((const __m256i *)(table + 8));
    for (; j + LANES <= n; j += LANES) {
        const vec v = NAME(load)(g + j);
        const __m256i of = _mm256_loadu_si256((const __m256i *)(numbers + j));
        const __m256i from = _mm256_loadu_si256((const __m256i *)(places + j));
        const __m256 more = _mm256_blendv_ps((__m256)_mm256_permutevar8x32_epi32(low, of),
                                             (__m256)_mm256_permutevar8x32_epi32(high, of),
                                             (__m256)_mm256_slli_epi32(of, 28));
        const int mask = NOT_ZERO(v) & ~_mm256_movemask_ps((__m256)from);
        const __m256i order = NAME(kept_order)(mask), to = _mm256_add_epi32(from, (__m256i)more);
        count += NAME(keep_first)(mask, NAME(in_order)(v, order),
                                  _mm256_permutevar8x32_epi32(to, order), values + count, at + count);
    }
#endif
    for (; j < n; j++) {
        values[count] = g[j];
        at[count] = places[j] + table[numbers[j]];
        count += (g[j] != 0) & (places[j] >= 0);
    }
    return count;
}

/* Sparse rows times B_t: the sums of some vectors of columns and some taps stay in registers while the
 * rows of B that the values of a row choose pass by. The values stand one after the other, and the rows
 * of C where c_at says. */
#define MOST_SPARSE 8
#define MOST_SPARSE_TAPS 5
#define SPARSE_PARAMETERS                                                                         \
    ptrdiff_t n, const int32_t *ends, const REAL *values, const int32_t *rows, const REAL *b,     \
        ptrdiff_t b_row, ptrdiff_t b_tap, const REAL *start, REAL *c, const int32_t *c_at,        \
        ptrdiff_t c_tap
#define SPARSE_ARGUMENTS(J)                                                                       \
    width, ends, values, rows, b + J, b_row, b_tap, start ? start + J : NULL, c + J, c_at, c_tap
#define DEFINE_SPARSE(VECTORS, TAPS, P)                                                           \
    static void NAME(sparse_##P##TAPS##x##VECTORS)(ptrdiff_t m, SPARSE_PARAMETERS) {              \
        const ptrdiff_t at_last = (VECTORS - 1) * LANES, last = n - at_last;                      \
        STEPS(tap, b_tap)                                                                         \
        for (ptrdiff_t i = 0; i < m; i++) {                                                       \
            if (ends[i] == ends[i + 1] && start == c) continue;                                   \
            const ptrdiff_t place = c_at[i];                                                      \
            vec sum[TAPS][VECTORS] = {{{0}}};                                                     \
            P##vec part[TAPS] = {{0}};                                                            \
            if (start)                                                                            \
                UNROLL for (int t = 0; t < TAPS; t++) {                                           \
                    const REAL *from = start + place + t * c_tap;                                 \
                    UNROLL for (int v = 0; v < VECTORS - 1; v++)                                  \
                        sum[t][v] = NAME(load)(from + v * LANES);                                 \
                    part[t] = NAME(P##load_n)(from + at_last, last, 0);                           \
                }                                                                                 \
            for (ptrdiff_t p = ends[i]; p < ends[i + 1]; p++) {                                   \
                const REAL *row = b + rows[p] * b_row;                                            \
                if (TAPS > 1) FORGET(row);                                                        \
                const vec value = NAME(splat)(values[p]);                                         \
                UNROLL for (int t = 0; t < TAPS; t++) {                                           \
                    const REAL *at = STEPS_BEHIND(row, t, tap);                                   \
                    UNROLL for (int v = 0; v < VECTORS - 1; v++)                                  \
                        sum[t][v] += value * NAME(load)(at + v * LANES);                          \
                    part[t] += NAME(P##low)(value) * NAME(P##load_last)(at + at_last, last);      \
                }                                                                                 \
            }                                                                                     \
            UNROLL for (int t = 0; t < TAPS; t++) {                                               \
                REAL *to = c + place + t * c_tap;                                                 \
                UNROLL for (int v = 0; v < VECTORS - 1; v++)                                      \
                    NAME(store)(to + v * LANES, sum[t][v]);                                       \
                NAME(P##store_n)(to + at_last, last, part[t]);                                    \
            }                                                                                     \
        }                                                                                         \
    }
#define ALL_SPARSE(X, P)                                                                          \
    UP_TO_8(X, 1, P) SPARSE_TAPS(X, 2, P) SPARSE_TAPS(X, 3, P) SPARSE_TAPS(X, 4, P)               \
    SPARSE_TAPS(X, 5, P)
ALL_SPARSE(DEFINE_SPARSE, )
#if VECTOR_BYTES == 64
ALL_SPARSE(DEFINE_SPARSE, half_)
#endif

/* The size of the first of the fewest parts of at most `most`, all of nearly the same size. */
static INLINE ptrdiff_t NAME(part_of)(ptrdiff_t n, ptrdiff_t most) {
    if (n <= most) return n; /* divisions take longer than a short row */
    const ptrdiff_t parts = (n + most - 1) / most;
    return (n + parts - 1) / parts;
}

/* All columns, some vectors at a time. */
#define SPARSE_CASE(VECTORS, TAPS, P)                                                             \
    case 8 * TAPS + VECTORS - 1:                                                                  \
        NAME(sparse_##P##TAPS##x##VECTORS)(m, SPARSE_ARGUMENTS(j)); break;
static void NAME(sparse_columns)(ptrdiff_t taps, ptrdiff_t m, SPARSE_PARAMETERS) {
    for (ptrdiff_t j = 0, width; j < n; j += width) {
        const ptrdiff_t left = (n - j + LANES - 1) / LANES;
        const ptrdiff_t vectors = NAME(part_of)(left, taps == 1 ? MOST_SPARSE : MOST_VECTORS);
        width = vectors * LANES < n - j ? vectors * LANES : n - j;
#if VECTOR_BYTES == 64
        if (2 * (vectors * LANES - width) >= LANES) {
            switch (8 * taps + vectors - 1) { ALL_SPARSE(SPARSE_CASE, half_) }
            continue;
        }
#endif
        switch (8 * taps + vectors - 1) { ALL_SPARSE(SPARSE_CASE, ) }
    }
}

static void NAME(product_sparse)(ptrdiff_t m, ptrdiff_t taps, ptrdiff_t n, const int32_t *ends,
                                 const REAL *values, const int32_t *rows, const REAL *b,
                                 ptrdiff_t b_row, ptrdiff_t b_tap, const REAL *start, REAL *c,
                                 const int32_t *c_at, ptrdiff_t c_tap) {
    while (taps > 0) {
        const ptrdiff_t some = NAME(part_of)(taps, MOST_SPARSE_TAPS);
        NAME(sparse_columns)(some, m, n, ends, values, rows, b, b_row, b_tap, start, c, c_at, c_tap);
        taps -= some;
        b += some * b_tap;
        c += some * c_tap;
        if (start) start += some * c_tap;
    }
}
