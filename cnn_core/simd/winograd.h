/* Winograd's F(2 x 2, 3 x 3) on adjacent channels (Lavin and Gray, Fast algorithms for convolutional
 * neural networks, 2016): 2 x 2 outputs y of 4 x 4 inputs d and 3 x 3 weights g with 16 products, not 36,
 *
 *     y = A^T [(G g G^T) * (B^T d B)] A        B^T = 1  0 -1  0    G = 1    0    0    A^T = 1 1  1  0
 *                                                    0  1  1  0        1/2  1/2  1/2        0 1 -1 -1
 *                                                    0 -1  1  0        1/2 -1/2  1/2
 *                                                    0  1  0 -1        0    0    1
 *
 * and turned around for the gradient of the weights,
 *
 *     dg = G^T [sum over tiles of (B^T d B) * (A dy A^T)] G
 *
 * Element (p, q) of a tile stands in plane 4 p + q. Included once per type. */

/* One column of a tile through B^T; outside the image it is zero. */
static INLINE void NAME(winograd_column)(const REAL *x, ptrdiff_t x_row, ptrdiff_t rows, int inside,
                                         ptrdiff_t left, vec out[4]) {
    vec d[4] = {{0}};
    if (inside) {
        UNROLL for (int r = 0; r < 3; r++) d[r] = NAME(load_n)(x + r * x_row, left, 0);
        if (rows > 3) d[3] = NAME(load_n)(x + 3 * x_row, left, 0);
    }
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
}

static void NAME(winograd_input)(ptrdiff_t tiles, ptrdiff_t n, const REAL *x, ptrdiff_t x_row,
                                 ptrdiff_t rows, ptrdiff_t columns, REAL *v, ptrdiff_t plane) {
    FOR_VECTORS(n) {
        const REAL *from = x + i;
        REAL *to = v + i;
        vec c[4][4];
        NAME(winograd_column)(from, x_row, rows, 1, left, c[0]);
        NAME(winograd_column)(from + n, x_row, rows, 1, left, c[1]);
        for (ptrdiff_t t = 0; t < tiles; t++, from += 2 * n, to += n) {
            NAME(winograd_column)(from + 2 * n, x_row, rows, 1, left, c[2]);
            NAME(winograd_column)(from + 3 * n, x_row, rows, 2 * t + 3 < columns, left, c[3]);
            UNROLL for (int p = 0; p < 4; p++) {
                REAL *out = to + 4 * p * plane;
                NAME(store_n)(out, left, c[0][p] - c[2][p]);
                NAME(store_n)(out + plane, left, c[1][p] + c[2][p]);
                NAME(store_n)(out + 2 * plane, left, c[2][p] - c[1][p]);
                NAME(store_n)(out + 3 * plane, left, c[1][p] - c[3][p]);
                c[0][p] = c[2][p];
                c[1][p] = c[3][p];
            }
        }
    }
}

static void NAME(winograd_output)(ptrdiff_t tiles, ptrdiff_t n, const REAL *m, ptrdiff_t plane,
                                  const REAL *b, REAL *y, ptrdiff_t y_row, ptrdiff_t rows,
                                  ptrdiff_t columns) {
    FOR_VECTORS(n) {
        const vec bias = b ? NAME(load_n)(b + i, left, 0) : (vec){0};
        for (ptrdiff_t t = 0; t < tiles; t++) {
            const REAL *from = m + t * n + i;
            REAL *to = y + 2 * t * n + i;
            vec s[2][4];
            UNROLL for (int q = 0; q < 4; q++) {
                vec d[4];
                UNROLL for (int p = 0; p < 4; p++)
                    d[p] = NAME(load_n)(from + (4 * p + q) * plane, left, 0);
                s[0][q] = d[0] + d[1] + d[2];
                s[1][q] = d[1] - d[2] - d[3];
            }
            UNROLL for (int r = 0; r < 2; r++) {
                if (r >= rows) break;
                NAME(store_n)(to + r * y_row, left, s[r][0] + s[r][1] + s[r][2] + bias);
                if (2 * t + 1 < columns)
                    NAME(store_n)(to + r * y_row + n, left, s[r][1] - s[r][2] - s[r][3] + bias);
            }
        }
    }
}

static void NAME(winograd_weights)(ptrdiff_t n, const REAL *g, ptrdiff_t g_row, REAL *u,
                                   ptrdiff_t plane) {
    const vec half = NAME(splat)((REAL)0.5);
    FOR_VECTORS(n) {
        vec h[4][3];
        UNROLL for (int s = 0; s < 3; s++) {
            vec w[3];
            UNROLL for (int r = 0; r < 3; r++)
                w[r] = NAME(load_n)(g + (3 * r + s) * g_row + i, left, 0);
            h[0][s] = w[0];
            h[1][s] = half * (w[0] + w[2] + w[1]);
            h[2][s] = half * (w[0] + w[2] - w[1]);
            h[3][s] = w[2];
        }
        UNROLL for (int p = 0; p < 4; p++) {
            REAL *to = u + 4 * p * plane + i;
            NAME(store_n)(to, left, h[p][0]);
            NAME(store_n)(to + plane, left, half * (h[p][0] + h[p][2] + h[p][1]));
            NAME(store_n)(to + 2 * plane, left, half * (h[p][0] + h[p][2] - h[p][1]));
            NAME(store_n)(to + 3 * plane, left, h[p][2]);
        }
    }
}

static void NAME(winograd_gradient)(ptrdiff_t tiles, ptrdiff_t n, const REAL *dy, ptrdiff_t dy_row,
                                    ptrdiff_t rows, ptrdiff_t columns, REAL *h, ptrdiff_t plane) {
    FOR_VECTORS(n) {
        for (ptrdiff_t t = 0; t < tiles; t++) {
            const REAL *from = dy + 2 * t * n + i;
            vec d[2][2] = {{{0}}};
            UNROLL for (int r = 0; r < 2; r++) {
                if (r >= rows) break;
                d[r][0] = NAME(load_n)(from + r * dy_row, left, 0);
                if (2 * t + 1 < columns) d[r][1] = NAME(load_n)(from + r * dy_row + n, left, 0);
            }
            const vec s[4][2] = {{d[0][0], d[0][1]},
                                 {d[0][0] + d[1][0], d[0][1] + d[1][1]},
                                 {d[0][0] - d[1][0], d[0][1] - d[1][1]},
                                 {-d[1][0], -d[1][1]}};
            UNROLL for (int p = 0; p < 4; p++) {
                REAL *to = h + 4 * p * plane + t * n + i;
                NAME(store_n)(to, left, s[p][0]);
                NAME(store_n)(to + plane, left, s[p][0] + s[p][1]);
                NAME(store_n)(to + 2 * plane, left, s[p][0] - s[p][1]);
                NAME(store_n)(to + 3 * plane, left, -s[p][1]);
            }
        }
    }
}

static void NAME(winograd_weights_gradient)(ptrdiff_t n, const REAL *m, ptrdiff_t plane, REAL *dg,
                                            ptrdiff_t dg_row) {
    const vec half = NAME(splat)((REAL)0.5);
    FOR_VECTORS(n) {
        vec h[3][4];
        UNROLL for (int q = 0; q < 4; q++) {
            vec d[4];
            UNROLL for (int p = 0; p < 4; p++) d[p] = NAME(load_n)(m + (4 * p + q) * plane + i, left, 0);
            h[0][q] = d[0] + half * (d[1] + d[2]);
            h[1][q] = half * (d[1] - d[2]);
            h[2][q] = half * (d[1] + d[2]) + d[3];
        }
        UNROLL for (int r = 0; r < 3; r++) {
            REAL *to = dg + 3 * r * dg_row + i;
            NAME(store_n)(to, left, h[r][0] + half * (h[r][1] + h[r][2]));
            NAME(store_n)(to + dg_row, left, half * (h[r][1] - h[r][2]));
            NAME(store_n)(to + 2 * dg_row, left, half * (h[r][1] + h[r][2]) + h[r][3]);
        }
    }
}
