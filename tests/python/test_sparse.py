"""Sparse x for a network whose first layer is Affine: the bits of the dense x, never made dense."""

import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn_core as cc
from native.c_build import environment
from reference import DTYPES, Unchanged, same_bits
from reference_network import LOSSES, DoubledAffine, Sine, assert_gradients, make

THREADS = (1, 2, 3, 7)
WORDS = ["affine 8", "tanh", "affine 4"]
NETWORKS = {
    "one layer": ["affine 4"],
    "three": ["affine 30", "relu", "affine 9", "sigmoid", "affine 4"],
    "python behind": ["affine 8", "sine", "affine 4"],
    "activation in python": ["affine 8", "shifted", "affine 4"],
}
VALUES = ("float32", "float64", "uint8", "int64", "bool")


def data(rows, columns, *, density=0.1, values="float64", index_type=np.int32, seed=0):
    """A CSR array, some of its rows empty, and labels 0..3."""
    rng = np.random.default_rng([seed, rows, columns])
    shape = rows, columns
    x = rng.standard_normal(shape) if values[0] == "f" else rng.integers(0, 256, shape)
    x = x * (rng.random(shape) < density) * (rng.random((rows, 1)) < 0.8)
    x = scipy.sparse.csr_array(x).astype(values)
    x.indices, x.indptr = x.indices.astype(index_type), x.indptr.astype(index_type)
    return x, rng.integers(0, 4, rows)


def same_params(one, two):
    return all(same_bits(value, two.params[name]) for name, value in one.params.items())


def figures(history):
    return {name: values for name, values in history.items() if name != "seconds"}


def check_answers(net, x, t):
    """Every method of the network gives the same for x and for x.toarray(), and leaves x alone."""
    dense = x.toarray()
    with Unchanged(x.indptr, x.indices, x.data):
        assert same_bits(net.predict(x), net.predict(dense))
        assert same_bits(net.forward(x, training=True), net.forward(dense, training=True))
        assert net.evaluate(x, t) == net.evaluate(dense, t)
        assert net.loss(x, t, training=True) == net.loss(dense, t, training=True)
        assert net.accuracy(x, t) == net.accuracy(dense, t)
        assert (net.confusion_matrix(x, t) == net.confusion_matrix(dense, t)).all()
        gradient, expected = net.gradient(x, t), net.gradient(dense, t)
    assert all(same_bits(gradient[name], value) for name, value in expected.items())


def check_training(words, x, t, dtype="float64", optimizer=cc.SGD, loss="softmax_cross_entropy"):
    """Two networks, one trained with x and one with x.toarray(), stay the same in every bit."""
    nets = [make(words, input_shape=x.shape[1:], dtype=dtype, loss=loss) for _ in range(2)]
    if loss != "softmax_cross_entropy":
        t = np.eye(4)[t]
    histories = []
    for net, rows in zip(nets, (x, x.toarray()), strict=True):
        trainer = cc.Trainer(net, optimizer(0.05))
        more = {"batch_size": 10, "validation_data": (rows[:7], t[:7]), "verbose": False}
        histories.append([])
        for sampling in ("shuffle", "replacement", "sequential"):
            for report in ("running", "book"):
                options = {"sampling": sampling, "report": report, "epochs": 2}
                histories[-1].append(figures(trainer.fit(rows, t, **options, **more)))
        for n in (len(t), 1, 10):
            histories[-1].append(trainer.step(rows[:n], t[:n]))
    assert histories[0] == histories[1]
    assert same_params(*nets)
    return nets[0]


# ---- the bits of dense input ---------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.integers(1, 25),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.sampled_from(DTYPES),
    st.sampled_from(VALUES),
    st.sampled_from([np.int32, np.int64]),
    st.integers(0, 99),
)
def test_training_and_answers(rows, columns, density, dtype, values, index_type, seed):
    kind = {"density": density, "values": values, "index_type": index_type, "seed": seed}
    x, t = data(rows, columns, **kind)
    check_answers(check_training(WORDS, x, t, dtype), x, t)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, dtype):
    x, t = data(45, 70)
    check_answers(check_training(NETWORKS[name], x, t, dtype), x, t)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss):
    check_training(WORDS, *data(30, 20), loss=loss)


@pytest.mark.parametrize("optimizer", [cc.Adam, cc.AdamW])
def test_optimizers(optimizer):
    check_training(WORDS, *data(30, 20), optimizer=optimizer)


def test_dropout_and_batch_norm():
    nets = []
    x, t = data(90, 40)
    for rows in (x, x.toarray()):
        layers = [cc.Affine(20), cc.BatchNorm(), cc.ReLU(), cc.Dropout(0.3), cc.Affine(4)]
        nets.append(cc.Sequential(layers, input_shape=(40,), seed=3))
        cc.Trainer(nets[-1], cc.SGD(0.1)).fit(rows, t, epochs=3, batch_size=20, verbose=False)
    assert same_params(*nets)
    check_answers(nets[0], x, t)


def test_weights_of_rows():
    nets = []
    x, t = data(60, 40)
    weights = np.linspace(0, 2, 60)
    for rows in (x, x.toarray()):
        nets.append(make(WORDS, input_shape=(40,)))
        trainer = cc.Trainer(nets[-1], cc.SGD(0.1))
        trainer.fit(rows, t, sample_weight=weights, epochs=2, batch_size=20, verbose=False)
        trainer.step(rows, t, sample_weight=weights)
    assert same_params(*nets)
    one, two = (nets[0].gradient(rows, t, sample_weight=weights) for rows in (x, x.toarray()))
    assert all(same_bits(one[name], two[name]) for name in one)


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_formats(kind, container):
    x, t = data(12, 15)
    net, other = make(WORDS, input_shape=(15,)), container(x).asformat(kind)
    assert same_bits(net.predict(other), net.predict(x))
    one, two = net.gradient(other, t), net.gradient(x, t)
    assert all(same_bits(one[name], two[name]) for name in one)


@pytest.mark.parametrize("shape", [(120, 3000), (300, 50), (40, 20_000)])
def test_any_number_of_threads_gives_the_same_bits(shape, threads):
    x, t = data(*shape, density=0.02, values="float32")
    nets, histories = [], []
    for count in THREADS:
        threads(count)
        nets.append(make(["affine 65", "relu", "affine 4"], input_shape=x.shape[1:]))
        trainer = cc.Trainer(nets[-1], cc.SGD(0.1, momentum=0.9))
        history = trainer.fit(x, t, epochs=2, batch_size=32, report="book", verbose=False)
        histories.append(figures(history))
        assert same_params(nets[0], nets[-1]) and histories[0] == histories[-1], count
        assert same_bits(nets[0].predict(x), nets[-1].predict(x))


def test_long_input_is_read_in_parts():
    """More rows than are computed at a time; their columns in any order."""
    x, t = data(1500, 60, density=0.2)
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(np.arange(*ends)) for ends in pairwise(x.indptr)])
    mixed = scipy.sparse.csr_array((x.data[order], x.indices[order], x.indptr), x.shape)
    net = make(WORDS, input_shape=(60,))
    expected = net.predict(x.toarray())
    for rows in (x, mixed):
        assert same_bits(net.predict(rows), expected)
        assert net.evaluate(rows, t) == net.evaluate(x.toarray(), t)
    # So wide that dense rows are computed a few at a time, but sparse ones by the hundred.
    wide = scipy.sparse.csr_array((x.data, x.indices * 1000, x.indptr), (1500, 60_000))
    net = make(["affine 4"], input_shape=(60_000,))
    assert same_bits(net.predict(wide)[::100], net.predict(wide[::100].toarray()))
    parts = [net.loss(wide[i : i + 500], t[i : i + 500]) for i in (0, 500, 1000)]
    assert net.loss(wide, t) == pytest.approx(np.mean(parts), rel=1e-14)


def test_no_rows():
    net = make(WORDS, input_shape=(9,))
    x = scipy.sparse.csr_array((0, 9))
    assert net.predict(x).shape == (0, 4)
    with pytest.raises(ValueError, match=r"x.*at least one row"):
        net.gradient(x, [])


def test_a_not_a_number_goes_where_it_goes_in_dense_input():
    """But for the weights of columns that its row leaves out: they would get 0 * NaN."""
    x, t = data(12, 15, density=0.5)
    row = int(np.searchsorted(x.indptr, 3, side="right")) - 1
    x.data[3] = np.nan
    net = make(WORDS, input_shape=(15,))
    assert np.isnan(net.predict(x)[row]).all()
    assert same_bits(net.predict(x), net.predict(x.toarray()))
    gradient, expected = net.gradient(x, t), net.gradient(x.toarray(), t)
    left_out = x.toarray()[row] == 0
    assert 0 < left_out.sum() < 15
    assert np.isnan(expected["W1"]).all()
    assert (np.isnan(gradient["W1"]).all(axis=1) == ~left_out).all()
    assert all(same_bits(gradient[name], expected[name]) for name in ("b1", "W2", "b2"))


# ---- numerical gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_numerical_gradient(name, dtype):
    """Compiled, or layer by layer where Python is behind; with columns that have no entries."""
    x, t = data(7, 12, density=0.2, seed=1)
    assert (x.toarray() == 0).all(axis=0).any()
    net = make(NETWORKS[name], input_shape=(12,), dtype=dtype)
    gradient, expected = (net.numerical_gradient(rows, t) for rows in (x, x.toarray()))
    assert all(same_bits(gradient[name], value) for name, value in expected.items())
    if dtype == "float64":
        assert_gradients(net.gradient(x, t), gradient, dtype, tolerance=1e-6)


def test_numerical_gradient_of_a_loss_that_is_no_number():
    x, t = data(7, 12, density=0.2, seed=1)
    net = make(WORDS, input_shape=(12,))
    net.params["b1"][0] = np.nan
    with np.errstate(invalid="ignore"):
        gradient = net.numerical_gradient(x, t)
    assert np.isnan(gradient["W1"]).all()


# ---- memory --------------------------------------------------------------------------------------

LARGE = r"""
import re
from pathlib import Path

import numpy as np
import scipy.sparse
import cnn_core as cc

rng = np.random.default_rng(0)
rows, columns, entries = 20_000, 100_000, 10
indices = rng.integers(0, columns, rows * entries, dtype=np.int32)
values = rng.standard_normal(rows * entries, dtype=np.float32)
x = scipy.sparse.csr_array((values, indices, np.arange(rows + 1) * entries), (rows, columns))
t = rng.integers(0, 5, rows)
net = cc.Sequential([cc.Affine(50), cc.ReLU(), cc.Affine(5)], input_shape=(columns,))
trainer = cc.Trainer(net, cc.SGD(0.1))
history = trainer.fit(
    x, t, epochs=2, batch_size=1000, report="book", validation_data=(x, t), verbose=False
)
assert history["loss"][1] < history["loss"][0]
trainer.step(x, t)
assert net.predict(x).shape == (rows, 5)
assert net.gradient(x, t)["W1"].shape == (columns, 50)
assert net.numerical_gradient(x[:2], t[:2])["W1"].any()
print(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own figure")
def test_wide_input_is_never_dense():
    """A batch of 1,000 rows would take 400 MB, all rows 8 GB."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout) / 1024
    assert peak < 300, f"{peak:.0f} MB"


def test_predict_copies_a_part_at_a_time():
    x, _ = data(20_000, 300, density=0.1)
    net = make(["affine 2"], input_shape=(300,))
    net.predict(x)
    tracemalloc.start()
    try:
        net.predict(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.data.nbytes / 2


# ---- the caller's matrix -------------------------------------------------------------------------


class Spoil(cc.Callback):
    """Makes the matrix useless while it is being trained on."""

    def __init__(self, x):
        self.x = x

    def on_step_end(self, trainer):
        self.x.indices[:] = 10**6
        self.x.indptr[:] = 10**6
        self.x.data[:] = np.nan


def test_changes_during_training_are_not_seen():
    x, t = data(50, 20)
    nets = [make(WORDS, input_shape=(20,)) for _ in range(2)]
    more = {"epochs": 3, "batch_size": 10, "report": "book", "verbose": False}
    cc.Trainer(nets[0], cc.SGD(0.1)).fit(x, t, **more)
    cc.Trainer(nets[1], cc.SGD(0.1), callbacks=[Spoil(x)]).fit(x, t, **more)
    assert same_params(*nets)


def test_the_data_is_let_go_after_training():
    x, t = data(50, 20)
    net = make(WORDS, input_shape=(20,))
    cc.Trainer(net, cc.SGD(0.1)).fit(x, t, batch_size=20, verbose=False)
    for n in (20, 10):
        batch = net.plan(n, "labels", True, True, sparse=True).x
        assert batch.shape == (n, 20) and batch.entries == 0


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [cc.Conv2D(2, 3), cc.Flatten(), Sine(), DoubledAffine(3)])
def test_the_first_layer_must_be_affine(first):
    shape = (1, 5, 5) if isinstance(first, (cc.Conv2D, cc.Flatten)) else (25,)
    between = [cc.Flatten()] if isinstance(first, cc.Conv2D) else []
    net = cc.Sequential([first, *between, cc.Affine(4)], input_shape=shape)
    x, t = data(6, 25)
    trainer = cc.Trainer(net, cc.SGD(0.1))
    for call in (
        lambda: net.predict(x),
        lambda: net.gradient(x, t),
        lambda: trainer.step(x, t),
        lambda: trainer.fit(x, t),
    ):
        with pytest.raises(TypeError, match=f"^x: sparse.*Affine.*{type(first).__name__}"):
            call()


def test_wrong_input_is_refused():
    x, t = data(6, 25)
    net = make(WORDS, input_shape=(25,))
    trainer = cc.Trainer(net, cc.SGD(0.1))
    broken = x.copy()
    broken.indices[-1] = 25
    for error, words, rows in (
        (ValueError, r"^x: expected shape \(N, 25\), got \(6, 24\)", x[:, :24]),
        (TypeError, "^x: expected numbers, got dtype complex128", x.astype(complex)),
        (ValueError, r"^x\.indices: expected columns in 0\.\.24, got 25", broken),
    ):
        with pytest.raises(error, match=words):
            net.predict(rows)
        with pytest.raises(error, match=words):
            trainer.fit(rows, t)
        with pytest.raises(error, match=f"^validation_data: {words[1:]}"):
            trainer.fit(x, t, validation_data=(rows, t))
    with pytest.raises(ValueError, match=r"^t:"):
        net.gradient(x, t[:5])
    with pytest.raises(ValueError, match="dimension"):
        net.predict(scipy.sparse.coo_array(np.ones(25)))


def test_pictures_want_pictures():
    net = make(["affine 4"], input_shape=(25,))
    with pytest.raises(TypeError, match="x: expected an array"):
        cc.plotting.show_misclassified(net, *data(6, 25))
