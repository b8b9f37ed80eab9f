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
        layers: list[Any] = []
        size = workload.input_shape[0]
        for name, *arguments in workload.layers:
            if name == "affine":
                layers.append(torch.nn.Linear(size, arguments[0]))
                size = arguments[0]
            else:
                kinds = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "ReLU"}
                layers.append(getattr(torch.nn, kinds[str(name)])())
        self.net = torch.nn.Sequential(*layers).to(getattr(torch, dtype))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=workload.lr)
        self.loss = torch.nn.CrossEntropyLoss()
        self.x, self.t = torch.from_numpy(x), torch.from_numpy(t.astype(np.int64))
        self.batch = workload.batch

    def steps(self, n: int) -> None:
        torch = self.torch
        rows = torch.randint(len(self.x), (n, self.batch))
        for index in rows:
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(self.net(self.x[index]), self.t[index]).backward()
            self.optimizer.step()


RUNNERS = {"cnn-core": CnnCore, "PyTorch": PyTorch}
