"""The training workloads, each defined once for all libraries.

A workload is a network (layers by name and size), a batch size and the way its batches are drawn:
at random from 60,000 rows of MNIST, as the books do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """Layers are (name, *arguments): ("affine", 50), ("sigmoid",), ..."""

    name: str
    title: str
    layers: tuple[tuple[object, ...], ...]
    batch: int
    input_shape: tuple[int, ...] = (784,)
    lr: float = 0.1


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", "784-50-10, sigmoid", (("affine", 50), ("sigmoid",), ("affine", 10)), 100),
        Workload("W2", "784-50-10, ReLU", (("affine", 50), ("relu",), ("affine", 10)), 100),
        Workload(
            "W3",
            "784-300-100-10, ReLU",
            (("affine", 300), ("relu",), ("affine", 100), ("relu",), ("affine", 10)),
            200,
        ),
        Workload(
            "W4",
            "784-300-100-10, ReLU, one row",
            (("affine", 300), ("relu",), ("affine", 100), ("relu",), ("affine", 10)),
            1,
            lr=0.01,
        ),
    )
}
