"""Parameter updates over flat arrays, in one pass; and the clipping of gradients before them.

SGD: g = grad + l2 p; v = momentum v + g; p -= lr (decay p + (nesterov ? g + momentum v : v)).
Sutskever et al., On the importance of initialization and momentum in deep learning (2013), in the
form that PyTorch uses; decay: Loshchilov and Hutter, Decoupled weight decay (2019).
"""

from libc.math cimport sqrt
from libc.string cimport memset

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport scale_f32, scale_f64
from cnn_core._simd_updates cimport (
    adagrad_step, adam_step, clamp, rmsprop_step, sgd_product, sgd_step, sum_squares,
)
from cnn_core._types cimport real

cdef enum:
    CHUNK = 8192
    SQUARES_PER_SUM = 4096    # of a norm: fixed, so that its bits do not depend on the threads


cdef struct sgd_args:
    void* params
    const void* grads
    void* velocity
    const double* lr
    double lr_multiplier
    double momentum
    bint nesterov
    double l2
    double decay
    Py_ssize_t row       # elements of one item
    bint is_float


cdef inline void sgd_range(const sgd_args* a, Py_ssize_t begin, Py_ssize_t end, real* params,
                           const real* grads, real* velocity) noexcept nogil:
    cdef double rate = a.lr[0] * a.lr_multiplier
    sgd_step(end - begin, params + begin, grads + begin,
             velocity + begin if velocity != NULL else velocity, rate, a.momentum, a.nesterov, a.l2,
             rate * a.decay)


cdef void sgd_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const sgd_args* a = <const sgd_args*>args
    begin, end = begin * a.row, end * a.row
    if a.is_float:
        sgd_range(a, begin, end, <float*>a.params, <const float*>a.grads, <float*>a.velocity)
    else:
        sgd_range(a, begin, end, <double*>a.params, <const double*>a.grads, <double*>a.velocity)


def sgd(real[::1] params, const real[::1] grads, real[::1] velocity, const double[::1] lr,
        double lr_multiplier, double momentum, bint nesterov, double l2, double decay,
        Py_ssize_t row=1):
    """Task over rows of elements: one step of SGD with the learning rate lr[0] * lr_multiplier.

    velocity may be None where momentum is 0. lr is read at each run, so that it may change.
    """
    cdef sgd_args args
    memset(&args, 0, sizeof(args))
    expect(grads.shape[0] == params.shape[0] and lr.shape[0] == 1
           and (momentum == 0 if velocity is None else velocity.shape[0] == params.shape[0]),
           "params, grads, velocity")
    args.params = &params[0]
    args.grads = &grads[0]
    args.velocity = NULL
    if velocity is not None:
        args.velocity = &velocity[0]
    args.lr = &lr[0]
    args.lr_multiplier = lr_multiplier
    args.momentum = momentum
    args.nesterov = nesterov
    args.l2, args.decay = l2, decay
    args.row = row
    args.is_float = real is float
    return new_task(sgd_kernel, &args, sizeof(args), whole_rows(params.shape[0], row),
                    64 if row == 1 else 1, max(CHUNK // row, 1), 4 * row,
                    (params.base, grads.base, None if velocity is None else velocity.base,
                     lr.base))


cdef struct sgd_product_args:
    Py_ssize_t n_rows
    Py_ssize_t n_in
    Py_ssize_t n_out
    const void* x
    const void* dout
    void* W
    const double* lr
    double lr_multiplier
    double weight_decay
    bint is_float


cdef inline void sgd_product_rows(const sgd_product_args* a, Py_ssize_t begin, Py_ssize_t end,
                                  const real* x, const real* dout, real* W) noexcept nogil:
    sgd_product(a.n_rows, end - begin, a.n_out, x + begin, a.n_in, dout, W + begin * a.n_out,
                a.lr[0] * a.lr_multiplier, a.weight_decay)


cdef void sgd_product_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const sgd_product_args* a = <const sgd_product_args*>args
    if a.is_float:
        sgd_product_rows(a, begin, end, <const float*>a.x, <const float*>a.dout, <float*>a.W)
    else:
        sgd_product_rows(a, begin, end, <const double*>a.x, <const double*>a.dout, <double*>a.W)


def sgd_of_product(const real[:, ::1] x, const real[:, ::1] dout, real[:, ::1] W,
                   const double[::1] lr, double lr_multiplier, double weight_decay):
    """Task over rows of W: the step of `sgd` without momentum for the gradient x^T dout, which is
    not stored. For few samples: each is read again for every row.
    """
    cdef sgd_product_args args
    expect(x.shape[0] == dout.shape[0] and W.shape[0] == x.shape[1]
           and W.shape[1] == dout.shape[1] and lr.shape[0] == 1, "x, dout, W")
    args.n_rows = x.shape[0]
    args.n_in = x.shape[1]
    args.n_out = dout.shape[1]
    args.x = &x[0, 0]
    args.dout = &dout[0, 0]
    args.W = &W[0, 0]
    args.lr = &lr[0]
    args.lr_multiplier = lr_multiplier
    args.weight_decay = weight_decay
    args.is_float = real is float
    return new_task(sgd_product_kernel, &args, sizeof(args), args.n_in, 1,
                    max(4 * CHUNK // args.n_out, 1), <double>args.n_rows * args.n_out / 8,
                    (x.base, dout.base, W.base, lr.base))


cdef Py_ssize_t whole_rows(Py_ssize_t size, Py_ssize_t row) except -1:
    if row < 1 or size % row:
        raise ValueError(f"row: expected a divisor of {size}, got {row}")
    return size // row


cdef struct adam_args:
    void* params
    const void* grads
    void* m
    void* v
    const double* lr
    const double* corrections    # 1 - beta1^t and 1 - beta2^t, written by `adam_clock`
    double lr_multiplier
    double beta1
    double beta2
    double epsilon
    double l2
    double decay
    Py_ssize_t row       # elements of one item
    bint is_float


cdef inline void adam_range(const adam_args* a, Py_ssize_t begin, Py_ssize_t end, real* params,
                            const real* grads, real* m, real* v) noexcept nogil:
    cdef double rate = a.lr[0] * a.lr_multiplier
    adam_step(end - begin, params + begin, grads + begin, m + begin, v + begin,
              rate / a.corrections[0], 1 / sqrt(a.corrections[1]), a.beta1, a.beta2, a.epsilon,
              a.l2, rate * a.decay)


cdef void adam_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const adam_args* a = <const adam_args*>args
    begin, end = begin * a.row, end * a.row
    if a.is_float:
        adam_range(a, begin, end, <float*>a.params, <const float*>a.grads, <float*>a.m,
                   <float*>a.v)
    else:
        adam_range(a, begin, end, <double*>a.params, <const double*>a.grads, <double*>a.m,
                   <double*>a.v)


def adam(real[::1] params, const real[::1] grads, real[::1] m, real[::1] v, const double[::1] lr,
         const double[::1] corrections, double lr_multiplier, double beta1, double beta2,
         double epsilon, double l2, double decay, Py_ssize_t row=1):
    """Task over rows of elements: one step of Adam; `adam_clock` must have run before it.

    g = grad + l2 p; m += (1 - beta1) (g - m); v += (1 - beta2) (g^2 - v);
    p -= rate (decay p + mhat / (sqrt(vhat) + epsilon)).
    Kingma and Ba, Adam (2015); decay: Loshchilov and Hutter, Decoupled weight decay (2019).
    """
    cdef adam_args args
    memset(&args, 0, sizeof(args))
    expect(grads.shape[0] == m.shape[0] == v.shape[0] == params.shape[0] and lr.shape[0] == 1
           and corrections.shape[0] == 2, "params, grads, m, v")
    args.params, args.grads, args.m, args.v = &params[0], &grads[0], &m[0], &v[0]
    args.lr, args.corrections = &lr[0], &corrections[0]
    args.lr_multiplier, args.beta1, args.beta2 = lr_multiplier, beta1, beta2
    args.epsilon, args.l2, args.decay = epsilon, l2, decay
    args.row = row
    args.is_float = real is float
    return new_task(adam_kernel, &args, sizeof(args), whole_rows(params.shape[0], row),
                    64 if row == 1 else 1, max(CHUNK // row, 1), 10 * row,
                    (params.base, grads.base, m.base, v.base, lr.base, corrections.base))


cdef struct clock_args:
    double* corrections
    double* steps
    double beta1
    double beta2


cdef void clock_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const clock_args* a = <const clock_args*>args
    a.steps[0] += 1
    a.corrections[0] = 1 - a.beta1 ** a.steps[0]
    a.corrections[1] = 1 - a.beta2 ** a.steps[0]


def adam_clock(double[::1] corrections, double[::1] steps, double beta1, double beta2):
    """Task of one item: counts a step and computes 1 - beta^t."""
    cdef clock_args args
    expect(corrections.shape[0] == 2 and steps.shape[0] == 1, "corrections, steps")
    args.corrections, args.steps = &corrections[0], &steps[0]
    args.beta1, args.beta2 = beta1, beta2
    return new_task(clock_kernel, &args, sizeof(args), 1, 1, 1, 100,
                    (corrections.base, steps.base))


cdef struct adagrad_args:
    void* params
    const void* grads
    void* total
    const double* lr
    double lr_multiplier
    double epsilon
    double l2
    Py_ssize_t row       # elements of one item
    bint is_float


cdef inline void adagrad_range(const adagrad_args* a, Py_ssize_t begin, Py_ssize_t end,
                               real* params, const real* grads, real* total) noexcept nogil:
    adagrad_step(end - begin, params + begin, grads + begin, total + begin,
                 a.lr[0] * a.lr_multiplier, a.epsilon, a.l2)


cdef void adagrad_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const adagrad_args* a = <const adagrad_args*>args
    begin, end = begin * a.row, end * a.row
    if a.is_float:
        adagrad_range(a, begin, end, <float*>a.params, <const float*>a.grads, <float*>a.total)
    else:
        adagrad_range(a, begin, end, <double*>a.params, <const double*>a.grads, <double*>a.total)


def adagrad(real[::1] params, const real[::1] grads, real[::1] total, const double[::1] lr,
            double lr_multiplier, double epsilon, double l2, Py_ssize_t row=1):
    """Task over rows of elements: one step of AdaGrad.

    g = grad + l2 p; total += g^2; p -= lr g / (sqrt(total) + epsilon).
    Duchi, Hazan and Singer, Adaptive subgradient methods (2011).
    """
    cdef adagrad_args args
    memset(&args, 0, sizeof(args))
    expect(grads.shape[0] == total.shape[0] == params.shape[0] and lr.shape[0] == 1,
           "params, grads, total")
    args.params, args.grads, args.total = &params[0], &grads[0], &total[0]
    args.lr, args.lr_multiplier = &lr[0], lr_multiplier
    args.epsilon, args.l2 = epsilon, l2
    args.row = row
    args.is_float = real is float
    return new_task(adagrad_kernel, &args, sizeof(args), whole_rows(params.shape[0], row),
                    64 if row == 1 else 1, max(CHUNK // row, 1), 8 * row,
                    (params.base, grads.base, total.base, lr.base))


cdef struct rmsprop_args:
    void* params
    const void* grads
    void* square
    void* velocity       # or NULL
    const double* lr
    double lr_multiplier
    double keep
    double momentum
    double epsilon
    double l2
    Py_ssize_t row       # elements of one item
    bint is_float


cdef inline void rmsprop_range(const rmsprop_args* a, Py_ssize_t begin, Py_ssize_t end,
                               real* params, const real* grads, real* square,
                               real* velocity) noexcept nogil:
    rmsprop_step(end - begin, params + begin, grads + begin, square + begin,
                 velocity + begin if velocity != NULL else velocity, a.lr[0] * a.lr_multiplier,
                 a.keep, a.momentum, a.epsilon, a.l2)


cdef void rmsprop_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const rmsprop_args* a = <const rmsprop_args*>args
    begin, end = begin * a.row, end * a.row
    if a.is_float:
        rmsprop_range(a, begin, end, <float*>a.params, <const float*>a.grads, <float*>a.square,
                      <float*>a.velocity)
    else:
        rmsprop_range(a, begin, end, <double*>a.params, <const double*>a.grads,
                      <double*>a.square, <double*>a.velocity)


def rmsprop(real[::1] params, const real[::1] grads, real[::1] square, real[::1] velocity,
            const double[::1] lr, double lr_multiplier, double keep, double momentum,
            double epsilon, double l2, Py_ssize_t row=1):
    """Task over rows of elements: one step of RMSprop.

    g = grad + l2 p; square = keep square + (1 - keep) g^2; step = g / (sqrt(square) + epsilon);
    p -= lr step, or with a velocity (which may be None) v = momentum v + step; p -= lr v.
    Tieleman and Hinton, Lecture 6.5 of Neural networks for machine learning (2012).
    """
    cdef rmsprop_args args
    memset(&args, 0, sizeof(args))
    expect(grads.shape[0] == square.shape[0] == params.shape[0] and lr.shape[0] == 1
           and (momentum == 0 if velocity is None else velocity.shape[0] == params.shape[0]),
           "params, grads, square, velocity")
    args.params, args.grads, args.square = &params[0], &grads[0], &square[0]
    args.velocity = NULL
    if velocity is not None:
        args.velocity = &velocity[0]
    args.lr, args.lr_multiplier = &lr[0], lr_multiplier
    args.keep, args.momentum, args.epsilon, args.l2 = keep, momentum, epsilon, l2
    args.row = row
    args.is_float = real is float
    return new_task(rmsprop_kernel, &args, sizeof(args), whole_rows(params.shape[0], row),
                    64 if row == 1 else 1, max(CHUNK // row, 1), 10 * row,
                    (params.base, grads.base, square.base,
                     None if velocity is None else velocity.base, lr.base))


cdef struct clip_args:
    void* grads
    const double* factor    # written by `norm_factor`, or NULL: clamp to -limit..limit
    double limit
    Py_ssize_t row          # elements of one item
    bint is_float


cdef inline void clip_range(const clip_args* a, Py_ssize_t n, real* grads) noexcept nogil:
    if a.factor == NULL:
        clamp(n, a.limit, grads)
    elif a.factor[0] != 1:
        if real is float:
            scale_f32(n, grads, a.factor[0], grads)
        else:
            scale_f64(n, grads, a.factor[0], grads)


cdef void clip_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const clip_args* a = <const clip_args*>args
    if a.is_float:
        clip_range(a, (end - begin) * a.row, <float*>a.grads + begin * a.row)
    else:
        clip_range(a, (end - begin) * a.row, <double*>a.grads + begin * a.row)


def clip(real[::1] grads, const double[::1] factor, double limit, Py_ssize_t row=1):
    """Task over rows of elements: grads *= factor[0], or where factor is None, each element is
    moved into -limit..limit.
    """
    cdef clip_args args
    memset(&args, 0, sizeof(args))
    expect(factor is None or factor.shape[0] == 1, "factor")
    args.grads = &grads[0]
    args.factor = NULL
    if factor is not None:
        args.factor = &factor[0]
    args.limit = limit
    args.row = row
    args.is_float = real is float
    return new_task(clip_kernel, &args, sizeof(args), whole_rows(grads.shape[0], row),
                    64 if row == 1 else 1, max(CHUNK // row, 1), row,
                    (grads.base, None if factor is None else factor.base))


cdef struct squares_args:
    const void* grads
    Py_ssize_t size
    double* sums
    bint is_float


cdef void squares_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const squares_args* a = <const squares_args*>args
    cdef Py_ssize_t i, at, n
    for i in range(begin, end):
        at = i * SQUARES_PER_SUM
        n = min(a.size - at, <Py_ssize_t>SQUARES_PER_SUM)
        if a.is_float:
            a.sums[i] = sum_squares(n, <const float*>a.grads + at)
        else:
            a.sums[i] = sum_squares(n, <const double*>a.grads + at)


def squares(const real[::1] grads, double[::1] sums):
    """Task over sums: sums[i] = sum of grads^2 over the i-th SQUARES_PER_SUM elements."""
    cdef squares_args args
    expect(sums.shape[0] == square_sums(grads.shape[0]), "grads, sums")
    args.grads, args.size, args.sums = &grads[0], grads.shape[0], &sums[0]
    args.is_float = real is float
    return new_task(squares_kernel, &args, sizeof(args), sums.shape[0], 1, 4, SQUARES_PER_SUM,
                    (grads.base, sums.base))


cpdef Py_ssize_t square_sums(Py_ssize_t size):
    """How many sums `squares` writes for so many elements."""
    return (size + SQUARES_PER_SUM - 1) // SQUARES_PER_SUM


cdef struct factor_args:
    const double* sums
    Py_ssize_t n
    double limit
    double* factor


cdef void factor_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const factor_args* a = <const factor_args*>args
    cdef Py_ssize_t i
    cdef double total = 0, factor
    for i in range(a.n):
        total += a.sums[i]
    factor = a.limit / (sqrt(total) + 1e-6)
    # A NaN, which no comparison finds, goes on into all gradients.
    a.factor[0] = 1 if factor > 1 else factor


def norm_factor(const double[::1] sums, double limit, double[::1] factor):
    """Task of one item: factor[0] = min(1, limit / (norm + 1e-6)), norm = sqrt(sum of sums).

    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks (2013), in
    the form that PyTorch uses.
    """
    cdef factor_args args
    expect(factor.shape[0] == 1, "factor")
    args.sums, args.n, args.limit, args.factor = &sums[0], sums.shape[0], limit, &factor[0]
    return new_task(factor_kernel, &args, sizeof(args), 1, 1, 1, args.n, (sums.base, factor.base))
