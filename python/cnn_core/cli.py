"""The command line: cnn-core train | evaluate | predict | gradcheck | bench | info."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, get_args

from cnn_core import _bench, _commands, checkpoints, config, models, ops
from cnn_core._recipes import (
    DEFAULT_MODEL,
    MAY_CHANGE,
    MODELS,
    NOT_KEPT,
    OPTIMIZER_DEFAULTS,
    OPTIMIZERS,
    SCHEDULES,
    Options,
)
from cnn_core.trainer import Report, Sampling

PROGRAM = "cnn-core"


# -------------------------------------------------------------------------------------- options


def _number(
    kind: type, text: str, lowest: float, highest: float = math.inf
) -> Callable[[str], Any]:
    """A converter for argparse: a finite number in lowest..highest."""

    def convert(value: str) -> Any:
        try:
            number = kind(value)
        except ValueError:
            number = math.nan
        if not lowest <= number <= highest or number == math.inf:
            raise argparse.ArgumentTypeError(f"expected {text}, got {value!r}")
        return number

    return convert


_count = _number(int, "an integer >= 1", 1)
_natural = _number(int, "an integer >= 0", 0)
_amount = _number(float, "a number >= 0", 0)
_fraction = _number(float, "a number in 0..1", 0, 1)
_threads = _number(int, "an integer in 1..1024", 1, 1024)


def _model_name(value: str) -> str:
    if value not in MODELS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(MODELS)}, got {value!r}")
    return value


def _defaults_of(name: str) -> str:
    """The defaults of an option, for its help, by models that have it."""
    texts = []
    for model, entry in MODELS.items():
        if name not in entry.defaults:
            continue
        value = entry.defaults[name]
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        texts.append(f"{model} {'He or Glorot' if value is None else text}")
    return f"(default: {', '.join(texts)})"


def _add_network_options(parser: argparse.ArgumentParser, default_model: str) -> None:
    add = parser.add_argument
    known = "; ".join(f"{name}: {model.text}" for name, model in MODELS.items())
    add(
        "--model",
        choices=list(MODELS),
        default=default_model,
        help=f"{known} (default: {default_model})",
    )
    add(
        "--activation",
        choices=sorted(models.ACTIVATIONS),
        help=f"between the layers {_defaults_of('activation')}",
    )
    add(
        "--hidden",
        type=_count,
        nargs="+",
        metavar="UNITS",
        help=f"sizes of the hidden layers {_defaults_of('hidden')}",
    )
    add(
        "--weight-init-std",
        type=_amount,
        metavar="STD",
        help=f"normal initial weights of this width {_defaults_of('weight_init_std')}",
    )
    add("--seed", type=_natural, default=0, help="everything random follows from it (default: 0)")


def _add_common_options(
    parser: argparse.ArgumentParser,
    threads: str = "results do not depend on it (default: one per processor)",
) -> None:
    parser.add_argument("--threads", type=_threads, metavar="N", help=threads)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as one JSON object on the last line of stdout",
    )


def _add_data_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        default="mnist",
        metavar="mnist|FOLDER",
        help="MNIST, which is part of the package, or a folder with its four IDX files",
    )


def _add_optimizer_options(add: Callable[..., Any]) -> None:
    others = ", ".join(f"{name} {entry['lr']:g}" for name, entry in OPTIMIZER_DEFAULTS.items())
    add("--optimizer", choices=list(OPTIMIZERS), help=_defaults_of("optimizer"))
    add(
        "--lr",
        type=_amount,
        help=f"learning rate {_defaults_of('lr')}; of another optimizer than these have: {others}",
    )
    add(
        "--momentum",
        type=_fraction,
        help=f"of sgd and rmsprop: share of the last step that is kept {_defaults_of('momentum')}",
    )
    add("--weight-decay", type=_amount, help="(default: 0, of adamw 0.01)")
    add(
        "--clip-norm",
        type=_amount,
        metavar="NORM",
        help="scale all gradients down to this norm where it is larger (default: never)",
    )
    add(
        "--schedule",
        choices=list(SCHEDULES),
        help="of the learning rate: constant; a tenth of it after 1/2 and 3/4 of the training;"
        " exponential decay to 1/100; inverse decay to 1/10; or a linear rise for the first tenth,"
        f" then half a cosine wave down to 0 {_defaults_of('schedule')}",
    )


def _add_train(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add_command("train", help="train a network and write it to a folder")
    parser.set_defaults(run=_commands.train)
    _add_network_options(parser, DEFAULT_MODEL)
    _add_data_option(parser)
    add = parser.add_argument
    add("--limit-train", type=_count, metavar="N", help="use the first N training images only")
    add(
        "--epochs",
        type=_count,
        help=f"passes over the training images {_defaults_of('epochs')}; with --iterations as many"
        " as these need",
    )
    add("--iterations", type=_count, metavar="N", help="stop after N updates")
    add(
        "--batch-size",
        type=_count,
        metavar="N",
        help=f"images per update {_defaults_of('batch_size')}",
    )
    add(
        "--sampling",
        choices=get_args(Sampling),
        default="shuffle",
        help="order of the images: shuffled anew for each epoch, drawn with replacement as in the"
        " books, or as they come (default: shuffle)",
    )
    add(
        "--report",
        choices=get_args(Report),
        default="running",
        help="figures of the training images: means over the batches of the epoch, or measured on"
        " all of them after the first update of each epoch as in the books (default: running)",
    )
    _add_optimizer_options(add)
    add(
        "--early-stopping",
        type=_count,
        metavar="N",
        help="stop after N epochs without a smaller loss on the test images, and keep the best"
        " network (default: never)",
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    add(
        "--out",
        metavar="FOLDER",
        help="for model.safetensors, history.json and curves.png (default: cnn-core-run, or the"
        " folder that is resumed)",
    )
    _add_checkpoint_options(add)
    _add_common_options(parser)
    add("--quiet", action="store_true", help="print nothing but errors, and what --json asks for")


def _add_checkpoint_options(add: Callable[..., Any]) -> None:
    add(
        "--checkpoint-every",
        type=_count,
        metavar="N",
        help="save the training every N updates, so that it can be resumed after a crash (default:"
        " once per epoch with --checkpoint, else only when it is interrupted)",
    )
    add(
        "--checkpoint",
        metavar="FOLDER",
        help="for checkpoint.safetensors (default: that of --out); one training at a time",
    )
    add(
        "--resume",
        metavar="FOLDER",
        help="go on with the training that was saved there; its options need not be given again",
    )


def _add_bench(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add_command("bench", help="time a step of training, and its kernels")
    parser.set_defaults(
        run=_bench.bench, activation=None, hidden=None, weight_init_std=None, seed=0
    )
    parser.set_defaults(clip_norm=None, early_stopping=None)
    add = parser.add_argument
    add(
        "models",
        metavar="MODEL",
        nargs="*",
        type=_model_name,
        default=list(MODELS),
        help=f"{', '.join(MODELS)} (default: all)",
    )
    add("--kernels", action="store_true", help="time every kernel alone, too")
    add(
        "--batch-size",
        type=_count,
        metavar="N",
        help=f"images per update {_defaults_of('batch_size')}",
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    add("--seconds", type=_amount, default=0.5, help="of each measurement (default: 0.5)")
    _add_common_options(parser, "(default: steps by 1 and by one per processor, kernels by 1)")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Neural networks on the CPU: train, evaluate, predict."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {config.version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_command: Callable[..., argparse.ArgumentParser] = commands.add_parser
    _add_train(add_command)

    evaluate_parser = add_command("evaluate", help="loss, accuracy and confusion matrix of a model")
    evaluate_parser.set_defaults(run=_commands.evaluate)
    evaluate_parser.add_argument("file", metavar="MODEL", help="a model.safetensors")
    _add_data_option(evaluate_parser)
    evaluate_parser.add_argument(
        "--plots",
        metavar="FOLDER",
        help="write confusion_matrix.png and misclassified.png there (needs cnn-core[plot])",
    )
    _add_common_options(evaluate_parser)

    predict_parser = add_command("predict", help="class and probability of pictures")
    predict_parser.set_defaults(run=_commands.predict)
    predict_parser.add_argument("file", metavar="MODEL", help="a model.safetensors")
    predict_parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="PNG, JPEG, ... (needs cnn-core[images])"
    )
    _add_common_options(predict_parser)

    check_parser = add_command(
        "gradcheck", help="compare back-propagation with the numerical gradient, in float64"
    )
    check_parser.set_defaults(run=_commands.gradcheck, dtype="float64")
    _add_network_options(check_parser, "two_layer")
    check_parser.add_argument(
        "--rows",
        type=_count,
        default=3,
        metavar="N",
        help="MNIST images to compute them from (default: 3)",
    )
    _add_common_options(check_parser)

    _add_bench(add_command)

    info_parser = add_command("info", help="version, instruction set, OpenMP and threads")
    info_parser.set_defaults(run=_commands.info)
    _add_common_options(info_parser)
    return parser


# ----------------------------------------------------------------------------------------- main


def _options(argv: Sequence[str]) -> Options:
    """The options of a command line; of one that resumes a training, with those that it had."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if getattr(options, "resume", None) is not None:
        saved = checkpoints.read(options.resume)
        words = _words(saved)
        before = _parse_quietly(parser, words)
        if before is None:
            raise ValueError(f"{saved.path}: notes: expected options of {PROGRAM} train")
        options = parser.parse_args(["train", *words, *argv[1:]])
        for name in set(before) - NOT_KEPT - MAY_CHANGE:
            value = vars(options)[name]
            if value != before[name]:
                found = f"expected {before[name]}, as in {saved.path}, got {value}"
                raise ValueError(f"--{name.replace('_', '-')}: {found}")
    options.given = {name for name, value in vars(options).items() if value is not None}
    return options


def _words(saved: checkpoints.Checkpointed) -> list[str]:
    """The options that a checkpoint has kept, as they are written."""
    kept = saved.notes.get("options")
    if not isinstance(kept, dict) or NOT_KEPT & set(kept):
        raise ValueError(f"{saved.path}: notes: expected a checkpoint of {PROGRAM} train")
    words: list[str] = []
    for name, value in kept.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words.append(f"{flag}={value}")
    return words


def _parse_quietly(parser: argparse.ArgumentParser, words: list[str]) -> dict[str, Any] | None:
    """The options of `train`; None where they make no sense, as in a file from elsewhere."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return vars(parser.parse_args(["train", *words]))
    except SystemExit:
        return None


@contextlib.contextmanager
def _surroundings(options: Options) -> Iterator[None]:
    """While a command runs: its number of threads and, with --json, only JSON on stdout."""
    options.stdout = sys.stdout
    before = ops.get_num_threads()
    if options.threads is not None:
        ops.set_num_threads(options.threads)
    try:
        with contextlib.ExitStack() as stack:
            if options.json:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield
        sys.stdout.flush()
    finally:
        if options.threads is not None:
            ops.set_num_threads(before)


def _explain(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    return " ".join(str(error).split()) or type(error).__name__


def _silence_stdout() -> None:
    """Send what is still in the buffer of a closed pipe nowhere, so that Python exits quietly."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Terminated(KeyboardInterrupt):
    """SIGTERM: everything ends as after Ctrl-C, but for the exit code."""


@contextlib.contextmanager
def _termination() -> Iterator[None]:
    """Let SIGTERM raise _Terminated, if it would have killed the process."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 1: it failed, with a line on stderr, or gradcheck found a difference; 2 (by SystemExit
    from argparse): wrong options; 130: interrupted by Ctrl-C; 143: by SIGTERM.
    """
    # Else the collector looks at all objects once more, and ending takes three times as long.
    atexit.register(gc.freeze)
    try:
        with _termination():
            options = _options(sys.argv[1:] if argv is None else argv)
            with _surroundings(options):
                return int(options.run(options))
    except _Terminated:
        print(f"{PROGRAM}: terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except (OSError, ValueError, ImportError, MemoryError) as error:
        print(f"{PROGRAM}: error: {_explain(error)}", file=sys.stderr)
        return 1
