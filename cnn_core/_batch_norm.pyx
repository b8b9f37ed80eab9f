"""Batch normalization of images, or of rows as images of one pixel, per channel.

    y = gamma (x - mean) / sqrt(var + eps) + beta

    training: mean and (biased) variance of the batch; the running ones follow as
              running += momentum (batch - running), with the unbiased variance
    inference: the running ones

    dbeta = sum dy        dgamma = sum dy xhat        xhat = (x - mean) / sqrt(var + eps)
    dx = gamma / sqrt(var + eps) (dy - dbeta / M - xhat dgamma / M)        M = N H W

Sums run over fixed groups of images, whose means and squares are joined in order (Chan et al.,
1979).
Ioffe and Szegedy, Batch normalization (2015); Saito, Deep Learning from Scratch, section 6.3.
"""

from libc.math cimport sqrt
from libc.string cimport memset

from cnn_core._images cimport Images, Layout, images_at_once, pixel
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport add
from cnn_core._simd_images cimport add_products, add_squares, combine
from cnn_core._types cimport real

cdef enum:
    MOST_GROUPS = 32


cdef struct norm_args:
    Py_ssize_t n
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t channels
    Py_ssize_t images_per_group
    Py_ssize_t n_groups
    Layout x
    Layout y
    Layout dx
    const void* x_data
    void* y_data             # y, or dy
    void* dx_data
    void* partial            # [groups, 2, C]: mean and squares, or sum dy and sum dy (x - mean)
    void* table              # [5, C]: mean, 1 / sqrt(var + eps), then factors of `combine`
    const void* gamma
    const void* beta
    void* dgamma
    void* dbeta
    void* running_mean
    void* running_var
    double momentum
    double epsilon
    bint training
    bint is_float


cdef inline Py_ssize_t group_end(const norm_args* a, Py_ssize_t group) noexcept nogil:
    return min((group + 1) * a.images_per_group, a.n)


cdef void moments(const norm_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                  real* partial) noexcept nogil:
    """Mean and sum of squared differences from it for groups begin..end."""
    cdef Py_ssize_t g, n, y, i, c = a.channels, count
    cdef real* mean
    cdef const real* row
    for g in range(begin, end):
        mean = partial + 2 * g * c
        memset(mean, 0, 2 * c * sizeof(real))
        count = (group_end(a, g) - g * a.images_per_group) * a.height * a.width
        for n in range(g * a.images_per_group, group_end(a, g)):
            for y in range(a.height):
                row = pixel(x, &a.x, n, y, 0)
                for i in range(a.width):
                    add(c, row + i * c, mean)
        for i in range(c):
            mean[i] /= count
        for n in range(g * a.images_per_group, group_end(a, g)):
            for y in range(a.height):
                row = pixel(x, &a.x, n, y, 0)
                for i in range(a.width):
                    add_squares(c, row + i * c, mean, mean + c)


cdef void join_moments(const norm_args* a, Py_ssize_t begin, Py_ssize_t end, const real* partial,
                       real* table, const real* gamma, const real* beta, real* running_mean,
                       real* running_var) noexcept nogil:
    """Channels begin..end: moments of the batch, running ones, and the factors of y."""
    cdef Py_ssize_t i, g, c = a.channels, pixels = a.height * a.width
    cdef double count, more, mean, squares, delta
    for i in range(begin, end):
        count, mean, squares = 0, 0, 0
        for g in range(a.n_groups):
            more = (group_end(a, g) - g * a.images_per_group) * pixels
            delta = <double>partial[2 * g * c + i] - mean
            mean += delta * more / (count + more)
            squares += partial[(2 * g + 1) * c + i] + delta * delta * count * more / (count + more)
            count += more
        running_mean[i] += <real>(a.momentum * (mean - running_mean[i]))
        if count > 1:
            running_var[i] += <real>(a.momentum * (squares / (count - 1) - running_var[i]))
        write_factors(a, i, mean, squares / count, table, gamma, beta)


cdef inline void write_factors(const norm_args* a, Py_ssize_t i, double mean, double var,
                               real* table, const real* gamma, const real* beta) noexcept nogil:
    cdef Py_ssize_t c = a.channels
    table[i] = <real>mean
    table[c + i] = <real>(1 / sqrt(var + a.epsilon))
    table[2 * c + i] = <real>(gamma[i] / sqrt(var + a.epsilon))
    table[3 * c + i] = beta[i]


cdef void running_factors(const norm_args* a, Py_ssize_t begin, Py_ssize_t end, real* table,
                          const real* gamma, const real* beta, const real* running_mean,
                          const real* running_var) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(begin, end):
        write_factors(a, i, running_mean[i], running_var[i], table, gamma, beta)


cdef void normalize(const norm_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                    const real* table, real* y) noexcept nogil:
    cdef Py_ssize_t n, row, i, c = a.channels
    cdef const real* source
    cdef real* out
    for n in range(begin, end):
        for row in range(a.height):
            source = pixel(x, &a.x, n, row, 0)
            out = <real*>pixel(y, &a.y, n, row, 0)
            for i in range(a.width):
                combine(c, <const real*>NULL, <const real*>NULL, source + i * c, table + 2 * c,
                        table, table + 3 * c, out + i * c)


cdef void gradient_sums(const norm_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                        const real* dy, const real* mean, real* partial) noexcept nogil:
    """Sums of dy and of dy (x - mean) for groups begin..end."""
    cdef Py_ssize_t g, n, y, i, c = a.channels
    cdef real* sums
    cdef const real* x_row
    cdef const real* dy_row
    for g in range(begin, end):
        sums = partial + 2 * g * c
        memset(sums, 0, 2 * c * sizeof(real))
        for n in range(g * a.images_per_group, group_end(a, g)):
            for y in range(a.height):
                x_row = pixel(x, &a.x, n, y, 0)
                dy_row = pixel(dy, &a.y, n, y, 0)
                for i in range(a.width):
                    add(c, dy_row + i * c, sums)
                    add_products(c, dy_row + i * c, x_row + i * c, mean, sums + c)


cdef void join_gradients(const norm_args* a, Py_ssize_t begin, Py_ssize_t end, const real* partial,
                         real* table, const real* gamma, real* dgamma,
                         real* dbeta) noexcept nogil:
    """dgamma, dbeta, and dx = table[2] dy + table[4] (x - mean) + table[3], the last two being 0
    where mean and variance are not those of the batch."""
    cdef Py_ssize_t i, g, c = a.channels
    cdef double sum_dy, sum_product, scale, count = <double>a.n * a.height * a.width
    for i in range(begin, end):
        sum_dy, sum_product = 0, 0
        for g in range(a.n_groups):
            sum_dy += partial[2 * g * c + i]
            sum_product += partial[(2 * g + 1) * c + i]
        scale = table[c + i]
        dbeta[i] = <real>sum_dy
        dgamma[i] = <real>(sum_product * scale)
        table[2 * c + i] = <real>(gamma[i] * scale)
        if not a.training:
            sum_dy, sum_product = 0, 0
        table[3 * c + i] = <real>(-gamma[i] * scale * sum_dy / count)
        table[4 * c + i] = <real>(-gamma[i] * scale * scale * scale * sum_product / count)


cdef void input_gradients(const norm_args* a, Py_ssize_t begin, Py_ssize_t end, const real* x,
                          const real* dy, const real* table, real* dx) noexcept nogil:
    cdef Py_ssize_t n, row, i, c = a.channels
    for n in range(begin, end):
        for row in range(a.height):
            for i in range(a.width):
                combine(c, pixel(dy, &a.y, n, row, i), table + 2 * c, pixel(x, &a.x, n, row, i),
                        table + 4 * c, table, table + 3 * c,
                        <real*>pixel(dx, &a.dx, n, row, i))


cdef void moments_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const norm_args* a = <const norm_args*>args
    if a.is_float:
        moments(a, begin, end, <const float*>a.x_data, <float*>a.partial)
    else:
        moments(a, begin, end, <const double*>a.x_data, <double*>a.partial)


cdef void join_moments_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const norm_args* a = <const norm_args*>args
    if a.is_float:
        join_moments(a, begin, end, <const float*>a.partial, <float*>a.table,
                     <const float*>a.gamma, <const float*>a.beta, <float*>a.running_mean,
                     <float*>a.running_var)
    else:
        join_moments(a, begin, end, <const double*>a.partial, <double*>a.table,
                     <const double*>a.gamma, <const double*>a.beta, <double*>a.running_mean,
                     <double*>a.running_var)


cdef void running_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const norm_args* a = <const norm_args*>args
    if a.is_float:
        running_factors(a, begin, end, <float*>a.table, <const float*>a.gamma,
                        <const float*>a.beta, <const float*>a.running_mean,
                        <const float*>a.running_var)
    else:
        running_factors(a, begin, end, <double*>a.table, <const double*>a.gamma,
                        <const double*>a.beta, <const double*>a.running_mean,
                        <const double*>a.running_var)


cdef void normalize_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const norm_args* a = <const norm_args*>args
    if a.is_float:
        normalize(a, begin, end, <const float*>a.x_data, <const float*>a.table, <float*>a.y_data)
    else:
        normalize(a, begin, end, <const double*>a.x_data, <const double*>a.table,
                  <double*>a.y_data)


cdef void gradient_sums_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const norm_args* a = <const norm_args*>args
    if a.is_float:
        gradient_sums(a, begin, end, <const float*>a.x_data, <const float*>a.y_data,
                      <const float*>a.table, <float*>a.partial)
    else:
        gradient_sums(a, begin, end, <const double*>a.x_data, <const double*>a.y_data,
                      <const double*>a.table, <double*>a.partial)


cdef void join_gradients_kernel(const void* args, Py_ssize_t begin,
                                Py_ssize_t end) noexcept nogil:
    cdef const norm_args* a = <const norm_args*>args
    if a.is_float:
        join_gradients(a, begin, end, <const float*>a.partial, <float*>a.table,
                       <const float*>a.gamma, <float*>a.dgamma, <float*>a.dbeta)
    else:
        join_gradients(a, begin, end, <const double*>a.partial, <double*>a.table,
                       <const double*>a.gamma, <double*>a.dgamma, <double*>a.dbeta)


cdef void input_gradients_kernel(const void* args, Py_ssize_t begin,
                                 Py_ssize_t end) noexcept nogil:
    cdef const norm_args* a = <const norm_args*>args
    if a.is_float:
        input_gradients(a, begin, end, <const float*>a.x_data, <const float*>a.y_data,
                        <const float*>a.table, <float*>a.dx_data)
    else:
        input_gradients(a, begin, end, <const double*>a.x_data, <const double*>a.y_data,
                        <const double*>a.table, <double*>a.dx_data)


cdef norm_args shape_of(Images x, Images y):
    cdef norm_args args
    memset(&args, 0, sizeof(args))
    if x.shape != y.shape or x.is_float != y.is_float:
        raise ValueError("images: expected one shape and dtype")
    args.n, args.height, args.width, args.channels = x.n, x.height, x.width, x.channels
    args.images_per_group = max((x.n + MOST_GROUPS - 1) // MOST_GROUPS, 4)
    args.n_groups = (x.n + args.images_per_group - 1) // args.images_per_group
    args.x, args.y = x.layout, y.layout
    args.x_data, args.y_data = x.data, y.data
    args.is_float = x.is_float
    return args


cdef check_sizes(tuple sizes, norm_args args, Py_ssize_t factors, Py_ssize_t n_groups,
                 Py_ssize_t sums):
    if (any(size != args.channels for size in sizes) or factors != 5 or n_groups < args.n_groups
            or sums != 2):
        raise ValueError("arrays: expected as many channels as the images have")


def forward(Images x, Images y, const real[::1] gamma, const real[::1] beta,
            real[::1] running_mean, real[::1] running_var, real[:, ::1] table,
            real[:, :, ::1] partial, double momentum, double epsilon, bint training):
    """Stages of tasks: y = normalized x. table[5, C], partial[`groups`, 2, C] (training only)."""
    cdef norm_args args = shape_of(x, y)
    cdef Py_ssize_t c = args.channels
    sizes = (gamma.shape[0], beta.shape[0], running_mean.shape[0], running_var.shape[0],
             table.shape[1], partial.shape[2])
    check_sizes(sizes, args, table.shape[0], partial.shape[0], partial.shape[1])
    args.gamma, args.beta, args.table = &gamma[0], &beta[0], &table[0, 0]
    args.running_mean, args.running_var = &running_mean[0], &running_var[0]
    args.partial = &partial[0, 0, 0]
    args.momentum, args.epsilon = momentum, epsilon
    keep = (x, y, gamma.base, beta.base, running_mean.base, running_var.base, table.base,
            partial.base)
    work = 4.0 * x.height * x.width * c
    last = new_task(normalize_kernel, &args, sizeof(args), args.n, 1, images_at_once(x, y), work,
                    keep)
    if not training:
        return [new_task(running_kernel, &args, sizeof(args), c, 16, 64, 20, keep), last]
    return [
        new_task(moments_kernel, &args, sizeof(args), args.n_groups, 1, 1,
                 work * args.images_per_group, keep),
        new_task(join_moments_kernel, &args, sizeof(args), c, 16, 64, 10 * args.n_groups, keep),
        last,
    ]


def backward(Images x, Images dy, Images dx, const real[::1] gamma, real[:, ::1] table,
             real[:, :, ::1] partial, real[::1] dgamma, real[::1] dbeta, bint training):
    """Stages of tasks: dgamma, dbeta and dx (which may be dy) after the forward pass."""
    cdef norm_args args = shape_of(x, dy)
    cdef Py_ssize_t c = args.channels
    if dx.shape != x.shape or dx.is_float != x.is_float:
        raise ValueError("dx: expected the shape and dtype of x")
    sizes = (gamma.shape[0], dgamma.shape[0], dbeta.shape[0], table.shape[1], partial.shape[2])
    check_sizes(sizes, args, table.shape[0], partial.shape[0], partial.shape[1])
    args.dx, args.dx_data = dx.layout, dx.data
    args.training = training
    args.gamma, args.table, args.partial = &gamma[0], &table[0, 0], &partial[0, 0, 0]
    args.dgamma, args.dbeta = &dgamma[0], &dbeta[0]
    keep = (x, dy, dx, gamma.base, table.base, partial.base, dgamma.base, dbeta.base)
    work = 4.0 * x.height * x.width * c
    return [
        new_task(gradient_sums_kernel, &args, sizeof(args), args.n_groups, 1, 1,
                 work * args.images_per_group, keep),
        new_task(join_gradients_kernel, &args, sizeof(args), c, 16, 64, 10 * args.n_groups, keep),
        new_task(input_gradients_kernel, &args, sizeof(args), args.n, 1, images_at_once(x, dx),
                 work, keep),
    ]


def groups(Py_ssize_t n):
    """The first size of `partial` for n images."""
    per_group = max((n + MOST_GROUPS - 1) // MOST_GROUPS, 4)
    return (n + per_group - 1) // per_group
