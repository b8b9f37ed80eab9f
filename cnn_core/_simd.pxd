"""The chosen tables of micro-kernels, and one fused function per entry that the loops call; those
of images and of updates stand in _simd_images.pxd and _simd_updates.pxd.

``from cnn_core._simd cimport multiply_add_tile`` gives another Cython module the same kernels.
The contract of each entry stands in simd/simd.h.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from cnn_core._types cimport real


cdef extern from "simd/simd.h" nogil:
    void fetch "simd_fetch"(const void* at) noexcept

    enum activation:
        ACTIVATION_NONE
        ACTIVATION_SIGMOID
        ACTIVATION_TANH
        ACTIVATION_RELU
        ACTIVATION_LEAKY_RELU

    ctypedef struct simd_f32:
        Py_ssize_t lanes, least_lanes, max_columns, nonzero_rows, listed_vectors
        void (*product_taps)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*,
                             const Py_ssize_t*, Py_ssize_t, Py_ssize_t, const float*,
                             const Py_ssize_t*, Py_ssize_t, const float*, float*, Py_ssize_t,
                             const void*) noexcept nogil
        void (*product_planes)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*,
                               Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t,
                               Py_ssize_t, const float*const*, float*, Py_ssize_t,
                               Py_ssize_t) noexcept nogil
        void (*product_sparse)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const int32_t*, const float*,
                               const int32_t*, const float*, Py_ssize_t, Py_ssize_t, const float*,
                               float*, const int32_t*, Py_ssize_t) noexcept nogil
        Py_ssize_t (*product_nonzeros)(
            Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, Py_ssize_t, const float*,
            Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t,
            uint64_t*, const float*const*) noexcept nogil
        Py_ssize_t (*pick_any)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t,
                               int32_t*) noexcept nogil
        void (*dots)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, const int32_t*, const float*,
                     float*) noexcept nogil
        void (*activate)(int, float, Py_ssize_t, const float*, float*) noexcept nogil
        void (*activate_backward)(int, float, Py_ssize_t, const float*, const float*,
                                  float*) noexcept nogil
        void (*softmax)(Py_ssize_t, const float*, float*) noexcept nogil
        void (*softmax_backward)(Py_ssize_t, const float*, const float*, float*) noexcept nogil
        double (*softmax_cross_entropy)(Py_ssize_t, const float*, const float*, Py_ssize_t, float,
                                        float*) noexcept nogil
        void (*cross_entropy_lanes)(Py_ssize_t, const int64_t*, const float*, int, float*, double*,
                                    int64_t*) noexcept nogil
        double (*binary_cross_entropy)(Py_ssize_t, const float*, const float*, float,
                                       float*) noexcept nogil
        double (*squared_error)(Py_ssize_t, const float*, const float*, float,
                                float*) noexcept nogil
        Py_ssize_t (*argmax)(Py_ssize_t, const float*) noexcept nogil
        void (*sum_rows)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, float*) noexcept nogil
        void (*add)(Py_ssize_t, const float*, float*) noexcept nogil
        void (*transpose)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, float*,
                          Py_ssize_t) noexcept nogil
        void (*fold_row)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*,
                         Py_ssize_t, float*, Py_ssize_t) noexcept nogil
        void (*scale_u8)(Py_ssize_t, const uint8_t*, float, float*) noexcept nogil
        void (*scale_f32)(Py_ssize_t, const float*, float, float*) noexcept nogil
        void (*scale_f64)(Py_ssize_t, const double*, float, float*) noexcept nogil
        void (*sgd)(Py_ssize_t, float*, const float*, float*, float, float, int, float,
                    float) noexcept nogil
        void (*sgd_product)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t,
                            const float*, float*, float, float) noexcept nogil
        void (*cross_entropy_columns)(Py_ssize_t, Py_ssize_t, const float*, const float*,
                                      const int64_t*, float*, float*) noexcept nogil
        void (*add_scaled)(Py_ssize_t, const float*, float, const float*, float*) noexcept nogil
        void (*max_taps)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float*,
                         const Py_ssize_t*, const int32_t*, float, float*, void*,
                         int) noexcept nogil
        void (*scatter_taps)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const Py_ssize_t*,
                             const int32_t*, const void*, int, const float*, float*) noexcept nogil
        Py_ssize_t (*pick)(Py_ssize_t, int32_t, const uint8_t*, const float*, float*,
                           int32_t*) noexcept nogil
        uint64_t (*nonzero_bits)(Py_ssize_t, const float*) noexcept nogil
        Py_ssize_t (*pick_all)(Py_ssize_t, const int32_t*, const int32_t*, const int32_t*,
                               const float*, float*, int32_t*) noexcept nogil
        void (*spread)(Py_ssize_t, const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                       const float*, Py_ssize_t, Py_ssize_t, float**, Py_ssize_t) noexcept nogil
        void (*gradient_spans)(Py_ssize_t, const Py_ssize_t*, const Py_ssize_t*, const Py_ssize_t*,
                               Py_ssize_t, const float*, Py_ssize_t, Py_ssize_t, const float*,
                               Py_ssize_t, Py_ssize_t, Py_ssize_t, float*) noexcept nogil
        void (*split)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, float*, float*, Py_ssize_t,
                      Py_ssize_t, int32_t*) noexcept nogil
        void (*interleave)(Py_ssize_t, const float*, const float*, float*) noexcept nogil
        Py_ssize_t window_sums
        void (*window_gradients)(Py_ssize_t, const int32_t*, const int32_t*, Py_ssize_t,
                                 const float*, const uint8_t*, const float*, Py_ssize_t, Py_ssize_t,
                                 Py_ssize_t, float*, Py_ssize_t) noexcept nogil
        void (*max_windows)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                            const float*, Py_ssize_t, Py_ssize_t, const int32_t*,
                            const float*, const float*, bint, float*, Py_ssize_t,
                            uint8_t*) noexcept nogil
        void (*copy_fetching)(Py_ssize_t, const float*, const float*, float*) noexcept nogil
        void (*copy_rows)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, float*,
                          Py_ssize_t) noexcept nogil
        void (*move_rows)(int, Py_ssize_t, Py_ssize_t, const float*, const int32_t*,
                          Py_ssize_t, float*, const int32_t*, Py_ssize_t, int) noexcept nogil
        void (*winograd_input)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, Py_ssize_t,
                               Py_ssize_t, float*, Py_ssize_t) noexcept nogil
        void (*winograd_output)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, const float*,
                                float*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*winograd_weights)(Py_ssize_t, const float*, Py_ssize_t, float*,
                                 Py_ssize_t) noexcept nogil
        void (*winograd_gradient)(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, Py_ssize_t,
                                  Py_ssize_t, float*, Py_ssize_t) noexcept nogil
        void (*winograd_weights_gradient)(Py_ssize_t, const float*, Py_ssize_t, float*,
                                          Py_ssize_t) noexcept nogil
        void (*winograd_rows_input)(Py_ssize_t, const float*, Py_ssize_t, Py_ssize_t, float*,
                                    Py_ssize_t) noexcept nogil
        void (*winograd_rows_output)(Py_ssize_t, const float*, Py_ssize_t, float*, Py_ssize_t,
                                     Py_ssize_t) noexcept nogil
        void (*winograd_rows_weights)(Py_ssize_t, const float*, Py_ssize_t, float*,
                                      Py_ssize_t) noexcept nogil
        void (*dropout)(Py_ssize_t, const uint32_t*, const uint32_t*, uint32_t, float, const float*,
                        float*, uint64_t*) noexcept nogil
        void (*keep)(Py_ssize_t, const uint64_t*, float, const float*, float*) noexcept nogil
        void (*add_squares)(Py_ssize_t, const float*, const float*, float*) noexcept nogil
        void (*add_products)(Py_ssize_t, const float*, const float*, const float*,
                             float*) noexcept nogil
        void (*combine)(Py_ssize_t, const float*, const float*, const float*, const float*,
                        const float*, const float*, float*) noexcept nogil
        void (*adam)(Py_ssize_t, float*, const float*, float*, float*, float, float, float, float,
                     float, float, float) noexcept nogil
        void (*adagrad)(Py_ssize_t, float*, const float*, float*, float, float,
                        float) noexcept nogil
        void (*rmsprop)(Py_ssize_t, float*, const float*, float*, float*, float, float, float,
                        float, float) noexcept nogil
        void (*clamp)(Py_ssize_t, float, float*) noexcept nogil
        double (*sum_squares)(Py_ssize_t, const float*) noexcept nogil

    ctypedef struct simd_f64:
        Py_ssize_t lanes, least_lanes, max_columns, nonzero_rows, listed_vectors
        void (*product_taps)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*,
                             const Py_ssize_t*, Py_ssize_t, Py_ssize_t, const double*,
                             const Py_ssize_t*, Py_ssize_t, const double*, double*, Py_ssize_t,
                             const void*) noexcept nogil
        void (*product_planes)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*,
                               Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t,
                               Py_ssize_t, const double*const*, double*, Py_ssize_t,
                               Py_ssize_t) noexcept nogil
        void (*product_sparse)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const int32_t*, const double*,
                               const int32_t*, const double*, Py_ssize_t, Py_ssize_t, const double*,
                               double*, const int32_t*, Py_ssize_t) noexcept nogil
        Py_ssize_t (*product_nonzeros)(
            Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, Py_ssize_t,
            const double*, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, double*, Py_ssize_t,
            Py_ssize_t, uint64_t*, const double*const*) noexcept nogil
        Py_ssize_t (*pick_any)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t,
                               int32_t*) noexcept nogil
        void (*dots)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, const int32_t*,
                     const double*, double*) noexcept nogil
        void (*activate)(int, double, Py_ssize_t, const double*, double*) noexcept nogil
        void (*activate_backward)(int, double, Py_ssize_t, const double*, const double*,
                                  double*) noexcept nogil
        void (*softmax)(Py_ssize_t, const double*, double*) noexcept nogil
        void (*softmax_backward)(Py_ssize_t, const double*, const double*, double*) noexcept nogil
        double (*softmax_cross_entropy)(Py_ssize_t, const double*, const double*, Py_ssize_t,
                                        double, double*) noexcept nogil
        void (*cross_entropy_lanes)(Py_ssize_t, const int64_t*, const double*, int, double*,
                                    double*, int64_t*) noexcept nogil
        double (*binary_cross_entropy)(Py_ssize_t, const double*, const double*, double,
                                       double*) noexcept nogil
        double (*squared_error)(Py_ssize_t, const double*, const double*, double,
                                double*) noexcept nogil
        Py_ssize_t (*argmax)(Py_ssize_t, const double*) noexcept nogil
        void (*sum_rows)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, double*) noexcept nogil
        void (*add)(Py_ssize_t, const double*, double*) noexcept nogil
        void (*transpose)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, double*,
                          Py_ssize_t) noexcept nogil
        void (*fold_row)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*,
                         Py_ssize_t, double*, Py_ssize_t) noexcept nogil
        void (*scale_u8)(Py_ssize_t, const uint8_t*, double, double*) noexcept nogil
        void (*scale_f32)(Py_ssize_t, const float*, double, double*) noexcept nogil
        void (*scale_f64)(Py_ssize_t, const double*, double, double*) noexcept nogil
        void (*sgd)(Py_ssize_t, double*, const double*, double*, double, double, int, double,
                    double) noexcept nogil
        void (*sgd_product)(Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t,
                            const double*, double*, double, double) noexcept nogil
        void (*cross_entropy_columns)(Py_ssize_t, Py_ssize_t, const double*, const double*,
                                      const int64_t*, double*, double*) noexcept nogil
        void (*add_scaled)(Py_ssize_t, const double*, double, const double*, double*) noexcept nogil
        void (*max_taps)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double*,
                         const Py_ssize_t*, const int32_t*, double, double*, void*,
                         int) noexcept nogil
        void (*scatter_taps)(int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                             const Py_ssize_t*, const int32_t*, const void*, int, const double*,
                             double*) noexcept nogil
        Py_ssize_t (*pick)(Py_ssize_t, int32_t, const uint8_t*, const double*, double*,
                           int32_t*) noexcept nogil
        uint64_t (*nonzero_bits)(Py_ssize_t, const double*) noexcept nogil
        Py_ssize_t (*pick_all)(Py_ssize_t, const int32_t*, const int32_t*, const int32_t*,
                               const double*, double*, int32_t*) noexcept nogil
        void (*spread)(Py_ssize_t, const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                       const double*, Py_ssize_t, Py_ssize_t, double**, Py_ssize_t) noexcept nogil
        void (*gradient_spans)(Py_ssize_t, const Py_ssize_t*, const Py_ssize_t*, const Py_ssize_t*,
                               Py_ssize_t, const double*, Py_ssize_t, Py_ssize_t, const double*,
                               Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
        void (*split)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, double*, double*,
                      Py_ssize_t, Py_ssize_t, int32_t*) noexcept nogil
        void (*interleave)(Py_ssize_t, const double*, const double*, double*) noexcept nogil
        Py_ssize_t window_sums
        void (*window_gradients)(Py_ssize_t, const int32_t*, const int32_t*, Py_ssize_t,
                                 const double*, const uint8_t*, const double*, Py_ssize_t,
                                 Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) noexcept nogil
        void (*max_windows)(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                            const double*, Py_ssize_t, Py_ssize_t, const int32_t*,
                            const double*, const double*, bint, double*, Py_ssize_t,
                            uint8_t*) noexcept nogil
        void (*copy_fetching)(Py_ssize_t, const double*, const double*, double*) noexcept nogil
        void (*copy_rows)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, double*,
                          Py_ssize_t) noexcept nogil
        void (*move_rows)(int, Py_ssize_t, Py_ssize_t, const double*, const int32_t*,
                          Py_ssize_t, double*, const int32_t*, Py_ssize_t, int) noexcept nogil
        void (*winograd_input)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, Py_ssize_t,
                               Py_ssize_t, double*, Py_ssize_t) noexcept nogil
        void (*winograd_output)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, const double*,
                                double*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*winograd_weights)(Py_ssize_t, const double*, Py_ssize_t, double*,
                                 Py_ssize_t) noexcept nogil
        void (*winograd_gradient)(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, Py_ssize_t,
                                  Py_ssize_t, double*, Py_ssize_t) noexcept nogil
        void (*winograd_weights_gradient)(Py_ssize_t, const double*, Py_ssize_t, double*,
                                          Py_ssize_t) noexcept nogil
        void (*winograd_rows_input)(Py_ssize_t, const double*, Py_ssize_t, Py_ssize_t, double*,
                                    Py_ssize_t) noexcept nogil
        void (*winograd_rows_output)(Py_ssize_t, const double*, Py_ssize_t, double*, Py_ssize_t,
                                     Py_ssize_t) noexcept nogil
        void (*winograd_rows_weights)(Py_ssize_t, const double*, Py_ssize_t, double*,
                                      Py_ssize_t) noexcept nogil
        void (*dropout)(Py_ssize_t, const uint32_t*, const uint32_t*, uint32_t, double,
                        const double*, double*, uint64_t*) noexcept nogil
        void (*keep)(Py_ssize_t, const uint64_t*, double, const double*, double*) noexcept nogil
        void (*add_squares)(Py_ssize_t, const double*, const double*, double*) noexcept nogil
        void (*add_products)(Py_ssize_t, const double*, const double*, const double*,
                             double*) noexcept nogil
        void (*combine)(Py_ssize_t, const double*, const double*, const double*, const double*,
                        const double*, const double*, double*) noexcept nogil
        void (*adam)(Py_ssize_t, double*, const double*, double*, double*, double, double, double,
                     double, double, double, double) noexcept nogil
        void (*adagrad)(Py_ssize_t, double*, const double*, double*, double, double,
                        double) noexcept nogil
        void (*rmsprop)(Py_ssize_t, double*, const double*, double*, double*, double, double,
                        double, double, double) noexcept nogil
        void (*clamp)(Py_ssize_t, double, double*) noexcept nogil
        double (*sum_squares)(Py_ssize_t, const double*) noexcept nogil

    ctypedef struct simd_isa:
        const char* name
        const simd_f32* f32
        const simd_f64* f64


# The chosen tables; and all that this processor runs, best first, ended by a NULL name.
cdef const simd_f32* f32
cdef const simd_f64* f64
cdef const simd_isa* isas


# `like` only tells the element type: a C function cannot be chosen by its result alone.
cdef inline Py_ssize_t lanes(const real* like) noexcept nogil:
    if real is float:
        return f32.lanes
    else:
        return f64.lanes


cdef inline Py_ssize_t least_lanes(const real* like) noexcept nogil:
    if real is float:
        return f32.least_lanes
    else:
        return f64.least_lanes


cdef inline Py_ssize_t max_columns(const real* like) noexcept nogil:
    if real is float:
        return f32.max_columns
    else:
        return f64.max_columns


cdef inline void multiply_add_taps(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, Py_ssize_t taps, const real* a,
    const Py_ssize_t* a_at, Py_ssize_t a_row, Py_ssize_t a_col, const real* b,
    const Py_ssize_t* b_at, Py_ssize_t b_row, const real* start, real* c, Py_ssize_t c_row,
    const void* ahead=NULL,    # const real* [m]
) noexcept nogil:
    if real is float:
        f32.product_taps(m, n, k, taps, a, a_at, a_row, a_col, b, b_at, b_row, start, c, c_row,
                         ahead)
    else:
        f64.product_taps(m, n, k, taps, a, a_at, a_row, a_col, b, b_at, b_row, start, c, c_row,
                         ahead)


cdef inline void multiply_add_tile(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, const real* start, real* c, Py_ssize_t c_row,
) noexcept nogil:
    cdef Py_ssize_t at = 0
    multiply_add_taps(m, n, k, 1, a, &at, a_row, a_col, b, &at, b_row, start, c, c_row)


cdef inline void multiply_add_planes(
    Py_ssize_t planes, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_plane,
    Py_ssize_t a_row, Py_ssize_t a_col, const real* b, Py_ssize_t b_plane, Py_ssize_t b_row,
    const void* starts, real* c, Py_ssize_t c_plane, Py_ssize_t c_row,
) noexcept nogil:
    if real is float:
        f32.product_planes(planes, m, n, k, a, a_plane, a_row, a_col, b, b_plane, b_row,
                           <const float*const*>starts, c, c_plane, c_row)
    else:
        f64.product_planes(planes, m, n, k, a, a_plane, a_row, a_col, b, b_plane, b_row,
                           <const double*const*>starts, c, c_plane, c_row)


cdef inline void multiply_sparse_row(
    Py_ssize_t n, Py_ssize_t k, const real* values, const int32_t* rows, const real* b,
    Py_ssize_t b_row, const real* start, real* c,
) noexcept nogil:
    cdef int32_t at = 0
    cdef int32_t ends[2]
    ends[0], ends[1] = 0, <int32_t>k
    if real is float:
        f32.product_sparse(1, 1, n, ends, values, rows, b, b_row, 0, start, c, &at, 0)
    else:
        f64.product_sparse(1, 1, n, ends, values, rows, b, b_row, 0, start, c, &at, 0)


cdef inline void multiply_sparse_taps(
    Py_ssize_t m, Py_ssize_t taps, Py_ssize_t n, const int32_t* ends, const real* values,
    const int32_t* rows, const real* b, Py_ssize_t b_row, Py_ssize_t b_tap, const real* start,
    real* c, const int32_t* c_at, Py_ssize_t c_tap,
) noexcept nogil:
    if real is float:
        f32.product_sparse(m, taps, n, ends, values, rows, b, b_row, b_tap, start, c, c_at, c_tap)
    else:
        f64.product_sparse(m, taps, n, ends, values, rows, b, b_row, b_tap, start, c, c_at, c_tap)


cdef inline void dots(Py_ssize_t m, Py_ssize_t n, const real* a, Py_ssize_t a_row,
                      const int32_t* rows, const real* x, real* y) noexcept nogil:
    if real is float:
        f32.dots(m, n, a, a_row, rows, x, y)
    else:
        f64.dots(m, n, a, a_row, rows, x, y)


cdef inline void activate(int kind, double slope, Py_ssize_t n, const real* x,
                          real* y) noexcept nogil:
    if real is float:
        f32.activate(kind, <float>slope, n, x, y)
    else:
        f64.activate(kind, slope, n, x, y)


cdef inline void activate_backward(int kind, double slope, Py_ssize_t n, const real* y,
                                   const real* dout, real* dx) noexcept nogil:
    if real is float:
        f32.activate_backward(kind, <float>slope, n, y, dout, dx)
    else:
        f64.activate_backward(kind, slope, n, y, dout, dx)


cdef inline void softmax_row(Py_ssize_t n, const real* x, real* y) noexcept nogil:
    if real is float:
        f32.softmax(n, x, y)
    else:
        f64.softmax(n, x, y)


cdef inline void softmax_row_backward(Py_ssize_t n, const real* y, const real* dout,
                                      real* dx) noexcept nogil:
    if real is float:
        f32.softmax_backward(n, y, dout, dx)
    else:
        f64.softmax_backward(n, y, dout, dx)


cdef inline double softmax_cross_entropy_row(
    Py_ssize_t n, const real* x, const real* t, Py_ssize_t label, double scale, real* dx,
) noexcept nogil:
    if real is float:
        return f32.softmax_cross_entropy(n, x, t, label, <float>scale, dx)
    else:
        return f64.softmax_cross_entropy(n, x, t, label, scale, dx)


cdef inline void cross_entropy_lanes(
    Py_ssize_t n, const int64_t* labels, const real* scales, bint gradient, real* x,
    double* losses, int64_t* correct,
) noexcept nogil:
    if real is float:
        f32.cross_entropy_lanes(n, labels, scales, gradient, x, losses, correct)
    else:
        f64.cross_entropy_lanes(n, labels, scales, gradient, x, losses, correct)


cdef inline double binary_cross_entropy_row(Py_ssize_t n, const real* x, const real* t,
                                            double scale, real* dx) noexcept nogil:
    if real is float:
        return f32.binary_cross_entropy(n, x, t, <float>scale, dx)
    else:
        return f64.binary_cross_entropy(n, x, t, scale, dx)


cdef inline double squared_error_row(Py_ssize_t n, const real* y, const real* t, double scale,
                                     real* dy) noexcept nogil:
    if real is float:
        return f32.squared_error(n, y, t, <float>scale, dy)
    else:
        return f64.squared_error(n, y, t, scale, dy)


cdef inline Py_ssize_t argmax(Py_ssize_t n, const real* x) noexcept nogil:
    if real is float:
        return f32.argmax(n, x)
    else:
        return f64.argmax(n, x)


cdef inline void sum_rows(Py_ssize_t m, Py_ssize_t n, const real* x, Py_ssize_t x_row,
                          real* y) noexcept nogil:
    if real is float:
        f32.sum_rows(m, n, x, x_row, y)
    else:
        f64.sum_rows(m, n, x, x_row, y)


cdef inline void transpose(Py_ssize_t m, Py_ssize_t n, const real* x, Py_ssize_t x_row, real* y,
                           Py_ssize_t y_row) noexcept nogil:
    if real is float:
        f32.transpose(m, n, x, x_row, y, y_row)
    else:
        f64.transpose(m, n, x, x_row, y, y_row)


cdef inline void add(Py_ssize_t n, const real* x, real* y) noexcept nogil:
    if real is float:
        f32.add(n, x, y)
    else:
        f64.add(n, x, y)


cdef inline void add_scaled(Py_ssize_t n, const real* x, double a, const real* d,
                            real* y) noexcept nogil:
    if real is float:
        f32.add_scaled(n, x, <float>a, d, y)
    else:
        f64.add_scaled(n, x, a, d, y)


cdef inline void scale_u8(Py_ssize_t n, const uint8_t* x, double scale, real* y) noexcept nogil:
    if real is float:
        f32.scale_u8(n, x, <float>scale, y)
    else:
        f64.scale_u8(n, x, scale, y)


cdef inline void scale_f32(Py_ssize_t n, const float* x, double scale, real* y) noexcept nogil:
    if real is float:
        f32.scale_f32(n, x, <float>scale, y)
    else:
        f64.scale_f32(n, x, scale, y)


cdef inline void scale_f64(Py_ssize_t n, const double* x, double scale, real* y) noexcept nogil:
    if real is float:
        f32.scale_f64(n, x, <float>scale, y)
    else:
        f64.scale_f64(n, x, scale, y)


cdef inline void cross_entropy_columns(
    Py_ssize_t n, Py_ssize_t m, const real* x, const real* t, const int64_t* labels, real* losses,
    real* scratch,
) noexcept nogil:
    if real is float:
        f32.cross_entropy_columns(n, m, x, t, labels, losses, scratch)
    else:
        f64.cross_entropy_columns(n, m, x, t, labels, losses, scratch)
