"""One fused function per entry of the tables that works on images or finds zeros; see _simd.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from cnn_core._simd cimport f32, f64
from cnn_core._types cimport real


cdef inline void fold_row(
    Py_ssize_t pixels, Py_ssize_t windows, Py_ssize_t taps, Py_ssize_t n, Py_ssize_t step,
    const real* products, Py_ssize_t x_row, real* row, Py_ssize_t row_step,
) noexcept nogil:
    if real is float:
        f32.fold_row(pixels, windows, taps, n, step, products, x_row, row, row_step)
    else:
        f64.fold_row(pixels, windows, taps, n, step, products, x_row, row, row_step)


cdef inline void max_taps(
    Py_ssize_t windows, Py_ssize_t step, Py_ssize_t n, Py_ssize_t taps, const real* x,
    const Py_ssize_t* at, const int32_t* numbers, real least, real* best, void* which, int bytes,
) noexcept nogil:
    if real is float:
        f32.max_taps(windows, step, n, taps, x, at, numbers, least, best, which, bytes)
    else:
        f64.max_taps(windows, step, n, taps, x, at, numbers, least, best, which, bytes)


cdef inline void scatter_taps(
    bint add, Py_ssize_t windows, Py_ssize_t step, Py_ssize_t n, Py_ssize_t taps,
    const Py_ssize_t* at, const int32_t* numbers, const void* which, int bytes, const real* g,
    real* x,
) noexcept nogil:
    if real is float:
        f32.scatter_taps(add, windows, step, n, taps, at, numbers, which, bytes, g, x)
    else:
        f64.scatter_taps(add, windows, step, n, taps, at, numbers, which, bytes, g, x)


cdef inline Py_ssize_t pick(Py_ssize_t n, int32_t number, const uint8_t* numbers, const real* g,
                            real* values, int32_t* at) noexcept nogil:
    if real is float:
        return f32.pick(n, number, numbers, g, values, at)
    else:
        return f64.pick(n, number, numbers, g, values, at)


cdef inline uint64_t nonzero_bits(Py_ssize_t n, const real* x) noexcept nogil:
    if real is float:
        return f32.nonzero_bits(n, x)
    else:
        return f64.nonzero_bits(n, x)


cdef inline Py_ssize_t nonzero_rows(const real* like) noexcept nogil:
    if real is float:
        return f32.nonzero_rows
    else:
        return f64.nonzero_rows


cdef inline Py_ssize_t listed_vectors(const real* like) noexcept nogil:
    if real is float:
        return f32.listed_vectors
    else:
        return f64.listed_vectors


cdef inline Py_ssize_t multiply_nonzero_terms(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const real* a, Py_ssize_t a_row, Py_ssize_t a_col,
    const real* b, Py_ssize_t b_row, Py_ssize_t b_columns, const real* start, Py_ssize_t start_row,
    real* c, Py_ssize_t c_row, Py_ssize_t most, uint64_t* room, const void* ahead,
) noexcept nogil:
    if real is float:
        return f32.product_nonzeros(m, n, k, a, a_row, a_col, b, b_row, b_columns, start,
                                    start_row, c, c_row, most, room, <const float*const*>ahead)
    else:
        return f64.product_nonzeros(m, n, k, a, a_row, a_col, b, b_row, b_columns, start,
                                    start_row, c, c_row, most, room, <const double*const*>ahead)


cdef inline Py_ssize_t pick_any(Py_ssize_t m, Py_ssize_t n, const real* a, Py_ssize_t a_row,
                                int32_t* at) noexcept nogil:
    if real is float:
        return f32.pick_any(m, n, a, a_row, at)
    else:
        return f64.pick_any(m, n, a, a_row, at)


cdef inline Py_ssize_t pick_all(
    Py_ssize_t n, const int32_t* table, const int32_t* numbers, const int32_t* places,
    const real* g, real* values, int32_t* at,
) noexcept nogil:
    if real is float:
        return f32.pick_all(n, table, numbers, places, g, values, at)
    else:
        return f64.pick_all(n, table, numbers, places, g, values, at)


cdef inline void spread(
    Py_ssize_t count, const real* x, Py_ssize_t taps, Py_ssize_t rows, Py_ssize_t n, const real* w,
    Py_ssize_t w_row, Py_ssize_t w_tap, real** sums, Py_ssize_t step,
) noexcept nogil:
    if real is float:
        f32.spread(count, x, taps, rows, n, w, w_row, w_tap, sums, step)
    else:
        f64.spread(count, x, taps, rows, n, w, w_row, w_tap, sums, step)


cdef inline void gradient_spans(
    Py_ssize_t count, const Py_ssize_t* sizes, const Py_ssize_t* x_at, const Py_ssize_t* g_at,
    Py_ssize_t n, const real* x, Py_ssize_t x_row, Py_ssize_t x_step, const real* g,
    Py_ssize_t g_step, Py_ssize_t kh, Py_ssize_t taps, real* sums,
) noexcept nogil:
    if real is float:
        f32.gradient_spans(count, sizes, x_at, g_at, n, x, x_row, x_step, g, g_step, kh, taps, sums)
    else:
        f64.gradient_spans(count, sizes, x_at, g_at, n, x, x_row, x_step, g, g_step, kh, taps, sums)


cdef inline void split(Py_ssize_t rows, Py_ssize_t n, const real* x, Py_ssize_t x_row, real* even,
                       real* odd, Py_ssize_t y_row, Py_ssize_t left,
                       int32_t* seen) noexcept nogil:
    if real is float:
        f32.split(rows, n, x, x_row, even, odd, y_row, left, seen)
    else:
        f64.split(rows, n, x, x_row, even, odd, y_row, left, seen)


cdef inline bint has_window_gradients(const real* like) noexcept nogil:
    if real is float:
        return f32.window_sums > 0
    else:
        return f64.window_sums > 0


cdef inline void interleave(Py_ssize_t n, const real* x, const real* below,
                            real* y) noexcept nogil:
    if real is float:
        f32.interleave(n, x, below, y)
    else:
        f64.interleave(n, x, below, y)


cdef inline void window_gradients(
    Py_ssize_t count, const int32_t* windows, const int32_t* at, Py_ssize_t n, const real* g,
    const uint8_t* which, const real* pairs, Py_ssize_t pair_row, Py_ssize_t kh, Py_ssize_t kw,
    real* sums, Py_ssize_t step,
) noexcept nogil:
    if real is float:
        f32.window_gradients(count, windows, at, n, g, which, pairs, pair_row, kh, kw, sums, step)
    else:
        f64.window_gradients(count, windows, at, n, g, which, pairs, pair_row, kh, kw, sums, step)


cdef inline void max_windows(
    Py_ssize_t n, Py_ssize_t rows, Py_ssize_t windows, Py_ssize_t kh, Py_ssize_t kw,
    const real* x, Py_ssize_t x_row, Py_ssize_t odd, const int32_t* seen, const real* w,
    const real* b, bint relu, real* y, Py_ssize_t y_row, uint8_t* which,
) noexcept nogil:
    if real is float:
        f32.max_windows(n, rows, windows, kh, kw, x, x_row, odd, seen, w, b, relu, y, y_row,
                        which)
    else:
        f64.max_windows(n, rows, windows, kh, kw, x, x_row, odd, seen, w, b, relu, y, y_row,
                        which)


cdef inline void copy_fetching(Py_ssize_t n, const real* x, const real* ahead,
                               real* y) noexcept nogil:
    if real is float:
        f32.copy_fetching(n, x, ahead, y)
    else:
        f64.copy_fetching(n, x, ahead, y)


cdef inline void copy_rows(Py_ssize_t m, Py_ssize_t n, const real* x, Py_ssize_t x_row, real* y,
                           Py_ssize_t y_row) noexcept nogil:
    if real is float:
        f32.copy_rows(m, n, x, x_row, y, y_row)
    else:
        f64.copy_rows(m, n, x, x_row, y, y_row)


cdef inline void move_rows(
    bint add, Py_ssize_t m, Py_ssize_t n, const real* x, const int32_t* x_at, Py_ssize_t x_row,
    real* y, const int32_t* y_at, Py_ssize_t y_row, bint fetches,
) noexcept nogil:
    if real is float:
        f32.move_rows(add, m, n, x, x_at, x_row, y, y_at, y_row, fetches)
    else:
        f64.move_rows(add, m, n, x, x_at, x_row, y, y_at, y_row, fetches)


cdef inline void dropout_row(
    Py_ssize_t n, const uint32_t* key, const uint32_t* stream, uint32_t threshold, double scale,
    const real* x, real* y, uint64_t* mask,
) noexcept nogil:
    if real is float:
        f32.dropout(n, key, stream, threshold, <float>scale, x, y, mask)
    else:
        f64.dropout(n, key, stream, threshold, scale, x, y, mask)


cdef inline void keep_row(Py_ssize_t n, const uint64_t* mask, double scale, const real* x,
                          real* y) noexcept nogil:
    if real is float:
        f32.keep(n, mask, <float>scale, x, y)
    else:
        f64.keep(n, mask, scale, x, y)


cdef inline void add_squares(Py_ssize_t n, const real* x, const real* mean,
                             real* squares) noexcept nogil:
    if real is float:
        f32.add_squares(n, x, mean, squares)
    else:
        f64.add_squares(n, x, mean, squares)


cdef inline void add_products(Py_ssize_t n, const real* x, const real* y, const real* mean,
                              real* products) noexcept nogil:
    if real is float:
        f32.add_products(n, x, y, mean, products)
    else:
        f64.add_products(n, x, y, mean, products)


cdef inline void combine(
    Py_ssize_t n, const real* x, const real* a, const real* z, const real* b, const real* c,
    const real* d, real* y,
) noexcept nogil:
    if real is float:
        f32.combine(n, x, a, z, b, c, d, y)
    else:
        f64.combine(n, x, a, z, b, c, d, y)


cdef inline void winograd_input(
    Py_ssize_t tiles, Py_ssize_t n, const real* x, Py_ssize_t x_row, Py_ssize_t rows,
    Py_ssize_t columns, real* v, Py_ssize_t plane,
) noexcept nogil:
    if real is float:
        f32.winograd_input(tiles, n, x, x_row, rows, columns, v, plane)
    else:
        f64.winograd_input(tiles, n, x, x_row, rows, columns, v, plane)


cdef inline void winograd_output(
    Py_ssize_t tiles, Py_ssize_t n, const real* m, Py_ssize_t plane, const real* b, real* y,
    Py_ssize_t y_row, Py_ssize_t rows, Py_ssize_t columns,
) noexcept nogil:
    if real is float:
        f32.winograd_output(tiles, n, m, plane, b, y, y_row, rows, columns)
    else:
        f64.winograd_output(tiles, n, m, plane, b, y, y_row, rows, columns)


cdef inline void winograd_weights(Py_ssize_t n, const real* g, Py_ssize_t g_row, real* u,
                                  Py_ssize_t plane) noexcept nogil:
    if real is float:
        f32.winograd_weights(n, g, g_row, u, plane)
    else:
        f64.winograd_weights(n, g, g_row, u, plane)


cdef inline void winograd_gradient(
    Py_ssize_t tiles, Py_ssize_t n, const real* dy, Py_ssize_t dy_row, Py_ssize_t rows,
    Py_ssize_t columns, real* h, Py_ssize_t plane,
) noexcept nogil:
    if real is float:
        f32.winograd_gradient(tiles, n, dy, dy_row, rows, columns, h, plane)
    else:
        f64.winograd_gradient(tiles, n, dy, dy_row, rows, columns, h, plane)


cdef inline void winograd_weights_gradient(Py_ssize_t n, const real* m, Py_ssize_t plane, real* dg,
                                           Py_ssize_t dg_row) noexcept nogil:
    if real is float:
        f32.winograd_weights_gradient(n, m, plane, dg, dg_row)
    else:
        f64.winograd_weights_gradient(n, m, plane, dg, dg_row)


cdef inline void winograd_rows_input(Py_ssize_t n, const real* x, Py_ssize_t x_row, Py_ssize_t rows,
                                     real* v, Py_ssize_t plane) noexcept nogil:
    if real is float:
        f32.winograd_rows_input(n, x, x_row, rows, v, plane)
    else:
        f64.winograd_rows_input(n, x, x_row, rows, v, plane)


cdef inline void winograd_rows_output(Py_ssize_t n, const real* m, Py_ssize_t plane, real* y,
                                      Py_ssize_t y_row, Py_ssize_t rows) noexcept nogil:
    if real is float:
        f32.winograd_rows_output(n, m, plane, y, y_row, rows)
    else:
        f64.winograd_rows_output(n, m, plane, y, y_row, rows)


cdef inline void winograd_rows_weights(Py_ssize_t n, const real* g, Py_ssize_t g_row, real* u,
                                       Py_ssize_t plane) noexcept nogil:
    if real is float:
        f32.winograd_rows_weights(n, g, g_row, u, plane)
    else:
        f64.winograd_rows_weights(n, g, g_row, u, plane)
