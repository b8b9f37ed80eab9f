/* Winograd's F(4, 5) over rows (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016):
 * 4 outputs y of 8 inputs d and 5 weights g with 8 products, not 20,
 *
 *     y = A^T [(G g) * (B^T d)]
 *
 * which is the product of two polynomials from its values at 0, 1, -1, 2, -2, 1/2, -1/2 and its first
 * coefficient. A row of B^T and one of G may be multiplied and divided by the same number. Value p of a
 * column stands in plane p. Where there are 2 outputs or 1, the same weights do for F(2, 5), which leaves out
 * the points 1/2 and -1/2, planes 5 and 6. Included once per type. */

static INLINE void NAME(winograd_two_rows_input)(ptrdiff_t n, const REAL *x, ptrdiff_t x_row,
                                                 ptrdiff_t rows, REAL *v, ptrdiff_t plane) {
    FOR_VECTORS(n) {
        vec d[6] = {{0}};
        UNROLL for (int r = 0; r < 6; r++)
            if (r < rows) d[r] = NAME(load_n)(x + r * x_row + i, left, 0);
        const vec even1 = d[4] - 4 * d[2], odd1 = d[3] - 4 * d[1];
        const vec even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
        REAL *to = v + i;
        NAME(store_n)(to, left, d[0] + (REAL)0.25 * d[4] - (REAL)1.25 * d[2]);
        NAME(store_n)(to + plane, left, (REAL)0.75 * (even1 + odd1));
        NAME(store_n)(to + 2 * plane, left, (REAL)0.75 * (even1 - odd1));
        NAME(store_n)(to + 3 * plane, left, (REAL)3.75 * (even2 + odd2));
        NAME(store_n)(to + 4 * plane, left, (REAL)3.75 * (even2 - odd2));
        NAME(store_n)(to + 7 * plane, left, d[5] + 4 * d[1] - 5 * d[3]);
    }
}

static void NAME(winograd_rows_input)(ptrdiff_t n, const REAL *x, ptrdiff_t x_row, ptrdiff_t rows,
                                      REAL *v, ptrdiff_t plane) {
    if (rows <= 6) {
        NAME(winograd_two_rows_input)(n, x, x_row, rows, v, plane);
        return;
    }
    FOR_VECTORS(n) {
        vec d[8] = {{0}};
        UNROLL for (int r = 0; r < 8; r++)
            if (r < rows) d[r] = NAME(load_n)(x + r * x_row + i, left, 0);
        const vec even1 = d[2] + d[6] - (REAL)4.25 * d[4], odd1 = d[1] + d[5] - (REAL)4.25 * d[3];
        const vec even2 = d[6] + (REAL)0.25 * d[2] - (REAL)1.25 * d[4];
        const vec odd2 = (REAL)0.5 * d[1] - (REAL)2.5 * d[3] + 2 * d[5];
        const vec even3 = d[6] + 4 * d[2] - 5 * d[4];
        const vec odd3 = 2 * d[1] - (REAL)2.5 * d[3] + (REAL)0.5 * d[5];
        REAL *to = v + i;
        NAME(store_n)(to, left, d[0] - d[6] + (REAL)5.25 * (d[4] - d[2]));
        NAME(store_n)(to + plane, left, even1 + odd1);
        NAME(store_n)(to + 2 * plane, left, even1 - odd1);
        NAME(store_n)(to + 3 * plane, left, even2 + odd2);
        NAME(store_n)(to + 4 * plane, left, even2 - odd2);
        NAME(store_n)(to + 5 * plane, left, even3 + odd3);
        NAME(store_n)(to + 6 * plane, left, even3 - odd3);
        NAME(store_n)(to + 7 * plane, left, d[7] - d[1] + (REAL)5.25 * (d[3] - d[5]));
    }
}

static void NAME(winograd_rows_output)(ptrdiff_t n, const REAL *m, ptrdiff_t plane, REAL *y,
                                       ptrdiff_t y_row, ptrdiff_t rows) {
    if (rows <= 2) {
        FOR_VECTORS(n) {
            vec p[8];
            UNROLL for (int q = 0; q < 8; q++)
                if (q < 5 || q == 7) p[q] = NAME(load_n)(m + q * plane + i, left, 0);
            NAME(store_n)(y + i, left, p[0] + (p[1] + p[2]) + (p[3] + p[4]));
            if (rows > 1)
                NAME(store_n)(y + y_row + i, left, p[7] + (p[1] - p[2]) + 2 * (p[3] - p[4]));
        }
        return;
    }
    FOR_VECTORS(n) {
        vec p[8];
        UNROLL for (int q = 0; q < 8; q++) p[q] = NAME(load_n)(m + q * plane + i, left, 0);
        const vec sum1 = p[1] + p[2], sum2 = p[3] + p[4], sum3 = p[5] + p[6];
        const vec difference1 = p[1] - p[2], difference2 = p[3] - p[4], difference3 = p[5] - p[6];
        const vec out[4] = {
            p[0] + sum1 + sum2 + sum3,
            difference1 + 2 * difference2 + (REAL)0.5 * difference3,
            sum1 + 4 * sum2 + (REAL)0.25 * sum3,
            p[7] + difference1 + 8 * difference2 + (REAL)0.125 * difference3,
        };
        UNROLL for (int r = 0; r < 4; r++)
            if (r < rows) NAME(store_n)(y + r * y_row + i, left, out[r]);
    }
}

static void NAME(winograd_rows_weights)(ptrdiff_t n, const REAL *g, ptrdiff_t g_row, REAL *u,
                                        ptrdiff_t plane) {
    FOR_VECTORS(n) {
        vec w[5];
        UNROLL for (int r = 0; r < 5; r++) w[r] = NAME(load_n)(g + r * g_row + i, left, 0);
        const vec even1 = w[0] + w[2] + w[4], odd1 = w[1] + w[3];
        const vec even2 = w[0] + 4 * w[2] + 16 * w[4], odd2 = 2 * w[1] + 8 * w[3];
        const vec even3 = 16 * w[0] + 4 * w[2] + w[4], odd3 = 8 * w[1] + 2 * w[3];
        REAL *to = u + i;
        NAME(store_n)(to, left, w[0]);
        NAME(store_n)(to + plane, left, (REAL)(-2 / 9.) * (even1 + odd1));
        NAME(store_n)(to + 2 * plane, left, (REAL)(-2 / 9.) * (even1 - odd1));
        NAME(store_n)(to + 3 * plane, left, (REAL)(1 / 90.) * (even2 + odd2));
        NAME(store_n)(to + 4 * plane, left, (REAL)(1 / 90.) * (even2 - odd2));
        NAME(store_n)(to + 5 * plane, left, (REAL)(2 / 45.) * (even3 + odd3));
        NAME(store_n)(to + 6 * plane, left, (REAL)(2 / 45.) * (even3 - odd3));
        NAME(store_n)(to + 7 * plane, left, w[4]);
    }
}
