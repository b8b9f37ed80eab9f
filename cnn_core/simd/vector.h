/* One vector register of REAL and what the other kernels need of it. Included once per type.
 * The including file sets REAL, REAL_IS_FLOAT, VECTOR_BYTES and NAME(x). */

#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(REAL)))

#if REAL_IS_FLOAT
typedef int32_t NAME(lane_int);
#define SQRT sqrtf
#else
typedef int64_t NAME(lane_int);
#define SQRT sqrt
#endif
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(vec_unaligned)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef NAME(lane_int) NAME(ivec) __attribute__((vector_size(VECTOR_BYTES)));

#define vec NAME(vec)
#define ivec NAME(ivec)
#define lane_int NAME(lane_int)

static INLINE vec NAME(load)(const REAL *p) { return *(const NAME(vec_unaligned) *)p; }
static INLINE void NAME(store)(REAL *p, vec v) { *(NAME(vec_unaligned) *)p = v; }
static INLINE vec NAME(splat)(REAL a) { return a - (vec){0}; }
static INLINE vec NAME(select)(ivec mask, vec yes, vec no) {
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

#if VECTOR_BYTES == 32
static INLINE ivec NAME(first_lanes)(ptrdiff_t n) {
#if REAL_IS_FLOAT
    return (ivec){0, 1, 2, 3, 4, 5, 6, 7} < (lane_int)n;
#else
    return (ivec){0, 1, 2, 3} < (lane_int)n;
#endif
}
#endif

/* The first n < LANES elements of p; the other lanes hold `fill`. */
static INLINE vec NAME(load_part)(const REAL *p, ptrdiff_t n, REAL fill) {
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    return (vec)_mm512_mask_loadu_ps((__m512)NAME(splat)(fill), (__mmask16)((1u << n) - 1), p);
#elif VECTOR_BYTES == 64
    return (vec)_mm512_mask_loadu_pd((__m512d)NAME(splat)(fill), (__mmask8)((1u << n) - 1), p);
#elif VECTOR_BYTES == 32
    const ivec wanted = NAME(first_lanes)(n);
#if REAL_IS_FLOAT
    vec v = (vec)_mm256_maskload_ps(p, (__m256i)wanted);
#else
    vec v = (vec)_mm256_maskload_pd(p, (__m256i)wanted);
#endif
    return __builtin_constant_p(fill) && fill == 0 ? v : NAME(select)(wanted, v, NAME(splat)(fill));
#else
    vec v = NAME(splat)(fill);
    for (ptrdiff_t i = 0; i < LANES; i++)
        if (i < n) v[i] = p[i];
    return v;
#endif
}

static INLINE void NAME(store_part)(REAL *p, ptrdiff_t n, vec v) {
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif VECTOR_BYTES == 64
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
    /* Piece by piece: a store by a mask takes AMD's Zen 3 eleven cycles. */
    __m128 part = _mm256_castps256_ps128((__m256)v);
    if (n & 4) {
        _mm_storeu_ps(p, part);
        part = _mm256_extractf128_ps((__m256)v, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, part);
        part = _mm_movehl_ps(part, part);
        p += 2;
    }
    if (n & 1) _mm_store_ss(p, part);
#elif VECTOR_BYTES == 32
    __m128d part = _mm256_castpd256_pd128((__m256d)v);
    if (n & 2) {
        _mm_storeu_pd(p, part);
        part = _mm256_extractf128_pd((__m256d)v, 1);
        p += 2;
    }
    if (n & 1) _mm_store_sd(p, part);
#else
    for (ptrdiff_t i = 0; i < LANES; i++)
        if (i < n) p[i] = v[i];
#endif
}

/* A whole vector where n >= LANES, else the first n elements. */
static INLINE vec NAME(load_n)(const REAL *p, ptrdiff_t n, REAL fill) {
    return n >= LANES ? NAME(load)(p) : NAME(load_part)(p, n, fill);
}
static INLINE void NAME(store_n)(REAL *p, ptrdiff_t n, vec v) {
    if (n >= LANES) NAME(store)(p, v);
    else NAME(store_part)(p, n, v);
}

/* The first n <= LANES elements, 0 in the other lanes, in a loop over rows: where a mask costs nothing
 * it is made once, and no row has to ask whether its vector is whole. */
static INLINE vec NAME(load_last)(const REAL *p, ptrdiff_t n) {
    return VECTOR_BYTES == 64 ? NAME(load_part)(p, n, 0) : NAME(load_n)(p, n, 0);
}

#if VECTOR_BYTES == 64
#define LEAST_LANES (LANES / 2)
/* Half a register: processors whose units are half as wide take such operations at twice the rate. */
typedef REAL NAME(half_vec) __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef REAL NAME(half_unaligned)
    __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(REAL)), may_alias));
#define half_vec NAME(half_vec)

#if REAL_IS_FLOAT
#define HALF_SUFFIXED(name) name##_ps
#define HALF_REGISTER __m256
#define HALF_LOW(v) _mm512_castps512_ps256((__m512)(v))
#else
#define HALF_SUFFIXED(name) name##_pd
#define HALF_REGISTER __m256d
#define HALF_LOW(v) _mm512_castpd512_pd256((__m512d)(v))
#endif
static INLINE half_vec NAME(half_load)(const REAL *p) {
    return *(const NAME(half_unaligned) *)p;
}
static INLINE void NAME(half_store)(REAL *p, half_vec v) { *(NAME(half_unaligned) *)p = v; }
static INLINE half_vec NAME(half_load_n)(const REAL *p, ptrdiff_t n, REAL fill) {
    const HALF_REGISTER others = HALF_SUFFIXED(_mm256_set1)(fill);
    return (half_vec)HALF_SUFFIXED(_mm256_mask_loadu)(others, (__mmask8)((1u << n) - 1), p);
}
static INLINE half_vec NAME(half_load_last)(const REAL *p, ptrdiff_t n) {
    return NAME(half_load_n)(p, n, 0);
}
static INLINE void NAME(half_store_n)(REAL *p, ptrdiff_t n, half_vec v) {
    HALF_SUFFIXED(_mm256_mask_storeu)(p, (__mmask8)((1u << n) - 1), (HALF_REGISTER)v);
}
static INLINE half_vec NAME(half_low)(vec v) { return (half_vec)HALF_LOW(v); }
#undef HALF_SUFFIXED
#undef HALF_REGISTER
#undef HALF_LOW
#else
#define LEAST_LANES LANES
#endif
static INLINE vec NAME(low)(vec v) { return v; }

/* Elements begin <= j < end of p in lanes j, 0 in the others; no other element is read. */
static INLINE vec NAME(load_between)(const REAL *p, ptrdiff_t begin, ptrdiff_t end) {
    const ptrdiff_t from = begin < 0 ? 0 : begin, to = end > LANES ? LANES : end;
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << to) - (1u << from)), p);
#elif VECTOR_BYTES == 64
    return (vec)_mm512_maskz_loadu_pd((__mmask8)((1u << to) - (1u << from)), p);
#elif VECTOR_BYTES == 32
    const ivec wanted = NAME(first_lanes)(to) & ~NAME(first_lanes)(from);
#if REAL_IS_FLOAT
    return (vec)_mm256_maskload_ps(p, (__m256i)wanted);
#else
    return (vec)_mm256_maskload_pd(p, (__m256i)wanted);
#endif
#else
    vec v = {0};
    for (ptrdiff_t j = 0; j < LANES; j++)
        if (j >= from && j < to) v[j] = p[j];
    return v;
#endif
}

/* limit where x is above it, or below it, else x: a NaN, which compares false, is kept. One instruction
 * of x86, where a comparison and a choice would be two. */
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
#define BOUND(op, x, limit) (vec) _mm512_##op##_ps((__m512)(limit), (__m512)(x))
#elif VECTOR_BYTES == 64
#define BOUND(op, x, limit) (vec) _mm512_##op##_pd((__m512d)(limit), (__m512d)(x))
#elif VECTOR_BYTES == 32 && REAL_IS_FLOAT
#define BOUND(op, x, limit) (vec) _mm256_##op##_ps((__m256)(limit), (__m256)(x))
#elif VECTOR_BYTES == 32
#define BOUND(op, x, limit) (vec) _mm256_##op##_pd((__m256d)(limit), (__m256d)(x))
#else
#define IS_min >
#define IS_max <
#define BOUND(op, x, limit) NAME(select)((x) IS_##op (limit), limit, x)
#endif
static INLINE vec NAME(bound_above)(vec x, vec limit) { return BOUND(min, x, limit); }
static INLINE vec NAME(bound_below)(vec x, vec limit) { return BOUND(max, x, limit); }
#undef BOUND
#undef IS_min
#undef IS_max

/* The lanes are added pairwise, in halves: a fixed order. */
static INLINE REAL NAME(sum_lanes)(vec v) {
    REAL lane[VECTOR_BYTES / sizeof(REAL)];
    memcpy(lane, &v, sizeof v);
    for (ptrdiff_t half = LANES / 2; half > 0; half /= 2)
        for (ptrdiff_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

/* A NaN in any lane that is not first may be passed over. */
static INLINE REAL NAME(max_lanes)(vec v) {
    REAL largest = v[0];
    for (ptrdiff_t i = 1; i < LANES; i++) largest = v[i] > largest ? v[i] : largest;
    return largest;
}

/* exp(x) = 2^n (1 + q) with x = n ln 2 + r, |r| <= ln(2)/2, q = exp(r) - 1 = r + r^2 p(r). p is the Taylor
 * series, whose first left-out term is below half a unit in the last place; for tanh, which tends to
 * limits, in float the polynomial with the least error relative to q, 1.4e-8. n comes from adding a number
 * so large that its last digit is 1, and which ends with the bias of exponents. */
#if REAL_IS_FLOAT
#define ROUNDING_SHIFT 12583039.0f /* 1.5 * 2^23 + 127 */
#define LN2_HIGH 0.693145751953125f /* few digits: n * LN2_HIGH is exact */
#define LN2_LOW 1.42860677e-6f
#define EXPONENT_BIAS 127
#define MANTISSA_BITS 23
#define EXP_MIN (-110.0f) /* exp of it is 0, of EXP_MAX infinite */
#define EXP_MAX 90.0f
#define TANH_MAX 10.0f /* tanh of it is 1 */
#define TANH_TERMS for_tanh
static const float NAME(taylor)[] = {1 / 5040.f, 1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f};
static const float NAME(for_tanh)[] = {0.00138824962f, 0.00836664678f, 0.0416672039f, 0.166665427f,
                                       0.499999981f};
#else
#define ROUNDING_SHIFT 6755399441056767.0 /* 1.5 * 2^52 + 1023 */
#define LN2_HIGH 0.6931471803691238
#define LN2_LOW 1.9082149292705877e-10
#define EXPONENT_BIAS 1023
#define MANTISSA_BITS 52
#define EXP_MIN (-750.0)
#define EXP_MAX 720.0
#define TANH_MAX 20.0
#define TANH_TERMS taylor
static const double NAME(taylor)[] = {1 / 6227020800., 1 / 479001600., 1 / 39916800., 1 / 3628800.,
                                      1 / 362880.,     1 / 40320.,     1 / 5040.,     1 / 720.,
                                      1 / 120.,        1 / 24.,        1 / 6.,        1 / 2.};
#endif
#define EXP_Q(r, terms) NAME(exp_q)(r, NAME(terms), (int)(sizeof NAME(terms) / sizeof(REAL)))

static INLINE vec NAME(power_of_two)(ivec n) {
    return (vec)((n + EXPONENT_BIAS) << MANTISSA_BITS);
}

/* The whole number nearest to x log2(e); in its last digits, as ROUNDING_SHIFT stands before them. */
static INLINE vec NAME(exp_shifted)(vec x) {
    return x * NAME(splat)((REAL)1.4426950408889634) + NAME(splat)(ROUNDING_SHIFT);
}

static INLINE vec NAME(exp_q)(vec r, const REAL *terms, int n) {
    vec p = NAME(splat)(terms[0]);
    UNROLL for (int i = 1; i < n; i++) p = p * r + terms[i];
    return r + (r * r) * p;
}

static INLINE vec NAME(exp)(vec x) {
    x = NAME(bound_below)(x, NAME(splat)(EXP_MIN));
    x = NAME(bound_above)(x, NAME(splat)(EXP_MAX));
    vec shift = NAME(splat)(ROUNDING_SHIFT), shifted = NAME(exp_shifted)(x);
    vec whole = shifted - shift;
    vec value = EXP_Q((x - whole * LN2_HIGH) - whole * LN2_LOW, taylor) + 1;
#if VECTOR_BYTES == 64 && REAL_IS_FLOAT
    return (vec)_mm512_scalef_ps((__m512)value, (__m512)whole);
#elif VECTOR_BYTES == 64
    return (vec)_mm512_scalef_pd((__m512d)value, (__m512d)whole);
#else
    ivec n = (ivec)shifted - (ivec)shift;
    ivec half = n >> 1; /* in two steps, so that results below the normal numbers are right */
    return value * NAME(power_of_two)(half) * NAME(power_of_two)(n - half);
#endif
}

static INLINE ivec NAME(sign_bit)(vec x) { return (ivec)x & (ivec)NAME(splat)((REAL)-0.0); }
static INLINE vec NAME(abs)(vec x) { return (vec)((ivec)x & ~(ivec)NAME(splat)((REAL)-0.0)); }

/* tanh(|x|) = e / (e + 2), e = exp(2 |x|) - 1 = 2^n q + (2^n - 1), which is exact near 0. Where n is
 * large, tanh hardly changes: ln 2 need not have more digits than the type. */
static INLINE vec NAME(tanh)(vec x) {
    vec size = NAME(bound_above)(NAME(abs)(x), NAME(splat)(TANH_MAX));
    vec shift = NAME(splat)(ROUNDING_SHIFT), shifted = NAME(exp_shifted)(size + size);
    vec q = EXP_Q((size + size) - (shifted - shift) * (REAL)0.6931471805599453, TANH_TERMS);
    vec power = (vec)((ivec)shifted << MANTISSA_BITS); /* what stands before n and the bias is lost */
    vec e = power * q + (power - 1);
    return (vec)((ivec)(e / (e + 2)) | NAME(sign_bit)(x));
}

/* sigmoid(x) = 1 / (1 + e) for x >= 0, e / (1 + e) for x < 0, with e = exp(-|x|) <= 1. */
static INLINE vec NAME(sigmoid)(vec x) {
    vec e = NAME(exp)(-NAME(abs)(x));
    vec one = NAME(splat)(1);
    return NAME(select)(x < 0, e, one) / (one + e);
}

/* log(x) for finite x >= 1: x = 2^n m, sqrt(1/2) <= m < sqrt(2),
 * log m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1), |s| <= 0.172.
 * NaN and infinity pass through. */
static INLINE vec NAME(log)(vec x) {
    const vec root_half = NAME(splat)((REAL)0.70710678118654752);
    ivec bits = (ivec)x;
    ivec n = (bits - (ivec)root_half) >> MANTISSA_BITS;
    vec m = (vec)(bits - (n << MANTISSA_BITS));
    /* n in floating point: it is small, so it becomes the last digits of ROUNDING_SHIFT. */
    vec shift = NAME(splat)(ROUNDING_SHIFT);
    vec whole = (vec)((ivec)shift + n) - shift;
    vec s = (m - 1) / (m + 1), s2 = s * s;
#if REAL_IS_FLOAT
    vec p = NAME(splat)(1 / 9.f);
    p = p * s2 + 1 / 7.f;
    p = p * s2 + 1 / 5.f;
    p = p * s2 + 1 / 3.f;
#else
    vec p = NAME(splat)(1 / 21.);
    for (int odd = 19; odd >= 3; odd -= 2) p = p * s2 + 1.0 / odd;
#endif
    vec result = whole * LN2_HIGH + (2 * s + (whole * LN2_LOW + 2 * s * (s2 * p)));
    return NAME(select)(x < (REAL)INFINITY, result, x);
}
