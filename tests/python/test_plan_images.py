"""Plans with convolutions: fused kernels against the same layers one by one, and the buffers."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn_core as cc
from cnn_core import _images, blocks, image_blocks
from image_stacks import (
    ANYWHERE,
    LAYERS,
    ON_IMAGES,
    SMOOTH,
    check_fused,
    conv,
    copied_state,
    make,
    make_if_it_fits,
    stacks,
)
from reference import DTYPES, same_bits
from reference_network import assert_gradients, make_batch, one_by_one

# ---- fused or not, the same ----------------------------------------------------------------------


@settings(max_examples=3 * settings.default.max_examples)
@given(
    words=stacks(),
    dtype=st.sampled_from(DTYPES),
    n=st.sampled_from([1, 2, 5, 13]),
    seed=st.integers(0, 5),
)
def test_any_stack_equals_its_layers_one_by_one_bit_for_bit(words, dtype, n, seed):
    check_fused(words, dtype, n, seed)


PAIRS = [
    *itertools.product(["conv", "conv 16", "conv stride", "max", "avg"], [*ON_IMAGES, *ANYWHERE])
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_each_pair_behind_a_trained_layer(first, second, dtype):
    check_fused(["conv 1x1", "relu", first, second, "tanh", "flatten", "affine"], dtype, 3, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "tanh", None])
@pytest.mark.parametrize("before", [[], ["conv 16", "relu"], ["per channel"]])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), ((3, 2), (3, 3))])
def test_a_convolution_takes_the_gradient_of_the_maxima_behind_it(
    before, activation, dtype, size, stride
):
    """Other sums than those of the layers one by one; the forward pass is the same."""
    layers = [LAYERS[word]() for word in before] + [conv(8, 5, padding=2)]
    layers += [LAYERS[activation]()] if activation else []
    layers += [cc.MaxPool2D(size, stride), cc.Flatten(), cc.Affine(5, cc.Normal(0.4))]
    net = cc.Sequential(layers, input_shape=(8, 9, 11), loss=cc.SumSquaredError(), dtype=dtype)
    x, t = make_batch(net, 7, "sum_squared_error")
    y, value, gradients = one_by_one(net, x, t)
    assert same_bits(net.forward(x, training=True), y) and net.loss(x, t, training=True) == value
    assert_gradients(net.gradient(x, t), gradients, dtype)
    pools = [b for b in net.plan(7, "rows", True, True).segments[-1].blocks if hasattr(b, "joined")]
    assert [pool.joined and pool.dx is None for pool in pools] == [True]
    if dtype == "float64":
        check_gradients(net)


def test_running_statistics_follow_as_in_the_layer_alone():
    net, twin = make(["conv", "batch norm", "flatten", "batch norm"]), None
    twin = make(["conv", "batch norm", "flatten", "batch norm"])
    for seed in range(4):
        x, t = make_batch(net, 5, "sum_squared_error", seed=seed)
        net.gradient(x, t)
        y = x
        for layer in twin.layers:
            y = layer.forward(y, training=True)
        assert copied_state(net.layers)[1].keys() == {"running_mean", "running_var"}
        for ours, theirs in zip(net.layers, twin.layers, strict=True):
            for key, value in getattr(ours, "state", {}).items():
                assert same_bits(value, theirs.state[key])
    before = copied_state(net.layers)
    net.predict(x)
    net.evaluate(x, t)
    net.numerical_gradient(x, t)
    for state, layer in zip(before, net.layers, strict=True):
        assert all(same_bits(value, layer.state[key]) for key, value in state.items())


# ---- gradients -----------------------------------------------------------------------------------


def check_gradients(net, n=3, training=True, tolerance=2e-7):
    x, t = make_batch(net, n, "sum_squared_error")
    actual = net.gradient(x, t, training=training)
    expected = net.numerical_gradient(x, t, training=training, h=1e-5)
    # Differences are as exact as the loss: a gradient that is 0 is 0 beside the others.
    largest = max(np.abs(value).max() for value in expected.values())
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert np.abs(actual[name] - value).max() <= tolerance * max(largest, 1e-2), name


@settings(max_examples=max(settings.default.max_examples // 2, 1))
@given(
    words=stacks(most=4, names={*ON_IMAGES, *SMOOTH, "affine"} - {"max", "max overlapping"}),
    seed=st.integers(0, 5),
    training=st.booleans(),
)
def test_gradients_against_central_differences(words, seed, training):
    words = ["per channel", *words, "affine"]
    net = make_if_it_fits(words, input_shape=(2, 4, 4), seed=seed)
    if net.n_params < 1500:
        # Batch normalization of a few nearly equal numbers curves within h.
        check_gradients(net, 5, training, tolerance=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_through_batch_norm(training):
    words = ["conv", "batch norm", "tanh", "conv", "flatten", "batch norm", "affine"]
    check_gradients(make(words, input_shape=(1, 3, 3)), 9, training)


@pytest.mark.parametrize("word", ["max", "max overlapping", "relu", "leaky relu"])
def test_gradients_through_layers_with_bends(word):
    check_gradients(make(["conv", word, "flatten", "affine"], input_shape=(1, 4, 4)))


@pytest.mark.parametrize("word", [word for word in ON_IMAGES if "conv" in word])
def test_dx_of_a_convolution_behind_a_users_layer(word):
    """The gradients of the user's parameters are made of nothing else."""
    net = make(["per channel", word, "tanh", "flatten"], input_shape=(2, 4, 5))
    check_gradients(net)
    assert net.plan(3, "rows", True, True).segments[1].dx is not None


def test_dropout_is_the_same_in_gradient_and_numerical_gradient():
    net = make(["conv", "dropout", "tanh", "flatten", "dropout", "affine"], input_shape=(1, 4, 4))
    for step in (0, 1, 17):
        net.step[0] = step
        check_gradients(net)


def test_dropout_draws_anew_for_every_update():
    net = make(["flatten", "dropout"])
    x = np.ones((2, *net.input_shape))
    first = net.forward(x, training=True)
    assert same_bits(net.forward(x, training=True), first)
    masks = [first]
    trained = make(["flatten", "dropout", "affine"])
    trainer = cc.Trainer(trained, cc.SGD(0.1))
    for _ in range(3):
        trainer.step(x, np.zeros((2, 7)))
        net.step[0] = trained.step[0]
        masks.append(net.forward(x, training=True))
    assert len({mask.tobytes() for mask in masks}) == 4
    trainer.fit(x, np.zeros((2, 7)), epochs=2, batch_size=1, verbose=False)
    assert trained.step[0] == 7


def test_two_dropouts_of_a_network_differ():
    net = make(["flatten", "dropout", "dropout"])
    y = net.forward(np.ones((50, *net.input_shape)), training=True)
    assert abs(np.mean(y != 0) - 0.36) < 0.03  # 0.6 if they dropped the same elements


# ---- threads, buffers ----------------------------------------------------------------------------

ALL_KINDS = [
    *("conv 16", "batch norm", "relu", "max overlapping", "dropout", "conv dilated", "tanh"),
    *("conv stride", "avg", "flatten", "affine", "batch norm", "sigmoid", "dropout", "affine"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("own", [False, True])
def test_bits_do_not_depend_on_threads_after_ten_steps(threads, dtype, own):
    words = [*ALL_KINDS[:4], "per channel", *ALL_KINDS[4:]] if own else ALL_KINDS
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        net = make(words, input_shape=(3, 16, 15), dtype=dtype)
        trainer = cc.Trainer(net, cc.SGD(0.05, momentum=0.9))
        x, t = make_batch(net, 37, "sum_squared_error")
        losses = [trainer.step(x, t) for _ in range(10)]
        results.append((losses, net.flat_params.copy(), copied_state(net.layers)))
    losses, params, states = results[0]
    assert np.isfinite(params).all() and len(set(losses)) == 10
    for other_losses, other_params, other_states in results[1:]:
        assert other_losses == losses and same_bits(other_params, params)
        for state, other in zip(states, other_states, strict=True):
            assert all(same_bits(value, other[key]) for key, value in state.items())


def images_of(plan):
    for segment in plan.segments:
        for block in getattr(segment, "blocks", []):
            for name in ("x", "y", "dy", "dx"):
                value = getattr(block, name, None)
                if isinstance(value, _images.Images):
                    yield value


def test_borders_stay_zero():
    net = make(ALL_KINDS, input_shape=(3, 16, 15))
    trainer = cc.Trainer(net, cc.SGD(0.05))
    x, t = make_batch(net, 5, "sum_squared_error")
    for _ in range(3):
        trainer.step(x, t)
    plan, bordered = net.plan(5, "rows", True, True), 0
    for images in images_of(plan):
        images.array[...] = 0
        assert not images.buffer.any(), images.border
        bordered += any(images.border)
    assert bordered > 3


def test_a_step_makes_no_new_buffers():
    net = make(ALL_KINDS, input_shape=(3, 16, 15))
    trainer = cc.Trainer(net, cc.SGD())
    x, t = make_batch(net, 5, "sum_squared_error")

    def addresses():
        plan = net.plan(5, "rows", True, True)
        return [images.buffer.ctypes.data for images in images_of(plan)]

    trainer.step(x, t)
    before = addresses()
    for _ in range(3):
        trainer.step(x, t)
    assert addresses() == before and len(set(before)) > 10


def test_no_gradient_of_the_input_where_nobody_needs_it():
    net = make(["tanh", "conv", "relu", "conv", "flatten"])
    segment = net.plan(4, "rows", True, True).segments[0]
    found = [(type(block), block.dx is not None) for block in segment.blocks]
    assert found == [
        (blocks.ActivationBlock, False),
        (image_blocks.ToImages, False),
        (image_blocks.ConvBlock, False),
        (image_blocks.ConvBlock, True),
        (image_blocks.ToRows, True),
        (blocks.FlattenBlock, True),
    ]


def test_images_stay_images_between_layers_that_take_them():
    net = make(["conv", "relu", "max", "tanh", "batch norm", "conv 16", "sigmoid", "flatten"])
    plan = net.plan(4, "rows", True, True)
    assert plan.native and len(plan.segments[0].blocks) == 8
    kinds = [type(block) for block in plan.segments[0].blocks]
    assert kinds.count(image_blocks.ToImages) == kinds.count(image_blocks.ToRows) == 1


def test_a_plan_that_was_run_in_parts_still_gives_the_gradient():
    """forward, then layers again from the middle on, then backward: one set of buffers."""
    words = ["sine", "conv", "batch norm", "max", "flatten", "affine"]
    net, fresh = make(words), make(words)
    x, t = make_batch(net, 4, "sum_squared_error")
    expected = fresh.gradient(x, t)
    plan = net.plan(4, "rows", True, True)
    net.fill(plan, -2 * x, t)
    plan.forward()
    plan.rerun_from(net.layers[1])()
    net.fill(plan, x, t)
    plan.gradient()
    assert_gradients(net.grads, expected, "float64", tolerance=0)


@pytest.mark.parametrize("middle", [["flatten", "dropout"], ["dropout", "flatten"]])
def test_layers_from_a_dropout_on_can_run_again(middle):
    """Where the outputs of dropout have taken the place of its inputs."""
    net = make(["conv", "tanh", *middle, "affine"])
    x, t = make_batch(net, 4, "sum_squared_error")
    plan = net.plan(4, "rows", True, True)
    net.fill(plan, x, t)
    loss = plan.gradient()
    for layer in net.layers:
        assert plan.rerun_from(layer)() == loss


@pytest.mark.parametrize("n", [1, 3, 300])
def test_predict_takes_any_number_of_images(n):
    net = make(["conv", "relu", "max", "batch norm", "flatten", "affine"], dtype="float32")
    x = make_batch(net, n, "sum_squared_error")[0]
    y = net.predict(x)
    for i in (0, n // 2, n - 1):
        assert same_bits(net.predict(x[i : i + 1])[0], y[i])


def test_one_image_is_computed_as_among_others(threads):
    """Alone, the rows of its large convolutions are shared among the threads."""
    net = cc.models.deep_conv_net(seed=1)
    x = np.random.default_rng(0).random((5, 1, 28, 28), np.float32)
    threads(1)
    together = net.predict(x)
    for n in (1, 2, 7):
        threads(n)
        for i in range(len(x)):
            assert same_bits(net.predict(x[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("middle", [[], ["sine"]])
def test_few_images_see_every_change_of_the_weights(middle):
    """Their packed weights are kept from call to call, while the weights stay the same."""
    net = make(["conv", "relu", *middle, "conv 16", "tanh", "flatten", "affine"], dtype="float32")
    x, t = make_batch(net, 5, "sum_squared_error")

    def check():
        for n in (1, 2, 3):
            expected = net.predict(x)[:n].copy()
            for _ in range(2):
                assert same_bits(net.predict(x[:n]), expected)

    check()
    for params in net.params.values():
        params[..., -1] += 0.5
        check()
    net.gradient(x, t)
    for name, params in net.params.items():
        params -= 0.01 * net.grads[name]
    check()
    before = {name: params.copy() for name, params in net.params.items()}
    for params in net.params.values():
        params[...] = 0
    check()
    for name, params in net.params.items():
        params[...] = before[name]
    check()


def test_rows_are_cut_where_tasks_want_other_chunks(monkeypatch):
    def task(least, most):
        return SimpleNamespace(least=least, most=most)

    stages = []
    monkeypatch.setattr(blocks.ops, "Program", lambda plan, passing: stages.extend(plan))
    image, row, weights = task(1, 4), task(1, 48), task(24, 96)
    blocks.Parts(rows=[image, row, weights, row, image]).program()
    lanes = [lane for stage in stages for lane in stage if lane]
    assert lanes == [[image, row], [weights, row], [image]]


class Listens(cc.Callback):
    """Who listens to updates may look at all outputs: no images pass."""

    def on_step_end(self, trainer):
        pass


@pytest.mark.parametrize("last", ON_IMAGES)
@pytest.mark.parametrize("first", ON_IMAGES)
def test_images_that_pass_change_no_bit(first, last, threads):
    x, t = np.random.default_rng(1).standard_normal((45, 2, 9, 8)), np.arange(45) % 3
    found = []
    for count, callbacks in ((1, [Listens()]), (1, []), (2, []), (3, [])):
        threads(count)
        layers = [ON_IMAGES[first](), cc.Tanh(), ON_IMAGES[last](), cc.ReLU(), cc.Affine(3)]
        net = cc.Sequential([*layers[:4], cc.Flatten(), layers[4]], input_shape=(2, 9, 8), seed=2)
        trainer = cc.Trainer(net, cc.SGD(0.01), callbacks=callbacks)
        trainer.fit(x, t, epochs=2, batch_size=40, verbose=False)
        found.append((cc.fingerprint(net), net.predict(x).tobytes(), *net.evaluate(x, t)))
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("activation", ["relu", "tanh", None])
def test_maxima_are_taken_along_with_the_same_bits(activation, share, threads):
    """Of a convolution of one channel: its own images are made only where somebody may look."""
    rng, t, found = np.random.default_rng(1), np.arange(45) % 3, []
    x = rng.standard_normal((45, 1, 12, 11)) * (rng.random((45, 1, 12, 11)) < share)
    for count, callbacks in ((1, [Listens()]), (1, []), (2, []), (3, [])):
        threads(count)
        layers = [conv(7, 5, padding=1), *([LAYERS[activation]()] if activation else [])]
        layers += [cc.MaxPool2D(2), cc.Flatten(), cc.Affine(3)]
        net = cc.Sequential(layers, input_shape=(1, 12, 11), seed=2)
        trainer = cc.Trainer(net, cc.SGD(0.01), callbacks=callbacks)
        trainer.fit(x, t, epochs=2, batch_size=40, verbose=False)
        found.append((cc.fingerprint(net), net.predict(x).tobytes(), *net.evaluate(x, t)))
    assert found[1:] == found[:1] * 3
    segment = net.plan(40, "labels", True, True).segments[0]
    assert len(list(segment.forward_blocks(passing=True))) == len(segment.blocks) - 1
    assert same_bits(net.predict(x), net.forward(x.astype(np.float32), training=True))
