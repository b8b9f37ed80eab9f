"""Losses and their gradients, row by row; the sum over the rows in a fixed order, in float64.

    softmax cross entropy   -sum t log softmax(x)                            dx = softmax(x) - t
    binary cross entropy    sum max(x, 0) - x t + log(1 + exp(-|x|))         dx = sigmoid(x) - t
    squared error           sum (y - t)^2                                    dy = y - t

each times the weight of its row, if rows have weights, and dx times a scale, which holds 1/N and
such. Saito, Deep Learning from Scratch, sections
4.2 and 5.6.3; the stable forms are those of the log-sum-exp identity.
"""

from libc.math cimport NAN
from libc.stdint cimport int64_t
from libc.string cimport memset

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport (
    argmax, binary_cross_entropy_row, cross_entropy_lanes, lanes, softmax_cross_entropy_row,
    squared_error_row, transpose,
)
from cnn_core._types cimport real

cdef enum:
    MOST_ROWS = 48
    WORK_PER_ELEMENT = 30
    FEW_CLASSES = 64    # so many rows at once as a vector has lanes, if the targets are labels
    MOST_LANES = 16

cdef enum:
    SOFTMAX_CROSS_ENTROPY
    BINARY_CROSS_ENTROPY
    SQUARED_ERROR


cdef struct loss_args:
    Py_ssize_t n                # elements of a row
    int loss
    const void* x
    const void* t               # NULL where the targets are labels
    const int64_t* labels
    const double* weights       # of the rows, or NULL
    double scale                # of dx
    double* row_losses
    int64_t* correct            # 1 where the argmax of a row is its target's, or NULL
    void* dx                    # or NULL
    bint is_float


cdef inline bint row_is_correct(const loss_args* a, Py_ssize_t i, const real* x,
                                const real* t) noexcept nogil:
    """A row with a NaN is never correct."""
    cdef Py_ssize_t target, best
    if a.n == 1 and t != NULL:    # one output: two classes, told apart by a threshold
        return (x[i] == x[i]
                and (x[i] > (0.0 if a.loss == BINARY_CROSS_ENTROPY else 0.5)) == (t[i] > 0.5))
    target = a.labels[i] if a.labels != NULL else argmax(a.n, t + i * a.n)
    best = argmax(a.n, x + i * a.n)
    return best == target and x[i * a.n + best] == x[i * a.n + best]


cdef inline bint has_class(const loss_args* a, Py_ssize_t i) noexcept nogil:
    """Whether row i's label is one of its columns: the user may have changed it since the check."""
    return a.labels == NULL or 0 <= a.labels[i] < a.n


cdef inline void spoil_row(const loss_args* a, Py_ssize_t i, real* dx) noexcept nogil:
    """A row without a class: NaN is seen, a wrong number is not."""
    cdef Py_ssize_t j
    a.row_losses[i] = NAN
    if a.correct != NULL:
        a.correct[i] = 0
    if dx != NULL:
        for j in range(a.n):
            dx[j] = NAN


cdef inline void loss_rows(const loss_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                           const real* t, real* dx) noexcept nogil:
    cdef Py_ssize_t i, n = a.n
    cdef double weight = 1, scale, loss
    cdef const real* t_row = NULL
    cdef real* dx_row = NULL
    if a.labels != NULL and n <= FEW_CLASSES:
        label_rows(a, begin, end, x, dx)
        return
    for i in range(begin, end):
        if t != NULL:
            t_row = t + i * n
        if dx != NULL:
            dx_row = dx + i * n
        if not has_class(a, i):
            spoil_row(a, i, dx_row)
            continue
        if a.weights != NULL:
            weight = a.weights[i]
        scale = weight * a.scale
        if a.loss == SOFTMAX_CROSS_ENTROPY:
            loss = softmax_cross_entropy_row(
                n, x + i * n, t_row, a.labels[i] if a.labels != NULL else -1, scale, dx_row)
        elif a.loss == BINARY_CROSS_ENTROPY:
            loss = binary_cross_entropy_row(n, x + i * n, t_row, scale, dx_row)
        else:
            loss = squared_error_row(n, x + i * n, t_row, scale, dx_row)
        a.row_losses[i] = weight * loss
        if a.correct != NULL:
            a.correct[i] = row_is_correct(a, i, x, t)


cdef inline void label_rows(const loss_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                            real* dx) noexcept nogil:
    """Softmax cross entropy of few classes, a row per lane."""
    cdef real scores[FEW_CLASSES * MOST_LANES]
    cdef real scales[MOST_LANES]
    cdef double losses[MOST_LANES]
    cdef double weights[MOST_LANES]
    cdef int64_t correct[MOST_LANES]
    cdef int64_t labels[MOST_LANES]
    cdef bint known[MOST_LANES]
    cdef Py_ssize_t n = a.n, width = lanes(x), rows, i
    while begin < end:
        rows = min(width, end - begin)
        if rows < width:
            memset(scores, 0, n * width * sizeof(real))
        transpose(rows, n, x + begin * n, n, scores, width)
        for i in range(width):
            labels[i] = a.labels[begin + i] if i < rows else 0
            weights[i] = a.weights[begin + i] if i < rows and a.weights != NULL else 1
            scales[i] = <real>(weights[i] * a.scale)
            known[i] = 0 <= labels[i] < n    # the user may have changed it since the check
            if not known[i]:
                labels[i] = 0
        cross_entropy_lanes(n, labels, scales, dx != NULL, scores, losses, correct)
        if dx != NULL:
            transpose(n, rows, scores, width, dx + begin * n, n)
        for i in range(rows):
            a.row_losses[begin + i] = weights[i] * losses[i]
            if a.correct != NULL:
                a.correct[begin + i] = correct[i]
            if not known[i]:
                spoil_row(a, begin + i, dx + (begin + i) * n if dx != NULL else dx)
        begin += rows


cdef void loss_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const loss_args* a = <const loss_args*>args
    if a.is_float:
        loss_rows(a, begin, end, <const float*>a.x, <const float*>a.t, <float*>a.dx)
    else:
        loss_rows(a, begin, end, <const double*>a.x, <const double*>a.t, <double*>a.dx)


def rows(const real[:, ::1] x, const real[:, ::1] t, const int64_t[::1] labels, int loss,
         double scale, double[::1] row_losses, int64_t[::1] correct=None, real[:, ::1] dx=None,
         const double[::1] weights=None):
    """Task over rows: row_losses[N], dx[N, C] (or None), correct[N] (or None).

    The targets are t[N, C] or, for softmax cross entropy, labels[N]; the other one is None.
    weights[N] multiply the losses and the gradients of their rows; None is 1 everywhere.
    A label that is not in 0..C-1 makes its row NaN.
    """
    cdef loss_args args
    cdef Py_ssize_t n = x.shape[0], c = x.shape[1]
    expect(SOFTMAX_CROSS_ENTROPY <= loss <= SQUARED_ERROR and (t is None) != (labels is None)
           and (labels is None or loss == SOFTMAX_CROSS_ENTROPY), "loss, t, labels")
    expect((t is None or (t.shape[0] == n and t.shape[1] == c))
           and (labels is None or labels.shape[0] == n)
           and row_losses.shape[0] == n and (correct is None or correct.shape[0] == n)
           and (dx is None or (dx.shape[0] == n and dx.shape[1] == c))
           and (weights is None or weights.shape[0] == n),
           "x, t, labels, row_losses, correct, dx, weights")
    args.n = x.shape[1]
    args.loss = loss
    args.x = &x[0, 0]
    args.t = NULL
    if t is not None:
        args.t = &t[0, 0]
    args.labels = NULL
    if labels is not None:
        args.labels = &labels[0]
    args.weights = NULL
    if weights is not None:
        args.weights = &weights[0]
    args.scale = scale
    args.row_losses = &row_losses[0]
    args.correct = NULL
    if correct is not None:
        args.correct = &correct[0]
    args.dx = NULL
    if dx is not None:
        args.dx = &dx[0, 0]
    args.is_float = real is float
    return new_task(loss_kernel, &args, sizeof(args), x.shape[0], 1, MOST_ROWS,
                    WORK_PER_ELEMENT * args.n,
                    (x.base, None if t is None else t.base,
                     None if labels is None else labels.base, row_losses.base,
                     None if correct is None else correct.base, None if dx is None else dx.base,
                     None if weights is None else weights.base))


cdef struct total_args:
    Py_ssize_t n
    const double* row_losses
    const int64_t* correct
    double scale
    double weight
    double* totals


cdef void total_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const total_args* a = <const total_args*>args
    cdef Py_ssize_t i
    cdef double loss = 0
    cdef int64_t hits = 0
    for i in range(a.n):
        loss += a.row_losses[i]
    a.totals[0] = a.scale * loss
    if a.correct != NULL:
        for i in range(a.n):
            hits += a.correct[i]
        a.totals[1] = hits
    # Running sums, until the caller sets them to 0.
    a.totals[2] += a.totals[0] * a.weight
    a.totals[3] += hits


def total(const double[::1] row_losses, const int64_t[::1] correct, double scale, double weight,
          double[::1] totals):
    """Task of one item: totals[0] = scale sum(row_losses), totals[1] = sum(correct).

    totals[2] grows by weight totals[0], and totals[3] by totals[1]: sums over batches.
    """
    cdef total_args args
    expect((correct is None or correct.shape[0] == row_losses.shape[0]) and totals.shape[0] == 4,
           "row_losses, correct, totals")
    args.n = row_losses.shape[0]
    args.row_losses = &row_losses[0]
    args.correct = NULL
    if correct is not None:
        args.correct = &correct[0]
    args.scale, args.weight = scale, weight
    args.totals = &totals[0]
    return new_task(total_kernel, &args, sizeof(args), 1, 1, 1, 2 * args.n,
                    (row_losses.base, None if correct is None else correct.base, totals.base))
