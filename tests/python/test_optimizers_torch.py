"""Every optimizer with all its options crossed, over many steps, beside PyTorch's."""

from itertools import product

import numpy as np
import pytest

import cnn_core as cc
from reference import DTYPES, same_bits
from reference_network import make, make_batch

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

WORDS = ["affine 5", "tanh", "affine 3"]
CUT = [
    "affine 5",
    "sine",
    "affine 3",
]  # a layer in plain Python: the update is a program of its own
STEPS = 25


def crossed(**options):
    """All combinations of the options' values, as dicts."""
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


DECAYS = (0.0, 0.1)
ADAM = crossed(betas=[(0.9, 0.999), (0.5, 0.9), (0.2, 0.3)], eps=[1e-8, 0.1], weight_decay=DECAYS)
THEIRS = {
    "SGD": [
        *crossed(momentum=[0.0, 0.9], weight_decay=DECAYS),
        *crossed(momentum=[0.5], nesterov=[True], weight_decay=DECAYS),
    ],
    "Adagrad": crossed(initial_accumulator_value=[0.0, 0.5], eps=[1e-10, 0.1], weight_decay=DECAYS),
    "RMSprop": crossed(
        alpha=[0.99, 0.5], momentum=[0.0, 0.9], eps=[1e-8, 0.1], weight_decay=DECAYS
    ),
    "Adam": ADAM,
    "AdamW": ADAM,
}
CASES = [(name, options) for name, all_options in THEIRS.items() for options in all_options]
NAMES = {"eps": "epsilon", "alpha": "decay_rate", "initial_accumulator_value": "initial_total"}
RATE = {"SGD": 0.1, "Adagrad": 0.1}


def ours(name, options, **common):
    """The optimizer of this library with PyTorch's options."""
    options = {NAMES.get(key, key): value for key, value in options.items()}
    if "betas" in options:
        options["beta1"], options["beta2"] = options.pop("betas")
    kind = getattr(cc, {"Adagrad": "AdaGrad"}.get(name, name))
    return kind(RATE.get(name, 0.01), **options, **common)


class Beside:
    """A network of ours, and its parameters with an optimizer of PyTorch."""

    def __init__(self, name, options, dtype, words=WORDS, factors=None, **common):
        self.net = make(words, dtype=dtype)
        optimizer = ours(name, options, lr_multipliers=factors, **common)
        self.trainer, self.common = cc.Trainer(self.net, optimizer), common
        self.theirs = {key: torch.tensor(value.copy()) for key, value in self.net.params.items()}
        self.factors = factors or {}
        groups = [self.group(key, options) for key in self.theirs if self.factors.get(key) != 0]
        self.optimizer = getattr(torch.optim, name)(groups, lr=optimizer.lr, **options)
        self.tolerance = 1e-12 if dtype == "float64" else 2e-5

    def group(self, key, options):
        value = self.theirs[key]
        group = {"params": [value], "lr": self.trainer.optimizer.lr * self.factors.get(key, 1)}
        if value.ndim < 2 and not self.common.get("decay_biases", True):
            group["weight_decay"] = 0.0
        return group

    def step(self, number, scale=1.0):
        """One step of both; PyTorch gets our gradient, so that rounding does not add up."""
        x, t = make_batch(self.net, 11, seed=number)
        for key, gradient in self.net.gradient(scale * x, t).items():
            self.theirs[key].grad = torch.tensor(gradient)
        live = [value for key, value in self.theirs.items() if self.factors.get(key) != 0]
        if self.common.get("clip_norm") is not None:
            torch.nn.utils.clip_grad_norm_(live, self.common["clip_norm"])
        if self.common.get("clip_value") is not None:
            torch.nn.utils.clip_grad_value_(live, self.common["clip_value"])
        self.optimizer.step()
        self.trainer.step(scale * x, t)
        for key, value in self.theirs.items():
            if self.factors.get(key) != 0:
                found, expected = self.net.grads[key], value.grad.numpy()
                np.testing.assert_allclose(found, expected, self.tolerance, self.tolerance)

    def compare(self):
        for key, value in self.theirs.items():
            found = self.net.params[key]
            np.testing.assert_allclose(found, value.numpy(), self.tolerance, self.tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_many_steps(name, options, dtype):
    beside = Beside(name, options, dtype)
    start = beside.net.flat_params.copy()
    for number in range(STEPS):
        beside.step(number)
    beside.compare()
    assert np.abs(beside.net.flat_params - start).max() > 0.01


ONE_OF_EACH = [(name, all_options[-1]) for name, all_options in THEIRS.items()]
one_of_each = pytest.mark.parametrize(("name", "options"), ONE_OF_EACH, ids=str)
FACTORS = [None, {"W1": 0.5, "b2": 0}, {"W2": 0, "b1": 3}]
CLIPS = [{}, {"clip_norm": 0.05}, {"clip_norm": 1e9}, {"clip_value": 0.01}, {"clip_value": 1e9}]


@one_of_each
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize("words", [WORDS, CUT], ids=["compiled", "cut"])
def test_clipping_multipliers_and_biases_without_decay(name, options, words, factors, clip, dtype):
    for decay_biases in (True, False):
        common = {"decay_biases": decay_biases, **clip}
        beside = Beside(name, options, dtype, words, factors, **common)
        start = {key: value.copy() for key, value in beside.net.params.items()}
        for number in range(8):
            beside.step(number)
        beside.compare()
        for key, value in beside.net.params.items():
            frozen = (factors or {}).get(key) == 0
            assert same_bits(value, start[key]) == frozen, key


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgdw_is_sgd_behind_a_shrinking(nesterov, dtype):
    beside = Beside("SGD", {"momentum": 0.9, "nesterov": nesterov}, dtype)
    optimizer = cc.SGDW(beside.trainer.optimizer.lr, 0.9, nesterov, weight_decay=0.5)
    beside.trainer = cc.Trainer(beside.net, optimizer)
    for number in range(STEPS):
        for value in beside.theirs.values():
            value *= 1 - optimizer.lr * optimizer.weight_decay
        beside.step(number)
    beside.compare()


@one_of_each
def test_a_rate_that_changes(name, options):
    beside = Beside(name, options, "float64")
    for number, lr in enumerate((0.02, 0.02, 0.005, 0.0, 0.03)):
        beside.trainer.optimizer.lr = lr
        for group in beside.optimizer.param_groups:
            group["lr"] = lr
        beside.step(number)
    beside.compare()


DEFAULTS = {"eps": "epsilon", "alpha": "decay_rate", "momentum": "momentum", "nesterov": "nesterov"}


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam", "AdamW"])
def test_the_defaults_are_pytorchs(name):
    other = getattr(torch.optim, name)([torch.zeros(1)]).defaults
    optimizer = getattr(cc, {"Adagrad": "AdaGrad"}.get(name, name))()
    assert (optimizer.lr, optimizer.weight_decay) == (other["lr"], other["weight_decay"])
    for theirs, own in DEFAULTS.items():
        if theirs in other:
            assert getattr(optimizer, own) == other[theirs], own
    if "betas" in other:
        assert (optimizer.beta1, optimizer.beta2) == other["betas"]
