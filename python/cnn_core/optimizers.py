"""Optimizers: compiled updates over the flat array of all parameters."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from cnn_core import ops
from cnn_core._checks import as_dict, check_shape, finite, to_array

Array = npt.NDArray[Any]
Lane = list[ops.Task]


def rate(name: str, value: float, most: float = math.inf) -> float:
    """`value` as a finite number in 0..most."""
    number = finite(name, value)
    if not 0 <= number <= most:
        raise ValueError(f"{name}: expected a finite number in 0..{most}, got {value!r}")
    return number


def _share(name: str, value: float) -> float:
    number = rate(name, value, 1.0)
    if number == 1:
        raise ValueError(f"{name}: expected a number below 1, got {value!r}")
    return number


def _above_zero(name: str, value: float) -> float:
    number = rate(name, value)
    if not number:
        raise ValueError(f"{name}: expected a number > 0, got {value!r}")
    return number


class Options(TypedDict, total=False):
    """Keyword arguments that every optimizer has; see `Optimizer`."""

    lr_multipliers: Mapping[str, float] | None
    decay_biases: bool
    clip_norm: float | None
    clip_value: float | None


@dataclass(frozen=True)
class Part:
    """Neighbouring parameters that are updated alike.

    where : in the flat arrays. factor : of the learning rate. row : elements per item of the task.
    """

    where: slice
    factor: float
    weight_decay: float
    row: int = 1


class Optimizer:
    """Base class: the learning rate, the factors of it per parameter, and what steps accumulate.

    Parameters
    ----------
    lr : the learning rate; may be changed at any time, unlike the rest, which is read when the
        training begins.
    weight_decay : see the optimizers.
    lr_multipliers : name of a parameter to factor of its learning rate: 0 freezes it, -1 climbs.
    decay_biases : whether weight_decay acts on parameters of one dimension, too: biases, gamma and
        beta; default True, as in PyTorch.
    clip_norm : before an update, all gradients are multiplied by min(1, clip_norm / (norm + 1e-6)),
        norm being the root of the sum of the squares of all of them but those of frozen
        parameters. None (default): never. As PyTorch's clip_grad_norm_.
    clip_value : before an update, each element of the gradients is moved into
        -clip_value..clip_value. None (default): never. Not together with clip_norm.

    `network.grads` holds the clipped gradients afterwards.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float = 0.0,
        *,
        lr_multipliers: Mapping[str, float] | None = None,
        decay_biases: bool = True,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self._lr = np.array([rate("lr", lr)])
        self.weight_decay = rate("weight_decay", weight_decay)
        factors = {} if lr_multipliers is None else as_dict("lr_multipliers", lr_multipliers)
        self.lr_multipliers = {
            name: finite(f"lr_multipliers[{name!r}]", factor) for name, factor in factors.items()
        }
        self.decay_biases = bool(decay_biases)
        self.clip_norm = None if clip_norm is None else _above_zero("clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else _above_zero("clip_value", clip_value)
        if clip_norm is not None and clip_value is not None:
            raise ValueError("clip_norm, clip_value: expected one of them, got both")
        self._params: Array | None = None
        self._state: dict[str, Array] = {}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as they are now, JSON-able, and the name of the class."""
        values = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        values["lr_multipliers"] = dict(self.lr_multipliers)
        return {"class": type(self).__name__, "lr": self.lr, **values}

    def bind(self, params: Array) -> None:
        """Make the state for flat `params`, at rest, unless it is theirs already."""
        if self._params is not params:
            self._params, self._state = params, {}
        self._state = {**self.new_state(params), **self._state}

    def new_state(self, params: Array) -> dict[str, Array]:
        """What steps accumulate, before the first one: flat arrays like `params`, and counters."""
        return {}

    def state(self) -> dict[str, Array]:
        """What steps have accumulated, by name: live views; {} before the optimizer is bound.

        A trainer binds its optimizer to the parameters of its network.
        """
        return dict(self._state)

    def load_state(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Go on from what `state` returned, for parameters of the same sizes.

        Raises
        ------
        ValueError
            For other names or shapes than this optimizer's; then nothing has changed.
        """
        given = {n: to_array(f"state[{n!r}]", a) for n, a in as_dict("state", state).items()}
        if set(given) != set(self._state):
            raise ValueError(f"state: expected {sorted(self._state)}, got {list(given)}")
        for name, value in self._state.items():
            check_shape(f"state[{name!r}]", given[name], value.shape)
            if given[name].dtype.kind not in "fiu":
                raise TypeError(f"state[{name!r}]: expected numbers, got {given[name].dtype}")
        for name, value in self._state.items():
            value[...] = given[name]

    @property
    def lr(self) -> float:
        return float(self._lr[0])

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr[0] = rate("lr", value)

    def tasks(
        self,
        params: Array,
        grads: Array,
        slices: Mapping[str, slice],
        rows: Mapping[str, int] | None = None,
        biases: Collection[str] = (),
    ) -> tuple[dict[str, Lane], list[list[Lane]]]:
        """Compiled updates of flat `params` from flat `grads`, to be run once per step.

        slices: where each named parameter lies. State is made here and kept by the tasks.
        rows: names of parameters that get tasks of their own, whose items have so many elements.
        biases: names of parameters that decay_biases is about.

        Returns those tasks by name, and stages for all other parameters; a frozen parameter has
        none. Clipping by the norm, which needs all gradients, leaves no parameter its own.
        """
        self.bind(params)
        unknown = set(self.lr_multipliers) - set(slices)
        if unknown:
            raise ValueError(
                f"lr_multipliers: no parameter named {sorted(unknown)}; there are {list(slices)}"
            )
        factor = None if self.clip_norm is None else np.ones(1)
        own, parts = self._parts(slices, rows if rows and factor is None else {}, biases)
        stages = [
            *self._norm_stages(grads, parts, factor),
            [self._lane(params, grads, part, factor) for part in parts],
        ]
        return {n: self._lane(params, grads, part, factor) for n, part in own.items()}, stages

    def _parts(
        self, slices: Mapping[str, slice], rows: Mapping[str, int], biases: Collection[str]
    ) -> tuple[dict[str, Part], list[Part]]:
        """The parameters with rows, and all others, neighbours that are updated alike as one."""
        own: dict[str, Part] = {}
        parts: list[Part] = []
        joined = False
        for name, where in slices.items():
            decays = self.decay_biases or name not in biases
            factor = self.lr_multipliers.get(name, 1.0)
            part = Part(where, factor, self.weight_decay if decays else 0.0)
            if factor == 0:
                joined = False
            elif name in rows:
                own[name] = replace(part, row=rows[name])
                joined = False
            elif joined and parts[-1] == replace(part, where=parts[-1].where):
                parts[-1] = replace(part, where=slice(parts[-1].where.start, where.stop))
            else:
                parts.append(part)
                joined = True
        return own, parts

    def _norm_stages(
        self, grads: Array, parts: Sequence[Part], factor: Array | None
    ) -> list[list[Lane]]:
        """What computes the factor that clips all gradients by their norm."""
        if self.clip_norm is None or factor is None:
            return []
        native = ops.native.optimizers
        each = [grads[part.where] for part in parts]
        ends = np.cumsum([0, *(native.square_sums(part.size) for part in each)])
        sums = np.zeros(ends[-1])
        squares = [
            [native.squares(part, sums[begin:end])]
            for part, (begin, end) in zip(each, pairwise(ends), strict=True)
        ]
        return [squares, [[native.norm_factor(sums, self.clip_norm, factor)]]] if squares else []

    def _lane(self, params: Array, grads: Array, part: Part, factor: Array | None) -> Lane:
        """The update of a part, behind the clipping of its gradients."""
        lane = [self.update_task(params[part.where], grads[part.where], part)]
        if factor is not None or self.clip_value is not None:
            clip, limit = ops.native.optimizers.clip, self.clip_value or 0.0
            lane.insert(0, clip(grads[part.where], factor, limit, part.row))
        return lane

    def clock_tasks(self) -> list[ops.Task]:
        """What counts the steps: it must have run when the first of `tasks` begins."""
        return []

    def update_task(self, params: Array, grads: Array, part: Part) -> ops.Task:
        """The update of a part's own params and grads."""
        raise NotImplementedError

    def product_update_task(self, name: str, W: Array, x: Array, dout: Array) -> ops.Task | None:
        """The update of parameter `name` by the gradient x^T dout, without storing it.

        None where the update needs the gradient in memory.
        """
        return None


class SGD(Optimizer):
    """p -= lr g, with g = grad + weight_decay p, or with momentum the velocity in its place.

    v = momentum v + g; p -= lr (g + momentum v if nesterov else v), as in PyTorch.

    Parameters
    ----------
    lr : learning rate, >= 0.
    momentum : 0..1, default 0.
    nesterov : look ahead along the velocity; needs momentum.
    weight_decay : factor of the L2 penalty's gradient, default 0.
    lr_multipliers, decay_biases, clip_norm, clip_value : see `Optimizer`.
    """

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.momentum = rate("momentum", momentum, 1.0)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum > 0, got momentum=0")

    def new_state(self, params: Array) -> dict[str, Array]:
        return {"velocity": np.zeros_like(params)} if self.momentum else {}

    def update_task(self, params: Array, grads: Array, part: Part) -> ops.Task:
        task: ops.Task = ops.native.optimizers.sgd(
            params,
            grads,
            self._state["velocity"][part.where] if self.momentum else None,
            self._lr,
            part.factor,
            self.momentum,
            self.nesterov,
            part.weight_decay,
            part.row,
        )
        return task

    def product_update_task(self, name: str, W: Array, x: Array, dout: Array) -> ops.Task | None:
        own = type(self).update_task is SGD.update_task  # and not a subclass's other step
        if self.momentum or self.clip_value is not None or not own:
            return None
        factor = self.lr_multipliers.get(name, 1.0)
        update = ops.native.optimizers.sgd_of_product
        task: ops.Task = update(x, dout, W, self._lr, factor, self.weight_decay)
        return task


class AdaGrad(Optimizer):
    """Smaller steps the more a parameter has moved.

    g = grad + weight_decay p; total += g^2; p -= lr g / (sqrt(total) + epsilon), as in PyTorch.

    Parameters
    ----------
    lr : learning rate, >= 0, default 0.01.
    epsilon : > 0, default 1e-10.
    weight_decay : factor of the L2 penalty's gradient, default 0.
    initial_total : what every total begins with, >= 0, default 0.
    lr_multipliers, decay_biases, clip_norm, clip_value : see `Optimizer`.

    Source: Duchi, Hazan and Singer, Adaptive subgradient methods (2011); Saito, Deep Learning from
    Scratch, section 6.1.5.
    """

    def __init__(
        self,
        lr: float = 0.01,
        epsilon: float = 1e-10,
        weight_decay: float = 0.0,
        initial_total: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.epsilon = _above_zero("epsilon", epsilon)
        self.initial_total = rate("initial_total", initial_total)

    def new_state(self, params: Array) -> dict[str, Array]:
        return {"total": np.full_like(params, self.initial_total)}

    def update_task(self, params: Array, grads: Array, part: Part) -> ops.Task:
        task: ops.Task = ops.native.optimizers.adagrad(
            params,
            grads,
            self._state["total"][part.where],
            self._lr,
            part.factor,
            self.epsilon,
            part.weight_decay,
            part.row,
        )
        return task


class RMSprop(Optimizer):
    """Steps over the root of the mean square of the recent gradients.

    g = grad + weight_decay p; mean_square = decay_rate mean_square + (1 - decay_rate) g^2;
    step = g / (sqrt(mean_square) + epsilon); p -= lr step, or with momentum
    v = momentum v + step; p -= lr v, as in PyTorch.

    Parameters
    ----------
    lr : learning rate, >= 0, default 0.01.
    decay_rate : how much of the mean square is kept at each step (PyTorch's alpha, Keras's rho),
        0 <= decay_rate < 1, default 0.99.
    momentum : 0..1, default 0.
    epsilon : > 0, default 1e-8.
    weight_decay : factor of the L2 penalty's gradient, default 0.
    lr_multipliers, decay_biases, clip_norm, clip_value : see `Optimizer`.

    Source: Tieleman and Hinton, Neural networks for machine learning, lecture 6.5 (2012).
    """

    def __init__(
        self,
        lr: float = 0.01,
        decay_rate: float = 0.99,
        momentum: float = 0.0,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.decay_rate = _share("decay_rate", decay_rate)
        self.momentum = rate("momentum", momentum, 1.0)
        self.epsilon = _above_zero("epsilon", epsilon)

    def new_state(self, params: Array) -> dict[str, Array]:
        names = ("mean_square", "velocity") if self.momentum else ("mean_square",)
        return {name: np.zeros_like(params) for name in names}

    def update_task(self, params: Array, grads: Array, part: Part) -> ops.Task:
        task: ops.Task = ops.native.optimizers.rmsprop(
            params,
            grads,
            self._state["mean_square"][part.where],
            self._state["velocity"][part.where] if self.momentum else None,
            self._lr,
            part.factor,
            self.decay_rate,
            self.momentum,
            self.epsilon,
            part.weight_decay,
            part.row,
        )
        return task


class Adam(Optimizer):
    """Steps of about the size lr, whatever the size of the gradients.

    g = grad + weight_decay p; m += (1 - beta1) (g - m); v += (1 - beta2) (g^2 - v);
    p -= lr mhat / (sqrt(vhat) + epsilon), with mhat = m / (1 - beta1^t), vhat = v / (1 - beta2^t)
    at step t, as in PyTorch.

    Parameters
    ----------
    lr : learning rate, >= 0, default 0.001.
    beta1, beta2 : how much of the mean gradient and of the mean square is kept at each step,
        0 <= beta < 1, defaults 0.9 and 0.999.
    epsilon : > 0, default 1e-8.
    weight_decay : factor of the L2 penalty's gradient, by default 0; see AdamW.
    lr_multipliers, decay_biases, clip_norm, clip_value : see `Optimizer`.

    Source: Kingma and Ba, Adam (2015); Saito, Deep Learning from Scratch, section 6.1.6.
    """

    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        usual = 0.01 if self._decoupled else 0.0
        super().__init__(lr, usual if weight_decay is None else weight_decay, **options)
        self.beta1, self.beta2 = _share("beta1", beta1), _share("beta2", beta2)
        self.epsilon = _above_zero("epsilon", epsilon)
        self._corrections = np.ones(2)

    def new_state(self, params: Array) -> dict[str, Array]:
        moments = {name: np.zeros_like(params) for name in ("mean", "mean_square")}
        return {**moments, "steps": np.zeros(1)}

    def clock_tasks(self) -> list[ops.Task]:
        clock = ops.native.optimizers.adam_clock
        return [clock(self._corrections, self._state["steps"], self.beta1, self.beta2)]

    def update_task(self, params: Array, grads: Array, part: Part) -> ops.Task:
        task: ops.Task = ops.native.optimizers.adam(
            params,
            grads,
            self._state["mean"][part.where],
            self._state["mean_square"][part.where],
            self._lr,
            self._corrections,
            part.factor,
            self.beta1,
            self.beta2,
            self.epsilon,
            0.0 if self._decoupled else part.weight_decay,
            part.weight_decay if self._decoupled else 0.0,
            part.row,
        )
        return task


class AdamW(Adam):
    """Adam whose weight decay does not pass through the moments: p -= lr weight_decay p.

    Parameters are those of `Adam`; weight_decay is 0.01 by default, as in PyTorch.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019).
    """

    _decoupled = True


BY_NAME: dict[str, type[Optimizer]] = {
    kind.__name__: kind for kind in (SGD, AdaGrad, RMSprop, Adam, AdamW)
}


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimizer whose `get_config` this is; ValueError for what is none of this library."""
    arguments = as_dict("optimizer", config)
    name = arguments.pop("class", None)
    if not isinstance(name, str) or name not in BY_NAME:
        raise ValueError(f"optimizer: expected one of {sorted(BY_NAME)}, got {name!r}")
    return BY_NAME[name](**arguments)
