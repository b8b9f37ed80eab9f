/* Both tables of one instruction set. The including file sets ISA, VECTOR_BYTES and
 * VECTOR_REGISTERS, after it has switched the compiler to the instruction set. */
#include <math.h>
#include <string.h>
#include "simd.h"

#define INLINE inline __attribute__((always_inline, unused))
#define NOINLINE __attribute__((noinline)) /* where, as one case of many, a loop would run out of registers */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)

#define TABLE_ENTRIES                                                                             \
    .lanes = LANES, .least_lanes = LEAST_LANES, .max_columns = MOST_VECTORS * LANES,              \
    .nonzero_rows = NONZERO_ROWS, .listed_vectors = MOST_LISTED,                                  \
    .product_taps = NAME(product_taps),                                                           \
    .product_sparse = NAME(product_sparse), .product_nonzeros = NAME(product_nonzeros),           \
    .pick_any = NAME(pick_any),                                                                   \
    .product_planes = NAME(product_planes),                                                       \
    .dots = NAME(dots), .activate = NAME(activate),                                               \
    .activate_backward = NAME(activate_backward), .softmax = NAME(softmax),                       \
    .softmax_backward = NAME(softmax_backward),                                                   \
    .softmax_cross_entropy = NAME(softmax_cross_entropy),                                         \
    .cross_entropy_lanes = NAME(cross_entropy_lanes),                                             \
    .binary_cross_entropy = NAME(binary_cross_entropy), .squared_error = NAME(squared_error),     \
    .argmax = NAME(argmax), .sum_rows = NAME(sum_rows), .add = NAME(add),                         \
    .transpose = NAME(transpose), .fold_row = NAME(fold_row), .scale_u8 = NAME(scale_u8),         \
    .scale_f32 = NAME(scale_f32), .scale_f64 = NAME(scale_f64), .sgd = NAME(sgd),                 \
    .sgd_product = NAME(sgd_product), .cross_entropy_columns = NAME(cross_entropy_columns),       \
    .add_scaled = NAME(add_scaled), .max_taps = NAME(max_taps),                                   \
    .scatter_taps = NAME(scatter_taps), .pick = NAME(pick), .pick_all = NAME(pick_all),           \
    .spread = NAME(spread), .gradient_spans = NAME(gradient_spans),                               \
    .nonzero_bits = NAME(nonzero_bits),                                                           \
    .split = NAME(split), .max_windows = NAME(max_windows), .window_sums = WINDOW_SUMS,           \
    .interleave = NAME(interleave), .window_gradients = NAME(window_gradients),                   \
    .copy_fetching = NAME(copy_fetching), .copy_rows = NAME(copy_rows),                           \
    .move_rows = NAME(move_rows), .dropout = NAME(dropout), .keep = NAME(keep),                   \
    .add_squares = NAME(add_squares), .add_products = NAME(add_products),                         \
    .winograd_input = NAME(winograd_input), .winograd_output = NAME(winograd_output),             \
    .winograd_weights = NAME(winograd_weights), .winograd_gradient = NAME(winograd_gradient),     \
    .winograd_weights_gradient = NAME(winograd_weights_gradient),                                 \
    .winograd_rows_input = NAME(winograd_rows_input),                                             \
    .winograd_rows_output = NAME(winograd_rows_output),                                           \
    .winograd_rows_weights = NAME(winograd_rows_weights), .combine = NAME(combine),               \
    .adam = NAME(adam), .adagrad = NAME(adagrad), .rmsprop = NAME(rmsprop),                       \
    .clamp = NAME(clamp), .sum_squares = NAME(sum_squares)

#define REAL float
#define REAL_IS_FLOAT 1
#define NAME(x) x##_f32
#include "real.h"
const simd_f32 PASTE(simd_f32, ISA) = {TABLE_ENTRIES};
#include "real_end.h"

#define REAL double
#define REAL_IS_FLOAT 0
#define NAME(x) x##_f64
#include "real.h"
const simd_f64 PASTE(simd_f64, ISA) = {TABLE_ENTRIES};
#include "real_end.h"
