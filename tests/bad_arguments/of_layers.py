"""Layers, losses, initializers, optimizers, schedules and callbacks."""

import numpy as np

import cnn_core as cc
from bad_arguments import Case
from bad_arguments.scalars import (
    Choice,
    Flag,
    Function,
    Instance,
    Listed,
    Number,
    Path,
    Pixels,
    Whole,
)
from bad_arguments.values import Floats, Initial, Labels, Source, Targets

MOST = 2**31 - 1
N, C, H, W = 2, 3, 6, 7


def real(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def made(make, arguments, kinds, result=None):
    """A constructor; compared by what it prints, or by `result`."""
    return Case(lambda: (make, dict(arguments)), kinds, result)


# ---- layers --------------------------------------------------------------------------------------


def affine(**arguments):
    return cc.Sequential([cc.Affine(**arguments)], input_shape=(2,)).flat_params.copy()


def convolution(**arguments):
    return cc.Sequential([cc.Conv2D(**arguments)], input_shape=(2, H, W)).flat_params.copy()


def pool(make):
    kinds = {
        "size": Pixels(1, MOST, named=("padding",)),
        "stride": Pixels(1, MOST, optional=True),
        "padding": Pixels(0, MOST),
    }
    return made(make, {"size": 2, "stride": 2, "padding": 0}, kinds)


CONSTRUCTORS = {
    "Affine": Case(
        lambda: (affine, {"units": 3, "weights": real(2, 3), "biases": real(3)}),
        {
            "units": Whole(named=("weights",)),
            "weights": Initial(named=("W:",)),
            "biases": Initial(named=("b:",)),
        },
    ),
    "Conv2D": Case(
        lambda: (
            convolution,
            {"filters": 4, "kernel_size": 2, "weights": real(4, 2, 2, 2), "biases": real(4)}
            | {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
        ),
        {
            "filters": Whole(named=("weights", "groups")),
            "kernel_size": Pixels(1, MOST, named=("weights",)),
            "stride": Pixels(1, MOST),
            "padding": Pixels(0, MOST),
            "dilation": Pixels(1, MOST),
            "groups": Whole(named=("filters",)),
            "weights": Initial(named=("W:",)),
            "biases": Initial(named=("b:",)),
        },
    ),
    "MaxPool2D": pool(cc.MaxPool2D),
    "AvgPool2D": pool(cc.AvgPool2D),
    "Dropout": made(cc.Dropout, {"rate": 0.5}, {"rate": Number(0, 1, open_high=True)}),
    "BatchNorm": made(
        cc.BatchNorm,
        {"momentum": 0.5, "epsilon": 0.25},
        {"momentum": Number(0, 1), "epsilon": Number(0, open_low=True)},
    ),
    "LeakyReLU": made(cc.LeakyReLU, {"slope": 0.5}, {"slope": Number(0)}),
}


def forward(make, *shape, x=None):
    kinds = {"x": x or Floats(tied=(), lone=True), "training": Flag()}
    return Case(lambda: (make().forward, {"x": real(*shape)}), kinds)


def backward(make, *shape, training=True, dout=None):
    """The gradient after a forward pass of x of this shape."""

    def start():
        layer = make()
        return layer.backward, {"dout": layer.forward(real(*shape), training) + 0}

    return Case(start, {"dout": dout or Floats()})


IMAGES = N, C, H, W
ANY = Floats(any_shape=True)
LAYERS = {
    "Affine": (lambda: cc.Affine(3), (N, C), None),
    "Conv2D": (lambda: cc.Conv2D(4, 2), IMAGES, None),
    "_Pool2D": (lambda: cc.MaxPool2D(2), IMAGES, None),
    "AvgPool2D": (lambda: cc.AvgPool2D(2), IMAGES, None),
    "GlobalAvgPool2D": (cc.GlobalAvgPool2D, IMAGES, None),
    "Flatten": (cc.Flatten, IMAGES, Source()),
    "Dropout": (lambda: cc.Dropout(0.5), (N, C), ANY),
    "BatchNorm": (cc.BatchNorm, (N, C), Floats(tied=(), lone=True)),
    "_Activation": (cc.Tanh, (N, C), ANY),
    "Softmax": (cc.Softmax, (N, C), Source()),
}
#: what moves elements only takes them in any type of float
MOVING = ("Flatten", "_Pool2D", "AvgPool2D", "GlobalAvgPool2D", "Dropout")
PASSES = {
    f"{name}.forward": forward(make, *shape, x=x) for name, (make, shape, x) in LAYERS.items()
} | {
    f"{name}.backward": backward(make, *shape, dout=Floats(lone=name in MOVING))
    for name, (make, shape, _) in LAYERS.items()
}


# ---- losses --------------------------------------------------------------------------------------


def loss_of(loss, t):
    scores = Floats(tied=() if isinstance(t, Labels) else (0, 1), lone=True, named=("t", "scores"))

    def start():
        labels = np.array([2, 0]) if isinstance(t, Labels) else real(N, C, seed=1)
        return loss().forward, {"y": real(N, C), "t": labels}

    return Case(start, {"y": scores, "t": t})


REDUCTION = {"reduction": Choice()}
LOSSES = {
    "_Compiled.forward": loss_of(cc.SoftmaxCrossEntropy, Labels(classes=C)),
    "_Compiled.forward of rows": loss_of(cc.SumSquaredError, Targets()),
    **{
        kind.__name__: made(kind, {"reduction": "sum"}, REDUCTION)
        for kind in (
            cc.Loss,
            cc.SoftmaxCrossEntropy,
            cc.BinaryCrossEntropy,
            cc.MeanSquaredError,
            cc.SumSquaredError,
        )
    },
}


# ---- initializers, optimizers, schedules ---------------------------------------------------------

SHARE, RATE, POSITIVE = Number(0, 1), Number(0), Number(0, open_low=True)
BELOW_ONE = Number(0, 1, open_high=True)
COMMON = {
    "lr": RATE,
    "weight_decay": RATE,
    "decay_biases": Flag(),
    "clip_norm": Number(0, open_low=True, optional=True),
    "clip_value": Number(0, open_low=True, optional=True, named=("clip_norm",)),
}


class Factors(Instance):
    """Name of a parameter to number."""

    def bad(self, value):
        for label, wrong in super().bad(value):
            if not isinstance(wrong, dict):
                yield label, wrong
        for label, wrong in Number().bad(0.5):
            yield f"W1: {label}", {"W1": wrong}


def optimizer(kind, good, **kinds):
    """Every argument of an optimizer, the common ones, too."""
    good = {"lr": 0.5, "weight_decay": 0.5, "clip_norm": 0.5, "lr_multipliers": {"W1": 2.0}} | good
    kinds = COMMON | {"lr_multipliers": Factors(optional=True)} | kinds
    return made(kind, good, kinds, lambda result: result.get_config())


def schedule(kind, good, **kinds):
    return made(kind, {**good, "warmup": 0.25}, {**kinds, "warmup": SHARE})


INITIALIZERS = {
    "Normal": made(cc.Normal, {"std": 0.5}, {"std": RATE}),
    "Uniform": made(
        cc.Uniform,
        {"low": -0.5, "high": 0.5},
        {"low": Number(), "high": Number()},
    ),
}
MOMENTS = {"beta1": 0.5, "beta2": 0.5, "epsilon": 0.5}
OPTIMIZERS = {
    "Optimizer": optimizer(cc.Optimizer, {}),
    **{
        name: optimizer(
            kind,
            {"momentum": 0.5},
            momentum=SHARE,
            nesterov=Flag(),
            weight_decay=Number(0, optional=True),
        )
        for name, kind in {"SGD": cc.SGD, "SGDW": cc.SGDW}.items()
    },
    "AdaGrad": optimizer(
        cc.AdaGrad, {"epsilon": 0.5, "initial_total": 0.5}, epsilon=POSITIVE, initial_total=RATE
    ),
    "RMSprop": optimizer(
        cc.RMSprop,
        {"decay_rate": 0.5, "momentum": 0.5, "epsilon": 0.5},
        decay_rate=BELOW_ONE,
        momentum=SHARE,
        epsilon=POSITIVE,
    ),
    "Adam": optimizer(
        cc.Adam,
        MOMENTS,
        beta1=BELOW_ONE,
        beta2=BELOW_ONE,
        epsilon=POSITIVE,
        weight_decay=Number(0, optional=True),
    ),
    "AdamW": optimizer(
        cc.AdamW,
        MOMENTS,
        beta1=BELOW_ONE,
        beta2=BELOW_ONE,
        epsilon=POSITIVE,
        weight_decay=Number(0, optional=True),
    ),
}
SCHEDULES = {
    "Schedule": schedule(cc.schedules.Schedule, {}),
    "Constant": schedule(cc.schedules.Constant, {}),
    "StepDecay": schedule(
        cc.schedules.StepDecay,
        {"at": [0.25, 0.5], "factor": 0.5},
        at=Listed(inner=SHARE),
        factor=SHARE,
    ),
    "ExponentialDecay": schedule(
        cc.schedules.ExponentialDecay, {"final": 0.5}, final=Number(0, 1, open_low=True)
    ),
    "InverseTimeDecay": schedule(
        cc.schedules.InverseTimeDecay, {"speed": 2.0, "power": 0.5}, speed=RATE, power=RATE
    ),
    "CosineDecay": schedule(cc.schedules.CosineDecay, {"final": 0.5}, final=SHARE),
}


# ---- callbacks -----------------------------------------------------------------------------------


def figures(callback):
    return {name: value for name, value in vars(callback).items() if not callable(value)}


CALLBACKS = {
    "LearningRateSchedule": made(
        cc.LearningRateSchedule, {"schedule": float}, {"schedule": Function()}, figures
    ),
    "EarlyStopping": made(
        cc.EarlyStopping,
        {"monitor": "loss", "patience": 3, "min_delta": 0.5, "mode": "max"},
        {
            "monitor": Flag(),  # looked up when the fit begins, whose figures it must be one of
            "patience": Whole(1, None),
            "min_delta": RATE,
            "restore_best": Flag(),
            "mode": Choice(),
        },
        figures,
    ),
    "CSVLogger": made(cc.CSVLogger, {"path": "x"}, {"path": Path(), "append": Flag()}, figures),
}

CASES = CONSTRUCTORS | PASSES | LOSSES | INITIALIZERS | OPTIMIZERS | SCHEDULES | CALLBACKS
