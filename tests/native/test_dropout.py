"""Dropout at native level: the mask is that of the reference, at any place and thread count."""

import numpy as np
import pytest

import reference_images
from cnn_core import _dropout, _parallel
from native.image_tasks import guarded_array
from reference import random_array, same_bits


def drop(x, rate=0.5, seed=1, layer=2, step=3, *, in_place=False):
    y, check = guarded_array(x.shape, x.dtype)
    if in_place:
        y[...] = x
    count = np.array([step], np.int64)
    before = x.copy()
    source = y if in_place else x
    _parallel.run(_dropout.dropout(source, y, rate, seed, layer, count))
    check()
    assert same_bits(x, before)
    return y.copy()


@pytest.mark.parametrize(
    ("seed", "layer", "step"), [(0, 0, 0), (1, 2, 3), (2**63 + 5, 2**32 - 1, 2**40 + 7)]
)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
def test_the_mask_is_the_references(kernels, rng, rate, seed, layer, step):
    x = random_array(rng, (3, 131), kernels.dtype)
    kept = reference_images.kept(x.shape, rate, seed, layer, step)
    scaled = x * kernels.dtype.type(1 / (1 - rate))
    expected = np.where(kept, scaled, kernels.dtype.type(0))
    assert same_bits(drop(x, rate, seed, layer, step), expected)
    assert same_bits(drop(x, rate, seed, layer, step, in_place=True), expected)


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 300])
def test_the_mask_that_it_leaves_drops_the_same(kernels, rng, columns):
    x, other = (random_array(rng, (5, columns), kernels.dtype) for _ in range(2))
    mask = np.zeros((5, _dropout.mask_words(columns)), np.uint64)
    y, step = np.empty_like(x), np.array([3], np.int64)
    _parallel.run(_dropout.dropout(x, y, 0.5, 1, 2, step, mask))
    assert same_bits(y, drop(x))
    _parallel.run(_dropout.keep(other, y, 0.5, mask))
    assert same_bits(y, drop(other))


def test_masks_of_other_sizes_are_refused():
    x, step = np.ones((2, 65)), np.zeros(1, np.int64)
    for shape in ((2, 1), (1, 2), (2, 3)):
        mask = np.zeros(shape, np.uint64)
        with pytest.raises(ValueError, match="mask"):
            _dropout.dropout(x, x, 0.5, 1, 2, step, mask)
        with pytest.raises(ValueError, match="mask"):
            _dropout.keep(x, x, 0.5, mask)
    with pytest.raises(TypeError):
        _dropout.keep(x, x, 0.5, None)


def test_everything_that_it_depends_on_changes_it(kernels):
    x = np.ones((2, 400), kernels.dtype)
    one = drop(x)
    for other in ({"seed": 2}, {"seed": 1 + 2**32}, {"layer": 3}, {"step": 4}, {"step": 3 + 2**32}):
        share = np.mean(drop(x, **other) == one)
        assert 0.4 < share < 0.6, other
    assert 0.4 < np.mean(one[0] == one[1]) < 0.6, "rows"


def test_the_first_columns_do_not_depend_on_the_others(kernels):
    whole = drop(np.ones((7, 200), kernels.dtype))
    for columns in (1, 63, 64, 65, 130):
        assert same_bits(drop(np.ones((5, columns), kernels.dtype)), whole[:5, :columns].copy())


def test_float32_and_float64_drop_the_same(c_level):
    masks = [drop(np.ones((4, 99), dtype)) != 0 for dtype in (np.float32, np.float64)]
    assert np.array_equal(*masks)


def test_bits_do_not_depend_on_threads(kernels, rng, threads):
    x, results = random_array(rng, (301, 500), kernels.dtype), []
    for n in (1, 2, 3, 7):
        threads(n)
        results.append(drop(x))
    assert all(same_bits(results[0], other) for other in results[1:])


def test_the_step_is_read_when_the_task_runs():
    x, y, step = np.ones((1, 300)), np.empty((1, 300)), np.array([1], np.int64)
    task = _dropout.dropout(x, y, 0.5, 1, 2, step)
    for number in (1, 5):
        step[0] = number
        _parallel.run(task)
        assert same_bits(y, drop(x, step=number))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_that_are_none(rate):
    with pytest.raises(ValueError, match="rate"):
        _dropout.dropout(np.ones((1, 2)), np.ones((1, 2)), rate, 1, 2, np.zeros(1, np.int64))
