/* Pooling, dropout and batch normalization on adjacent channels. Included once per type. */

/* Numbers of taps, 1 or 4 bytes each in memory, one per lane, from number i on, n of them; behind these
 * stands 0. */
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
#define NUMBERS_MASK(n) ((n) >= LANES ? 0xFFFF : (__mmask16)((1u << (n)) - 1))
#define WIDEN_BYTES _mm512_cvtepu8_epi32
#define STORE_BYTES _mm512_mask_cvtepi32_storeu_epi8
#elif VECTOR_BYTES == 64
#define NUMBERS_MASK(n) ((n) >= LANES ? 0xFF : (__mmask8)((1u << (n)) - 1))
#define WIDEN_BYTES _mm512_cvtepu8_epi64
#define STORE_BYTES _mm512_mask_cvtepi64_storeu_epi8
#endif
static INLINE ivec NAME(load_bytes)(const uint8_t *p, ptrdiff_t n) {
#if VECTOR_BYTES == 64
    return (ivec)WIDEN_BYTES(_mm_maskz_loadu_epi8(NUMBERS_MASK(n), p));
#else
#if VECTOR_BYTES == 32 && REAL_IS_FLOAT
    if (n >= LANES) return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    uint64_t packed = n ? p[0] : 0;
    uint32_t four[2];
    uint16_t two[2];
    if (n >= 4) {
        memcpy(four, p, 4), memcpy(four + 1, p + n - 4, 4);
        packed = four[0] | (uint64_t)four[1] << 8 * (n - 4);
    } else if (n >= 2) {
        memcpy(two, p, 2), memcpy(two + 1, p + n - 2, 2);
        packed = two[0] | (uint64_t)two[1] << 8 * (n - 2);
    }
    return (ivec)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)packed));
#else
    ivec v = {0};
    for (ptrdiff_t j = 0; j < LANES; j++)
        if (j < n) v[j] = p[j];
    return v;
#endif
#endif
}

static INLINE ivec NAME(load_numbers)(int bytes, const void *which, ptrdiff_t i, ptrdiff_t n) {
    if (bytes == 1) return NAME(load_bytes)((const uint8_t *)which + i, n);
    const int32_t *p = (const int32_t *)which + i;
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    return (ivec)_mm512_maskz_loadu_epi32(NUMBERS_MASK(n), p);
#else
    ivec v = {0};
    for (ptrdiff_t j = 0; j < LANES; j++)
        if (j < n) v[j] = p[j];
    return v;
#endif
}

#if VECTOR_BYTES < 64
static INLINE void NAME(store_bytes)(uint8_t *p, ptrdiff_t n, ivec v) {
#if VECTOR_BYTES == 32 && REAL_IS_FLOAT
    const __m128i low = _mm256_castsi256_si128((__m256i)v);
    const __m128i pairs = _mm_packus_epi32(low, _mm256_extracti128_si256((__m256i)v, 1));
    uint64_t packed;
    _mm_storel_epi64((__m128i *)&packed, _mm_packus_epi16(pairs, pairs));
    if (n >= LANES) {
        memcpy(p, &packed, 8);
        return;
    }
    if (n & 4) {
        memcpy(p, &packed, 4);
        packed >>= 32;
        p += 4;
    }
    if (n & 2) {
        memcpy(p, &packed, 2);
        packed >>= 16;
        p += 2;
    }
    if (n & 1) *p = (uint8_t)packed;
#else
    for (ptrdiff_t j = 0; j < LANES; j++)
        if (j < n) p[j] = (uint8_t)v[j];
#endif
}
#endif

static INLINE void NAME(store_numbers)(int bytes, void *which, ptrdiff_t i, ptrdiff_t n, ivec v) {
    int32_t *p = (int32_t *)which + i;
#if VECTOR_BYTES == 64
    if (bytes == 1) {
        STORE_BYTES((uint8_t *)which + i, NUMBERS_MASK(n), (__m512i)v);
        return;
    }
#endif
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    _mm512_mask_storeu_epi32(p, NUMBERS_MASK(n), (__m512i)v);
#else
#if VECTOR_BYTES == 32 && REAL_IS_FLOAT
    if (bytes == 4) { /* only moved, whatever they are */
        NAME(store_n)((REAL *)p, n, (vec)v);
        return;
    }
#endif
    if (bytes == 1) {
        NAME(store_bytes)((uint8_t *)which + i, n, v);
        return;
    }
    for (ptrdiff_t j = 0; j < LANES; j++)
        if (j < n) p[j] = (int32_t)v[j];
#endif
}

/* A line after the other: fetched all at once, they would take the room that the loads of x need. */
static void NAME(copy_fetching)(ptrdiff_t n, const REAL *x, const REAL *ahead, REAL *y) {
    ptrdiff_t j = 0;
    for (; j + LINE <= n; j += LINE) {
        simd_fetch(ahead + j);
        UNROLL for (ptrdiff_t i = 0; i < LINE; i += LANES) NAME(store)(y + j + i, NAME(load)(x + j + i));
    }
    if (j == n) return;
    simd_fetch(ahead + j);
    memcpy(y + j, x + j, (size_t)(n - j) * sizeof(REAL));
}

/* A vector may end in the rows that follow, which are written later. */
static void NAME(copy_rows)(ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *y,
                            ptrdiff_t y_row) {
    const ptrdiff_t at_last = (n - 1) / LANES * LANES, last = n - at_last;
    ptrdiff_t left_y = m * y_row;
    if (n > 0)
        for (; left_y >= at_last + LANES; left_y -= y_row, x += x_row, y += y_row) {
            for (ptrdiff_t i = 0; i < at_last; i += LANES) NAME(store)(y + i, NAME(load)(x + i));
            NAME(store)(y + at_last, NAME(load_last)(x + at_last, last));
        }
    for (; left_y > 0; left_y -= y_row, x += x_row, y += y_row)
        FOR_VECTORS(n) NAME(store_n)(y + i, left_y - i, NAME(load_n)(x + i, left, 0));
}

/* One after the other: rows may go to the same place. */
#define MOVED_PARAMETERS                                                                          \
    ptrdiff_t m, ptrdiff_t n, const REAL *x, const int32_t *x_at, ptrdiff_t x_row, REAL *y,       \
        const int32_t *y_at, ptrdiff_t y_row, int fetches
#define DEFINE_MOVED(VECTORS, OP, OLD)                                                            \
    static void NAME(OP##_rows_##VECTORS)(MOVED_PARAMETERS) {                                     \
        const ptrdiff_t at_last = (VECTORS - 1) * LANES, last = n - at_last;                      \
        for (ptrdiff_t k = 0; k < m; k++) {                                                       \
            const REAL *from = x + x_at[k] * x_row;                                               \
            REAL *to = y + y_at[k] * y_row;                                                       \
            if (fetches)                                                                          \
                UNROLL for (ptrdiff_t i = 0; i <= at_last; i += LANES)                            \
                    __builtin_prefetch(from + n + i);                                             \
            UNROLL for (ptrdiff_t i = 0; i < at_last; i += LANES)                                 \
                NAME(store)(to + i, OLD(load, to + i) NAME(load)(from + i));                      \
            NAME(store_n)(to + at_last, last, OLD(load_n, to + at_last, last, 0)                  \
                          NAME(load_n)(from + at_last, last, 0));                                 \
        }                                                                                         \
    }
#define WITHOUT_OLD(...)
#define WITH_OLD(LOAD, ...) NAME(LOAD)(__VA_ARGS__) +
UP_TO_8(DEFINE_MOVED, copy, WITHOUT_OLD)
UP_TO_8(DEFINE_MOVED, add, WITH_OLD)
#define MOVED_CASE(VECTORS, OP)                                                                   \
    case VECTORS: NAME(OP##_rows_##VECTORS)(m, width, x + j, x_at, x_row, y + j, y_at, y_row, fetches); break;
static void NAME(move_rows)(int add, MOVED_PARAMETERS) {
    for (ptrdiff_t j = 0, width; j < n; j += width) {
        width = n - j < 8 * LANES ? n - j : 8 * LANES;
        const ptrdiff_t vectors = (width + LANES - 1) / LANES;
        if (add) switch (vectors) { UP_TO_8(MOVED_CASE, add) }
        else switch (vectors) { UP_TO_8(MOVED_CASE, copy) }
    }
}

/* LARGER: the lanes in which v takes the place of `most`: it is larger, or the first NaN. */
#if VECTOR_BYTES == 64
#if REAL_IS_FLOAT
#define LANE_MASK __mmask16
#define COMPARE(name, ...) _mm512_##name##_ps_mask(__VA_ARGS__)
#define CHOOSE(mask, yes, no) (vec)_mm512_mask_blend_ps(mask, (__m512)(no), (__m512)(yes))
#define CHOOSE_NUMBERS(mask, yes, no)                                                             \
    (ivec)_mm512_mask_blend_epi32(mask, (__m512i)(no), (__m512i)(yes))
#define REGISTER __m512
#else
#define LANE_MASK __mmask8
#define COMPARE(name, ...) _mm512_##name##_pd_mask(__VA_ARGS__)
#define CHOOSE(mask, yes, no) (vec)_mm512_mask_blend_pd(mask, (__m512d)(no), (__m512d)(yes))
#define CHOOSE_NUMBERS(mask, yes, no)                                                             \
    (ivec)_mm512_mask_blend_epi64(mask, (__m512i)(no), (__m512i)(yes))
#define REGISTER __m512d
#endif
#define LARGER(v, most)                                                                           \
    COMPARE(mask_cmp, COMPARE(cmp, (REGISTER)(most), (REGISTER)(most), _CMP_ORD_Q), (REGISTER)(v), \
            (REGISTER)(most), _CMP_NLE_UQ)
#else
#define LANE_MASK ivec
#define CHOOSE NAME(select)
#define CHOOSE_NUMBERS(mask, yes, no) (((yes) & (mask)) | ((no) & ~(mask)))
#define LARGER(v, most) (~((v) <= (most)) & ((most) == (most)))
#endif

/* best = the largest of the taps and `least`, which = the number of that of the taps, in so many bytes or
 * not at all; the first of equals, the first NaN of all. */
static INLINE void NAME(max_taps_as)(int bytes, ptrdiff_t windows, ptrdiff_t step, ptrdiff_t n,
                                     ptrdiff_t taps, const REAL *x, const ptrdiff_t *at,
                                     const int32_t *numbers, REAL least, REAL *best,
                                     void *which) {
    const vec bound = NAME(splat)(least);
    FOR_VECTORS(n) {
        for (ptrdiff_t w = 0; w < windows; w++) {
            const REAL *from = x + w * step + i;
            vec most = NAME(load_n)(from + at[0], left, 0);
            ivec number = (ivec){0} + (lane_int)numbers[0];
            for (ptrdiff_t t = 1; t < taps; t++) {
                const vec v = NAME(load_n)(from + at[t], left, 0);
                const LANE_MASK larger = LARGER(v, most);
                most = CHOOSE(larger, v, most);
                if (bytes)
                    number = CHOOSE_NUMBERS(larger, (ivec){0} + (lane_int)numbers[t], number);
            }
            NAME(store_n)(best + w * n + i, left, NAME(bound_below)(most, bound));
            if (bytes) NAME(store_numbers)(bytes, which, w * n + i, left, number);
        }
    }
}

static void NAME(max_taps)(ptrdiff_t windows, ptrdiff_t step, ptrdiff_t n, ptrdiff_t taps,
                           const REAL *x, const ptrdiff_t *at, const int32_t *numbers, REAL least,
                           REAL *best, void *which, int bytes) {
    if (!which) NAME(max_taps_as)(0, windows, step, n, taps, x, at, numbers, least, best, which);
    else if (bytes == 1)
        NAME(max_taps_as)(1, windows, step, n, taps, x, at, numbers, least, best, which);
    else NAME(max_taps_as)(4, windows, step, n, taps, x, at, numbers, least, best, which);
}

/* x[at[t] + j] (+)= g[j] for the tap t whose number is which[j], (+)= 0 for the others. */
static INLINE void NAME(scatter_taps_as)(int add, int bytes, ptrdiff_t windows, ptrdiff_t step,
                                         ptrdiff_t n, ptrdiff_t taps, const ptrdiff_t *at,
                                         const int32_t *numbers, const void *which, const REAL *g,
                                         REAL *x) {
    FOR_VECTORS(n) {
        for (ptrdiff_t w = 0; w < windows; w++) {
            REAL *to = x + w * step + i;
            ivec chosen = NAME(load_numbers)(bytes, which, w * n + i, left);
            vec gradient = NAME(load_n)(g + w * n + i, left, 0);
            for (ptrdiff_t t = 0; t < taps; t++) {
                vec part = (vec)((ivec)gradient & (chosen == (lane_int)numbers[t]));
                if (add) part += NAME(load_n)(to + at[t], left, 0);
                NAME(store_n)(to + at[t], left, part);
            }
        }
    }
}

static void NAME(scatter_taps)(int add, ptrdiff_t windows, ptrdiff_t step, ptrdiff_t n,
                               ptrdiff_t taps, const ptrdiff_t *at, const int32_t *numbers,
                               const void *which, int bytes, const REAL *g, REAL *x) {
    if (add && bytes == 1)
        NAME(scatter_taps_as)(1, 1, windows, step, n, taps, at, numbers, which, g, x);
    else if (add) NAME(scatter_taps_as)(1, 4, windows, step, n, taps, at, numbers, which, g, x);
    else if (bytes == 1)
        NAME(scatter_taps_as)(0, 1, windows, step, n, taps, at, numbers, which, g, x);
    else NAME(scatter_taps_as)(0, 4, windows, step, n, taps, at, numbers, which, g, x);
}

/* row[q step n + j] += products[q x_row + j] for j < taps n: `fold_row` where pixels are adjacent, a
 * vector of several pixels at once. */
static void NAME(fold_adjacent)(ptrdiff_t pixels, ptrdiff_t windows, ptrdiff_t taps, ptrdiff_t n,
                                ptrdiff_t step, const REAL *products, ptrdiff_t x_row, REAL *row) {
    const ptrdiff_t shift = step * n, width = taps * n;
    ptrdiff_t first = 0, last = 0; /* of the windows that reach the vector */
    FOR_VECTORS(pixels * n) {
        while (last + 1 < windows && (last + 1) * shift < i + LANES) last++;
        while (first * shift + width <= i) first++;
        vec sum = NAME(load_n)(row + i, left, 0);
        for (ptrdiff_t q = last; q >= first; q--) {
            const ptrdiff_t begin = q * shift - i;
            sum += NAME(load_between)(products + q * x_row - begin, begin, begin + width);
        }
        NAME(store_n)(row + i, left, sum);
    }
}

/* row[p row_step + j] += sum of the products[q x_row + s n + j] with q step + s = p, over s in
 * order: the overlapping windows of a row, put back on its pixels. */
static void NAME(fold_row)(ptrdiff_t pixels, ptrdiff_t windows, ptrdiff_t taps, ptrdiff_t n,
                           ptrdiff_t step, const REAL *products, ptrdiff_t x_row, REAL *row,
                           ptrdiff_t row_step) {
    if (n == row_step && n < LANES) {
        NAME(fold_adjacent)(pixels, windows, taps, n, step, products, x_row, row);
        return;
    }
    for (ptrdiff_t p = 0, whole = 0, rest = 0; p < pixels; p++) {
        const ptrdiff_t past = whole < windows ? 0 : whole - windows + 1;
        FOR_VECTORS(n) {
            vec sum = NAME(load_n)(row + p * row_step + i, left, 0);
            ptrdiff_t q = whole - past, s = rest + past * step;
            const REAL *from = products + q * x_row + s * n + i;
            for (; s < taps && q >= 0; s += step, q--) {
                sum += NAME(load_n)(from, left, 0);
                from += step * n - x_row;
            }
            NAME(store_n)(row + p * row_step + i, left, sum);
        }
        if (++rest == step) rest = 0, whole++;
    }
}

/* y = x where the generator keeps an element, times scale; else 0. x may be y.
 *
 * Threefry-4x32 with 20 rounds (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011):
 * element e of a row takes word e % 64 / 16 of the counter (e / 128 * 16 + e % 16, stream...), with its
 * halves exchanged where e % 128 >= 64, so that its number depends on the key, the stream and e alone.
 * It is kept if that is >= threshold: by the upper half, unless this is equal, so that the two elements
 * of a word are independent but for one case in 65,536. */
typedef uint32_t NAME(word_vec) __attribute__((vector_size(VECTOR_BYTES)));
#define word_vec NAME(word_vec)
#define WORD_LANES ((ptrdiff_t)(VECTOR_BYTES / 4))

static INLINE void NAME(threefry)(word_vec w[4], const uint32_t key[5]) {
    static const int rotations[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5},
                                        {6, 20},  {17, 11}, {25, 10}, {18, 20}};
    for (int i = 0; i < 4; i++) w[i] += key[i];
    UNROLL for (int round = 0; round < 20; round++) {
        const int r0 = rotations[round % 8][0], r1 = rotations[round % 8][1];
        const int p = round % 2 ? 3 : 1, q = round % 2 ? 1 : 3;
        w[0] += w[p];
        w[p] = (w[p] << r0) | (w[p] >> (32 - r0));
        w[p] ^= w[0];
        w[2] += w[q];
        w[q] = (w[q] << r1) | (w[q] >> (32 - r1));
        w[q] ^= w[2];
        if (round % 4 == 3) {
            const int s = round / 4 + 1;
            for (int i = 0; i < 4; i++) w[i] += key[(s + i) % 5];
            w[3] += (uint32_t)s;
        }
    }
}

/* Bit j: words[j] >= threshold. */
static INLINE uint64_t NAME(at_least)(word_vec words, uint32_t threshold) {
#if VECTOR_BYTES == 64
    return _mm512_cmpge_epu32_mask((__m512i)words, _mm512_set1_epi32((int)threshold));
#elif VECTOR_BYTES == 32
    return (uint32_t)_mm256_movemask_ps((__m256)(words >= threshold));
#else
    uint64_t bits = 0;
    for (ptrdiff_t j = 0; j < WORD_LANES; j++) bits |= (uint64_t)(words[j] >= threshold) << j;
    return bits;
#endif
}

/* y = scale x where the bit of the element is set, else 0; n <= 64. */
static INLINE void NAME(keep_64)(ptrdiff_t n, uint64_t bits, REAL scale, const REAL *x, REAL *y) {
    ivec lane_bit;
    UNROLL for (int j = 0; j < LANES; j++) lane_bit[j] = (lane_int)1 << j;
    FOR_VECTORS(n) {
        const ivec chosen = ((lane_int)(bits >> i) & lane_bit) == lane_bit;
        vec kept = NAME(load_n)(x + i, left, 0) * scale;
        NAME(store_n)(y + i, left, (vec)((ivec)kept & chosen));
    }
}

static void NAME(dropout)(ptrdiff_t n, const uint32_t key[4], const uint32_t stream[3],
                          uint32_t threshold, REAL scale, const REAL *x, REAL *y, uint64_t *mask) {
    const uint32_t schedule[5] = {key[0], key[1], key[2], key[3],
                                  0x1BD11BDAu ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
    word_vec lane;
    UNROLL for (int j = 0; j < WORD_LANES; j++) lane[j] = (uint32_t)j;
    for (ptrdiff_t begin = 0; begin < n; begin += 128) {
        uint64_t bits[2] = {0};
        for (ptrdiff_t part = 0; part < 16; part += WORD_LANES) {
            word_vec w[4] = {lane + (uint32_t)(begin / 128 * 16 + part)};
            UNROLL for (int i = 1; i < 4; i++) w[i] = (word_vec){0} + stream[i - 1];
            NAME(threefry)(w, schedule);
            UNROLL for (int i = 0; i < 8; i++) {
                const word_vec word = i < 4 ? w[i] : w[i - 4] << 16 | w[i - 4] >> 16;
                bits[i / 4] |= NAME(at_least)(word, threshold) << (16 * (i % 4) + part);
#if REAL_IS_FLOAT /* a word per lane */
                const ptrdiff_t at = begin + 16 * i + part;
                if (at >= n) continue;
                vec kept = NAME(load_n)(x + at, n - at, 0) * scale;
                NAME(store_n)(y + at, n - at, (vec)((ivec)kept & (ivec)(word >= threshold)));
#endif
            }
        }
        for (ptrdiff_t at = begin; at < n && at < begin + 128; at += 64) {
            const uint64_t kept = bits[(at - begin) / 64];
            if (mask) mask[at / 64] = kept;
#if !REAL_IS_FLOAT
            NAME(keep_64)(n - at < 64 ? n - at : 64, kept, scale, x + at, y + at);
#endif
        }
    }
}

static void NAME(keep)(ptrdiff_t n, const uint64_t *mask, REAL scale, const REAL *x, REAL *y) {
    for (ptrdiff_t begin = 0; begin < n; begin += 64)
        NAME(keep_64)(n - begin < 64 ? n - begin : 64, mask[begin / 64], scale, x + begin, y + begin);
}
#undef word_vec
#undef WORD_LANES

/* squares += (x - mean)^2 */
static void NAME(add_squares)(ptrdiff_t n, const REAL *x, const REAL *mean, REAL *squares) {
    FOR_VECTORS(n) {
        vec d = NAME(load_n)(x + i, left, 0) - NAME(load_n)(mean + i, left, 0);
        NAME(store_n)(squares + i, left, NAME(load_n)(squares + i, left, 0) + d * d);
    }
}

/* products += x (y - mean) */
static void NAME(add_products)(ptrdiff_t n, const REAL *x, const REAL *y, const REAL *mean,
                               REAL *products) {
    FOR_VECTORS(n) {
        vec d = NAME(load_n)(y + i, left, 0) - NAME(load_n)(mean + i, left, 0);
        vec p = NAME(load_n)(products + i, left, 0) + NAME(load_n)(x + i, left, 0) * d;
        NAME(store_n)(products + i, left, p);
    }
}

/* y = a x + b (z - c) + d, the general form of batch normalization forward (a = 0) and backward. */
static void NAME(combine)(ptrdiff_t n, const REAL *x, const REAL *a, const REAL *z, const REAL *b,
                          const REAL *c, const REAL *d, REAL *y) {
    FOR_VECTORS(n) {
        vec v = (NAME(load_n)(z + i, left, 0) - NAME(load_n)(c + i, left, 0)) *
                    NAME(load_n)(b + i, left, 0) + NAME(load_n)(d + i, left, 0);
        if (x) v += NAME(load_n)(x + i, left, 0) * NAME(load_n)(a + i, left, 0);
        NAME(store_n)(y + i, left, v);
    }
}
