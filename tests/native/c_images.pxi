# Entries of the table that work on images; conftest.py puts them behind c_level.pyx.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t


def fold_row(bint single, Py_ssize_t pixels, Py_ssize_t windows, Py_ssize_t taps, Py_ssize_t n,
             Py_ssize_t step, address products, Py_ssize_t x_row, address row,
             Py_ssize_t row_step):
    if single:
        f32.fold_row(pixels, windows, taps, n, step, <float*>products, x_row, <float*>row,
                     row_step)
    else:
        f64.fold_row(pixels, windows, taps, n, step, <double*>products, x_row, <double*>row,
                     row_step)


def max_taps(bint single, Py_ssize_t windows, Py_ssize_t step, Py_ssize_t n, Py_ssize_t taps,
             address x, address at, address numbers, double least, address best, address which,
             int bytes):
    if single:
        f32.max_taps(windows, step, n, taps, <float*>x, <Py_ssize_t*>at, <int32_t*>numbers,
                     <float>least, <float*>best, <void*>which, bytes)
    else:
        f64.max_taps(windows, step, n, taps, <double*>x, <Py_ssize_t*>at, <int32_t*>numbers,
                     least, <double*>best, <void*>which, bytes)


def scatter_taps(bint single, int add, Py_ssize_t windows, Py_ssize_t step, Py_ssize_t n,
                 Py_ssize_t taps, address at, address numbers, address which, int bytes, address g,
                 address x):
    if single:
        f32.scatter_taps(add, windows, step, n, taps, <Py_ssize_t*>at, <int32_t*>numbers,
                         <void*>which, bytes, <float*>g, <float*>x)
    else:
        f64.scatter_taps(add, windows, step, n, taps, <Py_ssize_t*>at, <int32_t*>numbers,
                         <void*>which, bytes, <double*>g, <double*>x)


def pick(bint single, Py_ssize_t n, int32_t number, address numbers, address g, address values,
         address at):
    if single:
        return f32.pick(n, number, <uint8_t*>numbers, <float*>g, <float*>values, <int32_t*>at)
    return f64.pick(n, number, <uint8_t*>numbers, <double*>g, <double*>values, <int32_t*>at)


def pick_all(bint single, Py_ssize_t n, address table, address numbers, address places, address g,
             address values, address at):
    if single:
        return f32.pick_all(n, <int32_t*>table, <int32_t*>numbers, <int32_t*>places, <float*>g,
                            <float*>values, <int32_t*>at)
    return f64.pick_all(n, <int32_t*>table, <int32_t*>numbers, <int32_t*>places, <double*>g,
                        <double*>values, <int32_t*>at)


def spread(bint single, Py_ssize_t count, address x, Py_ssize_t taps, Py_ssize_t rows,
           Py_ssize_t n, address w, Py_ssize_t w_row, Py_ssize_t w_tap, address sums,
           Py_ssize_t step):
    if single:
        f32.spread(count, <float*>x, taps, rows, n, <float*>w, w_row, w_tap, <float**>sums, step)
    else:
        f64.spread(count, <double*>x, taps, rows, n, <double*>w, w_row, w_tap, <double**>sums, step)


def gradient_spans(bint single, Py_ssize_t count, address sizes, address x_at, address g_at,
                   Py_ssize_t n, address x, Py_ssize_t x_row, Py_ssize_t x_step, address g,
                   Py_ssize_t g_step, Py_ssize_t kh, Py_ssize_t taps, address sums):
    if single:
        f32.gradient_spans(count, <Py_ssize_t*>sizes, <Py_ssize_t*>x_at, <Py_ssize_t*>g_at, n,
                           <float*>x, x_row, x_step, <float*>g, g_step, kh, taps, <float*>sums)
    else:
        f64.gradient_spans(count, <Py_ssize_t*>sizes, <Py_ssize_t*>x_at, <Py_ssize_t*>g_at, n,
                           <double*>x, x_row, x_step, <double*>g, g_step, kh, taps, <double*>sums)


def copy_fetching(bint single, Py_ssize_t n, address x, address ahead, address y):
    if single:
        f32.copy_fetching(n, <float*>x, <float*>ahead, <float*>y)
    else:
        f64.copy_fetching(n, <double*>x, <double*>ahead, <double*>y)


def copy_rows(bint single, Py_ssize_t m, Py_ssize_t n, address x, Py_ssize_t x_row, address y,
              Py_ssize_t y_row):
    if single:
        f32.copy_rows(m, n, <float*>x, x_row, <float*>y, y_row)
    else:
        f64.copy_rows(m, n, <double*>x, x_row, <double*>y, y_row)


def move_rows(bint single, bint add, Py_ssize_t m, Py_ssize_t n, address x, address x_at,
              Py_ssize_t x_row, address y, address y_at, Py_ssize_t y_row, bint fetches):
    if single:
        f32.move_rows(add, m, n, <float*>x, <int32_t*>x_at, x_row, <float*>y, <int32_t*>y_at,
                      y_row, fetches)
    else:
        f64.move_rows(add, m, n, <double*>x, <int32_t*>x_at, x_row, <double*>y, <int32_t*>y_at,
                      y_row, fetches)


def least_lanes(bint single):
    return f32.least_lanes if single else f64.least_lanes


def dropout(bint single, Py_ssize_t n, address key, address stream, uint32_t threshold,
            double scale, address x, address y, address mask):
    if single:
        f32.dropout(n, <uint32_t*>key, <uint32_t*>stream, threshold, <float>scale, <float*>x,
                    <float*>y, <uint64_t*>mask)
    else:
        f64.dropout(n, <uint32_t*>key, <uint32_t*>stream, threshold, scale, <double*>x,
                    <double*>y, <uint64_t*>mask)


def keep(bint single, Py_ssize_t n, address mask, double scale, address x, address y):
    if single:
        f32.keep(n, <uint64_t*>mask, <float>scale, <float*>x, <float*>y)
    else:
        f64.keep(n, <uint64_t*>mask, scale, <double*>x, <double*>y)


def add_squares(bint single, Py_ssize_t n, address x, address mean, address squares):
    if single:
        f32.add_squares(n, <float*>x, <float*>mean, <float*>squares)
    else:
        f64.add_squares(n, <double*>x, <double*>mean, <double*>squares)


def add_products(bint single, Py_ssize_t n, address x, address y, address mean, address products):
    if single:
        f32.add_products(n, <float*>x, <float*>y, <float*>mean, <float*>products)
    else:
        f64.add_products(n, <double*>x, <double*>y, <double*>mean, <double*>products)


def combine(bint single, Py_ssize_t n, address x, address a, address z, address b, address c,
            address d, address y):
    if single:
        f32.combine(n, <float*>x, <float*>a, <float*>z, <float*>b, <float*>c, <float*>d, <float*>y)
    else:
        f64.combine(n, <double*>x, <double*>a, <double*>z, <double*>b, <double*>c, <double*>d,
                    <double*>y)


def winograd_input(bint single, Py_ssize_t tiles, Py_ssize_t n, address x, Py_ssize_t x_row,
                   Py_ssize_t rows, Py_ssize_t columns, address v, Py_ssize_t plane):
    if single:
        f32.winograd_input(tiles, n, <float*>x, x_row, rows, columns, <float*>v, plane)
    else:
        f64.winograd_input(tiles, n, <double*>x, x_row, rows, columns, <double*>v, plane)


def winograd_output(bint single, Py_ssize_t tiles, Py_ssize_t n, address m, Py_ssize_t plane,
                    address b, address y, Py_ssize_t y_row, Py_ssize_t rows, Py_ssize_t columns):
    if single:
        f32.winograd_output(tiles, n, <float*>m, plane, <float*>b, <float*>y, y_row, rows, columns)
    else:
        f64.winograd_output(tiles, n, <double*>m, plane, <double*>b, <double*>y, y_row, rows,
                            columns)


def winograd_weights(bint single, Py_ssize_t n, address g, Py_ssize_t g_row, address u,
                     Py_ssize_t plane):
    if single:
        f32.winograd_weights(n, <float*>g, g_row, <float*>u, plane)
    else:
        f64.winograd_weights(n, <double*>g, g_row, <double*>u, plane)


def winograd_gradient(bint single, Py_ssize_t tiles, Py_ssize_t n, address dy, Py_ssize_t dy_row,
                      Py_ssize_t rows, Py_ssize_t columns, address h, Py_ssize_t plane):
    if single:
        f32.winograd_gradient(tiles, n, <float*>dy, dy_row, rows, columns, <float*>h, plane)
    else:
        f64.winograd_gradient(tiles, n, <double*>dy, dy_row, rows, columns, <double*>h, plane)


def winograd_weights_gradient(bint single, Py_ssize_t n, address m, Py_ssize_t plane, address dg,
                              Py_ssize_t dg_row):
    if single:
        f32.winograd_weights_gradient(n, <float*>m, plane, <float*>dg, dg_row)
    else:
        f64.winograd_weights_gradient(n, <double*>m, plane, <double*>dg, dg_row)


def winograd_rows_input(bint single, Py_ssize_t n, address x, Py_ssize_t x_row, Py_ssize_t rows,
                        address v, Py_ssize_t plane):
    if single:
        f32.winograd_rows_input(n, <float*>x, x_row, rows, <float*>v, plane)
    else:
        f64.winograd_rows_input(n, <double*>x, x_row, rows, <double*>v, plane)


def winograd_rows_output(bint single, Py_ssize_t n, address m, Py_ssize_t plane, address y,
                         Py_ssize_t y_row, Py_ssize_t rows):
    if single:
        f32.winograd_rows_output(n, <float*>m, plane, <float*>y, y_row, rows)
    else:
        f64.winograd_rows_output(n, <double*>m, plane, <double*>y, y_row, rows)


def winograd_rows_weights(bint single, Py_ssize_t n, address g, Py_ssize_t g_row, address u,
                          Py_ssize_t plane):
    if single:
        f32.winograd_rows_weights(n, <float*>g, g_row, <float*>u, plane)
    else:
        f64.winograd_rows_weights(n, <double*>g, g_row, <double*>u, plane)


def split(bint single, Py_ssize_t rows, Py_ssize_t n, address x, Py_ssize_t x_row, address even,
          address odd, Py_ssize_t y_row, Py_ssize_t left, address seen):
    if single:
        f32.split(rows, n, <float*>x, x_row, <float*>even, <float*>odd, y_row, left,
                  <int32_t*>seen)
    else:
        f64.split(rows, n, <double*>x, x_row, <double*>even, <double*>odd, y_row, left,
                  <int32_t*>seen)


def max_windows(bint single, Py_ssize_t n, Py_ssize_t rows, Py_ssize_t windows, Py_ssize_t kh,
                Py_ssize_t kw, address x, Py_ssize_t x_row, Py_ssize_t odd, address seen, address w,
                address b, int relu, address y, Py_ssize_t y_row, address which):
    if single:
        f32.max_windows(n, rows, windows, kh, kw, <float*>x, x_row, odd, <int32_t*>seen,
                        <float*>w, <float*>b, relu, <float*>y, y_row, <uint8_t*>which)
    else:
        f64.max_windows(n, rows, windows, kh, kw, <double*>x, x_row, odd, <int32_t*>seen,
                        <double*>w, <double*>b, relu, <double*>y, y_row, <uint8_t*>which)


def interleave(bint single, Py_ssize_t n, address x, address below, address y):
    if single:
        f32.interleave(n, <float*>x, <float*>below, <float*>y)
    else:
        f64.interleave(n, <double*>x, <double*>below, <double*>y)


def window_sums(bint single):
    return f32.window_sums if single else f64.window_sums


def window_gradients(bint single, Py_ssize_t count, address windows, address at, Py_ssize_t n,
                     address g, address which, address pairs, Py_ssize_t pair_row, Py_ssize_t kh,
                     Py_ssize_t kw, address sums, Py_ssize_t step):
    if single:
        f32.window_gradients(count, <int32_t*>windows, <int32_t*>at, n, <float*>g,
                             <uint8_t*>which, <float*>pairs, pair_row, kh, kw, <float*>sums, step)
    else:
        f64.window_gradients(count, <int32_t*>windows, <int32_t*>at, n, <double*>g,
                             <uint8_t*>which, <double*>pairs, pair_row, kh, kw, <double*>sums,
                             step)
