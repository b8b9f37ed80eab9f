"""The table of micro-kernels as functions of arrays, each call amid guarded memory.

The results are new arrays; a call that writes where it must not, or to an input, fails.
"""

import numpy as np

from native.c_buffers import Guarded, Memory, address
from native.c_sparse import SparseKernels

NONE, SIGMOID, TANH, RELU, LEAKY_RELU = range(5)
ACTIVATIONS = {"sigmoid": SIGMOID, "tanh": TANH, "relu": RELU, "leaky_relu": LEAKY_RELU}


def exact_operands(rng, m, n, k, dtype):
    """A of powers of two of either sign, B of small integers, C of few digits.

    Products are exact, so that a fused multiply-add and a product followed by a sum round alike.
    """
    most = {"float32": 12, "float64": 40}[str(dtype)]  # sums with too many digits are rounded
    a = np.ldexp(rng.choice([-1.0, 1.0], (m, k)), rng.integers(-most, most + 1, (m, k)))
    b, c = rng.integers(-15, 16, (k, n)), rng.integers(-99, 100, (m, n)) / 8
    return a.astype(dtype), b.astype(dtype), c.astype(dtype)


def term_by_term(a, b, c):
    """C + A B after 0, 1, ..., k terms, rounded after each."""
    sums = [c]
    for p in range(a.shape[1]):
        sums.append(sums[-1] + a[:, p : p + 1] * b[p])
    return sums


class Kernels(SparseKernels):
    """The kernels of one instruction set and element type."""

    def __init__(self, c_level, isa, dtype, store=Guarded):
        self.c, self.isa, self.dtype, self.store = c_level, isa, np.dtype(dtype), store
        self.single = self.dtype == np.float32
        sizes = c_level.sizes(self.single)
        self.lanes, self.max_columns, self.nonzero_rows, self.listed_vectors = sizes

    def __repr__(self):
        return f"{self.isa}-{self.dtype}"

    def memory(self):
        return Memory(self.store)

    def call(self, name, *args):
        return getattr(self.c, name)(self.single, *args)

    def sizes(self, vectors=3):
        """Sizes around whole vectors, 0 and 1 among them."""
        whole = [v * self.lanes for v in range(vectors + 1)]
        return sorted({max(size + d, 0) for size in whole for d in (-1, 0, 1)} | {2, 3})

    # ---- rows of elements ------------------------------------------------------------------------

    def activate(self, kind, x, slope=0.0, *, in_place=False):
        with self.memory() as m:
            x_ = m.inout(x) if in_place else m.input(x)
            y = x_ if in_place else m.output(x.shape, self.dtype)
            self.call("activate", kind, slope, x.size, x_.address, y.address)
        return y.array

    def activate_backward(self, kind, y, dout, slope=0.0, *, in_place=False):
        with self.memory() as m:
            y_, dout_ = m.input(y), m.inout(dout) if in_place else m.input(dout)
            dx = dout_ if in_place else m.output(y.shape, self.dtype)
            args = (y_.address, dout_.address, dx.address)
            self.call("activate_backward", kind, slope, y.size, *args)
        return dx.array

    def softmax(self, x, *, in_place=False):
        with self.memory() as m:
            x_ = m.inout(x) if in_place else m.input(x)
            y = x_ if in_place else m.output(x.shape, self.dtype)
            self.call("softmax", x.size, x_.address, y.address)
        return y.array

    def softmax_backward(self, y, dout, *, in_place=False):
        with self.memory() as m:
            y_, dout_ = m.input(y), m.inout(dout) if in_place else m.input(dout)
            dx = dout_ if in_place else m.output(y.shape, self.dtype)
            self.call("softmax_backward", y.size, y_.address, dout_.address, dx.address)
        return dx.array

    def softmax_cross_entropy(self, x, t, scale=1.0, *, gradient=True):
        """t: the label, or the weights of all classes."""
        label = None if np.ndim(t) else int(t)
        with self.memory() as m:
            x_, dx = m.input(x), m.output(x.shape, self.dtype) if gradient else None
            t_ = m.input(t) if label is None else None
            args = (x_.address, address(t_), -1 if label is None else label, scale, address(dx))
            loss = self.call("softmax_cross_entropy", x.size, *args)
        return loss, dx and dx.array

    def cross_entropy_lanes(self, x, labels, scales, *, gradient=True):
        """Losses, correct rows, and x[n, lanes] afterwards."""
        with self.memory() as m:
            x_, labels_, scales_ = m.inout(x), m.input(labels), m.input(scales.astype(self.dtype))
            losses, correct = m.output(self.lanes, np.float64), m.inout(np.full(self.lanes, -1))
            args = (labels_.address, scales_.address, gradient, x_.address, losses.address)
            self.call("cross_entropy_lanes", len(x), *args, correct.address)
        return losses.array, correct.array, x_.array

    def _loss(self, name, x, t, scale, gradient):
        with self.memory() as m:
            x_, t_ = m.input(x), m.input(t)
            dx = m.output(x.shape, self.dtype) if gradient else None
            loss = self.call(name, x.size, x_.address, t_.address, scale, address(dx))
        return loss, dx and dx.array

    def binary_cross_entropy(self, x, t, scale=1.0, *, gradient=True):
        return self._loss("binary_cross_entropy", x, t, scale, gradient)

    def squared_error(self, y, t, scale=1.0, *, gradient=True):
        return self._loss("squared_error", y, t, scale, gradient)

    def argmax(self, x):
        with self.memory() as m:
            return self.call("argmax", x.size, m.input(x).address)

    def add(self, x, y):
        with self.memory() as m:
            x_, y_ = m.input(x), m.inout(y)
            self.call("add", x.size, x_.address, y_.address)
        return y_.array

    def transpose(self, x, *, gaps=(0, 0)):
        with self.memory() as m:
            x_, y = m.input(x, gaps[0]), m.output(x.T.shape, self.dtype, gaps[1])
            self.call("transpose", *x.shape, x_.address, x_.row, y.address, y.row)
        return y.array

    def fold_row(self, products, row, taps, step, *, gaps=(0, 0)):
        """products [windows, taps n]; row [pixels, n]."""
        with self.memory() as m:
            products_, row_ = m.input(products, gaps[0]), m.inout(row, gaps[1])
            sizes = (len(row), len(products), taps, row.shape[1], step)
            addresses = (products_.address, products_.row, row_.address, row_.row)
            self.call("fold_row", *sizes, *addresses)
        return row_.array

    def winograd_input(self, x, rows, tiles):
        """x [3 or 4, columns, n], of which `rows`; the planes [16, tiles, n]."""
        (_, columns, n), plane = x.shape, tiles * x.shape[2] + 1
        with self.memory() as m:
            x_, v = m.input(x.reshape(len(x), -1), 2), m.output((16, plane - 1), self.dtype, 1)
            args = (x_.address, x_.row, rows, columns, v.address, plane)
            self.call("winograd_input", tiles, n, *args)
        return v.array.reshape(16, tiles, n)

    def winograd_output(self, planes, b, rows, columns):
        """planes [16, tiles, n]; y [rows, columns, n]."""
        _, tiles, n = planes.shape
        with self.memory() as m:
            planes_ = m.input(planes.reshape(16, -1), 1)
            b_ = None if b is None else m.input(b)
            y = m.output((rows, columns * n), self.dtype, 3)
            args = (planes_.address, planes_.row, address(b_), y.address, y.row, rows, columns)
            self.call("winograd_output", tiles, n, *args)
        return y.array.reshape(rows, columns, n)

    def winograd_weights(self, g):
        """g [9, n]; the planes [16, n]."""
        with self.memory() as m:
            g_, u = m.input(g, 2), m.output((16, g.shape[1]), self.dtype, 1)
            self.call("winograd_weights", g.shape[1], g_.address, g_.row, u.address, u.row)
        return u.array

    def winograd_gradient(self, dy, tiles):
        """dy [1 or 2, columns, n]; the planes [16, tiles, n]."""
        (rows, columns, n), plane = dy.shape, tiles * dy.shape[2] + 1
        with self.memory() as m:
            dy_, h = m.input(dy.reshape(rows, -1), 2), m.output((16, plane - 1), self.dtype, 1)
            args = (dy_.address, dy_.row, rows, columns, h.address, plane)
            self.call("winograd_gradient", tiles, n, *args)
        return h.array.reshape(16, tiles, n)

    def winograd_weights_gradient(self, planes):
        """planes [16, n]; dg [9, n]."""
        n = planes.shape[1]
        with self.memory() as m:
            planes_, dg = m.input(planes, 1), m.output((9, n), self.dtype, 2)
            args = (planes_.address, planes_.row, dg.address, dg.row)
            self.call("winograd_weights_gradient", n, *args)
        return dg.array

    def winograd_rows_input(self, x):
        """x [5 to 8, n]; the planes [8, n]."""
        with self.memory() as m:
            x_, v = m.input(x, 2), m.output((8, x.shape[1]), self.dtype, 1)
            args = (x_.address, x_.row, len(x), v.address, v.row)
            self.call("winograd_rows_input", x.shape[1], *args)
        return v.array

    def winograd_rows_output(self, planes, rows):
        """planes [8, n]; y [rows, n]."""
        with self.memory() as m:
            planes_, y = m.input(planes, 1), m.output((rows, planes.shape[1]), self.dtype, 3)
            args = (planes_.address, planes_.row, y.address, y.row, rows)
            self.call("winograd_rows_output", planes.shape[1], *args)
        return y.array

    def winograd_rows_weights(self, g):
        """g [5, n]; the planes [8, n]."""
        with self.memory() as m:
            g_, u = m.input(g, 2), m.output((8, g.shape[1]), self.dtype, 1)
            self.call("winograd_rows_weights", g.shape[1], g_.address, g_.row, u.address, u.row)
        return u.array

    def dots(self, a, x, rows=None, *, gap=0):
        with self.memory() as m:
            count = len(a) if rows is None else len(rows)
            rows_ = None if rows is None else m.input(np.asarray(rows, np.int32))
            a_, x_, y = m.input(a, gap), m.input(x), m.output(count, self.dtype)
            args = (a_.address, a_.row, address(rows_), x_.address, y.address)
            self.call("dots", count, len(x), *args)
        return y.array

    def add_scaled(self, x, a, d):
        with self.memory() as m:
            x_, d_, y = m.input(x), m.input(d), m.output(x.shape, self.dtype)
            self.call("add_scaled", x.size, x_.address, a, d_.address, y.address)
        return y.array

    def scale(self, x, scale):
        suffix = {"uint8": "u8", "float32": "f32", "float64": "f64"}[str(x.dtype)]
        with self.memory() as m:
            x_, y = m.input(x), m.output(x.shape, self.dtype)
            self.call("scale", x.size, x_.address, suffix, scale, y.address)
        return y.array

    def sgd(self, p, grad, v, lr, momentum=0.0, nesterov=False, weight_decay=0.0, decay=0.0):
        with self.memory() as m:
            p_, grad_ = m.inout(p), m.input(grad)
            v_ = None if v is None else m.inout(v)
            rule = (momentum, nesterov, weight_decay, decay)
            self.call("sgd", p.size, p_.address, grad_.address, address(v_), lr, *rule)
        return p_.array, v_ and v_.array

    def sgd_product(self, W, x, dout, lr, weight_decay=0.0):
        """W after a step by the gradient x^T dout."""
        (m_, k), n = x.shape, dout.shape[1]
        with self.memory() as m:
            x_, dout_, W_ = m.input(x), m.input(dout), m.inout(W)
            args = (x_.address, k, dout_.address, W_.address, lr, weight_decay)
            self.call("sgd_product", m_, k, n, *args)
        return W_.array

    def cross_entropy_columns(self, x, t):
        """t: the labels [m], or the weights of all classes [n, m]."""
        n, m_ = x.shape
        with self.memory() as m:
            x_, losses = m.input(x), m.output(m_, self.dtype)
            scratch, t_ = m.output(2 * m_, self.dtype), m.input(t)
            both = (0, t_.address) if np.ndim(t) == 1 else (t_.address, 0)
            args = (x_.address, *both, losses.address, scratch.address)
            self.call("cross_entropy_columns", n, m_, *args)
        return losses.array

    # ---- images ----------------------------------------------------------------------------------

    def product_taps(
        self, store, a_at, strides, b, b_at, c, k, *, start=None, b_gap=0, c_gap=0, ahead=None
    ):
        """C (or `start`) + sum of A_t B_t; A_t at store[a_at[t]], B_t at row b_at[t].

        ahead : an address per row.
        """
        (m_, n), row = c.shape, b.shape[1] + b_gap
        with self.memory() as m:
            a_, b_, c_ = m.input(store), m.input(b, b_gap), m.inout(c, c_gap)
            a_at_ = m.input(np.array(a_at, np.intp))
            b_at_ = m.input(np.array(b_at, np.intp) * row)
            start_ = None if start is None else m.input(start)
            args = (a_.address, a_at_.address, *strides, b_.address, b_at_.address, b_.row)
            ahead_ = None if ahead is None else m.input(np.array(ahead, np.uint64))
            last = (address(start_), c_.address, c_.row, address(ahead_))
            self.call("product_taps", m_, n, k, len(a_at), *args, *last)
        return c_.array

    def product_planes(self, a, b, c, starts=None, *, turned=False):
        """C + A B of each plane, or starts + A B; None in `starts`: that plane's C.

        turned : read A[planes, m, k] by columns.
        """
        (planes, m_, n), k, row = c.shape, a.shape[2], -(-b.shape[2] // self.lanes) * self.lanes
        padded = np.full((planes, k, row), np.nan, self.dtype)
        padded[..., :n] = b
        strides = (1, m_) if turned else (k, 1)
        with self.memory() as m:
            a_ = m.input((a.transpose(0, 2, 1) if turned else a).ravel())
            b_, c_ = m.input(padded.ravel()), m.inout(c.ravel())
            rows = [None if row is None else m.input(row) for row in starts or ()]
            starts_ = m.input(np.array([address(row) for row in rows], np.uint64))
            args = (a_.address, m_ * k, *strides, b_.address, k * row, row)
            places = (starts_.address if starts else 0, c_.address, m_ * n, n)
            self.call("product_planes", planes, m_, n, k, *args, *places)
        return c_.array.reshape(c.shape)

    def sum_rows(self, x, y, *, gap=0):
        with self.memory() as m:
            x_, y_ = m.input(x, gap), m.inout(y)
            self.call("sum_rows", *x.shape, x_.address, x_.row, y_.address)
        return y_.array

    def max_taps(self, x, at, numbers, n, *, least=-np.inf, which=np.int32, windows=1, step=0):
        """which : the type of the numbers, or None."""
        with self.memory() as m:
            x_, best = m.input(x), m.output(windows * n, self.dtype)
            at_, numbers_ = m.input(np.array(at, np.intp)), m.input(np.array(numbers, np.int32))
            which_ = m.inout(np.full(windows * n, 77, which)) if which else None
            args = x_.address, at_.address, numbers_.address, least, best.address, address(which_)
            size = np.dtype(which).itemsize if which else 0
            self.call("max_taps", windows, step, n, len(at), *args, size)
        return best.array, which_ and which_.array

    def scatter_taps(self, at, numbers, which, g, x, *, add=True, windows=1, step=0):
        with self.memory() as m:
            at_, numbers_ = m.input(np.array(at, np.intp)), m.input(np.array(numbers, np.int32))
            which_, g_, x_ = m.input(which), m.input(g), m.inout(x)
            args = (at_.address, numbers_.address, which_.address, which.itemsize)
            args += (g_.address, x_.address)
            self.call("scatter_taps", add, windows, step, len(g) // windows, len(at), *args)
        return x_.array

    def dropout(self, x, key, stream, threshold, scale, *, in_place=False, masked=False):
        """y, or y and the mask."""
        with self.memory() as m:
            x_ = m.inout(x) if in_place else m.input(x)
            y = x_ if in_place else m.output(x.shape, self.dtype)
            key_, stream_ = (m.input(np.array(words, np.uint32)) for words in (key, stream))
            mask = m.inout(np.zeros(-(-x.size // 64), np.uint64)) if masked else None
            args = (key_.address, stream_.address, threshold, scale, x_.address, y.address)
            self.call("dropout", x.size, *args, address(mask))
        return (y.array, mask.array) if masked else y.array

    def keep(self, x, mask, scale):
        with self.memory() as m:
            x_, mask_, y = m.input(x), m.input(mask), m.output(x.shape, self.dtype)
            self.call("keep", x.size, mask_.address, scale, x_.address, y.address)
        return y.array

    def add_squares(self, x, mean, squares):
        with self.memory() as m:
            x_, mean_, squares_ = m.input(x), m.input(mean), m.inout(squares)
            self.call("add_squares", x.size, x_.address, mean_.address, squares_.address)
        return squares_.array

    def add_products(self, x, y, mean, products):
        with self.memory() as m:
            addresses = [m.input(value).address for value in (x, y, mean)]
            products_ = m.inout(products)
            self.call("add_products", x.size, *addresses, products_.address)
        return products_.array

    def combine(self, x, a, z, b, c, d, *, into=None):
        """into: None for a new array, or the name of the input that the result replaces."""
        with self.memory() as m:
            buffers = {}
            for name, value in {"x": x, "a": a, "z": z, "b": b, "c": c, "d": d}.items():
                take = m.inout if name == into else m.input
                buffers[name] = None if value is None else take(value)
            y = m.output(z.shape, self.dtype) if into is None else buffers[into]
            self.call("combine", z.size, *map(address, buffers.values()), y.address)
        return y.array

    def adam(self, p, grad, m_, v, *numbers):
        with self.memory() as m:
            p_, grad_, first, second = m.inout(p), m.input(grad), m.inout(m_), m.inout(v)
            args = (p_.address, grad_.address, first.address, second.address)
            self.call("adam", p.size, *args, *numbers)
        return p_.array, first.array, second.array

    def adagrad(self, p, grad, total, *numbers):
        with self.memory() as m:
            p_, grad_, total_ = m.inout(p), m.input(grad), m.inout(total)
            self.call("adagrad", p.size, p_.address, grad_.address, total_.address, *numbers)
        return p_.array, total_.array

    def rmsprop(self, p, grad, square, v, *numbers):
        with self.memory() as m:
            p_, grad_, square_ = m.inout(p), m.input(grad), m.inout(square)
            v_ = None if v is None else m.inout(v)
            args = (p_.address, grad_.address, square_.address, address(v_))
            self.call("rmsprop", p.size, *args, *numbers)
        return p_.array, square_.array, v_ and v_.array

    def clamp(self, x, limit):
        with self.memory() as m:
            x_ = m.inout(x)
            self.call("clamp", x.size, limit, x_.address)
        return x_.array

    def sum_squares(self, x):
        with self.memory() as m:
            return self.call("sum_squares", x.size, m.input(x).address)

    # ---- matrices --------------------------------------------------------------------------------

    def product(self, a, b, c, *, b_gap=0, c_gap=0):
        """C + A B. The rows of B stand b_gap elements apart, those of C c_gap."""
        (m_, k), n = a.shape, b.shape[1]
        with self.memory() as m:
            a_, b_, c_ = m.input(a), m.input(b, b_gap), m.inout(c, c_gap)
            args = (a_.address, k, 1, b_.address, b_.row, c_.address, c_.row)
            self.call("product", m_, n, k, *args)
        return c_.array

    def gemm(self, a, b, c, *, b_gap=0, c_gap=0, add=True, bias=None):
        (m_, k), n = a.shape, b.shape[1]
        with self.memory() as m:
            a_, b_, c_ = m.input(a), m.input(b, b_gap), m.inout(c, c_gap)
            args = (a_.address, k, 1, b_.address, b_.row, *self.start(m, add, bias))
            self.call("gemm", m_, n, k, *args, c_.address, c_.row)
        return c_.array

    def start(self, memory, add, bias):
        return add, 0 if bias is None else memory.input(bias).address

    def pack_transposed(self, b_transposed):
        """The packed panels of B[k, n] from B^T[n, k], packed one by one, the last one first."""
        n, k = b_transposed.shape
        size = self.call("packed_size", n, k)
        with self.memory() as m:
            source, packed = m.input(b_transposed), m.output(size, self.dtype)
            for panel in reversed(range(-(-n // self.max_columns))):
                self.call("pack_panel", panel, n, k, source.address, packed.address)
        return packed.array

    def gemm_packed(self, a, packed, c, *, c_gap=0, add=True, bias=None):
        (m_, k), n = a.shape, c.shape[1]
        with self.memory() as m:
            a_, packed_, c_ = m.input(a), m.input(packed), m.inout(c, c_gap)
            args = (a_.address, k, 1, packed_.address, *self.start(m, add, bias))
            self.call("gemm_packed", m_, n, k, *args, c_.address, c_.row)
        return c_.array

    # ---- affine ----------------------------------------------------------------------------------

    def forward_rows(self, begin, end, x, W, b, kind=NONE, slope=0.0, *, before=None):
        """Rows begin..end of f(x W + b); the others stay as in `before` (default: NaN)."""
        shape = len(x), W.shape[1]
        with self.memory() as m:
            out = m.inout(np.full(shape, np.nan, self.dtype) if before is None else before)
            x_, W_, b_ = m.input(x), m.input(W), None if b is None else m.input(b)
            args = (x_.address, W_.address, address(b_), kind, slope, out.address)
            self.call("forward_rows", begin, end, *W.shape, *args)
        return out.array

    def input_gradient_rows(self, begin, end, dout, W, y=None, kind=NONE, slope=0.0):
        packed = self.pack_transposed(W)
        with self.memory() as m:
            dout_, packed_ = m.input(dout), m.input(packed)
            y_ = None if y is None else m.input(y)
            dx = m.output((len(dout), len(W)), self.dtype)
            args = (dout_.address, packed_.address, kind, slope, address(y_), dx.address)
            self.call("input_gradient_rows", begin, end, *W.shape, *args)
        return dx.array

    def input_gradient_columns(self, begin, end, dout, W, y=None, kind=NONE, slope=0.0):
        with self.memory() as m:
            dout_, W_ = m.input(dout), m.input(W)
            y_ = None if y is None else m.input(y)
            dx = m.inout(np.full((len(dout), len(W)), np.nan, self.dtype))
            args = (dout_.address, W_.address, kind, slope, address(y_), dx.address)
            self.call("input_gradient_columns", begin, end, len(dout), *W.shape, *args)
        return dx.array

    def weight_gradient_rows(self, begin, end, x, dout):
        with self.memory() as m:
            x_, dout_ = m.input(x), m.input(dout)
            dW = m.output((x.shape[1], dout.shape[1]), self.dtype)
            shape = (*x.shape, dout.shape[1])
            args = (x_.address, dout_.address, dW.address)
            self.call("weight_gradient_rows", begin, end, *shape, *args)
        return dW.array

    def sum_columns(self, begin, end, x):
        with self.memory() as m:
            x_, sums = m.input(x), m.output(x.shape[1], self.dtype)
            scratch = m.output(end - begin, self.dtype)
            args = (x_.address, sums.address, scratch.address)
            self.call("sum_columns", begin, end, *x.shape, *args)
        return sums.array
