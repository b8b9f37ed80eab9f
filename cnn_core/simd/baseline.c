/* What every processor of the architecture has: SSE2 on x86-64, NEON on 64-bit ARM. */
#define ISA baseline
#define VECTOR_BYTES 16
#if defined(__aarch64__)
#define VECTOR_REGISTERS 32
#else
#define VECTOR_REGISTERS 16
#endif
#include "kernels.h"
