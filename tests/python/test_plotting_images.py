"""Pictures of filters, mistakes and activations: what is drawn, and what is refused."""

import subprocess
import sys

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

import cnn_core as cc
from cnn_core.plotting import show_activations, show_filters, show_misclassified

GRAY = matplotlib.colors.to_rgb("#dddddd")


def conv_net(channels=1, **arguments):
    layers = [cc.Conv2D(5, 3), cc.BatchNorm(), cc.ReLU(), cc.MaxPool2D(2), cc.Conv2D(4, 2)]
    layers += [cc.Tanh(), cc.Flatten(), cc.Dropout(0.5), cc.Affine(30), cc.ReLU(), cc.Affine(3)]
    return cc.Sequential(layers, input_shape=(channels, 8, 10), **arguments)


def picture_of(axes):
    return np.asarray(axes.images[0].get_array())


def maps_in(picture, n, times, gap, columns, shape):
    """The colors of each map's pixels, read from a mosaic of squares of `times` pixels."""
    height, width = shape[0] * times, shape[1] * times
    found = []
    for index in range(n):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        one = picture[top : top + height, left : left + width]
        assert one.shape[:2] == (height, width)
        squares = one.reshape(shape[0], times, shape[1], times, 3)
        assert (squares == squares[:, :1, :, :1]).all()
        found.append(squares[:, 0, :, 0])
    return np.stack(found)


def assert_signs(colors, values, most):
    """Red above 0, blue below, the deeper the larger."""
    normal = matplotlib.colors.Normalize(-most, most)
    expected = matplotlib.colormaps["RdBu_r"](normal(values))[..., :3]
    np.testing.assert_allclose(colors, expected, atol=1e-6)
    strong = np.abs(values) > 0.5 * most
    assert strong.any()
    red, _, blue = np.moveaxis(colors, -1, 0)
    assert ((red > blue) == (values > 0))[strong].all()


class TestFilters:
    def test_one_channel_is_a_square_of_pictures(self):
        net = cc.Sequential([cc.Conv2D(6, 4), cc.Flatten(), cc.Affine(2)], input_shape=(1, 9, 9))
        figure = show_filters(net, "W1")
        weights = net.params["W1"][:, 0]
        picture = picture_of(figure.axes[0])
        # 6 pictures in rows of 3, each pixel a square of 14, 8 between them.
        assert picture.shape == (2 * 56 + 8, 3 * 56 + 2 * 8, 3)
        assert_signs(maps_in(picture, 6, 14, 8, 3, (4, 4)), weights, np.abs(weights).max())
        assert (picture[:, 56:64] == 1).all() and (picture[56:64] == 1).all()
        assert figure.axes[0].get_title() == "W1: 6 x 1 x 4 x 4"
        low, high = figure.axes[1].get_ylim()
        assert -low == high == pytest.approx(np.abs(weights).max())

    def test_more_channels_are_a_row_per_filter(self):
        net = conv_net()
        weights = net.params["W3"]
        assert weights.shape == (4, 5, 2, 2)
        picture = picture_of(show_filters(net, "W3").axes[0])
        assert picture.shape[0] < picture.shape[1]
        found = maps_in(picture, 20, 28, 8, 5, (2, 2)).reshape(4, 5, 2, 2, 3)
        assert_signs(found, weights, np.abs(weights).max())

    @pytest.mark.parametrize("shape", [(16,), (1, 4, 4)])
    def test_the_units_of_a_first_affine_layer_are_pictures(self, shape):
        flatten = [cc.Flatten()] if len(shape) == 3 else []
        net = cc.Sequential([*flatten, cc.Affine(5), cc.Affine(2)], input_shape=shape)
        picture = picture_of(show_filters(net).axes[0])
        found = maps_in(picture, 5, 14, 8, 3, (4, 4))
        weights = net.params["W1"].T.reshape(5, 4, 4)
        assert_signs(found, weights, np.abs(weights).max())
        assert (picture[64:, 2 * 64 :] == 1).all()  # where no map is left

    def test_many_and_equal_weights_can_be_drawn(self, tmp_path):
        net = cc.Sequential([cc.Conv2D(64, 3)], input_shape=(64, 5, 5))
        net.params["W1"][...] = 0
        figure = show_filters(net, "W1", tmp_path / "a.png")
        assert max(picture_of(figure.axes[0]).shape) < 3000
        assert max(figure.get_size_inches()) < 12

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_diverged_net_can_be_drawn(self, tmp_path, bad):
        net = conv_net()
        net.params["W1"][0, 0, 0] = bad
        show_filters(net, "W1", tmp_path / "a.png")
        show_activations(net, np.ones((1, 8, 10)), tmp_path / "b.png")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("W9", r"name: no parameter named 'W9'; there are \['W1', 'b1'"),
            ("W5", r"W5: expected kernels .* got shape \(30, 3\)"),
            ("b1", r"b1: expected kernels .* got shape \(5,\)"),
        ],
    )
    def test_what_holds_no_pictures_is_refused(self, name, message):
        with pytest.raises(ValueError, match=message):
            show_filters(conv_net(), name)


class Shown(cc.Layer):
    """Scores that stand in the first pixels of the image."""

    def output_shape(self, input_shape):
        return (3,)

    def forward(self, x, training=False):
        return x.reshape(len(x), -1)[:, :3]

    def backward(self, dout):
        return dout


def mistakes(shape=(1, 4, 4)):
    """Eight images of which numbers 1, 3 and 6 are taken for another class, 6 the surest."""
    net = cc.Sequential([Shown()], input_shape=shape)
    t = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    x = np.random.default_rng(0).random((8, 16)).astype(np.float32)
    x[:, :3] = np.eye(3)[[0, 2, 2, 1, 1, 2, 2, 1]]
    x[1] *= 2
    x[6] *= 3
    return net, x.reshape(8, *shape), t


class TestMisclassified:
    @pytest.mark.parametrize("shape", [(1, 4, 4), (16,)])
    @pytest.mark.parametrize("one_hot", [False, True])
    def test_the_surest_mistakes_come_first(self, shape, one_hot):
        net, x, t = mistakes(shape)
        figure = show_misclassified(net, x, np.eye(3)[t] if one_hot else t)
        assert [axes.get_title() for axes in figure.axes] == ["0 → 2", "1 → 2", "0 → 1"]
        for axes, row in zip(figure.axes, (6, 1, 3), strict=True):
            assert np.array_equal(picture_of(axes), x[row].reshape(4, 4))
        title = figure.get_suptitle()
        assert title == "3 of 8 images are misclassified (true → predicted)"

    def test_the_limit(self):
        net, x, t = mistakes()
        figure = show_misclassified(net, x, t, limit=2)
        assert [axes.get_title() for axes in figure.axes] == ["0 → 2", "1 → 2"]
        assert figure.get_suptitle().endswith("(true → predicted), the 2 surest of them")

    def test_no_mistakes(self, tmp_path):
        net, x, t = mistakes()
        right = np.flatnonzero(net.predict(x).argmax(axis=1) == t)
        figure = show_misclassified(net, x[right], t[right], tmp_path / "a.png")
        assert not figure.axes and figure.get_suptitle() == "none of 5 misclassified"
        assert (tmp_path / "a.png").stat().st_size > 0

    def test_bytes_and_many_rows(self):
        net, x, t = mistakes()
        x = np.round(np.repeat(x, 100, axis=0) / 3 * 255).astype(np.uint8)
        figure = show_misclassified(net, x, np.repeat(t, 100))
        assert len(figure.axes) == 40
        assert figure.get_suptitle().startswith("300 of 800 images")
        assert {axes.get_title() for axes in figure.axes} == {"0 → 2"}
        height = figure.get_size_inches()[1]
        assert 5 < height < 7

    def test_color_images(self):
        net = cc.Sequential([Shown()], input_shape=(3, 2, 2))
        x = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
        t = (net.predict(x).argmax(axis=1) + 1) % 3
        figure = show_misclassified(net, x, t)
        pictures = np.stack([picture_of(axes) for axes in figure.axes])
        assert pictures.shape == (4, 2, 2, 3)
        assert pictures.min() == 0 and pictures.max() == 1

    def test_what_does_not_fit_is_refused(self):
        net, x, t = mistakes()
        with pytest.raises(ValueError, match="limit: expected an integer >= 1, got 0"):
            show_misclassified(net, x, t, limit=0)
        with pytest.raises(ValueError, match=r"t: expected shape \(8,\), got \(7,\)"):
            show_misclassified(net, x, t[1:])
        with pytest.raises(ValueError, match=r"t: expected integers in 0\.\.2, got 9"):
            show_misclassified(net, x, np.full(8, 9))
        with pytest.raises(ValueError, match=r"input \(2, 4, 4\) is no gray image"):
            show_misclassified(cc.Sequential([Shown()], input_shape=(2, 4, 4)), np.ones((2, 32)), t)
        with pytest.raises(ValueError, match="net: expected 2 or more outputs"):
            one = cc.Sequential([cc.Affine(1)], input_shape=(16,))
            show_misclassified(one, x.reshape(8, 16), t)


class TestActivations:
    def test_a_panel_per_layer_that_computes(self):
        net = conv_net()
        figure = show_activations(net, np.random.default_rng(0).random((1, 8, 10)))
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "input: 1 x 8 x 10",
            "Conv2D: 5 x 6 x 8",
            "BatchNorm: 5 x 6 x 8",
            "ReLU: 5 x 6 x 8",
            "MaxPool2D: 5 x 3 x 4",
            "Conv2D: 4 x 2 x 3",
            "Tanh: 4 x 2 x 3",
            "Affine: 30",
            "ReLU: 30",
            "Affine: 3",
        ]

    def test_the_maps_are_those_of_the_layers_in_inference(self):
        net = conv_net(dtype="float64")
        net.state["running_mean2"][...] = np.linspace(-1, 1, 5)
        x = np.random.default_rng(0).random((1, 8, 10))
        figure = show_activations(net, x)
        upto = cc.Sequential([cc.Conv2D(5, 3), cc.BatchNorm()], input_shape=(1, 8, 10), dtype="f8")
        for name in upto.params:
            upto.params[name] = net.params[name]
        upto.state["running_mean2"][...] = net.state["running_mean2"]
        expected = upto.forward(x[np.newaxis])[0]
        picture = picture_of(figure.axes[2])
        assert_signs(maps_in(picture, 5, 7, 2, 5, (6, 8)), expected, np.abs(expected).max())
        np.testing.assert_allclose(picture[:, 56:58], np.broadcast_to(GRAY, (42, 2, 3)), atol=1e-6)
        relu = maps_in(picture_of(figure.axes[3]), 5, 7, 2, 5, (6, 8))
        assert (relu[expected <= 0] == 1).all()  # white
        largest = np.unravel_index(expected.argmax(), expected.shape)
        assert (relu[largest] == 0).all()  # black

    def test_the_last_cells_are_numbered(self):
        figure = show_activations(conv_net(), np.ones((1, 8, 10)))
        assert [text.get_text() for text in figure.axes[-1].texts] == ["0", "1", "2"]
        assert not figure.axes[-2].texts
        assert picture_of(figure.axes[-1]).shape == (1, 25, 3)
        assert picture_of(figure.axes[-2]).shape == (1, 50, 3)

    def test_shapes_and_bytes(self):
        net = conv_net()
        x = np.random.default_rng(0).integers(0, 256, (8, 10)).astype(np.uint8)
        pictures = [
            [picture_of(axes) for axes in show_activations(net, one).axes]
            for one in (x, x[np.newaxis], x[np.newaxis, np.newaxis], x.reshape(-1), x / 255)
        ]
        for other in pictures[1:]:
            for one, two in zip(pictures[0], other, strict=True):
                np.testing.assert_allclose(one, two, atol=0.02)

    def test_flat_inputs(self):
        net = cc.models.two_layer_net(16, 7, 3)
        titles = [a.get_title(loc="left") for a in show_activations(net, np.ones(16)).axes]
        assert titles == ["input: 1 x 4 x 4", "Affine: 7", "ReLU: 7", "Affine: 3"]
        net = cc.models.two_layer_net(15, 7, 3)
        titles = [a.get_title(loc="left") for a in show_activations(net, np.ones(15)).axes]
        assert titles[0] == "input: 15"

    def test_the_net_is_not_changed(self):
        net = conv_net()
        before = net.flat_params.copy(), {k: v.copy() for k, v in net.state.items()}
        x = np.random.default_rng(0).random((4, 1, 8, 10))
        scores = net.predict(x)
        show_activations(net, x[0])
        show_filters(net)
        show_misclassified(cc.models.two_layer_net(4, 3, 2), np.ones((3, 4)), [0, 1, 0])
        assert np.array_equal(net.flat_params, before[0])
        assert all(np.array_equal(net.state[k], v) for k, v in before[1].items())
        assert np.array_equal(net.predict(x), scores)

    @pytest.mark.parametrize("shape", [(2, 1, 8, 10), (7,), (0, 8, 10)])
    def test_one_sample_only(self, shape):
        with pytest.raises(ValueError, match=r"x: expected one sample of shape \(1, 8, 10\), got"):
            show_activations(conv_net(), np.ones(shape))


def draw_filters(path):
    return show_filters(conv_net(), "W1", path)


def draw_mistakes(path):
    return show_misclassified(*mistakes(), path)


def draw_activations(path):
    return show_activations(conv_net(), np.ones((1, 8, 10)), path)


@pytest.mark.parametrize("draw", [draw_filters, draw_mistakes, draw_activations])
class TestFiles:
    def test_png(self, tmp_path, draw):
        figure = draw(tmp_path / "a.png")
        assert isinstance(figure, Figure)
        pixels = matplotlib.image.imread(tmp_path / "a.png")
        width, height = figure.get_size_inches() * 150
        assert pixels.shape[:2] == (int(height), int(width))
        assert pixels[..., :3].std() > 0.02  # something is drawn
        assert np.array_equal(pixels[-1, -1, :3], [1, 1, 1])

    def test_no_path_writes_nothing(self, tmp_path, monkeypatch, draw):
        monkeypatch.chdir(tmp_path)
        draw(None)
        assert list(tmp_path.iterdir()) == []

    def test_without_matplotlib(self, monkeypatch, draw):
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"pip install 'cnn-core\[plot\]'"):
            draw(None)


@pytest.mark.parametrize("show", [show_filters, show_misclassified, show_activations])
def test_what_is_no_network_is_refused(show):
    arguments = {show_filters: [], show_misclassified: [[], []], show_activations: [[]]}
    with pytest.raises(TypeError, match="net: expected a Sequential, got 3"):
        show(3, *arguments[show])


ALONE = """
import sys
import numpy as np
import cnn_core as cc
net = cc.models.two_layer_net(16, 5, 3)
assert "matplotlib" not in sys.modules, "imported before it is needed"
cc.plotting.show_filters(net, "W1", sys.argv[1])
cc.plotting.show_misclassified(net, np.eye(16), np.arange(16) % 3, sys.argv[1])
cc.plotting.show_activations(net, np.ones(16), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules, "pyplot keeps figures alive and picks a backend"
"""


def test_no_pyplot(tmp_path):
    command = [sys.executable, "-W", "error", "-c", ALONE, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
