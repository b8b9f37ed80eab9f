"""One fused function per entry of the tables that updates parameters; see _simd.pxd."""

from cnn_core._simd cimport f32, f64
from cnn_core._types cimport real


cdef inline void sgd_step(
    Py_ssize_t n, real* p, const real* grad, real* velocity, double lr, double momentum,
    bint nesterov, double l2, double decay,
) noexcept nogil:
    if real is float:
        f32.sgd(n, p, grad, velocity, <float>lr, <float>momentum, nesterov, <float>l2, <float>decay)
    else:
        f64.sgd(n, p, grad, velocity, lr, momentum, nesterov, l2, decay)


cdef inline void sgd_product(
    Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, const real* x, Py_ssize_t x_row, const real* dout,
    real* w, double lr, double weight_decay,
) noexcept nogil:
    if real is float:
        f32.sgd_product(m, k, n, x, x_row, dout, w, <float>lr, <float>weight_decay)
    else:
        f64.sgd_product(m, k, n, x, x_row, dout, w, lr, weight_decay)


cdef inline void adam_step(
    Py_ssize_t n, real* p, const real* grad, real* m, real* v, double step, double root,
    double beta1, double beta2, double epsilon, double l2, double decay,
) noexcept nogil:
    if real is float:
        f32.adam(n, p, grad, m, v, <float>step, <float>root, <float>beta1, <float>beta2,
                 <float>epsilon, <float>l2, <float>decay)
    else:
        f64.adam(n, p, grad, m, v, step, root, beta1, beta2, epsilon, l2, decay)


cdef inline void adagrad_step(
    Py_ssize_t n, real* p, const real* grad, real* total, double lr, double epsilon, double l2,
) noexcept nogil:
    if real is float:
        f32.adagrad(n, p, grad, total, <float>lr, <float>epsilon, <float>l2)
    else:
        f64.adagrad(n, p, grad, total, lr, epsilon, l2)


cdef inline void rmsprop_step(
    Py_ssize_t n, real* p, const real* grad, real* square, real* velocity, double lr, double keep,
    double momentum, double epsilon, double l2,
) noexcept nogil:
    if real is float:
        f32.rmsprop(n, p, grad, square, velocity, <float>lr, <float>keep, <float>momentum,
                    <float>epsilon, <float>l2)
    else:
        f64.rmsprop(n, p, grad, square, velocity, lr, keep, momentum, epsilon, l2)


cdef inline void clamp(Py_ssize_t n, double limit, real* x) noexcept nogil:
    if real is float:
        f32.clamp(n, <float>limit, x)
    else:
        f64.clamp(n, limit, x)


cdef inline double sum_squares(Py_ssize_t n, const real* x) noexcept nogil:
    if real is float:
        return f32.sum_squares(n, x)
    else:
        return f64.sum_squares(n, x)
