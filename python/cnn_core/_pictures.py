"""Pictures from files as a network's input; Pillow is an extra, imported when one is read."""

from __future__ import annotations

import math
import os
import stat
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Pillow reads many more, some (EPS) by running other programs on the file.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 2**26


def image_size(input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the gray image that a network of this input shape takes."""
    if len(input_shape) == 3 and input_shape[0] == 1:
        return input_shape[1], input_shape[2]
    side = math.isqrt(input_shape[0])
    if len(input_shape) == 1 and side * side == input_shape[0]:
        return side, side
    raise ValueError(
        f"the network's input {input_shape} is no gray image:"
        " expected (1, height, width), or (n,) with a square n"
    )


def read_image(path: str | os.PathLike[str], height: int, width: int) -> Array:
    """A picture as light strokes on a dark ground, the way MNIST stores them.

    Color becomes gray, what is transparent becomes white, the whole is fitted into height x width
    with its proportions kept, and inverted where the ground (the median of the frame) is light.

    Returns
    -------
    (height, width) uint8

    Raises
    ------
    ValueError
        The file is no picture of FORMATS that Pillow can read, or has more than MOST_PIXELS
        pixels.
    OSError
        The file cannot be opened.
    ImportError
        Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(
            "reading pictures needs Pillow, which is not installed: pip install 'cnn-core[images]'"
        ) from error
    if stat.S_ISFIFO(os.stat(path).st_mode):  # before opening: to open a pipe is to wait
        raise ValueError(f"{os.fspath(path)}: expected a file, got a pipe")
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.size} pixels, more than {MOST_PIXELS} in all")
                gray = _to_gray(ImageOps.exif_transpose(image))
        except Exception as error:  # Pillow's readers raise what they like for damaged files
            raise ValueError(f"{os.fspath(path)}: no picture that can be read: {error}") from error
    pixels = np.asarray(gray)
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    ground = int(np.median(np.concatenate(edges)))
    fitted = ImageOps.pad(gray, (width, height), color=ground)
    result = np.asarray(fitted, np.uint8)
    return 255 - result if ground > 127 else result.copy()


def _to_gray(image: Any) -> Any:
    """An image of any mode as one of 8-bit gray."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits per pixel, which convert("L") would only cut off
        wide = np.clip(np.asarray(image), 0, 65535)
        wide //= 257
        return Image.fromarray(wide.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("L", image.size, "white")
        white.paste(image.convert("L"), mask=image.getchannel("A"))
        return white
    return image.convert("L")
