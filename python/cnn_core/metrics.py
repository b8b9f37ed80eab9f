"""Measures of a classifier: the fraction that is right, and which class is taken for which."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from cnn_core._checks import to_array

_MOST_CLASSES = 2**24  # whose square still is a number of elements that can be thought of
# Beyond this, labels are more likely identifiers than classes: the matrix would pass 128 MB.
_MAX_INFERRED_CLASSES = 4096


def accuracy(scores_or_labels: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """Return the fraction of samples, 0.0 to 1.0, whose predicted class is the true one.

    Parameters
    ----------
    scores_or_labels : (N, C) scores or one-hot rows, or (N,) integer labels
        The prediction. The class of a row is its largest element; of equal ones, the first.
    t : (N,) integer labels, or (N, C) scores or one-hot rows
        The truth, read in the same way.

    Raises
    ------
    ValueError
        No samples, different numbers of samples or of classes, a label below 0 or not below C, a
        NaN score.
    TypeError
        1-D labels that are not integers, or elements that are not real numbers.
    """
    predicted, truth, _ = _class_labels(scores_or_labels, t)
    return float(np.count_nonzero(predicted == truth) / truth.size)


def confusion_matrix(
    predicted: npt.ArrayLike, t: npt.ArrayLike, n_classes: int | None = None
) -> npt.NDArray[np.int64]:
    """Count how often each true class (row) was predicted as each class (column).

    Parameters
    ----------
    predicted, t : arrays, as for `accuracy`
    n_classes : int, optional
        The number of rows and columns. Default: the width C of a 2-D argument, else the largest
        label of both plus 1.

    Returns
    -------
    (n_classes, n_classes) int64 array
        Its sum is N, its trace the number of right predictions.

    Raises
    ------
    ValueError
        As for `accuracy`; also when a label is not below `n_classes`.
    TypeError
        As for `accuracy`; also when `n_classes` is not an integer.
    """
    labels, truth, width = _class_labels(predicted, t)
    if n_classes is None:
        n = width if width is not None else _infer_classes(labels, truth)
    else:
        n = _check_n_classes(n_classes)
        _check_range("predictions", labels, n)
        _check_range("t", truth, n)
    if n > _MOST_CLASSES:
        raise ValueError(f"n_classes must be at most {_MOST_CLASSES}, got {n}")
    counts = np.bincount(truth * n + labels, minlength=n * n)
    return counts.reshape(n, n).astype(np.int64, copy=False)


def _class_labels(
    predicted: npt.ArrayLike, t: npt.ArrayLike
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int | None]:
    """Return the labels of both arguments and the number of classes, None when neither tells."""
    labels, width = _to_labels("predictions", predicted)
    truth, t_width = _to_labels("t", t)
    if labels.size != truth.size:
        raise ValueError(
            "predictions and t must have the same number of samples, "
            f"got {labels.size} and {truth.size}"
        )
    if width is not None and t_width is not None and width != t_width:
        raise ValueError(
            f"predictions and t must have the same number of classes, got {width} and {t_width}"
        )
    n_classes = width if width is not None else t_width
    if n_classes is not None:
        _check_range("predictions", labels, n_classes)
        _check_range("t", truth, n_classes)
    return labels, truth, n_classes


def _to_labels(name: str, values: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], int | None]:
    array = to_array(name, values)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} must be 1-D labels or 2-D scores (samples, classes), got shape {array.shape}"
        )
    if array.shape[0] == 0:
        raise ValueError(f"{name} must have at least one sample, got shape {array.shape}")
    if array.ndim == 2:
        return _argmax(name, array), array.shape[1]
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name} must be integer labels when it is 1-D, got dtype {array.dtype}")
    if array.dtype.kind != "b" and array.min() < 0:
        raise ValueError(f"{name} must be labels of 0 or more, got {array.min()}")
    if array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be labels that fit into int64, got {array.max()}")
    return array.astype(np.int64, copy=False), None


def _argmax(name: str, scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if scores.dtype.kind not in "iubf":
        raise TypeError(f"{name} must be real numbers, got dtype {scores.dtype}")
    if scores.shape[1] < 2:
        # The largest of one column is always the first: every sample would count as class 0.
        raise ValueError(
            f"{name} must have 2 or more columns (one per class) when it is 2-D, got shape "
            f"{scores.shape}; pass 1-D labels, such as `scores[:, 0] > 0` for one logit"
        )
    labels: npt.NDArray[np.int64] = scores.argmax(axis=1).astype(np.int64, copy=False)
    if scores.dtype.kind == "f":
        # argmax stops at a NaN, so to look at the chosen elements is enough.
        is_nan = np.isnan(np.take_along_axis(scores, labels[:, np.newaxis], axis=1)[:, 0])
        if is_nan.any():
            raise ValueError(f"{name} must not be NaN, got NaN in row {int(is_nan.argmax())}")
    return labels


def _check_range(name: str, labels: npt.NDArray[np.int64], n_classes: int) -> None:
    largest = int(labels.max())
    if largest >= n_classes:
        raise ValueError(
            f"{name} must be labels below the number of classes, {n_classes}, got {largest}"
        )


def _check_n_classes(n_classes: int) -> int:
    if isinstance(n_classes, bool):
        raise TypeError("n_classes must be an integer, got bool")
    try:
        n = operator.index(n_classes)
    except TypeError:
        got = type(n_classes).__name__
        raise TypeError(f"n_classes must be an integer, got {got}") from None
    if n < 1:
        raise ValueError(f"n_classes must be 1 or more, got {n}")
    return n


def _infer_classes(labels: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> int:
    n = int(max(labels.max(), truth.max())) + 1
    if n > _MAX_INFERRED_CLASSES:
        raise ValueError(
            f"n_classes must be given when labels reach {_MAX_INFERRED_CLASSES} or more, "
            f"got {n - 1}"
        )
    return n
