"""Schedules: the learning rate's factor as a function of the progress of a fit, 0 to 1.

They speak of shares of the training instead of epochs, so that they stay as they are when its
length changes. `callbacks.LearningRateSchedule` applies them; any function will do as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from cnn_core._optimizer import rate


class Schedule:
    """Base class: called with the progress, 0..1, it returns the factor of the learning rate.

    A subclass defines `decay`, of the progress since the end of the warm-up.

    Parameters
    ----------
    warmup : the share of the training in which the factor first rises in a line from 0, 0..1,
        default 0.

    Source of the warm-up: Goyal et al., Accurate, large minibatch SGD (2017), section 2.2.
    """

    warmup = 0.0

    def __init__(self, warmup: float = 0.0) -> None:
        self.warmup = rate("warmup", warmup, 1.0)

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.decay(0.0) * (progress / self.warmup)
        rest = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return self.decay(min(rest, 1.0))

    def decay(self, progress: float) -> float:
        raise NotImplementedError

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class Constant(Schedule):
    """1 all the time, but for the warm-up.

    Parameters
    ----------
    warmup : see `Schedule`.
    """

    def decay(self, progress: float) -> float:
        return 1.0


class StepDecay(Schedule):
    """Multiplied by `factor` at each of the given points.

    Parameters
    ----------
    at : shares of the training behind the warm-up, 0..1; default half and three quarters.
    factor : 0..1, default 0.1.
    warmup : see `Schedule`.
    """

    def __init__(
        self, at: Iterable[float] = (0.5, 0.75), factor: float = 0.1, warmup: float = 0.0
    ) -> None:
        super().__init__(warmup)
        if not isinstance(at, Iterable):
            raise TypeError(f"at: expected a list of numbers, got {at!r}")
        self.at = tuple(sorted(rate("at", point, 1.0) for point in at))
        self.factor = rate("factor", factor, 1.0)

    def decay(self, progress: float) -> float:
        return float(self.factor ** sum(progress >= point for point in self.at))


class ExponentialDecay(Schedule):
    """final^progress: falls by the same share in every step, to `final` at the end.

    Parameters
    ----------
    final : 0..1 but not 0, default 0.01.
    warmup : see `Schedule`.
    """

    def __init__(self, final: float = 0.01, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        self.final = rate("final", final, 1.0)
        if not self.final:
            raise ValueError(f"final: expected a number > 0, got {final!r}")

    def decay(self, progress: float) -> float:
        return float(self.final**progress)


class InverseTimeDecay(Schedule):
    """1 / (1 + speed progress)^power: falls ever more slowly, to (1 + speed)^-power at the end.

    Keras's InverseTimeDecay(lr, decay_steps, decay_rate) for so many updates has
    speed = decay_rate * updates / decay_steps; scikit-learn's "invscaling", lr / t^power_t, has the
    last t, less 1, for the speed.

    Parameters
    ----------
    speed : >= 0, default 9: a tenth at the end.
    power : >= 0, default 1.
    warmup : see `Schedule`.
    """

    def __init__(self, speed: float = 9.0, power: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        self.speed, self.power = rate("speed", speed), rate("power", power)

    def decay(self, progress: float) -> float:
        return float((1 + self.speed * progress) ** -self.power)


class CosineDecay(Schedule):
    """Falls along half a cosine wave to `final`.

    Parameters
    ----------
    warmup : see `Schedule`.
    final : 0..1, default 0.

    Source: Loshchilov and Hutter, SGDR (2017), without restarts.
    """

    def __init__(self, warmup: float = 0.0, final: float = 0.0) -> None:
        super().__init__(warmup)
        self.final = rate("final", final, 1.0)

    def decay(self, progress: float) -> float:
        wave = 0.5 * (1 + math.cos(math.pi * progress))
        return self.final + (1 - self.final) * wave
