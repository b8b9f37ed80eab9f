/* Highest rate of multiply-adds (float32) and of reading and writing memory:  peak THREADS
   Prints GFLOP/s and GB/s. Compiled with -march=native by machine.py. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#if defined(__x86_64__)
#define KEEP(v) __asm__ volatile("" : "+x"(v)) /* in a register, its value unknown */
#else
#define KEEP(v) __asm__ volatile("" : "+w"(v))
#endif

typedef float vector __attribute__((vector_size(BYTES)));
enum { CHAINS = 12, LANES = BYTES / sizeof(float), ROUNDS = 30 };

/* As many independent sums as hide the latency of an addition. */
static void multiply_add(long n) {
    vector a[CHAINS] = {0}, b = {0}, c = {0};
    b += 0.999f;
    c += 1e-4f;
    for (long k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            a[i] = a[i] * b + c;
            KEEP(a[i]);
        }
    }
}

static double gflops(int threads) {
    const long n = 2000000;
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = omp_get_wtime();
#pragma omp parallel num_threads(threads)
        multiply_add(n);
        double rate = 2.0 * LANES * CHAINS * n * threads / (omp_get_wtime() - start) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

/* y += 0.1 x: two arrays read and one written, each larger than most caches. */
static double gbytes(int threads) {
    const long n = 32 << 20;
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    double best = 0;
    if (x == NULL || y == NULL) exit(1);
    memset(x, 0, n * sizeof *x);
    memset(y, 0, n * sizeof *y);
    for (int round = 0; round < ROUNDS; round++) {
        double start = omp_get_wtime();
#pragma omp parallel for num_threads(threads)
        for (long i = 0; i < n; i++) y[i] += 0.1f * x[i];
        double rate = 3.0 * sizeof *x * n / (omp_get_wtime() - start) / 1e9;
        best = rate > best ? rate : best;
    }
    free(x);
    free(y);
    return best;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    printf("%.1f %.1f\n", gflops(threads), gbytes(threads));
    return 0;
}
