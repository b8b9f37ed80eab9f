/* The few OpenMP calls that Cython has no syntax for, and their serial twins. */
#ifndef CNN_CORE_OPENMP_H
#define CNN_CORE_OPENMP_H

#ifdef _OPENMP
#include <omp.h>
static inline int openmp_version(void) { return _OPENMP; }
static inline int openmp_max_threads(void) { return omp_get_max_threads(); }
static inline int openmp_team_size(void) { return omp_get_num_threads(); }
static inline int openmp_in_parallel(void) { return omp_in_parallel(); }
static inline void openmp_barrier(void) {
#pragma omp barrier
}
#else
static inline int openmp_version(void) { return 0; }
static inline int openmp_max_threads(void) { return 1; }
static inline int openmp_team_size(void) { return 1; }
static inline int openmp_in_parallel(void) { return 0; }
static inline void openmp_barrier(void) {}
#endif

#endif
