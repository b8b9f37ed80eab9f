"""The same bits for any number of threads, run after run, and in a fresh process."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import cnn_core as cc
import reproducibility
from native.c_build import environment
from reference import DTYPES, same_bits
from reproducibility import CASES, LAYERS, THREADS, WORK, digest, offered

WORK_OF_A_PAIR = 2 * 100_000


@functools.cache
def expected(case, dtype):
    """The digest on one thread."""
    return on_threads(1, lambda: digest(case, dtype))


def on_threads(count, compute):
    before = cc.get_num_threads()
    cc.set_num_threads(count)
    try:
        return compute()
    finally:
        cc.set_num_threads(before)


# ---- the table -----------------------------------------------------------------------------------


def test_every_layer_has_a_case():
    missing = set(offered(cc.Layer)) - {name.partition(" ")[0] for name in LAYERS}
    assert not missing, f"add to LAYERS in tests/reproducibility.py: {sorted(missing)}"


def test_what_is_offered_is_found():
    assert {"SGD", "AdamW"} <= set(reproducibility.OPTIMIZERS)
    assert {"MeanSquaredError", "SoftmaxCrossEntropy"} <= set(reproducibility.LOSSES)
    assert {"two_layer_net", "lenet5"} <= set(reproducibility.MODELS)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("model")])
def test_the_cases_keep_sixteen_threads_busy(case, monkeypatch):
    programs, made = [], cc.ops.Program
    monkeypatch.setattr(
        cc.ops, "Program", lambda *plan: programs.append(made(*plan)) or programs[-1]
    )
    digest(case, "float32")
    assert max(program.work for program in programs) >= WORK


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_the_number_of_threads(case, dtype):
    for count in THREADS[1:]:
        assert on_threads(count, lambda: digest(case, dtype)) == expected(case, dtype), count


@pytest.mark.parametrize("count", ["1", "5"])
def test_a_fresh_process_gives_the_same_bits(count):
    found = subprocess.run(
        [sys.executable, reproducibility.__file__, count, *DTYPES],
        env=environment(PYTHONHASHSEED=count),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    values = json.loads(found.stdout)
    assert values == {
        f"{case} {dtype}": expected(case, dtype) for dtype in DTYPES for case in CASES
    }


def test_other_seeds_and_data_give_other_digests():
    assert len({expected(case, dtype) for case in CASES for dtype in DTYPES}) == 2 * len(CASES)


# ---- any shape -----------------------------------------------------------------------------------


def assert_same_on(count, make, n):
    """A step, with its gradients and predictions, on one thread and on `count`."""

    def run():
        net = make()
        rng = np.random.default_rng(n)
        x = rng.standard_normal((n, *net.input_shape)).astype(net.dtype)
        t = rng.integers(0, net.output_shape[0], n)
        loss = cc.Trainer(net, cc.SGD(0.1, momentum=0.5)).step(x, t)
        return np.float64(loss), net.flat_grads.copy(), net.flat_params, net.predict(x)

    for one, other in zip(on_threads(1, run), on_threads(count, run), strict=True):
        assert same_bits(one, other)


@given(
    n=st.integers(1, 70),
    inputs=st.integers(20, 500),
    more=st.integers(0, 15),
    count=st.sampled_from(THREADS[1:]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_dense_shape(n, inputs, more, count, dtype):
    hidden = WORK // (n * inputs) + more + 1

    def make():
        layers = [cc.Affine(hidden), cc.ReLU(), cc.Affine(more + 2)]
        return cc.Sequential(layers, input_shape=(inputs,), dtype=dtype)

    assert_same_on(count, make, n)


@given(
    n=st.integers(1, 9),
    channels=st.integers(1, 9),
    size=st.tuples(st.integers(5, 30), st.integers(5, 30)),
    filters=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    count=st.sampled_from(THREADS[1:]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_convolution(n, channels, size, filters, kernel, stride, padding, count, dtype):
    pixels = np.prod(
        [(s + 2 * padding - k) // stride + 1 for s, k in zip(size, kernel, strict=True)]
    )
    assume(n * channels * filters * np.prod(kernel) * pixels >= WORK_OF_A_PAIR)

    def make():
        layers = [
            cc.Conv2D(filters, kernel, stride, padding),
            cc.Tanh(),
            cc.Flatten(),
            cc.Affine(3),
        ]
        return cc.Sequential(layers, input_shape=(channels, *size), dtype=dtype)

    assert_same_on(count, make, n)
