"""What binds arrays to a task refuses sizes that do not fit: the last line before memory."""

import numpy as np
import pytest

from cnn_core import _activations as activations
from cnn_core import _affine as affine
from cnn_core import _affine_gradient as affine_gradient
from cnn_core import _batches as batches
from cnn_core import _dropout as dropout
from cnn_core import _losses as losses
from cnn_core import _optimizers as optimizers
from cnn_core import _sparse as sparse
from cnn_core._gemm import align_rows, packed_size
from cnn_core._parallel import run

N, I, O = 4, 6, 3  # noqa: E741 - the alphabet of axes
SOFTMAX, BINARY, SQUARED = 0, 1, 2


def real(*shape):
    return np.zeros(shape, np.float32)


def whole(*shape):
    return np.zeros(shape, np.int64)


def double(*shape):
    return np.zeros(shape)


def batch(transposed=True):
    return sparse.Batch(N, I, np.dtype(np.float32), transposed)


PACKED = real(packed_size(I, O, True))

#: a function and arguments that fit; then the place of one argument and what does not fit there
CASES = {
    "affine": (affine.forward, (real(N, I), real(I, O), real(O), real(N, O))),
    "aligned rows": (align_rows, (real(I, O), real(I, O + 1))),
    "sum of strips": (affine.add_strips_of, (real(2, N, O), real(N, O))),
    "affine in strips": (
        lambda *arguments: affine.forward_strips(*arguments)[0],
        (real(N, I), real(I, O), real(O), real(N, O), real(2, N, O), 1),
    ),
    "affine that fetches": (
        lambda *arguments: affine.forward_strips(*arguments[:6], 0, 0.0, *arguments[6:])[0],
        (
            *(real(N, I), real(I, O), real(O), real(N, O), real(2, N, O), 1),
            *(real(9, I), whole(N), whole(1)),
        ),
    ),
    "affine dx": (affine_gradient.input_gradient, (real(N, O), PACKED, real(N, I), real(N, I), 1)),
    "affine dx of few": (
        affine_gradient.input_gradient_of_few,
        (real(N, O), real(I, O), real(N, I), real(N, I), 1),
    ),
    "affine dW": (affine_gradient.weight_gradient, (real(N, I), real(N, O), real(I, O))),
    "affine db": (affine_gradient.bias_gradient, (real(N, O), real(O))),
    "sparse": (sparse.forward, (batch(), real(I, O), real(O), real(N, O))),
    "sparse dW": (sparse.weight_gradient, (batch(), real(N, O), real(I, O))),
    "activation": (activations.forward, (real(N, I), real(N, I), 1, 0.0)),
    "activation dx": (activations.backward, (real(N, I), real(N, I), real(N, I), 1, 0.0)),
    "softmax": (activations.softmax_forward, (real(N, I), real(N, I))),
    "softmax dx": (activations.softmax_backward, (real(N, I), real(N, I), real(N, I))),
    "rows": (batches.gather_rows, (real(9, I), whole(N), whole(1), 1.0, real(N, I))),
    "next batch": (batches.next_batch, (whole(1), N, whole(1))),
    "labels": (batches.gather_labels, (whole(9), whole(N), whole(1), whole(N))),
    "dropout": (dropout.dropout, (real(N, I), real(N, I), 0.5, 0, 0, whole(1))),
    "sgd": (optimizers.sgd, (real(N), real(N), real(N), double(1), 1.0, 0.9, False, 0.0, 0.0)),
    "sgd of a product": (
        optimizers.sgd_of_product,
        (real(N, I), real(N, O), real(I, O), double(1), 1.0, 0.0),
    ),
    "loss of labels": (
        losses.rows,
        (real(N, O), None, whole(N), SOFTMAX, 1.0, double(N), whole(N), real(N, O)),
    ),
    "loss of rows": (
        losses.rows,
        (real(N, O), real(N, O), None, BINARY, 1.0, double(N), whole(N), real(N, O), double(N)),
    ),
    "total": (losses.total, (double(N), whole(N), 1.0, 1.0, double(4))),
    "adam": (
        optimizers.adam,
        (*(real(N) for _ in range(4)), double(1), double(2), 1.0, 0.9, 0.99, 1e-8, 0.0, 0.0),
    ),
    "adam clock": (optimizers.adam_clock, (double(2), double(1), 0.9, 0.99)),
    "adagrad": (optimizers.adagrad, (*(real(N) for _ in range(3)), double(1), 1.0, 1e-8, 0.0)),
    "rmsprop": (
        optimizers.rmsprop,
        (*(real(N) for _ in range(4)), double(1), 1.0, 0.9, 0.9, 1e-8, 0.0),
    ),
    "clip": (optimizers.clip, (real(N), double(1), 0.0)),
    "squares": (optimizers.squares, (real(2 * 4096), double(2))),
    "norm": (optimizers.norm_factor, (double(2), 1.0, double(1))),
}
#: changes that fit, too: place of the argument, axis, and how much longer
FITS = {
    "affine": {(1, 1, 1)},  # columns of W that are not used
    "aligned rows": {(0, 1, -1), (0, 1, 1), (1, 1, -1), (1, 1, 1)},
    "affine in strips": {(4, 0, -1), (4, 0, 1)},
    "sum of strips": {(0, 0, -1), (0, 0, 1)},
    "affine that fetches": {
        *((4, 0, -1), (4, 0, 1)),  # more or fewer strips
        *((6, 0, -1), (6, 0, 1), (7, 0, -1), (7, 0, 1)),  # nothing is fetched past the indices
    },
    "affine dx": {(0, 1, -1), (1, 0, 1)},
    "affine db": {(0, 0, -1), (0, 0, 1)},
    "rows": {(0, 0, -1), (0, 0, 1), (1, 0, 1), (4, 0, -1)},
    "labels": {(0, 0, -1), (0, 0, 1), (1, 0, 1), (3, 0, -1)},
    "clip": {(0, 0, -1), (0, 0, 1)},
    "squares": {(0, 0, -1)},
    "norm": {(0, 0, -1), (0, 0, 1)},
}


def changes(arguments):
    """What was changed, and the arguments with one array longer or shorter by one there."""
    for place, array in enumerate(arguments):
        for axis in range(np.ndim(array)):
            for more in (-1, 1):
                shape = list(array.shape)
                shape[axis] += more
                changed = list(arguments)
                changed[place] = np.zeros(shape, array.dtype)
                yield (place, axis, more), changed


@pytest.mark.parametrize("name", CASES)
def test_arrays_of_another_size_are_refused(name):
    bind, arguments = CASES[name]
    run(bind(*arguments))
    for change, changed in changes(arguments):
        if change in FITS.get(name, ()):
            run(bind(*changed))
            continue
        with pytest.raises(ValueError, match="sizes do not fit"):
            bind(*changed)


def test_what_must_come_together():
    x, t, labels, sums = real(N, O), real(N, O), whole(N), double(N)
    for bad in ((None, None, SOFTMAX), (t, labels, SOFTMAX), (None, labels, BINARY), (t, None, 3)):
        with pytest.raises(ValueError, match="loss, t, labels"):
            losses.rows(x, bad[0], bad[1], bad[2], 1.0, sums)
    with pytest.raises(ValueError, match="velocity"):
        optimizers.sgd(real(N), real(N), None, double(1), 1.0, 0.9, False, 0.0, 0.0)
    with pytest.raises(ValueError, match="velocity"):
        optimizers.rmsprop(*(real(N),) * 3, None, double(1), 1.0, 0.9, 0.9, 1e-8, 0.0)
    with pytest.raises(ValueError, match="y"):
        affine_gradient.input_gradient(real(N, O), PACKED, real(N, I), None, 1)


def test_a_batch_reads_rows_that_are_there():
    indptr, columns, values = whole(3) + np.arange(3), np.zeros(2, np.int32), real(2)
    indices, start = whole(N) + 1, whole(1)
    one = batch()
    one.read(indptr, columns, values, indices, start)
    assert one.entries == N
    for bad in (
        (indptr[:2], columns, values, indices, start),
        (indptr + 1, columns, values, indices, start),
        (indptr[::-1].copy(), columns, values, indices, start),
        (indptr - 2, columns, values, indices, start),
        (indptr, columns[:1], values, indices, start),
        (indptr, columns, values[:1], indices, start),
        (indptr, columns, values, indices - 2, start),
        (indptr, columns, values, indices + 1, start),
        (indptr, columns, values, indices[1:], start),
        (indptr, columns, values, indices, start + 1),
        (indptr, columns, values, indices, start - 1),
        (indptr, columns, values, indices, whole(2)),
    ):
        with pytest.raises(ValueError, match="sizes do not fit"):
            one.read(*bad)


def test_a_batch_fits_its_tasks():
    for refused in (
        lambda: sparse.forward(batch(), double(I, O), None, double(N, O)),
        lambda: sparse.weight_gradient(batch(), double(N, O), double(I, O)),
        lambda: sparse.weight_gradient(batch(False), real(N, O), real(I, O)),
        lambda: sparse.transpose(batch(False)),
        lambda: sparse.copy_columns(whole(2), whole(1) + 3, 4, np.zeros(2, np.int32)),
        lambda: sparse.copy_columns(whole(2), whole(2), 4, np.zeros(1, np.int32)),
        lambda: sparse.copy_columns(whole(2), whole(0), 4, np.zeros(2, np.int32)),
    ):
        with pytest.raises(ValueError, match="sizes do not fit"):
            refused()


@pytest.mark.parametrize("label", [-1, O, 2**62, -(2**63)])
def test_a_label_without_a_column_makes_its_row_nan(label):
    x, labels, row_losses, correct = real(N, O), whole(N), double(N), whole(N) + 7
    dx = real(N, O)
    labels[2] = label
    run(losses.rows(x, None, labels, SOFTMAX, 1.0, row_losses, correct, dx))
    assert np.isnan(row_losses).tolist() == [False, False, True, False]
    assert np.isnan(dx[2]).all() and not np.isnan(dx[[0, 1, 3]]).any()
    assert correct[2] == 0
