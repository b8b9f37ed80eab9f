"""Bad arguments of every public function, class and method: refused by name, or right."""

import inspect

import pytest

import cnn_core as cc
from bad_arguments import check, of_files, of_layers, of_networks, of_ops, of_sparse
from cnn_core import callbacks

CASES = of_ops.CASES | of_layers.CASES | of_networks.CASES | of_sparse.CASES | of_files.CASES

MODULES = (
    *(cc, cc.ops, cc.metrics, cc.datasets, cc.models, cc.schedules, cc.optimizers, callbacks),
    *(cc.initializers, cc.losses, cc.plotting, cc.serialization),
)

#: What only the library itself, or a class that extends it, calls: with arguments that were checked
#: when they came in, and with arrays whose sizes the native half checks again.
INSIDE = {
    "a subclass defines it": ("Layer.forward", "Layer.backward", "Loss.forward", "Schedule.decay"),
    "a network calls it with shapes that it has checked": (
        *("Layer.build", "Affine.build", "Conv2D.build", "BatchNorm.build"),
        *("Layer.output_shape", "Affine.output_shape", "Conv2D.output_shape"),
        *("BatchNorm.output_shape", "Dropout.output_shape", "Flatten.output_shape"),
        *("GlobalAvgPool2D.output_shape", "_Pool2D.output_shape", "_Activation.output_shape"),
        *("Softmax.output_shape", "Conv2D.convolution", "_Pool2D.window"),
        *("GlobalAvgPool2D.window", "Loss.scales", "_Compiled.scales", "BinaryCrossEntropy.scales"),
        *("MeanSquaredError.scales", "SumSquaredError.scales"),
        *("initializers.draw", "initializers.to_config", "initializers.from_config"),
        *("Sequential.check_targets", "Sequential.check_weights", "Sequential.fill"),
        "Sequential.plan",
    ),
    "a trainer calls it with the arrays of its network, or itself": (
        *("Optimizer.bind", "Optimizer.new_state", "Optimizer.tasks", "Optimizer.update_task"),
        *("SGD.new_state", "SGD.update_task", "AdaGrad.new_state", "AdaGrad.update_task"),
        *("RMSprop.new_state", "RMSprop.update_task", "Adam.new_state", "Adam.update_task"),
        *("Optimizer.product_update_task", "SGD.product_update_task", "Trainer.update_parts"),
        *("Callback.on_fit_begin", "Callback.on_fit_end", "Callback.on_step_end"),
        *("Callback.on_epoch_begin", "Callback.on_epoch_end", "Callback.on_safe_point"),
        *("Checkpoint.on_fit_begin", "Checkpoint.on_fit_end", "Checkpoint.on_safe_point"),
        *("Callback.load_state", "CSVLogger.load_state", "EarlyStopping.load_state"),
        "LearningRateSchedule.load_state",
        *("CSVLogger.on_fit_begin", "CSVLogger.on_epoch_end", "StopOnNaN.on_step_end"),
        *("EarlyStopping.on_fit_begin", "EarlyStopping.on_fit_end", "EarlyStopping.on_epoch_end"),
        *("LearningRateSchedule.on_fit_begin", "LearningRateSchedule.on_fit_end"),
        "LearningRateSchedule.on_step_end",
        *("Constant.decay", "StepDecay.decay", "ExponentialDecay.decay", "CosineDecay.decay"),
        "InverseTimeDecay.decay",
    ),
    "the checks themselves, and parts of them": (
        *("ops.affine_input_gradient", "ops.check_affine", "ops.loss_scale", "ops.run"),
        *("models.activation_layer", "models.weights_for"),
    ),
}
EXEMPT = {name for names in INSIDE.values() for name in names}


def names_of(module):
    if hasattr(module, "__all__"):
        return module.__all__
    own = module.__name__
    return [n for n, v in vars(module).items() if getattr(v, "__module__", "") == own]


def methods_of(kind):
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        method = getattr(method, "__func__", method)
        if inspect.isfunction(method) and method.__module__.startswith("cnn_core"):
            yield method.__qualname__, name, method


def public():
    """Name and function of all that a user may call, each once."""
    found = {}
    for module in MODULES:
        prefix = module.__name__.removeprefix("cnn_core").removeprefix(".")
        for name in names_of(module):
            value = getattr(module, name)
            if name.startswith("_") or not callable(value):
                continue
            if not inspect.isclass(value):
                found.setdefault(id(value), (f"{prefix}.{name}".removeprefix("."), value))
                continue
            found[id(value)] = (value.__name__, value)
            for qualified, short, method in methods_of(value):
                if not short.startswith("_"):
                    found.setdefault(id(method), (qualified, method))
    return list(found.values())


def parameters_of(function):
    """The names of its arguments; none of what is compiled or only a type."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return set()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    arguments = [name for name, each in signature.parameters.items() if each.kind in named]
    return set(arguments) - {"self", "cls"}


def covered(name):
    """The arguments that the table tries, over all cases of one function."""
    cases = [case for key, case in CASES.items() if key.split(" of ")[0] == name]
    return {argument for case in cases for argument in case.kinds}


def test_every_argument_of_all_that_is_public_stands_in_the_table():
    missing = {
        name: sorted(parameters_of(function) - covered(name))
        for name, function in public()
        if name not in EXEMPT and parameters_of(function) - covered(name)
    }
    assert not missing


def test_the_table_knows_nothing_that_is_gone():
    names = {name for name, _ in public()} | {"AvgPool2D.forward", "AvgPool2D.backward"}
    assert {key.split(" of ")[0] for key in CASES} | EXEMPT <= names


@pytest.mark.parametrize("name", CASES)
def test_bad_arguments_are_refused_by_name_and_good_ones_are_right(name):
    check(CASES[name])
