/* Activations, losses and sums on adjacent elements. Included once per type. */

/* Steps through n elements by vectors: i is the first of the next one, left how many remain, or LANES if
 * these are more. Of what the body does the compiler forms a loop for whole vectors, which needs not ask
 * whether they are, and a part for the rest. */
#define FOR_VECTORS(n)                                                                            \
    UNROLL for (ptrdiff_t i = 0, end_of_i = (n), left, is_rest = 0; is_rest < 2; is_rest++)       \
        for (left = is_rest ? end_of_i - i : LANES; is_rest ? left > 0 : i + LANES <= end_of_i;   \
             i += LANES, left = is_rest ? 0 : LANES)

static INLINE vec NAME(activation)(int activation, vec slope, vec x) {
    switch (activation) {
    case ACTIVATION_SIGMOID: return NAME(sigmoid)(x);
    case ACTIVATION_TANH: return NAME(tanh)(x);
    case ACTIVATION_RELU: return NAME(bound_below)(x, NAME(splat)(0));
    case ACTIVATION_LEAKY_RELU: return NAME(select)(x < 0, slope * x, x);
    default: return x;
    }
}

/* f'(x) dout from y = f(x). */
static INLINE vec NAME(activation_backward)(int activation, vec slope, vec y, vec dout) {
    switch (activation) {
    case ACTIVATION_SIGMOID: return dout * (y * (1 - y));
    case ACTIVATION_TANH: return dout * (1 - y * y);
    case ACTIVATION_RELU: return NAME(select)(y <= 0, NAME(splat)(0), dout);
    case ACTIVATION_LEAKY_RELU: return NAME(select)(y <= 0, slope * dout, dout);
    default: return dout;
    }
}

static INLINE void NAME(activate_as)(int activation, REAL slope, ptrdiff_t n, const REAL *x,
                                     REAL *y) {
    vec s = NAME(splat)(slope);
    FOR_VECTORS(n) {
        vec v = NAME(load_n)(x + i, left, 0);
        NAME(store_n)(y + i, left, NAME(activation)(activation, s, v));
    }
}

static void NAME(activate)(int activation, REAL slope, ptrdiff_t n, const REAL *x, REAL *y) {
    switch (activation) {
    case ACTIVATION_SIGMOID: NAME(activate_as)(ACTIVATION_SIGMOID, slope, n, x, y); break;
    case ACTIVATION_TANH: NAME(activate_as)(ACTIVATION_TANH, slope, n, x, y); break;
    case ACTIVATION_RELU: NAME(activate_as)(ACTIVATION_RELU, slope, n, x, y); break;
    case ACTIVATION_LEAKY_RELU: NAME(activate_as)(ACTIVATION_LEAKY_RELU, slope, n, x, y); break;
    default: if (x != y) memcpy(y, x, (size_t)n * sizeof(REAL));
    }
}

static INLINE void NAME(activate_backward_as)(int activation, REAL slope, ptrdiff_t n,
                                              const REAL *y, const REAL *dout, REAL *dx) {
    vec s = NAME(splat)(slope);
    FOR_VECTORS(n) {
        vec v = NAME(load_n)(y + i, left, 0);
        vec d = NAME(load_n)(dout + i, left, 0);
        NAME(store_n)(dx + i, left, NAME(activation_backward)(activation, s, v, d));
    }
}

static void NAME(activate_backward)(int activation, REAL slope, ptrdiff_t n, const REAL *y,
                                    const REAL *dout, REAL *dx) {
    switch (activation) {
    case ACTIVATION_SIGMOID:
        NAME(activate_backward_as)(ACTIVATION_SIGMOID, slope, n, y, dout, dx); break;
    case ACTIVATION_TANH:
        NAME(activate_backward_as)(ACTIVATION_TANH, slope, n, y, dout, dx); break;
    case ACTIVATION_RELU:
        NAME(activate_backward_as)(ACTIVATION_RELU, slope, n, y, dout, dx); break;
    case ACTIVATION_LEAKY_RELU:
        NAME(activate_backward_as)(ACTIVATION_LEAKY_RELU, slope, n, y, dout, dx); break;
    default: if (dout != dx) memcpy(dx, dout, (size_t)n * sizeof(REAL));
    }
}

/* Keeps the larger; a NaN in x is not kept, but makes the sum of exponentials NaN later. */
static INLINE REAL NAME(largest)(ptrdiff_t n, const REAL *x) {
    vec most = NAME(splat)(-(REAL)INFINITY);
    FOR_VECTORS(n) {
        vec v = NAME(load_n)(x + i, left, -(REAL)INFINITY);
        most = NAME(select)(v > most, v, most);
    }
    return NAME(max_lanes)(most);
}

/* y = exp(x - shift); returns the sum. */
static INLINE REAL NAME(exp_sum)(ptrdiff_t n, const REAL *x, REAL shift, REAL *y) {
    vec total = NAME(splat)(0);
    FOR_VECTORS(n) {
        vec e = NAME(exp)(NAME(load_n)(x + i, left, -(REAL)INFINITY) - shift);
        total += e;
        if (y) NAME(store_n)(y + i, left, e);
    }
    return NAME(sum_lanes)(total);
}

static INLINE void NAME(scale_in_place)(ptrdiff_t n, REAL scale, REAL *y) {
    FOR_VECTORS(n) { NAME(store_n)(y + i, left, NAME(load_n)(y + i, left, 0) * scale); }
}

static void NAME(softmax)(ptrdiff_t n, const REAL *x, REAL *y) {
    REAL sum = NAME(exp_sum)(n, x, NAME(largest)(n, x), y);
    NAME(scale_in_place)(n, 1 / sum, y);
}

static void NAME(softmax_backward)(ptrdiff_t n, const REAL *y, const REAL *dout, REAL *dx) {
    vec dot = NAME(splat)(0);
    FOR_VECTORS(n) { dot += NAME(load_n)(dout + i, left, 0) * NAME(load_n)(y + i, left, 0); }
    REAL mean = NAME(sum_lanes)(dot);
    FOR_VECTORS(n) {
        vec d = NAME(load_n)(dout + i, left, 0) - mean;
        NAME(store_n)(dx + i, left, NAME(load_n)(y + i, left, 0) * d);
    }
}

static double NAME(softmax_cross_entropy)(ptrdiff_t n, const REAL *x, const REAL *t,
                                          ptrdiff_t label, REAL scale, REAL *dx) {
    REAL most = NAME(largest)(n, x);
    REAL sum = NAME(exp_sum)(n, x, most, dx);
    double log_sum = log((double)sum);
    if (!t) {
        if (dx) {
            NAME(scale_in_place)(n, scale / sum, dx);
            dx[label] -= scale;
        }
        return log_sum - ((double)x[label] - most);
    }
    double weight = 0, loss = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        weight += t[j];
        /* A class of weight 0 may have the score -inf, and then adds nothing; a NaN always adds. */
        if (t[j] != 0 || x[j] != x[j]) loss += t[j] * (log_sum - ((double)x[j] - most));
    }
    if (dx) {
        NAME(scale_in_place)(n, (REAL)(scale * weight) / sum, dx);
        for (ptrdiff_t j = 0; j < n; j++) dx[j] -= scale * t[j];
    }
    return loss;
}

/* One row per lane: x[n][LANES] becomes the gradient. */
static void NAME(cross_entropy_lanes)(ptrdiff_t n, const int64_t *labels, const REAL *scales,
                                      int gradient, REAL *x, double *losses, int64_t *correct) {
    vec most = NAME(load)(x), sum = NAME(splat)(0);
    ivec best = {0}, wrong = most != most;
    for (ptrdiff_t j = 1; j < n; j++) {
        const vec v = NAME(load)(x + j * LANES);
        const ivec more = v > most;
        most = NAME(select)(more, v, most);
        best = (more & (lane_int)j) | (~more & best);
        wrong |= v != v;
    }
    best |= wrong; /* -1, which is no label */
    for (ptrdiff_t i = 0; i < LANES; i++)
        losses[i] = (double)x[labels[i] * LANES + i] - most[i];
    for (ptrdiff_t j = 0; j < n; j++) {
        const vec e = NAME(exp)(NAME(load)(x + j * LANES) - most);
        sum += e;
        NAME(store)(x + j * LANES, e);
    }
    for (ptrdiff_t i = 0; i < LANES; i++) {
        losses[i] = log((double)sum[i]) - losses[i];
        correct[i] = best[i] == labels[i];
    }
    if (!gradient) return;
    const vec scale = NAME(load)(scales), factor = scale / sum;
    for (ptrdiff_t j = 0; j < n; j++)
        NAME(store)(x + j * LANES, NAME(load)(x + j * LANES) * factor);
    for (ptrdiff_t i = 0; i < LANES; i++) x[labels[i] * LANES + i] -= scales[i];
}

static double NAME(binary_cross_entropy)(ptrdiff_t n, const REAL *x, const REAL *t, REAL scale,
                                         REAL *dx) {
    double loss = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        double score = x[j];
        loss += (score > 0 ? score : 0) - score * t[j] + log1p(exp(-fabs(score)));
    }
    if (dx)
        FOR_VECTORS(n) {
            vec y = NAME(sigmoid)(NAME(load_n)(x + i, left, 0));
            NAME(store_n)(dx + i, left, (y - NAME(load_n)(t + i, left, 0)) * scale);
        }
    return loss;
}

static double NAME(squared_error)(ptrdiff_t n, const REAL *y, const REAL *t, REAL scale,
                                  REAL *dy) {
    double loss = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        double difference = (double)y[j] - t[j];
        loss += difference * difference;
    }
    if (dy)
        FOR_VECTORS(n) {
            vec d = NAME(load_n)(y + i, left, 0) - NAME(load_n)(t + i, left, 0);
            NAME(store_n)(dy + i, left, d * scale);
        }
    return loss;
}

static ptrdiff_t NAME(argmax)(ptrdiff_t n, const REAL *x) {
    ptrdiff_t best = 0;
    for (ptrdiff_t j = 1; j < n && x[best] == x[best]; j++)
        if (x[j] > x[best] || x[j] != x[j]) best = j;
    return best;
}

static void NAME(sum_rows)(ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *y) {
    FOR_VECTORS(n) {
        /* Four sums: one alone would wait for each of its additions. */
        vec sum[4] = {NAME(load_n)(y + i, left, 0)};
        const REAL *at = x + i;
        for (ptrdiff_t r = m; r > 0; r -= 4)
            UNROLL for (int s = 0; s < 4; s++) {
                if (s < r) sum[s] += NAME(load_n)(at, left, 0);
                at += x_row;
            }
        NAME(store_n)(y + i, left, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
}

static void NAME(add)(ptrdiff_t n, const REAL *x, REAL *y) {
    FOR_VECTORS(n) {
        NAME(store_n)(y + i, left, NAME(load_n)(y + i, left, 0) + NAME(load_n)(x + i, left, 0));
    }
}

static void NAME(add_scaled)(ptrdiff_t n, const REAL *x, REAL a, const REAL *d, REAL *y) {
    FOR_VECTORS(n) {
        vec v = NAME(load_n)(x + i, left, 0) + a * NAME(load_n)(d + i, left, 0);
        NAME(store_n)(y + i, left, v);
    }
}

#if VECTOR_BYTES >= 32 && REAL_IS_FLOAT
/* Four elements of one row and four of another in a register. */
static INLINE __m256 NAME(load_halves)(const REAL *low, const REAL *high) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}

/* The columns of 8 x 8 elements from their 4 x 4 blocks, turned within the halves of a register: r holds
 * rows 0 to 3 of the first blocks and 4 to 7 beside them, then the same of the second blocks. */
static INLINE void NAME(columns_8x8)(const __m256 r[8], __m256 columns[8]) {
    UNROLL for (int h = 0; h < 8; h += 4) {
        __m256 a = _mm256_unpacklo_ps(r[h], r[h + 1]), b = _mm256_unpacklo_ps(r[h + 2], r[h + 3]);
        __m256 c = _mm256_unpackhi_ps(r[h], r[h + 1]), d = _mm256_unpackhi_ps(r[h + 2], r[h + 3]);
        columns[h] = _mm256_shuffle_ps(a, b, 0x44);
        columns[h + 1] = _mm256_shuffle_ps(a, b, 0xEE);
        columns[h + 2] = _mm256_shuffle_ps(c, d, 0x44);
        columns[h + 3] = _mm256_shuffle_ps(c, d, 0xEE);
    }
}

/* 8 columns of 8 rows, from column `first` on. */
static INLINE void NAME(columns_of_rows)(const REAL *const rows[8], ptrdiff_t first,
                                         __m256 columns[8]) {
    __m256 r[8];
    UNROLL for (int i = 0; i < 8; i++)
        r[i] = NAME(load_halves)(rows[i % 4] + first + i / 4 * 4, rows[i % 4 + 4] + first + i / 4 * 4);
    NAME(columns_8x8)(r, columns);
}

static INLINE void NAME(transpose_8x8)(const REAL *x, ptrdiff_t x_row, REAL *y, ptrdiff_t y_row) {
    const REAL *rows[8];
    __m256 columns[8];
    UNROLL for (int i = 0; i < 8; i++) rows[i] = x + i * x_row;
    NAME(columns_of_rows)(rows, 0, columns);
    UNROLL for (int j = 0; j < 8; j++) _mm256_storeu_ps(y + j * y_row, columns[j]);
}

/* The first columns of m < 8 rows, side by side; returns how many. The last row stands for those that are
 * missing: what is too much is overwritten by the next column, but for the last ones. */
static INLINE ptrdiff_t NAME(transpose_few)(ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t x_row,
                                            REAL *y) {
    const REAL *rows[8];
    __m256 columns[8];
    ptrdiff_t done = 0;
    for (int i = 0; i < 8; i++) rows[i] = x + (i < m ? i : m - 1) * x_row;
    for (; (done + 7) * m + 8 <= n * m; done += 8) {
        NAME(columns_of_rows)(rows, done, columns);
        UNROLL for (int j = 0; j < 8; j++) _mm256_storeu_ps(y + (done + j) * m, columns[j]);
    }
    return done;
}
#define TRANSPOSE_BLOCK 8
#else
#define TRANSPOSE_BLOCK 1
#endif

static void NAME(transpose)(ptrdiff_t m, ptrdiff_t n, const REAL *x, ptrdiff_t x_row, REAL *y,
                            ptrdiff_t y_row) {
    ptrdiff_t m_whole = 0, n_whole = 0;
#if TRANSPOSE_BLOCK > 1
    if (m >= TRANSPOSE_BLOCK && n >= TRANSPOSE_BLOCK) {  /* the last blocks begin a little earlier */
        const ptrdiff_t m_last = m - TRANSPOSE_BLOCK, n_last = n - TRANSPOSE_BLOCK;
        for (ptrdiff_t at = 0; at < n; at += 2 * TRANSPOSE_BLOCK)  /* whole lines of x */
            for (ptrdiff_t i = 0; i < m; i += TRANSPOSE_BLOCK)
                for (ptrdiff_t j = at; j < at + 2 * TRANSPOSE_BLOCK && j < n; j += TRANSPOSE_BLOCK) {
                    const ptrdiff_t row = i < m_last ? i : m_last, column = j < n_last ? j : n_last;
                    NAME(transpose_8x8)(x + row * x_row + column, x_row, y + column * y_row + row,
                                        y_row);
                }
        return;
    }
    if (m > 0 && m < TRANSPOSE_BLOCK && y_row == m) {
        n_whole = NAME(transpose_few)(m, n, x, x_row, y);
        m_whole = m;
    }
#endif
    for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t i = j < n_whole ? m_whole : 0; i < m; i++)
            y[j * y_row + i] = x[i * x_row + j];
}

/* y[i] = sum over j of a[rows[i], j] x[j], a row per lane: each sum is made term by term, as that of a
 * product is, but A need not have been turned before. Some groups of lanes at once, whose additions do
 * not wait for each other. */
#define GROUPS 4
#if TRANSPOSE_BLOCK > 1
static INLINE void NAME(dots_of_groups)(ptrdiff_t groups, ptrdiff_t n, const REAL *a, ptrdiff_t a_row,
                                        const int32_t *rows, const REAL *x, REAL *y) {
    const REAL *row[8 * GROUPS];
    __m256 sum[GROUPS] = {{0}}, columns[8];
    ptrdiff_t j = 0;
    for (ptrdiff_t i = 0; i < 8 * groups; i++) row[i] = a + (rows ? rows[i] : i) * a_row;
    for (; j + 8 <= n; j += 8)
        UNROLL for (ptrdiff_t g = 0; g < groups; g++) {
            NAME(columns_of_rows)(row + 8 * g, j, columns);
            UNROLL for (int q = 0; q < 8; q++) sum[g] += _mm256_set1_ps(x[j + q]) * columns[q];
        }
    UNROLL for (ptrdiff_t g = 0; g < groups; g++) {
        if (j < n) NAME(columns_of_rows)(row + 8 * g, n - 8, columns);
        for (ptrdiff_t q = j; q < n; q++) sum[g] += _mm256_set1_ps(x[q]) * columns[q - n + 8];
        _mm256_storeu_ps(y + 8 * g, sum[g]);
    }
}
#endif

static void NAME(dots)(ptrdiff_t m, ptrdiff_t n, const REAL *a, ptrdiff_t a_row, const int32_t *rows,
                       const REAL *x, REAL *y) {
    ptrdiff_t i = 0, some;
#if TRANSPOSE_BLOCK > 1
    for (; m >= 8 && n >= 8 && i < m; i += some) {
        some = i + 8 * GROUPS <= m ? 8 * GROUPS : 8;
        const ptrdiff_t at = i + some <= m ? i : m - 8; /* the last rows begin a little earlier */
        const REAL *first = rows ? a : a + at * a_row;
        const int32_t *chosen = rows ? rows + at : NULL;
        if (some > 8) NAME(dots_of_groups)(GROUPS, n, first, a_row, chosen, x, y + at);
        else NAME(dots_of_groups)(1, n, first, a_row, chosen, x, y + at);
    }
#endif
    for (; i < m; i += some) {
        REAL sum[8] = {0};
        some = m - i < 8 ? m - i : 8;
        for (ptrdiff_t j = 0; j < n; j++)
            for (ptrdiff_t r = 0; r < some; r++)
                sum[r] += a[(rows ? rows[i + r] : i + r) * a_row + j] * x[j];
        memcpy(y + i, sum, (size_t)some * sizeof(REAL));
    }
}
#undef GROUPS
#undef TRANSPOSE_BLOCK

#define DEFINE_SCALE(SUFFIX, SOURCE)                                                              \
    static void NAME(scale_##SUFFIX)(ptrdiff_t n, const SOURCE *x, REAL scale, REAL *y) {         \
        for (ptrdiff_t j = 0; j < n; j++) y[j] = (REAL)x[j] * scale;                              \
    }
DEFINE_SCALE(u8, uint8_t)
DEFINE_SCALE(f32, float)
DEFINE_SCALE(f64, double)

static void NAME(cross_entropy_columns)(ptrdiff_t n, ptrdiff_t m, const REAL *x, const REAL *t,
                                        const int64_t *labels, REAL *losses, REAL *scratch) {
    REAL *most = scratch, *sum = scratch + m;
    memcpy(most, x, (size_t)m * sizeof(REAL));
    for (ptrdiff_t j = 1; j < n; j++)
        FOR_VECTORS(m) {
            vec v = NAME(load_n)(x + j * m + i, left, 0), so_far = NAME(load_n)(most + i, left, 0);
            NAME(store_n)(most + i, left, NAME(select)(v > so_far, v, so_far));
        }
    memset(sum, 0, (size_t)m * sizeof(REAL));
    for (ptrdiff_t j = 0; j < n; j++)
        FOR_VECTORS(m) {
            vec e = NAME(exp)(NAME(load_n)(x + j * m + i, left, 0) - NAME(load_n)(most + i, left, 0));
            NAME(store_n)(sum + i, left, NAME(load_n)(sum + i, left, 0) + e);
        }
    /* From here on `sum` holds log(sum of exponentials) with the maximum added back. */
    FOR_VECTORS(m) {
        vec l = NAME(log)(NAME(load_n)(sum + i, left, 1)) + NAME(load_n)(most + i, left, 0);
        NAME(store_n)(sum + i, left, l);
    }
    if (!t) {
        for (ptrdiff_t i = 0; i < m; i++) losses[i] = sum[i] - x[labels[i] * m + i];
        return;
    }
    memset(losses, 0, (size_t)m * sizeof(REAL));
    for (ptrdiff_t j = 0; j < n; j++)
        for (ptrdiff_t i = 0; i < m; i++)
            if (t[j * m + i] != 0 || x[j * m + i] != x[j * m + i])
                losses[i] += t[j * m + i] * (sum[i] - x[j * m + i]);
}
