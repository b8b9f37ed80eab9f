"""Clipping of gradients: its place in the step, fixed bits, NaN, errors. Values: ..._torch.py."""

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import ops
from reference import DTYPES, same_bits
from reference_network import make, make_batch

WORDS = ["affine 5", "tanh", "affine 3"]
WIDE = ["affine 400", "tanh", "affine 70", "relu", "affine 3"]
CUT = ["affine 300", "sine", "affine 3"]
KINDS = [cc.SGD, cc.SGDW, cc.AdaGrad, cc.RMSprop, cc.Adam, cc.AdamW]
by_kind = pytest.mark.parametrize("kind", KINDS)


def norm(arrays):
    return np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in arrays))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("words", [WORDS, WIDE, CUT], ids=["small", "wide", "cut"])
def test_the_gradients_have_the_norm_that_was_asked_for(words, dtype):
    net = make(words, dtype=dtype)
    x, t = make_batch(net, 20)
    plain = net.gradient(x, t)
    limit = norm(plain.values()) / 3
    cc.Trainer(net, cc.SGD(0, clip_norm=limit)).step(x, t)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    factor = limit / (3 * limit + 1e-6)
    for name, value in net.grads.items():
        np.testing.assert_allclose(value, factor * plain[name], rtol=tolerance, atol=1e-30)
    small = make(words, dtype=dtype)
    cc.Trainer(small, cc.SGD(0, clip_norm=4 * limit)).step(x, t)
    assert all(same_bits(value, plain[name]) for name, value in small.grads.items())


@by_kind
@pytest.mark.parametrize("clip", [{"clip_norm": 1e6}, {"clip_value": 1e6}], ids=str)
def test_a_limit_that_is_not_reached_changes_no_bit(kind, clip):
    x, t = make_batch(make(WIDE), 50)
    nets = [make(WIDE, dtype="float32") for _ in range(2)]
    for net, options in zip(nets, ({}, clip), strict=True):
        optimizer = kind(0.01, weight_decay=0.1, lr_multipliers={"W2": 0.5, "b1": 0}, **options)
        cc.Trainer(net, optimizer).fit(x, t, epochs=3, batch_size=20, verbose=False)
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


@by_kind
@pytest.mark.parametrize("words", [WIDE, CUT], ids=["wide", "cut"])
@pytest.mark.parametrize("clip", [{"clip_norm": 0.01}, {"clip_value": 0.001}], ids=str)
def test_the_same_bits_on_any_number_of_threads(kind, words, clip, threads):
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        net = make(words, dtype="float32")
        x, t = make_batch(net, 300)
        optimizer = kind(0.01, weight_decay=0.1, decay_biases=False, **clip)
        cc.Trainer(net, optimizer).fit(x, t, epochs=2, batch_size=64, verbose=False)
        results.append(net.flat_params.tobytes())
    assert len(set(results)) == 1


def test_a_norm_beyond_float32_is_found():
    native, grads, factor = ops.native.optimizers, np.full(9000, 1e30, np.float32), np.ones(1)
    sums = np.zeros(native.square_sums(grads.size))
    ops.run(native.squares(grads, sums), native.norm_factor(sums, 1.0, factor))
    assert factor[0] == pytest.approx(1 / (1e30 * np.sqrt(9000)), rel=1e-6)
    ops.run(native.clip(grads, factor, 0.0))
    assert norm([grads]) == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="grads, sums"):
        native.squares(grads, np.zeros(2))


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 20000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_any_size(size, dtype):
    native, factor = ops.native.optimizers, np.ones(1)
    grads = np.random.default_rng(size).standard_normal(size).astype(dtype)
    sums = np.zeros(native.square_sums(size))
    ops.run(native.squares(grads, sums), native.norm_factor(sums, 1e-3, factor))
    assert factor[0] == pytest.approx(1e-3 / (norm([grads]) + 1e-6), rel=1e-13)


def test_a_nan_reaches_all_parameters_by_the_norm_and_only_its_own_by_value():
    x, t = make_batch(make(WORDS), 5)
    x[0, 0] = np.inf  # tanh is 1 and its derivative 0; their product is NaN, in one row of dW1
    for clip, everywhere in (({"clip_norm": 1.0}, True), ({"clip_value": 1.0}, False)):
        net = make(WORDS)
        cc.Trainer(net, cc.SGD(0.1, **clip)).step(x, t)
        assert np.isnan(net.params["W1"][0]).all()
        for value in (net.params["W1"][1:], net.params["b1"], net.params["W2"]):
            assert np.isnan(value).all() == np.isnan(value).any() == everywhere


def test_nothing_to_clip_where_everything_is_frozen():
    net = make(WORDS)
    before = net.flat_params.copy()
    optimizer = cc.SGD(0.1, clip_norm=1, lr_multipliers=dict.fromkeys(net.params, 0))
    cc.Trainer(net, optimizer).step(*make_batch(net, 5))
    assert same_bits(net.flat_params, before)


def test_gamma_and_beta_are_biases_too():
    layers = [cc.Affine(5), cc.BatchNorm(), cc.Affine(3)]
    net = cc.Sequential(layers, input_shape=(4,), dtype="float64")
    before = {name: value.copy() for name, value in net.params.items()}
    x = np.zeros((6, 4))
    optimizer = cc.SGD(0.1, weight_decay=0.5, decay_biases=False)
    plain = net.gradient(x, [0, 1, 2, 0, 1, 2])
    cc.Trainer(net, optimizer).step(x, [0, 1, 2, 0, 1, 2])
    for name, value in net.params.items():
        decay = 0.5 * before[name] if name.startswith("W") else 0
        expected = before[name] - 0.1 * (plain[name] + decay)
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15)


@by_kind
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clip_norm": 0}, ValueError, "clip_norm: expected a number > 0, got 0"),
        ({"clip_norm": -1}, ValueError, "clip_norm: expected a finite number in 0..inf, got -1"),
        ({"clip_value": np.nan}, ValueError, "clip_value: expected a finite number"),
        ({"clip_value": "x"}, TypeError, "clip_value: expected a number"),
        ({"clip_norm": 1, "clip_value": 1}, ValueError, "clip_norm, clip_value: .* got both"),
        ({"clipnorm": 1}, TypeError, "clipnorm"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**arguments)
