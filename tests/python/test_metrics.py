"""Accuracy and confusion matrix: against counting by hand, for labels, scores and one-hot rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_core.metrics import accuracy, confusion_matrix

INTEGERS = ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8"]

pairs = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(
            st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)),
            min_size=1,
            max_size=30,
        ),
    )
)
functions = pytest.mark.parametrize("function", [accuracy, confusion_matrix])


def one_hot(labels, classes, dtype=float):
    return np.eye(classes, dtype=dtype)[np.asarray(labels)]


def forms(labels, classes):
    """The same labels in every form that is read."""
    return [
        list(labels),
        np.array(labels, np.uint8),
        one_hot(labels, classes),
        one_hot(labels, classes, bool),
        one_hot(labels, classes, np.float32) * 7 - 3,
    ]


@given(pairs)
def test_against_counting(example):
    classes, rows = example
    predicted, t = zip(*rows, strict=True)
    right = sum(p == q for p, q in rows) / len(rows)
    expected = [[rows.count((p, q)) for p in range(classes)] for q in range(classes)]
    for p in forms(predicted, classes):
        for q in forms(t, classes):
            assert accuracy(p, q) == right
            matrix = confusion_matrix(p, q, classes)
            assert matrix.dtype == np.int64
            assert matrix.tolist() == expected


def test_accuracy_is_a_python_float():
    value = accuracy([1, 0, 1], [1, 1, 1])
    assert type(value) is float
    assert value == 2 / 3


def test_first_of_equal_scores_wins():
    scores = [[0.5, 0.5, 0.1], [0.1, 0.7, 0.7], [0.0, 0.0, 0.0]]
    assert accuracy(scores, [0, 1, 0]) == 1.0
    assert accuracy(scores, [1, 2, 2]) == 0.0


def test_infinite_scores():
    scores = [[-np.inf, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]]
    assert accuracy(scores, [1, 0, 0]) == 1.0


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("other", INTEGERS)
def test_integer_types_mix(dtype, other):
    predicted, t = np.array([0, 1, 100], dtype), np.array([0, 2, 100], other)
    assert accuracy(predicted, t) == 2 / 3
    # 100 * 101 + 100 overflows the small types: the counts must not be computed in them.
    matrix = confusion_matrix(predicted, t)
    assert matrix.shape == (101, 101)
    assert matrix[100, 100] == matrix[2, 1] == matrix[0, 0] == 1
    assert matrix.sum() == 3


def test_any_strides():
    scores = np.random.default_rng(0).normal(size=(40, 12))
    t = np.arange(20) % 6
    view, labels = scores[::-2, ::2], np.repeat(t, 2)[::2]
    assert accuracy(view, labels) == accuracy(view.copy(), t)


def test_arguments_are_not_written_to():
    scores, t = np.random.default_rng(0).normal(size=(9, 4)), np.arange(9) % 4
    before = scores.copy(), t.copy()
    accuracy(scores, t)
    confusion_matrix(scores, t)
    assert np.array_equal(scores, before[0])
    assert np.array_equal(t, before[1])


def test_rows_are_true_and_columns_predicted():
    assert confusion_matrix([1, 1, 1], [0, 0, 1]).tolist() == [[0, 2], [0, 1]]


def test_number_of_classes():
    assert confusion_matrix([0, 3], [1, 0]).shape == (4, 4)
    assert confusion_matrix(np.eye(5)[:2], [1, 0]).shape == (5, 5)
    assert confusion_matrix([1, 0], np.eye(5)[:2]).shape == (5, 5)
    assert confusion_matrix([1, 0], [1, 0], 7).shape == (7, 7)
    assert confusion_matrix([1, 0], [1, 0], np.int8(7)).shape == (7, 7)
    assert confusion_matrix([0], [0]).tolist() == [[1]]


def test_result_is_fresh_and_writeable():
    matrix = confusion_matrix([0, 1], [0, 1])
    matrix += 1
    assert confusion_matrix([0, 1], [0, 1]).tolist() == [[1, 0], [0, 1]]


class TestErrors:
    @functions
    @pytest.mark.parametrize("shape", [(0,), (0, 3)])
    def test_empty(self, function, shape):
        empty = np.zeros(shape, int)
        with pytest.raises(ValueError, match=r"predictions must have at least one sample"):
            function(empty, [0])
        with pytest.raises(ValueError, match=r"\bt must have at least one sample"):
            function([0], empty)

    @functions
    def test_lengths(self, function):
        with pytest.raises(ValueError, match="same number of samples, got 3 and 2"):
            function([0, 1, 2], [0, 1])
        with pytest.raises(ValueError, match="same number of samples, got 3 and 1"):
            function(np.eye(3), [1])  # no broadcasting

    @functions
    @pytest.mark.parametrize("bad", [0, np.zeros((2, 2, 2))])
    def test_rank(self, function, bad):
        with pytest.raises(ValueError, match="predictions must be 1-D labels or 2-D scores"):
            function(bad, [0, 1])
        with pytest.raises(ValueError, match=r"\bt must be 1-D labels or 2-D scores"):
            function([0, 1], bad)

    @functions
    def test_widths(self, function):
        with pytest.raises(ValueError, match="same number of classes, got 3 and 4"):
            function(np.eye(3), np.eye(4)[:3])

    @functions
    def test_one_column_and_none(self, function):
        for width in (0, 1):
            with pytest.raises(ValueError, match="predictions must have 2 or more columns"):
                function(np.zeros((4, width)), [0, 0, 1, 1])

    @functions
    def test_negative_label(self, function):
        with pytest.raises(ValueError, match=r"\bt must be labels of 0 or more, got -1"):
            function([0, 1], [0, -1])
        with pytest.raises(ValueError, match="predictions must be labels of 0 or more, got -2"):
            function(np.array([0, -2], np.int8), [0, 1])

    @functions
    def test_label_beyond_the_scores(self, function):
        with pytest.raises(ValueError, match=r"\bt must be labels below .* 3, got 3"):
            function(np.eye(3), [0, 1, 3])
        with pytest.raises(ValueError, match=r"predictions must be labels below .* 3, got 9"):
            function([0, 1, 9], np.eye(3))

    @functions
    def test_label_beyond_int64(self, function):
        with pytest.raises(ValueError, match="fit into int64, got 9223372036854775808"):
            function(np.array([2**63], np.uint64), [0])

    @functions
    def test_labels_that_are_no_integers(self, function):
        with pytest.raises(TypeError, match=r"predictions must be integer labels .* float64"):
            function([0.0, 1.0], [0, 1])
        with pytest.raises(TypeError, match=r"\bt must be integer labels"):
            function([0, 1], ["0", "1"])

    @functions
    def test_scores_that_are_no_real_numbers(self, function):
        with pytest.raises(TypeError, match=r"predictions must be real numbers, got .*complex"):
            function(np.eye(2, dtype=complex), [0, 1])

    @functions
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("column", [0, 1, 2])
    def test_nan(self, function, dtype, column):
        scores = np.array([[3, 2, 1], [np.inf, 5, 6], [1, 2, 3]], dtype)
        t = [0, 0, 2]
        function(scores, t)
        scores[1, column] = np.nan
        with pytest.raises(ValueError, match="predictions must not be NaN, got NaN in row 1"):
            function(scores, t)
        with pytest.raises(ValueError, match=r"\bt must not be NaN, got NaN in row 1"):
            function(t, scores)

    @pytest.mark.parametrize("bad", [2.0, "3", True, [3]])
    def test_type_of_n_classes(self, bad):
        with pytest.raises(TypeError, match="n_classes must be an integer, got"):
            confusion_matrix([0, 1], [0, 1], bad)

    @pytest.mark.parametrize("bad", [0, -1])
    def test_n_classes_below_one(self, bad):
        with pytest.raises(ValueError, match=f"n_classes must be 1 or more, got {bad}"):
            confusion_matrix([0, 1], [0, 1], bad)

    def test_label_beyond_n_classes(self):
        with pytest.raises(ValueError, match=r"\bt must be labels below .* 2, got 2"):
            confusion_matrix([0, 1], [0, 2], 2)
        with pytest.raises(ValueError, match=r"predictions must be labels below .* 2, got 2"):
            confusion_matrix([0, 2], [0, 1], 2)

    def test_labels_that_look_like_identifiers(self):
        assert confusion_matrix([4095], [0]).shape == (4096, 4096)
        with pytest.raises(ValueError, match=r"n_classes must be given .* 4096 or more, got 4096"):
            confusion_matrix([4096], [0])
