"""Figures of a training run, a classifier and its insides, for files and notebooks; no display.

matplotlib is an extra, imported when a figure is drawn. Figures are made without `pyplot`, so they
neither join its list of open figures nor depend on the backend that the user has chosen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cnn_core._checks import to_array
from cnn_core._figures import GRID_COLOR, TEXT_COLOR
from cnn_core._figures import finish as _finish
from cnn_core._figures import new_figure as _new_figure
from cnn_core._image_plots import show_activations, show_filters, show_misclassified

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "plot_confusion_matrix",
    "plot_history",
    "show_activations",
    "show_filters",
    "show_misclassified",
]

# Blue and vermilion of Okabe and Ito's palette: told apart with every kind of color vision.
_TRAIN_COLOR = "#0072B2"
_VALIDATION_COLOR = "#D55E00"
_MAX_ANNOTATED_CLASSES = 20
_MAX_MARKED_EPOCHS = 40


def plot_history(
    history: Mapping[str, Sequence[float]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw the loss and the accuracy of a training run against the epochs.

    Parameters
    ----------
    history : dict of lists, as `Trainer.fit` returns it
        `"loss"`, `"accuracy"`, `"val_loss"`, `"val_accuracy"`: one value per epoch, all of the same
        length. Accuracies are fractions from 0 to 1 and are drawn in percent. Any of the four may
        be missing or empty; a quantity of which neither is there gets no panel. Other keys are not
        drawn. A NaN leaves a gap.
    path : path, optional
        Where to write the figure; the extension gives the format (.png, .svg, .pdf).
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Nothing to draw, or lists of different lengths.
    ImportError
        matplotlib is not installed.
    """
    curves = _check_history(history)
    panels = [name for name in ("loss", "accuracy") if name in curves or f"val_{name}" in curves]
    figure = _new_figure(4.8 * len(panels), 3.6, "constrained")
    for column, name in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), column + 1)
        _draw_curves(axes, name, curves.get(name), curves.get(f"val_{name}"))
    if title is not None:
        figure.suptitle(title, color=TEXT_COLOR, fontsize=13, parse_math=False)
    return _finish(figure, path)


def plot_confusion_matrix(
    matrix: npt.ArrayLike,
    path: str | os.PathLike[str] | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draw a confusion matrix: counts in the cells, shaded by the share of the true class (row).

    Parameters
    ----------
    matrix : (C, C) array of counts, true classes in rows
        As `cnn_core.metrics.confusion_matrix` returns it.
    path : path, optional
        Where to write the figure; the extension gives the format (.png, .svg, .pdf).
    class_names : C strings, optional
        Default: the numbers of the classes, from 0.

    Returns
    -------
    matplotlib.figure.Figure
        With more than 20 classes the cells carry no numbers.

    Raises
    ------
    ValueError
        The matrix is not square, is empty, or has an element that is negative or not finite; or
        `class_names` has another length.
    ImportError
        matplotlib is not installed.
    """
    counts = _check_matrix(matrix)
    n = len(counts)
    names = [str(name) for name in (range(n) if class_names is None else class_names)]
    if len(names) != n:
        raise ValueError(f"class_names must have {n} names, one per class, got {len(names)}")
    totals = counts.sum(axis=1, keepdims=True, dtype=np.float64)
    # A class without samples has no shares: its row stays white.
    shares = np.divide(100.0 * counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = 2.4 + 0.42 * min(max(n, 5), _MAX_ANNOTATED_CLASSES)
    figure = _new_figure(side + 0.7, side, "compressed")
    axes = figure.add_subplot()
    _draw_cells(figure, axes, counts, shares)
    _label_classes(axes, names)
    if totals.sum() > 0:
        right = f"{counts.trace() / totals.sum():.2%} of {totals.sum():,.10g} samples are right"
        axes.set_title(right, color=TEXT_COLOR, fontsize=11)
    return _finish(figure, path)


def _check_history(history: Mapping[str, Sequence[float]]) -> dict[str, npt.NDArray[np.float64]]:
    if not isinstance(history, Mapping):
        raise TypeError(f"history must be a dict of lists, got {history!r}")
    curves: dict[str, npt.NDArray[np.float64]] = {}
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        values = to_array(f"history[{name!r}]", history.get(name, ()))
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            got = f"shape {values.shape} of {values.dtype}"
            raise ValueError(f"history[{name!r}] must be a list of numbers, got {got}")
        if values.size:
            curves[name] = values.astype(np.float64)
    if not curves:
        raise ValueError(
            "history must have values for one of loss, accuracy, val_loss, val_accuracy, "
            f"got the keys {sorted(history)}"
        )
    first = next(iter(curves))
    for name, values in curves.items():
        if values.size != curves[first].size:
            raise ValueError(
                f"history[{name!r}] must have one value per epoch like history[{first!r}], "
                f"{curves[first].size}, got {values.size}"
            )
    return curves


def _check_matrix(matrix: npt.ArrayLike) -> npt.NDArray[Any]:
    counts = to_array("matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"matrix must be square (classes, classes), got shape {counts.shape}")
    if counts.dtype.kind not in "iuf":
        raise TypeError(f"matrix must hold integer or real counts, got dtype {counts.dtype}")
    if not np.isfinite(counts).all() or counts.min() < 0:
        raise ValueError(
            "matrix must hold finite counts of 0 or more, got a negative, infinite or NaN one"
        )
    return counts


def _draw_curves(
    axes: Axes,
    name: str,
    train: npt.NDArray[np.float64] | None,
    validation: npt.NDArray[np.float64] | None,
) -> None:
    from matplotlib.ticker import MaxNLocator

    scale, unit = (100.0, "%") if name == "accuracy" else (1.0, "")
    styles = (
        ("training", train, _TRAIN_COLOR, "-", "o"),
        ("validation", validation, _VALIDATION_COLOR, "--", "s"),
    )
    for label, values, color, line, marker in styles:
        if values is None:
            continue
        last = f"{scale * values[-1]:.4g}{unit}"
        axes.plot(
            np.arange(1, values.size + 1),
            scale * values,
            color=color,
            linestyle=line,
            linewidth=1.8,
            marker=marker if values.size <= _MAX_MARKED_EPOCHS else "",
            markersize=4,
            label=f"{label} (last: {last})",
        )
    axes.set_xlabel("epoch", color=TEXT_COLOR)
    axes.set_ylabel("accuracy (%)" if unit else "loss", color=TEXT_COLOR)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=TEXT_COLOR)
    axes.legend(frameon=False, labelcolor=TEXT_COLOR, fontsize=9)


def _draw_cells(
    figure: Figure, axes: Axes, counts: npt.NDArray[Any], shares: npt.NDArray[np.float64]
) -> None:
    from matplotlib.colors import PowerNorm

    # The root spreads out the small shares: an error of 1% stays visible beside a diagonal of 98%.
    norm = PowerNorm(0.5, vmin=0.0, vmax=100.0)
    image = axes.imshow(shares, cmap="Blues", norm=norm)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1, 5, 10, 25, 50, 100], pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label("share of the true class (%)", color=TEXT_COLOR)
    bar.ax.tick_params(colors=TEXT_COLOR)
    if len(counts) > _MAX_ANNOTATED_CLASSES:
        return
    is_integer = counts.dtype.kind != "f"
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(
                column,
                row,
                str(count) if is_integer else f"{count:.3g}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if norm(shares[row, column]) > 0.6 else TEXT_COLOR,
            )


def _label_classes(axes: Axes, names: list[str]) -> None:
    n = len(names)
    ticks = range(0, n, -(-n // _MAX_ANNOTATED_CLASSES))
    shown = [names[tick] for tick in ticks]
    is_long = max(map(len, shown)) > 3
    axes.set_xticks(
        ticks,
        shown,
        rotation=45 if is_long else 0,
        ha="right" if is_long else "center",
        parse_math=False,
    )
    axes.set_yticks(ticks, shown, parse_math=False)
    axes.set_xlabel("predicted class", color=TEXT_COLOR)
    axes.set_ylabel("true class", color=TEXT_COLOR)
    axes.tick_params(colors=TEXT_COLOR, length=0)
    if n <= _MAX_ANNOTATED_CLASSES:
        axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#eeeeee", linewidth=0.8)
        axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
