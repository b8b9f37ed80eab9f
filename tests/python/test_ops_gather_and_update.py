"""gather_rows and sgd_update: values, layouts, threads, what is written and what is not, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn_core as cc
import reference
from reference import (
    DTYPES,
    LAYOUTS,
    SIZES,
    TIGHT,
    Unchanged,
    assert_close,
    lay_out,
    random_array,
    same_bits,
)

SOURCES = (*DTYPES, "uint8")
THREADS = (1, 2, 3, 7)

by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def make_source(seed, shape, kind):
    rng = np.random.default_rng(seed)
    if kind == "uint8":
        return rng.integers(0, 256, shape).astype("uint8")
    return random_array(rng, shape, kind)


def check_gather(source, indices, *, scale=1.0, dtype=None, note=""):
    actual = cc.ops.gather_rows(source, indices, scale=scale, dtype=dtype)
    assert actual.flags.c_contiguous and not np.shares_memory(actual, source), note
    expected = reference.gather_rows(source, indices, scale=scale)
    if dtype is None:
        dtype = "float32" if source.dtype == np.uint8 else source.dtype
    narrowed = source.dtype == np.float64 and np.dtype(dtype) == np.float32
    if scale == 1 and not narrowed:
        assert np.array_equal(actual, expected) and actual.dtype == dtype, note
    else:
        assert_close(actual, expected, dtype, table=TIGHT, note=note)


# ---- gather_rows: values -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_gather_at_edge_sizes(kind, dtype):
    rng = np.random.default_rng(0)
    for width in SIZES:
        source = make_source(1, (13, width), kind)
        for count in (0, 1, 2, 7, 33):
            indices = rng.integers(0, 13, count)
            for scale in (1.0, 1 / 255, -2.5, 0.0):
                note = f"width={width} count={count} scale={scale}"
                check_gather(source, indices, scale=scale, dtype=dtype, note=note)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 3, 5), (9, 2, 3, 7), (9, 0), (9, 4, 0)])
def test_gather_takes_any_rank(kind, shape):
    check_gather(make_source(2, shape, kind), np.array([8, 0, 3, 3]), scale=0.5)


@by_dtype
def test_gather_of_every_byte(dtype):
    source = np.arange(256, dtype="uint8").reshape(256, 1)
    order = np.random.default_rng(3).permutation(256)
    rows = cc.ops.gather_rows(source, order, dtype=dtype)
    assert rows.dtype == dtype and rows[:, 0].tolist() == order.tolist()
    rows = cc.ops.gather_rows(source, order, scale=1 / 255, dtype=dtype)
    assert_close(rows[:, 0], order / 255, dtype, table=TIGHT)
    assert rows.max() == 1.0 and rows.min() == 0.0


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"])
def test_gather_with_indices_of_any_integer_type(kind):
    source = make_source(4, (6, 3), "float32")
    indices = np.array([5, 0, 2, 5])
    assert np.array_equal(cc.ops.gather_rows(source, indices.astype(kind)), source[indices])
    assert np.array_equal(cc.ops.gather_rows(source, indices.tolist()), source[indices])


@by_dtype
def test_gather_keeps_special_values(dtype):
    info = np.finfo(dtype)
    source = np.array([[np.nan], [np.inf], [-np.inf], [info.smallest_subnormal], [-0.0]], dtype)
    order = np.array([4, 3, 2, 1, 0])
    assert same_bits(cc.ops.gather_rows(source, order), source[order])


@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4).map(tuple),
    kind=st.sampled_from(SOURCES),
    dtype=st.sampled_from([None, *DTYPES]),
    stored=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    scale=st.sampled_from([1.0, 1 / 255]),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_gather_of_any_layout(shape, kind, dtype, stored, scale, count, seed):
    source = lay_out(make_source(seed, shape, kind), stored[0])
    indices = lay_out(np.random.default_rng(seed).integers(0, shape[0], count), stored[1])
    with Unchanged(source, indices):
        check_gather(source, indices, scale=scale, dtype=dtype)


@pytest.mark.parametrize("kind", SOURCES)
def test_gather_does_not_depend_on_the_number_of_threads(kind, threads):
    source = make_source(5, (4001, 97), kind)
    indices = np.random.default_rng(6).integers(0, 4001, 6007)
    results = []
    for count in THREADS:
        threads(count)
        results.append(cc.ops.gather_rows(source, indices, scale=1 / 255))
    assert all(same_bits(results[0], result) for result in results[1:])


@pytest.mark.parametrize("kind", SOURCES)
@by_dtype
def test_gather_fills_and_returns_out(kind, dtype):
    source, indices = make_source(7, (9, 17), kind), np.array([8, 1, 1])
    out = np.full((3, 17), np.nan, dtype)
    with Unchanged(source, indices):
        assert cc.ops.gather_rows(source, indices, scale=0.5, dtype=dtype, out=out) is out
    assert same_bits(out, cc.ops.gather_rows(source, indices, scale=0.5, dtype=dtype))


# ---- gather_rows: errors -------------------------------------------------------------------------


@pytest.mark.parametrize("index", [6, 7, 1000, -7, -1000, 2**31, 2**32, -(2**32), 2**62])
@pytest.mark.parametrize("place", [0, 50, 99])
def test_gather_refuses_indices_out_of_range(index, place):
    indices = np.zeros(100, "int64")
    indices[place] = index
    out = np.zeros((100, 3))
    with pytest.raises((IndexError, ValueError), match=r"\bindices\b"):
        cc.ops.gather_rows(np.ones((6, 3)), indices, out=out)


def test_gather_counts_from_the_end_or_refuses():
    source = np.arange(12.0).reshape(6, 2)
    try:
        rows = cc.ops.gather_rows(source, np.array([-1, -6]))
    except (IndexError, ValueError) as error:
        assert "indices" in str(error)
    else:
        assert np.array_equal(rows, source[[-1, -6]])


def test_gather_refuses_rows_of_nothing():
    with pytest.raises((IndexError, ValueError), match=r"\bindices\b"):
        cc.ops.gather_rows(np.empty((0, 3)), np.array([0]))
    assert cc.ops.gather_rows(np.empty((0, 3)), np.empty(0, "int64")).shape == (0, 3)


def test_gather_refuses_wrong_indices():
    source = np.ones((6, 3))
    for indices in (np.zeros(2), np.zeros(2, "complex64"), np.array([True] * 6), np.array(["0"])):
        with pytest.raises(TypeError, match=r"\bindices\b"):
            cc.ops.gather_rows(source, indices)
    for indices in (np.zeros((2, 1), "int64"), np.array(1)):
        with pytest.raises(ValueError, match=r"\bindices\b"):
            cc.ops.gather_rows(source, indices)
    with pytest.raises((IndexError, ValueError), match=r"\bindices\b"):
        cc.ops.gather_rows(source, np.array([2**64 - 1], "uint64"))


def test_gather_refuses_wrong_sources_and_dtypes():
    for kind in ("float16", "int64", "int8", "bool", "complex64", "object"):
        with pytest.raises(TypeError, match=r"\bsource\b"):
            cc.ops.gather_rows(np.ones((6, 3), kind), np.array([0]))
    with pytest.raises(ValueError, match=r"\bsource\b"):
        cc.ops.gather_rows(np.array(1.0), np.array([0]))
    for kind in ("float16", "int64", "uint8", "complex64"):
        with pytest.raises(TypeError, match=r"\bdtype\b"):
            cc.ops.gather_rows(np.ones((6, 3)), np.array([0]), dtype=kind)


def test_gather_refuses_a_bad_out():
    store = np.ones((6, 3))
    readonly = np.empty((2, 3))
    readonly.flags.writeable = False
    bad = [
        np.empty((3, 3)),
        np.empty((2, 4)),
        np.empty(6),
        np.empty((2, 3), "float32"),
        np.empty((2, 3), order="F"),
        np.empty((2, 6))[:, ::2],
        readonly,
        store[4:],
    ]
    for out in bad:
        with pytest.raises(ValueError, match=r"\bout\b"):
            cc.ops.gather_rows(store, np.array([0, 1]), scale=2.0, dtype="float64", out=out)
    assert (store == 1).all(), "a refused call has written something"


# ---- sgd_update: values --------------------------------------------------------------------------

RULES = (
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
)
by_rule = pytest.mark.parametrize("rule", RULES, ids=str)


def take_steps(seed, size, dtype, rule, steps=3, lr=0.1):
    """Make a few steps with the op and with the reference, and compare."""
    rng = np.random.default_rng(seed)
    p, v = random_array(rng, size, dtype), np.zeros(size, dtype)
    given_v = v if "momentum" in rule else None
    for _ in range(steps):
        g = random_array(rng, size, dtype)
        expected, expected_v = reference.sgd_update(p, g, lr, velocity=given_v, **rule)
        with Unchanged(g):
            assert cc.ops.sgd_update(p, g, lr, velocity=given_v, **rule) is None
        scale = np.full(size, 10.0)  # of every number that takes part in the step
        assert_close(p, expected, dtype, magnitude=scale, table=TIGHT, note=f"p size={size}")
        if given_v is not None:
            assert_close(v, expected_v, dtype, magnitude=scale, table=TIGHT, note="velocity")
    return p, v


@by_rule
@by_dtype
def test_update_at_edge_sizes(rule, dtype):
    for size in (0, *SIZES, 1000):
        take_steps(8, size, dtype, rule)


@by_dtype
def test_update_known_values(dtype):
    def step(**rule):
        p, g, v = (np.array([value] * 33, dtype) for value in (1.0, 0.5, 2.0))
        velocity = v if "momentum" in rule else None
        cc.ops.sgd_update(p, g, 0.25, velocity=velocity, **rule)
        assert (p == p[0]).all() and (v == v[0]).all()
        return p[0], v[0]

    assert step() == (0.875, 2.0)
    assert step(weight_decay=0.5) == (0.75, 2.0)
    assert step(momentum=0.5) == (0.625, 1.5)
    assert step(momentum=0.5, nesterov=True) == (0.6875, 1.5)
    assert step(momentum=0.5, weight_decay=0.5) == (0.5, 2.0)
    assert step(momentum=0.5, weight_decay=0.5, nesterov=True) == (0.5, 2.0)


def test_update_without_learning_keeps_params():
    p = np.random.default_rng(9).standard_normal(65)
    before = p.copy()
    cc.ops.sgd_update(p, np.ones(65), 0.0)
    assert same_bits(p, before)


@by_dtype
def test_update_lets_nan_through(dtype):
    for place in range(33):
        p, g, v = np.ones(33, dtype), np.ones(33, dtype), np.zeros(33, dtype)
        g[place] = np.nan
        cc.ops.sgd_update(p, g, 0.1, momentum=0.9, velocity=v)
        assert np.flatnonzero(np.isnan(p)).tolist() == [place]
        assert np.flatnonzero(np.isnan(v)).tolist() == [place]


@given(
    size=st.integers(0, 300),
    dtype=st.sampled_from(DTYPES),
    stored=st.sampled_from(LAYOUTS),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 99),
)
def test_update_with_gradients_of_any_layout(size, dtype, stored, rule, seed):
    rng = np.random.default_rng(seed)
    p, v = random_array(rng, size, dtype), np.zeros(size, dtype)
    g = lay_out(random_array(rng, size, dtype), stored)
    expected, _ = reference.sgd_update(p, g, 0.1, **rule)
    with Unchanged(g):
        cc.ops.sgd_update(p, g, 0.1, velocity=v if "momentum" in rule else None, **rule)
    assert_close(p, expected, dtype, magnitude=np.full(size, 10.0), table=TIGHT)


@by_rule
@by_dtype
def test_update_does_not_depend_on_the_number_of_threads(rule, dtype, threads):
    results = []
    for count in THREADS:
        threads(count)
        results.append(take_steps(10, 300007, dtype, rule, steps=2))
    for p, v in results[1:]:
        assert same_bits(p, results[0][0]) and same_bits(v, results[0][1])


@pytest.mark.parametrize("layout", ["reversed", "strided", "unaligned"])
def test_update_in_place_of_any_layout_or_refused(layout):
    """A copy made inside must not swallow the update."""
    g, v = np.ones(33), np.zeros(33)
    for name in ("params", "velocity"):
        operands = {"params": np.zeros(33), "velocity": v.copy()}
        operands[name] = lay_out(operands[name], layout)
        try:
            cc.ops.sgd_update(
                operands["params"], g, 0.5, momentum=0.5, velocity=operands["velocity"]
            )
        except ValueError as error:
            assert name in str(error)
        else:
            assert (operands["params"] == -0.5).all() and (operands["velocity"] == 1).all()


# ---- sgd_update: errors --------------------------------------------------------------------------


def test_update_refuses_wrong_shapes():
    for shape in ((2, 3), (), (1, 6)):
        with pytest.raises(ValueError, match=r"\bparams\b"):
            cc.ops.sgd_update(np.ones(shape), np.ones(shape), 0.1)
    for shape in ((5,), (7,), (1,), (2, 3), ()):
        with pytest.raises(ValueError, match=r"\bgrads\b"):
            cc.ops.sgd_update(np.ones(6), np.ones(shape), 0.1)
        with pytest.raises(ValueError, match=r"\bvelocity\b"):
            cc.ops.sgd_update(np.ones(6), np.ones(6), 0.1, momentum=0.9, velocity=np.ones(shape))


def test_update_needs_a_velocity_for_momentum():
    p = np.ones(6)
    with pytest.raises((TypeError, ValueError), match=r"\bvelocity\b"):
        cc.ops.sgd_update(p, np.ones(6), 0.1, momentum=0.9)
    assert (p == 1).all()


def test_update_refuses_what_it_cannot_write():
    readonly = np.ones(6)
    readonly.flags.writeable = False
    with pytest.raises(ValueError, match=r"\bparams\b"):
        cc.ops.sgd_update(readonly, np.ones(6), 0.1)
    with pytest.raises(ValueError, match=r"\bvelocity\b"):
        cc.ops.sgd_update(np.ones(6), np.ones(6), 0.1, momentum=0.9, velocity=readonly)
    with pytest.raises((TypeError, ValueError), match=r"\bparams\b"):
        cc.ops.sgd_update([1.0, 2.0], np.ones(2), 0.1)  # a list cannot be updated in place
    with pytest.raises((TypeError, ValueError), match=r"\bvelocity\b"):
        cc.ops.sgd_update(np.ones(2), np.ones(2), 0.1, momentum=0.9, velocity=[0.0, 0.0])


def test_update_refuses_overlap():
    p = np.ones(8)
    for grads, velocity in ((p[1:7], np.zeros(6)), (np.ones(6), p[1:7])):
        with pytest.raises(ValueError, match=r"\b(params|grads|velocity)\b"):
            cc.ops.sgd_update(p[:6], grads, 0.1, momentum=0.9, velocity=velocity)
    assert (p == 1).all()


@pytest.mark.parametrize("wrong", ["float16", "complex128", "int64", "uint8", "bool", "object"])
def test_update_refuses_wrong_dtypes(wrong):
    good, bad = np.ones(6), np.ones(6, wrong)
    with pytest.raises(TypeError, match=r"\bparams\b"):
        cc.ops.sgd_update(bad, good, 0.1)
    with pytest.raises(TypeError, match=r"\bgrads\b"):
        cc.ops.sgd_update(good, bad, 0.1)
    with pytest.raises(TypeError, match=r"\bvelocity\b"):
        cc.ops.sgd_update(good, good.copy(), 0.1, momentum=0.9, velocity=bad)
    assert (good == 1).all()


def test_update_refuses_mixed_dtypes():
    double, single = np.ones(6), np.ones(6, "float32")
    for p, g, v in ((double, single, double), (single, double, single), (single, single, double)):
        with pytest.raises(TypeError, match=r"\b(params|grads|velocity)\b"):
            cc.ops.sgd_update(p.copy(), g.copy(), 0.1, momentum=0.9, velocity=v.copy())
