"""Schedules as functions of the progress, and the callback that applies them."""

import math

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import schedules
from reference import same_bits
from reference_network import make, make_batch

WORDS = ["affine 8", "tanh", "affine 4"]
KINDS = (
    schedules.Constant,
    schedules.StepDecay,
    schedules.ExponentialDecay,
    schedules.InverseTimeDecay,
    schedules.CosineDecay,
)
ALL = (
    *(kind() for kind in KINDS),
    *(kind(warmup=0.3) for kind in KINDS),
    schedules.CosineDecay(warmup=0.3, final=0.1),
    schedules.InverseTimeDecay(100, 0.5),
)


def test_constant_is_one():
    assert [schedules.Constant()(p) for p in (0, 0.3, 1)] == [1, 1, 1]


def test_steps_fall_at_their_points():
    schedule = schedules.StepDecay(at=(0.8, 0.5), factor=0.5)
    assert [schedule(p) for p in (0, 0.49, 0.5, 0.79, 0.8, 1)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert [schedules.StepDecay()(p) for p in (0.4, 0.5, 0.75)] == pytest.approx([1, 0.1, 0.01])
    assert schedules.StepDecay(at=())(1) == 1


def test_exponential_falls_by_the_same_share_everywhere():
    schedule = schedules.ExponentialDecay(final=0.01)
    assert [schedule(p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.1, 0.01])
    assert schedules.ExponentialDecay(1)(0.7) == 1


def test_inverse_time_falls_ever_more_slowly():
    schedule = schedules.InverseTimeDecay()
    assert [schedule(p) for p in (0, 1 / 9, 1 / 3, 1)] == pytest.approx([1, 0.5, 0.25, 0.1])
    updates, lr, steps, decay = 40, 0.3, 7, 0.5  # Keras: lr / (1 + decay_rate step / decay_steps)
    keras = [lr / (1 + decay * step / steps) for step in range(updates)]
    schedule = schedules.InverseTimeDecay(decay * updates / steps)
    assert [lr * schedule(k / updates) for k in range(updates)] == pytest.approx(keras)
    invscaling = [lr / (t + 1) ** 0.5 for t in range(updates)]  # scikit-learn's, power_t=0.5
    schedule = schedules.InverseTimeDecay(updates - 1, power=0.5)
    found = [lr * schedule(t / (updates - 1)) for t in range(updates)]
    assert found == pytest.approx(invscaling)


@pytest.mark.parametrize("kind", KINDS)
def test_every_schedule_may_begin_with_a_warm_up(kind):
    plain, warm = kind(), kind(warmup=0.2)
    assert [warm(p) for p in (0, 0.05, 0.1)] == pytest.approx([0, 0.25, 0.5])
    for progress in (0, 0.1, 0.5, 0.74, 1):
        assert warm(0.2 + 0.8 * progress) == pytest.approx(plain(progress), rel=1e-12)
    assert kind(warmup=1)(0.5) == 0.5
    with pytest.raises(ValueError, match="warmup: expected"):
        kind(warmup=-0.1)


def test_a_schedule_of_ones_own_has_the_warm_up_too():
    class Half(schedules.Schedule):
        def decay(self, progress):
            return 0.5

    assert [Half(warmup=0.4)(p) for p in (0, 0.2, 0.4, 1)] == pytest.approx([0, 0.25, 0.5, 0.5])


def test_cosine_rises_in_a_line_and_falls_as_half_a_wave():
    schedule = schedules.CosineDecay(warmup=0.2, final=0.1)
    assert [schedule(p) for p in (0, 0.05, 0.2)] == pytest.approx([0, 0.25, 1])
    assert [schedule(p) for p in (0.6, 1)] == pytest.approx([0.55, 0.1])
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert schedule(0.4) == pytest.approx(quarter)
    assert schedules.CosineDecay()(0) == 1
    assert schedules.CosineDecay(warmup=1)(0.5) == 0.5
    assert schedules.CosineDecay(warmup=1)(1) == 1


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_factors_stay_between_0_and_1_and_do_not_jump_upwards(schedule):
    progress = np.linspace(0, 1, 1001)
    factors = np.array([schedule(p) for p in progress])
    assert factors.min() >= 0 and factors.max() == pytest.approx(1, abs=1e-4)
    assert all(type(schedule(p)) is float for p in (0.0, 0.5, 1.0))
    assert np.diff(factors).max() <= 0.001 / 0.3 + 1e-12
    assert eval(repr(schedule), vars(schedules))(0.37) == schedule(0.37)


@pytest.mark.parametrize(
    ("make_schedule", "error", "message"),
    [
        (lambda: schedules.StepDecay(at=0.5), TypeError, "at: expected a list of numbers, got 0.5"),
        (lambda: schedules.StepDecay(at=[2]), ValueError, r"at: expected .* in 0..1.0, got 2"),
        (lambda: schedules.StepDecay(factor=-1), ValueError, "factor: expected"),
        (lambda: schedules.ExponentialDecay(0), ValueError, "final: expected a number > 0, got 0"),
        (lambda: schedules.ExponentialDecay(math.nan), ValueError, "final: expected a finite"),
        (lambda: schedules.InverseTimeDecay(-1), ValueError, "speed: expected a finite number"),
        (lambda: schedules.InverseTimeDecay(power="x"), TypeError, "power: expected a number"),
        (lambda: schedules.CosineDecay(warmup=1.5), ValueError, "warmup: expected"),
        (lambda: schedules.CosineDecay(final="low"), TypeError, "final: expected a number"),
        (lambda: cc.LearningRateSchedule(0.1), TypeError, "schedule: expected a function"),
    ],
)
def test_bad_arguments_are_named(make_schedule, error, message):
    with pytest.raises(error, match=message):
        make_schedule()


# ---- the callback --------------------------------------------------------------------------------


class Rates(cc.Callback):
    """Notes the rate that each update was made with: it stands before the schedule."""

    def __init__(self):
        self.rates = []

    def on_step_end(self, trainer):
        self.rates.append(trainer.optimizer.lr)


def rates_of(schedule, rows=40, **fit):
    rates = Rates()
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.5), [rates, cc.LearningRateSchedule(schedule)])
    x, t = make_batch(make(WORDS), rows)
    trainer.fit(x, t, **{"epochs": 2, "batch_size": 10, "verbose": False, **fit})
    return rates.rates, trainer


def test_the_rate_is_that_of_the_middle_of_each_update():
    rates, trainer = rates_of(lambda progress: progress)
    assert rates == pytest.approx([0.5 * (k + 0.5) / 8 for k in range(8)])
    assert trainer.planned == 8
    assert trainer.optimizer.lr == 0.5  # as before


def test_partial_batches_and_a_limit_of_iterations_count():
    rates, _ = rates_of(lambda progress: progress, rows=35, iterations=5)
    assert rates == pytest.approx([0.5 * (k + 0.5) / 5 for k in range(5)])


def test_the_updates_are_made_with_these_rates():
    x, t = make_batch(make(WORDS), 40)
    cosine = schedules.CosineDecay(warmup=0.25)
    nets = [make(WORDS), make(WORDS)]
    trainer = cc.Trainer(nets[0], cc.SGD(0.5, 0.9), [cc.LearningRateSchedule(cosine)])
    trainer.fit(x, t, batch_size=10, sampling="sequential", verbose=False)
    by_hand = cc.Trainer(nets[1], cc.SGD(0, 0.9))
    for k in range(4):
        by_hand.optimizer.lr = 0.5 * cosine((k + 0.5) / 4)
        by_hand.step(x[10 * k : 10 * k + 10], t[10 * k : 10 * k + 10])
    assert same_bits(nets[0].flat_params, nets[1].flat_params)


def test_a_second_fit_begins_again():
    rates, trainer = rates_of(lambda progress: 1 - progress)
    first = list(rates)
    x, t = make_batch(make(WORDS), 40)
    trainer.fit(x, t, epochs=2, batch_size=10, verbose=False)
    assert rates[8:] == first


def test_the_rate_is_put_back_after_an_error():
    class Fails(cc.Callback):
        def on_step_end(self, trainer):
            raise RuntimeError("enough")

    schedule = cc.LearningRateSchedule(lambda progress: 0.1)
    trainer = cc.Trainer(make(WORDS), cc.SGD(0.5), [schedule, Fails()])
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(*make_batch(make(WORDS), 40), verbose=False)
    assert trainer.optimizer.lr == 0.5


def test_a_schedule_below_zero_is_refused():
    with pytest.raises(ValueError, match="lr: expected"):
        rates_of(lambda progress: -1)
