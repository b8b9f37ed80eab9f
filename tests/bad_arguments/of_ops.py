"""Bad arguments of cnn_core.ops: refused by name, or right."""

import numpy as np

import cnn_core as cc
from bad_arguments import Case
from bad_arguments.scalars import Choice, Dtype, Flag, Instance, Number, Pixels, Sizes, Whole
from bad_arguments.values import Changed, Floats, Labels, Out, Outs, Source, Targets
from cnn_core import ops

N, I, O = 4, 6, 3  # noqa: E741 - the alphabet of axes
MOST = 2**31 - 1


def real(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def case(name, arguments, kinds, **options):
    """`arguments` is a function: each call gets arrays of its own."""
    return Case(lambda: (getattr(ops, name), arguments()), kinds, **options)


# ---- dense ---------------------------------------------------------------------------------------

ACTIVATION, SLOPE = Choice(optional=True), Number(0)


def rows(*names):
    """Equal shapes (N, I), one array per name."""
    return {name: real(N, I, seed=seed) for seed, name in enumerate(names)}


def forward(name, arguments=None, **kinds):
    kinds = {"x": Floats(any_shape=True), **kinds, "out": Out()}
    return case(name, lambda: rows("x") | (arguments or {}), kinds)


def backward(name, arguments=None, **kinds):
    kinds = {"dout": Floats(), "y": Floats(named=("dout",)), **kinds, "out": Out()}
    return case(name, lambda: rows("dout", "y") | (arguments or {}), kinds)


def loss(name, t, first="scores"):
    tied = () if isinstance(t, Labels) else (0, 1)
    scores = Floats(tied=tied, lone=True, named=("t",))
    kinds = {first: scores, "t": t, "reduction": Choice(), "out": Out()}

    def arguments():
        labels = np.array([0, 2, 1, 1]) if isinstance(t, Labels) else real(N, O, seed=1)
        return {first: real(N, O), "t": labels, "reduction": "mean"}

    return case(name, arguments, kinds, outputs=lambda result: result[1])


SLOPED = {"activation": "tanh", "slope": 0.5}
DENSE = {
    "ops.affine_forward": case(
        "affine_forward",
        lambda: {"x": real(N, I), "W": real(I, O), "b": real(O), "activation": "relu", "slope": 0},
        {
            "x": Floats(tied=(1,), named=("W",)),
            "W": Floats(named=("x", "b")),
            "b": Floats(optional=True),
            "activation": ACTIVATION,
            "slope": SLOPE,
            "out": Out(),
        },
    ),
    "ops.affine_backward": case(
        "affine_backward",
        lambda: {"dout": real(N, O), "x": real(N, I), "W": real(I, O)},
        {
            "dout": Floats(),
            "x": Floats(named=("W", "dout")),
            "W": Floats(named=("x", "dout")),
            "out": Outs(),
        },
    ),
    "ops.activation_forward": forward(
        "activation_forward", SLOPED, activation=ACTIVATION, slope=SLOPE
    ),
    "ops.activation_backward": backward(
        "activation_backward", SLOPED, activation=ACTIVATION, slope=SLOPE
    ),
    "ops.leaky_relu_forward": forward("leaky_relu_forward", {"slope": 0.5}, slope=SLOPE),
    "ops.leaky_relu_backward": backward("leaky_relu_backward", {"slope": 0.5}, slope=SLOPE),
    **{
        f"ops.{name}_forward": forward(f"{name}_forward")
        for name in ("sigmoid", "tanh", "relu", "softmax")
    },
    **{
        f"ops.{name}_backward": backward(f"{name}_backward")
        for name in ("sigmoid", "tanh", "relu", "softmax")
    },
    "ops.softmax_cross_entropy": loss("softmax_cross_entropy", Labels(classes=O)),
    "ops.softmax_cross_entropy of rows": loss("softmax_cross_entropy", Targets()),
    "ops.binary_cross_entropy": loss("binary_cross_entropy", Targets()),
    "ops.mean_squared_error": loss("mean_squared_error", Targets(), "y"),
    "ops.sum_squared_error": loss("sum_squared_error", Targets(), "y"),
}


# ---- mini-batches, updates, threads --------------------------------------------------------------


def update(**arguments):
    ops.sgd_update(**arguments)
    return [arguments["params"].copy(), arguments["velocity"].copy()]


def thread_count(n):
    before = ops.get_num_threads()
    try:
        ops.set_num_threads(n)
        return ops.get_num_threads()
    finally:
        ops.set_num_threads(before)


class Perturbed(Changed):
    """Any array of floats that can be written to; Python code moves its elements."""

    def bad(self, value):
        for label, wrong in super().bad(value):
            if label not in ("float16", "big endian", "strided", "unaligned"):
                yield label, wrong


REST = {
    "ops.gather_rows": case(
        "gather_rows",
        lambda: {
            "source": real(5, I),
            "indices": np.array([4, 0, 3]),
            "scale": 0.5,
            "dtype": "float32",
        },
        {
            "source": Source(),
            "indices": Labels(classes=5, free=True),
            "scale": Number(),
            "dtype": Dtype(optional=True),
            "out": Out(named=("dtype",)),
        },
    ),
    "ops.sgd_update": Case(
        lambda: (
            update,
            {"params": real(N), "grads": real(N, seed=1), "lr": 0.5, "momentum": 0.5}
            | {"nesterov": True, "weight_decay": 0.25, "velocity": real(N, seed=2)},
        ),
        {
            "params": Changed(named=("grads", "velocity")),
            "grads": Floats(),
            "lr": Number(),
            "momentum": Number(),
            "nesterov": Flag(),
            "weight_decay": Number(),
            "velocity": Changed(),
        },
    ),
    "set_num_threads": Case(lambda: (thread_count, {"n": 3}), {"n": Whole(0, 1024)}),
    "numerical_gradient": Case(
        lambda: (
            cc.numerical_gradient,
            {"f": lambda x: float((x**2).sum()), "x": real(3).astype(float), "h": 0.125},
        ),
        {"f": Instance(), "x": Perturbed(any_shape=True), "h": Number(0, open_low=True)},
    ),
}


# ---- images --------------------------------------------------------------------------------------

GEOMETRY = {
    "stride": Pixels(1, MOST, named=("dout",)),
    "padding": Pixels(0, MOST, named=("dout",)),
    "dilation": Pixels(1, MOST, named=("dout",)),
    "groups": Whole(1, 1, named=("x",)),
}
WINDOW = {
    "size": Pixels(1, MOST, named=("x", "which", "dout")),
    "stride": Pixels(1, MOST, optional=True),
    "padding": Pixels(0, MOST, named=("size",)),
}


def convolution():
    given = {"x": real(2, 2, 6, 7), "W": real(4, 2, 3, 2), "b": real(4)}
    return given | {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def convolution_backward():
    arguments = convolution()
    del arguments["b"]
    return {"dout": real(2, 4, 4, 6), **arguments}


def windows():
    return {"size": 2, "stride": 2, "padding": 0}


def pooled():
    return ops.max_pool2d_forward(real(2, 3, 6, 7), 2)[1]


def norm():
    given = {"x": real(N, I), "gamma": real(I), "beta": real(I, seed=1)}
    running = {"running_mean": real(I, seed=2), "running_var": abs(real(I, seed=3))}
    return {**given, **running, "momentum": 0.25, "epsilon": 0.5}


class Which(Labels):
    """The second result of max_pool2d_forward: int32, and nothing else."""

    def same(self, value):
        for label, other in super().same(value):
            if getattr(other, "dtype", None) == np.int32 and not np.ma.isMaskedArray(other):
                yield label, other


IMAGES = {
    "ops.conv2d_forward": case(
        "conv2d_forward",
        convolution,
        {
            "x": Floats(tied=(1,), named=("W",)),
            "W": Floats(tied=(1,), named=("x", "b")),
            "b": Floats(optional=True),
            **GEOMETRY,
            "out": Out(),
        },
    ),
    "ops.conv2d_backward": case(
        "conv2d_backward",
        convolution_backward,
        {
            "dout": Floats(),
            "x": Floats(named=("W", "dout")),
            "W": Floats(named=("x", "dout")),
            **GEOMETRY,
            "out": Outs(),
        },
    ),
    "ops.max_pool2d_forward": case(
        "max_pool2d_forward",
        lambda: {"x": real(2, 3, 6, 7), **windows()},
        {"x": Floats(tied=(), lone=True), **WINDOW, "out": Out()},
        outputs=lambda result: result[0],
    ),
    "ops.avg_pool2d_forward": case(
        "avg_pool2d_forward",
        lambda: {"x": real(2, 3, 6, 7), **windows()},
        {"x": Floats(tied=(), lone=True), **WINDOW, "out": Out()},
    ),
    "ops.max_pool2d_backward": case(
        "max_pool2d_backward",
        lambda: (
            {"dout": real(2, 3, 3, 3), "which": pooled(), "input_shape": (2, 3, 6, 7)} | windows()
        ),
        {
            "dout": Floats(named=("which",), lone=True),
            "which": Which(classes=4),
            "input_shape": Sizes(named=("dout", "x")),
            **WINDOW,
            "out": Out(),
        },
    ),
    "ops.avg_pool2d_backward": case(
        "avg_pool2d_backward",
        lambda: {"dout": real(2, 3, 3, 3), "input_shape": (2, 3, 6, 7), **windows()},
        {
            "dout": Floats(lone=True),
            "input_shape": Sizes(named=("dout", "x")),
            **WINDOW,
            "out": Out(),
        },
    ),
    "ops.dropout": case(
        "dropout",
        lambda: {"x": real(N, I), "rate": 0.5, "seed": 3, "layer": 2, "step": 1},
        {
            "x": Source(),
            "rate": Number(0, 1, open_high=True),
            "seed": Whole(0, 2**64 - 1),
            "layer": Whole(0, 2**32 - 1),
            "step": Whole(0, 2**63 - 1),
            "out": Out(),
        },
    ),
    "ops.batch_norm_forward": case(
        "batch_norm_forward",
        norm,
        {
            "x": Floats(tied=(1,), named=("gamma",)),
            "gamma": Floats(),
            "beta": Floats(),
            "running_mean": Changed(),
            "running_var": Changed(),
            "momentum": Number(0, 1),
            "epsilon": Number(0, open_low=True),
            "training": Flag(),
            "out": Out(),
        },
        outputs=lambda result: result[0],
    ),
    "ops.batch_norm_backward": case(
        "batch_norm_backward",
        lambda: rows("dout", "x") | {"gamma": real(I), "table": real(5, I)},
        {
            "dout": Floats(),
            "x": Floats(named=("dout",)),
            "gamma": Floats(),
            "table": Floats(),
            "training": Flag(),
            "out": Outs(),
        },
    ),
}

CASES = DENSE | REST | IMAGES
