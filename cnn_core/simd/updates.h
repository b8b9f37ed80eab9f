/* Updates of parameters from their gradients, and the limits of these. Included once per type. */

static INLINE void NAME(sgd_with)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *v, REAL lr,
                                  REAL momentum, int nesterov, REAL l2, REAL decay) {
    FOR_VECTORS(n) {
        vec value = NAME(load_n)(p + i, left, 0);
        vec g = NAME(load_n)(grad + i, left, 0);
        if (l2 != 0) g += l2 * value;
        if (decay != 0) value -= decay * value;
        if (momentum != 0) {
            vec velocity = momentum * NAME(load_n)(v + i, left, 0) + g;
            NAME(store_n)(v + i, left, velocity);
            g = nesterov ? g + momentum * velocity : velocity;
        }
        NAME(store_n)(p + i, left, value - lr * g);
    }
}

/* With constants for what a rule does without, little remains of this for a vector. */
static void NAME(sgd)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *v, REAL lr, REAL momentum,
                      int nesterov, REAL l2, REAL decay) {
    if (l2 != 0 || decay != 0)
        NAME(sgd_with)(n, p, grad, v, lr, momentum, nesterov, l2, decay);
    else if (momentum != 0)
        NAME(sgd_with)(n, p, grad, v, lr, momentum, nesterov, 0, 0);
    else
        NAME(sgd_with)(n, p, grad, NULL, lr, 0, 0, 0, 0);
}

#define INPUTS_AT_ONCE 256
/* at[] = the inputs, of k, that are not 0 in some of m rows of x, or `all`; returns how many. */
static INLINE ptrdiff_t NAME(used_inputs)(ptrdiff_t m, ptrdiff_t k, const REAL *x, ptrdiff_t x_row,
                                          int all, int32_t *at) {
    if (m == 1 && !all) return NAME(pick_as)(k, 0, NULL, x, NULL, at);
    ptrdiff_t count = 0;
    for (ptrdiff_t p = 0; p < k; p++) {
        int used = all;
        for (ptrdiff_t r = 0; r < m; r++) used |= x[r * x_row + p] != 0;
        at[count] = (int32_t)p;
        count += used;
    }
    return count;
}

/* LANES elements of a row of W after a step, `left` of them if these are fewer. */
static INLINE vec NAME(stepped)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t left, const REAL *element,
                                ptrdiff_t x_row, const REAL *dout, const REAL *w, REAL lr,
                                REAL weight_decay) {
    vec value = NAME(load_n)(w, left, 0), g = {0};
    for (ptrdiff_t r = 0; r < m; r++)
        g += NAME(splat)(element[r * x_row]) * NAME(load_n)(dout + r * n, left, 0);
    if (weight_decay != 0) g += weight_decay * value;
    return value - lr * g;
}

/* The vectors at both ends overlap the others. They are worked out before these are stored, each in a
 * single cache line. `soon` is the row that comes next. */
static INLINE void NAME(sgd_row)(ptrdiff_t m, ptrdiff_t n, const REAL *element, ptrdiff_t x_row,
                                 const REAL *dout, REAL *row, const REAL *soon, REAL lr,
                                 REAL weight_decay) {
#define STEPPED(i, left)                                                                          \
    NAME(stepped)(m, n, left, element, x_row, dout + (i), row + (i), lr, weight_decay)
    for (ptrdiff_t i = 0; i < n; i += LINE) __builtin_prefetch(soon + i);
    if (n < LANES) {
        NAME(store_part)(row, n, STEPPED(0, n));
        return;
    }
    const vec first = STEPPED(0, LANES), last = STEPPED(n - LANES, LANES);
    ptrdiff_t i = (ptrdiff_t)(-(uintptr_t)row % VECTOR_BYTES / sizeof(REAL));
    for (; i + LANES <= n; i += LANES) NAME(store)(row + i, STEPPED(i, LANES));
    NAME(store)(row, first);
    NAME(store)(row + n - LANES, last);
#undef STEPPED
}

/* With a constant m and weight_decay little remains of this for a vector. */
static INLINE void NAME(sgd_product_with)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const REAL *x,
                                          ptrdiff_t x_row, const REAL *dout, REAL *w, REAL lr,
                                          REAL weight_decay) {
    int32_t at[INPUTS_AT_ONCE + VECTOR_BYTES];
    for (ptrdiff_t begin = 0; begin < k; begin += INPUTS_AT_ONCE) {
        const ptrdiff_t left_k = k - begin < INPUTS_AT_ONCE ? k - begin : INPUTS_AT_ONCE;
        const ptrdiff_t count = NAME(used_inputs)(m, left_k, x + begin, x_row, weight_decay != 0, at);
        for (ptrdiff_t q = 0; q < count; q++)
            NAME(sgd_row)(m, n, x + begin + at[q], x_row, dout, w + (begin + at[q]) * n,
                          w + (begin + at[q + 1 < count ? q + 1 : q]) * n, lr, weight_decay);
    }
}

static void NAME(sgd_product)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const REAL *x, ptrdiff_t x_row,
                              const REAL *dout, REAL *w, REAL lr, REAL weight_decay) {
    if (m == 1 && weight_decay == 0)
        NAME(sgd_product_with)(1, k, n, x, x_row, dout, w, lr, 0);
    else
        NAME(sgd_product_with)(m, k, n, x, x_row, dout, w, lr, weight_decay);
}

/* m += (1 - beta1) (g - m); v += (1 - beta2) (g^2 - v); p -= rate m / (sqrt(v) root + epsilon),
 * rate and root holding the corrections of the biases; g = grad + l2 p; decay shrinks p first. */
static void NAME(adam)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *m, REAL *v, REAL rate,
                       REAL root, REAL beta1, REAL beta2, REAL epsilon, REAL l2, REAL decay) {
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL value = p[i] - decay * p[i];
        REAL g = grad[i] + l2 * p[i];
        m[i] += (1 - beta1) * (g - m[i]);
        v[i] += (1 - beta2) * (g * g - v[i]);
        p[i] = value - rate * m[i] / (SQRT(v[i]) * root + epsilon);
    }
}

/* g = grad + l2 p; sum += g^2; p -= lr g / (sqrt(sum) + epsilon). */
static void NAME(adagrad)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *sum, REAL lr, REAL epsilon,
                          REAL l2) {
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL g = grad[i] + l2 * p[i];
        sum[i] += g * g;
        p[i] -= lr * g / (SQRT(sum[i]) + epsilon);
    }
}

/* g = grad + l2 p; square = keep square + (1 - keep) g^2; step = g / (sqrt(square) + epsilon);
 * p -= lr step, or with a velocity v = momentum v + step; p -= lr v. */
static void NAME(rmsprop)(ptrdiff_t n, REAL *p, const REAL *grad, REAL *square, REAL *v, REAL lr,
                          REAL keep, REAL momentum, REAL epsilon, REAL l2) {
    for (ptrdiff_t i = 0; i < n; i++) {
        REAL g = grad[i] + l2 * p[i];
        square[i] = keep * square[i] + (1 - keep) * (g * g);
        REAL step = g / (SQRT(square[i]) + epsilon);
        if (v) step = v[i] = momentum * v[i] + step;
        p[i] -= lr * step;
    }
}

/* x = min(max(x, -limit), limit); a NaN is kept. */
static void NAME(clamp)(ptrdiff_t n, REAL limit, REAL *x) {
    const vec most = NAME(splat)(limit), least = -most;
    FOR_VECTORS(n) {
        vec v = NAME(bound_above)(NAME(load_n)(x + i, left, 0), most);
        NAME(store_n)(x + i, left, NAME(bound_below)(v, least));
    }
}

/* Eight sums in float64, so that the square of no float is too large and their order is fixed. */
static double NAME(sum_squares)(ptrdiff_t n, const REAL *x) {
    double sum[8] = {0};
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        UNROLL for (int j = 0; j < 8; j++) sum[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i < n; i++, j++) sum[j] += (double)x[i] * (double)x[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}
