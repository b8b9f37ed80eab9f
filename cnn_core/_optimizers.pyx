"""Parameter updates over flat arrays, in one pass.

SGD: g = grad + weight_decay p; v = momentum v + g; p -= lr (nesterov ? g + momentum v : v).
Sutskever et al., On the importance of initialization and momentum in deep learning (2013), in the
form that PyTorch uses.
"""

from libc.math cimport sqrt

from cnn_core._bounds cimport expect
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport adam_step, sgd_step
from cnn_core._types cimport real

cdef enum:
    CHUNK = 8192


cdef struct sgd_args:
    void* params
    const void* grads
    void* velocity
    const double* lr
    double lr_multiplier
    double momentum
    bint nesterov
    double weight_decay
    Py_ssize_t row       # elements of one item
    bint is_float


cdef inline void sgd_range(const sgd_args* a, Py_ssize_t begin, Py_ssize_t end, real* params,
                           const real* grads, real* velocity) noexcept nogil:
    sgd_step(end - begin, params + begin, grads + begin,
             velocity + begin if velocity != NULL else velocity, a.lr[0] * a.lr_multiplier,
             a.momentum, a.nesterov, a.weight_decay)


cdef void sgd_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const sgd_args* a = <const sgd_args*>args
    begin, end = begin * a.row, end * a.row
    if a.is_float:
        sgd_range(a, begin, end, <float*>a.params, <const float*>a.grads, <float*>a.velocity)
    else:
        sgd_range(a, begin, end, <double*>a.params, <const double*>a.grads, <double*>a.velocity)


def sgd(real[::1] params, const real[::1] grads, real[::1] velocity, const double[::1] lr,
        double lr_multiplier, double momentum, bint nesterov, double weight_decay,
        Py_ssize_t row=1):
    """Task over rows of elements: one step of SGD with the learning rate lr[0] * lr_multiplier.

    velocity may be None where momentum is 0. lr is read at each run, so that it may change.
    """
    cdef sgd_args args
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
    args.weight_decay = weight_decay
    args.row = row
    args.is_float = real is float
    return new_task(sgd_kernel, &args, sizeof(args), whole_rows(params.shape[0], row),
                    64 if row == 1 else 1, max(CHUNK // row, 1), 4 * row,
                    (params.base, grads.base, None if velocity is None else velocity.base,
                     lr.base))


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
