/* AVX2 and FMA: Intel from Haswell (2013), AMD from Zen (2017). */
typedef int simd_avx2_not_empty;
#if defined(__x86_64__)
#include <immintrin.h>
#define ISA avx2
#define VECTOR_BYTES 32
#define VECTOR_REGISTERS 16
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
