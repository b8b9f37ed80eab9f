"""Plans with a dense layer of many weights behind images, which is computed pixel by pixel."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn_core as cc
from cnn_core import blocks, image_blocks, parts
from cnn_core.image_blocks import ImagesAffineBlock
from image_stacks import ANYWHERE, LAYERS, ON_IMAGES, check_fused, make, stacks
from reference import DTYPES, same_bits
from reference_network import make_batch

#: its outputs are added in another order than those of rows
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
PAIRS = [*itertools.product([*ON_IMAGES, *ANYWHERE], ["affine", "tanh", "dropout", "batch norm"])]


@pytest.fixture(scope="module", autouse=True)
def _small_layers_count_as_large():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_blocks, "MOST_IN_A_LANE", 0)
        patch.setattr(image_blocks, "LEAST_PIXELS", 1)
        yield


def found(net, n):
    segments = net.plan(n, "rows", True, True).segments
    return [b for s in segments for b in getattr(s, "blocks", []) if type(b) is ImagesAffineBlock]


@given(words=stacks(), n=st.sampled_from([4, 13]), seed=st.integers(0, 5))
def test_any_stack_equals_its_layers_one_by_one(words, n, seed):
    """In float64, where no rounding lets another element of a window be its maximum."""
    check_fused([*words, "affine"], "float64", n, seed, TOLERANCE["float64"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("before", "behind"), PAIRS)
def test_what_stands_before_and_behind_the_images_become_rows(before, behind, dtype):
    words = ["conv 1x1", before, "flatten", behind, "affine"]
    check_fused(words, dtype, 5, 1, TOLERANCE[str(np.dtype(dtype))])
    assert len(found(make(words, dtype=dtype), 5)) == (behind == "affine" and before != "dropout")


@pytest.mark.parametrize("words", [["flatten", "affine"], ["tanh", "flatten", "affine"]])
def test_images_that_are_the_input_are_rows_already(words):
    check_fused(words, "float64", 5, 1)
    assert not found(make(words), 5)


def test_the_first_layer_with_parameters():
    words = ["max", "relu", "flatten", "affine", "relu", "affine"]
    check_fused(words, "float32", 5, 1, TOLERANCE["float32"])
    (block,) = found(make(words), 5)
    assert block.dx is None


OPTIMIZERS = {
    "sgd": lambda: cc.SGD(0.05),
    "momentum": lambda: cc.SGDW(0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda: cc.AdamW(0.01, decay_biases=False),
    "adagrad": lambda: cc.AdaGrad(0.01),
    "rmsprop": lambda: cc.RMSprop(0.01, momentum=0.5),
    "clip value": lambda: cc.SGD(0.05, clip_value=0.01),
    "clip norm": lambda: cc.SGD(0.05, clip_norm=0.5),
    "frozen": lambda: cc.SGD(0.005, lr_multipliers={"W2": 0}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_gives_the_same_as_through_rows(monkeypatch, optimizer):
    """In float64: in float32 a rounding can decide which pixel is a maximum, or clip a gradient."""
    results, tolerance, dtype = [], TOLERANCE["float64"], "float64"
    for many in (False, True):
        monkeypatch.setattr(image_blocks, "MOST_IN_A_LANE", 10**9 if many else 0)
        words = ["conv 16", "relu", "max", "flatten", "affine", "relu", "affine"]
        net = make(words, dtype=dtype)
        trainer = cc.Trainer(net, OPTIMIZERS[optimizer]())
        x, t = make_batch(net, 9, "sum_squared_error")
        losses = [trainer.step(x, t) for _ in range(4)]
        assert len(found(net, 9)) == (not many)
        results.append((losses, net.flat_params.copy(), net.flat_grads.copy()))
    assert len(set(results[0][0])) == 4
    for one, other in zip(*results, strict=True):
        assert np.allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(one).max())


class Watch(cc.Callback):
    def on_step_end(self, trainer):
        assert all(np.isfinite(grad).all() for grad in trainer.network.grads.values())


@pytest.mark.parametrize(("units", "empty"), [(7, False), (7, True), (130, False)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_nobody_looks_at_changes_no_bit(monkeypatch, optimizer, units, empty):
    """Gradients that take the place of outputs, or a few places per thread in turns."""
    monkeypatch.setattr(parts, "NEAR_BYTES", 0)
    results = []
    for callbacks in ([], [Watch()]):
        layers = [cc.Conv2D(30, 5), cc.ReLU(), cc.MaxPool2D(2), cc.Flatten()]
        layers += [cc.Affine(units, cc.Normal(0.05)), cc.ReLU(), cc.Affine(7)]
        loss = cc.losses.SumSquaredError()
        net = cc.Sequential(layers, input_shape=(1, 16, 16), loss=loss, dtype="float32")
        (block,) = found(net, 15)
        blocks = net.plan(15, "rows", True, True).segments[0].blocks
        pool = next(b for b in blocks if isinstance(b, image_blocks.PoolBlock))
        assert block.overwrites(pool) == (units == 7), "else this looks at nothing"
        trainer = cc.Trainer(net, OPTIMIZERS[optimizer](), callbacks=callbacks)
        x, t = make_batch(net, 45, "sum_squared_error")
        x[:, :, : 10 * empty] = 0
        trainer.optimizer.lr *= 0.01  # no ReLU is to die
        history = trainer.fit(x, t, epochs=3, batch_size=15, verbose=False)
        results.append((net.flat_params.copy(), np.array(history["loss"])))
        assert block.dx is not block.x, "the plan's other programs keep the outputs"
        expected = net.gradient(x, t)
        trainer.step(x, t)
        if "clip" not in optimizer:
            assert all(same_bits(net.grads[name], value) for name, value in expected.items())
    assert all(same_bits(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("threads", [2, 3])
def test_bits_do_not_depend_on_the_number_of_threads(threads):
    before, results = cc.get_num_threads(), []
    try:
        for count in (1, threads):
            cc.set_num_threads(count)
            net = make(["conv 16", "relu", "flatten", "affine"], dtype="float32")
            trainer = cc.Trainer(net, cc.Adam(0.01))
            x, t = make_batch(net, 37, "sum_squared_error")
            losses = [trainer.step(x, t) for _ in range(5)]
            results.append((losses, net.flat_params.copy()))
    finally:
        cc.set_num_threads(before)
    assert results[0][0] == results[1][0] and same_bits(results[0][1], results[1][1])


def digits(net, n):
    """A batch of images that are mostly empty."""
    x, t = make_batch(net, n, "sum_squared_error")
    x[:, :, :, :6] = x[:, :, 11:] = 0
    x[::3, :, 4:] = 0
    return x, t


def digits_net(*, activation="relu", weights=None, between=(), units=7, dtype="float64"):
    layers = [cc.Conv2D(30, 5, weights=weights or cc.HeNormal(), biases=cc.Uniform(-0.5, 0.5))]
    layers += [cc.models.activation_layer(activation), cc.MaxPool2D(2), *between, cc.Flatten()]
    layers += [cc.Affine(units, cc.Normal(0.05)), cc.ReLU(), cc.Affine(7)]
    return cc.Sequential(layers, input_shape=(1, 17, 17), loss=cc.SumSquaredError(), dtype=dtype)


@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("weights", [cc.HeNormal(), cc.Zeros()])
def test_what_empty_windows_share_changes_nothing(monkeypatch, activation, weights):
    """With weights of 0 all windows hold the same, but only empty ones need no gradient apart."""
    results = []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(ImagesAffineBlock, "share", lambda *_: None)
        net = digits_net(activation=activation, weights=weights)
        (block,) = found(net, 25)
        assert (block.groups is not None) == shares
        x, t = digits(net, 25)
        gradient = net.gradient(x, t)
        if shares:
            plan = net.plan(25, "rows", True, True)
            plan.x[...], plan.target[...] = x, t
            plan.gradient()
            (block,) = found(net, 25)
            assert 5 < block.groups[0, :, 0].mean() < 20, "of 25 images"
        trainer = cc.Trainer(net, cc.SGD(0.001))
        losses = [trainer.step(x, t) for _ in range(3)]
        results.append((losses, net.flat_params.copy(), *gradient.values()))
    for one, other in zip(*results, strict=True):
        assert np.allclose(one, other, rtol=1e-9, atol=1e-10 * np.abs(other).max())
    assert np.abs(results[0][2]).max() > 0


def test_the_numerical_gradient_of_mostly_empty_images():
    net = digits_net(activation="tanh", units=3)
    x, t = digits(net, 5)
    assert found(net, 5)[0].groups is not None
    result, expected = net.numerical_gradient(x, t), net.gradient(x, t)
    for name, value in expected.items():
        far = np.abs(result[name] - value) > 1e-6
        assert far.mean() <= 0.02 * (name == "W1"), "but for another pixel as the maximum"


def test_where_nothing_is_shared():
    """More than one channel, layers between, few filters, a layer before with parameters."""
    assert found(digits_net(), 25)[0].groups is not None
    for first, size in (
        ([], (2, 17, 17)),
        ([cc.BatchNorm()], (1, 17, 17)),
        ([cc.Conv2D(1, 2)], (1, 18, 18)),
        ([cc.MaxPool2D(2)], (1, 34, 34)),
    ):
        layers = [*first, cc.Conv2D(30, 5), cc.ReLU(), cc.MaxPool2D(2), cc.Flatten(), cc.Affine(3)]
        net = cc.Sequential(layers, input_shape=size, loss=cc.SumSquaredError())
        shares = bool(first) and isinstance(first[0], cc.MaxPool2D)
        assert (found(net, 25)[0].groups is not None) == shares, first
    for between in ([cc.BatchNorm()], [cc.Tanh()], [cc.Dropout(0.5)]):
        for block in found(digits_net(between=between), 25):
            assert block.groups is None, between
    assert found(digits_net(units=129), 25)[0].groups is None


def test_the_numerical_gradient_starts_from_its_inputs():
    net = make(["conv", "tanh", "flatten", "affine", "softmax"])
    x, t = make_batch(net, 5, "sum_squared_error")
    assert found(net, 5)
    result, expected = net.numerical_gradient(x, t), net.gradient(x, t)
    for name, value in expected.items():
        assert np.allclose(result[name], value, rtol=1e-6, atol=1e-7), name


def test_which_layers_are_large(monkeypatch):
    """Many weights, enough pixels to share, enough samples, a gradient."""
    monkeypatch.setattr(image_blocks, "MOST_IN_A_LANE", blocks.MOST_IN_A_LANE)
    monkeypatch.setattr(image_blocks, "LEAST_PIXELS", 16)
    for shape, n_out, n, large in (
        ((8, 16, 16), 64, 4, False),
        ((8, 16, 16), 65, 4, True),
        ((8, 16, 16), 65, 3, False),
        ((256, 4, 4), 33, 4, True),
        ((256, 3, 5), 40, 4, False),
    ):
        layers = [LAYERS["max"](), cc.Flatten(), cc.Affine(n_out)]
        input_shape = (shape[0], shape[1] + 1, shape[2] + 1)
        net = cc.Sequential(layers, input_shape=input_shape, loss=cc.SumSquaredError())
        assert len(found(net, n)) == large, (shape, n_out, n)
        assert not [b for b in net.plan(n).segments[0].blocks if type(b) is ImagesAffineBlock]


def test_bench_names_its_kernels(run):
    options = ["--seconds", 0, "--batch-size", 4, "--threads", 1, "--kernels", "--json"]
    code, out, _ = run("bench", "simple_conv_net", *options)
    kernels = json.loads(out)["kernels"][0]["kernels"]
    counts = {k["name"]: k["multiply_adds"] for k in kernels if k["layer"] == "Affine 100, ReLU"}
    size = 4 * 4320 * 100
    expected = {"forward": size, "forward 2": 0, "dx": size, "dW": size, "db": 0}
    assert code == 0 and counts == expected
