"""Run as a script: every kernel with each argument at the very edge of a page.

The page beyond the edge cannot be touched: reading or writing there ends this process. Each case is
named on standard output before it runs.
"""

import sys
from functools import partial

import numpy as np

from cnn_core._simd import supported_isas
from native import c_build
from native.c_buffers import PageGuarded
from native.c_kernels import ACTIVATIONS, Kernels


def elementwise(k, n):
    """All kernels on rows of n elements."""
    x, t = np.linspace(-2, 2, n).astype(k.dtype), np.ones(n, k.dtype)
    for kind in (0, *ACTIVATIONS.values()):
        yield "activate", k.activate, (kind, x, 0.1)
        yield "activate_backward", k.activate_backward, (kind, x, t, 0.1)
    if n:
        yield "softmax", k.softmax, (x,)
        yield "softmax_backward", k.softmax_backward, (x, t)
        yield "softmax_cross_entropy", k.softmax_cross_entropy, (x, n - 1)
        yield "softmax_cross_entropy", k.softmax_cross_entropy, (x, t)
        rows, labels = np.repeat(x[:, None], k.lanes, axis=1), np.full(k.lanes, n - 1)
        yield "cross_entropy_lanes", k.cross_entropy_lanes, (rows, labels, np.ones(k.lanes))
        yield "argmax", k.argmax, (x,)
    yield "binary_cross_entropy", k.binary_cross_entropy, (x, t)
    yield "squared_error", k.squared_error, (x, t)
    for rows in (1, 8, 65):
        yield "dots", k.dots, (np.ones((rows, n), k.dtype), x)
        yield "some dots", k.dots, (np.ones((rows, n), k.dtype), x, np.arange(rows)[::-2])
    yield "add", k.add, (x, t)
    yield "add_scaled", k.add_scaled, (x, 0.5, t)
    for kind in ("uint8", "float32", "float64"):
        yield f"scale {kind}", k.scale, (np.ones(n, kind), 2.0)
    yield "sgd", k.sgd, (x, t, None, 0.1)
    yield "sgd", k.sgd, (x, t, t, 0.1, 0.9, True, 0.1)
    yield "adam", k.adam, (x, t, t, t, 0.1, 1.0, 0.9, 0.999, 1e-8, 0.1, 0.1)
    yield "adagrad", k.adagrad, (x, t, t, 0.1, 1e-10, 0.1)
    yield "rmsprop", k.rmsprop, (x, t, t, None, 0.1, 0.9, 0.0, 1e-8, 0.1)
    yield "rmsprop", k.rmsprop, (x, t, t, t, 0.1, 0.9, 0.9, 1e-8, 0.1)
    yield "clamp", k.clamp, (x, 0.5)
    yield "sum_squares", k.sum_squares, (x,)
    for classes in (1, 3):
        scores = np.ones((classes, n), k.dtype)
        yield "columns", k.cross_entropy_columns, (scores, np.zeros(n, np.int64))
        yield "columns", k.cross_entropy_columns, (scores, scores)


def images(k, n):
    """Tiles of Winograd's convolution, and dropout, of n channels."""
    for rows, columns in ((4, 6), (3, 5)):
        tiles, pixels = 2, np.ones((rows, columns, n), k.dtype)
        yield "winograd_input", k.winograd_input, (pixels, rows, tiles)
        yield "winograd_gradient", k.winograd_gradient, (pixels[2:, 2:], tiles)
        planes = np.ones((16, tiles, n), k.dtype)
        for b in (None, planes[0, 0]):
            yield "winograd_output", k.winograd_output, (planes, b, rows - 2, columns - 2)
    yield "winograd_weights", k.winograd_weights, (np.ones((9, n), k.dtype),)
    yield "winograd_weights_gradient", k.winograd_weights_gradient, (planes[:, 0],)
    for rows in (5, 8):
        yield "winograd_rows_input", k.winograd_rows_input, (np.ones((rows, n), k.dtype),)
        yield "winograd_rows_output", k.winograd_rows_output, (np.ones((8, n), k.dtype), rows - 4)
    yield "winograd_rows_weights", k.winograd_rows_weights, (np.ones((5, n), k.dtype),)
    yield "split", k.split, (np.ones((2, n), k.dtype),)
    if n:
        filters = np.ones((3, 5, k.call("least_lanes")), k.dtype)
        yield "max_windows", k.max_windows, (np.ones((6, 2 * n + 4), k.dtype), filters, n)
    yield "interleave", k.interleave, (np.ones(n, k.dtype), np.ones(n, k.dtype))
    if n and k.call("window_sums"):
        g, last = np.ones((2, n), k.dtype), np.full((2, n), 3, np.uint8)
        places = np.arange(2, dtype=np.int32), np.array([0, 4], np.int32)
        args = *places, g, last, np.ones(4 * 8, k.dtype), 16, np.ones((2, 5, n), k.dtype)
        yield "window_gradients", k.window_gradients, args
    x, mask = np.ones(n, k.dtype), np.zeros(-(-n // 64), np.uint64)
    yield "dropout", partial(k.dropout, masked=True), (x, (1, 2, 3, 4), (5, 6, 7), 2**31, 2.0)
    yield "keep", k.keep, (x, mask, 2.0)
    numbers = np.arange(n, dtype=np.int32) % 4
    for which in (numbers, numbers.astype(np.uint8)):
        taps, largest = ([0, n, 3 * n], [0, 1, 3]), partial(k.max_taps, which=which.dtype)
        yield "max_taps", largest, (np.ones(4 * n, k.dtype), *taps, n)
        yield "scatter_taps", k.scatter_taps, (*taps, which, x, np.ones(4 * n, k.dtype))
    yield "pick", k.pick, (3, numbers.astype(np.uint8), x)
    yield "pick_all", k.pick, (None, numbers, x, np.zeros(16, np.int32), numbers)
    yield "nonzero_bits", k.nonzero_bits, (x[:64],)
    span, w = np.ones(10, k.dtype), np.ones((3, 5, n), k.dtype)
    yield "spread", k.spread, (span, w, np.ones((3, 14, n), k.dtype))
    spans, kernel = ([2, 0, 1], [5, 0, 7], [1, 0, 2]), np.ones((3, 5, n), k.dtype)
    args = *spans, np.ones((4, 11), k.dtype), 1, np.ones((3, n), k.dtype), kernel
    yield "gradient_spans", k.gradient_spans, args
    yield "copy_fetching", k.copy_fetching, (x, 1)
    yield "copy_rows", k.copy_rows, (np.ones((3, n), k.dtype),)
    yield "copy_rows", partial(k.copy_rows, y_row=n + 3), (np.ones((3, n), k.dtype),)
    for options in ({}, {"add": True}, {"fetches": True}):
        rows = np.ones((3, n), k.dtype)
        yield "move_rows", partial(k.move_rows, **options), (rows, [2, 0, 2], rows, [1, 2, 2])


def matrices(k, n):
    """Products with n columns, and what is made of them."""
    for m in (0, 1, 5, 13):
        for terms in (0, 1, 2, 17, 128, 130):
            a, b, c = (np.ones(s, k.dtype) for s in ((m, terms), (terms, n), (m, n)))
            for gap in (0, 1, 7):
                yield f"gemm k={terms} gap={gap}", multiply_add, (k, a, b, c, gap)
            yield f"gemm_packed k={terms}", packed_product, (k, a, b, c)
            if n <= k.max_columns:
                yield f"product k={terms}", padded_product, (k, a, b, c)
    x, W, dout = (np.ones(s, k.dtype) for s in ((13, 6), (6, n), (13, n)))
    if n:
        yield "forward_rows", k.forward_rows, (3, 13, x, W, W[0])
        yield "input_gradient_rows", k.input_gradient_rows, (0, 13, dout, W, x, 1)
        yield "sgd_product", k.sgd_product, (W, x, dout, 0.1, 0.1)
        yield "weight_gradient_rows", k.weight_gradient_rows, (0, 6, x, dout)
        yield "sum_columns", k.sum_columns, (n // 2, n, dout)
        yield from sparse(k, x, W, dout)


def sparse(k, x, W, dout):
    """Sparse rows whose last column is used, and some that have no entries."""
    x = x * (np.indices(x.shape).sum(axis=0) % 3 != 1)
    x[::4] = 0
    indices = np.arange(len(x))[::-1].copy()
    yield "product_sparse", k.product_sparse, (W[:, 0].copy(), np.arange(6)[::-1], W, W[0])
    yield "product_sparse", k.product_sparse, (W[0, :0], np.arange(0), W)
    for add in (False, True):
        options = {"most": x.size, "add": add}
        yield "product_nonzeros", partial(k.product_nonzeros, **options), (x, W, dout)
        if k.nonzero_rows == 1:
            columns = partial(k.product_nonzeros, **options, by_columns=True)
            yield "product_nonzeros by columns", columns, (x, W, dout)
        options |= {"b_gap": k.lanes, "surplus": True}
        yield "product_nonzeros", partial(k.product_nonzeros, **options), (x, W, dout)
    yield "pick_any", k.pick_any, (dout[: k.nonzero_rows],)
    b, c, n = W.ravel(), np.ones(3 * W.size, k.dtype), W.shape[1]
    rows = [0, 3, 3, 4], np.ones(4, k.dtype), [3, 0, 2, 1]
    taps = (3, n, *rows, b, (n, n), c, [0, 1, W.size - n], W.size)
    yield "product_sparse of taps", k.add_sparse_taps, taps
    yield "sparse_forward_rows", k.sparse_forward_rows, (3, 13, x, indices, W, W[0], 1)
    for cuts in (((0, 6),), ((4, 6), (0, 4))):
        yield "transposed", k.transposed, (x, indices, cuts)
        by_columns = k.transposed(x, indices, cuts)
        yield "sparse_weight_gradient_rows", k.sparse_weight_gradient_rows, (2, 6, by_columns, dout)


def multiply_add(k, a, b, c, gap):
    actual = k.gemm(a, b, c, b_gap=gap, c_gap=gap)
    assert (actual == a.shape[1] + 1).all()


def packed_product(k, a, b, c):
    actual = k.gemm_packed(a, k.pack_transposed(np.ascontiguousarray(b.T)), c)
    assert (actual == a.shape[1] + 1).all()


def padded_product(k, a, b, c):
    """The micro-kernel itself reads each row of B up to a multiple of `lanes`, and not more."""
    padded = np.full((len(b), -(-b.shape[1] // k.lanes) * k.lanes), np.nan, k.dtype)
    padded[:, : b.shape[1]] = b
    (m, terms), n = a.shape, b.shape[1]
    with k.memory() as memory:
        a_, b_, c_ = memory.input(a), memory.input(padded), memory.inout(c)
        args = (a_.address, terms, 1, b_.address, padded.shape[1], c_.address, n)
        k.call("product", m, n, terms, *args)
    assert (c_.array == terms + 1).all()


def run_all(k, place):
    around = k.max_columns + 1, 2 * k.max_columns - 1, 2 * k.max_columns + 1
    cases = [case for n in k.sizes() for case in elementwise(k, n)]
    cases += [case for n in (*k.sizes(), *around) for case in matrices(k, n)]
    cases += [case for n in (*k.sizes(), 64, 65) for case in images(k, n)]
    for name, function, args in cases:
        print(k, name, [a.shape for a in args if isinstance(a, np.ndarray)], place)
        function(*args)


def over_read(k):
    """What must crash, or the pages prove nothing: the micro-kernel on rows that are not padded."""
    for n in range(k.lanes):
        k.product(np.ones((1, 1), k.dtype), np.ones((1, n), k.dtype), np.ones((1, n), k.dtype))


def main(c_level_path, what):
    PageGuarded.c_level = c_level = c_build.load("c_level", c_level_path)
    for number, isa in enumerate(supported_isas()):
        c_level.use_isa(number)
        for dtype in ("float32", "float64"):
            k = Kernels(c_level, isa, dtype, PageGuarded)
            if what == "over-read":
                over_read(k)
            else:
                for at_end in (True, False):
                    PageGuarded.at_end = at_end
                    run_all(k, "at the end" if at_end else "at the begin")
    print("done")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    main(*sys.argv[1:])
