"""PyTorch: a Sequential and torch.optim.SGD, batches by index from tensors; eager and compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

# The compiler would keep a pool of processes, which are not idle between two turns.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import numpy as np
import torch
from torch import nn

from peers import Timed, fastest, images, matrices, predictions, repeat
from workloads import Workload

LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}


def network(workload: Workload, x: torch.Tensor, layout: torch.memory_format) -> nn.Module:
    make = {
        "affine": nn.LazyLinear,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "conv": lambda filters, size, padding: nn.LazyConv2d(filters, size, padding=padding),
        "pool": nn.MaxPool2d,
        "flatten": nn.Flatten,
        "dropout": nn.Dropout,
    }
    layers = [make[str(name)](*arguments) for name, *arguments in workload.layers]
    net = nn.Sequential(*layers).to(x.dtype)
    net(x[:1])  # the lazy layers learn their sizes
    return net.to(memory_format=layout)


class Eager:
    packages = ("torch",)
    layouts: ClassVar = LAYOUTS

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def layouts_for(self, workload: Workload) -> dict[str, torch.memory_format]:
        return {"": torch.contiguous_format} if workload.fully_connected else self.layouts

    def training(self, workload: Workload, x: Any, t: Any, dtype: str) -> Timed:
        rows = torch.from_numpy(x).reshape(len(x), *workload.input_shape)
        labels = torch.from_numpy(t.astype(np.int64))

        def steps(layout: torch.memory_format) -> Callable[[int], None]:
            net, loss = network(workload, rows, layout), nn.CrossEntropyLoss()
            optimizer = torch.optim.SGD(net.parameters(), lr=workload.lr)
            loss_of = self.compiled(lambda x, t: loss(net(x), t))

            def run(n: int) -> None:
                for index in torch.randint(len(rows), (n, workload.batch)):
                    optimizer.zero_grad(set_to_none=True)
                    loss_of(rows[index], labels[index]).backward()
                    optimizer.step()

            return run

        return fastest({name: steps(layout) for name, layout in self.layouts_for(workload).items()})

    def inference(self, workload: Workload, x: Any, dtype: str) -> Timed:
        rows = torch.from_numpy(x).reshape(len(x), *workload.input_shape)
        candidates = {}
        for name, layout in self.layouts_for(workload).items():
            net = self.compiled(network(workload, rows, layout).eval())
            for setting, run in predictions(net, rows).items():
                candidates[f"{name} {setting}".strip()] = torch.inference_mode()(run)
        return fastest(candidates)

    def product(self, n: int) -> Timed:
        x, W, out = map(torch.from_numpy, matrices(n))
        return Timed(repeat(lambda: torch.mm(x, W, out=out)))

    def convolution(self, n: int) -> Timed:
        x, W, b = map(torch.from_numpy, images(n))

        def of(layout: torch.memory_format) -> Callable[[int], None]:
            images, weights = (array.to(memory_format=layout) for array in (x, W))
            run = repeat(lambda: nn.functional.conv2d(images, weights, b, padding=1))
            return torch.inference_mode()(run)

        return fastest({name: of(layout) for name, layout in LAYOUTS.items()})


class Compiled(Eager):
    """torch.compile of the network and its loss, for the shapes at hand; it chooses layouts."""

    layouts: ClassVar = {"": torch.contiguous_format}

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        torch._dynamo.reset()
        return torch.compile(function, dynamic=False)
