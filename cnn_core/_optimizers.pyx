"""Parameter updates over flat arrays, in one pass.

SGD: g = grad + weight_decay p; v = momentum v + g; p -= lr (nesterov ? g + momentum v : v).
Sutskever et al., On the importance of initialization and momentum in deep learning (2013), in the
form that PyTorch uses.
"""

from cnn_core._parallel cimport new_task
from cnn_core._simd cimport sgd_step
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
    bint is_float


cdef inline void sgd_range(const sgd_args* a, Py_ssize_t begin, Py_ssize_t end, real* params,
                           const real* grads, real* velocity) noexcept nogil:
    sgd_step(end - begin, params + begin, grads + begin,
             velocity + begin if velocity != NULL else velocity, a.lr[0] * a.lr_multiplier,
             a.momentum, a.nesterov, a.weight_decay)


cdef void sgd_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const sgd_args* a = <const sgd_args*>args
    if a.is_float:
        sgd_range(a, begin, end, <float*>a.params, <const float*>a.grads, <float*>a.velocity)
    else:
        sgd_range(a, begin, end, <double*>a.params, <const double*>a.grads, <double*>a.velocity)


def sgd(real[::1] params, const real[::1] grads, real[::1] velocity, const double[::1] lr,
        double lr_multiplier, double momentum, bint nesterov, double weight_decay):
    """Task over elements: one step of SGD with the learning rate lr[0] * lr_multiplier.

    velocity may be None where momentum is 0. lr is read at each run, so that it may change.
    """
    cdef sgd_args args
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
    args.is_float = real is float
    return new_task(sgd_kernel, &args, sizeof(args), params.shape[0], 64, CHUNK, 4,
                    (params.base, grads.base, None if velocity is None else velocity.base,
                     lr.base))
