"""A network: layers in a row, their parameters in one flat array, and what can be asked of it."""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core import _checks as checks
from cnn_core import _inputs, _locks, gradient_check, layers, losses, metrics
from cnn_core._inputs import Input, Samples
from cnn_core._views import FlatParameters, Views
from cnn_core._weights import ClassWeight, row_weights
from cnn_core.image_layers import BatchNorm, Dropout
from cnn_core.layers import Layer, Shape
from cnn_core.ops.sparse import Rows
from cnn_core.plan import ELEMENTS_AT_ONCE, Plan, target_kind

Array = npt.NDArray[Any]

ROWS_AS_ONE = 256  # copied before they are computed: the program is there already
PLANS_KEPT = 8  # one per batch size and use


class Sequential(FlatParameters):
    """Layers one after the other.

    Parameters
    ----------
    layers : the layers, each only once.
    input_shape : the shape of one sample, without N: (784,) or (1, 28, 28).
    loss : a loss; SoftmaxCrossEntropy() by default.
    dtype : "float32" (default) or "float64", of parameters and of all arithmetic.
    seed : initial values of the parameters follow from it alone.
    input_scale : factor of uint8 input, which stays bytes until it is used; 1/255 by default.
        Floating-point input is taken as it is.

    Attributes
    ----------
    params, grads : dict of name to array: live views of `flat_params` and `flat_grads`, to be
        changed in place. `grads` holds what the last call of `gradient` or `Trainer.step` found;
        `Trainer.fit` stores all gradients where a callback's on_step_end could look at them.
        Layers that have parameters number them: W1, b1, W2, b2, ...
    state : dict of name to array: what training changes other than by gradients, the running
        statistics of BatchNorm (running_mean2, ...); saved with the parameters.
    step : int64 array of one number, the updates made; the masks of Dropout depend on it.
    layers, loss_function, input_shape, output_shape, dtype, seed, n_params

    Examples
    --------
    >>> net = Sequential([Affine(50), Sigmoid(), Affine(10)], input_shape=(784,))
    >>> net.params["W1"].shape
    (784, 50)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        input_shape: Sequence[int],
        loss: losses.Loss | None = None,
        dtype: npt.DTypeLike = "float32",
        seed: int = 0,
        input_scale: float = 1 / 255,
    ) -> None:
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            raise TypeError(f"layers: expected a list of layers, got {layers!r}")
        self.layers = list(layers)
        self.input_shape = _sizes(input_shape)
        self.loss_function = losses.SoftmaxCrossEntropy() if loss is None else loss
        self.dtype = checks.as_dtype(dtype)
        self.seed = checks.check_seed(seed)
        self.input_scale = checks.finite("input_scale", input_scale)
        self._check()
        self._lock = _locks.new()
        self._plans: OrderedDict[tuple[Any, ...], Plan] = OrderedDict()
        self._build()

    def _check(self) -> None:
        if not isinstance(self.loss_function, losses.Loss):
            raise TypeError(f"loss: expected a cnn_core.Loss, got {self.loss_function!r}")
        if not self.layers:
            raise ValueError("layers: expected at least one layer, got none")
        for position, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers[{position}]: expected a cnn_core.Layer, got {layer!r}")
            if Views.owner_of(layer) is not None:
                kind = type(layer).__name__
                raise ValueError(
                    f"layers[{position}]: this {kind} and its parameters belong to another"
                    f" network; make a new {kind}"
                )
        if len({id(layer) for layer in self.layers}) < len(self.layers):
            raise ValueError("layers: the same layer object stands in it twice")

    def _build(self) -> None:
        """Shapes, then parameters: drawn layer by layer, laid into one array."""
        self._shapes = [self.input_shape]
        self.step = np.zeros(1, np.int64)
        self.state: dict[str, Array] = {}
        initial: dict[str, tuple[Layer, str, Array]] = {}
        number = 0
        for position, layer in enumerate(self.layers):
            rng = np.random.default_rng([self.seed, position])
            built = layer.build(self._shapes[-1], rng)
            if built:
                number += 1
                layer.params = {key: self._initial(key, value) for key, value in built.items()}
                for key, value in layer.params.items():
                    initial[f"{key}{number}"] = (layer, key, value)
            shape, where = layer.output_shape(self._shapes[-1]), f"layers[{position}].output_shape"
            if not isinstance(shape, (tuple, list)):
                raise TypeError(f"{where}: expected a tuple of sizes, got {shape!r}")
            self._shapes.append(checks.check_sizes(where, tuple(shape)))
            if isinstance(layer, Dropout):
                layer.seed, layer.stream, layer.step = self.seed, position, self.step
                layer._alone = False
            if isinstance(layer, BatchNorm):
                layer.state = {k: v.astype(self.dtype) for k, v in layer.state.items()}
                self.state |= {f"{key}{number}": value for key, value in layer.state.items()}
        self.output_shape = self._shapes[-1]
        sizes = [math.prod(shape) for shape in self._shapes]
        #: rows that are copied at most, by whether they are sparse
        self._rows_as_one = {
            sparse: max(1, min(ROWS_AS_ONE, ELEMENTS_AT_ONCE // max(sizes[sparse:])))
            for sparse in (False, True)
        }
        self._owners = {name: (layer, key) for name, (layer, key, _) in initial.items()}
        self._lay_out({name: value for name, (_, _, value) in initial.items()}, self.dtype)
        self._bind()

    def _initial(self, name: str, value: npt.ArrayLike) -> Array:
        """The initial values of a parameter in the network's dtype."""
        try:
            with np.errstate(over="raise"):
                return np.asarray(value, self.dtype)
        except FloatingPointError:
            raise ValueError(f"{name}: initial values are too large for {self.dtype}") from None

    def _bind(self) -> None:
        """Make the layers' params and grads views of the flat arrays.

        Again for each plan: a layer's own backward leaves other arrays in its grads.
        """
        for layer in {id(owner): owner for owner, _ in self._owners.values()}.values():
            names = {key: name for name, (owner, key) in self._owners.items() if owner is layer}
            views = {key: self.params[name] for key, name in names.items()}
            layer.params = Views(views, weakref.ref(self))
            layer.grads = {key: self.grads[name] for key, name in names.items()}

    # ------------------------------------------------------------------------------------- plans

    def plan(
        self,
        n: int,
        targets: str | None = None,
        training: bool = False,
        gradient: bool = False,
        weighted: bool = False,
        sparse: bool = False,
    ) -> Plan:
        """The plan for batches of n samples, made once; see plan.Plan."""
        key = (n, targets, training, gradient, weighted, sparse)
        plan = self._plans.get(key)
        if plan is None:
            self._bind()
            plan = Plan(
                self.layers,
                self._shapes,
                self.loss_function,
                n,
                self.dtype,
                targets=targets,
                training=training,
                gradient=gradient,
                weighted=weighted,
                sparse=sparse,
            )
            self._plans[key] = plan
            if len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        return plan

    def check_input(self, x: Samples) -> Input:
        """x as (N, *input_shape), float or uint8, or sparse rows; images may come flattened.

        Not yet in the network's dtype: a large input is converted batch by batch.
        """
        return _inputs.check_input(x, self.layers[0], self.input_shape, self.dtype)

    def check_rows(self, x: Samples) -> Input:
        """check_input for what cannot do without a row."""
        array = self.check_input(x)
        if not len(array):
            raise ValueError("x: expected at least one row, got none")
        return array

    def check_targets(self, t: npt.ArrayLike, n: int) -> tuple[str, Array]:
        """Labels as int64 (N,), or rows of the outputs' shape in the network's dtype."""
        t = checks.to_array("t", t)
        kind = target_kind(t, self.output_shape, self.loss_function)
        if kind == "labels":
            return kind, checks.as_labels("t", t, n, math.prod(self.output_shape))
        shape = (n, *self.output_shape)
        if np.shape(t) == (n,) and math.prod(self.output_shape) == 1:
            t = np.reshape(t, shape)
        return kind, checks.as_target_rows("t", t, shape, self.dtype)

    def check_weights(
        self,
        kind: str,
        t: Array,
        sample_weight: npt.ArrayLike | None,
        class_weight: ClassWeight | None = None,
    ) -> Array | None:
        """One float64 weight per row of checked targets, or None where all rows count alike."""
        if sample_weight is None and class_weight is None:
            return None
        loss = self.loss_function
        if loss.native is None:
            name = "class_weight" if sample_weight is None else "sample_weight"
            raise ValueError(f"{name}: {type(loss).__name__} in plain Python takes no weights")
        return row_weights(kind, t, math.prod(self.output_shape), sample_weight, class_weight)

    def locked(self) -> threading.RLock:
        """To be held while a plan's buffers are in use: `with net.locked(): ...`."""
        return self._lock

    def fill(
        self, plan: Plan, x: Input, t: Array | None = None, weights: Array | None = None
    ) -> None:
        """Copy checked inputs, targets and weights of rows into a plan's buffers."""
        _inputs.fill(plan.x, x, self.input_scale)
        if t is not None:
            plan.fill_targets(t, weights)

    def _filled(
        self,
        x: Samples,
        t: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        training: bool,
        gradient: bool = False,
    ) -> Plan:
        """The plan for all rows as one batch, filled with them; the caller holds the lock."""
        array = self.check_rows(x)
        kind, target = self.check_targets(t, len(array))
        weights = self.check_weights(kind, target, sample_weight)
        sparse = isinstance(array, Rows)
        plan = self.plan(len(array), kind, training, gradient, weights is not None, sparse)
        self.fill(plan, array, target, weights)
        return plan

    # ------------------------------------------------------------------------------------ answers

    def forward(self, x: Samples, training: bool = False) -> Array:
        """The outputs (N, *output_shape) for x (N, *input_shape), all rows as one batch."""
        return self._forward(self.check_input(x), training)

    def _forward(self, array: Input, training: bool = False) -> Array:
        if not len(array):
            return np.empty((0, *self.output_shape), self.dtype)
        with self._lock:
            plan = self.plan(len(array), None, training, sparse=isinstance(array, Rows))
            _inputs.fill(plan.x, array, self.input_scale)
            return plan.forward().copy()

    def predict(self, x: Samples) -> Array:
        """The outputs (scores) for any number of rows, in inference mode and bounded memory."""
        array = self.check_input(x)
        if len(array) <= self._rows_as_one[isinstance(array, Rows)]:
            return self._forward(array)
        out = np.empty((len(array), *self.output_shape), self.dtype)
        with self._lock:
            for part, plan in self._by_parts(array, out=out):
                if not plan.writes_result:
                    out[part] = plan.y
        return out

    def _by_parts(
        self,
        array: Input,
        kind: str | None = None,
        target: Array | None = None,
        weights: Array | None = None,
        out: Array | None = None,
    ) -> Iterator[tuple[slice, Plan]]:
        """Slices of the rows, each computed by its plan, with the loss where there are targets; the
        outputs go to `out` where the plan writes its result.

        Rows that lie in one piece are read by the same program that computes them.
        """
        start = np.zeros(1, np.int64)
        use = {"weighted": weights is not None, "sparse": isinstance(array, Rows)}
        in_one_piece = _inputs.in_one_piece(array)
        calls: list[Callable[[], None]] = []
        last = None
        one = self.plan(1, kind, **use)
        in_place = _inputs.in_one_piece(array) and one.reads_in_place(array)
        at_once = one.rows_at_once(len(array), in_place)
        for first in range(0, len(array), at_once):
            part, start[0] = slice(first, min(first + at_once, len(array))), first
            plan = self.plan(part.stop - first, kind, **use)
            if in_place:
                calls = plan.steps_in_place(bool(kind))
                plan.place[0] = _inputs.address(array, first)
            elif plan is not last:
                last = plan
                read = _inputs.reading_all(array, plan, start, self.input_scale)
                calls = plan.steps(False, read) if kind else plan.forward_steps(read)
            if not in_one_piece:
                self.fill(plan, array[part])
            if target is not None:
                plan.fill_targets(target[part], None if weights is None else weights[part])
            if out is not None:
                plan.result[0] = _inputs.address(out, first)
            for call in calls:
                call()
            plan.place[0] = plan.result[0] = 0
            yield part, plan

    def evaluate(
        self,
        x: Samples,
        t: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
    ) -> tuple[float, float]:
        """Loss and accuracy over all rows, in inference mode and bounded memory.

        sample_weight, class_weight : see Trainer.fit; of the loss, not of the accuracy.
        """
        array = self.check_rows(x)
        n = len(array)
        kind, target = self.check_targets(t, n)
        weights = self.check_weights(kind, target, sample_weight, class_weight)
        loss, correct = 0.0, 0.0
        with self._lock:
            for _, plan in self._by_parts(array, kind, target, weights):
                loss += float(plan.totals[0]) * plan.loss_weight
                correct += plan.totals[1]
        if self.loss_function.reduction == "mean":
            loss /= n
        return loss, float(correct / n)

    def loss(
        self,
        x: Samples,
        t: npt.ArrayLike,
        training: bool = False,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """The loss of the rows; with training=True all rows as one batch, as in training."""
        if not training:
            return self.evaluate(x, t, sample_weight)[0]
        with self._lock:
            return self._filled(x, t, sample_weight, training=True).evaluate()

    def accuracy(self, x: Samples, t: npt.ArrayLike) -> float:
        """The share of rows whose largest output is the target's class."""
        return self.evaluate(x, t)[1]

    def gradient(
        self,
        x: Samples,
        t: npt.ArrayLike,
        training: bool = True,
        sample_weight: npt.ArrayLike | None = None,
    ) -> dict[str, Array]:
        """The gradient of the loss by every parameter, by back-propagation: copies by name."""
        with self._lock:
            self._filled(x, t, sample_weight, training, gradient=True).gradient()
            return {name: value.copy() for name, value in self.grads.items()}

    def numerical_gradient(
        self,
        x: Samples,
        t: npt.ArrayLike,
        training: bool = True,
        h: float = 1e-4,
        sample_weight: npt.ArrayLike | None = None,
    ) -> dict[str, Array]:
        """The same dict by central differences (f(p + h) - f(p - h)) / 2h; see gradient_check.

        `state` stays as it is, although each loss in training mode moves running statistics.
        """
        with self._lock:
            plan = self._filled(x, t, sample_weight, training)
            kept = {name: value.copy() for name, value in self.state.items()}
            try:
                return gradient_check.numerical_gradients(plan, self._owners, h)
            finally:
                for name, value in kept.items():
                    self.state[name][...] = value

    def confusion_matrix(self, x: Samples, t: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Counts of (true class, predicted class): rows true, columns predicted."""
        scores, classes = self.predict(x), math.prod(self.output_shape)
        t = checks.to_array("t", t)
        if classes > 1:
            return metrics.confusion_matrix(scores, t, classes)
        threshold = 0.0 if self.loss_function.native == "binary_cross_entropy" else 0.5
        labels = (t.reshape(-1) > 0.5).astype(np.int64)
        predicted = (scores.reshape(-1) > threshold).astype(np.int64)
        return metrics.confusion_matrix(predicted, labels, 2)

    def __getstate__(self) -> dict[str, Any]:
        """For copy.deepcopy: without the lock, the compiled plans, and the views."""
        state = dict(vars(self))
        for name in ("_lock", "_plans", "_params", "_grads"):
            del state[name]
        state["_param_shapes"] = {name: value.shape for name, value in self.params.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        shapes = state.pop("_param_shapes")
        vars(self).update(state)
        self._lock, self._plans = _locks.new(), OrderedDict()
        self._make_views(shapes)
        self._bind()

    # -------------------------------------------------------------------------------- description

    def summary(self) -> str:
        """A table of layers, output shapes and numbers of parameters."""
        lines = [f"{'layer':<40} {'output shape':<18} {'parameters':>10}"]
        for layer, shape in zip(self.layers, self._shapes[1:], strict=True):
            count = sum(value.size for value in getattr(layer, "params", {}).values())
            lines.append(f"{_short(layer):<40} {shape!s:<18} {count:>10,}")
        lines.append(f"{'total':<40} {'':<18} {self.n_params:>10,}")
        return "\n".join(lines)

    def get_config(self) -> dict[str, Any]:
        """The architecture as JSON-able values, for `from_config`."""
        return {
            "layers": [layer.get_config() for layer in self.layers],
            "input_shape": list(self.input_shape),
            "loss": self.loss_function.get_config(),
            "dtype": self.dtype.name,
            "seed": self.seed,
            "input_scale": self.input_scale,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sequential:
        """A fresh network of the architecture that `get_config` described."""
        config = checks.as_dict("config", config)
        missing = {"layers", "input_shape"} - set(config)
        if missing or not isinstance(config["layers"], (list, tuple)):
            raise ValueError(f"config: expected a list of layers and an input_shape, got {config}")
        built = [layers.from_config(layer) for layer in config.pop("layers")]
        if "loss" in config:
            config["loss"] = losses.from_config(config["loss"])
        return cls(built, **config)

    def save(self, path: str | PathLike[str]) -> None:
        """Write parameters and architecture to a safetensors file; see `cnn_core.load`."""
        from cnn_core import serialization

        serialization.save_model(self, path)


def _sizes(shape: Any) -> Shape:
    sizes = tuple(shape) if checks.is_several(shape) else (shape,)
    if not sizes:
        raise ValueError("input_shape: expected at least one size, got ()")
    return checks.check_sizes("input_shape", sizes)


def _short(layer: Layer) -> str:
    """The layer and its numbers, without its initializers."""
    config = layer.get_config().items()
    plain = [f"{k}={v!r}" for k, v in config if k != "class" and not isinstance(v, dict)]
    text = f"{type(layer).__name__}({', '.join(plain)})"
    return text if len(text) <= 40 else f"{text[:37]}..."
