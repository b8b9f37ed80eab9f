"""Files, and what makes objects of what a file holds."""

import tempfile
from pathlib import Path as Folder

import numpy as np

import cnn_core as cc
from bad_arguments import Case
from bad_arguments.scalars import Flag, Instance, Path, Whole
from bad_arguments.values import Kind, Labels, Opaque, Samples, Weights, forms

IDX = Folder(cc.datasets.mnist.__file__).parent / "mnist_data"
#: lives as long as the tests
SCRATCH = tempfile.TemporaryDirectory()


def network():
    return cc.Sequential([cc.Affine(3)], input_shape=(2,))


def scratch(name):
    return Folder(SCRATCH.name) / name


def save(**arguments):
    cc.serialization.save_model(**arguments)
    return scratch("saved").read_bytes()


def save_by_method(**arguments):
    network().save(**arguments)
    return scratch("saved").read_bytes()


def model():
    network().save(scratch("model"))
    return {"path": scratch("model")}


class Configuration(Instance):
    """What `get_config` returns: the name of a class and its arguments."""

    def bad(self, value):
        yield from super().bad(value)
        yield "no class", {}
        for wrong in ("nonsense", None, 3, ["SGD"], {}, Opaque(), "Loss", "_Compiled"):
            yield f"class: {wrong!r}", {**value, "class": wrong}


class State(Instance):
    """Arrays by name, as an optimizer gave them."""

    def bad(self, value):
        yield from super().bad(value)
        (name, array), *_ = value.items()
        yield "another name", {"nonsense": array}
        for wrong in (array[1:], array.astype(str), array.astype(complex), "text", None, Opaque()):
            yield f"{name}: {wrong!r}"[:40], {**value, name: wrong}
        yield "masked", {**value, name: np.ma.masked_array(array, array == array)}


def bound():
    optimizer = cc.SGD(0.5, 0.5)
    optimizer.bind(np.zeros(4, np.float32))
    return optimizer


def load(**arguments):
    optimizer = bound()
    optimizer.load_state(**arguments)
    return optimizer.state()


def config(result):
    return result.get_config()


def case(function, kinds, **arguments):
    return Case(lambda: (function, dict(arguments)), kinds)


# ---- checkpoints ---------------------------------------------------------------------------------


def data():
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((4, 2)).astype(np.float32), "t": np.array([2, 0, 1, 2])}


def weights():
    return {"sample_weight": np.array([1.0, 0.5, 2.0, 0.25]), "class_weight": {0: 2.0}}


def trainer():
    return cc.Trainer(network(), cc.SGD(0.5), [cc.Checkpoint(scratch("checkpoint"))])


def resume(**arguments):
    """Go on with a training that has stopped after two of its four updates."""
    first = trainer()
    first.fit(**data(), **weights(), epochs=2, batch_size=2, iterations=2, verbose=False)
    again = trainer()
    again.resume(**arguments, verbose=False)
    return again.network.flat_params.copy()


class Resumed(Samples):
    """The same data in the same dtype."""

    def same(self, value):
        yield from forms(value)


class Notes(Kind):
    """What JSON can hold, by name."""

    def bad(self, value):
        for wrong in (3, "text", [], {"a": Opaque()}, {"a": np.zeros(3)}, {(1, 2): 3}):
            yield repr(wrong), wrong


def notes(callback):
    return callback.every, callback.notes, callback.path


CHECKPOINTS = {
    "Checkpoint": Case(
        lambda: (
            cc.Checkpoint,
            {"folder": scratch("checkpoint"), "every": 3, "notes": {"a": [1]}},
        ),
        {"folder": Path(), "every": Whole(0, None, optional=True), "notes": Notes()},
        notes,
    ),
    "Trainer.resume": Case(
        lambda: (resume, {"path": scratch("checkpoint"), **data(), **weights()}),
        {
            "path": Path(),
            "x": Resumed(named=("t",)),
            "t": Labels(classes=3),
            "validation_data": Flag(),  # as of `fit`
            "sample_weight": Weights(),
            "class_weight": Flag(),  # as of `fit`
            "verbose": Flag(),
        },
    ),
}


# ---- data sets, models ---------------------------------------------------------------------------

FLAGS = {name: Flag() for name in ("normalize", "flatten", "one_hot_label")}
CASES = {
    "datasets.read_idx": case(
        cc.datasets.read_idx,
        {"path": Path(), "max_bytes": Whole(0, None)},
        path=IDX / "t10k-labels-idx1-ubyte.gz",
        max_bytes=2**20,
    ),
    "datasets.load_idx": case(
        cc.datasets.load_idx, {"folder": Path()} | FLAGS, folder=IDX, normalize=False
    ),
    "datasets.load_mnist": case(cc.datasets.load_mnist, FLAGS, normalize=False),
    "Sequential.save": case(save_by_method, {"path": Path()}, path=scratch("saved")),
    "serialization.save_model": case(
        save, {"net": Instance(), "path": Path()}, net=network(), path=scratch("saved")
    ),
    "serialization.load_model": Case(
        lambda: (cc.serialization.load_model, model()),
        {"path": Path()},
        lambda net: net.flat_params.copy(),
    ),
    "losses.from_config": Case(
        lambda: (cc.losses.from_config, {"config": cc.SumSquaredError().get_config()}),
        {"config": Configuration(named=("loss",))},
        config,
    ),
    "optimizers.from_config": Case(
        lambda: (cc.optimizers.from_config, {"config": cc.AdamW().get_config()}),
        {"config": Configuration(named=("optimizer",))},
        config,
    ),
    **CHECKPOINTS,
    "Optimizer.load_state": Case(lambda: (load, {"state": bound().state()}), {"state": State()}),
}
