"""Sequential: a user's layers between the compiled ones; errors, which name the argument."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cnn_core as cc
from reference_network import (
    LogCosh,
    Scale,
    Sine,
    assert_gradients,
    make,
    make_batch,
    run,
)

WORDS = ["affine 9", "sigmoid", "affine 4"]


def check_gradient(net, words, x, t):
    expected = run(words, net.params, x, t, "softmax_cross_entropy")[1]
    assert_gradients(net.gradient(x, t), expected, net.dtype)


# ---- a user's layers between the compiled ones ---------------------------------------------------


def test_a_layers_own_backward_does_not_unhook_the_network():
    words = ["affine 5", "tanh", "affine 4"]
    net, twin = make(words), make(words)
    for layer in net.layers:  # outside the network, with another number of rows
        layer.forward(np.ones((2, {5: 6, 4: 5}.get(getattr(layer, "units", 0), 5))))
        layer.backward(np.ones((2, getattr(layer, "units", 5))))
    x, t = make_batch(net, 9)
    assert_gradients(net.gradient(x, t), twin.gradient(x, t), "float64", tolerance=0)


@pytest.mark.parametrize("word", ["doubled 4", "scale", "scale in place"])
def test_gradients_of_a_users_layer_arrive_for_every_batch_size(word):
    words = ["affine 5", word, "affine 4"]
    net = make(words)
    for n in (10, 7, 10, 3):
        x, t = make_batch(net, n)
        check_gradient(net, words, x, t)


def test_a_users_layer_cannot_spoil_the_layer_before():
    class Careless(Sine):
        def forward(self, x, training=False):
            x *= 2
            return x

    net = cc.Sequential([cc.Affine(3), cc.Sigmoid(), Careless()], input_shape=(2,))
    with pytest.raises(ValueError, match="read-only"):
        net.predict(np.ones((1, 2)))


def test_a_users_layer_may_return_what_it_was_given():
    class Pass(cc.Layer):
        def forward(self, x, training=False):
            return x

        def backward(self, dout):
            return dout

    net = cc.Sequential(
        [cc.Affine(4, cc.Normal(1)), cc.Sigmoid(), Pass(), cc.Affine(3, cc.Normal(1))],
        input_shape=(6,),
        dtype="float64",
    )
    words = ["affine 4", "sigmoid", "affine 3"]
    check_gradient(net, words, *make_batch(net, 7))


def test_a_users_layer_sees_whether_it_is_training():
    seen = []

    class Watch(Sine):
        def forward(self, x, training=False):
            seen.append(training)
            return super().forward(x, training)

    net = cc.Sequential([cc.Affine(2), Watch()], input_shape=(2,))
    x, t = np.ones((3, 2)), [0, 1, 0]
    calls = {
        False: [lambda: net.predict(x), lambda: net.loss(x, t), lambda: net.accuracy(x, t)],
        True: [lambda: net.loss(x, t, training=True), lambda: net.gradient(x, t)],
    }
    calls[True] += [
        lambda: net.forward(x, training=True),
        lambda: cc.Trainer(net, cc.SGD()).step(x, t),
    ]
    calls[False].append(lambda: net.gradient(x, t, training=False))
    for training, functions in calls.items():
        for function in functions:
            seen.clear()
            function()
            assert seen == [training]


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_a_wrong_shape_from_a_users_layer_is_named(method):
    class Wrong(Sine):
        def output_shape(self, input_shape):
            return input_shape

    setattr(Wrong, method, lambda self, x, training=False: np.zeros((len(x), 1)))
    net = cc.Sequential([Wrong()], input_shape=(4,))
    net.layers[0].x = 0
    message = rf"Wrong.{method}: expected a result of shape \(2, 4\), got \(2, 1\)"
    with pytest.raises(ValueError, match=message):
        net.gradient(np.zeros((2, 4)), [0, 1])


@pytest.mark.parametrize("wrong", [{"a": np.ones(3)}, {"a": np.ones(4), "c": 0.0}])
def test_wrong_gradients_from_a_users_layer_are_named(wrong):
    class Wrong(Scale):
        def backward(self, dout):
            self.grads = wrong
            return dout

    net = cc.Sequential([Wrong()], input_shape=(4,))
    with pytest.raises(ValueError, match=r"Wrong.grads\['.'\]: expected a result of shape \(4,\)"):
        net.gradient(np.zeros((2, 4)), [0, 1])


def test_an_error_in_a_users_layer_leaves_the_network_usable():
    class Stumbles(Sine):
        stumble = False

        def backward(self, dout):
            if self.stumble:
                raise RuntimeError("stumbled")
            return super().backward(dout)

    layer = Stumbles()
    net = cc.Sequential([cc.Affine(3), layer], input_shape=(2,), dtype="float64")
    x, t = make_batch(net, 5)
    expected = net.gradient(x, t)
    layer.stumble = True
    trainer = cc.Trainer(net, cc.SGD())
    for function in (net.gradient, trainer.step):
        with pytest.raises(RuntimeError, match="stumbled"):
            function(x, t)
    layer.stumble = False
    with ThreadPoolExecutor(1) as pool:  # another thread: the lock must be free
        gradient = pool.submit(net.gradient, x, t).result(timeout=30)
    assert_gradients(gradient, expected, "float64", tolerance=0)
    assert trainer.iteration == 0


# ---- errors --------------------------------------------------------------------------------------


def test_layers_belong_to_one_network():
    layer, relu = cc.Affine(3), cc.ReLU()
    net = cc.Sequential([layer, relu], input_shape=(2,))
    with pytest.raises(ValueError, match=r"layers\[1\]: this Affine .* belong to another network"):
        cc.Sequential([cc.Affine(2), layer], input_shape=(2,))
    assert net.layers[0] is layer
    cc.Sequential([cc.Affine(2), relu], input_shape=(2,))  # without parameters: no harm
    del net
    cc.Sequential([layer], input_shape=(2,))  # the first network is gone


def test_layers_may_be_used_again_after_a_failed_start():
    layer = cc.Affine(3)
    with pytest.raises(ValueError, match="Affine: expected samples of one dimension"):
        cc.Sequential([layer], input_shape=(2, 2))
    assert cc.Sequential([layer], input_shape=(2,)).output_shape == (3,)


def twice():
    layer = cc.ReLU()
    return [cc.Affine(2), layer, cc.Affine(2), layer]


@pytest.mark.parametrize(
    ("layers", "arguments", "error", "message"),
    [
        ([], {}, ValueError, "layers: expected at least one layer"),
        ([cc.ReLU], {}, TypeError, r"layers\[0\]: expected a cnn_core.Layer"),
        ([cc.ReLU(), 3], {}, TypeError, r"layers\[1\]: expected a cnn_core.Layer, got 3"),
        (twice(), {}, ValueError, "layers: the same layer object"),
        ([cc.Affine(2)], {"input_shape": ()}, ValueError, "input_shape: expected at least one"),
        ([cc.Affine(2)], {"input_shape": (0,)}, ValueError, "input_shape: expected an integer >="),
        ([cc.Affine(2)], {"input_shape": (2.5,)}, TypeError, "input_shape: expected an integer"),
        ([cc.Affine(2)], {"input_shape": None}, TypeError, "input_shape: expected an integer"),
        ([cc.Affine(2)], {"input_shape": (1, 28, 28)}, ValueError, r"put Flatten\(\) before"),
        ([cc.Affine(2)], {"dtype": "float16"}, TypeError, "dtype: expected float32 or float64"),
        ([cc.Affine(2)], {"dtype": int}, TypeError, "dtype: expected float32 or float64"),
        ([cc.Affine(2)], {"loss": "mse"}, TypeError, "loss: expected a cnn_core.Loss, got 'mse'"),
        ([cc.Affine(2)], {"seed": -1}, ValueError, "seed: expected an integer >= 0, got -1"),
        ([cc.Affine(2)], {"seed": 1.5}, TypeError, "seed: expected an integer >= 0, got 1.5"),
        ([cc.Affine(2)], {"input_scale": "x"}, TypeError, "input_scale: expected a number"),
    ],
)
def test_bad_arguments_of_a_network_are_named(layers, arguments, error, message):
    with pytest.raises(error, match=message):
        cc.Sequential(layers, **{"input_shape": (4,), **arguments})


X, T = np.zeros((3, 6)), [0, 1, 2]


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        (np.zeros((3, 5)), T, ValueError, r"x: expected shape \(N, 6\), got \(3, 5\)"),
        (np.zeros(6), T, ValueError, r"x: expected shape \(N, 6\), got \(6,\)"),
        (np.array(1.0), T, ValueError, "x: expected shape"),
        (np.zeros((3, 6), complex), T, TypeError, "x: expected numbers, got dtype complex128"),
        (np.array([["a"] * 6] * 3), T, TypeError, "x: expected numbers"),
        (np.zeros((0, 6)), [], ValueError, "x: expected at least one row, got none"),
        (X, [0, 1, 4], ValueError, "t: expected integers in 0..3, got 4"),
        (X, [0, -1, 1], ValueError, "t: expected integers in 0..3, got -1"),
        (X, [0, 1], ValueError, r"t: expected shape \(3,\), got \(2,\)"),
        (X, [0.0, 1, 2], ValueError, r"t: expected .*\(3, 4\)"),
        (X, np.zeros((3, 3)), ValueError, r"t: expected shape \(3, 4\), got \(3, 3\)"),
        (X, np.zeros((2, 4)), ValueError, r"t: expected shape \(3, 4\), got \(2, 4\)"),
        (X, np.full((3, 4), "a"), TypeError, "t: expected"),
    ],
)
def test_bad_data_is_named(x, t, error, message):
    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD())
    asks = [
        net.gradient,
        net.numerical_gradient,
        net.loss,
        net.accuracy,
        trainer.step,
        lambda x, t: net.loss(x, t, training=True),
        lambda x, t: trainer.fit(x, t, verbose=False),
    ]
    for ask in asks:
        with pytest.raises(error, match=message):
            ask(x, t)
    if message.startswith("x") and len(np.shape(x)) != 2:
        with pytest.raises(error, match=message):
            net.predict(x)


def test_labels_need_a_loss_that_knows_classes():
    for loss in ("mean_squared_error", "sum_squared_error", "binary_cross_entropy"):
        net = make(WORDS, loss=loss)
        with pytest.raises(ValueError, match=r"t: expected shape \(3, 4\), got \(3,\)"):
            net.loss(X, T)


def test_a_users_loss_gets_labels_as_they_are():
    class Hinge(cc.Loss):
        def forward(self, y, t):
            self.margins = 1 - y[np.arange(len(t)), t]
            self.shape, self.t = y.shape, t
            return self.margins.mean()

        def backward(self):
            dy = np.zeros(self.shape)
            dy[np.arange(len(self.t)), self.t] = -1 / len(self.t)
            return dy

    net = cc.Sequential([cc.Affine(4)], input_shape=(6,), loss=Hinge(), dtype="float64")
    x, t = make_batch(net, 9)
    y = net.predict(x)
    assert net.loss(x, t) == pytest.approx((1 - y[np.arange(9), t]).mean())
    assert net.accuracy(x, t) == (y.argmax(axis=1) == t).mean()
    assert_gradients(net.gradient(x, t), net.numerical_gradient(x, t), "float64", tolerance=1e-8)


def test_a_wrong_gradient_from_a_users_loss_is_named():
    class Wrong(LogCosh):
        def backward(self):
            return 1.0

    net = cc.Sequential([cc.Affine(4)], input_shape=(6,), loss=Wrong())
    with pytest.raises(ValueError, match=r"Wrong.backward: expected .* \(3, 4\), got \(\)"):
        net.gradient(X, np.zeros((3, 4)))
