"""Sparse rows, as SciPy holds them, and the affine map of them; see ops.

SciPy itself is not imported: what has `tocsr` is sparse, and its CSR form has `indptr`, `indices`
and `data`. Nothing here makes a row dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core._checks import FLOATS, Array, as_float, check_shape, check_slope, output
from cnn_core._sparse import Batch as Batch
from cnn_core.ops.dense import (
    Activation,
    Program,
    activation_code,
    check_affine,
    native,
    outputs,
    run,
)

Int64 = npt.NDArray[np.int64]


def is_sparse(x: Any) -> bool:
    """Whether x is a SciPy sparse matrix or array, or rows of one."""
    return isinstance(x, Rows) or callable(getattr(x, "tocsr", None))


class Rows:
    """Rows of a sparse matrix; row i is values[indptr[i]:indptr[i + 1]] in the columns there.

    shape : (N, I).
    indptr : int64 [N + 1], checked; our own, so that the caller cannot change it any more.
    columns, values : of the matrix of which these are rows. Checked and in the order that kernels
        need only where `checked`: then they are our own, too.
    """

    def __init__(
        self, shape: tuple[int, int], indptr: Int64, columns: Array, values: Array, checked: bool
    ) -> None:
        self.shape, self.dtype = shape, values.dtype
        self.indptr, self.columns, self.values, self.checked = indptr, columns, values, checked

    @classmethod
    def of(cls, name: str, x: Any) -> Rows:
        """The rows of a sparse matrix, or an error that names the argument."""
        if isinstance(x, Rows):
            return x
        csr = x if getattr(x, "format", None) == "csr" else x.tocsr()
        shape, data = tuple(csr.shape), np.asarray(csr.data)
        if len(shape) != 2:
            raise ValueError(f"{name}: expected 2 dimensions, got shape {shape}")
        if data.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected numbers, got dtype {data.dtype}")
        pointers, indices = np.asarray(csr.indptr), np.asarray(csr.indices)
        for array, part in ((pointers, "indptr"), (indices, "indices")):
            if array.dtype.kind not in "iu":
                raise TypeError(f"{name}: expected integers as {part}, got dtype {array.dtype}")
        check_shape(f"{name}.indptr", pointers, (shape[0] + 1,))
        check_shape(f"{name}.data", data, (indices.size,))
        indptr = np.array(pointers, np.int64)
        if indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] > indices.size:
            raise ValueError(
                f"{name}.indptr: expected numbers that rise from 0 to at most {indices.size}"
            )
        columns = indices.reshape(-1)[: indptr[-1]]
        if columns.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
            columns = columns.astype(np.int64)
        if columns.size:
            _check_column(name, int(columns.min()), shape[1])
            _check_column(name, int(columns.max()), shape[1])
        return cls((shape[0], shape[1]), indptr, columns, data.reshape(-1)[: indptr[-1]], False)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> Rows:
        """Adjacent rows; nothing is copied."""
        begin, end, _ = part.indices(len(self))
        indptr = self.indptr[begin : end + 1]
        shape = (end - begin, self.shape[1])
        return Rows(shape, indptr, self.columns, self.values, self.checked)

    @property
    def stored(self) -> Array:
        """The values of all these rows; a view."""
        return self.values[self.indptr[0] : self.indptr[-1]]

    def copied(self, name: str, dtype: np.dtype[Any], scale: float = 1.0) -> Rows:
        """A checked copy that no caller can change; duplicates are summed, uint8 is scaled."""
        if self.checked and self.dtype == dtype:
            return self
        begin, end = int(self.indptr[0]), int(self.indptr[-1])
        source, values = np.ascontiguousarray(self.columns[begin:end]), self.stored
        indptr, columns = self.indptr - begin, np.empty(end - begin, np.int32)
        # Once more: between the first look and this copy the caller may have changed them.
        wrong, ascending = native.sparse.copy_columns(source, indptr, self.shape[1], columns)
        if wrong >= 0:
            _check_column(name, int(source[wrong]), self.shape[1])
            raise ValueError(f"{name}.indices: changed while they were read")
        if not ascending:
            indptr, columns, values = _sum_duplicates(indptr, columns, values)
        factor = dtype.type(scale if values.dtype == np.uint8 else 1)
        converted = np.multiply(values, factor, dtype=dtype, casting="unsafe")
        return Rows(self.shape, indptr, columns, converted, True)

    def into(self, batch: Batch, indices: Int64 | None = None, start: Int64 | None = None) -> None:
        """Let a batch read checked rows: all, or those from indices[start[0]] on."""
        indices = np.arange(len(self)) if indices is None else indices
        start = np.zeros(1, np.int64) if start is None else start
        batch.read(self.indptr, self.columns, self.values, indices, start)


def _check_column(name: str, column: int, n_columns: int) -> None:
    if not 0 <= column < n_columns:
        raise ValueError(f"{name}.indices: expected columns in 0..{n_columns - 1}, got {column}")


def _sum_duplicates(indptr: Int64, columns: Array, values: Array) -> tuple[Int64, Array, Array]:
    """Rows whose columns ascend; entries of one place are added in the values' own dtype."""
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((columns, row))
    row, columns, values = row[order], columns[order], values[order]
    new = (row[1:] != row[:-1]) | (columns[1:] != columns[:-1])
    first = np.flatnonzero(np.concatenate([[True], new]))
    counts = np.bincount(row[first], minlength=len(indptr) - 1)
    summed = np.add.reduceat(values, first, dtype=values.dtype)
    return np.concatenate([[0], np.cumsum(counts)]), columns[first], summed


def new_batch(rows: Rows, transposed: bool = False) -> Batch:
    """All the rows, which must be checked and at least one, as one batch."""
    batch = Batch(*rows.shape, rows.dtype, transposed)
    rows.into(batch)
    return batch


def _float_rows(name: str, x: Any) -> Rows:
    if not is_sparse(x):
        raise TypeError(f"{name}: expected a SciPy sparse matrix, got {type(x).__name__}")
    rows = Rows.of(name, x)
    if rows.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32 or float64, got dtype {rows.dtype}")
    return rows.copied(name, rows.dtype)


def sparse_affine_forward(
    x: Any,
    W: npt.ArrayLike,
    b: npt.ArrayLike | None,
    *,
    activation: Activation | None = None,
    slope: float = 0.01,
    out: Array | None = None,
) -> Array:
    """out = f(x W + b) for a sparse x; the bits of affine_forward of the same x, while W is finite.

    Parameters
    ----------
    x : (N, I), a SciPy sparse matrix or array of any format, float32 or float64
    W : (I, O), b : (O,) or None; of x's dtype
    activation, slope : as of affine_forward

    Returns
    -------
    (N, O)
    """
    inputs = (W, b)
    rows = _float_rows("x", x)
    W = as_float("W", W, 2, rows.dtype)
    check_affine(rows, W)
    if b is not None:
        b = as_float("b", b, 1, rows.dtype)
        check_shape("b", b, (W.shape[1],))
    code, slope = activation_code(activation), check_slope(slope)
    out = output("out", out, (len(rows), W.shape[1]), rows.dtype, inputs)
    if out.size:
        run(native.sparse.forward(new_batch(rows), W, b, out, code, slope))
    return out


def sparse_affine_backward(
    dout: npt.ArrayLike,
    x: Any,
    *,
    out: tuple[Array | None, Array | None] | None = None,
) -> tuple[Array, Array]:
    """Gradients of out = x W + b for a sparse x: dW = x^T dout, db = sum of dout over N.

    The bits of affine_backward of the same x, while dout is finite.

    Parameters
    ----------
    dout : (N, O), x : (N, I) as for sparse_affine_forward
    out : two arrays (or None) for dW and db.

    Returns
    -------
    dW (I, O), db (O,), both dense
    """
    inputs = (dout,)
    rows = _float_rows("x", x)
    dout = as_float("dout", dout, 2, rows.dtype)
    check_shape("dout", dout, (len(rows), dout.shape[1]))
    if 0 in (rows.shape[1], dout.shape[1]):
        shapes = f"got shapes {rows.shape} and {dout.shape}"
        raise ValueError(f"x, dout: expected at least one column, {shapes}")
    given = outputs(out, "dW, db")
    dW = output("out[0]", given[0], (rows.shape[1], dout.shape[1]), rows.dtype, inputs)
    db = output("out[1]", given[1], (dout.shape[1],), rows.dtype, (*inputs, dW))
    if not len(rows):
        dW[...] = 0
        db[...] = 0
        return dW, db
    batch = new_batch(rows, transposed=True)
    first = [[native.sparse.transpose(batch)], [native.affine_gradient.bias_gradient(dout, db)]]
    Program([first, [[native.sparse.weight_gradient(batch, dout, dW)]]]).run()
    return dW, db
