"""cnn-core bench: how long a step of training takes here, and each kernel of it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import config, ops
from cnn_core._commands import describe_layer, load_data, print_json
from cnn_core._recipes import Options, build_network, build_trainer
from cnn_core.blocks import AffineBlock, Block
from cnn_core.image_blocks import ConvBlock, ImagesAffineBlock
from cnn_core.network import Sequential
from cnn_core.parts import Parts
from cnn_core.plan import Plan
from cnn_core.segments import NativeSegment
from cnn_core.trainer import Trainer

Array = npt.NDArray[Any]

WARM_UP = 3  # steps or runs that are not counted
RUNS = 4  # of a kernel in a row: some work in place, and their numbers must not vanish
LEAST_ROUNDS = 3
PRODUCTS = ("forward", "dx", "dW")


@dataclass(frozen=True)
class Kernel:
    """One task of a training step.

    layer : what it belongs to. name : what it computes there.
    weights, multiply_adds : of a product or a convolution the shape of W, and how many it takes for
        the whole batch; () and 0 of all else.
    seconds : the shortest of many runs, alone.
    """

    layer: str
    name: str
    weights: tuple[int, ...]
    multiply_adds: int
    seconds: float

    @property
    def gflops(self) -> float:
        return 2e-9 * self.multiply_adds / self.seconds


@dataclass(frozen=True)
class _Names:
    """Of a layer's tasks, by their place in Parts; more tasks than names are numbered."""

    rows: tuple[str, ...]
    before: tuple[str, ...] = ("pack",)
    after: tuple[str, ...] = ("after",)


@dataclass(frozen=True)
class _Owner:
    """What tasks belong to, and the size of the product among them.

    dx_multiply_adds : fewer where a wide padding makes the output larger than the input.
    """

    text: str
    weights: tuple[int, ...] = ()
    multiply_adds: int = 0
    dx_multiply_adds: int = 0


@dataclass(frozen=True)
class _Entry:
    owner: _Owner
    name: str
    product: bool
    task: ops.Task

    @property
    def multiply_adds(self) -> int:
        if not self.product:
            return 0
        return self.owner.dx_multiply_adds if self.name == "dx" else self.owner.multiply_adds


# ----------------------------------------------------------------------------------------- steps


def step_seconds(trainer: Trainer, x: Array, t: Array, batch_size: int, seconds: float) -> float:
    """Seconds per update of Trainer.fit: the median of five runs of `seconds` altogether."""

    def run(steps: int) -> float:
        began = time.perf_counter()
        trainer.fit(
            x,
            t,
            batch_size=batch_size,
            sampling="replacement",
            verbose=False,
            epochs=math.ceil(steps * batch_size / len(x)),
            iterations=steps,
        )
        return (time.perf_counter() - began) / steps

    run(WARM_UP)
    steps = max(1, int(seconds / 5 / run(WARM_UP)))
    return float(np.median([run(steps) for _ in range(5)]))


# --------------------------------------------------------------------------------------- kernels


def kernel_times(
    trainer: Trainer, x: Array, t: Array, batch_size: int, seconds: float
) -> tuple[float, list[Kernel]]:
    """Seconds of one whole step, and its kernels in the order in which they run.

    Every kernel is run alone, by as many threads as are set, with its operands in the cache if
    they fit. Between its runs whole steps put all buffers in order. Ends after about `seconds`.

    Raises
    ------
    ValueError
        If layers in plain Python or a loss in plain Python cut the step into pieces.
    """
    network = trainer.network
    plan = network.plan(batch_size, "labels", training=True, gradient=True)
    if not plan.native:
        raise ValueError("kernels: a step of this network is not one program")
    entries: list[_Entry] = []
    whole = Parts()
    with network.locked():
        for owner, parts, names in _parts(trainer, plan, x, t):
            whole += parts
            entries += _entries(owner, parts, names)
        whole += trainer.update_parts(whole.finished)
        optimizer = _Owner(type(trainer.optimizer).__name__)
        entries += _entries(optimizer, trainer.update_parts(), _Names((), ("clock",)))
        return _time(whole.program().run, entries, seconds)


def _parts(
    trainer: Trainer, plan: Plan, x: Array, t: Array
) -> Iterator[tuple[_Owner, Parts, _Names]]:
    """What a step consists of but for the update."""
    segment = plan.segments[0]
    assert isinstance(segment, NativeSegment)
    yield _Owner("batch"), _gather(plan, x, t), _Names(("gather",))
    for block, parts in segment.forward_blocks(passing=True):
        yield _owner(block, plan.n), parts, _Names(("forward",))
    yield _Owner("loss"), plan.loss_parts(segment.dy), _Names(("rows",), after=("sum",))
    for block, parts in segment.backward_blocks(passing=True):
        yield (
            _owner(block, plan.n),
            parts,
            _Names(_backward_names(block, parts), after=("dW", "db")),
        )


def _backward_names(block: Block, parts: Parts) -> tuple[str, ...]:
    """Of the tasks in `rows`."""
    if isinstance(block, ImagesAffineBlock) and parts.finished:
        return ("dW", "dx", "db") if block.dx is not None else ("dW", "db")
    if isinstance(block, ConvBlock) and parts.reduce:
        return "dW", "dx"
    learns = isinstance(block, (AffineBlock, ConvBlock))
    return ("activation dx",) if learns and not parts.after else ("dx",)


def _gather(plan: Plan, x: Array, t: Array) -> Parts:
    """Rows drawn at random, as floats, and their labels."""
    batches, rng = ops.native.batches, np.random.default_rng(0)
    indices, start = rng.integers(0, len(x), plan.n), np.zeros(1, np.int64)
    scale = 1 / 255 if x.dtype == np.uint8 else 1.0
    assert plan.labels is not None
    labels = batches.gather_labels(t.astype(np.int64), indices, start, plan.labels)
    return Parts(before=[[labels]]) + plan.gather(x, indices, start, scale)


def _owner(block: Block, n: int) -> _Owner:
    """The layer and the activation of a block for n samples."""
    layers = [layer for layer in (block.layer, block.activation) if layer is not None]
    texts = [describe_layer(layer) for layer in dict.fromkeys(layers)]
    text = ", ".join(texts) or type(block).__name__
    if not isinstance(block, (AffineBlock, ConvBlock)):
        return _Owner(text)
    weights = block.layer.params["W"].shape
    taps = n * math.prod(weights)
    places, inputs = math.prod(block.sample_shape[1:]), math.prod(block.x.shape[2:])
    return _Owner(text, weights, taps * places, taps * min(places, inputs))


def _entries(owner: _Owner, parts: Parts, names: _Names) -> Iterator[_Entry]:
    """The tasks with their names."""
    # Of a product in strips the strips are the product, what the rows do is add them.
    rows = [parts.strips]
    for item in parts.rows:
        rows += item if isinstance(item, list) else [[item]]
    groups = (
        (names.before, [*(packing.lane for packing in parts.packing), *parts.before]),
        (names.rows, rows),
        (names.after, parts.after),
        (("sum of parts",), parts.reduce),
        (("update",), [lane for stage in parts.update for lane in stage]),
    )
    for texts, group in groups:
        for number, task in enumerate(task for lane in group for task in lane):
            known = number < len(texts)
            text = texts[number] if known else f"{texts[-1]} {number + 1}"
            yield _Entry(owner, text, bool(owner.weights) and text in PRODUCTS, task)


def _time(
    step: Callable[[], None], entries: list[_Entry], seconds: float
) -> tuple[float, list[Kernel]]:
    programs = [ops.Program([[[entry.task]]]).run for entry in entries]
    best, whole = [math.inf] * len(entries), math.inf
    step()
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        whole = min(whole, _seconds(step))
        for i, program in enumerate(programs):
            program()
            best[i] = min(best[i], *(_seconds(program) for _ in range(RUNS)))
        rounds += 1
    return whole, [
        Kernel(
            entry.owner.text,
            entry.name,
            entry.owner.weights if entry.product else (),
            entry.multiply_adds,
            shortest,
        )
        for entry, shortest in zip(entries, best, strict=True)
    ]


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# --------------------------------------------------------------------------------------- command


def bench(options: Options) -> int:
    """cnn-core bench: the models as `cnn-core train` trains them, on MNIST's training images."""
    (x, t), _ = load_data("mnist")
    everything = [options.threads] if options.threads else sorted({1, ops.get_num_threads()})
    steps, kernels = [], []
    before = ops.get_num_threads()
    print(config.format_config(config.config()) + "\n")
    print(f"{'model':<18} {'batch':>6} {'parameters':>11} {'threads':>8} {'µs per step':>12}")
    try:
        for name in options.models:
            for threads in everything:
                ops.set_num_threads(threads)
                steps.append(_step(options, name, threads, x, t))
        for name in options.models if options.kernels else ():
            ops.set_num_threads(everything[0])
            kernels.append(_kernels(options, name, everything[0], x, t))
    finally:
        ops.set_num_threads(before)
    print_json(
        options,
        {"config": config.config(), "dtype": options.dtype, "steps": steps, "kernels": kernels},
    )
    return 0


def _trainer(options: Options, name: str, input_shape: tuple[int, ...]) -> tuple[Trainer, int]:
    """A model with the optimizer and the batch size of its recipe."""
    own = copy.copy(options)
    own.model = name
    net: Sequential = build_network(own, input_shape, 10)
    return build_trainer(own, net), options.batch_size or own.batch_size


def _step(options: Options, name: str, threads: int, x: Array, t: Array) -> dict[str, Any]:
    trainer, batch = _trainer(options, name, x.shape[1:])
    micros = 1e6 * step_seconds(trainer, x, t, batch, options.seconds)
    n_params = trainer.network.n_params
    print(f"{name:<18} {batch:>6} {n_params:>11,} {threads:>8} {micros:>12,.1f}")
    return {
        "model": name,
        "batch_size": batch,
        "parameters": n_params,
        "threads": threads,
        "microseconds": micros,
    }


def _kernels(options: Options, name: str, threads: int, x: Array, t: Array) -> dict[str, Any]:
    trainer, batch = _trainer(options, name, x.shape[1:])
    whole, kernels = kernel_times(trainer, x, t, batch, options.seconds)
    print(f"\n{name}, batches of {batch}, {threads} thread(s), every kernel alone")
    print(f"{'layer':<34} {'kernel':<14} {'µs':>10} {'GFLOP/s':>9}")
    for kernel in kernels:
        rate = f"{kernel.gflops:>9.1f}" if kernel.multiply_adds else ""
        line = f"{kernel.layer:<34} {kernel.name:<14} {1e6 * kernel.seconds:>10.2f} {rate}"
        print(line.rstrip())
    print(f"{'sum':<49} {1e6 * sum(kernel.seconds for kernel in kernels):>10.2f}")
    print(f"{'whole step':<49} {1e6 * whole:>10.2f}")
    return {
        "model": name,
        "batch_size": batch,
        "threads": threads,
        "step_microseconds": 1e6 * whole,
        "kernels": [
            {"gflops": kernel.gflops if kernel.multiply_adds else None, **asdict(kernel)}
            for kernel in kernels
        ],
    }
