"""What all optimizers have: their arguments, their state, and the tasks that update a network."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypedDict

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


def share(name: str, value: float) -> float:
    number = rate(name, value, 1.0)
    if number == 1:
        raise ValueError(f"{name}: expected a number below 1, got {value!r}")
    return number


def above_zero(name: str, value: float) -> float:
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
        self.clip_norm = None if clip_norm is None else above_zero("clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else above_zero("clip_value", clip_value)
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
