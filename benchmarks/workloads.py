"""The workloads, each defined once for all libraries, and the ratios that they should reach.

A training workload is a network (layers by name and size), a batch size and the way its batches are
drawn: at random from 60,000 rows of MNIST, as the books do. Inference is that of three of these
networks.
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

    @property
    def fully_connected(self) -> bool:
        return len(self.input_shape) == 1


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
        Workload(
            "W5",
            "grokking_conv_net",
            (("conv", 16, 3, 0), ("tanh",), ("flatten",), ("dropout", 0.5), ("affine", 10)),
            128,
            (1, 28, 28),
            0.01,
        ),
        Workload(
            "W6",
            "simple_conv_net",
            (
                ("conv", 30, 5, 0),
                ("relu",),
                ("pool", 2),
                ("flatten",),
                ("affine", 100),
                ("relu",),
                ("affine", 10),
            ),
            100,
            (1, 28, 28),
            0.01,
        ),
        Workload(
            "W7",
            "lenet5",
            (
                ("conv", 6, 5, 2),
                ("relu",),
                ("pool", 2),
                ("conv", 16, 5, 0),
                ("relu",),
                ("pool", 2),
                ("flatten",),
                ("affine", 120),
                ("relu",),
                ("affine", 84),
                ("relu",),
                ("affine", 10),
            ),
            100,
            (1, 28, 28),
            0.01,
        ),
        Workload(
            "W8",
            "deep_conv_net",
            (
                ("conv", 16, 3, 1),
                ("relu",),
                ("conv", 16, 3, 1),
                ("relu",),
                ("pool", 2),
                ("conv", 32, 3, 1),
                ("relu",),
                ("conv", 32, 3, 2),
                ("relu",),
                ("pool", 2),
                ("conv", 64, 3, 1),
                ("relu",),
                ("conv", 64, 3, 1),
                ("relu",),
                ("pool", 2),
                ("flatten",),
                ("affine", 50),
                ("relu",),
                ("dropout", 0.5),
                ("affine", 10),
                ("dropout", 0.5),
            ),
            100,
            (1, 28, 28),
            0.01,
        ),
    )
}

#: of inference, by workload: title, many rows
INFERENCE = {"W1": ("784-50-10", 10_000), "W7": ("lenet5", 10_000), "W8": ("deep_conv_net", 2_000)}

#: kernels by themselves: a square product, a 3x3 convolution of an image with as many filters as
#: channels; its rows of A or its batch
LARGE = {
    "1,024-square product": ("product", 1024),
    "4,096-square product": ("product", 4096),
    "64-channel 56x56 convolution, 16 images": ("convolution", 16),
}
CONVOLUTION = (64, 56)  # channels, height and width

# Wanted: ratios to the fastest other library of the same run, 2 threads, AVX-512.
TRAINING_BARS = {
    "W1": 2.5,
    "W2": 2.5,
    "W3": 2.0,
    "W4": 5.0,
    "W5": 4.0,
    "W6": 4.0,
    "W7": 3.0,
    "W8": 1.5,
}
AVX2_BARS = {"W1": 1.5, "W5": 2.5, "W8": 1.0}
FLOAT64_BARS = {"W1": 2.0, "W8": 1.5}  # to PyTorch alone
ONE_ROW_BARS = {"W1": 2.0, "W7": 1.3, "W8": 1.0}
MANY_ROWS_BARS = {"W1": 2.0, "W7": 3.0, "W8": 1.0}
GRADIENT_BAR = 100.0  # to the loop in NumPy
TO_99_BAR = 4.0  # to the same network and recipe in PyTorch
SECONDS_TO_99_BAR = 15.0
IMPORT_BAR = 60.0  # ms over NumPy's own
MEMORY_BAR = 350.0  # MB of `cnn-core train`
LARGE_BAR = 0.85
WIDE_KERNEL_BAR, NARROW_KERNEL_BAR = 0.60, 0.25  # of the measured multiply-add peak, 1 thread
