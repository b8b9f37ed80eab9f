"""What all figures have in common. matplotlib is imported when a figure is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT_COLOR = "#333333"
GRID_COLOR = "#dddddd"
DPI = 150


def require_matplotlib() -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "plotting needs matplotlib, which is not installed: pip install 'cnn-core[plot]'"
        ) from error


def new_figure(width: float, height: float, layout: Literal["constrained", "compressed"]) -> Figure:
    """Return an empty figure of `width` x `height` inches on its own off-screen canvas."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        figure.savefig(path if hasattr(path, "write") else os.fspath(path), dpi=DPI)
    return figure
