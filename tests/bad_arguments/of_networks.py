"""Networks, their training, models, metrics, figures and files."""

import numpy as np

import cnn_core as cc
from bad_arguments import Case
from bad_arguments.scalars import (
    Choice,
    Dtype,
    Flag,
    Instance,
    Listed,
    Number,
    Path,
    Pixels,
    Sizes,
    Whole,
)
from bad_arguments.values import Kind, Labels, Opaque, Samples, Targets, Weights, no_arrays

N, I, C = 4, 5, 3  # noqa: E741 - rows, inputs, classes
SEED = Whole(0, 2**64 - 1)


def real(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def samples():
    return np.random.default_rng(0).integers(-9, 9, (N, I)).astype(np.float32)


def labels():
    return np.array([2, 0, 1, 2])


def weights():
    return np.array([1.0, 0.5, 2.0, 0.25])


def network(**options):
    stack = [cc.Affine(6), cc.Tanh(), cc.Affine(C)]
    return cc.Sequential(stack, input_shape=(I,), **options)


# ---- Sequential ----------------------------------------------------------------------------------


class Configuration(Instance):
    """What `get_config` returns."""

    def bad(self, value):
        yield from super().bad(value)
        yield "no layers", {"input_shape": [3]}
        yield "no list of layers", {"layers": "Affine", "input_shape": [3]}
        yield "no input shape", {"layers": [{"class": "ReLU"}]}


class Predicted(Labels):
    """Labels of any number of classes, or scores."""

    def bad(self, value):
        for label, wrong in super().bad(value):
            allowed = ("booleans", f"the label {self.classes}", f"the label {2**63 - 1}")
            if label not in (*allowed, "two axes"):
                yield label, wrong
        yield "three axes", np.zeros((2, 2, 2))
        yield "one column", np.zeros((len(value), 1))
        yield "complex scores", np.zeros((len(value), 3), complex)
        yield "NaN scores", np.full((len(value), 3), np.nan)


class ByClass(Kind):
    """Weights per class: a dict, a list, "balanced"."""

    def bad(self, value):
        yield from (pair for pair in no_arrays() if pair[0] not in ("a dict", "a class"))
        yield "another text", "nonsense"
        yield "a class beyond", {C: 1.0}
        yield "a negative class", {-1: 1.0}
        yield "a text as a class", {"0": 1.0}
        yield "NaN", {0: np.nan}
        yield "a text as a weight", {0: "1"}
        yield "one weight too few", [1.0] * (C - 1)
        yield "infinity", [1.0] * (C - 1) + [np.inf]
        yield "a number", 1.0

    def same(self, value):
        yield "a list", [value.get(number, 1.0) for number in range(C)]
        yield "an array", np.array([value.get(number, 1.0) for number in range(C)])


def method(name, arguments, kinds, make=network, result=None):
    """A method of a network; every call gets a new one."""

    def start():
        return getattr(make(), name), {key: value() for key, value in arguments.items()}

    return Case(start, kinds, result)


def as_floats(array):
    return np.array(array, np.float32)


X, T = {"x": samples}, {"x": samples, "t": labels}
X_KIND = {"x": Samples(named=("t",))}
T_KINDS = X_KIND | {"t": Labels(classes=C)}
WEIGHTED = {"sample_weight": Weights()}
NETWORK = {
    "Sequential": Case(
        lambda: (
            cc.Sequential,
            {
                "layers": [cc.Affine(2), cc.ReLU()],
                "input_shape": (3,),
                "loss": cc.MeanSquaredError(),
            }
            | {"dtype": "float64", "seed": 3, "input_scale": 0.5},
        ),
        {
            "layers": Listed(inner=Instance()),
            "input_shape": Sizes(named=("weights",)),
            "loss": Instance(optional=True),
            "dtype": Dtype(),
            "seed": SEED,
            "input_scale": Number(),
        },
        lambda net: net.flat_params.copy(),
    ),
    "Sequential.predict": method("predict", X, X_KIND),
    "Sequential.forward": method("forward", X, X_KIND | {"training": Flag()}),
    "Sequential.check_input": method("check_input", X, X_KIND, result=as_floats),
    "Sequential.check_rows": method("check_rows", X, X_KIND, result=as_floats),
    "Sequential.accuracy": method("accuracy", T, T_KINDS),
    "Sequential.confusion_matrix": method(
        "confusion_matrix", T, X_KIND | {"t": Predicted(classes=C, named=("labels",))}
    ),
    "Sequential.evaluate": method(
        "evaluate",
        T | {"sample_weight": weights, "class_weight": lambda: {0: 2.0}},
        T_KINDS | WEIGHTED | {"class_weight": ByClass(optional=True)},
    ),
    "Sequential.evaluate of rows": method(
        "evaluate",
        {"x": samples, "t": lambda: real(N, C)},
        X_KIND | {"t": Targets()},
        lambda: network(loss=cc.MeanSquaredError()),
    ),
    "Sequential.loss": method(
        "loss", T | {"sample_weight": weights}, T_KINDS | WEIGHTED | {"training": Flag()}
    ),
    "Sequential.gradient": method(
        "gradient", T | {"sample_weight": weights}, T_KINDS | WEIGHTED | {"training": Flag()}
    ),
    "Sequential.numerical_gradient": method(
        "numerical_gradient",
        T | {"sample_weight": weights, "h": lambda: 0.125},
        T_KINDS | WEIGHTED | {"training": Flag(), "h": Number(0, open_low=True)},
    ),
    "Sequential.from_config": Case(
        lambda: (cc.Sequential.from_config, {"config": network().get_config()}),
        {"config": Configuration(named=("input_shape",))},
        lambda net: net.flat_params.copy(),
    ),
}


# ---- Trainer -------------------------------------------------------------------------------------


class Validation(Kind):
    """A pair (x, t)."""

    def bad(self, value):
        x, t = value
        for label, wrong in Samples().bad(x):
            yield f"x: {label}", (wrong, t)
        for label, wrong in Labels(classes=C).bad(t):
            yield f"t: {label}", (x, wrong)
        for wrong in (3, "text", {}, (x,), (x, t, t, t), Opaque(), (x[:0], t[:0])):
            yield repr(wrong)[:20], wrong

    def same(self, value):
        yield "a list", list(value)


def step(**arguments):
    trainer = cc.Trainer(network(), cc.SGD(0.5))
    return [trainer.step(**arguments), trainer.network.flat_params.copy()]


def fit(**arguments):
    trainer = cc.Trainer(network(), cc.SGD(0.5))
    history = trainer.fit(**arguments, verbose=False)
    del history["seconds"]
    return [history, trainer.network.flat_params.copy()]


FITTED = {
    "epochs": 2,
    "batch_size": 3,
    "sampling": "replacement",
    "iterations": 3,
    "validation_data": (samples(), labels()),
    "sample_weight": weights(),
    "class_weight": {0: 2.0},
    "report": "book",
}
TRAINER = {
    "Trainer": Case(
        lambda: (
            cc.Trainer,
            {"network": network(), "optimizer": cc.SGD(0.5), "callbacks": [cc.StopOnNaN()]}
            | {"seed": 3},
        ),
        {
            "network": Instance(),
            "optimizer": Instance(),
            "callbacks": Listed(inner=Instance()),
            "seed": Whole(0, 2**64 - 1, optional=True),
        },
        lambda trainer: trainer.rng.random(3),
    ),
    "Trainer.step": Case(
        lambda: (step, {"x": samples(), "t": labels(), "sample_weight": weights()}),
        T_KINDS | WEIGHTED | {"class_weight": ByClass(optional=True)},
    ),
    "Trainer.fit": Case(
        lambda: (fit, {"x": samples(), "t": labels(), **FITTED}),
        T_KINDS
        | WEIGHTED
        | {
            "epochs": Whole(1, None),
            "batch_size": Whole(1, None, optional=True),
            "sampling": Choice(),
            "iterations": Whole(1, None, optional=True),
            "validation_data": Validation(optional=True),
            "class_weight": ByClass(optional=True),
            "report": Choice(),
            "verbose": Flag(),
        },
    ),
}


# ---- models --------------------------------------------------------------------------------------

LOSS = Instance(optional=True)
COMMON = {"output_size": Whole(named=("weights", "units")), "loss": LOSS, "dtype": Dtype()}
COMMON |= {"seed": SEED}
GIVEN = {"output_size": 3, "loss": cc.MeanSquaredError(), "dtype": "float64", "seed": 3}
UNITS = Whole(named=("weights", "units"))


def model(name, good, **kinds):
    def start():
        return getattr(cc.models, name), GIVEN | good

    return Case(start, COMMON | kinds, lambda net: [net.get_config(), net.flat_params.copy()])


IMAGE = {"input_shape": (1, 12, 13)}
IMAGES = {"input_shape": Sizes(named=("x: images", "filters", "images", "Conv2D", "elements"))}
STD = Number(0, named=("std",))
MODELS = {
    "models.two_layer_net": model(
        "two_layer_net",
        {"input_size": 3, "hidden_size": 2, "activation": "tanh", "weight_init_std": 0.5},
        input_size=Whole(named=("input_shape", "weights")),
        hidden_size=UNITS,
        activation=Choice(),
        weight_init_std=STD,
    ),
    "models.multi_layer_net": model(
        "multi_layer_net",
        {"input_size": 3, "hidden_sizes": (2, 2), "activation": "relu", "initializer": cc.Zeros()},
        input_size=Whole(named=("input_shape", "weights")),
        hidden_sizes=Listed(inner=Whole(named=()), named=("units", "weights")),
        activation=Choice(),
        initializer=Instance(optional=True, named=("weights",)),
    ),
    "models.grokking_conv_net": model("grokking_conv_net", IMAGE, **IMAGES),
    "models.simple_conv_net": model(
        "simple_conv_net",
        IMAGE | {"filters": 2, "filter_size": 3, "hidden_size": 4, "weight_init_std": 0.5},
        **IMAGES,
        filters=Whole(named=("weights",)),
        filter_size=Pixels(1, 2**31 - 1, named=("kernel_size", "x: images")),
        hidden_size=UNITS,
        weight_init_std=STD,
    ),
    "models.quick_conv_net": model("quick_conv_net", IMAGE, **IMAGES),
    "models.lenet5": model(
        "lenet5", {"input_shape": (1, 14, 15), "activation": "tanh"}, **IMAGES, activation=Choice()
    ),
    "models.deep_conv_net": model(
        "deep_conv_net",
        IMAGE | {"hidden_size": 4, "dropout": 0.5},
        **IMAGES,
        hidden_size=UNITS,
        dropout=Number(0, 1, open_high=True, named=("rate",)),
    ),
}


# ---- metrics, figures, files ---------------------------------------------------------------------


class Matrix(Kind):
    """A square of counts."""

    def bad(self, value):
        yield from super().bad(value)
        yield from no_arrays()
        for wrong in (value[:2], value[0], value[:0, :0], -value, value * np.nan, value + 0j):
            yield f"{wrong.dtype} {wrong.shape}", wrong
        yield "infinite", np.full((3, 3), np.inf)


class History(Kind):
    """Lists of numbers by name."""

    def bad(self, value):
        yield from super().bad(value)
        for wrong in (3, "text", [], Opaque(), {}, {"loss": []}):
            yield repr(wrong), wrong
        for wrong in ("text", 3, [[1.0]], ["a"], {}, [1.0, 2.0, 3.0], print):
            yield f"loss: {wrong!r}", {"loss": wrong, "accuracy": [0.5]}


def no_figure(figure):
    return "made"


def own_net():
    return cc.Sequential([cc.Affine(C)], input_shape=(I * I,))


def pictures():
    return np.random.default_rng(1).integers(0, 9, (N, I * I)).astype(np.float32)


class Pictured(Samples):
    """One sample, whose first axis may be missing."""

    def bad(self, value):
        for label, wrong in super().bad(value):
            if label not in ("one sample without N", "too many axes"):
                yield label, wrong


class Name(Kind):
    """A parameter that holds pictures."""

    def bad(self, value):
        for wrong in ("W9", "b1", "", 3, None, [], {}, Opaque()):
            yield repr(wrong), wrong


REST = {
    "metrics.accuracy": Case(
        lambda: (cc.metrics.accuracy, {"scores_or_labels": labels(), "t": labels()[::-1]}),
        {
            "scores_or_labels": Predicted(classes=C, named=("predictions", "t")),
            "t": Predicted(classes=C, named=("predictions",)),
        },
    ),
    "metrics.confusion_matrix": Case(
        lambda: (
            cc.metrics.confusion_matrix,
            {"predicted": labels(), "t": labels()[::-1], "n_classes": C},
        ),
        {
            "predicted": Predicted(classes=C, named=("predictions",)),
            "t": Predicted(classes=C, named=("predictions",)),
            "n_classes": Whole(C, 2**24, optional=True, named=("labels",)),
        },
    ),
    "plotting.plot_confusion_matrix": Case(
        lambda: (cc.plotting.plot_confusion_matrix, {"matrix": np.eye(3, dtype=int)}),
        {"matrix": Matrix(), "path": Path(optional=True), "class_names": Flag()},
        no_figure,
    ),
    "plotting.plot_history": Case(
        lambda: (cc.plotting.plot_history, {"history": {"loss": [1.0, 0.5]}}),
        {"history": History(), "path": Path(optional=True), "title": Flag()},
        no_figure,
    ),
    "plotting.show_filters": Case(
        lambda: (cc.plotting.show_filters, {"net": own_net(), "name": "W1"}),
        {"net": Instance(), "name": Name(named=("b1",)), "path": Path(optional=True)},
        no_figure,
    ),
    "plotting.show_misclassified": Case(
        lambda: (
            cc.plotting.show_misclassified,
            {"net": own_net(), "x": pictures(), "t": labels(), "limit": 3},
        ),
        {
            "net": Instance(),
            "x": Samples(named=("t",)),
            "t": Labels(classes=C, named=("labels",)),
            "path": Path(optional=True),
            "limit": Whole(1, None),
        },
        no_figure,
    ),
    "plotting.show_activations": Case(
        lambda: (cc.plotting.show_activations, {"net": own_net(), "x": pictures()[:1]}),
        {"net": Instance(), "x": Pictured(), "path": Path(optional=True)},
        no_figure,
    ),
    "fingerprint": Case(lambda: (cc.fingerprint, {"net": network()}), {"net": Instance()}),
}

CASES = NETWORK | TRAINER | MODELS | REST
