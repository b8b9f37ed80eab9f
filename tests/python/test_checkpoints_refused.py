"""Checkpoints of other trainings, and damaged ones: an error that names file and field."""

import copy
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn_core as cc
from cnn_core import checkpoints
from reference import Unchanged
from training_runs import Run

HIGH = os.environ.get("CNN_CORE_TEST_EFFORT") == "high"
FILE = "checkpoint.safetensors"


class Crash(Exception):
    pass


class CrashAt(cc.Callback):
    def on_step_end(self, trainer):
        if trainer.iteration == 17:
            raise Crash


def crashed(folder, case):
    with pytest.raises(Crash):
        Run(case, folder, callbacks=[CrashAt()]).fit()
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a checkpoint of the case with the most in it."""
    return crashed(tmp_path_factory.mktemp("saved"), "of the library")


# ---- other trainings -----------------------------------------------------------------------------

X, T = np.random.default_rng(0).random((30, 6)), np.arange(30) % 4
VALIDATION = (X[:9], T[:9])
MADE = {
    "units": 5,
    "activation": cc.Tanh,
    "loss": cc.SoftmaxCrossEntropy,
    "dtype": "float32",
    "seed": 0,
    "optimizer": lambda: cc.SGD(0.1, 0.9),
    "callbacks": lambda: [cc.LearningRateSchedule(cc.schedules.CosineDecay())],
    "x": X,
    "t": T,
    "validation": VALIDATION,
    "weights": None,
}


def small(folder, **changes):
    made = {**MADE, **changes}
    net = cc.Sequential(
        [cc.Affine(made["units"]), made["activation"](), cc.Affine(4)],
        input_shape=(6,),
        loss=made["loss"](),
        dtype=made["dtype"],
        seed=made["seed"],
    )
    callbacks = [cc.Checkpoint(folder), *made["callbacks"]()]
    trainer = cc.Trainer(net, made["optimizer"](), callbacks)
    data = (made["x"], made["t"])
    more = {"validation_data": made["validation"], "sample_weight": made["weights"]}
    return trainer, data, {**more, "verbose": False}


OTHERS = {
    "units": ({"units": 6}, "network: layers.0.: units: expected 5, .* got 6"),
    "activation": ({"activation": cc.ReLU}, "network: layers.1.: class: expected Tanh, .* ReLU"),
    "loss": (
        {"loss": cc.MeanSquaredError, "t": np.eye(4)[T], "validation": (X[:9], np.eye(4)[T[:9]])},
        "network: loss: class: expected SoftmaxCrossEntropy, .* got MeanSquaredError",
    ),
    "dtype": ({"dtype": "float64"}, "network: dtype: expected float32, .* got float64"),
    "seed": ({"seed": 1}, "network: seed: expected 0, .* got 1"),
    "optimizer": ({"optimizer": cc.Adam}, "optimizer: class: expected SGD, .* got Adam"),
    "lr": ({"optimizer": lambda: cc.SGD(0.2, 0.9)}, "optimizer: lr: expected 0.1, .* got 0.2"),
    "momentum": ({"optimizer": lambda: cc.SGD(0.1)}, "optimizer: momentum: expected 0.9, .* 0.0"),
    "factor": (
        {"optimizer": lambda: cc.SGD(0.1, 0.9, lr_multipliers={"W1": 0})},
        "optimizer: lr_multipliers: W1: expected None, .* got 0.0",
    ),
    "rows": ({"x": X[1:], "t": T[1:]}, r"data: x: shape\[0\]: expected 30, .* got 29"),
    "data dtype": ({"x": X.astype("f4")}, "data: x: dtype: expected <f8, .* got <f4"),
    "values": ({"x": X + 1e-9}, "data: x: hash of some rows: expected"),
    "labels": ({"t": (T + 1) % 4}, "data: t: hash of some rows: expected"),
    "validation": ({"validation": (X[:8], T[:8])}, r"data: validation x: shape\[0\]: expected 9"),
    "no validation": ({"validation": None}, "data: validation x: expected {.*}, .* got None"),
    "weights": ({"weights": np.ones(30)}, "data: weights: expected None, as in"),
    "callbacks": ({"callbacks": list}, r"callbacks with a state: expected \['Learning.* got \[\]"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_training_is_refused_by_name_and_stays_as_it_was(what, tmp_path):
    trainer, data, more = small(tmp_path)
    trainer.fit(*data, **more)
    changes, message = OTHERS[what]
    trainer, data, more = small(tmp_path, **changes)
    arrays = [trainer.network.flat_params, *trainer.optimizer.state().values()]
    before = json.dumps(trainer.rng.bit_generator.state), trainer.optimizer.lr
    with Unchanged(*arrays), pytest.raises(cc.CheckpointError, match=message) as caught:
        trainer.resume(tmp_path, *data, **more)
    assert str(tmp_path / FILE) in str(caught.value)
    assert before == (json.dumps(trainer.rng.bit_generator.state), trainer.optimizer.lr)
    assert (trainer.epoch, trainer.iteration, trainer.history) == (0, 0, {})
    trainer.fit(*data, **more)


def test_no_checkpoint_is_a_file_not_found(tmp_path):
    trainer, data, more = small(tmp_path)
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere" / FILE):
        with pytest.raises(FileNotFoundError):
            trainer.resume(path, *data, **more)


def test_a_model_is_no_checkpoint(tmp_path):
    trainer, data, more = small(tmp_path)
    trainer.network.save(tmp_path / FILE)
    with pytest.raises(cc.CheckpointError, match="metadata: expected an entry 'cnn_core_check"):
        trainer.resume(tmp_path, *data, **more)
    with pytest.raises(ValueError, match=r"metadata: .* only \['cnn_core_checkpoint'\]"):
        trainer.fit(*data, **more)
        cc.load(tmp_path / FILE)


# ---- damaged files -------------------------------------------------------------------------------


def split(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    return header, json.loads(header["__metadata__"]["cnn_core_checkpoint"]), data[8 + size :]


def join(header, entry, tensors):
    header["__metadata__"]["cnn_core_checkpoint"] = (
        entry if isinstance(entry, str) else json.dumps(entry)
    )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def refused(tmp_path, data):
    """The file is refused by one clear line; or, if what was changed does not matter, resumed."""
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(data)
    run = Run("of the library", "", every=None)
    before = run.network.flat_params.tobytes()
    try:
        run.resume(path)
    except cc.CheckpointError as error:
        assert "hostile.safetensors" in str(error) and len(str(error)) < 1000
        callback = "callbacks[" in str(error)  # only they refuse after the rest has been restored
        assert callback or run.network.flat_params.tobytes() == before
        return str(error)
    return None


def test_the_undamaged_file_is_resumed(saved, tmp_path):
    assert refused(tmp_path, join(*split(saved / FILE))) is None


def test_a_file_that_is_cut_off_or_goes_on(saved, tmp_path):
    data = (saved / FILE).read_bytes()
    for size in (*range(0, 40, 3), *range(40, len(data), 997), len(data) - 1):
        assert refused(tmp_path, data[:size])
    assert refused(tmp_path, data + b"x")


def leaves(value, path=()):
    """The ways to everything in a JSON value."""
    yield path
    if isinstance(value, (list, dict)):
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            yield from leaves(item, (*path, key))


def changed(entry, path, value):
    entry = copy.deepcopy(entry)
    if not path:
        return value
    inside = entry
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return entry


WRONG = (None, True, -1, 7, 10**30, 0.5, 1e400, "x", [], [1], {}, {"x": 1})


def test_every_field_with_a_wrong_value(saved, tmp_path):
    header, entry, tensors = split(saved / FILE)
    accepted = set()
    for number, path in enumerate(leaves(entry)):
        for value in WRONG if HIGH else WRONG[number % 3 :: 3]:
            endless = path == ("settings", "epochs") and value == 10**30
            if endless or changed(entry, path, value) == entry:
                continue
            if not refused(tmp_path, join(header, changed(entry, path, value), tensors)):
                accepted.add(path[0] if path else "")
    # What could have been so: another generator, a later update.
    plausible = {"callbacks", "drawn_from", "finished", "generator", "lr", "notes", "position"}
    assert accepted <= {*plausible, "settings", "step", "trainer"}


def test_every_field_left_out(saved, tmp_path):
    header, entry, tensors = split(saved / FILE)
    for path in leaves(entry):
        if path and isinstance(path[-1], str):
            less = copy.deepcopy(entry)
            inside = less
            for key in path[:-1]:
                inside = inside[key]
            del inside[path[-1]]
            refused(tmp_path, join(header, less, tensors))


def test_metadata_that_is_no_json(saved, tmp_path):
    header, _, tensors = split(saved / FILE)
    for text in ("", "{", "[" * 100_000, "nul", '{"format": 1' + "1" * 5000 + "}", "[]", "3"):
        assert refused(tmp_path, join(header, text, tensors))


def test_every_tensor_left_out_renamed_or_of_another_kind(saved, tmp_path):
    header, entry, tensors = split(saved / FILE)
    names = [name for name in header if name != "__metadata__"]
    for name in names:
        same = {"F32": "I32", "F64": "I64"}[header[name]["dtype"]]
        for change in (
            {name: {**header[name], "dtype": same}},
            {name: {**header[name], "shape": [*header[name]["shape"], 1]}},
            {name: {**header[name], "shape": [-1]}},
            {name + "x": header[name]},
            {},
        ):
            others = {key: value for key, value in header.items() if key != name}
            refused_or_callback = refused(tmp_path, join({**others, **change}, entry, tensors))
            assert refused_or_callback or "history.count" in name or "callbacks" in name, name


def test_a_surplus_tensor(saved, tmp_path):
    header, entry, tensors = split(saved / FILE)
    for name in ("more", "params.W9", "state.x", "optimizer.x"):
        more = {**header, name: {"dtype": "F32", "shape": [0], "data_offsets": [len(tensors)] * 2}}
        assert "only" in refused(tmp_path, join(more, entry, tensors))


def test_other_rows_than_were_drawn(saved, tmp_path):
    """As by a NumPy that draws in another way."""
    header, entry, tensors = split(saved / FILE)
    entry["drawn_from"] = entry["generator"]
    assert "order: expected the rows as they were drawn" in refused(
        tmp_path, join(header, entry, tensors)
    )


@given(st.data())
def test_random_damage(saved, tmp_path_factory, data):
    original = bytearray((saved / FILE).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    refused(tmp_path_factory.mktemp("damage"), bytes(original))


def test_no_pickle_and_a_device_is_refused(tmp_path):
    with pytest.raises(cc.CheckpointError, match="file: expected a regular file"):
        checkpoints.read(os.devnull)
    (tmp_path / FILE).write_bytes(b"\x80\x04c__builtin__\nexit\n.")
    with pytest.raises(cc.CheckpointError, match="not a safetensors file"):
        checkpoints.read(tmp_path)
