"""What an optimizer has accumulated and its arguments: read, set, and training that goes on."""

import json

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import optimizers
from reference import same_bits
from reference_network import make, make_batch

WORDS = ["affine 5", "tanh", "affine 3"]
KINDS = {
    "sgd": (lambda: cc.SGD(0.1), []),
    "momentum": (lambda: cc.SGD(0.1, 0.9, True, 0.01), ["velocity"]),
    "sgdw": (lambda: cc.SGDW(0.1, 0.9, weight_decay=0.01), ["velocity"]),
    "adagrad": (lambda: cc.AdaGrad(0.1, decay_biases=False, weight_decay=0.1), ["total"]),
    "rmsprop": (lambda: cc.RMSprop(0.01, clip_norm=0.1), ["mean_square"]),
    "rms with momentum": (lambda: cc.RMSprop(0.01, 0.9, 0.5), ["mean_square", "velocity"]),
    "adam": (lambda: cc.Adam(0.01, weight_decay=0.1), ["mean", "mean_square", "steps"]),
    "adamw": (lambda: cc.AdamW(0.01, lr_multipliers={"b1": 0.5}), ["mean", "mean_square", "steps"]),
}
by_kind = pytest.mark.parametrize("kind", KINDS)


def steps(trainer, numbers):
    for number in numbers:
        trainer.step(*make_batch(trainer.network, 7, seed=number))


@by_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_goes_on_from_a_copied_state(kind, dtype):
    new, names = KINDS[kind]
    nets = [make(WORDS, dtype=dtype) for _ in range(3)]
    whole, first = (cc.Trainer(net, new()) for net in nets[:2])
    steps(whole, range(6))
    steps(first, range(3))
    kept = {name: value.copy() for name, value in first.optimizer.state().items()}
    assert sorted(kept) == names
    config = json.loads(json.dumps(first.optimizer.get_config()))
    steps(first, range(3, 6))  # must not reach the copies
    nets[2].flat_params[...] = make(WORDS, dtype=dtype).flat_params
    second = cc.Trainer(nets[2], new())
    steps(second, range(3))
    resumed = cc.Trainer(nets[2], optimizers.from_config(config))
    resumed.optimizer.load_state(kept)
    steps(resumed, range(3, 6))
    assert same_bits(nets[0].flat_params, nets[2].flat_params)
    for name, value in whole.optimizer.state().items():
        assert same_bits(value, resumed.optimizer.state()[name]), name


@by_kind
def test_the_state_is_live_and_set_where_it_lies(kind):
    net, (new, names) = make(WORDS), KINDS[kind]
    trainer = cc.Trainer(net, new())
    state = trainer.optimizer.state()
    assert all(not value.any() for value in state.values())  # at rest
    steps(trainer, range(2))
    assert all(value.any() for value in state.values())
    assert all(trainer.optimizer.state()[name] is state[name] for name in names)
    moved, params = {name: value.copy() for name, value in state.items()}, net.flat_params.copy()
    steps(trainer, [5])
    after = net.flat_params.copy()
    net.flat_params[...] = params
    trainer.optimizer.load_state(moved)  # the compiled step must see it
    steps(trainer, [5])
    assert same_bits(net.flat_params, after)


def test_momentum_that_is_switched_on_later_has_a_velocity():
    net = make(WORDS)
    trainer = cc.Trainer(net, cc.SGD(0.1))
    steps(trainer, [0])
    trainer.optimizer.momentum = 0.9
    trainer.fit(*make_batch(net, 20), verbose=False)
    assert trainer.optimizer.state()["velocity"].any()


@by_kind
def test_another_state_is_refused_and_changes_nothing(kind):
    new, names = KINDS[kind]
    optimizer = cc.Trainer(make(WORDS), new()).optimizer
    with pytest.raises(ValueError, match=r"state: expected \[.*\], got \[.*'speed'.*\]"):
        optimizer.load_state({**optimizer.state(), "speed": np.zeros(3)})
    if names:
        good = {name: value + 1 for name, value in optimizer.state().items()}
        with pytest.raises(ValueError, match=rf"state: expected \['{names[0]}'.*\], got \[\]"):
            optimizer.load_state({})
        bad = {**good, names[-1]: np.zeros(3)}
        with pytest.raises(ValueError, match=rf"state\['{names[-1]}'\]: expected shape .*\(3,\)"):
            optimizer.load_state(bad)
        assert not any(value.any() for value in optimizer.state().values())


def test_an_optimizer_that_is_not_bound_has_no_state():
    assert cc.Adam().state() == {}
    with pytest.raises(ValueError, match=r"state: expected \[\], got \['mean'\]"):
        cc.Adam().load_state({"mean": np.zeros(3)})


@by_kind
def test_the_arguments_come_back(kind):
    optimizer = KINDS[kind][0]()
    optimizer.lr = 0.25
    config = optimizer.get_config()
    again = optimizers.from_config(config)
    assert type(again) is type(optimizer) and again.lr == 0.25
    assert again.get_config() == config
    config["lr_multipliers"]["W1"] = 0
    assert "W1" not in optimizer.lr_multipliers  # a copy


def test_the_arguments_are_those_of_the_constructor():
    factors = {"W1": -1}
    assert cc.SGD(0.5, 0.9, True, 0.1, lr_multipliers=factors, clip_value=2).get_config() == {
        "class": "SGD",
        "lr": 0.5,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.1,
        "lr_multipliers": {"W1": -1.0},
        "decay_biases": True,
        "clip_norm": None,
        "clip_value": 2.0,
    }


def test_the_total_of_adagrad_begins_with_what_was_asked_for():
    optimizer = cc.Trainer(make(WORDS), cc.AdaGrad(initial_total=0.5)).optimizer
    assert (optimizer.state()["total"] == 0.5).all()
    with pytest.raises(ValueError, match="initial_total: expected a finite number"):
        cc.AdaGrad(initial_total=-1)


def test_an_unknown_class_is_named():
    with pytest.raises(ValueError, match=r"optimizer: expected one of .*, got 'Adadelta'"):
        optimizers.from_config({"class": "Adadelta"})
