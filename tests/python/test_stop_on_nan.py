"""StopOnNaN: the update, and where the first numbers were that are not finite."""

import warnings

import numpy as np
import pytest
import scipy.sparse

import cnn_core as cc
from reference import same_bits
from reference_network import make, make_batch

WORDS = ["affine 8", "tanh", "affine 4"]
FIT = {"batch_size": 10, "verbose": False}
DAMAGE = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


def warning_of(net, x, t, lr=0.1, **options):
    """What the warning says after "first not finite", and the trainer that it has stopped."""
    trainer = cc.Trainer(net, cc.SGD(lr), [cc.StopOnNaN()])
    with pytest.warns(RuntimeWarning, match="training stopped") as caught:
        trainer.fit(x, t, epochs=5, **{**FIT, **options})
    ((said),) = [str(each.message) for each in caught if each.category is RuntimeWarning]
    assert f"loss of update {trainer.iteration} (epoch {trainer.epoch}) is" in said
    return said.partition("first not finite: ")[2], trainer


@pytest.mark.parametrize("sampling", ["sequential", "shuffle", "replacement"])
def test_the_row_of_the_data(sampling):
    net = make(WORDS)
    x, t = make_batch(net, 43)
    x[25, 2] = np.nan
    said, trainer = warning_of(net, x, t, sampling=sampling)
    broken = "parameters that are not finite after the update: W1, b1, W2, b2"
    assert said == f"row 25 of x; {broken}"
    if sampling == "sequential":
        assert (trainer.iteration, trainer.epoch) == (3, 1)


def test_a_row_of_the_last_batch_which_is_smaller():
    net = make(WORDS)
    x, t = make_batch(net, 43)
    x[41, 0] = np.nan
    assert warning_of(net, x, t, sampling="sequential")[0].startswith("row 41 of x;")


def test_the_row_of_a_sparse_matrix():
    net = make(WORDS)
    x, t = make_batch(net, 30)
    x[x < 0] = 0
    x[17, 3] = np.nan
    assert warning_of(net, scipy.sparse.csr_array(x), t)[0].startswith("row 17 of x;")


def test_a_number_that_the_dtype_cannot_hold():
    net = make(WORDS, dtype="float32")
    x, t = make_batch(make(WORDS), 30)
    x[7, 3] = 1e39
    net.params["W1"][:] = 0  # 0 * inf is NaN
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered in cast")
        assert warning_of(net, x, t, sampling="sequential")[0].startswith("row 7 of x;")


@pytest.mark.parametrize("value", DAMAGE.values(), ids=DAMAGE)
def test_the_row_of_the_targets(value):
    net = make(["affine 4"], loss="mean_squared_error")
    x, t = make_batch(net, 30, "mean_squared_error")
    t[11, 1] = value
    assert warning_of(net, x, t)[0].startswith("row 11 of t;")


@pytest.mark.parametrize(("name", "layer"), [("W1", "layers[0] (Affine)"), ("b2", "layers[2]")])
def test_the_layer_whose_parameters_are_not_finite(name, layer):
    net = make(WORDS)
    net.params[name][-1] = np.nan
    said, trainer = warning_of(net, *make_batch(net, 30))
    assert said.startswith(f"the outputs of {layer}") and trainer.iteration == 1


IMAGES = {
    "Conv2D": lambda: [cc.Conv2D(5, 3, padding=1), cc.ReLU()],
    "BatchNorm": lambda: [cc.BatchNorm(), cc.ReLU()],
    "Affine": lambda: [cc.Flatten(), cc.Affine(4)],
}


@pytest.mark.parametrize("kind", IMAGES)
def test_the_layer_of_a_network_of_images(kind):
    begin = [cc.Conv2D(4, 3), cc.Tanh(), cc.MaxPool2D(2), cc.Dropout(0.1)]
    net = cc.Sequential(
        [*begin, *IMAGES[kind](), cc.Flatten(), cc.Affine(3)], input_shape=(2, 9, 9)
    )
    at = next(i for i, each in enumerate(net.layers) if i > 3 and type(each).__name__ == kind)
    next(iter(net.layers[at].params.values())).reshape(-1)[0] = np.nan
    rng = np.random.default_rng(0)
    said, _ = warning_of(net, rng.random((30, 2, 9, 9)), rng.integers(0, 3, 30))
    assert said.startswith(f"the outputs of layers[{at}] ({kind});")


class Reciprocal(cc.Layer):
    def forward(self, x, training=False):
        with np.errstate(divide="ignore"):
            return 1 / x

    def backward(self, dout):
        return dout


def test_a_layer_in_python():
    layers = [cc.Affine(5), cc.ReLU(), Reciprocal(), cc.Affine(3)]
    net = cc.Sequential(layers, input_shape=(6,))
    said, _ = warning_of(net, *make_batch(net, 30))
    assert said.startswith("the outputs of layers[2] (Reciprocal);")


def test_an_infinite_loss_of_finite_outputs():
    net = make(["affine 4"], loss="mean_squared_error", dtype="float32")
    x, t = make_batch(net, 20, "mean_squared_error")
    trainer = cc.Trainer(net, cc.SGD(0, lr_multipliers={"W1": 0, "b1": 0}), [cc.StopOnNaN()])
    with pytest.warns(RuntimeWarning, match=r"update 2 .* inf; first not finite: (.*);.* none$"):
        x[12] = 3e38
        trainer.fit(x, t, sampling="sequential", **FIT)


@pytest.mark.parametrize("lr", [1e30, 3e38])
def test_a_learning_rate_that_is_far_too_large(lr):
    """The update after the first one meets parameters beyond all bounds."""
    net = make(["affine 40", "relu", "affine 4"], dtype="float32")
    said, trainer = warning_of(net, *make_batch(net, 30), lr=lr)
    assert "the outputs of layers[" in said and trainer.iteration <= 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lr", [1e-12, 1e-30, 1e-44])
def test_a_learning_rate_that_is_far_too_small(lr, dtype):
    """Nothing moves further than it should, and nothing breaks."""
    for optimizer in (cc.SGD(lr, 0.9), cc.Adam(lr), cc.RMSprop(lr), cc.AdaGrad(lr)):
        net = make(WORDS, dtype=dtype)
        before = net.flat_params.copy()
        trainer = cc.Trainer(net, optimizer, [cc.StopOnNaN()])
        trainer.fit(*make_batch(net, 30), epochs=5, **FIT)
        assert np.abs(net.flat_params - before).max() <= 15 * 100 * lr


def test_the_update_before_a_resumption():
    """Its buffers are gone: only the loss can be told."""
    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1), [cc.StopOnNaN()])
    trainer.fit(*make_batch(net, 30), **FIT)
    trainer.last_loss = np.nan
    with pytest.warns(RuntimeWarning, match="first not finite: the loss; .* none$"):
        trainer.callbacks[0].on_step_end(trainer)


def test_training_that_stays_finite_is_left_alone():
    net, twin = make(WORDS), make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1), [cc.StopOnNaN()])
    trainer.fit(*make_batch(net, 20), epochs=3, **FIT)
    cc.Trainer(twin, cc.SGD(0.1)).fit(*make_batch(net, 20), epochs=3, **FIT)
    assert same_bits(net.flat_params, twin.flat_params)
