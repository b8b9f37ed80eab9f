"""cc.fingerprint: equal exactly where architecture, dtype, parameters and state are."""

import copy

import numpy as np
import pytest

import cnn_core as cc

# Of the network below; a change means that fingerprints of older releases have lost their meaning.
KNOWN = {
    "float32": "80a9c749ef1c105e28d81cf61baaec61160cefabce346e177108c671f8a2683a",
    "float64": "907841a07d60ef0720d3917a4d8ac086893dce332dd21156d6568d9231d93fe6",
}


def make(dtype="float32", units=3, seed=0, **more):
    layers = [cc.Conv2D(2, (3, 2)), cc.BatchNorm(), cc.Flatten(), cc.Dropout(), cc.Affine(units)]
    return cc.Sequential(layers, input_shape=(1, 5, 4), dtype=dtype, seed=seed, **more)


@pytest.mark.parametrize("dtype", KNOWN)
def test_of_known_numbers(dtype):
    """No generator and no arithmetic has a part in it: sums of powers of two."""
    net = make(dtype)
    for number, value in enumerate([*net.params.values(), *net.state.values()]):
        value[...] = np.arange(value.size).reshape(value.shape) / 8 - number
    assert cc.fingerprint(net) == KNOWN[dtype]


def test_is_the_same_for_a_twin_a_copy_and_a_file(tmp_path):
    net, twin = make(), make()
    x, t = np.random.default_rng(0).random((9, 1, 5, 4)), np.arange(9) % 3
    for one in (net, twin):
        cc.Trainer(one, cc.Adam()).fit(x, t, epochs=2, batch_size=4, verbose=False)
    net.save(tmp_path / "net.safetensors")
    found = cc.fingerprint(net)
    assert len(found) == 64 and int(found, 16) >= 0
    for other in (twin, copy.deepcopy(net), cc.load(tmp_path / "net.safetensors")):
        assert cc.fingerprint(other) == found
    net.predict(x)
    net.gradient(x, t, training=False)
    net.numerical_gradient(x[:2], t[:2])
    assert cc.fingerprint(net) == found


def test_differs_by_a_single_bit():
    net = make("float64")
    found = {cc.fingerprint(net)}
    for value in [*net.params.values(), *net.state.values()]:
        before = value.flat[-1]
        value.flat[-1] = np.nextafter(before, 9)
        found.add(cc.fingerprint(net))
        value.flat[-1] = before
    assert len(found) == 1 + len(net.params) + len(net.state)
    net.params["b1"][0] = 0.0
    zero = cc.fingerprint(net)
    net.params["b1"][0] = -0.0
    assert cc.fingerprint(net) != zero


def test_differs_by_architecture_dtype_and_loss():
    loss = cc.MeanSquaredError()
    nets = [make(), make("float64"), make(units=4), make(seed=1), make(loss=loss)]
    assert len({cc.fingerprint(net) for net in nets}) == len(nets)


def test_layers_of_ones_own_count_by_class_and_configuration():
    class Times(cc.Layer):
        def __init__(self, factor):
            self.factor = factor

        def forward(self, x, training=False):
            return x

        def get_config(self):
            return {"class": "Times", "factor": self.factor}

    def of(factor):
        return cc.fingerprint(cc.Sequential([Times(factor)], input_shape=(3,)))

    assert of(2) == of(2) != of(3)
    with pytest.raises(TypeError, match=r"net: .* ndarray is not JSON"):
        of(np.ones(3))


def test_wants_a_network():
    with pytest.raises(TypeError, match=r"net: expected a Sequential, got \{\}"):
        cc.fingerprint({})
