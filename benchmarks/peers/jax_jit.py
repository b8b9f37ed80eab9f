"""JAX: one jitted step that gathers the batch, differentiates, and updates donated parameters."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from peers import Timed, fastest, predictions
from workloads import Workload

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def shape_of(workload: Workload) -> tuple[int, ...]:
    """Of a sample, channels last."""
    shape = workload.input_shape
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def parameters(workload: Workload, dtype: str) -> list[Any]:
    """Weights and bias for each layer, an empty tuple where it has none."""
    rng, shape, result = np.random.default_rng(0), shape_of(workload), []
    for name, *arguments in workload.layers:
        weights: tuple[int, ...] | None = None
        if name == "conv":
            filters, size, padding = arguments
            weights = (size, size, shape[-1], filters)
            shape = (*(side + 2 * padding - size + 1 for side in shape[:2]), filters)
        elif name == "affine":
            weights = (shape[0], arguments[0])
            shape = (arguments[0],)
        elif name == "pool":
            shape = (shape[0] // arguments[0], shape[1] // arguments[0], shape[2])
        elif name == "flatten":
            shape = (math.prod(shape),)
        if weights is None:
            result.append(())
            continue
        W = rng.normal(0, math.sqrt(2 / math.prod(weights[:-1])), weights)
        result.append((jnp.asarray(W, dtype), jnp.zeros(weights[-1], dtype)))
    return result


def max_pool(x: Any, size: int) -> Any:
    """Windows side by side: up to three times as fast as lax.reduce_window and its gradient."""
    n, height, width, channels = x.shape
    windows = x.reshape(n, height // size, size, width // size, size, channels)
    return windows.max((2, 4))


def forward(workload: Workload, params: list[Any], x: Any, key: Any = None) -> Any:
    """Scores; a key makes it training."""
    for i, ((name, *arguments), p) in enumerate(zip(workload.layers, params, strict=True)):
        if name == "affine":
            x = x @ p[0] + p[1]
        elif name == "conv":
            padding = [(arguments[2], arguments[2])] * 2
            x = lax.conv_general_dilated(x, p[0], (1, 1), padding, dimension_numbers=CHANNELS_LAST)
            x = x + p[1]
        elif name == "pool":
            x = max_pool(x, arguments[0])
        elif name == "flatten":
            x = x.reshape(len(x), -1)
        elif name == "dropout" and key is not None:
            kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - arguments[0], x.shape)
            x = jnp.where(kept, x / (1 - arguments[0]), 0)
        elif name != "dropout":
            x = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}[name](x)
    return x


class Jax:
    packages = ("jax", "jaxlib")

    def __init__(self, threads: int) -> None:
        # Threads are as many as the processors that this process may use.
        jax.config.update("jax_platforms", "cpu")

    def training(self, workload: Workload, x: Any, t: Any, dtype: str) -> Timed:
        jax.config.update("jax_enable_x64", dtype == "float64")
        rows = jnp.asarray(x.reshape(len(x), *shape_of(workload)))
        labels, key = jnp.asarray(t, jnp.int32), jax.random.key(0)

        def loss(params: Any, x: Any, t: Any, key: Any) -> Any:
            logs = jax.nn.log_softmax(forward(workload, params, x, key))
            return -jnp.mean(jnp.take_along_axis(logs, t[:, None], 1))

        def step(params: Any, rows: Any, labels: Any, index: Any, i: Any) -> Any:
            grads = jax.grad(loss)(params, rows[index], labels[index], jax.random.fold_in(key, i))
            return jax.tree.map(lambda p, g: p - workload.lr * g, params, grads)

        compiled = jax.jit(step, donate_argnums=0)
        state, rng = [parameters(workload, dtype)], np.random.default_rng(0)

        def run(n: int) -> None:
            params = state[0]
            for i, index in enumerate(
                rng.integers(0, len(rows), (n, workload.batch), dtype=np.int32)
            ):
                params = compiled(params, rows, labels, index, i)
            state[0] = jax.block_until_ready(params)

        return Timed(run)

    def inference(self, workload: Workload, x: Any, dtype: str) -> Timed:
        jax.config.update("jax_enable_x64", dtype == "float64")
        params = parameters(workload, dtype)
        compiled = jax.jit(lambda params, x: forward(workload, params, x))
        rows = x.reshape(len(x), *shape_of(workload))
        return fastest(predictions(lambda part: compiled(params, part).block_until_ready(), rows))
