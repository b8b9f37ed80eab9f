# cython: language_level=3, boundscheck=False, wraparound=False
"""The C level of cnn_core for the tests: every call takes addresses and trusts them.

`single` chooses float (else double). `use_isa` chooses the tables for these calls and, until it is
called again, for everything else in the process.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, mmap, mprotect, munmap,
)
from posix.unistd cimport usleep

from cnn_core cimport _simd
from cnn_core._affine cimport affine_forward_rows
from cnn_core._affine_gradient cimport (
    affine_input_gradient_columns, affine_input_gradient_rows, affine_weight_gradient_rows,
    column_sums,
)
from cnn_core._gemm cimport (
    multiply_add, multiply_add_packed, pack_transposed_panel, packed_elements,
)
from cnn_core._parallel cimport Program, new_task
from cnn_core._simd cimport simd_f32, simd_f64
from cnn_core._sparse cimport sparse_forward_rows, sparse_weight_gradient_rows, transpose_columns


cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()


ctypedef size_t address


# ---- tables --------------------------------------------------------------------------------------

cdef const simd_f32* f32 = _simd.f32
cdef const simd_f64* f64 = _simd.f64


def use_isa(Py_ssize_t number):
    """Take the tables of cnn_core._simd.supported_isas()[number]."""
    global f32, f64
    f32 = _simd.f32 = _simd.isas[number].f32
    f64 = _simd.f64 = _simd.isas[number].f64


def sizes(bint single):
    """Lanes, most columns, and rows and vectors of `product_nonzeros`."""
    if single:
        return f32.lanes, f32.max_columns, f32.nonzero_rows, f32.listed_vectors
    return f64.lanes, f64.max_columns, f64.nonzero_rows, f64.listed_vectors


# ---- the entries of the table --------------------------------------------------------------------


def product(bint single, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, address a, Py_ssize_t a_row,
            Py_ssize_t a_col, address b, Py_ssize_t b_row, address c, Py_ssize_t c_row):
    cdef Py_ssize_t at = 0    # one tap
    product_taps(single, m, n, k, 1, a, <address>&at, a_row, a_col, b, <address>&at, b_row, 0, c,
                 c_row, 0)


def product_sparse(bint single, Py_ssize_t m, Py_ssize_t taps, Py_ssize_t n, address ends,
                   address values, address rows, address b, Py_ssize_t b_row, Py_ssize_t b_tap,
                   address start, address c, address c_at, Py_ssize_t c_tap):
    if single:
        f32.product_sparse(m, taps, n, <int32_t*>ends, <float*>values, <int32_t*>rows, <float*>b,
                           b_row, b_tap, <float*>start, <float*>c, <int32_t*>c_at, c_tap)
    else:
        f64.product_sparse(m, taps, n, <int32_t*>ends, <double*>values, <int32_t*>rows, <double*>b,
                           b_row, b_tap, <double*>start, <double*>c, <int32_t*>c_at, c_tap)


def product_nonzeros(bint single, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, address a,
                     Py_ssize_t a_row, Py_ssize_t a_col, address b, Py_ssize_t b_row,
                     Py_ssize_t b_columns, address start, Py_ssize_t start_row, address c,
                     Py_ssize_t c_row, Py_ssize_t most, address room, address ahead):
    if single:
        return f32.product_nonzeros(m, n, k, <float*>a, a_row, a_col, <float*>b, b_row, b_columns,
                                    <float*>start, start_row, <float*>c, c_row, most,
                                    <uint64_t*>room, <const float*const*>ahead)
    else:
        return f64.product_nonzeros(m, n, k, <double*>a, a_row, a_col, <double*>b, b_row,
                                    b_columns, <double*>start, start_row, <double*>c, c_row, most,
                                    <uint64_t*>room, <const double*const*>ahead)


def pick_any(bint single, Py_ssize_t m, Py_ssize_t n, address a, Py_ssize_t a_row, address at):
    if single:
        return f32.pick_any(m, n, <float*>a, a_row, <int32_t*>at)
    else:
        return f64.pick_any(m, n, <double*>a, a_row, <int32_t*>at)


def nonzero_bits(bint single, Py_ssize_t n, address x):
    return f32.nonzero_bits(n, <float*>x) if single else f64.nonzero_bits(n, <double*>x)


def activate(bint single, int kind, double slope, Py_ssize_t n, address x, address y):
    if single:
        f32.activate(kind, <float>slope, n, <float*>x, <float*>y)
    else:
        f64.activate(kind, slope, n, <double*>x, <double*>y)


def activate_backward(bint single, int kind, double slope, Py_ssize_t n, address y, address dout,
                      address dx):
    if single:
        f32.activate_backward(kind, <float>slope, n, <float*>y, <float*>dout, <float*>dx)
    else:
        f64.activate_backward(kind, slope, n, <double*>y, <double*>dout, <double*>dx)


def softmax(bint single, Py_ssize_t n, address x, address y):
    if single:
        f32.softmax(n, <float*>x, <float*>y)
    else:
        f64.softmax(n, <double*>x, <double*>y)


def softmax_backward(bint single, Py_ssize_t n, address y, address dout, address dx):
    if single:
        f32.softmax_backward(n, <float*>y, <float*>dout, <float*>dx)
    else:
        f64.softmax_backward(n, <double*>y, <double*>dout, <double*>dx)


def softmax_cross_entropy(bint single, Py_ssize_t n, address x, address t, Py_ssize_t label,
                          double scale, address dx):
    if single:
        return f32.softmax_cross_entropy(n, <float*>x, <float*>t, label, <float>scale, <float*>dx)
    return f64.softmax_cross_entropy(n, <double*>x, <double*>t, label, scale, <double*>dx)


def cross_entropy_lanes(bint single, Py_ssize_t n, address labels, address scales, bint gradient,
                        address x, address losses, address correct):
    if single:
        f32.cross_entropy_lanes(n, <int64_t*>labels, <float*>scales, gradient, <float*>x,
                                <double*>losses, <int64_t*>correct)
    else:
        f64.cross_entropy_lanes(n, <int64_t*>labels, <double*>scales, gradient, <double*>x,
                                <double*>losses, <int64_t*>correct)


def binary_cross_entropy(bint single, Py_ssize_t n, address x, address t, double scale,
                         address dx):
    if single:
        return f32.binary_cross_entropy(n, <float*>x, <float*>t, <float>scale, <float*>dx)
    return f64.binary_cross_entropy(n, <double*>x, <double*>t, scale, <double*>dx)


def squared_error(bint single, Py_ssize_t n, address y, address t, double scale, address dy):
    if single:
        return f32.squared_error(n, <float*>y, <float*>t, <float>scale, <float*>dy)
    return f64.squared_error(n, <double*>y, <double*>t, scale, <double*>dy)


def argmax(bint single, Py_ssize_t n, address x):
    return f32.argmax(n, <float*>x) if single else f64.argmax(n, <double*>x)


def add(bint single, Py_ssize_t n, address x, address y):
    if single:
        f32.add(n, <float*>x, <float*>y)
    else:
        f64.add(n, <double*>x, <double*>y)


def transpose(bint single, Py_ssize_t m, Py_ssize_t n, address x, Py_ssize_t x_row, address y,
              Py_ssize_t y_row):
    if single:
        f32.transpose(m, n, <float*>x, x_row, <float*>y, y_row)
    else:
        f64.transpose(m, n, <double*>x, x_row, <double*>y, y_row)


def dots(bint single, Py_ssize_t m, Py_ssize_t n, address a, Py_ssize_t a_row, address rows,
         address x, address y):
    if single:
        f32.dots(m, n, <float*>a, a_row, <int32_t*>rows, <float*>x, <float*>y)
    else:
        f64.dots(m, n, <double*>a, a_row, <int32_t*>rows, <double*>x, <double*>y)


def add_scaled(bint single, Py_ssize_t n, address x, double a, address d, address y):
    if single:
        f32.add_scaled(n, <float*>x, <float>a, <float*>d, <float*>y)
    else:
        f64.add_scaled(n, <double*>x, a, <double*>d, <double*>y)


def scale(bint single, Py_ssize_t n, address x, str kind, double scale, address y):
    """scale_u8, scale_f32 or scale_f64."""
    if single and kind == "u8":
        f32.scale_u8(n, <uint8_t*>x, <float>scale, <float*>y)
    elif single and kind == "f32":
        f32.scale_f32(n, <float*>x, <float>scale, <float*>y)
    elif single:
        f32.scale_f64(n, <double*>x, <float>scale, <float*>y)
    elif kind == "u8":
        f64.scale_u8(n, <uint8_t*>x, scale, <double*>y)
    elif kind == "f32":
        f64.scale_f32(n, <float*>x, scale, <double*>y)
    else:
        f64.scale_f64(n, <double*>x, scale, <double*>y)


def sgd(bint single, Py_ssize_t n, address p, address grad, address v, double lr, double momentum,
        bint nesterov, double l2, double decay):
    if single:
        f32.sgd(n, <float*>p, <float*>grad, <float*>v, <float>lr, <float>momentum, nesterov,
                <float>l2, <float>decay)
    else:
        f64.sgd(n, <double*>p, <double*>grad, <double*>v, lr, momentum, nesterov, l2, decay)


def sgd_product(bint single, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, address x, Py_ssize_t x_row,
                address dout, address w, double lr, double weight_decay):
    if single:
        f32.sgd_product(m, k, n, <float*>x, x_row, <float*>dout, <float*>w, <float>lr,
                        <float>weight_decay)
    else:
        f64.sgd_product(m, k, n, <double*>x, x_row, <double*>dout, <double*>w, lr, weight_decay)


def cross_entropy_columns(bint single, Py_ssize_t n, Py_ssize_t m, address x, address t,
                          address labels, address losses, address scratch):
    if single:
        f32.cross_entropy_columns(n, m, <float*>x, <float*>t, <int64_t*>labels, <float*>losses,
                                  <float*>scratch)
    else:
        f64.cross_entropy_columns(n, m, <double*>x, <double*>t, <int64_t*>labels,
                                  <double*>losses, <double*>scratch)


def product_planes(bint single, Py_ssize_t planes, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
                   address a, Py_ssize_t a_plane, Py_ssize_t a_row, Py_ssize_t a_col, address b,
                   Py_ssize_t b_plane, Py_ssize_t b_row, address starts, address c,
                   Py_ssize_t c_plane, Py_ssize_t c_row):
    if single:
        f32.product_planes(planes, m, n, k, <float*>a, a_plane, a_row, a_col, <float*>b, b_plane,
                           b_row, <const float*const*>starts, <float*>c, c_plane, c_row)
    else:
        f64.product_planes(planes, m, n, k, <double*>a, a_plane, a_row, a_col, <double*>b, b_plane,
                           b_row, <const double*const*>starts, <double*>c, c_plane, c_row)


def product_taps(bint single, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, Py_ssize_t taps, address a,
                 address a_at, Py_ssize_t a_row, Py_ssize_t a_col, address b, address b_at,
                 Py_ssize_t b_row, address start, address c, Py_ssize_t c_row, address ahead):
    if single:
        f32.product_taps(m, n, k, taps, <float*>a, <Py_ssize_t*>a_at, a_row, a_col,
                         <float*>b, <Py_ssize_t*>b_at, b_row, <float*>start, <float*>c, c_row,
                         <void*>ahead)
    else:
        f64.product_taps(m, n, k, taps, <double*>a, <Py_ssize_t*>a_at, a_row, a_col,
                         <double*>b, <Py_ssize_t*>b_at, b_row, <double*>start, <double*>c, c_row,
                         <void*>ahead)


def sum_rows(bint single, Py_ssize_t m, Py_ssize_t n, address x, Py_ssize_t x_row, address y):
    if single:
        f32.sum_rows(m, n, <float*>x, x_row, <float*>y)
    else:
        f64.sum_rows(m, n, <double*>x, x_row, <double*>y)


def adam(bint single, Py_ssize_t n, address p, address grad, address m, address v, double rate,
         double root, double beta1, double beta2, double epsilon, double l2, double decay):
    if single:
        f32.adam(n, <float*>p, <float*>grad, <float*>m, <float*>v, <float>rate, <float>root,
                 <float>beta1, <float>beta2, <float>epsilon, <float>l2, <float>decay)
    else:
        f64.adam(n, <double*>p, <double*>grad, <double*>m, <double*>v, rate, root, beta1, beta2,
                 epsilon, l2, decay)


def adagrad(bint single, Py_ssize_t n, address p, address grad, address total, double lr,
            double epsilon, double l2):
    if single:
        f32.adagrad(n, <float*>p, <float*>grad, <float*>total, <float>lr, <float>epsilon,
                    <float>l2)
    else:
        f64.adagrad(n, <double*>p, <double*>grad, <double*>total, lr, epsilon, l2)


def rmsprop(bint single, Py_ssize_t n, address p, address grad, address square, address v,
            double lr, double keep, double momentum, double epsilon, double l2):
    if single:
        f32.rmsprop(n, <float*>p, <float*>grad, <float*>square, <float*>v, <float>lr, <float>keep,
                    <float>momentum, <float>epsilon, <float>l2)
    else:
        f64.rmsprop(n, <double*>p, <double*>grad, <double*>square, <double*>v, lr, keep, momentum,
                    epsilon, l2)


def clamp(bint single, Py_ssize_t n, double limit, address x):
    if single:
        f32.clamp(n, <float>limit, <float*>x)
    else:
        f64.clamp(n, limit, <double*>x)


def sum_squares(bint single, Py_ssize_t n, address x):
    return f32.sum_squares(n, <float*>x) if single else f64.sum_squares(n, <double*>x)


# ---- matrices ------------------------------------------------------------------------------------


def gemm(bint single, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, address a, Py_ssize_t a_row,
         Py_ssize_t a_col, address b, Py_ssize_t b_row, bint add, address bias,
         address c, Py_ssize_t c_row):
    if single:
        multiply_add(m, n, k, <float*>a, a_row, a_col, <float*>b, b_row, add, <float*>bias,
                     <float*>c, c_row)
    else:
        multiply_add(m, n, k, <double*>a, a_row, a_col, <double*>b, b_row, add, <double*>bias,
                     <double*>c, c_row)


def gemm_packed(bint single, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, address a,
                Py_ssize_t a_row, Py_ssize_t a_col, address packed, bint add, address bias,
                address c, Py_ssize_t c_row):
    if single:
        multiply_add_packed(m, n, k, <float*>a, a_row, a_col, <float*>packed, add, <float*>bias,
                            <float*>c, c_row)
    else:
        multiply_add_packed(m, n, k, <double*>a, a_row, a_col, <double*>packed, add, <double*>bias,
                            <double*>c, c_row)


def packed_size(bint single, Py_ssize_t n, Py_ssize_t k):
    if single:
        return packed_elements(n, k, <const float*>NULL)
    return packed_elements(n, k, <const double*>NULL)


def pack_panel(bint single, Py_ssize_t panel, Py_ssize_t n, Py_ssize_t k, address b_transposed,
               address packed):
    if single:
        pack_transposed_panel(panel, n, k, <float*>b_transposed, <float*>packed)
    else:
        pack_transposed_panel(panel, n, k, <double*>b_transposed, <double*>packed)


# ---- affine --------------------------------------------------------------------------------------


def forward_rows(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_in, Py_ssize_t n_out,
                 address x, address W, address b, int kind, double slope, address out):
    if single:
        affine_forward_rows(begin, end, n_in, n_out, <float*>x, <float*>W, <float*>b, kind, slope,
                            <float*>out)
    else:
        affine_forward_rows(begin, end, n_in, n_out, <double*>x, <double*>W, <double*>b, kind,
                            slope, <double*>out)


def input_gradient_rows(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_in,
                        Py_ssize_t n_out, address dout, address packed, int kind, double slope,
                        address y, address dx):
    if single:
        affine_input_gradient_rows(begin, end, n_in, n_out, <float*>dout, <float*>packed, kind,
                                   slope, <float*>y, <float*>dx)
    else:
        affine_input_gradient_rows(begin, end, n_in, n_out, <double*>dout, <double*>packed, kind,
                                   slope, <double*>y, <double*>dx)


def input_gradient_columns(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows,
                           Py_ssize_t n_in, Py_ssize_t n_out, address dout, address W, int kind,
                           double slope, address y, address dx):
    if single:
        affine_input_gradient_columns(begin, end, n_rows, n_in, n_out, <float*>dout, <float*>W,
                                      kind, slope, <float*>y, <float*>dx)
    else:
        affine_input_gradient_columns(begin, end, n_rows, n_in, n_out, <double*>dout, <double*>W,
                                      kind, slope, <double*>y, <double*>dx)


def weight_gradient_rows(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows,
                         Py_ssize_t n_in, Py_ssize_t n_out, address x, address dout, address dW):
    if single:
        affine_weight_gradient_rows(begin, end, n_rows, n_in, n_out, <float*>x, <float*>dout,
                                    <float*>dW)
    else:
        affine_weight_gradient_rows(begin, end, n_rows, n_in, n_out, <double*>x, <double*>dout,
                                    <double*>dW)


def sum_columns(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows,
                Py_ssize_t n_columns, address x, address sums, address scratch):
    if single:
        column_sums(begin, end, n_rows, n_columns, <float*>x, <float*>sums, <float*>scratch)
    else:
        column_sums(begin, end, n_rows, n_columns, <double*>x, <double*>sums, <double*>scratch)


def sparse_forward(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_out, address indptr,
                   address columns, address values, address indices, address W, address b, int kind,
                   double slope, address out):
    if single:
        sparse_forward_rows(begin, end, n_out, <int64_t*>indptr, <int32_t*>columns, <float*>values,
                            <int64_t*>indices, <float*>W, <float*>b, kind, slope, <float*>out)
    else:
        sparse_forward_rows(begin, end, n_out, <int64_t*>indptr, <int32_t*>columns, <double*>values,
                            <int64_t*>indices, <double*>W, <double*>b, kind, slope, <double*>out)


def sparse_transpose(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_rows,
                     address indptr, address columns, address values, address indices, address ends,
                     address rows, address transposed):
    if single:
        transpose_columns(begin, end, n_rows, <int64_t*>indptr, <int32_t*>columns, <float*>values,
                          <int64_t*>indices, <int64_t*>ends, <int32_t*>rows, <float*>transposed)
    else:
        transpose_columns(begin, end, n_rows, <int64_t*>indptr, <int32_t*>columns, <double*>values,
                          <int64_t*>indices, <int64_t*>ends, <int32_t*>rows, <double*>transposed)


def sparse_weight_gradient(bint single, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n_out,
                           address ends, address rows, address values, address dout, address dW):
    if single:
        sparse_weight_gradient_rows(begin, end, n_out, <int64_t*>ends, <int32_t*>rows,
                                    <float*>values, <float*>dout, <float*>dW)
    else:
        sparse_weight_gradient_rows(begin, end, n_out, <int64_t*>ends, <int32_t*>rows,
                                    <double*>values, <double*>dout, <double*>dW)


# ---- tasks ---------------------------------------------------------------------------------------

cdef struct record_args:
    int64_t* seen           # [n, 4] per item: visits, begin and end of the chunk, thread
    const int64_t* before   # such an array of a task that must have seen ...
    int64_t n_before        # ... all these items by now or, where it is 0, the items of the chunk
    int64_t* violations     # how often it had not
    unsigned int delay      # microseconds that the first chunk takes, or
    bint every              # each chunk


cdef void record_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const record_args* a = <const record_args*>args
    cdef Py_ssize_t i
    if a.delay and (begin == 0 or a.every):
        usleep(a.delay)
    if a.before != NULL:
        for i in range(0 if a.n_before else begin, a.n_before if a.n_before else end):
            if a.before[4 * i] != a.seen[4 * begin] + 1:
                a.violations[begin] += 1
    for i in range(begin, end):
        a.seen[4 * i] += 1
        a.seen[4 * i + 1] = begin
        a.seen[4 * i + 2] = end
        a.seen[4 * i + 3] = <int64_t><uintptr_t>pthread_self()


def record(Py_ssize_t n, address seen, Py_ssize_t step, Py_ssize_t most, double work, object arrays,
           address before=0, Py_ssize_t n_before=0, address violations=0, unsigned int delay=0,
           bint every=False):
    """Task that notes in seen[n, 4] which chunk and which thread each item came with."""
    cdef record_args args
    args.seen = <int64_t*>seen
    args.before = <int64_t*>before
    args.n_before = n_before
    args.violations = <int64_t*>violations
    args.delay, args.every = delay, every
    return new_task(record_kernel, &args, sizeof(args), n, step, most, work, arrays)


def run_from_c(Program program):
    """What another native module does: a call of the C method."""
    program.run()


# ---- memory between pages that cannot be touched -------------------------------------------------


def map_pages(size_t size, size_t page):
    """The address of `size` bytes (whole pages) of memory with a forbidden page on both sides."""
    cdef char* base = <char*>mmap(NULL, size + 2 * page, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if base == <char*><uintptr_t>-1:
        raise MemoryError("mmap")
    if mprotect(base, page, PROT_NONE) or mprotect(base + page + size, page, PROT_NONE):
        raise OSError("mprotect")
    return <address>(base + page)


def unmap_pages(address start, size_t size, size_t page):
    munmap(<char*>start - page, size + 2 * page)
