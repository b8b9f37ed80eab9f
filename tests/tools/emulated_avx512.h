/* What cnn_core/simd takes of AVX-512, lane by lane in plain C, for processors without it: slow, and exact but
 * for the rounding of `scalef` below the normal numbers. See emulate_avx512.py. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define EMULATED static inline __attribute__((always_inline, unused))
typedef int ints_16 __attribute__((vector_size(64)));
typedef unsigned words_16 __attribute__((vector_size(64)));
typedef long long ints_8 __attribute__((vector_size(64)));

/* For each lane i < n: m >> i & 1 is its bit of a mask. */
#define LANES_OF(n) for (int i = 0; i < (n); i++)
#define IS_SET(m) ((m) >> i & 1)

#define DEFINE_LOADS(name, V, T, M, n)                                                            \
    EMULATED V load_##name(V v, M m, const void *p) {                                             \
        LANES_OF(n) if (IS_SET(m)) v[i] = ((const T *)p)[i];                                      \
        return v;                                                                                 \
    }                                                                                             \
    EMULATED void store_##name(void *p, M m, V v) {                                               \
        LANES_OF(n) if (IS_SET(m)) ((T *)p)[i] = v[i];                                            \
    }                                                                                             \
    EMULATED V blend_##name(M m, V a, V b) {                                                      \
        LANES_OF(n) if (IS_SET(m)) a[i] = b[i];                                                   \
        return a;                                                                                 \
    }                                                                                             \
    EMULATED V compress_##name(V a, M m, V b) {                                                   \
        int count = 0;                                                                            \
        LANES_OF(n) if (IS_SET(m)) a[count++] = b[i];                                             \
        return a;                                                                                 \
    }
DEFINE_LOADS(ps, __m512, float, __mmask16, 16)
DEFINE_LOADS(pd, __m512d, double, __mmask8, 8)
DEFINE_LOADS(i32, ints_16, int, __mmask16, 16)
DEFINE_LOADS(i64, ints_8, long long, __mmask8, 8)
DEFINE_LOADS(half_ps, __m256, float, __mmask8, 8)
DEFINE_LOADS(half_pd, __m256d, double, __mmask8, 4)
DEFINE_LOADS(half_i32, __v8si, int, __mmask8, 8)
#define _mm512_mask_loadu_ps load_ps
#define _mm512_mask_loadu_pd load_pd
#define _mm512_maskz_loadu_ps(m, p) load_ps((__m512){0}, m, p)
#define _mm512_maskz_loadu_pd(m, p) load_pd((__m512d){0}, m, p)
#define _mm512_maskz_loadu_epi32(m, p) (__m512i)load_i32((ints_16){0}, m, p)
#define _mm512_mask_storeu_ps store_ps
#define _mm512_mask_storeu_pd store_pd
#define _mm512_mask_storeu_epi32(p, m, v) store_i32(p, m, (ints_16)(v))
#define _mm512_mask_blend_ps blend_ps
#define _mm512_mask_blend_pd blend_pd
#define _mm512_mask_blend_epi32(m, a, b) (__m512i)blend_i32(m, (ints_16)(a), (ints_16)(b))
#define _mm512_mask_blend_epi64(m, a, b) (__m512i)blend_i64(m, (ints_8)(a), (ints_8)(b))
#define _mm512_mask_compress_ps compress_ps
#define _mm512_mask_compress_pd compress_pd
#define _mm512_mask_compress_epi32(a, m, b) (__m512i)compress_i32((ints_16)(a), m, (ints_16)(b))
#define _mm256_mask_loadu_ps load_half_ps
#define _mm256_mask_loadu_pd load_half_pd
#define _mm256_mask_storeu_ps store_half_ps
#define _mm256_mask_storeu_pd store_half_pd
#define _mm256_maskz_loadu_epi32(m, p) (__m256i)load_half_i32((__v8si){0}, m, p)
#define _mm256_mask_compress_epi32(a, m, b) (__m256i)compress_half_i32((__v8si)(a), m, (__v8si)(b))

#define DEFINE_COMPARISON(name, V, n, condition)                                                  \
    EMULATED unsigned name(V a, V b) {                                                            \
        unsigned mask = 0;                                                                        \
        LANES_OF(n) mask |= (unsigned)(condition) << i;                                           \
        return mask;                                                                              \
    }
#define DEFINE_COMPARISONS(name, V, n)                                                            \
    DEFINE_COMPARISON(name##_neq, V, n, !(a[i] == b[i]))                                          \
    DEFINE_COMPARISON(name##_nle, V, n, !(a[i] <= b[i]))                                          \
    DEFINE_COMPARISON(name##_ord, V, n, a[i] == a[i] && b[i] == b[i])                             \
    EMULATED unsigned name(V a, V b, int how) {                                                   \
        switch (how) {                                                                            \
        case _CMP_NEQ_UQ: return name##_neq(a, b);                                                \
        case _CMP_NLE_UQ: return name##_nle(a, b);                                                \
        case _CMP_ORD_Q: return name##_ord(a, b);                                                 \
        default: __builtin_trap(); /* not yet emulated */                                         \
        }                                                                                         \
    }
DEFINE_COMPARISONS(compare_ps, __m512, 16)
DEFINE_COMPARISONS(compare_pd, __m512d, 8)
DEFINE_COMPARISON(test_i32, ints_16, 16, (a[i] & b[i]) != 0)
DEFINE_COMPARISON(test_i64, ints_8, 8, (a[i] & b[i]) != 0)
DEFINE_COMPARISON(equal_i32, ints_16, 16, a[i] == b[i])
DEFINE_COMPARISON(equal_half_i32, __v8si, 8, a[i] == b[i])
DEFINE_COMPARISON(not_less_i32, ints_16, 16, a[i] >= b[i])
DEFINE_COMPARISON(not_less_u32, words_16, 16, a[i] >= b[i])
#undef _mm512_cmp_ps_mask
#undef _mm512_cmp_pd_mask
#undef _mm512_mask_cmp_ps_mask
#undef _mm512_mask_cmp_pd_mask
#define _mm512_cmp_ps_mask(a, b, how) (__mmask16)compare_ps(a, b, how)
#define _mm512_cmp_pd_mask(a, b, how) (__mmask8)compare_pd(a, b, how)
#define _mm512_mask_cmp_ps_mask(m, a, b, how) (__mmask16)((m) & compare_ps(a, b, how))
#define _mm512_mask_cmp_pd_mask(m, a, b, how) (__mmask8)((m) & compare_pd(a, b, how))
#define _mm512_test_epi32_mask(a, b) (__mmask16)test_i32((ints_16)(a), (ints_16)(b))
#define _mm512_test_epi64_mask(a, b) (__mmask8)test_i64((ints_8)(a), (ints_8)(b))
#define _mm512_cmpeq_epi32_mask(a, b) (__mmask16)equal_i32((ints_16)(a), (ints_16)(b))
#define _mm256_cmpeq_epi32_mask(a, b) (__mmask8)equal_half_i32((__v8si)(a), (__v8si)(b))
#define _mm512_cmpge_epi32_mask(a, b) (__mmask16)not_less_i32((ints_16)(a), (ints_16)(b))
#define _mm512_cmpge_epu32_mask(a, b) (__mmask16)not_less_u32((words_16)(a), (words_16)(b))
#define _mm_cmpeq_epi8_mask(a, b) (__mmask16)_mm_movemask_epi8(_mm_cmpeq_epi8(a, b))

/* Each lane of r from those of a and b; n are numbers of lanes. */
#define DEFINE_LANES(name, R, V, N, count, value)                                                 \
    EMULATED R name(V a, V b, N n) {                                                              \
        R r = {0};                                                                                \
        LANES_OF(count) r[i] = value;                                                             \
        (void)a, (void)b, (void)n;                                                                \
        return r;                                                                                 \
    }
DEFINE_LANES(max_ps, __m512, __m512, int, 16, a[i] > b[i] ? a[i] : b[i])
DEFINE_LANES(min_ps, __m512, __m512, int, 16, a[i] < b[i] ? a[i] : b[i])
DEFINE_LANES(max_pd, __m512d, __m512d, int, 8, a[i] > b[i] ? a[i] : b[i])
DEFINE_LANES(min_pd, __m512d, __m512d, int, 8, a[i] < b[i] ? a[i] : b[i])
DEFINE_LANES(scale_ps, __m512, __m512, int, 16, (float)ldexp(a[i], (int)floorf(b[i])))
DEFINE_LANES(scale_pd, __m512d, __m512d, int, 8, ldexp(a[i], (int)floor(b[i])))
DEFINE_LANES(choose_ps, __m512, __m512, ints_16, 16, (n[i] & 16 ? b : a)[n[i] & 15])
DEFINE_LANES(choose_of_4_ps, __m512, __m512, ints_16, 16, a[i / 4 * 4 + (n[i] & 3)])
DEFINE_LANES(choose_pd, __m512d, __m512d, ints_8, 8, a[n[i] & 7])
DEFINE_LANES(choose_i32, ints_16, ints_16, ints_16, 16, a[n[i] & 15])
DEFINE_LANES(widen_i32, ints_16, __v16qu, int, 16, a[i])
DEFINE_LANES(widen_i64, ints_8, __v16qu, int, 8, a[i])
DEFINE_LANES(repeat_ps, __m512, __m128, int, 16, a[i % 4])
DEFINE_LANES(join_pd, __m512d, __m256d, int, 8, (i < 4 ? a : b)[i % 4])
DEFINE_LANES(low_i32, __v8si, ints_16, int, 8, a[i])
DEFINE_LANES(low_ps, __m256, __m512, int, 8, a[i])
DEFINE_LANES(low_pd, __m256d, __m512d, int, 4, a[i])
#define _mm512_max_ps(a, b) max_ps(a, b, 0)
#define _mm512_min_ps(a, b) min_ps(a, b, 0)
#define _mm512_max_pd(a, b) max_pd(a, b, 0)
#define _mm512_min_pd(a, b) min_pd(a, b, 0)
#define _mm512_scalef_ps(a, b) scale_ps(a, b, 0)
#define _mm512_scalef_pd(a, b) scale_pd(a, b, 0)
#define _mm512_permutex2var_ps(a, n, b) choose_ps(a, b, (ints_16)(n))
#undef _mm512_insertf64x4
#define _mm512_permutevar_ps(a, n) choose_of_4_ps(a, a, (ints_16)(n))
#define _mm512_permutexvar_pd(n, a) choose_pd(a, a, (ints_8)(n))
#define _mm512_permutexvar_epi32(n, a) (__m512i)choose_i32((ints_16)(a), (ints_16)(a), (ints_16)(n))
#define _mm512_cvtepu8_epi32(a) (__m512i)widen_i32((__v16qu)(a), (__v16qu)(a), 0)
#define _mm512_cvtepu8_epi64(a) (__m512i)widen_i64((__v16qu)(a), (__v16qu)(a), 0)
#define _mm512_broadcast_f32x4(a) repeat_ps(a, a, 0)
#define _mm512_broadcast_f64x4(a) join_pd(a, a, 0)
#define _mm512_insertf64x4(a, b, half) join_pd(low_pd(a, a, 0), b, half)
#define _mm512_castpd256_pd512(a) join_pd(a, a, 0)
#define _mm512_castpd512_pd256(a) low_pd(a, a, 0)
#define _mm512_castps512_ps256(a) low_ps(a, a, 0)
#define _mm512_castsi512_si256(a) (__m256i)low_i32((ints_16)(a), (ints_16)(a), 0)

EMULATED void store_bytes_of_i32(void *p, unsigned m, ints_16 v) {
    LANES_OF(16) if (IS_SET(m)) ((unsigned char *)p)[i] = (unsigned char)v[i];
}
EMULATED void store_bytes_of_i64(void *p, unsigned m, ints_8 v) {
    LANES_OF(8) if (IS_SET(m)) ((unsigned char *)p)[i] = (unsigned char)v[i];
}
EMULATED __m128i load_bytes(unsigned m, const void *p) {
    __v16qu v = {0};
    LANES_OF(16) if (IS_SET(m)) v[i] = ((const unsigned char *)p)[i];
    return (__m128i)v;
}
EMULATED __m512i load_all(const void *p) {
    __m512i v;
    memcpy(&v, p, sizeof v);
    return v;
}
#undef _mm512_setr_epi32
#define _mm512_mask_cvtepi32_storeu_epi8(p, m, v) store_bytes_of_i32(p, m, (ints_16)(v))
#define _mm512_mask_cvtepi64_storeu_epi8(p, m, v) store_bytes_of_i64(p, m, (ints_8)(v))
#define _mm_maskz_loadu_epi8 load_bytes
#define _mm512_loadu_si512 load_all
#define _mm512_storeu_si512(p, v) memcpy(p, &(__m512i[]){v}, 64)
#define _mm512_storeu_ps(p, v) memcpy(p, &(__m512[]){v}, 64)
#define _mm512_storeu_pd(p, v) memcpy(p, &(__m512d[]){v}, 64)
#define _mm512_setzero_ps() (__m512){0}
#define _mm512_setzero_pd() (__m512d){0}
#define _mm512_set1_epi32(a) (__m512i)((ints_16){0} + (a))
#define _mm512_setr_epi32(...) (__m512i)(ints_16){__VA_ARGS__}
#define _mm512_add_epi32(a, b) (__m512i)((ints_16)(a) + (ints_16)(b))
