"""Model files: round trips, and what a save leaves behind. Files that lie: the next file."""

import errno
import json
import os
import stat
import struct

import numpy as np
import pytest

import cnn_core as cc
from cnn_core import image_layers, initializers, layers, losses
from cnn_core.serialization import load_model, save_model
from reference import same_bits

by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def small_net(dtype="float32", seed=0):
    stack = [cc.Affine(5), cc.ReLU(), cc.Affine(3)]
    return cc.Sequential(stack, input_shape=(4,), dtype=dtype, seed=seed)


def read_header(data):
    """The header of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size])


def assert_same_net(loaded, net):
    assert loaded.get_config() == net.get_config()
    assert list(loaded.params) == list(net.params) and loaded.dtype == net.dtype
    for name, value in net.params.items():
        assert same_bits(loaded.params[name], value), name
        assert np.shares_memory(loaded.params[name], loaded.flat_params)
    assert list(loaded.state) == list(net.state)
    for name, value in net.state.items():
        assert same_bits(loaded.state[name], value), name


# ---- round trips ---------------------------------------------------------------------------------


LAYER_EXAMPLES = {
    "Affine": lambda: cc.Affine(6, cc.Normal(0.3), cc.Uniform(-1, 1)),
    "Sigmoid": cc.Sigmoid,
    "Tanh": cc.Tanh,
    "ReLU": cc.ReLU,
    "LeakyReLU": lambda: cc.LeakyReLU(0.2),
    "Softmax": cc.Softmax,
    "Flatten": cc.Flatten,
    "Conv2D": lambda: cc.Conv2D(
        6, (3, 2), (1, 2), (2, 1, 0, 1), (1, 2), 2, cc.Uniform(-1, 1), cc.Normal(0.3)
    ),
    "MaxPool2D": lambda: cc.MaxPool2D((3, 2), 1, (1, 0)),
    "AvgPool2D": lambda: cc.AvgPool2D(2, (1, 2)),
    "GlobalAvgPool2D": cc.GlobalAvgPool2D,
    "Dropout": lambda: cc.Dropout(0.3),
    "BatchNorm": lambda: cc.BatchNorm(0.2, 1e-3),
}
KINDS = layers.BY_NAME | image_layers.BY_NAME


@by_dtype
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_comes_back(kind, dtype, tmp_path):
    before = [] if kind in image_layers.BY_NAME else [cc.Flatten()]
    stack = [*before, LAYER_EXAMPLES[kind](), cc.Flatten(), cc.Affine(3)]
    net = cc.Sequential(stack, input_shape=(2, 3, 2), dtype=dtype, seed=7, input_scale=0.5)
    net.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert_same_net(loaded, net)
    for x in (
        np.random.default_rng(0).standard_normal((700, 2, 3, 2)),
        np.arange(24, dtype=np.uint8).reshape(2, 2, 3, 2),
    ):
        assert same_bits(loaded.predict(x), net.predict(x))


@by_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", losses.BY_NAME)
def test_every_loss_comes_back(kind, reduction, dtype, tmp_path):
    loss = losses.BY_NAME[kind](reduction)
    net = cc.Sequential([cc.Affine(3)], input_shape=(4,), loss=loss, dtype=dtype)
    net.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert_same_net(loaded, net)
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((9, 4)).astype(dtype), rng.random((9, 3)).astype(dtype)
    assert loaded.loss(x, t) == net.loss(x, t)


@by_dtype
@pytest.mark.parametrize("kind", initializers.BY_NAME)
def test_every_initializer_comes_back(kind, dtype, tmp_path):
    initializer = initializers.BY_NAME[kind]()
    net = cc.Sequential([cc.Affine(3, initializer, initializer)], input_shape=(4,), dtype=dtype)
    net.save(tmp_path / "m")
    assert_same_net(load_model(tmp_path / "m"), net)


@by_dtype
def test_arrays_as_initial_values_come_back(dtype, tmp_path):
    weights = np.arange(12.0).reshape(4, 3)
    net = cc.Sequential([cc.Affine(3, weights, np.ones(3))], input_shape=(4,), dtype=dtype)
    net.save(tmp_path / "m")
    assert_same_net(load_model(tmp_path / "m"), net)


def test_padding_comes_back_as_words_or_numbers(tmp_path):
    for padding in ("same", "valid", 1, (1, 0), (0, 1, 2, 3)):
        stack = [cc.Conv2D(2, 3, padding=padding), cc.Flatten(), cc.Affine(2)]
        net = cc.Sequential(stack, input_shape=(1, 6, 5))
        net.save(tmp_path / "m")
        loaded = load_model(tmp_path / "m")
        assert_same_net(loaded, net)
        assert loaded.layers[0].padding == net.layers[0].padding


@by_dtype
def test_running_statistics_come_back(dtype, tmp_path):
    stack = [cc.Conv2D(4, 3, padding="same"), cc.BatchNorm(), cc.ReLU(), cc.MaxPool2D(2)]
    stack += [cc.Flatten(), cc.Affine(6), cc.BatchNorm(), cc.ReLU(), cc.Affine(3)]
    net = cc.Sequential(stack, input_shape=(1, 6, 6), dtype=dtype)
    rng = np.random.default_rng(0)
    x, t = rng.random((40, 1, 6, 6)).astype(dtype), rng.integers(0, 3, 40)
    cc.Trainer(net, cc.Adam(0.01)).fit(x, t, epochs=2, batch_size=8, verbose=False)
    assert list(net.state) == ["running_mean2", "running_var2", "running_mean4", "running_var4"]
    assert all(np.abs(net.state[name]).max() > 0.01 for name in net.state)
    net.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert_same_net(loaded, net)
    assert same_bits(loaded.predict(x), net.predict(x))
    # The loaded arrays are those that the layers use.
    loaded.state["running_mean2"] += 1
    assert not np.array_equal(loaded.predict(x), net.predict(x))
    for other in (net, loaded):
        other.state["running_mean2"][...] = 0.25
        cc.Trainer(other, cc.SGD(0.1)).fit(x, t, batch_size=8, verbose=False)
    assert_same_net(loaded, net)


@by_dtype
def test_the_deep_net_comes_back(dtype, tmp_path):
    net = cc.models.deep_conv_net(dtype=dtype)
    rng = np.random.default_rng(0)
    x, t = rng.random((20, 1, 28, 28)).astype(dtype), rng.integers(0, 10, 20)
    cc.Trainer(net, cc.Adam(0.01)).step(x, t)
    net.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert_same_net(loaded, net)
    assert same_bits(loaded.predict(x), net.predict(x))


def test_a_loaded_net_goes_on_learning_as_the_saved_one(tmp_path):
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((64, 4)).astype("float32"), rng.integers(0, 3, 64)
    nets = [small_net(seed=3)]
    cc.Trainer(nets[0], cc.SGD(0.1)).fit(x, t, batch_size=8, verbose=False)
    nets[0].save(tmp_path / "m")
    nets.append(load_model(tmp_path / "m"))
    histories = [
        cc.Trainer(net, cc.SGD(0.1)).fit(x, t, batch_size=8, epochs=2, verbose=False)
        for net in nets
    ]
    assert histories[0]["loss"] == histories[1]["loss"]
    assert_same_net(nets[1], nets[0])


def test_special_values_keep_their_bits(tmp_path):
    net = small_net()
    special = np.array([0x7FC12345, 0xFF800000, 0x80000000, 1, 0x7F800001], np.uint32)
    net.params["b1"].view(np.uint32)[:] = special
    net.save(tmp_path / "m")
    assert (load_model(tmp_path / "m").params["b1"].view(np.uint32) == special).all()


def test_networks_without_parameters(tmp_path):
    for stack in ([cc.ReLU()], [cc.Flatten(), cc.Softmax()]):
        net = cc.Sequential(stack, input_shape=(2, 3))
        net.save(tmp_path / "m")
        assert_same_net(load_model(tmp_path / "m"), net)


def test_the_file_is_plain_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    net = small_net("float64")
    net.save(tmp_path / "m")
    tensors = safetensors.load_file(tmp_path / "m")
    assert set(tensors) == {"W1", "b1", "W2", "b2"}
    for name, value in tensors.items():
        assert same_bits(value, net.params[name])
    header = read_header((tmp_path / "m").read_bytes())
    entry = json.loads(header["__metadata__"]["cnn_core"])
    assert entry == {"format": 1, "architecture": net.get_config()}


def test_loading_draws_nothing(tmp_path, monkeypatch):
    net = cc.Sequential([cc.Affine(3, cc.HeNormal(), cc.Uniform())], input_shape=(4,))
    net.save(tmp_path / "m")

    def draw(*args):
        raise AssertionError("drawn")

    for kind in initializers.BY_NAME.values():
        monkeypatch.setattr(kind, "__call__", draw)
    loaded = load_model(tmp_path / "m")
    assert loaded.get_config() == net.get_config()
    assert isinstance(loaded.layers[0].weights, cc.HeNormal)


# ---- saving --------------------------------------------------------------------------------------


class Square(cc.Layer):
    def forward(self, x, training=False):
        return x**2

    def backward(self, dout):
        return dout


class OwnAffine(cc.Affine):
    pass


OwnReLU = type("ReLU", (cc.ReLU,), {})


class OwnLoss(cc.Loss):
    def forward(self, y, t):
        return 0.0


@pytest.mark.parametrize("own", [Square, lambda: OwnAffine(4), OwnReLU])
def test_a_layer_of_ones_own_is_refused_before_writing(own, tmp_path):
    net = cc.Sequential([cc.Affine(4), own()], input_shape=(4,))
    with pytest.raises(TypeError, match=r"layers\[1\].*could not be loaded again"):
        net.save(tmp_path / "m")
    assert not os.listdir(tmp_path)


def test_a_loss_of_ones_own_is_refused_before_writing(tmp_path):
    net = cc.Sequential([cc.Affine(4)], input_shape=(4,), loss=OwnLoss())
    with pytest.raises(TypeError, match=r"OwnLoss.*could not be loaded again"):
        net.save(tmp_path / "m")
    assert not os.listdir(tmp_path)


def test_what_could_not_be_read_is_not_written(tmp_path):
    net = cc.Sequential([cc.Affine(4)], input_shape=(4,))
    net.input_scale = float("inf")
    with pytest.raises(ValueError, match="architecture"):
        net.save(tmp_path / "m")
    with pytest.raises(TypeError, match="net: expected a Sequential"):
        save_model({"W1": 1}, tmp_path / "m")
    assert not os.listdir(tmp_path)


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(call, error, tmp_path, monkeypatch):
    path = tmp_path / "m"
    small_net(seed=1).save(path)
    before = path.read_bytes()

    def fail(*args):
        raise error("from the test")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(error, match="from the test"):
            small_net(seed=2).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    real_open = open

    def open_full(path, *args, **kwargs):
        file = real_open(path, *args, **kwargs)

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def write(self, data):
                file.write(data[:100])
                full_disk()

        return Full()

    monkeypatch.setattr("builtins.open", open_full)
    with pytest.raises(OSError, match="No space left"):
        small_net().save(tmp_path / "m")
    monkeypatch.undo()
    assert not os.listdir(tmp_path)


def test_the_data_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_sync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def record_replace(source, target):
        assert os.path.getsize(source) > 0
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    small_net().save(tmp_path / "m")
    assert calls == ["file", "rename", "folder"][: len(calls)] and len(calls) >= 2


def test_where_the_file_cannot_go(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        small_net().save(tmp_path / "nowhere" / "m")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        small_net().save(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"] and not os.listdir(tmp_path / "folder")


def test_a_link_is_followed_and_the_usual_rights_are_given(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "plain").write_bytes(b"")
    try:
        (tmp_path / "link").symlink_to("real")
    except OSError:
        pytest.skip("no symbolic links here")
    small_net().save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert_same_net(load_model(tmp_path / "real"), small_net())
    assert (tmp_path / "real").stat().st_mode == (tmp_path / "plain").stat().st_mode
