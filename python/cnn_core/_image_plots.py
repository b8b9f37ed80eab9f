"""Pictures of a network's insides and of its mistakes; public by way of plotting.py."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core import metrics
from cnn_core._figures import GRID_COLOR, TEXT_COLOR, finish, new_figure, require_matplotlib
from cnn_core._inputs import dense
from cnn_core._pictures import image_size
from cnn_core.image_layers import Dropout
from cnn_core.layers import Flatten, positive
from cnn_core.network import Sequential

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

_MOSAIC_INCHES = 7.2
_MAP_PIXELS = 56  # the width of a map in a mosaic, or a little more
_MOSAIC_PIXELS = 1600  # of all maps in a row
_FEW_CELLS, _MANY_CELLS = 25, 50  # in a row


def show_filters(
    net: Sequential, name: str = "W1", path: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw the kernels of a convolution, or what each unit of a first affine layer looks for.

    Parameters
    ----------
    net : Sequential
    name : str
        A parameter of shape (F, C, KH, KW): with one channel a square of F pictures, else a row
        per filter and a column per channel. Or one of shape (I, O) with I the number of pixels of
        the network's gray images: O pictures.
    path : path, optional
        Where to write the figure; the extension gives the format (.png, .svg, .pdf).

    Returns
    -------
    matplotlib.figure.Figure
        Red is above 0, blue below.

    Raises
    ------
    ValueError
        No parameter of this name, or it holds no pictures.
    ImportError
        matplotlib is not installed.
    """
    _check_net(net)
    if not isinstance(name, str) or name not in net.params:
        raise ValueError(f"name: no parameter named {name!r}; there are {list(net.params)}")
    weights = net.params[name]
    if weights.ndim == 2 and len(weights) == math.prod(net.input_shape):
        weights = weights.T.reshape(-1, 1, *image_size(net.input_shape))
    if weights.ndim != 4:
        raise ValueError(
            f"{name}: expected kernels (F, C, KH, KW) or weights of gray images, got shape"
            f" {weights.shape}"
        )
    filters, channels, height, width = weights.shape
    columns = channels if channels > 1 else _square_columns(filters, height, width)
    maps = weights.reshape(-1, height, width)
    colors = _colors(maps, signed=True)
    mosaic = _mosaic(maps, columns, colors, apart=True)
    figure = new_figure(*_mosaic_size(mosaic, bar=0.9), "compressed")
    axes = figure.add_subplot()
    axes.imshow(mosaic)
    axes.set_axis_off()
    bar = figure.colorbar(colors, ax=axes, pad=0.03, shrink=0.8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=TEXT_COLOR)
    shape = " x ".join(map(str, net.params[name].shape))
    axes.set_title(f"{name}: {shape}", color=TEXT_COLOR, fontsize=11, parse_math=False)
    return finish(figure, path)


def show_misclassified(
    net: Sequential,
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    limit: int = 40,
) -> Figure:
    """Draw the images that a network takes for another class, the surest mistakes first.

    Parameters
    ----------
    net : Sequential of gray images, (1, H, W) or flat, or of color images (3, H, W)
    x : (N, *input_shape) images, t : (N,) labels or (N, C) one-hot rows
    path : path, optional
        Where to write the figure; the extension gives the format (.png, .svg, .pdf).
    limit : int
        How many at most, default 40. Those are drawn of which the score of the predicted class is
        farthest above that of the true one.

    Returns
    -------
    matplotlib.figure.Figure
        Above each image: true class, arrow, predicted class.

    Raises
    ------
    ValueError
        The network takes no images or has one output only; x and t do not fit.
    ImportError
        matplotlib is not installed.
    """
    _check_net(net)
    limit = positive("limit", limit)
    images = _as_pictures(net, dense(net.check_rows(x)))
    scores = net.predict(x).reshape(len(images), -1)
    t = checks.to_array("t", t)
    if scores.shape[1] < 2:
        raise ValueError("net: expected 2 or more outputs, one per class, got 1")
    if t.ndim == 1:
        truth = checks.as_labels("t", t, *scores.shape)
    else:
        truth = checks.as_target_rows("t", t, scores.shape, np.float64).argmax(axis=1)
    wrong = len(images) - round(metrics.accuracy(scores, truth) * len(images))
    predicted, rows = scores.argmax(axis=1), np.arange(len(images))
    margins = scores[rows, predicted] - scores[rows, truth]
    chosen = [row for row in np.argsort(-margins, kind="stable") if predicted[row] != truth[row]]
    figure = new_figure(7.2, 0.8 + 0.95 * max(-(-min(limit, wrong) // 8), 1), "constrained")
    for place, row in enumerate(chosen[:limit]):
        axes = figure.add_subplot(-(-min(limit, wrong) // 8), 8, place + 1)
        axes.imshow(images[row], cmap="gray_r")
        axes.set_title(f"{truth[row]} → {predicted[row]}", color=TEXT_COLOR, fontsize=9, pad=3)
        axes.set_axis_off()
    of = f"{wrong:,} of {len(images):,} images are misclassified"
    more = f", the {limit} surest of them" if wrong > limit else ""
    note = f"{of} (true → predicted){more}" if wrong else f"none of {len(images):,} misclassified"
    figure.suptitle(note, color=TEXT_COLOR, fontsize=11)
    return finish(figure, path)


def show_activations(
    net: Sequential, x: npt.ArrayLike, path: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw what every layer makes of one image, in inference mode.

    Parameters
    ----------
    net : Sequential
    x : one sample, of shape input_shape or (1, *input_shape)
    path : path, optional
        Where to write the figure; the extension gives the format (.png, .svg, .pdf).

    Returns
    -------
    matplotlib.figure.Figure
        The input and a panel per layer, all but Flatten and Dropout: outputs (C, H, W) as C maps,
        outputs (O,) as a strip of cells. Each panel has its own scale: white to black, or where
        there are negative values blue, white at 0, red.

    Raises
    ------
    ValueError
        x is not one sample.
    ImportError
        matplotlib is not installed.
    """
    _check_net(net)
    panels = _panels(net, x)
    mosaics = [
        _mosaic(maps, _strip_columns(maps), _colors(maps, bool((maps < 0).any())))
        for _, maps in panels
    ]
    heights = [0.35 + _MOSAIC_INCHES * min(len(m) / m.shape[1], 0.6) for m in mosaics]
    figure = new_figure(_MOSAIC_INCHES + 0.4, sum(heights), "constrained")
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for row, ((name, maps), mosaic) in enumerate(zip(panels, mosaics, strict=True)):
        axes = figure.add_subplot(grid[row])
        axes.imshow(mosaic)
        axes.set_axis_off()
        axes.set_anchor("W")
        cells = maps[0].size == 1
        if cells and len(maps) <= _FEW_CELLS:
            _number_cells(axes, mosaic, len(maps))
        size = " x ".join(map(str, maps.shape[:1] if cells else maps.shape))
        axes.set_title(f"{name}: {size}", loc="left", color=TEXT_COLOR, fontsize=9, pad=3)
    return finish(figure, path)


def _check_net(net: Sequential) -> None:
    if not isinstance(net, Sequential):
        raise TypeError(f"net: expected a Sequential, got {net!r}")


def _as_pictures(net: Sequential, x: Array) -> Array:
    """Rows as gray (N, H, W), or as color (N, H, W, 3) between 0 and 1."""
    shape = net.input_shape
    if len(shape) == 3 and shape[0] == 3:
        low, high = float(x.min()), float(x.max())
        colored: Array = (x.transpose(0, 2, 3, 1) - low) / (high - low or 1.0)
        return colored
    return x.reshape(len(x), *image_size(shape))


def _panels(net: Sequential, x: npt.ArrayLike) -> list[tuple[str, Array]]:
    """Name and maps (n, H, W) of the input and of every layer that computes something."""
    array = checks.to_array("x", x)
    if array.size != math.prod(net.input_shape):
        raise ValueError(f"x: expected one sample of shape {net.input_shape}, got {array.shape}")
    array = dense(net.check_input(array.reshape(1, *net.input_shape)))
    scale = net.input_scale if array.dtype == np.uint8 else 1.0
    value = np.multiply(array, scale, dtype=net.dtype)
    first = value[0]
    if first.ndim == 1 and math.isqrt(first.size) ** 2 == first.size:
        first = first.reshape(1, *image_size(first.shape))
    panels = [("input", _maps(first))]
    with net.locked():
        for layer in net.layers:
            value = np.asarray(layer.forward(value, False))
            if not isinstance(layer, (Dropout, Flatten)):
                panels.append((type(layer).__name__, _maps(value[0])))
    return panels


def _maps(sample: Array) -> Array:
    """One sample (C, H, W) as C maps; what has other axes as maps of one pixel."""
    return sample if sample.ndim == 3 else sample.reshape(-1, 1, 1)


def _colors(maps: Array, signed: bool) -> ScalarMappable:
    """White to black, or blue below 0, white, and red above it."""
    require_matplotlib()
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    most = float(np.abs(maps[np.isfinite(maps)]).max(initial=0.0)) or 1.0
    colors = ScalarMappable(
        Normalize(-most if signed else 0.0, most), "RdBu_r" if signed else "gray_r"
    )
    return colors


def _mosaic(maps: Array, columns: int, colors: ScalarMappable, apart: bool = False) -> Array:
    """Maps (n, H, W) in rows of `columns` as colors (.., .., 3), white where there is no map.

    apart: white space between the maps instead of thin gray lines. Cells of one pixel have neither.
    """
    from matplotlib.colors import to_rgb

    gap, times = 0, 1
    if maps[0].size > 1:  # pixels become squares of several, so that a line is thinner than they
        width = min(_MAP_PIXELS, _MOSAIC_PIXELS // columns)
        times = -(-width // max(maps.shape[1:]))
        gap = max(1, width // (7 if apart else 28))
    n, height, width = len(maps), maps.shape[1] * times, maps.shape[2] * times
    rows = -(-n // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    mosaic = np.ones(shape, np.float32)
    for index, one in enumerate(maps):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        if not apart:
            mosaic[top : top + height + gap, left : left + width + gap] = to_rgb(GRID_COLOR)
        painted = np.asarray(colors.cmap(colors.norm(one)), np.float32)[..., :3]
        large = painted.repeat(times, axis=0).repeat(times, axis=1)
        mosaic[top : top + height, left : left + width] = large
    return mosaic


def _square_columns(n: int, height: int, width: int) -> int:
    """Columns for a mosaic a little wider than high."""
    return min(n, math.ceil(1.2 * math.sqrt(n * (height + 1) / (width + 1))))


def _strip_columns(maps: Array) -> int:
    """Columns for a panel as wide as the page: small maps in one row, many in several."""
    if maps[0].size == 1:
        return _FEW_CELLS if len(maps) <= _FEW_CELLS else _MANY_CELLS
    return max(min(len(maps), 16), 4)


def _mosaic_size(mosaic: Array, bar: float) -> tuple[float, float]:
    """Width and height in inches: the longer side as long as a page is wide."""
    height, width = mosaic.shape[:2]
    scale = _MOSAIC_INCHES / max(height, width)
    return max(scale * width, 2.0) + bar, max(scale * height, 1.2) + 0.5


def _number_cells(axes: Axes, mosaic: Array, n: int) -> None:
    for cell in range(n):
        dark = mosaic[0, cell].mean() < 0.5
        color = "white" if dark else TEXT_COLOR
        axes.text(cell, 0, str(cell), ha="center", va="center", fontsize=8, color=color)
