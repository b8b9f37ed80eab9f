"""The kernels of elements that are not 0, as functions of arrays: a part of `c_kernels.Kernels`."""

import numpy as np

from native.c_buffers import address


def compressed(x):
    """The entries of x that are not 0 as sparse rows: indptr, columns, values."""
    rows, columns = np.nonzero(x)
    indptr = np.concatenate([[0], np.bincount(rows, minlength=len(x)).cumsum()]).astype(np.int64)
    return indptr, columns.astype(np.int32), x[rows, columns]


class SparseKernels:
    def pick(self, number, numbers, g, table=None, places=None):
        with self.memory() as m:
            numbers_, g_ = m.input(numbers).address, m.input(g).address
            values = m.inout(np.full(len(g) + self.lanes, np.nan, self.dtype))
            at = m.inout(np.full(len(g) + self.lanes, -7, np.int32))
            name, args = "pick", (number, numbers_)
            if table is not None:
                args = m.input(table).address, numbers_, m.input(places).address
                name = "pick_all"
            count = self.call(name, len(g), *args, g_, values.address, at.address)
        return values.array[:count], at.array[:count]

    def nonzero_bits(self, x):
        with self.memory() as m:
            return self.call("nonzero_bits", len(x), m.input(x).address)

    def spread(self, x, w, sums, count=None):
        """sums (rows, pixels, n) + what x, of whole taps, gives to them, met by w (rows, taps, n);
        pixels are those that x reaches. count : what the kernel is told of the size of x."""
        (rows, taps, n), pixels = w.shape, sums.shape[1]
        least = self.call("least_lanes")
        step, w_tap = -(-n // least) * least, -(-n // self.lanes) * self.lanes
        padded = np.zeros((rows, pixels, step), self.dtype)
        padded[..., :n] = sums
        weights = np.zeros((rows, taps, w_tap), self.dtype)
        weights[..., :n] = w
        with self.memory() as m:
            x_, w_ = m.input(x), m.input(weights.ravel())
            buffers = [m.inout(row.ravel()) for row in padded]
            places = m.input(np.array([b.address for b in buffers], np.uint64))
            args = (count or len(x), x_.address, taps, rows, n, w_.address)
            self.call("spread", *args, taps * w_tap, w_tap, places.address, step)
        return np.array([b.array.reshape(pixels, step)[:, :n] for b in buffers])

    def gradient_spans(self, sizes, x_at, g_at, x, x_step, g, sums):
        """sums (KH, KW, n) with what the spans give, of rows of x and rows (pixels, n) of g."""
        with self.memory() as m:
            spans = [m.input(np.array(array, np.intp)).address for array in (sizes, x_at, g_at)]
            x_, g_, sums_ = m.input(x.ravel()), m.input(g.ravel()), m.inout(sums.ravel())
            args = (x_.address, x.shape[1], x_step, g_.address, g.shape[1], *sums.shape[:2])
            self.call("gradient_spans", len(sizes), *spans, g.shape[1], *args, sums_.address)
        return sums_.array.reshape(sums.shape)

    def interleave(self, x, below):
        with self.memory() as m:
            x_, below_, y = m.input(x), m.input(below), m.output(2 * len(x), self.dtype)
            self.call("interleave", len(x), x_.address, below_.address, y.address)
        return y.array

    def split(self, x, *, gap=0, left=0):
        """Even and odd columns of x (rows, n), and of each row the first column that is not 0 and
        the one behind the last, counted from `left` on."""
        size = (x.shape[1] + 1) // 2
        with self.memory() as m:
            x_ = m.input(x, gap)
            even, odd = (m.output((len(x), size), self.dtype, gap) for _ in range(2))
            seen = m.inout(np.full((len(x), 2), 7, np.int32))
            addresses = even.address, odd.address, even.row, left, seen.address
            self.call("split", *x.shape, x_.address, x_.row, *addresses)
        return even.array, odd.array, seen.array

    def max_windows(self, x, w, windows, *, b=None, relu=False, which=True, more=0):
        """Maxima (rows, windows, F) of windows of x convolved with w (KH, KW, F), and their
        numbers; `more` elements lie between the rows."""
        kh, kw, n = w.shape
        rows, odd = (len(x) - kh + 1) // 2, windows + kw // 2 + self.lanes
        columns = np.full((len(x), 2, odd), np.nan, self.dtype)
        for i in range(2):
            columns[:, i, : (x.shape[1] + 1 - i) // 2] = x[:, i::2]
        places = [np.flatnonzero(row) for row in x]
        seen = [(p[0], p[-1] + 1) if len(p) else (0, 0) for p in places]
        with self.memory() as m:
            seen_ = m.input(np.array(seen, np.int32).reshape(-1, 2))
            args = [m.input(columns.ravel()).address, 2 * odd, odd, seen_.address]
            args.append(m.input(w.reshape(-1, n), self.lanes - n).address)
            y = m.inout(np.full((rows, windows * n + more), 77, self.dtype))
            numbers = m.inout(np.full(rows * windows * n, 77, np.uint8)) if which else None
            start = address(None if b is None else m.input(b))
            results = start, relu, y.address, windows * n + more, address(numbers)
            self.call("max_windows", n, rows, windows, kh, kw, *args, *results)
        assert (y.array[:, windows * n :] == 77).all()
        y_ = y.array[:, : windows * n].reshape(rows, windows, n)
        return y_, numbers and numbers.array.reshape(y_.shape)

    def window_gradients(self, windows, at, g, which, pairs, pair_row, sums):
        """sums (KH, KW, F) with what the windows give, of g and which (windows, F)."""
        (kh, kw, n), step = sums.shape, -(-sums.shape[2] // self.lanes) * self.lanes
        padded = np.zeros((kh, kw, step), self.dtype)
        padded[..., :n] = sums
        with self.memory() as m:
            sums_, windows_, at_ = m.inout(padded.ravel()), m.input(windows), m.input(at)
            g_, which_, pairs_ = m.input(g.ravel()), m.input(which.ravel()), m.input(pairs)
            places = (windows_.address, at_.address, n, g_.address, which_.address)
            args = (pairs_.address, pair_row, kh, kw, sums_.address, step)
            self.call("window_gradients", len(windows), *places, *args)
        return sums_.array.reshape(kh, kw, step)[..., :n]

    def copy_fetching(self, x, ahead):
        """ahead : an address."""
        with self.memory() as m:
            x_, y = m.input(x), m.output(x.shape, self.dtype)
            self.call("copy_fetching", x.size, x_.address, ahead, y.address)
        return y.array

    def copy_rows(self, x, *, gap=0, y_row=None):
        """All of y (M, y_row), by default without gaps; it held 7 before."""
        y_row = x.shape[1] if y_row is None else y_row
        with self.memory() as m:
            x_, y = m.input(x, gap), m.inout(np.full(len(x) * y_row, 7, self.dtype))
            self.call("copy_rows", *x.shape, x_.address, x_.row, y.address, y_row)
        return y.array.reshape(len(x), y_row)

    def move_rows(self, x, x_at, y, y_at, *, add=False, fetches=False, gap=0):
        """y with rows y_at[i] = or += x[x_at[i]]."""
        with self.memory() as m:
            x_, y_ = m.input(x, gap), m.inout(y, 2 * gap)
            places = [m.input(np.array(at, np.int32)).address for at in (x_at, y_at)]
            args = (x_.address, places[0], x_.row, y_.address, places[1], y_.row, fetches)
            self.call("move_rows", add, len(x_at), x.shape[1], *args)
        return y_.array

    def pick_any(self, x, *, gap=0):
        room = x.shape[1] + self.lanes
        with self.memory() as m:
            x_, at = m.input(x, gap), m.inout(np.full(room, -7, np.int32))
            count = self.call("pick_any", *x.shape, x_.address, x_.row, at.address)
        return at.array[:count]

    def product_nonzeros(
        self,
        a,
        b,
        c,
        most,
        *,
        bias=None,
        add=False,
        ahead=None,
        a_gap=0,
        b_gap=0,
        c_gap=0,
        surplus=False,
        by_columns=False,
    ):
        """A B + bias, or c + A B where `add`: the first rows of it, where groups of rows have more
        than `most` terms on average. ahead : an address per row. surplus : the gaps of B may be
        read. by_columns : A lies in memory column by column."""
        (m_, k), n = a.shape, b.shape[1]
        groups = -(-m_ // self.nonzero_rows)
        with self.memory() as m:
            if surplus:
                b, b_gap = np.pad(b, ((0, 0), (0, b_gap)), constant_values=np.nan), 0
            a_ = m.input(np.ascontiguousarray(a.T) if by_columns else a, a_gap)
            b_, c_ = m.input(b, b_gap), m.inout(c, c_gap)
            room = m_ + 1 + groups * k + self.lanes
            if by_columns:
                room = 2 * m_ * -(-k // 64)
            elif 0 < -(-n // self.lanes) <= min(self.listed_vectors, b.shape[1] // self.lanes):
                room = 2 * (k + self.lanes)
            at = m.inout(np.full(-(-room // 2), 7, np.uint64))
            start = c_.address if add else address(None if bias is None else m.input(bias))
            ahead_ = None if ahead is None else m.input(np.array(ahead, np.uint64))
            steps = (1, a_.row) if by_columns else (a_.row, 1)
            args = a_.address, *steps, b_.address, b_.row, b.shape[1], start, c_.row if add else 0
            made = self.call(
                *("product_nonzeros", m_, n, k, *args, c_.address, c_.row, most),
                *(at.address, address(ahead_)),
            )
        assert c_.array[made:].tobytes() == c[made:].tobytes()
        return c_.array[:made]

    def product_sparse(self, values, rows, b, start=None, *, b_gap=0):
        """start + the sum of values[p] b[rows[p]]."""
        n, ends = b.shape[1], np.array([0, len(values)], np.int32)
        with self.memory() as m:
            values_, rows_, b_ = m.input(values), m.input(rows.astype(np.int32)), m.input(b, b_gap)
            start_ = None if start is None else m.input(start)
            ends_, at, c = m.input(ends), m.input(ends[:1]), m.output(n, self.dtype)
            args = (ends_.address, values_.address, rows_.address, b_.address, b_.row, 0)
            self.call("product_sparse", 1, 1, n, *args, address(start_), c.address, at.address, 0)
        return c.array

    def add_sparse_taps(self, taps, n, ends, values, rows, b, strides, c, c_at, c_tap):
        """c, flat, with the products of sparse rows and B_t added; strides : of a row, of a tap."""
        with self.memory() as m:
            numbers = [m.input(np.array(array, np.int32)) for array in (ends, rows, c_at)]
            ends_, rows_, at = (array.address for array in numbers)
            values_, b_, c_ = m.input(values), m.input(b), m.inout(c)
            args = (ends_, values_.address, rows_, b_.address, *strides, c_.address, c_.address)
            self.call("product_sparse", len(c_at), taps, n, *args, at, c_tap)
        return c_.array

    def sparse_forward_rows(self, begin, end, x, indices, W, b, kind=0, slope=0.0):
        """Rows begin..end of f(x[indices] W + b), x dense but passed on by its entries."""
        with self.memory() as m:
            matrix = [m.input(part).address for part in (*compressed(x), indices)]
            W_, b_ = m.input(W), None if b is None else m.input(b)
            out = m.output((len(indices), W.shape[1]), self.dtype)
            args = (*matrix, W_.address, address(b_), kind, slope, out.address)
            self.call("sparse_forward", begin, end, W.shape[1], *args)
        return out.array

    def transposed(self, x, indices, cuts):
        """x[indices] by columns: ends, rows, values; one call for each range of columns in cuts."""
        with self.memory() as m:
            matrix = [m.input(part).address for part in (*compressed(x), indices)]
            entries = np.count_nonzero(x[indices])
            ends, values = m.inout(np.full(x.shape[1], -7)), m.output(entries, self.dtype)
            rows = m.inout(np.full(entries, -7, np.int32))
            for begin, end in cuts:
                args = (*matrix, ends.address, rows.address, values.address)
                self.call("sparse_transpose", begin, end, len(indices), *args)
        return ends.array, rows.array, values.array

    def sparse_weight_gradient_rows(self, begin, end, by_columns, dout):
        """Rows begin..end of x^T dout, x by columns."""
        with self.memory() as m:
            columns = [m.input(part).address for part in by_columns]
            dout_, dW = m.input(dout), m.output((len(by_columns[0]), dout.shape[1]), self.dtype)
            args = (*columns, dout_.address, dW.address)
            self.call("sparse_weight_gradient", begin, end, dout.shape[1], *args)
        return dW.array
