/* The contract of the micro-kernels: arithmetic on elements, in registers, on one thread.
 *
 * Every kernel stands in one table per element type. The tables are compiled once per instruction
 * set (baseline.c, avx2.c, avx512.c include the same kernels.h) and one pair of them is chosen when
 * cnn_core is imported. Names of axes: m rows, n columns, k terms of a sum; strides count elements.
 *
 * What a kernel computes for an element never depends on where the element stands (first or last
 * of a block, first or last row): the same arithmetic is done in every lane. Loops may therefore
 * be cut anywhere without changing a bit of the result.
 */
#ifndef CNN_CORE_SIMD_H
#define CNN_CORE_SIMD_H

#include <stddef.h>
#include <stdint.h>

enum activation {
    ACTIVATION_NONE = 0,
    ACTIVATION_SIGMOID = 1,
    ACTIVATION_TANH = 2,
    ACTIVATION_RELU = 3,
    ACTIVATION_LEAKY_RELU = 4
};

/* Brings a line near, to the second level of the cache: the first is needed for what is computed. It
 * need not be there. */
static inline void simd_fetch(const void *at) { __builtin_prefetch(at, 0, 2); }

#define SIMD_TABLE(REAL)                                                                          \
    /* Elements in one vector register, in the smallest part of one that kernels take, and the    \
     * most columns that `product_taps` and rows that `product_nonzeros` take at once. */         \
    ptrdiff_t lanes, least_lanes, max_columns, nonzero_rows;                                      \
    /* Whole vectors of columns up to which `product_nonzeros` lists a row beside the row before. */\
    ptrdiff_t listed_vectors;                                                                     \
                                                                                                  \
    /* C[m, n] += sum over taps t of A_t[m, k] B_t[k, n]: a convolution's taps, the rows of an    \
     * image, or one tap for a plain product.                                                     \
     *                                                                                            \
     *          n <= max_columns          A_t(i, p) = a[a_at[t] + i * a_row + p * a_col]          \
     *        +-----------+               B_t(p, j) = b[b_at[t] + p * b_row + j]                  \
     *      k |    B_t    |               C(i, j)   = c[i * c_row + j]                            \
     *        +-----------+               A may have any strides; columns of B and C are adjacent.\
     *    k   +-----------+               Each row of B is READ up to the next multiple of        \
     *  +---+ |           |  m            `lanes` columns (the surplus may hold anything);        \
     *  |A_t| |     C     |               C is read and written in its n columns only.            \
     *  +---+ +-----------+               Terms are added in the order of t, p, from C's value on.\
     *                                                                                            \
     * Where start[n] is not NULL, every row of C begins with it, and C is not read.              \
     * ahead[m], where it is not NULL: rows that will be wanted soon; with each tap the line at   \
     * ahead[i] + a_at[t] is brought nearer. They are not read, and need not be there. */         \
    void (*product_taps)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t taps, const REAL *a,    \
                         const ptrdiff_t *a_at, ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b,  \
                         const ptrdiff_t *b_at, ptrdiff_t b_row, const REAL *start, REAL *c,      \
                         ptrdiff_t c_row, const REAL *const *ahead);                              \
                                                                                                  \
    /* The same for planes q, of one tap each, without `ahead`: A, B and C of plane q lie q a_plane, q\
     * b_plane, q c_plane behind a, b, c, and starts[q] is its start; starts NULL: none has one. n is at\
     * least 1. */                                                                                \
    void (*product_planes)(ptrdiff_t planes, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,\
                           ptrdiff_t a_plane, ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b,    \
                           ptrdiff_t b_plane, ptrdiff_t b_row, const REAL *const *starts,         \
                           REAL *c, ptrdiff_t c_plane, ptrdiff_t c_row);                          \
                                                                                                  \
    /* m sparse rows times B_t, for all taps t: C_t(i, j) = start_t(i, j) + sum over ends[i] <= p < \
     * ends[i + 1], in order, of values[p] B_t(rows[p], j), j < n.                                \
     * B_t(r, j) = b[t * b_tap + r * b_row + j], C_t(i, j) = c[c_at[i] + t * c_tap + j], start    \
     * likewise; start may be c, which leaves empty rows as they are, or NULL: 0. */              \
    void (*product_sparse)(ptrdiff_t m, ptrdiff_t taps, ptrdiff_t n, const int32_t *ends,         \
                           const REAL *values, const int32_t *rows, const REAL *b,                \
                           ptrdiff_t b_row, ptrdiff_t b_tap, const REAL *start, REAL *c,          \
                           const int32_t *c_at, ptrdiff_t c_tap);                                 \
    /* C[m, n] = start + A[m, k] B[k, n] without the terms for which all of nonzero_rows rows of A,\
     * taken together, are 0; A(i, p) = a[i a_row + p a_col], where a_col is 1, or a_row, if also \
     * nonzero_rows is; start(i, j) = start[i start_row + j], or 0 where it is NULL. Returns how many\
     * rows of C it has made: where all groups together have more than `most` other terms for each, it\
     * stops before one of them, and leaves the rows of C from there on. `room` is written to: where\
     * a_col is 1, m + 1 + k + lanes numbers of 4 bytes, and k more for each further group of rows, or\
     * 2 (k + lanes) where n > 0 takes up to listed_vectors, all of which b_columns holds; else a word\
     * for 64 terms, or some, of each row. b_columns >= n: as many of each row of B may be read (the\
     * surplus may hold anything). ahead[m], where it is not NULL, if a_col is 1: k elements at each\
     * are brought nearer meanwhile. They are not read, and need not be there. */                 \
    ptrdiff_t (*product_nonzeros)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,           \
                                  ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b,                \
                                  ptrdiff_t b_row, ptrdiff_t b_columns, const REAL *start,        \
                                  ptrdiff_t start_row, REAL *c, ptrdiff_t c_row, ptrdiff_t most,  \
                                  uint64_t *room, const REAL *const *ahead);                      \
    /* at[] = the j < n with an element that is not 0 in one of the m <= nonzero_rows rows of a, in\
     * order; returns how many. Room for n + lanes of them may be written to. */                  \
    ptrdiff_t (*pick_any)(ptrdiff_t m, ptrdiff_t n, const REAL *a, ptrdiff_t a_row, int32_t *at); \
                                                                                                  \
    /* y[i] = sum over j of a[rows[i], j] x[j], for m rows of n elements, all in turn where rows is \
     * NULL. */                                                                                   \
    void (*dots)(ptrdiff_t m, ptrdiff_t n, const REAL *a, ptrdiff_t a_row, const int32_t *rows,   \
                 const REAL *x, REAL *y);                                                         \
                                                                                                  \
    /* y = f(x); x may be y. */                                                                   \
    void (*activate)(int activation, REAL slope, ptrdiff_t n, const REAL *x, REAL *y);            \
    /* dx = dout f'(x), from y = f(x); dx may be dout. */                                         \
    void (*activate_backward)(int activation, REAL slope, ptrdiff_t n, const REAL *y,             \
                              const REAL *dout, REAL *dx);                                        \
                                                                                                  \
    /* One row: y = exp(x - max x) / sum exp(x - max x); x may be y. */                           \
    void (*softmax)(ptrdiff_t n, const REAL *x, REAL *y);                                         \
    /* One row: dx = y (dout - sum dout y); dx may be dout. */                                    \
    void (*softmax_backward)(ptrdiff_t n, const REAL *y, const REAL *dout, REAL *dx);             \
                                                                                                  \
    /* One row, target class `label`, or the weights t[n] of all classes where t is not NULL:     \
     * returns -sum t log softmax(x); dx = scale (softmax(x) sum t - t); dx may be NULL. */       \
    double (*softmax_cross_entropy)(ptrdiff_t n, const REAL *x, const REAL *t, ptrdiff_t label,   \
                                    REAL scale, REAL *dx);                                        \
    /* The same for one row per lane, x[n, lanes], whose targets are labels: losses[lanes], correct \
     * where the first largest score is the label's, no score NaN, and x = dx where `gradient`. */\
    void (*cross_entropy_lanes)(ptrdiff_t n, const int64_t *labels, const REAL *scales,           \
                                int gradient, REAL *x, double *losses, int64_t *correct);         \
    /* Returns sum max(x, 0) - x t + log(1 + exp(-|x|)); dx = scale (sigmoid(x) - t) or NULL. */  \
    double (*binary_cross_entropy)(ptrdiff_t n, const REAL *x, const REAL *t, REAL scale,         \
                                   REAL *dx);                                                     \
    /* Returns sum (y - t)^2; dy = scale (y - t), or NULL. */                                     \
    double (*squared_error)(ptrdiff_t n, const REAL *y, const REAL *t, REAL scale, REAL *dy);     \
                                                                                                  \
    /* The column of the largest of x[n], the first of equals; a NaN counts as largest. */        \
    ptrdiff_t (*argmax)(ptrdiff_t n, const REAL *x);                                              \
    /* y[j] += sum over i < m of x[i * x_row + j], j < n. */                                      \
    void (*sum_rows)(ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *y);          \
    /* y += x */                                                                                  \
    void (*add)(ptrdiff_t n, const REAL *x, REAL *y);                                             \
    /* y[j * y_row + i] = x[i * x_row + j], i < m, j < n. */                                      \
    void (*transpose)(ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *y,          \
                      ptrdiff_t y_row);                                                           \
    /* y = scale x, for each type a data set may have. */                                         \
    void (*scale_u8)(ptrdiff_t n, const uint8_t *x, REAL scale, REAL *y);                         \
    void (*scale_f32)(ptrdiff_t n, const float *x, REAL scale, REAL *y);                          \
    void (*scale_f64)(ptrdiff_t n, const double *x, REAL scale, REAL *y);                         \
    /* g = grad + l2 p; v = momentum v + g; p -= decay p + lr (nesterov ? g + momentum v : v);    \
     * v may be NULL where momentum is 0. */                                                      \
    void (*sgd)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *v, REAL lr, REAL momentum,          \
                int nesterov, REAL l2, REAL decay);                                               \
    /* w[p n + j] -= lr (sum over r < m of x[r x_row + p] dout[r n + j] + weight_decay w[p n + j]), \
     * p < k, j < n. */                                                                           \
    void (*sgd_product)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const REAL *x, ptrdiff_t x_row,    \
                        const REAL *dout, REAL *w, REAL lr, REAL weight_decay);                   \
                                                                                                  \
    /* Many rows at once, one row per column of x[n, m]: losses[m] (for n classes) of the scores  \
     * x with the labels or, where t is not NULL, the weights t[n, m]; scratch[2 m]. */           \
    void (*cross_entropy_columns)(ptrdiff_t n, ptrdiff_t m, const REAL *x, const REAL *t,         \
                                  const int64_t *labels, REAL *losses, REAL *scratch);            \
    /* y = x + a d */                                                                             \
    void (*add_scaled)(ptrdiff_t n, const REAL *x, REAL a, const REAL *d, REAL *y);               \
                                                                                                  \
    /* For each window w: best[w n + j] = the largest of x[w step + at[t] + j] over the taps t, or\
     * `least` if that is larger; which[w n + j] (or NULL) = the tap's numbers[t], in 1 or 4      \
     * bytes; the first of equals, the first NaN of all. */                                       \
    void (*max_taps)(ptrdiff_t windows, ptrdiff_t step, ptrdiff_t n, ptrdiff_t taps,              \
                     const REAL *x, const ptrdiff_t *at, const int32_t *numbers, REAL least,      \
                     REAL *best, void *which, int bytes);                                         \
    /* x[w step + at[t] + j] = g[w n + j] for the tap with numbers[t] == which[w n + j], else 0;  \
     * added to what stands there where `add`. */                                                 \
    void (*scatter_taps)(int add, ptrdiff_t windows, ptrdiff_t step, ptrdiff_t n, ptrdiff_t taps, \
                         const ptrdiff_t *at, const int32_t *numbers, const void *which,          \
                         int bytes, const REAL *g, REAL *x);                                      \
    /* values[] = g[j], at[] = j of the elements with g[j] != 0, and numbers[j] == number where   \
     * numbers is not NULL, in order; returns how many. The room for n + lanes of both may be     \
     * written to; values may be NULL. */                                                         \
    ptrdiff_t (*pick)(ptrdiff_t n, int32_t number, const uint8_t *numbers, const REAL *g,         \
                      REAL *values, int32_t *at);                                                 \
    /* Bit j says whether x[j] is not 0, j < n <= 64. */                                          \
    uint64_t (*nonzero_bits)(ptrdiff_t n, const REAL *x);                                         \
    /* The same for all numbers, which are below 16, with at[] = places[j] + table[numbers[j]], of\
     * the elements with places[j] >= 0. */                                                       \
    ptrdiff_t (*pick_all)(ptrdiff_t n, const int32_t table[16], const int32_t *numbers,           \
                          const int32_t *places, const REAL *g, REAL *values, int32_t *at);       \
    /* For r < rows, i < count, 2 <= taps <= 8, s < taps, j < n:                                  \
     * sums[r][(i + taps - 1 - s) step + j] += x[i] w[r w_row + s w_tap + j], in the order of i.  \
     * count is rounded up to taps. step is n rounded up to least_lanes, w_tap to lanes; what     \
     * lies behind n is read and written to. */                                                   \
    void (*spread)(ptrdiff_t count, const REAL *x, ptrdiff_t taps, ptrdiff_t rows, ptrdiff_t n,   \
                   const REAL *w, ptrdiff_t w_row, ptrdiff_t w_tap, REAL *const *sums,            \
                   ptrdiff_t step);                                                               \
    /* For k < count, i < sizes[k], r < kh, 2 <= taps <= 8, s < taps, j < n:                      \
     * sums[(r taps + s) n + j] += x[x_at[k] + r x_row + i x_step + s] g[g_at[k] + i g_step + j], \
     * in the order of k and i. */                                                                \
    void (*gradient_spans)(ptrdiff_t count, const ptrdiff_t *sizes, const ptrdiff_t *x_at,        \
                           const ptrdiff_t *g_at, ptrdiff_t n, const REAL *x, ptrdiff_t x_row,    \
                           ptrdiff_t x_step, const REAL *g, ptrdiff_t g_step, ptrdiff_t kh,       \
                           ptrdiff_t taps, REAL *sums);                                           \
    /* even[r y_row + j] = x[r x_row + 2 j], odd[r y_row + j] = x[r x_row + 2 j + 1] of rows of n\
     * elements; behind an odd n is a 0. seen[2 r], seen[2 r + 1] = the first element of row r that\
     * is not 0 and the one behind the last, counted from `left` on; 0 and 0 where there is none. */\
    void (*split)(ptrdiff_t rows, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *even,        \
                  REAL *odd, ptrdiff_t y_row, ptrdiff_t left, int32_t *seen);                     \
    /* Rows of windows of 2 x 2 pixels, 2 apart, of a convolution of one channel, for n <= least_lanes\
     * filters: y[i y_row + j n + f] = the largest of the sums of window j of row i,              \
     * which[(i windows + j) n + f] (or NULL) = its number, as max_taps has them; where `relu`, y \
     * passes through it. The kh + 1 rows of x that a row of windows sees lie x_row apart, split, the\
     * odd columns `odd` behind the even ones, the first 2 x_row behind that of the windows before. \
     * Columns of row r outside of seen[2 r] .. seen[2 r + 1] hold zeros, windows that see nothing\
     * else are b alone. Weight (r, s) of filter f is w[(r kw + s) lanes + f], kh <= 31. Each sum \
     * begins with b[f], or 0 where b is NULL; terms are added in the order of r, s. Of even and odd\
     * columns whole vectors are read. */                                                         \
    void (*max_windows)(ptrdiff_t n, ptrdiff_t rows, ptrdiff_t windows, ptrdiff_t kh, ptrdiff_t kw,\
                        const REAL *x, ptrdiff_t x_row, ptrdiff_t odd, const int32_t *seen,       \
                        const REAL *w, const REAL *b, int relu, REAL *y, ptrdiff_t y_row,         \
                        uint8_t *which);                                                          \
    /* y[2 j] = x[j], y[2 j + 1] = below[j], j < n. */                                            \
    void (*interleave)(ptrdiff_t n, const REAL *x, const REAL *below, REAL *y);                   \
    /* The gradient of the kernel from those of the maxima of such windows, for n filters: sums[(r kw\
     * + s) step + f] += g[w n + f] x(p + r, q + s), 2 p + q = which[w n + f], r < kh, s < kw, for the\
     * windows w = windows[i], i < count, in order. Of the pixels that a window sees x(y, x) and  \
     * x(y + 1, x) stand at pairs[at[i] + y pair_row + 2 x] and behind. kw is 3 or 5, step whole  \
     * vectors, what lies behind n is written to. Not where window_sums is 0. */                  \
    ptrdiff_t window_sums;                                                                        \
    void (*window_gradients)(ptrdiff_t count, const int32_t *windows, const int32_t *at,          \
                             ptrdiff_t n, const REAL *g, const uint8_t *which, const REAL *pairs, \
                             ptrdiff_t pair_row, ptrdiff_t kh, ptrdiff_t kw, REAL *sums,          \
                             ptrdiff_t step);                                                     \
    /* y = x to the last bit, while n elements of `ahead` come nearer. */                         \
    void (*copy_fetching)(ptrdiff_t n, const REAL *x, const REAL *ahead, REAL *y);                \
    /* y[i y_row + j] = x[i x_row + j], i < m, j < n <= y_row. Of y[m y_row] what lies behind a row \
     * in its last vector is 0, or the next row. */                                               \
    void (*copy_rows)(ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *y,          \
                      ptrdiff_t y_row);                                                           \
    /* y[y_at[i] y_row + j] = x[x_at[i] x_row + j], or += where `add`, j < n, for i = 0, 1 .. m - 1. */ \
    void (*move_rows)(int add, ptrdiff_t m, ptrdiff_t n, const REAL *x, const int32_t *x_at,      \
                      ptrdiff_t x_row, REAL *y, const int32_t *y_at, ptrdiff_t y_row,             \
                      int fetches);                                                               \
    /* row[p row_step + j] += sum over s < taps of products[q x_row + s n + j], j < n, for the    \
     * window q < windows with q step + s = p, if there is one; p < pixels. */                    \
    void (*fold_row)(ptrdiff_t pixels, ptrdiff_t windows, ptrdiff_t taps, ptrdiff_t n,            \
                     ptrdiff_t step, const REAL *products, ptrdiff_t x_row, REAL *row,            \
                     ptrdiff_t row_step);                                                         \
    /* Winograd's F(2 x 2, 3 x 3), see winograd.h. Element (p, q) of tile t and channel j < n stands \
     * in v, m and u at (4 p + q) plane + t n + j; pixels and channels of x and y are adjacent.   \
     * v = B^T d B of the 4 x 4 pixels from x[2 t n] on, in rows x_row apart; of them `rows` (3 or 4) \
     * are there, and `columns` (2 tiles + 1 or + 2) of all tiles; the others count as 0. */      \
    void (*winograd_input)(ptrdiff_t tiles, ptrdiff_t n, const REAL *x, ptrdiff_t x_row,          \
                           ptrdiff_t rows, ptrdiff_t columns, REAL *v, ptrdiff_t plane);          \
    /* y = A^T m A + b, 2 x 2 pixels of which `rows` (1 or 2) and, of all tiles, `columns` are    \
     * written; b may be NULL. */                                                                 \
    void (*winograd_output)(ptrdiff_t tiles, ptrdiff_t n, const REAL *m, ptrdiff_t plane,         \
                            const REAL *b, REAL *y, ptrdiff_t y_row, ptrdiff_t rows,              \
                            ptrdiff_t columns);                                                   \
    /* u = G g G^T, with weight (r, s) of filter j at g[(3 r + s) g_row + j]. */                  \
    void (*winograd_weights)(ptrdiff_t n, const REAL *g, ptrdiff_t g_row, REAL *u,                \
                             ptrdiff_t plane);                                                    \
    /* h = A dy A^T of the 2 x 2 pixels of dy, of which `rows` and `columns` are there. */        \
    void (*winograd_gradient)(ptrdiff_t tiles, ptrdiff_t n, const REAL *dy, ptrdiff_t dy_row,     \
                              ptrdiff_t rows, ptrdiff_t columns, REAL *h, ptrdiff_t plane);       \
    /* dg = G^T m G, weight (r, s) of element j at dg[(3 r + s) dg_row + j]. */                   \
    void (*winograd_weights_gradient)(ptrdiff_t n, const REAL *m, ptrdiff_t plane, REAL *dg,      \
                                      ptrdiff_t dg_row);                                          \
    /* Winograd's F(4, 5) over rows, see winograd_rows.h; plane p of element j at p plane + j.    \
     * v = B^T d of 8 rows of x, of which the first `rows` are there; the others count as 0. Of up\
     * to 6 rows, the values of F(2, 5), without planes 5 and 6. */                               \
    void (*winograd_rows_input)(ptrdiff_t n, const REAL *x, ptrdiff_t x_row, ptrdiff_t rows,      \
                                REAL *v, ptrdiff_t plane);                                        \
    /* y = A^T m, 4 rows of which the first `rows` are written; up to 2 are those of F(2, 5). */  \
    void (*winograd_rows_output)(ptrdiff_t n, const REAL *m, ptrdiff_t plane, REAL *y,            \
                                 ptrdiff_t y_row, ptrdiff_t rows);                                \
    /* u = G g, with weight r < 5 at g[r g_row + j]. */                                           \
    void (*winograd_rows_weights)(ptrdiff_t n, const REAL *g, ptrdiff_t g_row, REAL *u,           \
                                  ptrdiff_t plane);                                               \
    /* y = scale x where a random number from (key, stream, element) >= threshold, else 0; bit    \
     * e % 64 of mask[e / 64], where mask is not NULL, tells it of element e. */                  \
    void (*dropout)(ptrdiff_t n, const uint32_t key[4], const uint32_t stream[3],                 \
                    uint32_t threshold, REAL scale, const REAL *x, REAL *y, uint64_t *mask);      \
    /* The same by such a mask. */                                                                \
    void (*keep)(ptrdiff_t n, const uint64_t *mask, REAL scale, const REAL *x, REAL *y);          \
    /* squares += (x - mean)^2 */                                                                 \
    void (*add_squares)(ptrdiff_t n, const REAL *x, const REAL *mean, REAL *squares);             \
    /* products += x (y - mean) */                                                                \
    void (*add_products)(ptrdiff_t n, const REAL *x, const REAL *y, const REAL *mean,             \
                         REAL *products);                                                         \
    /* y = a x + b (z - c) + d; x and a may be NULL, y may be x or z. */                          \
    void (*combine)(ptrdiff_t n, const REAL *x, const REAL *a, const REAL *z, const REAL *b,      \
                    const REAL *c, const REAL *d, REAL *y);                                       \
    /* g = grad + l2 p; m += (1 - beta1) (g - m); v += (1 - beta2) (g^2 - v);                     \
     * p -= decay p + rate m / (root sqrt(v) + epsilon). */                                       \
    void (*adam)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *m, REAL *v, REAL rate, REAL root,  \
                 REAL beta1, REAL beta2, REAL epsilon, REAL l2, REAL decay);                      \
    /* g = grad + l2 p; sum += g^2; p -= lr g / (sqrt(sum) + epsilon). */                         \
    void (*adagrad)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *sum, REAL lr, REAL epsilon,     \
                    REAL l2);                                                                     \
    /* g = grad + l2 p; square = keep square + (1 - keep) g^2;                                    \
     * step = g / (sqrt(square) + epsilon); p -= lr step, or, where v is not NULL,                \
     * v = momentum v + step; p -= lr v. */                                                       \
    void (*rmsprop)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *square, REAL *v, REAL lr,       \
                    REAL keep, REAL momentum, REAL epsilon, REAL l2);                             \
    /* x = min(max(x, -limit), limit); a NaN stays. */                                            \
    void (*clamp)(ptrdiff_t n, REAL limit, REAL *x);                                              \
    /* Returns sum x^2, squared and added in float64. */                                          \
    double (*sum_squares)(ptrdiff_t n, const REAL *x);

typedef struct simd_f32 { SIMD_TABLE(float) } simd_f32;
typedef struct simd_f64 { SIMD_TABLE(double) } simd_f64;

typedef struct simd_isa {
    const char *name;
    const simd_f32 *f32;
    const simd_f64 *f64;
} simd_isa;

/* The instruction sets compiled in that this processor has, best first, ended by a NULL name. */
const simd_isa *simd_supported(void);

#endif
