"""The numerical gradient of a chain of affine layers and activations, in float64.

    dL/dp = (L(p + h) - L(p - h)) / 2h        for every weight and bias p of the chain's first layer

A weight W[i, j] changes one column of the layer, z[:, j] + h x[:, i], and with it the next layer by
a product of rank 1; only the layers after that are computed anew. All arrays are held transposed,
one row per unit and one column per sample, so that every step runs over the samples in vectors.
Every parameter is independent of the others: they are the items of a parallel task. Sparse inputs
are held by columns; only the one column that belongs to a weight is written out, to scratch memory.
Saito, Deep Learning from Scratch, sections 4.3 to 4.5.
"""

from libc.math cimport NAN
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from cnn_core._bounds cimport expect
from cnn_core._gemm cimport multiply_add
from cnn_core._parallel cimport new_task
from cnn_core._simd cimport (
    activate, add_scaled, binary_cross_entropy_row, cross_entropy_columns, squared_error_row,
)
from cnn_core._sparse cimport Batch, SparseColumns


cdef enum:
    SOFTMAX_CROSS_ENTROPY = 0
    BINARY_CROSS_ENTROPY = 1
    PARAMETERS_PER_CHUNK = 256


cdef struct LayerOfChain:
    Py_ssize_t n_in
    Py_ssize_t n_out
    const double* W        # [n_in, n_out]
    const double* b        # [n_out]
    const double* z        # [n_out, N] before the activation
    const double* y        # [n_out, N] after it
    int activation
    double slope


cdef struct ChainArgs:
    Py_ssize_t n           # samples
    Py_ssize_t n_layers
    LayerOfChain* layers
    const double* x        # [n_in, N] the first layer's inputs; one row of ones for the biases
    const SparseColumns* columns    # the same if they are sparse, and x is NULL
    int loss
    const int64_t* labels
    const double* t        # [n_out, N] targets, or NULL
    double scale           # of the loss, over 2h
    double h
    double* gradient       # like W, or b
    Py_ssize_t first       # the parameter that item 0 is
    Py_ssize_t scratch     # elements that one chunk works in


cdef double loss_of_outputs(const ChainArgs* a, const double* outputs,
                            double* scratch) noexcept nogil:
    """The sum of the loss over all samples; scratch[3 N]."""
    cdef const LayerOfChain* last = &a.layers[a.n_layers - 1]
    cdef double total = 0
    cdef Py_ssize_t i
    if a.loss == SOFTMAX_CROSS_ENTROPY:
        cross_entropy_columns(last.n_out, a.n, outputs, a.t, a.labels, scratch, scratch + a.n)
        for i in range(a.n):
            total += scratch[i]
        return total
    if a.loss == BINARY_CROSS_ENTROPY:
        return binary_cross_entropy_row(last.n_out * a.n, outputs, a.t, 0.0, <double*>NULL)
    return squared_error_row(last.n_out * a.n, outputs, a.t, 0.0, <double*>NULL)


cdef const double* second_layer(const ChainArgs* a, Py_ssize_t unit, const double* change,
                                double* out) noexcept nogil:
    """out[o] = f(z[o] + W[unit, o] change)."""
    cdef const LayerOfChain* layer = &a.layers[1]
    cdef Py_ssize_t o
    for o in range(layer.n_out):
        add_scaled(a.n, layer.z + o * a.n, layer.W[unit * layer.n_out + o], change, out + o * a.n)
    activate(layer.activation, layer.slope, layer.n_out * a.n, out, out)
    return out


cdef const double* later_layers(const ChainArgs* a, const double* inputs,
                                double* out) noexcept nogil:
    """Layers 2, 3, ... in full: out[o] = f(b[o] + sum over i of W[i, o] inputs[i])."""
    cdef const LayerOfChain* layer
    cdef Py_ssize_t k, o, s
    for k in range(2, a.n_layers):
        layer = &a.layers[k]
        for o in range(layer.n_out):
            for s in range(a.n):
                out[o * a.n + s] = layer.b[o]
        multiply_add(layer.n_out, a.n, layer.n_in, layer.W, 1, layer.n_out, inputs, a.n, True,
                     <const double*>NULL, out, a.n)
        activate(layer.activation, layer.slope, layer.n_out * a.n, out, out)
        inputs = out
        out += layer.n_out * a.n
    return inputs


cdef bint write_column(const SparseColumns* columns, Py_ssize_t i, Py_ssize_t n,
                       double* column) noexcept nogil:
    """Write x[:, i] to column[n]; returns whether it has entries."""
    cdef int64_t p, begin = columns.ends[i - 1] if i > 0 else 0
    memset(column, 0, n * sizeof(double))
    for p in range(begin, columns.ends[i]):
        column[columns.rows[p]] = (<const double*>columns.values)[p]
    return columns.ends[i] > begin


cdef double perturbed_loss(const ChainArgs* a, const double* x, Py_ssize_t j, double h,
                           double* scratch) noexcept nogil:
    """The loss with h added to W[i, j] of the first layer, whose input i is x[N].

    scratch: 3 N for the loss, then the outputs of the changed layers. With one layer only, these
    are y, of which row j is changed here and restored by the caller.
    """
    cdef const LayerOfChain* first = &a.layers[0]
    cdef double* row = scratch + 3 * a.n
    cdef double* out = row + a.n
    if a.n_layers == 1:
        row = out + j * a.n
    add_scaled(a.n, first.z + j * a.n, h, x, row)
    activate(first.activation, first.slope, a.n, row, row)
    if a.n_layers == 1:
        return loss_of_outputs(a, out, scratch)
    add_scaled(a.n, row, -1.0, first.y + j * a.n, row)
    inputs = second_layer(a, j, row, out)
    return loss_of_outputs(a, later_layers(a, inputs, out + a.layers[1].n_out * a.n), scratch)


cdef void chain_kernel(const void* args, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    cdef const ChainArgs* a = <const ChainArgs*>args
    cdef const LayerOfChain* first = &a.layers[0]
    cdef Py_ssize_t p, i, j, written = -1
    cdef double above, below, without_entries = 0
    cdef bint empty = False, known = False
    cdef const double* x
    cdef double* scratch = <double*>malloc(a.scratch * sizeof(double))
    if scratch == NULL:
        for p in range(a.first + begin, a.first + end):
            a.gradient[p] = NAN
        return
    cdef double* outputs = scratch + 4 * a.n
    cdef double* column = scratch + a.scratch - a.n
    if a.n_layers == 1:
        memcpy(outputs, first.y, first.n_out * a.n * sizeof(double))
    for p in range(a.first + begin, a.first + end):
        i = p // first.n_out
        j = p - i * first.n_out
        if a.columns == NULL:
            x = a.x + i * a.n
        else:
            x = column
            if i != written:
                empty = not write_column(a.columns, i, a.n, column)
                written = i
            if empty and known:
                a.gradient[p] = without_entries
                continue
        above = perturbed_loss(a, x, j, a.h, scratch)
        below = perturbed_loss(a, x, j, -a.h, scratch)
        a.gradient[p] = (above - below) * a.scale
        if a.n_layers == 1:
            memcpy(outputs + j * a.n, first.y + j * a.n, a.n * sizeof(double))
        if empty:
            known, without_entries = True, a.gradient[p]    # 0, or NaN where the loss is
    free(scratch)


cdef class Chain:
    """Affine layers with their activations, up to the loss, ready for `weights` and `biases`.

    layers : tuples W[I, O], b[O], z[O, N], y[O, N], activation, slope; float64, C-contiguous.
    x : [I, N], the first layer's inputs, transposed; or a sparse Batch, float64, by columns.
    labels : int64 [N], or None; t : [O, N] rows of targets, transposed, or None.
    scale : what the sum of the losses is multiplied by.
    """

    cdef ChainArgs args
    cdef object arrays
    cdef readonly Py_ssize_t n_weights, n_biases
    cdef readonly double work      # of one parameter

    def __cinit__(self, layers, x, int loss, const int64_t[::1] labels,
                  const double[:, ::1] t, double scale, double h):
        cdef const double[:, ::1] W, z, y, dense
        cdef Batch sparse
        cdef Py_ssize_t n
        cdef const double[::1] b
        cdef LayerOfChain* layer
        self.args.n = layers[0][2].shape[1]
        self.args.n_layers = len(layers)
        self.args.layers = <LayerOfChain*>calloc(len(layers), sizeof(LayerOfChain))
        if self.args.layers == NULL:
            raise MemoryError()
        self.arrays = [layers, x, labels, t]
        self.args.scratch = 5 * self.args.n
        self.work = 0
        layer = self.args.layers
        for number, (W, b, z, y, activation, slope) in enumerate(layers):
            layer.n_in, layer.n_out = W.shape[0], W.shape[1]
            layer.W, layer.b, layer.z, layer.y = &W[0, 0], &b[0], &z[0, 0], &y[0, 0]
            layer.activation, layer.slope = activation, slope
            if z.shape[0] != layer.n_out or z.shape[1] != self.args.n:
                raise ValueError("z: wrong shape")
            if number or len(layers) == 1:
                self.args.scratch += layer.n_out * self.args.n
            # Two losses, above and below.
            self.work += 2 * layer.n_out * self.args.n * (30 + (layer.n_in if number > 1 else 1))
            layer += 1
        if isinstance(x, Batch):
            sparse = x
            expect(sparse.transposed.ends != NULL and not sparse.is_float, "x")
            self.args.columns = &sparse.transposed
            n = sparse.n
        else:
            dense = x
            self.args.x = &dense[0, 0]
            n = dense.shape[1]
        if n != self.args.n:
            raise ValueError("x: wrong shape")
        self.args.loss = loss
        if labels is not None:
            self.args.labels = &labels[0]
        if t is not None:
            self.args.t = &t[0, 0]
        self.args.scale = scale / (2 * h)
        self.args.h = h
        self.n_weights = self.args.layers[0].n_in * self.args.layers[0].n_out
        self.n_biases = self.args.layers[0].n_out

    def __dealloc__(self):
        free(self.args.layers)

    def weights(self, double[:, ::1] gradient, Py_ssize_t begin, Py_ssize_t end):
        """Task over the first layer's weights begin..end, row by row: gradient[I, O]."""
        cdef ChainArgs args = self.args
        args.gradient = &gradient[0, 0]
        return self.part(&args, begin, end, self.n_weights, gradient.base)

    def biases(self, double[::1] gradient, const double[:, ::1] ones, Py_ssize_t begin,
               Py_ssize_t end):
        """Task over the first layer's biases begin..end: gradient[O]; ones[1, N]."""
        cdef ChainArgs args = self.args
        args.gradient = &gradient[0]
        args.x = &ones[0, 0]
        args.columns = NULL
        return self.part(&args, begin, end, self.n_biases, (gradient.base, ones.base))

    cdef part(self, ChainArgs* args, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t count, arrays):
        if not 0 <= begin <= end <= count:
            raise ValueError(f"expected parameters within 0..{count}, got {begin}..{end}")
        args.first = begin
        return new_task(chain_kernel, args, sizeof(ChainArgs), end - begin, 1,
                        PARAMETERS_PER_CHUNK, self.work, (self, arrays))
