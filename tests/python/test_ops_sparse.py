"""The affine map of sparse rows, against affine_forward and affine_backward of dense ones."""

import sys

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import cnn_core as cc
from cnn_core.ops.sparse import Rows
from reference import DTYPES, SIZES, Unchanged, check_gradient, lay_out, same_bits

THREADS = (1, 2, 3, 7)
ACTIVATIONS = (None, "sigmoid", "tanh", "relu", "leaky_relu")
FORMATS = ("csr", "csc", "coo", "bsr", "lil", "dok", "dia")
INDEX_TYPES = (np.int32, np.int64)


def make(seed, n, i, o, dtype, density=0.2, index_type=np.int32):
    """x (N, I) sparse, W (I, O), b (O,), dout (N, O)."""
    rng = np.random.default_rng(seed)
    x = scipy.sparse.csr_array(rng.standard_normal((n, i)) * (rng.random((n, i)) < density))
    x = x.astype(dtype)
    x.indices, x.indptr = x.indices.astype(index_type), x.indptr.astype(index_type)
    return x, *(rng.standard_normal(size).astype(dtype) for size in ((i, o), o, (n, o)))


def parts(x):
    return x.indptr, x.indices, x.data


def check(x, W, b, dout, activation=None):
    """The bits of the dense kernels; arguments stay as they are."""
    dense = x.toarray()
    with Unchanged(*parts(x), W, b, dout):
        y = cc.ops.sparse_affine_forward(x, W, b, activation=activation)
        dW, db = cc.ops.sparse_affine_backward(dout, x)
    assert same_bits(y, cc.ops.affine_forward(dense, W, b, activation=activation))
    _, dense_dW, dense_db = cc.ops.affine_backward(dout, dense, W)
    assert same_bits(dW, dense_dW) and same_bits(db, dense_db)


@given(
    *[st.integers(1, 40)] * 3,
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    st.sampled_from(INDEX_TYPES),
    st.sampled_from(ACTIVATIONS),
    st.integers(0, 99),
)
def test_the_bits_of_the_dense_product(n, i, o, dtype, density, index_type, activation, seed):
    check(*make(seed, n, i, o, dtype, density, index_type), activation)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("o", SIZES)
def test_every_width(o, dtype):
    check(*make(0, 9, 130, o, dtype))


@pytest.mark.parametrize("shape", [(300, 7, 5), (2, 20_000, 3), (40, 9_000, 129), (257, 784, 50)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(shape, dtype, threads):
    x, W, b, dout = make(1, *shape, dtype)
    for count in THREADS:
        threads(count)
        check(x, W, b, dout)


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind, container):
    x, W, b, dout = make(2, 6, 8, 3, "float64")
    check(container(x).asformat(kind).tocsr(), W, b, dout)
    same = cc.ops.sparse_affine_forward(container(x).asformat(kind), W, b)
    assert same_bits(same, cc.ops.sparse_affine_forward(x, W, b))


def test_without_rows():
    x, W, b, dout = make(3, 0, 4, 3, "float32")
    assert cc.ops.sparse_affine_forward(x, W, b).shape == (0, 3)
    dW, db = cc.ops.sparse_affine_backward(dout, x)
    assert same_bits(dW, np.zeros_like(W)) and same_bits(db, np.zeros_like(b))


def test_gradients_by_central_differences():
    x, W, b, _ = make(4, 6, 9, 5, "float64", 0.4)

    def forward(values, W, b):
        return cc.ops.sparse_affine_forward(
            scipy.sparse.csr_array((values, *parts(x)[1::-1]), x.shape), W, b
        )

    def backward(dout, values, W, b):
        y = scipy.sparse.csr_array((values, *parts(x)[1::-1]), x.shape)
        dx = cc.ops.affine_backward(dout, y.toarray(), W)[0]
        return dx[y.nonzero()], *cc.ops.sparse_affine_backward(dout, y)

    check_gradient(forward, backward, [x.data, W, b])


def test_nan_and_infinite_entries_come_through():
    x, W, b, dout = make(5, 5, 6, 3, "float64", 0.5)
    x.data[[0, -1]] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        check(x, W, b, dout, "relu")
    assert np.isnan(cc.ops.sparse_affine_forward(x, W, b)).any()


def test_what_x_leaves_out_meets_no_infinity():
    """The one difference from the dense product, which makes 0 * inf a NaN."""
    W = np.array([[1.0], [np.inf]])
    assert cc.ops.sparse_affine_forward(scipy.sparse.csr_array([[2.0, 0.0]]), W, None) == 2.0


# ---- what a CSR matrix may look like -------------------------------------------------------------


def csr(indptr, indices, data, shape):
    """Unchecked, as a program of one's own may leave it; SciPy would check."""
    x = scipy.sparse.csr_array(shape)
    x.indptr, x.indices = np.asarray(indptr), np.asarray(indices)
    x.data = np.asarray(data)
    return x


def dense_of(x, dtype="float64"):
    """What Rows takes x for."""
    rows = Rows.of("x", x).copied("x", np.dtype(dtype))
    y = np.zeros(rows.shape, dtype)
    for i, (begin, end) in enumerate(zip(rows.indptr[:-1], rows.indptr[1:], strict=True)):
        columns = rows.columns[begin:end]
        assert (np.diff(columns) > 0).all()
        y[i, columns] = rows.values[begin:end]
    return y


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "float32", "float64"])
def test_unsorted_columns_and_duplicates(dtype):
    """Summed in the values' own type, like toarray: the sum of two bytes is a byte."""
    data = np.array([200, 100, 1, 3, 0, 5, 7, 2]).astype(dtype)
    x = csr([0, 3, 3, 8], [1, 1, 0, 4, 2, 0, 2, 4], data, (3, 5))
    with Unchanged(*parts(x)):
        assert same_bits(dense_of(x), x.toarray().astype("float64"))
    x = csr([0, 3], [2, 1, 0], data[:3], (1, 5))
    assert same_bits(dense_of(x), x.toarray().astype("float64"))


def test_explicit_zeros_and_spare_memory():
    x = csr([0, 2, 3], [0, 4, 1, 99, -1], [1.0, 0.0, 2.0, 3.0, 4.0], (2, 5))
    assert dense_of(x).tolist() == [[1, 0, 0, 0, 0], [0, 2, 0, 0, 0]]


@pytest.mark.parametrize("layout", ["reversed", "strided", "unaligned", "readonly", "swapped"])
def test_arrays_of_any_layout(layout):
    x = make(6, 7, 9, 3, "float64")[0]
    expected = x.toarray()
    for name in ("indptr", "indices", "data"):
        array = getattr(x, name)
        odd = array.astype(array.dtype.newbyteorder()) if layout == "swapped" else None
        setattr(x, name, lay_out(array, layout) if odd is None else odd)
    assert same_bits(dense_of(x), expected)


@pytest.mark.parametrize("index_type", ["int8", "uint16", "uint32", "uint64"])
def test_other_integers_as_indices(index_type):
    x = make(6, 7, 9, 3, "float64")[0]
    expected = x.toarray()
    x.indices, x.indptr = x.indices.astype(index_type), x.indptr.astype(index_type)
    assert same_bits(dense_of(x), expected)


@pytest.mark.parametrize(
    ("error", "words", "arrays"),
    [
        (ValueError, "x.indptr.*shape", ([0, 2], [0, 1], [1.0, 2.0])),
        (ValueError, "x.indptr.*shape", ([[0, 1, 2]], [0, 1], [1.0, 2.0])),
        (ValueError, "x.indptr.*rise", ([1, 1, 2], [0, 1], [1.0, 2.0])),
        (ValueError, "x.indptr.*rise", ([0, 2, 1], [0, 1], [1.0, 2.0])),
        (ValueError, "x.indptr.*rise", ([0, -1, 2], [0, 1], [1.0, 2.0])),
        (ValueError, "x.indptr.*rise.*2", ([0, 1, 3], [0, 1], [1.0, 2.0])),
        (ValueError, "x.data", ([0, 1, 2], [0, 1], [1.0])),
        (ValueError, "x.data", ([0, 1, 2], [0], [1.0, 2.0])),
        (ValueError, r"x.indices.*0\.\.2.*got 3", ([0, 1, 2], [0, 3], [1.0, 2.0])),
        (ValueError, "x.indices.*got -1", ([0, 1, 2], [0, -1], [1.0, 2.0])),
        (ValueError, f"x.indices.*got {2**32}", ([0, 1, 2], [0, 2**32], [1.0, 2.0])),
        (TypeError, "x.*indices.*float64", ([0, 1, 2], [0.0, 1.0], [1.0, 2.0])),
        (TypeError, "x.*indptr.*float64", ([0.0, 1.0, 2.0], [0, 1], [1.0, 2.0])),
        (TypeError, "x.*complex", ([0, 1, 2], [0, 1], [1j, 2.0])),
        (TypeError, "x.*object", ([0, 1, 2], [0, 1], [None, 2.0])),
        (TypeError, "x.*int64", ([0, 1, 2], [0, 1], [1, 2])),
    ],
)
def test_broken_matrices_are_refused(error, words, arrays):
    x = csr(*arrays, (2, 3))
    with pytest.raises(error, match=words):
        cc.ops.sparse_affine_forward(x, np.ones((3, 2)), None)
    with pytest.raises(error, match=words):
        cc.ops.sparse_affine_backward(np.ones((2, 2)), x)


def test_columns_that_change_after_the_first_look_are_found_out():
    x = make(7, 5, 9, 3, "float64")[0]
    rows = Rows.of("x", x)
    x.indices[3] = 9
    with pytest.raises(ValueError, match=r"x\.indices.*0\.\.8.*got 9"):
        rows.copied("x", np.dtype("float64"))
    rows = Rows.of("x", make(7, 5, 9, 3, "float64")[0]).copied("x", np.dtype("float64"))
    assert not any(np.shares_memory(rows.columns, part) for part in parts(x))


def test_other_arguments_are_checked():
    x, W, b, dout = make(8, 4, 3, 5, "float64")
    forward, backward = cc.ops.sparse_affine_forward, cc.ops.sparse_affine_backward
    for error, word, call in (
        (TypeError, "x", lambda: forward(x.toarray(), W, b)),
        (TypeError, "x", lambda: backward(dout, [[1.0]])),
        (TypeError, "W", lambda: forward(x, W.astype("f4"), b)),
        (TypeError, "b", lambda: forward(x, W, b.astype("f4"))),
        (ValueError, "x", lambda: forward(x, W[:2], b)),
        (ValueError, "b", lambda: forward(x, W, b[:2])),
        (ValueError, "activation", lambda: forward(x, W, b, activation="softmax")),
        (ValueError, "slope", lambda: forward(x, W, b, activation="leaky_relu", slope=-1)),
        (ValueError, "out", lambda: forward(x, W, b, out=np.zeros((4, 4)))),
        (ValueError, "out", lambda: forward(x, W, b, out=W[:, :4].T)),
        (TypeError, "dout", lambda: backward(dout.astype("f4"), x)),
        (ValueError, "dout", lambda: backward(dout[:2], x)),
        (ValueError, "dout", lambda: backward(dout[:, :0], x)),
        (ValueError, "out", lambda: backward(dout, x, out=(W,))),
        (ValueError, "out", lambda: backward(dout, x, out=(W, dout[0]))),
    ):
        with pytest.raises(error, match=rf"\b{word}\b"):
            call()


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_is_filled_and_returned(dtype):
    x, W, b, dout = make(9, 7, 6, 5, dtype)
    out, dW, db = (np.full_like(a, np.nan) for a in (dout, W, b))
    assert cc.ops.sparse_affine_forward(x, W, b, out=out) is out
    assert same_bits(out, cc.ops.sparse_affine_forward(x, W, b))
    returned = cc.ops.sparse_affine_backward(dout, x, out=(dW, db))
    assert returned[0] is dW and returned[1] is db
    for one, two in zip(returned, cc.ops.sparse_affine_backward(dout, x), strict=True):
        assert same_bits(one, two)


def test_scipy_is_not_needed():
    """What looks like a CSR matrix is one."""

    class Csr:
        format, shape = "csr", (2, 3)
        indptr, indices, data = [0, 1, 2], [2, 0], np.array([5.0, 6.0])

        def tocsr(self):
            raise AssertionError("it is one already")

    assert cc.ops.sparse_affine_forward(Csr(), np.eye(3), None).tolist() == [[0, 0, 5], [6, 0, 0]]
    assert "scipy" not in vars(sys.modules["cnn_core.ops.sparse"])
