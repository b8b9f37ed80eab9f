"""The arguments of convolution and pooling: windows, strides, padding, shapes of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cnn_core._checks import MOST_PIXELS, check_sizes, is_several, whole

Shape = tuple[int, ...]
Border = tuple[int, int, int, int]
Padding = int | Sequence[int] | Literal["valid", "same"]
NO_BORDER: Border = (0, 0, 0, 0)


def pixels(name: str, value: Any, least: int, expected: str) -> int:
    """`value` as a number of pixels."""
    return whole(name, value, least, expected, MOST_PIXELS)


def pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """(vertical, horizontal) from one integer or two."""
    expected = f"an integer >= {least} or a pair of them"
    values = list(value) if isinstance(value, (tuple, list)) else [value, value]
    if len(values) != 2:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return pixels(name, values[0], least, expected), pixels(name, values[1], least, expected)


def check_padding(padding: Padding) -> Literal["same"] | Border:
    """Padding as "same" or (top, bottom, left, right)."""
    expected = "1, 2 or 4 integers >= 0, 'valid' or 'same'"
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding: expected {expected}, got {padding!r}")
        return "same" if padding == "same" else NO_BORDER
    values = list(padding) if isinstance(padding, (tuple, list)) else [padding]
    numbers = [pixels("padding", v, 0, expected) for v in values]
    if len(numbers) == 1:
        numbers *= 4
    elif len(numbers) == 2:
        numbers = [numbers[0], numbers[0], numbers[1], numbers[1]]
    elif len(numbers) != 4:
        raise ValueError(f"padding: expected {expected}, got {padding!r}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after an axis so that ceil(size / stride) outputs come of it."""
    reach = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def check_image_shape(shape: Any) -> Shape:
    if not is_several(shape) or len(shape) != 4:
        raise ValueError(f"input_shape: expected (N, C, H, W), got {shape!r}")
    return check_sizes("input_shape", tuple(shape))


def pool_window(
    size: Any, stride: Any, padding: Any
) -> tuple[tuple[int, int], tuple[int, int], Border]:
    sizes = pair("size", size)
    if isinstance(padding, str):
        raise ValueError(f"padding: expected 1, 2 or 4 integers >= 0, got {padding!r}")
    border: Any = check_padding(padding)
    return sizes, sizes if stride is None else pair("stride", stride), border
