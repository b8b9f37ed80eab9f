"""Weights of rows in the loss, from weights per row and per class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cnn_core._checks import to_array

Array = npt.NDArray[Any]
ClassWeight = Mapping[int, float] | npt.ArrayLike | Literal["balanced"]


def row_weights(
    kind: str,
    t: Array,
    outputs: int,
    sample_weight: npt.ArrayLike | None,
    class_weight: ClassWeight | None,
) -> npt.NDArray[np.float64]:
    """The products of both: one float64 per row.

    Parameters
    ----------
    kind : "labels", int64 t (N,), or "rows", t (N, ...), checked
    outputs : of the network, for one row
    sample_weight : (N,) or None
    class_weight : class to weight, 1 for a class that is not there; one weight per class; or
        "balanced": N / (classes that occur * rows of the class), as in scikit-learn; or None

    Raises
    ------
    TypeError, ValueError
        For anything else, or weights per class for targets that name no class.
    """
    weights = np.ones(len(t))
    if sample_weight is not None:
        weights *= _finite("sample_weight", sample_weight, len(t))
    if class_weight is not None:
        classes = max(outputs, 2)
        labels = t if kind == "labels" else _labels(t.reshape(len(t), -1))
        weights *= _by_class(class_weight, labels, classes)[labels]
    return weights


def _finite(name: str, value: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    array = to_array(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}")
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape {(n,)}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {array[~np.isfinite(array)][0]}")
    return array.astype(np.float64)


def _labels(rows: Array) -> npt.NDArray[np.int64]:
    """The classes of one-hot rows, or of single outputs 0 and 1."""
    if not np.isin(rows, (0, 1)).all() or (rows.shape[1] > 1 and (rows.sum(axis=1) != 1).any()):
        raise ValueError("class_weight: expected labels, one-hot rows, or 0 and 1 for one output")
    return (rows[:, 0] if rows.shape[1] == 1 else rows.argmax(axis=1)).astype(np.int64)


def _by_class(
    class_weight: ClassWeight, labels: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float64]:
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight: expected 'balanced', got {class_weight!r}")
        counts = np.bincount(labels, minlength=classes)
        return len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    if not isinstance(class_weight, Mapping):
        return _finite("class_weight", class_weight, classes)
    unknown = [key for key in class_weight if key not in range(classes)]
    if unknown:
        raise ValueError(f"class_weight: expected classes 0..{classes - 1}, got {unknown[0]!r}")
    values = [class_weight.get(number, 1.0) for number in range(classes)]
    return _finite("class_weight", values, classes)
