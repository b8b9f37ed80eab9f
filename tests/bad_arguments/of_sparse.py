"""Sparse rows, whose arrays anyone can change behind SciPy's back."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

import cnn_core as cc
from bad_arguments import Case
from bad_arguments.scalars import Choice, Number
from bad_arguments.values import Floats, Kind, Out, Outs, no_arrays

N, I, O = 4, 6, 3  # noqa: E741 - the alphabet of axes


def real(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def rows():
    """No empty row and no empty column; in SciPy's own order."""
    return scipy.sparse.csr_array(real(N, I))


#: an array of a CSR matrix, an index into it, and what is wrong there
DAMAGE = {
    "a column beyond": ("indices", 3, I),
    "a negative column": ("indices", 0, -1),
    "a large column": ("indices", -1, 2**31 - 1),
    "a falling indptr": ("indptr", 2, 1),
    "a negative indptr": ("indptr", 1, -5),
    "an indptr beyond": ("indptr", -1, 1000),
    "a late begin": ("indptr", 0, 1),
}


@dataclass
class Sparse(Kind):
    """A SciPy matrix of any format.

    strict : float32 or float64 only, in the others' dtype. tied : whether the width is fixed.
    """

    strict: bool = True
    tied: bool = True

    def bad(self, value):
        yield from super().bad(value)
        yield from no_arrays()
        if self.strict:
            yield "a dense array", value.toarray()
            for dtype in ("f8", "i4", "?"):
                yield dtype, value.astype(dtype)
        yield "complex", value.astype(complex)
        if self.tied:
            yield "one column more", scipy.sparse.hstack([value, value[:, :1]], format="csr")
            yield "one column less", value[:, 1:]
        yield "one dimension", scipy.sparse.coo_array(value.toarray()[0])
        for label, (name, place, wrong) in DAMAGE.items():
            damaged = value.copy()
            getattr(damaged, name)[place] = wrong
            yield label, damaged
        for name in ("indices", "indptr", "data"):
            for wrong in (getattr(value, name)[:-1], np.stack([getattr(value, name)] * 2)):
                damaged = value.copy()
                vars(damaged)[name] = wrong
                yield f"{name} of shape {wrong.shape}", damaged
            damaged = value.copy()
            vars(damaged)[name] = getattr(value, name).astype(complex)
            yield f"complex {name}", damaged

    def same(self, value):
        for kind in ("csc", "coo", "bsr", "lil", "dok"):
            yield kind, value.asformat(kind)
        yield "a matrix", scipy.sparse.csr_matrix(value)
        yield "reversed columns", value[:, ::-1].tocsc()[:, ::-1].tocsr()
        wide = value.copy()
        wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
        yield "64-bit indices", wide


def case(function, arguments, kinds):
    return Case(lambda: (function, arguments()), kinds)


CASES = {
    "ops.sparse_affine_forward": case(
        cc.ops.sparse_affine_forward,
        lambda: {"x": rows(), "W": real(I, O), "b": real(O), "activation": "relu", "slope": 0.5},
        {
            "x": Sparse(named=("W",)),
            "W": Floats(named=("x", "b")),
            "b": Floats(optional=True),
            "activation": Choice(optional=True),
            "slope": Number(0),
            "out": Out(),
        },
    ),
    "ops.sparse_affine_backward": case(
        cc.ops.sparse_affine_backward,
        lambda: {"dout": real(N, O), "x": rows()},
        {"dout": Floats(tied=(0,)), "x": Sparse(named=("dout",), tied=False), "out": Outs()},
    ),
    "Sequential.predict of sparse rows": Case(
        lambda: (
            cc.Sequential([cc.Affine(O)], input_shape=(I,)).predict,
            {"x": rows()},
        ),
        {"x": Sparse(strict=False)},
    ),
}
