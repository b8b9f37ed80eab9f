"""Figures: what is drawn, what is written, and that neither needs a display nor touches pyplot."""

import os
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from cnn_core import plotting
from cnn_core.plotting import plot_confusion_matrix, plot_history

HISTORY = {
    "loss": [2.0, 1.0, 0.5],
    "accuracy": [0.3, 0.7, 0.9],
    "val_loss": [2.1, 1.2, 0.8],
    "val_accuracy": [0.25, 0.65, 0.85],
    "seconds": [1.0, 1.0, 1.0],
}
FORMULA = "$\\frac{$"  # not valid as mathematics: drawing it as such would fail
MATRIX = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])


def labels_of(figure):
    return [axes.get_ylabel() for axes in figure.axes]


def texts_of(axes):
    return {text.get_position(): text.get_text() for text in axes.texts}


class TestHistory:
    def test_values(self):
        figure = plot_history(HISTORY)
        assert isinstance(figure, Figure)
        assert labels_of(figure) == ["loss", "accuracy (%)"]
        keys = [("loss", "val_loss", 1), ("accuracy", "val_accuracy", 100)]
        for axes, (train, validation, scale) in zip(figure.axes, keys, strict=True):
            assert axes.get_xlabel() == "epoch"
            assert len(axes.lines) == 2
            for line, key in zip(axes.lines, (train, validation), strict=True):
                assert line.get_xdata().tolist() == [1, 2, 3]
                assert line.get_ydata() == pytest.approx(np.multiply(HISTORY[key], scale))

    def test_curves_differ_by_more_than_color(self):
        first, second = plot_history(HISTORY).axes[0].lines
        assert first.get_color() != second.get_color()
        assert first.get_linestyle() != second.get_linestyle()
        assert first.get_marker() != second.get_marker()

    def test_legend(self):
        loss, accuracy = plot_history(HISTORY).axes
        legend = [text.get_text() for text in loss.get_legend().get_texts()]
        assert legend == ["training (last: 0.5)", "validation (last: 0.8)"]
        legend = [text.get_text() for text in accuracy.get_legend().get_texts()]
        assert legend == ["training (last: 90%)", "validation (last: 85%)"]

    @pytest.mark.parametrize(
        ("keys", "panels", "lines"),
        [
            (["loss"], ["loss"], [1]),
            (["loss", "accuracy"], ["loss", "accuracy (%)"], [1, 1]),
            (["val_accuracy"], ["accuracy (%)"], [1]),
            (["loss", "val_accuracy"], ["loss", "accuracy (%)"], [1, 1]),
            (["loss", "val_loss"], ["loss"], [2]),
        ],
    )
    def test_missing_keys(self, keys, panels, lines):
        history = {key: HISTORY[key] for key in keys}
        empty = {key: [] for key in HISTORY if key not in keys}
        for given in (history, history | empty):
            figure = plot_history(given)
            assert labels_of(figure) == panels
            assert [len(axes.lines) for axes in figure.axes] == lines

    def test_nothing_to_draw(self):
        for history in ({}, {"seconds": [1.0]}, {"loss": []}):
            with pytest.raises(ValueError, match=r"history must have values .*, got the keys \["):
                plot_history(history)

    def test_lengths(self):
        message = r"history\['val_loss'\] must have one value per epoch .* 2, got 1"
        with pytest.raises(ValueError, match=message):
            plot_history({"loss": [1.0, 2.0], "val_loss": [1.0]})

    def test_rank(self):
        with pytest.raises(ValueError, match=r"history\['loss'\] must be a list .* \(1, 2\)"):
            plot_history({"loss": [[1.0, 2.0]]})

    @pytest.mark.parametrize("n", [1, 2, 500])
    def test_number_of_epochs(self, tmp_path, n):
        path = tmp_path / "curves.png"
        axes = plot_history({"loss": np.linspace(2, 1, n)}, path).axes[0]
        ticks = axes.get_xticks()
        assert np.array_equal(ticks, np.round(ticks))  # no epoch 1.5
        assert path.stat().st_size > 0

    def test_diverged_run(self, tmp_path):
        path = tmp_path / "curves.png"
        nan, inf = float("nan"), float("inf")
        plot_history({"loss": [1.0, inf, nan], "val_loss": [nan, nan, nan]}, path)
        assert path.stat().st_size > 0

    def test_title_is_plain_text(self, tmp_path):
        figure = plot_history(HISTORY, tmp_path / "a.png", title=FORMULA)
        assert figure.get_suptitle() == FORMULA
        assert plot_history(HISTORY).get_suptitle() == ""

    def test_history_is_not_changed(self):
        history = {key: list(values) for key, values in HISTORY.items()}
        plot_history(history)
        assert history == HISTORY


class TestConfusionMatrix:
    def test_cells(self):
        figure = plot_confusion_matrix(MATRIX)
        axes = figure.axes[0]
        # x is the column (predicted), y the row (true); zeros are left blank.
        assert texts_of(axes) == {(0, 0): "8", (1, 0): "2", (0, 1): "1", (1, 1): "9"}
        shares = axes.images[0].get_array()
        assert shares.tolist() == [[80, 20, 0], [10, 90, 0], [0, 0, 0]]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
        assert figure.axes[1].get_ylabel() == "share of the true class (%)"
        assert axes.get_title() == "85.00% of 20 samples are right"

    def test_names(self, tmp_path):
        names = ["ankle boot", FORMULA, "_coat"]
        figure = plot_confusion_matrix(MATRIX, tmp_path / "a.png", class_names=names)
        axes = figure.axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == names
        assert [label.get_text() for label in axes.get_yticklabels()] == names
        default = plot_confusion_matrix(MATRIX).axes[0]
        assert [label.get_text() for label in default.get_xticklabels()] == ["0", "1", "2"]

    def test_text_is_readable_on_its_cell(self):
        axes = plot_confusion_matrix(MATRIX).axes[0]
        colors = {text.get_text(): text.get_color() for text in axes.texts}
        assert colors["9"] == "white"
        assert colors["1"] != "white"

    @pytest.mark.parametrize(("n", "texts"), [(1, 1), (20, 20), (21, 0), (150, 0)])
    def test_number_of_classes(self, tmp_path, n, texts):
        path = tmp_path / "matrix.png"
        axes = plot_confusion_matrix(np.eye(n, dtype=int), path).axes[0]
        assert len(axes.texts) == texts
        assert 1 <= len(axes.get_xticks()) <= 20
        assert path.stat().st_size > 0

    def test_shares_and_empty_matrix(self, tmp_path):
        axes = plot_confusion_matrix([[0.25, 0.5], [0.0, 0.25]]).axes[0]
        assert sorted(texts_of(axes).values()) == ["0.25", "0.25", "0.5"]
        axes = plot_confusion_matrix(np.zeros((2, 2), int), tmp_path / "a.png").axes[0]
        assert axes.get_title() == ""

    def test_large_counts_of_small_types(self):
        # 100 * 200 and 200 + 200 do not fit into uint8.
        axes = plot_confusion_matrix(np.array([[200, 200], [0, 200]], np.uint8)).axes[0]
        assert axes.images[0].get_array().tolist() == [[50, 50], [0, 100]]
        assert axes.get_title() == "66.67% of 600 samples are right"

    @pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 0), (2, 2, 2)])
    def test_shape(self, shape):
        with pytest.raises(ValueError, match="matrix must be square"):
            plot_confusion_matrix(np.zeros(shape))

    @pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
    def test_values(self, bad):
        with pytest.raises(ValueError, match="matrix must hold finite counts of 0 or more"):
            plot_confusion_matrix([[1.0, bad], [0.0, 1.0]])

    @pytest.mark.parametrize("dtype", [complex, str, object])
    def test_type(self, dtype):
        with pytest.raises(TypeError, match="matrix must hold integer or real counts"):
            plot_confusion_matrix(MATRIX.astype(dtype))

    def test_number_of_names(self):
        with pytest.raises(ValueError, match=r"class_names must have 3 names, .* got 2"):
            plot_confusion_matrix(MATRIX, class_names=["a", "b"])


def draw_history(path):
    return plot_history(HISTORY, path)


def draw_matrix(path):
    return plot_confusion_matrix(MATRIX, path)


both = pytest.mark.parametrize("draw", [draw_history, draw_matrix])


@both
class TestFiles:
    def test_png(self, tmp_path, draw):
        figure = draw(tmp_path / "a.png")
        pixels = matplotlib.image.imread(tmp_path / "a.png")
        assert figure.dpi == 150  # so that a notebook shows what the file shows
        width, height = figure.get_size_inches() * 150
        assert pixels.shape[:2] == (int(height), int(width))
        assert pixels.std() > 0.05  # something is drawn
        assert np.array_equal(pixels[0, 0, :3], [1, 1, 1])

    @pytest.mark.parametrize(("end", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
    def test_extension_gives_the_format(self, tmp_path, draw, end, start):
        draw(str(tmp_path / f"a.{end}"))
        assert (tmp_path / f"a.{end}").read_bytes().startswith(start)

    def test_no_path_writes_nothing(self, tmp_path, monkeypatch, draw):
        monkeypatch.chdir(tmp_path)
        draw(None)
        assert list(tmp_path.iterdir()) == []

    def test_without_matplotlib(self, monkeypatch, draw):
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"pip install 'cnn-core\[plot\]'"):
            draw(None)


ALONE = """
import sys
import cnn_core as cc
from cnn_core import plotting
assert "matplotlib" not in sys.modules, "imported before it is needed"
plotting.plot_history({"loss": [2.0, 1.0]}, sys.argv[1])
plotting.plot_confusion_matrix([[1, 0], [0, 1]], sys.argv[2])
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules, "pyplot keeps figures alive and picks a backend"
"""


def test_no_display_and_no_pyplot(tmp_path):
    # A backend with windows is asked for and there is no display: neither may matter.
    environment = {key: value for key, value in os.environ.items() if "DISPLAY" not in key}
    environment["MPLBACKEND"] = "TkAgg"
    files = [tmp_path / "history.png", tmp_path / "matrix.png"]
    command = [sys.executable, "-W", "error", "-c", ALONE, *map(str, files)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert all(file.stat().st_size > 0 for file in files)


def test_errors_come_before_matplotlib(monkeypatch):
    monkeypatch.setattr(plotting, "_new_figure", None)
    with pytest.raises(ValueError, match="history"):
        plot_history({})
    with pytest.raises(ValueError, match="matrix"):
        plot_confusion_matrix([[1, 2]])
