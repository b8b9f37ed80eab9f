"""A first affine layer whose outputs a training step adds up in strips of the inputs."""

import gc
import weakref

import numpy as np
import pytest
import scipy.sparse

import cnn_core as cc
import reference
from cnn_core import ops
from cnn_core.blocks import STRIP, AffineBlock
from reference import DTYPES, assert_close, same_bits

THREADS = (2, 3, 7, 16)
#: inputs, units, rows: around the sizes from which on there are 2 and 4 strips, and 1 and 2 groups
SIZES = [
    *((n_in, 10, 9) for n_in in (2 * STRIP - 1, 2 * STRIP, 2 * STRIP + 1, 4 * STRIP - 1)),
    *((784, 50, rows) for rows in (1, 2, 3, 63, 64, 65, 100, 127, 128, 129, 130)),
    *((n_in, 17, 5) for n_in in (4 * STRIP, 1000, 1030)),
    (300, 1, 200),
    (784, 300, 200),
]


def make(n_in, units, dtype, activation=cc.Sigmoid):
    layers = [cc.Affine(units), activation(), cc.Affine(7)]
    return cc.Sequential(layers, input_shape=(n_in,), dtype=dtype, seed=3)


def batch(n_in, rows, kind="float64"):
    rng = np.random.default_rng([n_in, rows])
    return rng.integers(0, 256, (rows, n_in)).astype(kind), rng.integers(0, 7, rows)


def strips(net, n):
    block = net.plan(n, "labels", True, True).segments[0].blocks[0]
    assert type(block) is AffineBlock
    return block.strips


def test_which_layers_have_strips():
    """Nothing but the sizes decides, or the bits would depend on the machine."""
    found = {n_in: strips(make(n_in, 10, "float32"), 100) for n_in, _, _ in SIZES}
    assert found[2 * STRIP - 1] is None
    assert found[2 * STRIP] == found[4 * STRIP - 1] == (2, 1)
    assert found[4 * STRIP] == found[784] == found[1030] == (4, 1)
    assert strips(make(784, 10, "float32"), 1) == (4, 1)
    assert [strips(make(784, 128, "float32"), n) for n in (128, 129)] == [(4, 1), (4, 2)]
    assert [strips(make(784, 129, "float32"), n) for n in (64, 65)] == [(4, 1), (4, 2)]
    assert strips(make(784, 300, "float32"), 200) == (2, 4), "fewer, where their sums are many"
    assert strips(make(784, 2000, "float32"), 100) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_in", "units", "rows"), SIZES)
def test_gradients_are_those_of_the_formulas(n_in, units, rows, dtype):
    net = make(n_in, units, dtype)
    x, t = batch(n_in, rows)
    x = (x / 255).astype(dtype)
    gradient = net.gradient(x, t)
    W1, b1, W2, b2 = (net.params[name].astype("float64") for name in ("W1", "b1", "W2", "b2"))
    hidden = reference.sigmoid_forward(reference.affine_forward(x.astype("float64"), W1, b1))
    _, dy = reference.softmax_cross_entropy(reference.affine_forward(hidden, W2, b2), t)
    dh, dW2, db2 = reference.affine_backward(dy, hidden, W2)
    _, dW1, db1 = reference.affine_backward(reference.sigmoid_backward(dh, hidden), x, W1)
    for name, expected in {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}.items():
        assert_close(gradient[name], expected, dtype, magnitude=np.full_like(expected, 1.0))


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_any_number_of_threads_gives_the_same_bits(kind, rows, threads):
    def trained():
        net = make(784, 50, "float32", cc.ReLU)
        x, t = batch(784, 3 * rows, kind)
        cc.Trainer(net, cc.SGD(0.01)).fit(x, t, epochs=2, batch_size=rows, verbose=False)
        return cc.fingerprint(net)

    threads(1)
    expected = trained()
    for count in THREADS:
        threads(count)
        assert trained() == expected, count


@pytest.mark.parametrize("rows", [1, 7, 100])
@pytest.mark.parametrize("sampling", ["shuffle", "replacement", "sequential"])
def test_fetching_the_next_batch_changes_no_bit(rows, sampling):
    """Rows of the network's own dtype are fetched a batch ahead; those of another are not."""
    x, t = batch(784, 3 * rows + 1, "float32")
    trained = []
    for data in (x, x.astype("float64")):
        net = make(784, 50, "float32", cc.ReLU)
        options = {"epochs": 2, "batch_size": rows, "sampling": sampling, "verbose": False}
        cc.Trainer(net, cc.SGD(1e-4)).fit(data, t, **options)
        trained.append(cc.fingerprint(net))
    assert trained[0] == trained[1]


def test_a_network_does_not_keep_what_it_was_trained_with():
    x, t = batch(784, 30, "float32")
    net = make(784, 50, "float32")
    cc.Trainer(net, cc.SGD(1e-4)).fit(x, t, batch_size=10, verbose=False)
    data = weakref.ref(x)
    del x
    gc.collect()
    assert data() is None and net.params


def test_sparse_rows_give_the_same_bits():
    for n_in, rows in ((2 * STRIP, 5), (784, 1), (1030, 130)):
        x, t = batch(n_in, rows)
        x[x < 200] = 0
        x[:, : n_in // 3] = 0  # a strip without entries
        for dtype in DTYPES:
            net = make(n_in, 150, dtype)
            dense, sparse = net.gradient(x, t), net.gradient(scipy.sparse.csr_array(x), t)
            assert all(same_bits(sparse[name], value) for name, value in dense.items())


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_rows_are_read_in_strips(kind):
    """Every element is read once, for any number of strips and groups."""
    batches = ops.native.batches
    for columns in (1, 15, 16, 17, 100, 784):
        source, _ = batch(columns, 30, kind)
        indices, start = np.random.default_rng(0).integers(0, 30, 40), np.full(1, 11)
        for dtype in DTYPES:
            plain = np.empty((20, columns), dtype)
            ops.run(batches.gather_rows(source, indices, start, 0.5, plain))
            for n_strips in (1, 2, 3, 4, 8):
                for n_groups in (1, 3, 20):
                    out = np.full_like(plain, np.nan)
                    shape = n_strips, n_groups
                    ops.run(batches.gather_rows(source, indices, start, 0.5, out, *shape))
                    assert same_bits(out, plain), f"columns={columns} {shape}"
