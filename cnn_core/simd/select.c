/* Which instruction sets this build has and this processor can run. */
#include "simd.h"

#define DECLARE(ISA)                                                                              \
    extern const simd_f32 simd_f32_##ISA;                                                         \
    extern const simd_f64 simd_f64_##ISA;
#define ENTRY(ISA) ((simd_isa){#ISA, &simd_f32_##ISA, &simd_f64_##ISA})

DECLARE(baseline)
#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
#endif

const simd_isa *simd_supported(void) {
    static simd_isa list[4];
    int count = 0;
#if defined(__x86_64__)
    /* Asks the processor and whether the operating system saves the registers. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        list[count++] = ENTRY(avx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        list[count++] = ENTRY(avx2);
#endif
    list[count++] = ENTRY(baseline);
    list[count] = (simd_isa){0};
    return list;
}
