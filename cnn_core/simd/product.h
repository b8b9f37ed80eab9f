/* C[m, n] += sum over taps t of A_t[m, k] B_t[k, n]: a tile of ROWS x VECTORS registers of C, one row
 * of B loaded per term, elements of A broadcast. Included once per type, after vector.h. */

/* What the tiles of a product share. */
typedef struct {
    ptrdiff_t n, k, taps;
    const ptrdiff_t *a_at;
    ptrdiff_t a_row, a_col;
    const REAL *b;
    const ptrdiff_t *b_at;
    ptrdiff_t b_row;
    const REAL *start;
    ptrdiff_t c_row;
} NAME(product_shape);

#define TILE_PARAMETERS                                                                           \
    const NAME(product_shape) *shape, const REAL *a, REAL *c, const REAL *const *ahead
#define TILE_ARGUMENTS shape, a, c, ahead

/* The last vector of a row of B: what lies behind the row is read, but not used. It may belong to
 * another thread, which ThreadSanitizer would call a race. */
#ifdef __SANITIZE_THREAD__
#define LOAD_PART(P, at, left) NAME(P##load_n)(at, left, 0)
#else
#define LOAD_PART(P, at, left) NAME(P##load)(at)
#endif

/* The compiler forgets how x came about. Else it works out the place of every row of A from the first
 * one, with a register each, and keeps what does not fit in vector registers. */
#define FORGET(x) __asm__("" : "+r"(x))

/* The terms of a tap. FETCH: with each, where a term is a row of A with a line of its own, far from the
 * last one, the line that the next tile reads. The processor would not see it coming. One loop with and
 * without makes convolutions 2 to 4% slower. */
#define LINE ((ptrdiff_t)(64 / sizeof(REAL)))
#define FAR (8 * LINE)

/* What lies i < 8 steps behind p, in what an address can hold beside p: 1, 2, 4 or 8 times one register.
 * A pointer that is shared by more rows is one less to move with each term. */
#define STEPS(name, step)                                                                         \
    ptrdiff_t name##1 = (step) * (ptrdiff_t)sizeof(REAL), name##3 = 3 * name##1;                  \
    ptrdiff_t name##5 = 5 * name##1, name##7 = 7 * name##1;                                       \
    FORGET(name##1);                                                                              \
    FORGET(name##3);                                                                              \
    FORGET(name##5);                                                                              \
    FORGET(name##7);
#define STEPS_BEHIND(p, i, name)                                                                  \
    ((const REAL *)((const char *)(p) + ((i) == 7   ? name##7                                     \
                                         : (i) == 5 ? name##5                                     \
                                         : (i) % 3  ? (i) * name##1                               \
                                                    : (i) / 3 * name##3)))
#define POINTERS(ROWS) ((ROWS + 7) / 8)

/* Counted down, and left at the bottom: other forms take an instruction more for each term, which counts
 * where two threads share a core. */
#define TERMS(ROWS, VECTORS, P, FETCH)                                                            \
    if (k > 0) for (ptrdiff_t left = k;;) {                                                       \
        vec row[VECTORS];                                                                         \
        FETCH                                                                                     \
        UNROLL for (int v = 0; v < VECTORS - 1; v++) row[v] = NAME(load)(bt + v * LANES);         \
        const P##vec end = LOAD_PART(P, bt + (VECTORS - 1) * LANES, last);                        \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                   \
            const vec element = NAME(splat)(*STEPS_BEHIND(at[i / 8], i % 8, row));                \
            UNROLL for (int v = 0; v < VECTORS - 1; v++) sum[i][v] += element * row[v];           \
            part[i] += NAME(P##low)(element) * end;                                               \
        }                                                                                         \
        UNROLL for (int i = 0; i < POINTERS(ROWS); i++) at[i] += a_col;                           \
        bt += b_row;                                                                              \
        if (--left == 0) break;                                                                   \
        FORGET(left);                                                                             \
    }

/* One row of A uses each row of B once: where these follow each other they are fetched in time. */
#define ROWS_AHEAD 16
#define FETCH_B(VECTORS)                                                                          \
    UNROLL for (int v = 0; v < VECTORS; v++)                                                      \
        __builtin_prefetch(bt + ROWS_AHEAD * b_row + v * LANES);

/* The last vector of a row is a whole one, or half of one: P is nothing or `half_`. */
#define DEFINE_TILE(ROWS, VECTORS, P)                                                             \
    static void NAME(tile_##P##ROWS##x##VECTORS)(TILE_PARAMETERS) {                               \
        const ptrdiff_t k = shape->k, taps = shape->taps, a_row = shape->a_row;                   \
        const ptrdiff_t a_col = shape->a_col, b_row = shape->b_row, c_row = shape->c_row;         \
        vec sum[ROWS][VECTORS];                                                                   \
        P##vec part[ROWS];                                                                        \
        const ptrdiff_t last = shape->n - (VECTORS - 1) * LANES;                                  \
        if (shape->start) {                                                                       \
            UNROLL for (int v = 0; v < VECTORS - 1; v++)                                          \
                sum[0][v] = NAME(load)(shape->start + v * LANES);                                 \
            part[0] = NAME(P##load_n)(shape->start + (VECTORS - 1) * LANES, last, 0);             \
            UNROLL for (int i = 1; i < ROWS; i++) {                                               \
                UNROLL for (int v = 0; v < VECTORS - 1; v++) sum[i][v] = sum[0][v];               \
                part[i] = part[0];                                                                \
            }                                                                                     \
        } else {                                                                                  \
            const REAL *from = c;                                                                 \
            UNROLL for (int i = 0; i < ROWS; i++) {                                               \
                UNROLL for (int v = 0; v < VECTORS - 1; v++)                                      \
                    sum[i][v] = NAME(load)(from + v * LANES);                                     \
                part[i] = NAME(P##load_n)(from + (VECTORS - 1) * LANES, last, 0);                 \
                from += c_row;                                                                    \
                FORGET(from);                                                                     \
            }                                                                                     \
        }                                                                                         \
        STEPS(row, a_row)                                                                         \
        const ptrdiff_t soon_col = a_row == 1 && a_col > FAR ? a_col : 0;                         \
        for (ptrdiff_t t = 0; t < taps; t++) {                                                    \
            const REAL *bt = shape->b + shape->b_at[t], *at[POINTERS(ROWS)];                      \
            const ptrdiff_t place = shape->a_at[t];                                               \
            const REAL *soon = a + place + LINE;                                                  \
            UNROLL for (int i = 0; i < POINTERS(ROWS); i++) {                                     \
                at[i] = a + place + 8 * i * a_row;                                                \
                FORGET(at[i]);                                                                    \
            }                                                                                     \
            if (ahead)                                                                            \
                UNROLL for (int i = 0; i < ROWS; i++) __builtin_prefetch(ahead[i] + place);       \
            if (soon_col) {                                                                       \
                TERMS(ROWS, VECTORS, P, __builtin_prefetch(soon); soon += soon_col;)              \
            } else if (ROWS == 1 && VECTORS > 1 && b_row <= VECTORS * LANES) {                    \
                TERMS(ROWS, VECTORS, P, FETCH_B(VECTORS))                                         \
            } else {                                                                              \
                TERMS(ROWS, VECTORS, P, )                                                         \
            }                                                                                     \
        }                                                                                         \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                   \
            UNROLL for (int v = 0; v < VECTORS - 1; v++) NAME(store)(c + v * LANES, sum[i][v]);   \
            NAME(P##store_n)(c + (VECTORS - 1) * LANES, last, part[i]);                           \
            c += c_row;                                                                           \
            FORGET(c);                                                                            \
        }                                                                                         \
    }

/* The tiles of 1 .. most rows for a number of vectors. */
typedef void (*NAME(product_tile))(TILE_PARAMETERS);
typedef struct {
    ptrdiff_t most;
    NAME(product_tile) tiles[14];
} NAME(product_tiles);
#define TILE_ENTRY(ROWS, VECTORS, P) NAME(tile_##P##ROWS##x##VECTORS),
#define DEFINE_TILES(MOST, VECTORS, P)                                                            \
    UP_TO_##MOST(DEFINE_TILE, VECTORS, P)                                                         \
    static const NAME(product_tiles) NAME(tiles_##P##VECTORS) = {                                 \
        MOST, {UP_TO_##MOST(TILE_ENTRY, VECTORS, P)}};
#define UP_TO_2(X, ...) X(1, __VA_ARGS__) X(2, __VA_ARGS__)
#define UP_TO_4(X, ...) UP_TO_2(X, __VA_ARGS__) X(3, __VA_ARGS__) X(4, __VA_ARGS__)
#define UP_TO_6(X, ...) UP_TO_4(X, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__)
#define UP_TO_8(X, ...) UP_TO_6(X, __VA_ARGS__) X(7, __VA_ARGS__) X(8, __VA_ARGS__)
#define UP_TO_12(X, ...)                                                                          \
    UP_TO_8(X, __VA_ARGS__) X(9, __VA_ARGS__) X(10, __VA_ARGS__) X(11, __VA_ARGS__)               \
    X(12, __VA_ARGS__)
#define UP_TO_14(X, ...) UP_TO_12(X, __VA_ARGS__) X(13, __VA_ARGS__) X(14, __VA_ARGS__)

/* The tiles fill the registers: ROWS * VECTORS sums, VECTORS of B and one of A. */
#if VECTOR_REGISTERS == 32
#define MOST_VECTORS 4
#define SPARSE_TAPS UP_TO_4
DEFINE_TILES(14, 1, )
DEFINE_TILES(14, 2, )
DEFINE_TILES(8, 3, )
DEFINE_TILES(6, 4, )
#else
#define MOST_VECTORS 2
#define SPARSE_TAPS UP_TO_2
DEFINE_TILES(12, 1, )
DEFINE_TILES(6, 2, )
#endif
#if VECTOR_BYTES == 64
DEFINE_TILES(14, 1, half_)
DEFINE_TILES(14, 2, half_)
DEFINE_TILES(8, 3, half_)
DEFINE_TILES(6, 4, half_)
#endif

/* The tiles for n columns. */
#define TILES_CASE(VECTORS, P)                                                                    \
    case VECTORS: return &NAME(tiles_##P##VECTORS);
static INLINE const NAME(product_tiles) *NAME(tiles_for)(ptrdiff_t n) {
    const ptrdiff_t vectors = (n + LANES - 1) / LANES;
#if VECTOR_BYTES == 64
    if (2 * (vectors * LANES - n) >= LANES)
        switch (vectors) {
            TILES_CASE(1, half_) TILES_CASE(2, half_) TILES_CASE(3, half_) TILES_CASE(4, half_)
        }
#endif
    switch (vectors) {
#if MOST_VECTORS == 4
        TILES_CASE(4, ) TILES_CASE(3, )
#endif
        TILES_CASE(2, )
    default: return &NAME(tiles_1);
    }
}

/* m rows are taken in the fewest tiles, all of nearly the same size: a small last tile would leave
 * most registers idle. */
static INLINE void NAME(product_rows)(const NAME(product_tiles) *tiles, ptrdiff_t m,
                                      TILE_PARAMETERS) {
    if (m > 0 && m <= tiles->most) { /* without divisions, which take as long as a small tile */
        tiles->tiles[m - 1](TILE_ARGUMENTS);
        return;
    }
    for (ptrdiff_t left = (m + tiles->most - 1) / tiles->most; left > 0; left--) {
        const ptrdiff_t rows = (m + left - 1) / left;
        tiles->tiles[rows - 1](TILE_ARGUMENTS);
        a += rows * shape->a_row;
        c += rows * shape->c_row;
        if (ahead) ahead += rows;
        m -= rows;
    }
}

static void NAME(product_taps)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, ptrdiff_t taps, const REAL *a,
                               const ptrdiff_t *a_at, ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b,
                               const ptrdiff_t *b_at, ptrdiff_t b_row, const REAL *start, REAL *c,
                               ptrdiff_t c_row, const REAL *const *ahead) {
    const NAME(product_shape) shape = {n, k, taps, a_at, a_row, a_col, b, b_at, b_row, start, c_row};
    if (n > 0) NAME(product_rows)(NAME(tiles_for)(n), m, &shape, a, c, ahead);
}

static void NAME(product_planes)(ptrdiff_t planes, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const REAL *a,
                                 ptrdiff_t a_plane, ptrdiff_t a_row, ptrdiff_t a_col, const REAL *b,
                                 ptrdiff_t b_plane, ptrdiff_t b_row, const REAL *const *starts, REAL *c,
                                 ptrdiff_t c_plane, ptrdiff_t c_row) {
    const ptrdiff_t here = 0;
    NAME(product_shape) shape = {n, k, 1, &here, a_row, a_col, b, &here, b_row, NULL, c_row};
    const NAME(product_tiles) *tiles = NAME(tiles_for)(n);
    for (ptrdiff_t q = 0; q < planes; q++) {
        shape.start = starts ? starts[q] : NULL;
        NAME(product_rows)(tiles, m, &shape, a, c, NULL);
        a += a_plane;
        shape.b += b_plane;
        c += c_plane;
    }
}
