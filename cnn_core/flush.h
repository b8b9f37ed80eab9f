/* Subnormal numbers (in float32 those below 1.2e-38) take a processor hundreds of times as long as
 * others. While kernels run they count as 0, as operands and as results. */
#ifndef CNN_CORE_FLUSH_H
#define CNN_CORE_FLUSH_H

#if defined(__SSE2__)
#include <xmmintrin.h>

/* Flush from now on, in this thread; returns what `flush_end` needs. */
static inline unsigned long flush_begin(void) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* flush to zero, denormals are zero */
    return mode;
}

static inline void flush_end(unsigned long mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__)
static inline unsigned long flush_begin(void) {
    unsigned long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | 1UL << 24));
    return mode;
}

static inline void flush_end(unsigned long mode) {
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
#else
static inline unsigned long flush_begin(void) { return 0; }
static inline void flush_end(unsigned long mode) { (void)mode; }
#endif

#endif
