"""What `cnn-core train` does, in PyTorch: the same network, recipe and data.

python benchmarks/train_pytorch.py FOLDER SEED THREADS      FOLDER: as run.py makes it
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

EPOCHS, BATCH, LR, WARM_UP = 3, 100, 0.006, 0.1


def network() -> nn.Module:
    """models.quick_conv_net."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1152, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    for layer in net:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


def factor(done: float) -> float:
    """Of the learning rate when this share of the training is done: schedules.CosineDecay."""
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def main() -> None:
    folder, seed, threads = sys.argv[1:]
    torch.manual_seed(int(seed))
    torch.set_num_threads(int(threads))

    def images(name: str) -> torch.Tensor:
        array = np.load(Path(folder) / f"{name}.npy")
        return torch.from_numpy(array).reshape(-1, 1, 28, 28).float() / 255

    def labels(name: str) -> torch.Tensor:
        return torch.from_numpy(np.load(Path(folder) / f"{name}.npy").astype(np.int64))

    x, t, x_test, t_test = images("x"), labels("t"), images("x_test"), labels("t_test")
    net, loss = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    steps = EPOCHS * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor((step + 1) / steps))
    for _ in range(EPOCHS):
        net.train()
        for index in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss(net(x[index]), t[index]).backward()
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.inference_mode():  # cnn-core, too, shows the test's figures after each epoch
            right = sum(
                int((net(part).argmax(1) == target).sum())
                for part, target in zip(x_test.split(500), t_test.split(500), strict=True)
            )
    print(json.dumps({"test_accuracy": right / len(x_test)}))


if __name__ == "__main__":
    main()
