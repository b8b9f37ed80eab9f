/* The few OpenMP calls that Cython has no syntax for, and their serial twins. */
#ifndef CNN_CORE_OPENMP_H
#define CNN_CORE_OPENMP_H

#include <stddef.h>

/* The number of the next piece of work, which no other thread gets. */
static inline ptrdiff_t openmp_claim(ptrdiff_t *next) {
    return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
}

#ifdef _OPENMP
#include <omp.h>
static inline int openmp_version(void) { return _OPENMP; }
static inline int openmp_max_threads(void) { return omp_get_max_threads(); }
static inline int openmp_in_parallel(void) { return omp_in_parallel(); }
static inline void openmp_barrier(void) {
#pragma omp barrier
}
#else
static inline int openmp_version(void) { return 0; }
static inline int openmp_max_threads(void) { return 1; }
static inline int openmp_in_parallel(void) { return 0; }
static inline void openmp_barrier(void) {}
#endif

#endif
