"""Checkpoints: all that a training needs to go on after its process has ended, in one file.

A safetensors file. Its tensors are the parameters ("params.W1"), the running statistics
("state.running_mean2"), what the optimizer has accumulated ("optimizer.mean"), the history
("history.loss"), the sums of the present epoch ("sums") and the arrays of callbacks
("callbacks.0.kept.W1"). The metadata has one entry of our own, "cnn_core_checkpoint", in JSON:
the architecture, the optimizer's arguments, the arguments of `Trainer.fit`, the position in it, the
states of the generators, and what the data looked like. Nothing in a file is ever executed.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from cnn_core._checks import as_dict, whole
from cnn_core._files import Lock, PathLike, remove_temporaries, write_atomically
from cnn_core._fit import Fit, Report, Sampling
from cnn_core._tensors import open_tensors, pack_tensors, read_json
from cnn_core.callbacks import Callback

if TYPE_CHECKING:
    from cnn_core.trainer import Trainer

Array = npt.NDArray[Any]

FORMAT = 1
METADATA_KEY = "cnn_core_checkpoint"
FILE, PREVIOUS, LOCK = (
    "checkpoint.safetensors",
    "checkpoint-previous.safetensors",
    "checkpoint.lock",
)
_PREFIXES = ("params.", "state.", "optimizer.", "history.", "callbacks.")
_COUNT = range(2**53)
#: what setters and callbacks raise for values that they cannot use
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_POSITION = {"done": int, "number": int, "in_epoch": bool, "due": bool, "elapsed": float}
_TRAINER = {"epoch": int, "iteration": int, "stop": bool}


class CheckpointError(ValueError):
    """A checkpoint that is damaged or of another training; names the file and the field."""


class Checkpoint(Callback):
    """Saves the training, so that `Trainer.resume` can go on with it and end with the same bits.

    Each checkpoint replaces the one before it, at once or, when the process is killed or the disk
    is full, not at all. One is written before the first update, then as `every` says, when the
    training ends, and when Ctrl-C or another signal has interrupted it.

    Parameters
    ----------
    folder : of checkpoint.safetensors; made if it is not there. It belongs to one fit at a time:
        another one that is writing there makes the fit fail with BlockingIOError. The checkpoint of
        an earlier training that had not come to its end is kept as
        checkpoint-previous.safetensors.
    every : updates from one checkpoint to the next; None (default) for one per epoch; 0 for none
        but that of an interrupt.
    notes : anything that JSON can hold, kept in the file.

    Examples
    --------
    >>> trainer = cc.Trainer(net, cc.Adam(), callbacks=[cc.Checkpoint("run", every=500)])
    >>> trainer.fit(x, t, epochs=20)
    >>> trainer.resume("run", x, t)   # in another process, with a trainer made in the same way
    """

    def __init__(
        self, folder: PathLike, every: int | None = None, *, notes: dict[str, Any] | None = None
    ) -> None:
        self.folder = os.fspath(folder)
        self.path = os.path.join(self.folder, FILE)
        self.every = None if every is None else whole("every", every, 0, "an integer >= 0")
        self.notes = {} if notes is None else as_dict("notes", notes)
        try:
            _to_json(self.notes)
        except (TypeError, ValueError) as error:
            raise TypeError(f"notes: expected what JSON can hold: {error}") from None
        self._lock = Lock(os.path.join(self.folder, LOCK))
        self._last: tuple[int, bool, bool] | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        import safetensors.numpy  # noqa: F401 - not only when a signal waits for it

        os.makedirs(self.folder, exist_ok=True)
        try:
            self._lock.acquire()
        except BlockingIOError as error:
            reason = "another training is writing its checkpoints there"
            raise BlockingIOError(error.errno, reason, self.folder) from None
        self._last = None
        remove_temporaries(self.path)
        run = trainer._fit
        resumed = run is not None and run.resumed_from == os.path.realpath(self.path)
        if not resumed and os.path.exists(self.path) and not self._finished():
            os.replace(self.path, os.path.join(self.folder, PREVIOUS))

    def _finished(self) -> bool:
        try:
            return bool(read(self.path).metadata["finished"])
        except (CheckpointError, KeyError):
            return False

    def on_safe_point(self, trainer: Trainer) -> None:
        run = trainer._fit
        assert run is not None
        position = run.done, run.due, run.in_epoch
        if position != self._last and self._is_due(run):
            write_atomically(self.path, _pack(trainer, run, self.notes))
            self._last = position

    def _is_due(self, run: Fit) -> bool:
        if run.interrupted:
            return True
        if self.every == 0:
            return run.over and os.path.exists(self.path)
        if run.over or self._last is None:
            return True
        if self.every is None:
            return not run.in_epoch
        return run.done % self.every == 0 and run.done != self._last[0]

    def _unsaved(self, done: int) -> int:
        if type(self).on_safe_point is not Checkpoint.on_safe_point:
            return 1
        return self.every - done % self.every if self.every else sys.maxsize

    def on_fit_end(self, trainer: Trainer) -> None:
        self._lock.release()


# --------------------------------------------------------------------------------------- writing


def _pack(trainer: Trainer, run: Fit, notes: dict[str, Any]) -> bytes:
    """The file's bytes."""
    network = trainer.network
    with network.locked():
        tensors = {f"params.{name}": value for name, value in network.params.items()}
        tensors |= {f"state.{name}": value for name, value in network.state.items()}
        tensors |= {f"optimizer.{name}": value for name, value in trainer.optimizer.state().items()}
        for name, figures in run.history.items():
            tensors[f"history.{name}"] = np.array(figures, np.float64)
        tensors["sums"] = np.array([run.loss, run.correct, trainer.last_loss])
        callbacks: list[dict[str, Any]] = []
        for number, callback in enumerate(_with_state(trainer)):
            plain: dict[str, Any] = {}
            for name, value in callback.state().items():
                if isinstance(value, np.ndarray):
                    tensors[f"callbacks.{number}.{name}"] = np.ascontiguousarray(value)
                else:
                    plain[name] = value
            callbacks.append({"class": type(callback).__name__, "state": plain})
        entry = {
            "format": FORMAT,
            "finished": run.over,
            **run.described,
            "settings": run.settings,
            "step": int(network.step[0]),
            "lr": trainer.optimizer.lr,
            "trainer": {name: getattr(trainer, name) for name in _TRAINER},
            "generator": trainer.rng.bit_generator.state,
            "drawn_from": run.drawn_from,
            "order": run.order if run.in_epoch else None,
            "position": {
                "elapsed": time.perf_counter() - run.began,
                **{name: getattr(run, name) for name in _POSITION if name != "elapsed"},
            },
            "callbacks": callbacks,
            "notes": notes,
        }
        return pack_tensors(tensors, {METADATA_KEY: _to_json(entry)})


def _to_json(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    kind = type(value).__name__
    raise TypeError(f"checkpoint: expected what JSON can hold, got a {kind}: {value!r}")


def _with_state(trainer: Trainer) -> list[Callback]:
    return [each for each in trainer.callbacks if type(each).state is not Callback.state]


# --------------------------------------------------------------------------------------- reading


def path_of(path: PathLike) -> str:
    """The file that is meant by a folder or a file."""
    name = os.fspath(path)
    return os.path.join(name, FILE) if os.path.isdir(name) else name


def read(path: PathLike) -> Checkpointed:
    """The checkpoint in a folder, or in a file.

    Raises
    ------
    CheckpointError
        The file is damaged or is no checkpoint.
    OSError
        It cannot be read, FileNotFoundError among others.
    """
    name = path_of(path)
    with open_tensors(name, CheckpointError) as file:
        text = file.metadata.get(METADATA_KEY)
        if text is None:
            raise CheckpointError(f"{name}: metadata: expected an entry {METADATA_KEY!r}")
        metadata = read_json(f"metadata {METADATA_KEY!r}", text, constants=True)
        tensors = {key: file.read(key) for key in file.shapes()}
    return Checkpointed(name, metadata, tensors)


class Checkpointed:
    """A checkpoint that has been read: first `check`, then `restore` and `restore_callbacks`.

    Attributes
    ----------
    metadata : the entry in JSON. settings, notes : two of its fields.
    tensors : arrays by name.
    """

    def __init__(self, path: str, metadata: Any, tensors: dict[str, Array]) -> None:
        self.path, self.metadata, self.tensors = path, metadata, tensors
        if not isinstance(metadata, dict):
            self._refuse("metadata", "a JSON object", type(metadata).__name__)
        if metadata.get("format") != FORMAT:
            self._refuse("format", f"{FORMAT}, the only one known", metadata.get("format"))
        self.settings = self._settings()
        self.notes = self._fields("notes", {})

    def _refuse(self, field: str, expected: object, got: object) -> NoReturn:
        text = str(got)
        text = text if len(text) <= 120 else f"{text[:120]}..."
        raise CheckpointError(f"{self.path}: {field}: expected {expected}, got {text}")

    def _fields(self, name: str, kinds: dict[str, Any]) -> dict[str, Any]:
        """An object of the metadata with at least these fields, of these types."""
        value = self.metadata.get(name)
        if not isinstance(value, dict):
            self._refuse(name, "a JSON object", type(value).__name__)
        for field, kind in kinds.items():
            if field not in value:
                self._refuse(name, f"a field {field!r}", sorted(value))
            if kind is not None and type(value[field]) is not kind:
                self._refuse(f"{name}.{field}", kind.__name__, repr(value[field]))
            if kind is int and value[field] not in _COUNT:
                self._refuse(f"{name}.{field}", "a number >= 0", value[field])
        return value

    def _settings(self) -> dict[str, Any]:
        """The arguments of the fit."""
        names = ("epochs", "batch_size", "iterations", "sampling", "report")
        settings = self._fields("settings", dict.fromkeys(names))
        for name in names[:3]:
            value = settings[name]
            if not (type(value) is int and value > 0) and (value is not None or name == "epochs"):
                self._refuse(f"settings.{name}", "an integer >= 1", repr(value))
        for name, kind in (("sampling", Sampling), ("report", Report)):
            if settings[name] not in list(get_args(kind)):
                self._refuse(f"settings.{name}", f"one of {get_args(kind)}", repr(settings[name]))
        return {name: settings[name] for name in names}

    def _part(self, prefix: str) -> dict[str, Array]:
        """The tensors whose names begin so, by the rest of their names."""
        return {n[len(prefix) :]: v for n, v in self.tensors.items() if n.startswith(prefix)}

    def check(self, trainer: Trainer, run: Fit) -> None:
        """Refuse what is no checkpoint of such a fit; nothing is changed."""
        optimizer = self._fields("optimizer", {"lr": float})
        if trainer.iteration:  # it is the one that was interrupted: callbacks may have changed it
            optimizer["lr"] = trainer.optimizer.lr
        for name, value in run.described.items():
            self._compare(name, self.metadata.get(name), json.loads(_to_json(value)))
        self._check_position(run)
        self._generator("generator", trainer.rng)
        if self.metadata["position"]["in_epoch"]:
            run.draw(self._generator("drawn_from", trainer.rng))
            if run.order != self.metadata.get("order"):  # another version of NumPy may differ
                self._refuse("order", "the rows as they were drawn", "others")
        trainer.optimizer.bind(trainer.network.flat_params)
        self._check_arrays("params.", dict(trainer.network.params))
        self._check_arrays("state.", trainer.network.state)
        self._check_arrays("optimizer.", trainer.optimizer.state())
        self._check_arrays("", {"sums": np.zeros(3)}, ["sums"])
        surplus = [n for n in self.tensors if n != "sums" and not n.startswith(_PREFIXES)]
        if surplus:
            self._refuse("tensors", f"only sums, {', '.join(_PREFIXES)}", surplus)
        figures = self._part("history.")
        for name in {*run.history, *figures}:  # callbacks may have added some
            expected = {name: np.zeros(figures[name].size if name in figures else 0)}
            self._check_arrays("history.", expected, [name])
        saved = self.metadata.get("callbacks")
        if not (isinstance(saved, list) and all(isinstance(each, dict) for each in saved)):
            self._refuse("callbacks", "a list of JSON objects", saved)
        classes = [type(each).__name__ for each in _with_state(trainer)]
        if [each.get("class") for each in saved] != classes:
            found = [each.get("class") for each in saved]
            self._refuse("callbacks with a state", f"{found}, as in the checkpoint", classes)

    def _compare(self, field: str, saved: Any, now: Any) -> None:
        if isinstance(saved, dict) and isinstance(now, dict):
            for key in {**saved, **now}:
                self._compare(f"{field}: {key}", saved.get(key), now.get(key))
        elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
            for index, pair in enumerate(zip(saved, now, strict=True)):
                self._compare(f"{field}[{index}]", *pair)
        elif type(saved) is not type(now) or saved != now:
            text = str(saved)
            text = text if len(text) <= 120 else f"{text[:120]}..."
            self._refuse(field, f"{text}, as in the checkpoint", now)

    def _check_position(self, run: Fit) -> None:
        self._fields("trainer", _TRAINER)
        position = self._fields("position", _POSITION)
        if not (math.isfinite(position["elapsed"]) and position["elapsed"] >= 0):
            self._refuse("position.elapsed", "seconds", position["elapsed"])
        most = {"done": run.limit, "number": min(run.steps_per_epoch, position["done"])}
        for name, limit in most.items():
            if position[name] > limit:
                self._refuse(f"position.{name}", f"at most {limit}", position[name])
        if position["in_epoch"] and not position["number"]:
            self._refuse("position.number", "at least 1 within an epoch", 0)
        if position["due"] and not position["in_epoch"]:
            self._refuse("position.due", "false between two epochs", True)
        step, lr = self.metadata.get("step"), self.metadata.get("lr")
        if type(step) is not int or step not in _COUNT:
            self._refuse("step", "an integer >= 0", repr(step))
        if type(lr) is not float or not 0 <= lr < math.inf:
            self._refuse("lr", "a finite number >= 0", repr(lr))

    def _generator(self, name: str, rng: np.random.Generator) -> np.random.Generator:
        """A generator like `rng` in the state of this name."""
        made = copy.deepcopy(rng)
        try:
            made.bit_generator.state = self.metadata.get(name)
        except _UNFIT as error:
            self._refuse(name, f"the state of a {type(made.bit_generator).__name__}", error)
        return made

    def _check_arrays(
        self, prefix: str, expected: dict[str, Array], names: list[str] | None = None
    ) -> None:
        found = self._part(prefix)
        for name in {*expected, *found} if names is None else names:
            field = f"tensor {prefix + name!r}"
            if name not in found:
                self._refuse(field, "a tensor of this name", "none")
            if name not in expected:
                self._refuse("tensors", f"only {prefix}{sorted(expected)}", field)
            want, got = expected[name], found[name]
            if (got.dtype, got.shape) != (want.dtype, want.shape):
                described = f"{got.dtype} of shape {got.shape}"
                self._refuse(field, f"{want.dtype} of shape {want.shape}", described)

    def restore(self, trainer: Trainer, run: Fit) -> None:
        """Give the network, the optimizer, the trainer and the fit what they had."""
        network, metadata = trainer.network, self.metadata
        with network.locked():
            for name, value in self._part("params.").items():
                network.params[name][...] = value
            for name, value in self._part("state.").items():
                network.state[name][...] = value
            network.step[0] = metadata["step"]
        trainer.optimizer.load_state(self._part("optimizer."))
        trainer.optimizer.lr = metadata["lr"]
        for name in _TRAINER:
            setattr(trainer, name, metadata["trainer"][name])
        run.loss, run.correct, trainer.last_loss = self.tensors["sums"].tolist()
        self._restore_history(run)
        position = metadata["position"]
        run.done, run.number = position["done"], position["number"]
        run.in_epoch, run.due = position["in_epoch"], position["due"]
        run.began = time.perf_counter() - position["elapsed"]
        run.drawn_from = metadata.get("drawn_from")
        trainer.rng.bit_generator.state = metadata["generator"]

    def _restore_history(self, run: Fit) -> None:
        run.history.update({n: value.tolist() for n, value in self._part("history.").items()})

    def restore_callbacks(self, trainer: Trainer, run: Fit) -> None:
        """Give the callbacks what they had; for after their `on_fit_begin`."""
        self._restore_history(run)
        for number, callback in enumerate(_with_state(trainer)):
            arrays = self._part(f"callbacks.{number}.")
            plain = self.metadata["callbacks"][number].get("state")
            try:
                callback.load_state({**plain, **arrays})
            except _UNFIT as error:
                self._refuse(f"callbacks[{number}]", f"a state of {callback!r}", error)
        # A schedule has just set that of a first update.
        trainer.optimizer.lr = self.metadata["lr"]
