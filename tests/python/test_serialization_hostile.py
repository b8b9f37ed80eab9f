"""Model files from a stranger: cut off, damaged, lying about themselves; always a clear error."""

import json
import os
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn_core as cc
from cnn_core.serialization import METADATA_KEY, ModelFileError, load_model, save_model


def small_net():
    return cc.Sequential([cc.Affine(5), cc.ReLU(), cc.Affine(3)], input_shape=(4,))


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(small_net(), path)
    return path.read_bytes()


def split(data):
    """Header and tensors of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header, tensors):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def edit_entry(data, change):
    """The file with another entry of ours; `change` gets it as an object and alters it."""
    header, tensors = split(data)
    entry = json.loads(header["__metadata__"][METADATA_KEY])
    entry = change(entry) or entry
    header["__metadata__"][METADATA_KEY] = json.dumps(entry)
    return join(header, tensors)


def load_bytes(tmp_path, data):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(data)
    return load_model(path)


def refused(tmp_path, data, *words):
    """The file is refused in one line that names it and every one of `words`."""
    with pytest.raises(ModelFileError) as caught:
        load_bytes(tmp_path, data)
    message = str(caught.value)
    assert "hostile.safetensors" in message and len(message) < 2000
    for word in words:
        assert word in message, message


# ---- files that are no models --------------------------------------------------------------------


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_model(tmp_path / "nothing")


def test_folders_and_pipes_are_refused_at_once(tmp_path):
    with pytest.raises(ModelFileError, match="regular file"):
        load_model(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ModelFileError, match="regular file"):
            load_model(tmp_path / "pipe")


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\0" * 8, b"\x89PNG\r\n" * 9, b"{}" * 50])
def test_other_files_are_refused(data, tmp_path):
    refused(tmp_path, data, "not a safetensors file")


def test_every_truncation_is_refused(model_bytes, tmp_path):
    for size in range(len(model_bytes)):
        refused(tmp_path, model_bytes[:size])
    refused(tmp_path, model_bytes + b"\0", "not a safetensors file")


@given(st.data())
def test_flipped_bytes_never_do_worse_than_an_error(model_bytes, tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("flip")
    header_end = 8 + struct.unpack("<Q", model_bytes[:8])[0]
    damaged = bytearray(model_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, header_end - 1))] = data.draw(st.integers(0, 255))
    try:
        net = load_bytes(tmp_path, bytes(damaged))
    except ModelFileError:
        return
    # What is accepted must be a network that works.
    assert net.predict(np.zeros((2, *net.input_shape), net.dtype)).shape[0] == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def places(value, path=()):
    """The path to every value inside nested lists and dicts."""
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    found = [path] if path else []
    for key, item in items:
        found += places(item, (*path, key))
    return found


@given(st.data())
def test_any_other_value_in_the_architecture_is_no_crash(model_bytes, tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("value")

    def change(entry):
        *path, last = data.draw(st.sampled_from(places(entry)))
        inside = entry
        for key in path:
            inside = inside[key]
        inside[last] = data.draw(json_values)

    try:
        net = load_bytes(tmp_path, edit_entry(model_bytes, change))
    except ModelFileError:
        return
    assert net.predict(np.zeros((2, 4), net.dtype)).shape == (2, 3)


def architecture(**changes):
    return lambda entry: entry["architecture"].update(changes)


def layer(position, **changes):
    return lambda entry: entry["architecture"]["layers"][position].update(changes)


LIES = {
    "format 2": (lambda e: e.update(format=2), ["format", "2"]),
    "format true": (lambda e: e.update(format=True), ["format"]),
    "no format": (lambda e: {"architecture": e["architecture"]}, ["format"]),
    "no architecture": (lambda e: {"format": 1}, ["architecture"]),
    "another key": (lambda e: e.update(more=1), ["more"]),
    "a list": (lambda e: [e], ["object"]),
    "architecture a text": (lambda e: e.update(architecture="Affine"), ["architecture"]),
    "field missing": (lambda e: e["architecture"].pop("seed") and None, ["architecture"]),
    "field too many": (architecture(extra=1), ["extra"]),
    "layers a text": (architecture(layers="Affine"), ["layers"]),
    "no layers at all": (architecture(layers=[]), ["hostile"]),
    "a layer that is pairs": (architecture(layers=[[["class", "ReLU"]]]), ["layers[0]"]),
    "unknown layer": (layer(1, **{"class": "Evil"}), ["layers[1]", "Evil"]),
    "a layer's private base": (layer(1, **{"class": "_Activation"}), ["layers[1]"]),
    "layer class a list": (layer(1, **{"class": ["ReLU"]}), ["layers[1]"]),
    "unknown argument": (layer(0, evil=1), ["layers[0]", "evil"]),
    "no units": (lambda e: e["architecture"]["layers"][0].pop("units") and None, ["layers[0]"]),
    "negative units": (layer(0, units=-5), ["layers[0]", "units"]),
    "real units": (layer(0, units=5.0), ["layers[0]", "units"]),
    "units as text": (layer(0, units="5"), ["layers[0]", "units"]),
    "other units": (layer(0, units=6), ["W1", "(4, 6)", "(4, 5)"]),
    "absurd units": (layer(0, units=10**12), ["W1", "1000000000000"]),
    "more units than numbers": (layer(0, units=10**40), ["layers[0]"]),
    "absurd last units": (layer(2, units=10**13), ["W2"]),
    "absurd input": (architecture(input_shape=[10**13]), ["W1"]),
    "overflowing input": (architecture(input_shape=[2**32, 2**32]), ["input_shape"]),
    "input zero": (architecture(input_shape=[0]), ["input_shape"]),
    "input empty": (architecture(input_shape=[]), ["input_shape"]),
    "input a number": (architecture(input_shape=4), ["input_shape"]),
    "input true": (architecture(input_shape=[True]), ["input_shape"]),
    "images into Affine": (architecture(input_shape=[2, 2]), ["layers[0]", "Flatten"]),
    "unknown initializer": (layer(0, weights={"class": "os.system"}), ["layers[0]", "os.system"]),
    "bad initializer": (layer(0, weights={"class": "Normal", "std": -1}), ["layers[0]", "std"]),
    "initializer a text": (layer(0, weights="Normal"), ["layers[0]"]),
    "unknown loss": (architecture(loss={"class": "Evil"}), ["loss", "Evil"]),
    "loss a text": (architecture(loss="SoftmaxCrossEntropy"), ["loss"]),
    "unknown reduction": (
        architecture(loss={"class": "SumSquaredError", "reduction": "max"}),
        ["loss", "max"],
    ),
    "dtype object": (architecture(dtype="object"), ["dtype", "object"]),
    "dtype a list": (architecture(dtype=["float32"]), ["dtype"]),
    "dtype of other size": (architecture(dtype="float64"), ["F64", "F32"]),
    "negative seed": (architecture(seed=-1), ["seed"]),
    "seed a text": (architecture(seed="0"), ["seed"]),
    "scale a text": (architecture(input_scale="1"), ["input_scale"]),
    "fewer layers": (lambda e: e["architecture"]["layers"].pop() and None, ["tensors", "W2"]),
    "more layers": (
        lambda e: e["architecture"]["layers"].append({"class": "Affine", "units": 2}),
        ["W3", "no tensor"],
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_an_architecture_that_does_not_fit_is_refused(name, model_bytes, tmp_path):
    change, words = LIES[name]
    refused(tmp_path, edit_entry(model_bytes, change), *words)


# ---- layers for images ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image_model_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    stack = [cc.Conv2D(4, 3, padding=1), cc.BatchNorm(), cc.MaxPool2D(2), cc.Dropout(0.5)]
    save_model(cc.Sequential([*stack, cc.Flatten(), cc.Affine(3)], input_shape=(2, 6, 6)), path)
    return path.read_bytes()


IMAGE_LIES = {
    "other filters": (layer(0, filters=5), ["W1", "(5, 2, 3, 3)", "(4, 2, 3, 3)"]),
    "absurd filters": (layer(0, filters=10**12), ["W1", "1000000000000"]),
    "absurd kernel": (layer(0, kernel_size=[10**9, 1]), ["layers[0]", "kernel_size"]),
    "kernel beyond the image": (layer(0, kernel_size=[30, 3]), ["layers[0]", "kernel"]),
    "kernel as text": (layer(0, kernel_size="33"), ["layers[0]", "kernel_size"]),
    "three sizes": (layer(0, kernel_size=[3, 3, 3]), ["layers[0]", "kernel_size"]),
    "negative stride": (layer(0, stride=[-1, 1]), ["layers[0]", "stride"]),
    "absurd stride": (layer(0, stride=[2**63, 1]), ["layers[0]", "stride"]),
    "overflowing dilation": (layer(0, dilation=[2**62, 2**62]), ["layers[0]", "dilation"]),
    "absurd padding": (layer(0, padding=[10**15] * 4), ["layers[0]", "padding"]),
    "large padding": (
        layer(0, padding=[2**24] * 4, stride=[2**24, 2**24]),
        ["layers[0]: padding", "elements"],
    ),
    "unknown padding": (layer(0, padding="mirror"), ["layers[0]", "padding", "mirror"]),
    "three paddings": (layer(0, padding=[1, 1, 1]), ["layers[0]", "padding"]),
    "no groups": (layer(0, groups=0), ["layers[0]", "groups"]),
    "groups that do not divide": (layer(0, groups=4), ["layers[0]", "groups"]),
    "other groups": (layer(0, groups=2), ["W1", "(4, 1, 3, 3)", "(4, 2, 3, 3)"]),
    "flat input": (architecture(input_shape=[72]), ["layers[0]", "Conv2D"]),
    "absurd image": (architecture(input_shape=[2, 2**23, 2**23]), ["W3", "tensor"]),
    "momentum 2": (layer(1, momentum=2), ["layers[1]", "momentum"]),
    "momentum a text": (layer(1, momentum="0.1"), ["layers[1]"]),
    "epsilon 0": (layer(1, epsilon=0), ["layers[1]", "epsilon"]),
    "pool beyond the image": (layer(2, size=[9, 9]), ["layers[2]"]),
    "absurd pool": (layer(2, size=[2**62, 2**62]), ["layers[2]", "size"]),
    "pool padding": (layer(2, padding=[2, 2]), ["layers[2]", "padding"]),
    "other pool": (layer(2, stride=[1, 1]), ["W3", "(100, 3)", "(36, 3)"]),
    "rate 1": (layer(3, rate=1), ["layers[3]", "rate"]),
    "rate a list": (layer(3, rate=[0.5]), ["layers[3]"]),
    "statistics of nothing": (
        lambda e: e["architecture"]["layers"].pop(1) and None,
        ["W2", "no tensor"],
    ),
}


@pytest.mark.parametrize("name", IMAGE_LIES)
def test_layers_for_images_that_do_not_fit_are_refused(name, image_model_bytes, tmp_path):
    change, words = IMAGE_LIES[name]
    refused(tmp_path, edit_entry(image_model_bytes, change), *words)


@pytest.mark.parametrize("name", ["running_mean2", "running_var2", "gamma2", "beta2"])
def test_the_tensors_of_a_batch_norm_must_be_there_in_full(name, image_model_bytes, tmp_path):
    header, tensors = split(image_model_bytes)
    header[name]["shape"] = [2, 2]
    refused(tmp_path, join(header, tensors), name, "(4,)", "(2, 2)")
    header[name]["shape"] = [4]
    header["other"] = header.pop(name)
    refused(tmp_path, join(header, tensors), name, "no tensor")


def test_a_batch_norm_of_absurd_size_asks_for_no_memory(image_model_bytes, tmp_path):
    def change(entry):
        layers = entry["architecture"]["layers"]
        entry["architecture"].update(input_shape=[10**12], layers=layers[1:2])

    tracemalloc.start()
    try:
        refused(tmp_path, edit_entry(image_model_bytes, change), "gamma1", "1000000000000")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


@given(st.data())
def test_other_values_in_layers_for_images_are_no_crash(image_model_bytes, tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("value")

    def change(entry):
        inside = entry["architecture"]["layers"]
        path = data.draw(st.sampled_from(places(inside)))
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = data.draw(json_values | st.integers(0, 4) | st.integers(0, 2**70))

    try:
        net = load_bytes(tmp_path, edit_entry(image_model_bytes, change))
    except ModelFileError:
        return
    assert net.predict(np.zeros((2, 2, 6, 6), net.dtype)).shape == (2, 3)


# ---- damaged metadata and tensors ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ('{"format": NaN}', "NaN"),
        ("9" * 5000, "JSON"),
        ("null", "object"),
    ],
)
def test_metadata_that_is_no_json_is_refused(text, word, model_bytes, tmp_path):
    header, tensors = split(model_bytes)
    header["__metadata__"][METADATA_KEY] = text
    refused(tmp_path, join(header, tensors), METADATA_KEY, word)


def test_deep_nesting_is_refused(model_bytes, tmp_path):
    for depth in (5, 300, 600, 800, 900, 950, 970, 980, 990, 100_000):
        header, tensors = split(model_bytes)
        text = header["__metadata__"][METADATA_KEY]
        nested = text.replace('{"class": "Zeros"}', "[" * depth + "1" + "]" * depth, 1)
        assert nested != text
        header["__metadata__"][METADATA_KEY] = nested
        refused(tmp_path, join(header, tensors))


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_files_of_other_programs_are_refused(metadata, model_bytes, tmp_path):
    header, tensors = split(model_bytes)
    del header["__metadata__"]
    if metadata is not None:
        header["__metadata__"] = metadata
    refused(tmp_path, join(header, tensors), "metadata", "cnn_core")


def rename(header):
    header["W9"] = header.pop("W1")


def half(header):
    for name in ("W1", "W2", "b1", "b2"):
        header[name]["dtype"] = "F16"
        header[name]["shape"].append(2)


TENSOR_LIES = {
    "renamed": (rename, ["W1", "no tensor"]),
    "transposed": (lambda h: h["W1"]["shape"].reverse(), ["W1", "(4, 5)", "(5, 4)"]),
    "flattened": (lambda h: h["W1"].update(shape=[20]), ["W1", "(20,)"]),
    "integers": (lambda h: h["b1"].update(dtype="I32"), ["b1", "I32"]),
    "half precision": (half, ["F16"]),
    "offsets outside": (lambda h: h["b1"].update(data_offsets=[0, 10**9]), ["not a safetensors"]),
    "offsets reversed": (lambda h: h["b1"].update(data_offsets=[20, 0]), ["not a safetensors"]),
    "absurd shape": (lambda h: h["b1"].update(shape=[10**12]), ["not a safetensors"]),
    "no shape": (lambda h: h["b1"].pop("shape"), ["not a safetensors"]),
    "unknown dtype": (lambda h: h["b1"].update(dtype="F99"), ["not a safetensors"]),
}


@pytest.mark.parametrize("name", TENSOR_LIES)
def test_tensors_that_do_not_fit_are_refused(name, model_bytes, tmp_path):
    change, words = TENSOR_LIES[name]
    header, tensors = split(model_bytes)
    change(header)
    refused(tmp_path, join(header, tensors), *words)


def test_a_surplus_tensor_is_refused(model_bytes, tmp_path):
    header, tensors = split(model_bytes)
    end = len(tensors)
    header["gamma7"] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    refused(tmp_path, join(header, tensors + b"\0" * 4), "tensors", "gamma7")


def test_absurd_sizes_ask_for_no_memory(model_bytes, tmp_path):
    lies = [
        layer(0, units=10**9),
        layer(2, units=10**9),
        layer(0, units=10**12),
        architecture(input_shape=[10**10]),
        architecture(input_shape=[10**5, 10**5]),
    ]
    load_bytes(tmp_path, model_bytes)  # imports are not counted
    tracemalloc.start()
    began = time.perf_counter()
    try:
        for change in lies:
            refused(tmp_path, edit_entry(model_bytes, change))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000 and time.perf_counter() - began < 30
