"""Gradients by central differences, and their comparison with back-propagation.

    dL/dp = (L(p + h) - L(p - h)) / 2h

for every parameter p: perturb, evaluate the loss, restore. A changed weight changes one column of
one layer only, so the compiled form computes what follows from that column on, in parallel over
the parameters. Saito, Deep Learning from Scratch, sections 4.3 to 4.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import ops
from cnn_core._checks import finite, is_masked
from cnn_core.blocks import AffineBlock
from cnn_core.layers import Layer
from cnn_core.ops.sparse import Batch
from cnn_core.parts import flat
from cnn_core.plan import Plan

Array = npt.NDArray[Any]

#: multiply-adds of one compiled call, some 10 ms: between two of them Ctrl-C is heard
WORK_AT_ONCE = 3e7


def numerical_gradient(f: Callable[[Array], float], x: Array, h: float = 1e-4) -> Array:
    """The gradient of f(x), a number, by every element of the float array x.

    x is changed in place while f is evaluated and is as before afterwards, even if f raises.
    """
    if not callable(f):
        raise TypeError(f"f: expected a function of x, got {f!r}")
    if not isinstance(x, np.ndarray) or is_masked(x) or x.dtype.kind != "f":
        raise TypeError(f"x: expected a floating-point ndarray, got {type(x).__name__}")
    if not x.flags.writeable:
        raise ValueError("x: expected a writeable array")
    h = check_step(h)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index].copy()
        try:
            x[index] = kept + h
            above = float(f(x))
            x[index] = kept - h
            below = float(f(x))
        finally:
            x[index] = kept
        gradient[index] = (above - below) / (2 * h)
    return gradient


def check_step(h: float) -> float:
    number = finite("h", h)
    if number <= 0:
        raise ValueError(f"h: expected a finite number > 0, got {h}")
    return number


def numerical_gradients(
    plan: Plan, owners: dict[str, tuple[Layer, str]], h: float
) -> dict[str, Array]:
    """The gradient of a plan's loss by every parameter; its inputs and targets are filled.

    owners : name of a parameter to its layer and its name there.

    Where a parameter's layer and all behind it are affine layers, activations and a compiled
    loss of rows without weights, the compiled form is used, in float64 whatever the network's
    dtype. Elsewhere the layers from the parameter's own on are run again for each of its elements.
    """
    h = check_step(h)
    plan.evaluate()
    gradients: dict[str, Array] = {}
    for layer in dict.fromkeys(layer for layer, _ in owners.values()):
        names = {key: name for name, (owner, key) in owners.items() if owner is layer}
        chain = _chain(plan, layer)
        if chain is not None:
            for key, gradient in _compiled(plan, chain, h).items():
                gradients[names[key]] = gradient.astype(plan.x.dtype)
            continue
        rerun = plan.rerun_from(layer)
        for key, name in names.items():
            gradients[name] = numerical_gradient(lambda _, f=rerun: f(), layer.params[key], h)  # type: ignore[misc]
        rerun()
    return {name: gradients[name] for name in owners}


def _chain(plan: Plan, layer: Layer) -> list[AffineBlock] | None:
    """The affine blocks from `layer` to the loss, if there is nothing else between them."""
    blocks = plan.blocks_from(layer)
    unweighted = plan.loss.native and plan.weights is None
    if blocks and unweighted and all(isinstance(block, AffineBlock) for block in blocks):
        return blocks  # type: ignore[return-value]
    return None


def _compiled(plan: Plan, blocks: list[AffineBlock], h: float) -> dict[str, Array]:
    inputs: Any = blocks[0].x
    layers = []
    if isinstance(inputs, Batch):
        inputs = inputs.converted(np.dtype(np.float64))
        ops.run(ops.native.sparse.transpose(inputs))
    else:
        inputs = np.asarray(flat(inputs), np.float64)
    x = inputs if isinstance(inputs, Batch) else _columns(inputs)
    for block in blocks:
        W = np.ascontiguousarray(block.layer.params["W"], np.float64)
        b = np.ascontiguousarray(block.layer.params["b"], np.float64)
        z = np.empty((plan.n, W.shape[1]))
        kernels: Any = ops.native.sparse if isinstance(inputs, Batch) else ops.native.affine
        ops.run(kernels.forward(inputs, W, b, z))
        activation = block.activation.activation if block.activation else None
        inputs = ops.activation_forward(z, activation, block.slope)
        layers.append((W, b, _columns(z), _columns(inputs), block.code, block.slope))
    target = None if plan.target is None else _columns(flat(plan.target))
    chain = ops.native.gradient_check.Chain(
        layers,
        x,
        ops.LOSSES[str(plan.loss.native)],
        plan.labels,
        target,
        plan.loss.scales(plan.y.shape)[0],
        h,
    )
    dW, db = np.empty(layers[0][0].shape), np.empty(layers[0][1].shape)
    ones = np.ones((1, plan.n))
    at_once = max(1, int(WORK_AT_ONCE / chain.work))
    for begin in range(0, dW.size, at_once):
        ops.run(chain.weights(dW, begin, min(begin + at_once, dW.size)))
    for begin in range(0, db.size, at_once):
        ops.run(chain.biases(db, ones, begin, min(begin + at_once, db.size)))
    return {"W": dW, "b": db}


def _columns(rows: Array) -> Array:
    return np.ascontiguousarray(rows.T, np.float64)
