"""Optimizers: compiled updates over the flat array of all parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import numpy as np

from cnn_core import ops
from cnn_core._checks import as_dict
from cnn_core._optimizer import Array, Optimizer, Options, Part, above_zero, rate, share


class SGD(Optimizer):
    """p -= lr g, with g = grad + weight_decay p, or with momentum the velocity in its place.

    v = momentum v + g; p -= lr (g + momentum v if nesterov else v), as in PyTorch.

    Parameters
    ----------
    lr : learning rate, >= 0.
    momentum : 0..1, default 0.
    nesterov : look ahead along the velocity; needs momentum.
    weight_decay : factor of the L2 penalty's gradient, by default 0; see SGDW.
    lr_multipliers, decay_biases, clip_norm, clip_value : see `Optimizer`.
    """

    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        usual = 0.01 if self._decoupled else 0.0
        super().__init__(lr, usual if weight_decay is None else weight_decay, **options)
        self.momentum = rate("momentum", momentum, 1.0)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs momentum > 0, got momentum=0")

    def new_state(self, params: Array) -> dict[str, Array]:
        return {"velocity": np.zeros_like(params)} if self.momentum else {}

    def update_task(self, params: Array, grads: Array, part: Part) -> ops.Task:
        # Without a velocity both decays are the same, and the step that of `product_update_task`.
        decoupled = self._decoupled and self.momentum > 0
        task: ops.Task = ops.native.optimizers.sgd(
            params,
            grads,
            self._state["velocity"][part.where] if self.momentum else None,
            self._lr,
            part.factor,
            self.momentum,
            self.nesterov,
            0.0 if decoupled else part.weight_decay,
            part.weight_decay if decoupled else 0.0,
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


class SGDW(SGD):
    """SGD whose weight decay does not pass through the velocity: p -= lr (weight_decay p + v).

    Parameters are those of `SGD`; weight_decay is 0.01 by default, as of `AdamW`.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019).
    """

    _decoupled = True


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
        self.epsilon = above_zero("epsilon", epsilon)
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
        self.decay_rate = share("decay_rate", decay_rate)
        self.momentum = rate("momentum", momentum, 1.0)
        self.epsilon = above_zero("epsilon", epsilon)

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
        self.beta1, self.beta2 = share("beta1", beta1), share("beta2", beta2)
        self.epsilon = above_zero("epsilon", epsilon)
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
    kind.__name__: kind for kind in (SGD, SGDW, AdaGrad, RMSprop, Adam, AdamW)
}


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """The optimizer whose `get_config` this is; ValueError for what is none of this library."""
    arguments = as_dict("optimizer", config)
    name = arguments.pop("class", None)
    if not isinstance(name, str) or name not in BY_NAME:
        raise ValueError(f"optimizer: expected one of {sorted(BY_NAME)}, got {name!r}")
    return BY_NAME[name](**arguments)
