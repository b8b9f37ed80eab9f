"""Plans: fused kernels against the same layers one by one, the buffers, and the cache of plans."""

import copy
import math
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn_core as cc
from cnn_core import blocks, network, plan
from cnn_core.segments import native_block
from reference import DTYPES, same_bits
from reference_network import LOSSES, Sine, assert_gradients, make, make_batch, one_by_one

# Stacks of compiled layers only; "|" marks where a new block is expected to begin.
BLOCKS = {
    "affine 5": 1,
    "affine 5, sigmoid": 1,
    "affine 5, sigmoid | tanh": 2,
    "tanh | affine 5, relu | leaky_relu | sigmoid": 4,
    "flatten | affine 5, tanh | softmax | relu": 4,
    "affine 5, leaky_relu | flatten | affine 3 | flatten": 4,
    "affine 5 | softmax | softmax | affine 4, tanh": 4,
    "softmax | sigmoid | affine 4, relu | affine 3, sigmoid": 4,
}


def words_of(text):
    return text.replace(" | ", ", ").split(", ")


# ---- fused or not, the same ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", BLOCKS)
def test_a_fused_step_equals_the_layers_one_by_one_bit_for_bit(text, dtype):
    for loss in LOSSES:
        net = make(words_of(text), dtype=dtype, loss=loss)
        for n in (1, 2, 13, 100, 513):
            x, t = make_batch(net, n, loss)
            y, value, gradients = one_by_one(net, x, t)
            assert same_bits(net.forward(x, training=True), y), (loss, n)
            assert net.loss(x, t, training=True) == value, (loss, n)
            assert_gradients(net.gradient(x, t), gradients, dtype, (loss, n), tolerance=0)


@given(
    words=st.lists(
        st.one_of(
            st.builds("affine {}".format, st.integers(1, 70)),
            st.sampled_from(["sigmoid", "tanh", "relu", "leaky_relu", "softmax", "flatten"]),
            st.sampled_from(["sine", "doubled 5", "shifted", "scale"]),
        ),
        min_size=1,
        max_size=8,
    ),
    dtype=st.sampled_from(DTYPES),
    n=st.sampled_from([1, 2, 13, 100]),
    seed=st.integers(0, 5),
)
def test_any_row_of_layers_equals_its_layers_one_by_one(words, dtype, n, seed):
    net = make(words, dtype=dtype, loss="sum_squared_error", input_shape=(9,), seed=seed)
    x, t = make_batch(net, n, "sum_squared_error")
    y, value, gradients = one_by_one(net, x, t)
    assert same_bits(net.forward(x, training=True), y)
    assert net.loss(x, t, training=True) == value
    assert_gradients(net.gradient(x, t), gradients, dtype, tolerance=0)


# ---- blocks and buffers --------------------------------------------------------------------------


@pytest.mark.parametrize("text", BLOCKS)
def test_an_activation_joins_the_affine_before_it(text):
    net = make(words_of(text))
    found = net.plan(2, "rows").segments[0].blocks
    names = [
        ", ".join(
            type(layer).__name__.lower()
            for layer in dict.fromkeys((block.layer, block.activation))
            if layer is not None
        )
        for block in found
    ]
    expected = text.replace("leaky_relu", "leakyrelu").split(" | ")
    assert names == [", ".join(word.split()[0] for word in part.split(", ")) for part in expected]
    assert len(found) == BLOCKS[text]


def test_a_wide_layer_wants_no_rows_of_its_own_where_the_way_back_follows():
    """There its outputs are still in the cache; forward alone, more rows pay for its weights."""
    net = make(["affine 7000", "tanh", "affine 10"])

    def least(gradient):
        block = net.plan(5, "rows", training=True, gradient=gradient).segments[0].blocks[1]
        parts = [block.forward(), block.backward(None)] if gradient else [block.forward()]
        return [task.least for part in parts for task in part.rows]

    assert least(True) == [1, 1]
    assert least(False)[0] > 1


def test_compiled_layers_are_one_program_and_a_python_layer_cuts_it():
    def segments(words, loss="sum_squared_error"):
        made = make(words, loss=loss).plan(4, "rows", training=True, gradient=True)
        steps = made.steps(True, blocks.Parts())
        return [type(segment).__name__[0] for segment in made.segments], made.native, len(steps)

    assert segments(["affine 3", "relu", "affine 2", "softmax"]) == (["N"], True, 1)
    assert segments(["affine 3", "sine", "relu"])[:2] == (["N", "P", "N"], False)
    assert segments(["sine", "shifted"])[:2] == (["P", "P"], False)
    assert not segments(["affine 3"], "log_cosh")[1]


def test_a_subclass_is_never_taken_for_its_base():
    net = make(["doubled 4", "shifted"])
    shapes = net._shapes
    for index, layer in enumerate(net.layers):
        assert native_block(layer, None, shapes[index], shapes[index + 1]) is None
    made = net.plan(2, "rows")
    assert [segment.layer for segment in made.segments] == net.layers


def test_no_gradient_is_computed_before_the_first_parameters():
    net = make(["flatten", "tanh", "affine 3", "relu", "affine 2"], input_shape=(2, 3))
    made = net.plan(4, "labels", training=True, gradient=True)
    found = made.segments[0].blocks
    assert [block.dx is not None for block in found] == [False, False, False, True]
    behind = make(["sine", "flatten", "affine 3"], input_shape=(2, 3))
    made = behind.plan(4, "labels", training=True, gradient=True)
    assert all(block.dx is not None for block in made.segments[1].blocks)


def test_a_step_makes_no_new_buffers():
    net = make(["affine 40", "relu", "affine 10"], dtype="float32", input_shape=(80,))
    trainer = cc.Trainer(net, cc.SGD())
    x, t = make_batch(net, 100)
    trainer.step(x, t)
    made = net.plan(100, "labels", training=True, gradient=True)
    before = [(block.y.ctypes.data, block.dy.ctypes.data) for block in made.segments[0].blocks]
    for _ in range(3):
        trainer.step(x, t)
    assert net.plan(100, "labels", training=True, gradient=True) is made
    assert [(b.y.ctypes.data, b.dy.ctypes.data) for b in made.segments[0].blocks] == before


def test_a_users_layer_gets_a_view_that_it_cannot_write_to():
    seen = []

    class Keeps(Sine):
        def forward(self, x, training=False):
            seen.append(x)
            return super().forward(x, training)

    net = cc.Sequential([cc.Affine(3), Keeps()], input_shape=(2,))
    seen.clear()
    net.predict(np.ones((4, 2)))
    assert [x.flags.writeable for x in seen] == [False]


# ---- long inputs ---------------------------------------------------------------------------------


def test_a_long_input_is_cut_into_parts_of_nearly_one_size():
    """Rows that are read where they lie take no room; nor do images that only pass."""
    dense = cc.Sequential([cc.Affine(50), cc.Affine(10)], input_shape=(784,)).plan(1)
    assert dense.rows_at_once(10_000, True) == 10_000
    assert dense.rows_at_once(12_000, True) == 6_000  # 10,486 would hold 2 ** 19 elements
    narrow = cc.Sequential([cc.Affine(2)], input_shape=(784,)).plan(1)
    assert narrow.rows_at_once(20_000, True) == 10_000  # of 16,384 at most
    assert dense.rows_at_once(10_000, False) == 667  # 668 would hold 2 ** 19 elements
    assert dense.rows_at_once(7, False) == dense.rows_at_once(7, True) == 7
    layers = [cc.Conv2D(16, 3, padding=1), cc.Flatten(), cc.Affine(10)]
    by_rows = cc.Sequential(layers, input_shape=(1, 28, 28)).plan(1)
    assert by_rows.rows_at_once(1_000, False) == 40  # the rows before Affine, 12,544 elements
    layers = [cc.Conv2D(16, 3, padding=1), cc.GlobalAvgPool2D()]
    images = cc.Sequential(layers, input_shape=(1, 28, 28)).plan(1)
    assert images.rows_at_once(1_000, False) == 334
    layers = [cc.Conv2D(16, 3, padding=1), Sine(), cc.GlobalAvgPool2D()]
    cut = cc.Sequential(layers, input_shape=(1, 28, 28)).plan(1)
    assert cut.rows_at_once(1_000, False) == 40
    huge = cc.Sequential([cc.Affine(2)], input_shape=(2**20,)).plan(1)
    assert huge.rows_at_once(3, False) == 1


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((64,), [cc.Affine(5), cc.Sigmoid()]),
        ((1, 8, 8), [cc.Conv2D(3, 3), cc.Sigmoid()]),
        ((1, 3, 17), [cc.Conv2D(2, 3, padding=1), cc.ReLU(), cc.MaxPool2D(2)]),
    ],
)
def test_rows_are_read_at_their_place_and_let_go(shape, layers):
    """The program of a long input is made once: for other rows of as many, of any alignment too."""
    layers = [*copy.deepcopy(layers), cc.Flatten()]
    net = cc.Sequential(layers, input_shape=shape, dtype="float64")
    size = math.prod(shape)
    t = np.zeros(700, np.int64)
    steps = set()
    for seed in range(3):
        room = np.random.default_rng(seed).standard_normal(700 * size + 3)
        x = room[seed : seed + 700 * size].reshape(700, *shape)
        x.flags.writeable = seed == 0
        expected = np.concatenate([net.forward(x[i : i + 1]) for i in range(700)])
        assert same_bits(net.predict(x), expected)
        assert net.evaluate(x, t)[0] == net.evaluate(x.copy(), t)[0]
        steps |= {id(net.plan(700).steps_in_place(False))}
        gone = weakref.ref(x)
        del x
        assert gone() is None
        assert net.plan(700).place[0] == 0
    assert len(steps) == 1


# ---- the cache -----------------------------------------------------------------------------------


def test_the_cache_keeps_the_plans_that_were_used_last():
    net = make(["affine 3"])
    first = net.plan(1)
    others = [net.plan(n) for n in range(2, network.PLANS_KEPT + 1)]
    assert net.plan(1) is first
    net.plan(1000)  # the ninth: the one unused for the longest time goes
    assert len(net._plans) == network.PLANS_KEPT
    assert net.plan(1) is first
    assert net.plan(3) is others[1]
    assert net.plan(2) is not others[0]


def test_many_batch_sizes_train_as_ever_though_plans_are_thrown_away():
    sizes = [*range(1, 14), 5, 2, 13, *range(1, 14)]
    net, twin = make(["affine 5", "tanh", "scale", "affine 4"]), None
    trainer = cc.Trainer(net, cc.SGD(0.1, momentum=0.9))
    twin = make(["affine 5", "tanh", "scale", "affine 4"])
    velocity = np.zeros_like(twin.flat_params)
    for n in sizes:
        x, t = make_batch(net, n, seed=n)
        trainer.step(x, t)
        twin.gradient(x, t)
        cc.ops.sgd_update(twin.flat_params, twin.flat_grads, 0.1, momentum=0.9, velocity=velocity)
        assert same_bits(net.flat_params, twin.flat_params), n


def test_plans_of_one_size_for_different_uses_do_not_mix():
    net = make(["affine 4"])
    x, t = make_batch(net, 5)
    rows = np.eye(4)[t]
    first = net.gradient(x, t)
    net.loss(x, rows)
    net.forward(2 * x)
    net.loss(3 * x, t)
    assert_gradients(net.gradient(x, rows), first, "float64")
    assert_gradients(net.gradient(x, t), first, "float64", tolerance=0)


def test_targets_are_labels_only_where_the_loss_knows_classes():
    labels = np.array([0, 1, 2])
    kind = plan.target_kind
    assert kind(labels, (4,), cc.SoftmaxCrossEntropy()) == "labels"
    assert kind(labels.tolist(), (4,), cc.SoftmaxCrossEntropy()) == "labels"
    assert kind(labels, (4,), LOSSES["log_cosh"]()) == "labels"
    assert kind(labels, (1,), LOSSES["log_cosh"]()) == "rows"
    assert kind(labels, (4,), cc.MeanSquaredError()) == "rows"
    assert kind(np.eye(3), (3,), cc.SoftmaxCrossEntropy()) == "rows"
    assert kind(labels + 0.5, (4,), cc.SoftmaxCrossEntropy()) == "rows"
