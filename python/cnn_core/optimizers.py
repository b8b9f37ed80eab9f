"""Optimizers: compiled updates over the flat array of all parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cnn_core import ops
from cnn_core._checks import finite

Array = npt.NDArray[Any]


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


class Optimizer:
    """Base class: the learning rate, the factors of it per parameter, and what steps accumulate.

    Parameters
    ----------
    lr : the learning rate; may be changed at any time, unlike the rest, which is read when the
        training begins.
    lr_multipliers : name of a parameter to factor of its learning rate: 0 freezes it, -1 climbs.
    """

    def __init__(self, lr: float, lr_multipliers: Mapping[str, float] | None = None) -> None:
        self._lr = np.array([rate("lr", lr)])
        self.lr_multipliers = {
            name: finite(f"lr_multipliers[{name!r}]", factor)
            for name, factor in dict(lr_multipliers or {}).items()
        }
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
        if set(state) != set(self._state):
            raise ValueError(f"state: expected {sorted(self._state)}, got {sorted(state)}")
        for name, value in self._state.items():
            if np.shape(state[name]) != value.shape:
                found = f"expected shape {value.shape}, got {np.shape(state[name])}"
                raise ValueError(f"state[{name!r}]: {found}")
        for name, value in self._state.items():
            value[...] = state[name]

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
    ) -> tuple[dict[str, ops.Task], list[ops.Task]]:
        """Compiled updates of flat `params` from flat `grads`, to be run once per step.

        slices: where each named parameter lies. State is made here and kept by the tasks.
        rows: names of parameters that get a task of their own, whose items have so many elements.

        Returns those tasks by name, and the tasks of all other parameters; a frozen parameter has
        none.
        """
        rows = rows or {}
        self.bind(params)
        unknown = set(self.lr_multipliers) - set(slices)
        if unknown:
            raise ValueError(
                f"lr_multipliers: no parameter named {sorted(unknown)}; there are {list(slices)}"
            )
        own: dict[str, ops.Task] = {}
        parts: list[tuple[float, slice]] = []  # neighbours with the same factor as one
        joined = False
        for name, part in slices.items():
            factor = self.lr_multipliers.get(name, 1.0)
            if factor == 0 or name in rows:
                if factor != 0:
                    row = rows[name]
                    own[name] = self.update_task(params[part], grads[part], factor, part, row)
                joined = False
            elif joined and parts[-1][0] == factor:
                parts[-1] = (factor, slice(parts[-1][1].start, part.stop))
            else:
                parts.append((factor, part))
                joined = True
        return own, [
            self.update_task(params[part], grads[part], factor, part) for factor, part in parts
        ]

    def clock_tasks(self) -> list[ops.Task]:
        """What counts the steps: it must have run when the first of `tasks` begins."""
        return []

    def update_task(
        self, params: Array, grads: Array, factor: float, part: slice, row: int = 1
    ) -> ops.Task:
        raise NotImplementedError


class SGD(Optimizer):
    """p -= lr g, with g = grad + weight_decay p, or with momentum the velocity in its place.

    v = momentum v + g; p -= lr (g + momentum v if nesterov else v), as in PyTorch.

    Parameters
    ----------
    lr : learning rate, >= 0.
    momentum : 0..1, default 0.
    nesterov : look ahead along the velocity; needs momentum.
    weight_decay : factor of the L2 penalty's gradient, default 0.
    lr_multipliers : see `Optimizer`.
    """

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        lr_multipliers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(lr, lr_multipliers)
        self.momentum = rate("momentum", momentum, 1.0)
        self.nesterov = bool(nesterov)
        self.weight_decay = rate("weight_decay", weight_decay)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum > 0, got momentum=0")

    def new_state(self, params: Array) -> dict[str, Array]:
        return {"velocity": np.zeros_like(params)} if self.momentum else {}

    def update_task(
        self, params: Array, grads: Array, factor: float, part: slice, row: int = 1
    ) -> ops.Task:
        velocity = self._state["velocity"][part] if self.momentum else None
        task: ops.Task = ops.native.optimizers.sgd(
            params,
            grads,
            velocity,
            self._lr,
            factor,
            self.momentum,
            self.nesterov,
            self.weight_decay,
            row,
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
    lr_multipliers : see `Optimizer`.

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
        *,
        lr_multipliers: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(lr, lr_multipliers)
        self.beta1, self.beta2 = _share("beta1", beta1), _share("beta2", beta2)
        self.epsilon = rate("epsilon", epsilon)
        if not self.epsilon:
            raise ValueError(f"epsilon: expected a number > 0, got {epsilon!r}")
        usual = 0.01 if self._decoupled else 0.0
        self.weight_decay = rate("weight_decay", usual if weight_decay is None else weight_decay)
        self._corrections = np.ones(2)

    def new_state(self, params: Array) -> dict[str, Array]:
        moments = {name: np.zeros_like(params) for name in ("mean", "mean_square")}
        return {**moments, "steps": np.zeros(1)}

    def clock_tasks(self) -> list[ops.Task]:
        clock = ops.native.optimizers.adam_clock
        return [clock(self._corrections, self._state["steps"], self.beta1, self.beta2)]

    def update_task(
        self, params: Array, grads: Array, factor: float, part: slice, row: int = 1
    ) -> ops.Task:
        task: ops.Task = ops.native.optimizers.adam(
            params,
            grads,
            self._state["mean"][part],
            self._state["mean_square"][part],
            self._lr,
            self._corrections,
            factor,
            self.beta1,
            self.beta2,
            self.epsilon,
            0.0 if self._decoupled else self.weight_decay,
            self.weight_decay if self._decoupled else 0.0,
            row,
        )
        return task


class AdamW(Adam):
    """Adam whose weight decay does not pass through the moments: p -= lr weight_decay p.

    Parameters are those of `Adam`; weight_decay is 0.01 by default, as in PyTorch.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019).
    """

    _decoupled = True


BY_NAME: dict[str, type[Optimizer]] = {kind.__name__: kind for kind in (SGD, Adam, AdamW)}


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimizer whose `get_config` this is; ValueError for what is none of this library."""
    arguments = dict(config)
    name = arguments.pop("class", None)
    if name not in BY_NAME:
        raise ValueError(f"optimizer: expected one of {sorted(BY_NAME)}, got {name!r}")
    return BY_NAME[name](**arguments)
