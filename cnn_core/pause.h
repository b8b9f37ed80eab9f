/* What a thread does in a loop in which it waits for another one. */
#ifndef CNN_CORE_PAUSE_H
#define CNN_CORE_PAUSE_H

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}
#endif
