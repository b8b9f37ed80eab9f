/* AVX-512 (F, BW, DQ, VL): Intel servers from Skylake (2017), AMD from Zen 4 (2022). */
typedef int simd_avx512_not_empty;
#if defined(__x86_64__)
#include <immintrin.h>
#define ISA avx512
#define VECTOR_BYTES 64
#define VECTOR_REGISTERS 32
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
