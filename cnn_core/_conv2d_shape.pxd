"""The shape of a convolution, as its kernels take it."""

from cnn_core._images cimport Layout
from cnn_core._simd cimport lanes, transpose
from cnn_core._types cimport real, round_up


cdef enum:
    MOST_TAPS = 64                # of one call of the micro-kernel
    CACHE_BYTES = 24 << 10        # operands that stay in the nearest cache beside the others


cdef struct conv_args:
    Py_ssize_t groups
    Py_ssize_t inner             # channels of x per group
    Py_ssize_t outer             # channels of y per group
    Py_ssize_t kh
    Py_ssize_t kw
    Py_ssize_t sy
    Py_ssize_t sx
    Py_ssize_t dy
    Py_ssize_t dx
    Py_ssize_t n
    Py_ssize_t out_height
    Py_ssize_t out_width
    Layout x                     # at the top left of the padding
    Layout y
    Layout previous              # of the activation whose derivative is taken last
    const void* x_data
    const void* weights          # packed
    const void* b
    void* y_data
    const void* previous_data
    int activation
    double slope
    const Py_ssize_t* x_taps
    const Py_ssize_t* w_taps
    Py_ssize_t taps
    Py_ssize_t k                 # terms of one tap
    Py_ssize_t images_per_sum
    void* partial
    Py_ssize_t partial_size
    Py_ssize_t copy_size         # of the copy of one image that dW is made from; else 0
    bint flip
    bint is_float


cdef inline Py_ssize_t packed_group(const conv_args* a, Py_ssize_t inner, Py_ssize_t outer,
                                    const real* like) noexcept nogil:
    return a.kh * a.kw * inner * round_up(outer, lanes(like))


cdef inline void kernel_of_channel(const conv_args* a, Py_ssize_t item, Py_ssize_t j0,
                                   Py_ssize_t width, const real* W, real* to,
                                   Py_ssize_t row) noexcept nogil:
    """to[tap row + j] = weight `tap` of filter j0 + j, j < width, and channel `item` of the sum,
    counted over all groups. With a.flip the sum runs over the filters and the kernel is turned
    around, as dx needs it; else over the channels of x."""
    cdef Py_ssize_t area = a.kh * a.kw, g = item // a.inner, i = item - g * a.inner
    if a.flip:
        transpose(width, area, W + (item * a.outer + j0) * area, area, to + (area - 1) * row, -row)
    else:
        transpose(width, area, W + ((g * a.outer + j0) * a.inner + i) * area, a.inner * area, to,
                  row)
