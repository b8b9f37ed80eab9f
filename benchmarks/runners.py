"""One runner per library: builds a workload's network and trains it for a number of steps.

Each is written in its library's own idiom. `steps(n)` makes n updates from batches drawn at random
with replacement and returns when the last is done.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from workloads import Workload


class Runner(Protocol):
    def steps(self, n: int) -> None: ...


class CnnCore:
    """Trainer.fit on float32 rows."""

    def __init__(self, workload: Workload, x: Any, t: Any, dtype: str, threads: int) -> None:
        import cnn_core as cc

        cc.set_num_threads(threads)
        make = {
            "affine": lambda units: cc.Affine(units, cc.Normal(0.01)),
            "sigmoid": cc.Sigmoid,
            "tanh": cc.Tanh,
            "relu": cc.ReLU,
            "conv": lambda filters, size, padding: cc.Conv2D(filters, size, padding=padding),
            "pool": cc.MaxPool2D,
            "flatten": cc.Flatten,
            "dropout": cc.Dropout,
        }
        layers = [make[str(name)](*arguments) for name, *arguments in workload.layers]
        net = cc.Sequential(layers, input_shape=workload.input_shape, dtype=dtype)
        self.trainer = cc.Trainer(net, cc.SGD(lr=workload.lr))
        self.x, self.t, self.batch = x, t, workload.batch

    def steps(self, n: int) -> None:
        per_epoch = math.ceil(len(self.x) / self.batch)
        self.trainer.fit(
            self.x,
            self.t,
            batch_size=self.batch,
            sampling="replacement",
            verbose=False,
            epochs=math.ceil(n / per_epoch),
            iterations=n,
        )


class PyTorch:
    """Eager: a Sequential, torch.optim.SGD, batches by index from tensors."""

    def __init__(self, workload: Workload, x: Any, t: Any, dtype: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch = torch
        nn = torch.nn
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
        self.net = nn.Sequential(*layers).to(getattr(torch, dtype))
        self.x = torch.from_numpy(x).reshape(len(x), *workload.input_shape)
        self.t = torch.from_numpy(t.astype(np.int64))
        self.net(self.x[:1])  # the lazy layers learn their sizes
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=workload.lr)
        self.loss = torch.nn.CrossEntropyLoss()
        self.batch = workload.batch

    def steps(self, n: int) -> None:
        torch = self.torch
        rows = torch.randint(len(self.x), (n, self.batch))
        for index in rows:
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.net(self.x[index]), self.t[index]).backward()
            self.optimizer.step()


RUNNERS = {"cnn-core": CnnCore, "PyTorch": PyTorch}
