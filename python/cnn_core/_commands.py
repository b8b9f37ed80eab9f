"""What the commands of `cnn-core` do; their options are in cli.py."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import config, datasets, losses, metrics, ops, plotting, serialization
from cnn_core._files import write_atomically
from cnn_core._pictures import image_size, read_image
from cnn_core._recipes import NOT_KEPT, Options, build_network, build_trainer
from cnn_core.checkpoints import Checkpoint, path_of
from cnn_core.image_layers import Conv2D
from cnn_core.layers import Layer, Softmax
from cnn_core.network import Sequential
from cnn_core.trainer import Trainer

Array = npt.NDArray[Any]

TOLERANCE = 1e-6  # of gradcheck: mean difference per parameter


# ------------------------------------------------------------------------------------------ data


def load_data(name: str) -> datasets.idx.Dataset:
    """MNIST or a folder of IDX files, images (N, 1, H, W) in bytes.

    Bytes take a quarter of the memory of floats and train as fast: they are scaled by 1/255
    while a batch is gathered.
    """
    if name == "mnist":
        return datasets.load_mnist(normalize=False, flatten=False)
    return datasets.load_idx(name, normalize=False, flatten=False)


# ------------------------------------------------------------------------------------- commands


def train(options: Options) -> int:
    """cnn-core train."""
    say: Callable[[str], None] = (lambda text: None) if options.quiet else print
    checkpoint, folder = _checkpoint(options)
    (x, t), test = load_data(options.data)
    for part, images in (("training", x), ("test", test[0])):
        if not images.size:
            raise ValueError(f"{options.data}: no {part} images, or images without a pixel")
    n_classes = max(2, *(int(labels.max(initial=0)) + 1 for labels in (t, test[1])))
    x, t = x[: options.limit_train], t[: options.limit_train]
    net = build_network(options, x.shape[1:], n_classes)
    trainer = build_trainer(options, net, [checkpoint])
    folder.mkdir(parents=True, exist_ok=True)
    environment = ops.native_config()
    say(
        f"{options.data}: {len(x):,} training and {len(test[0]):,} test images of"
        f" {x.shape[2]} x {x.shape[3]}, {n_classes} classes"
    )
    say(
        f"{options.model}: {_describe(net)}, {net.n_params:,} parameters, {net.dtype};"
        f" {environment['threads']} thread(s), {environment['isa']}"
    )
    say(
        f"{options.optimizer}, learning rate {options.lr:g}, {options.schedule};"
        f" batches of {options.batch_size}"
    )
    began = time.perf_counter()
    try:
        history = _fit(options, trainer, x, t, test)
    except KeyboardInterrupt:
        _write_history(trainer.history, folder)
        say(f"stopped after {trainer.iteration:,} updates; wrote {folder / 'history.json'}")
        if os.path.exists(checkpoint.path):
            say(f"to go on: cnn-core train --resume {checkpoint.folder}")
        raise
    seconds = time.perf_counter() - began
    if options.early_stopping is None:  # else the parameters are those of another epoch
        test_loss, test_accuracy = history["val_loss"][-1], history["val_accuracy"][-1]
    else:
        test_loss, test_accuracy = net.evaluate(*test)
    say(f"test accuracy {test_accuracy:.4f} after {trainer.iteration:,} updates in {seconds:.1f} s")
    if not math.isfinite(test_loss):
        say("the loss is no longer finite: a smaller --lr may help")
    _write_results(net, history, folder, f"{options.model} on {options.data}", say)
    print_json(
        options,
        {
            "model": options.model,
            "dataset": options.data,
            "optimizer": options.optimizer,
            "schedule": options.schedule,
            "epochs": len(history["loss"]),
            "iterations": trainer.iteration,
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
            "train_seconds": seconds,
            "parameters": net.n_params,
            "threads": environment["threads"],
            "isa": environment["isa"],
            "dtype": net.dtype.name,
            "seed": net.seed,
            "out": os.fspath(folder),
        },
    )
    return 0


def _checkpoint(options: Options) -> tuple[Checkpoint, Path]:
    """What saves the training, and the folder for its results."""
    resumed = None if options.resume is None else os.path.dirname(path_of(options.resume))
    folder = options.out or resumed or "cnn-core-run"
    every = options.checkpoint_every
    if every is None and not (options.checkpoint or resumed):
        every = 0  # of an interrupted training only
    kept = {name: getattr(options, name) for name in options.given - NOT_KEPT}
    checkpoint = Checkpoint(options.checkpoint or resumed or folder, every, notes={"options": kept})
    return checkpoint, Path(folder)


def _fit(
    options: Options, trainer: Trainer, x: Array, t: Array, test: tuple[Array, Array]
) -> dict[str, list[float]]:
    verbose = not options.quiet
    if options.resume is not None:
        return trainer.resume(options.resume, x, t, validation_data=test, verbose=verbose)
    return trainer.fit(
        x,
        t,
        epochs=_epochs(options, len(x)),
        batch_size=options.batch_size,
        sampling=options.sampling,
        iterations=options.iterations,
        validation_data=test,
        report=options.report,
        verbose=verbose,
    )


def _epochs(options: Options, rows: int) -> int:
    """The number of epochs, or of those that the iterations need where only these are given."""
    if "epochs" in options.given or options.iterations is None:
        return int(options.epochs)
    updates_per_epoch = math.ceil(rows / int(options.batch_size))
    return math.ceil(int(options.iterations) / updates_per_epoch)


def _describe(net: Sequential) -> str:
    """The layers in one line: 1 x 28 x 28, Conv2D 6 5x5, ReLU, MaxPool2D 2x2, ..., Affine 10."""
    return ", ".join([" x ".join(map(str, net.input_shape)), *map(describe_layer, net.layers)])


def describe_layer(layer: Layer) -> str:
    """A layer and its sizes: Conv2D 6 5x5."""
    numbers = [getattr(layer, name, None) for name in ("units", "filters", "rate")]
    sizes = [getattr(layer, name, None) for name in ("kernel_size", "size")]
    texts = [f"{number}" for number in numbers if number is not None]
    texts += ["x".join(map(str, size)) for size in sizes if size is not None]
    return " ".join([type(layer).__name__, *texts])


def _write_results(
    net: Sequential,
    history: dict[str, list[float]],
    folder: Path,
    title: str,
    say: Callable[[str], None],
) -> None:
    net.save(folder / "model.safetensors")
    _write_history(history, folder)
    written = ["model.safetensors", "history.json"]
    try:
        plotting.plot_history(history, folder / "curves.png", title=title)
        written.append("curves.png")
    except ImportError as error:
        say(f"no curves.png: {error}")
    say(f"wrote {', '.join(str(folder / name) for name in written)}")


def _write_history(history: dict[str, list[float]], folder: Path) -> None:
    text = json.dumps(_plain(history), indent=1) + "\n"
    write_atomically(folder / "history.json", text.encode())


def evaluate(options: Options) -> int:
    """cnn-core evaluate."""
    folder = None if options.plots is None else Path(options.plots)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    net = serialization.load_model(options.file)
    _, (x, t) = load_data(options.data)
    classes = _n_classes(net)
    if t.max(initial=0) >= classes:
        raise ValueError(f"{options.data}: label {t.max()}, but the model has {classes} classes")
    by_labels = isinstance(net.loss_function, losses.SoftmaxCrossEntropy)
    targets = t if by_labels else np.eye(classes, dtype=net.dtype)[t]
    loss, accuracy = net.evaluate(x, targets)
    matrix = metrics.confusion_matrix(net.predict(x), t)
    print(f"{options.file} on {options.data}, {len(x):,} test images")
    print(f"loss {loss:.4f}  accuracy {accuracy:.4f}")
    print("confusion matrix: a row per true class, a column per predicted class")
    print(_format_matrix(matrix))
    pictures = [] if folder is None else _write_pictures(net, x, t, matrix, folder)
    print_json(
        options,
        {
            "plots": pictures,
            "model": options.file,
            "dataset": options.data,
            "images": len(x),
            "loss": loss,
            "accuracy": accuracy,
            "confusion_matrix": matrix.tolist(),
        },
    )
    return 0


def _write_pictures(net: Sequential, x: Array, t: Array, matrix: Array, folder: Path) -> list[str]:
    paths = [folder / "confusion_matrix.png", folder / "misclassified.png"]
    plotting.plot_confusion_matrix(matrix, paths[0])
    plotting.show_misclassified(net, x, t, paths[1])
    print(f"wrote {', '.join(map(str, paths))}")
    return [str(path) for path in paths]


def _n_classes(net: Sequential) -> int:
    classes = math.prod(net.output_shape)
    if classes < 2:
        raise ValueError("the model has one output; a classifier has one per class")
    return classes


def _format_matrix(matrix: Array) -> str:
    width = max(len(str(matrix.max())), len(str(len(matrix) - 1))) + 1
    head = " " * width + "".join(f"{name:>{width}}" for name in range(len(matrix)))
    rows = [
        f"{name:>{width}}" + "".join(f"{count:>{width}}" for count in row)
        for name, row in enumerate(matrix.tolist())
    ]
    return "\n".join([head, *rows])


def predict(options: Options) -> int:
    """cnn-core predict."""
    net = serialization.load_model(options.file)
    _n_classes(net)
    height, width = image_size(net.input_shape)
    images = np.stack([read_image(path, height, width) for path in options.images])
    probabilities = _probabilities(net, images[:, np.newaxis])
    results = [
        {"file": path, "class": int(row.argmax()), "probability": float(row.max())}
        for path, row in zip(options.images, probabilities, strict=True)
    ]
    for result in results:
        print(f"{result['file']}: {result['class']} ({result['probability']:.4f})")
    print_json(options, {"model": options.file, "predictions": results})
    return 0


def _probabilities(net: Sequential, images: Array) -> Array:
    """The outputs (N, C) in float64, made into probabilities where the loss works on scores."""
    scores = net.predict(images).reshape(len(images), -1).astype(np.float64)
    if isinstance(net.loss_function, losses.BinaryCrossEntropy):
        return ops.sigmoid_forward(scores)
    on_scores = isinstance(net.loss_function, losses.SoftmaxCrossEntropy)
    if on_scores and not (net.layers and isinstance(net.layers[-1], Softmax)):
        return ops.softmax_forward(scores)
    return scores


def gradcheck(options: Options) -> int:
    """cnn-core gradcheck: the comparison of Saito's book, section 5.7.3.

    Where a convolution slides over the empty ground of an image, its output is the bias; with that
    at 0 all of the ground lies on the kink of the ReLU, where there is no gradient. So biases are
    moved away from 0 first, and the steps are small enough to rarely cross a kink elsewhere.
    """
    (x, t), _ = load_data("mnist")
    net = build_network(options, x.shape[1:], 10)
    x, t = x[: options.rows], t[: options.rows]
    h = 1e-4
    if any(isinstance(layer, Conv2D) for layer in net.layers):
        h, rng = 1e-6, np.random.default_rng(net.seed)
        for name, array in net.params.items():
            if name.startswith("b"):
                array += rng.uniform(0.05, 0.15, array.shape)
    backward, numerical = net.gradient(x, t), net.numerical_gradient(x, t, h=h)
    differences = {
        name: float(np.abs(backward[name] - numerical[name]).mean()) for name in net.params
    }
    # Written so that a NaN counts as a failure.
    failed = [name for name, value in differences.items() if not value <= TOLERANCE]
    print(f"{options.model}: {_describe(net)}, {len(x)} images, {net.dtype}")
    print("mean absolute difference between back-propagation and the numerical gradient:")
    for name, value in differences.items():
        print(f"{name:<4} {value:.3e}{'  FAILED' if name in failed else ''}")
    print(f"{'above' if failed else 'all within'} {TOLERANCE:g}{f': {failed}' if failed else ''}")
    print_json(
        options,
        {
            "model": options.model,
            "rows": len(x),
            "differences": differences,
            "tolerance": TOLERANCE,
            "passed": not failed,
        },
    )
    return 1 if failed else 0


def info(options: Options) -> int:
    """cnn-core info."""
    values = config.config()
    print(config.format_config(values))
    print_json(options, values)
    return 0


def _plain(value: Any) -> Any:
    """A value as JSON knows it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def print_json(options: Options, result: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(_plain(result)), file=options.stdout)
