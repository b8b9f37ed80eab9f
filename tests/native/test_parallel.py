"""Programs of tasks: chunks, lanes, stages, threads."""

import gc
import threading
import weakref

import numpy as np
import pytest

import children
import cnn_core as cc
from cnn_core import _optimizers, _parallel, _simd, ops
from cnn_core._parallel import Program
from cnn_core.ops import native
from cnn_core.ops.images import new_images
from cnn_core.parts import Finished
from reference import same_bits

THREADS = (1, 2, 3, 7, 16)
MUCH = 1e9  # work per item: never too little for a team
VISITS, BEGIN, END, THREAD = range(4)  # the columns of a Record

needs_threads = pytest.mark.skipif(
    not _parallel.openmp_support(), reason="a serial build has one thread"
)


class Record:
    """A task of n items that notes which chunk and which thread each item came with."""

    def __init__(
        self, c_level, n, step=1, most=1000, *, work=MUCH, after=None, all_of=False, **more
    ):
        self.seen, self.violations = np.zeros((n, 4), np.int64), np.zeros(max(n, 1), np.int64)
        addresses = {"violations": self.violations.ctypes.data}
        if after is not None:  # the record that must have its chunk (or all of it) by then
            addresses["before"] = after.seen.ctypes.data
            addresses["n_before"] = len(after.seen) if all_of else 0
        arrays = (self.seen, self.violations, after)
        seen = self.seen.ctypes.data
        self.task = c_level.record(n, seen, step, most, work, arrays, **addresses, **more)

    def chunks(self):
        """The chunks as (begin, end), after a check that they cut 0..n."""
        chunks = sorted({(int(begin), int(end)) for begin, end in self.seen[:, BEGIN : END + 1]})
        ends = [0, *(end for _, end in chunks)]
        assert [begin for begin, _ in chunks] == ends[:-1] and ends[-1] == len(self.seen)
        for begin, end in chunks:
            assert len(set(self.seen[begin:end, THREAD].tolist())) == 1, "a chunk on two threads"
        return chunks

    def threads(self):
        return set(self.seen[:, THREAD].tolist())


# ---- chunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", THREADS)
def test_every_item_is_visited_once_in_whole_steps(c_level, threads, count):
    threads(count)
    for n in (1, 2, 11, 12, 13, 47, 48, 49, 100, 577):
        for step, most in ((1, 1), (1, 48), (12, 48), (64, 64), (12, 12)):
            record = Record(c_level, n, step, most)
            Program([[[record.task]]]).run()
            assert (record.seen[:, VISITS] == 1).all(), f"n={n} step={step}"
            for begin, end in record.chunks():
                assert begin % step == 0 and (end % step == 0 or end == n), f"n={n} step={step}"
                assert end - begin <= most, f"n={n} step={step} most={most}"


@pytest.mark.parametrize(
    ("count", "n", "most", "size"),
    [
        (1, 100, 6, 6),
        (2, 100, 6, 5),
        (2, 128, 6, 5),
        (3, 100, 6, 5),
        (2, 10_000, 96, 82),
        (7, 5, 6, 1),
    ],
)
def test_threads_get_about_as_much(c_level, threads, count, n, most, size):
    """Of 100 items chunks of 6 would be 54 for one of two threads: 5 make 50 for each."""
    threads(count)
    record = Record(c_level, n, most=most)
    Program([[[record.task]]]).run()
    assert max(end - begin for begin, end in record.chunks()) == size


def test_a_program_runs_again_and_again(c_level, threads):
    threads(2)
    first = Record(c_level, 40)
    program = Program([[[first.task]], [[Record(c_level, 30, after=first, all_of=True).task]]])
    for times in range(1, 4):
        (program.run if times % 2 else lambda: c_level.run_from_c(program))()
        assert (first.seen[:, VISITS] == times).all()


@pytest.mark.parametrize("count", THREADS)
@pytest.mark.parametrize("n_stages", [1, 2, 3])
def test_a_program_that_repeats_itself(c_level, threads, n_stages, count):
    """As many calls would: the place of a batch, read in each stage but the last, moves on."""
    threads(count)
    n, steps, place = 60, np.zeros(1, np.int64), np.zeros(1, np.int64)
    source, order = np.arange(20.0 * n)[:, np.newaxis], np.arange(20 * n)
    for times in (1, 2, 7):
        out = np.zeros((n, 1))
        records = [Record(c_level, 64, most=8, delay=300)]
        for _ in range(n_stages - 1):
            records.append(Record(c_level, 64, most=8, delay=300, after=records[-1], all_of=True))
        stages = [[[record.task]] for record in records]
        if n_stages > 1:
            stages[0].append([native.batches.gather_rows(source, order, place, 1.0, out)])
            stages[-1].append([native.batches.next_batch(place, n, steps)])
        steps[0] = place[0] = 0
        Program(stages).run(times)
        for record in records:
            assert (record.seen[:, VISITS] == times).all() and not record.violations.any()
        if n_stages > 1:
            assert steps[0] == times and place[0] == n * times
            assert np.array_equal(out, source[n * (times - 1) : n * times])


@needs_threads
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_team_has_as_many_threads_as_were_asked_for(c_level, threads, count):
    threads(count)
    # A chunk takes so long that every thread comes for its own meanwhile.
    record = Record(c_level, count, most=1, delay=200_000, every=True)
    Program([[[record.task]]]).run()
    assert len(record.threads()) == len(record.chunks()) == count


@needs_threads
def test_chunks_of_a_late_thread_are_taken_by_the_others(c_level, threads):
    threads(2)
    record = Record(c_level, 40, most=1, delay=100_000)
    Program([[[record.task]]]).run()
    assert (record.seen[:, VISITS] == 1).all()
    assert (record.seen[1:20, THREAD] != record.seen[0, THREAD]).all(), "of the same half"


@needs_threads
def test_every_thread_has_the_same_part_of_each_lane(c_level, threads):
    """However much work a lane is, and whatever stands beside it."""
    threads(2)

    def owners():
        delay = {"most": 1, "delay": 300, "every": True}
        lanes = [Record(c_level, 8, work=work, **delay) for work in (3 * MUCH, MUCH)]
        behind = Record(c_level, 8, work=MUCH, **delay)
        Program([[[lane.task] for lane in lanes], [[behind.task]]]).run()
        return [record.seen[:, THREAD].tolist() for record in (*lanes, behind)]

    # A core that is busy elsewhere may lose some of its part to the other, but not every time.
    for _ in range(200):
        first, *others = owners()
        if len(set(first)) == 2 and others == [first, first]:
            assert first == sorted(first, key=first.index), "not the halves"
            return
    raise AssertionError("no run in 200 has given both threads their parts")


def test_small_work_stays_on_the_thread_that_calls(c_level, threads):
    threads(2)
    record = Record(c_level, 100, work=10.0)
    Program([[[record.task]]]).run()
    assert record.threads() == {threading.get_ident()}


# ---- lanes and stages ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", THREADS)
def test_a_lane_takes_each_chunk_through_its_tasks(c_level, threads, count):
    threads(count)
    first = Record(c_level, 500, 1, 100)
    second = Record(c_level, 500, 12, 64, after=first)
    third = Record(c_level, 500, 4, 48, after=second)
    Program([[[first.task, second.task, third.task]]]).run()
    assert first.chunks() == second.chunks() == third.chunks()
    for begin, end in first.chunks():
        assert begin % 12 == 0 and end - begin <= 48, "not what suits all tasks"
    assert np.array_equal(first.seen[:, THREAD], third.seen[:, THREAD]), "the chunk has moved"
    assert not second.violations.any() and not third.violations.any()


@pytest.mark.parametrize("count", THREADS)
@pytest.mark.parametrize("sizes", [(1,), (300,), (1, 1, 1), (500, 3, 40, 0, 64)])
def test_lanes_of_a_stage_are_all_run(c_level, threads, count, sizes):
    threads(count)
    records = [Record(c_level, n, 1 + n % 7, 50) for n in sizes]
    Program([[[record.task] for record in records]]).run()
    for record in records:
        assert (record.seen[:, VISITS] == 1).all()


@pytest.mark.parametrize("count", THREADS)
def test_a_stage_waits_for_the_whole_stage_before_it(c_level, threads, count):
    """The first chunk of each stage dawdles, so that without a barrier others would be early."""
    threads(count)
    stages = [Record(c_level, 64, most=8, delay=3000)]
    for _ in range(4):
        stages.append(Record(c_level, 64, most=8, delay=3000, after=stages[-1], all_of=True))
    program = Program([[[stage.task]] for stage in stages])
    for _ in range(3):
        program.run()
    assert all(not stage.violations.any() for stage in stages)
    assert (stages[-1].seen[:, VISITS] == 3).all()


def test_nothing_to_do(c_level):
    empty = Record(c_level, 0)
    for plan in ([], [[]], [[[]]], [[[empty.task]]], [[[empty.task]], [[Record(c_level, 3).task]]]):
        Program(plan).run()


def test_tasks_of_a_lane_must_agree(c_level):
    one, two = Record(c_level, 5), Record(c_level, 6)
    with pytest.raises(ValueError, match="5 and 6"):
        Program([[[one.task, two.task]]])
    for wrong in ([[["task"]]], [["task"]], [[[None]]], [None], None):
        with pytest.raises((TypeError, AttributeError)):
            Program(wrong)


def test_a_program_keeps_its_arrays_alive(c_level):
    record = Record(c_level, 5)
    array, program = weakref.ref(record.seen), Program([[[record.task]]])
    del record
    gc.collect()
    program.run()
    assert (array()[:, VISITS] == 1).all()
    del program
    gc.collect()
    assert array() is None, "the memory is never given back"


def test_programs_of_several_python_threads(c_level, threads):
    threads(2)
    records = [Record(c_level, 200, delay=500) for _ in range(4)]

    def work(record):
        program = Program([[[record.task]]])
        for _ in range(20):
            program.run()

    callers = [threading.Thread(target=work, args=(record,)) for record in records]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert all((record.seen[:, VISITS] == 20).all() for record in records)


# ---- numbers of threads --------------------------------------------------------------------------


def results(rng):
    """What the kernels give for sizes that are shared out among threads."""
    x, W, b, dout = (
        rng.standard_normal(shape).astype("float32")
        for shape in ((333, 301), (301, 77), 77, (333, 77))
    )
    y = cc.ops.affine_forward(x, W, b, activation="tanh")
    loss, dy = cc.ops.softmax_cross_entropy(y, rng.integers(0, 77, 333))
    p, v = W.ravel().copy(), W.ravel().copy()
    cc.ops.sgd_update(p, W.ravel(), 0.1, momentum=0.9, velocity=v)
    return (y, np.float64(loss), dy, p, v, *cc.ops.affine_backward(dout, x, W))


def test_bits_do_not_depend_on_the_number_of_threads(kernels, threads):
    threads(1)
    expected = results(np.random.default_rng(0))
    for count in THREADS[1:]:
        threads(count)
        actual = results(np.random.default_rng(0))
        assert all(map(same_bits, actual, expected)), f"{count} threads on {kernels}"


def test_set_num_threads(threads):
    threads(0)
    default = cc.get_num_threads()
    assert default >= 1
    for count in THREADS:
        threads(count)
        assert cc.get_num_threads() == count
    threads(0)
    assert cc.get_num_threads() == default
    for wrong in (-1, 1025, 2**40):
        with pytest.raises(ValueError, match=r"\bn\b"):
            threads(wrong)
    for wrong in (1.5, "2", None):
        with pytest.raises(TypeError):
            threads(wrong)
    assert cc.get_num_threads() == default


@needs_threads
def test_fewer_threads_than_asked_for_do_all_the_work():
    """OpenMP may give a smaller team: its size counts, not the number that was asked for."""
    code = """
    cc.set_num_threads(1)
    expected = train()
    cc.set_num_threads(7)
    print(train() == expected, cc.get_num_threads())
    """
    assert children.run(code, OMP_THREAD_LIMIT="2") == [["True", "7"]]
    assert children.run(code, OMP_DYNAMIC="true") == [["True", "7"]]


# ---- passing arrays ------------------------------------------------------------------------------


@pytest.fixture
def images_between():
    """A function: rows that go through images to other rows, as a plan with so many stages."""
    shape = n, channels, height, width = 40, 3, 30, 40

    def make(stages):
        rows = np.random.default_rng(0).uniform(1, 2, (n, channels * height * width))
        images, out = new_images(shape, (1, 0, 2, 1), rows.dtype), np.zeros_like(rows)
        tasks = [
            native.images.from_rows(rows, images),
            native.images.activation_forward(images, images, ops.ACTIVATIONS["relu"], 0.0),
            native.images.to_rows(images, out),
        ]
        plans = {1: [[tasks]], 2: [[tasks[:2]], [tasks[2:]]], 3: [[[task]] for task in tasks]}
        return images, rows, out, plans[stages]

    return make


def written(images):
    return int(images.array.any(axis=(1, 2, 3)).sum())


@pytest.mark.parametrize("count", THREADS)
def test_chunks_of_a_thread_share_what_only_passes(threads, images_between, count):
    """6 images at once and thread; with as many threads as chunks, or more, all are written."""
    threads(count)
    images, rows, out, plan = images_between(1)
    program = Program(plan, [images])
    for _ in range(2):
        program.run()
        assert same_bits(out, rows)
        assert 0 < written(images) <= min(6 * count, 40)
        out[:] = 0
    assert np.count_nonzero(images.buffer) == np.count_nonzero(images.array), "the border"


@pytest.mark.parametrize("stages", [2, 3])
def test_what_several_lanes_use_is_whole(threads, images_between, stages):
    for count in THREADS:
        threads(count)
        images, rows, out, plan = images_between(stages)
        Program(plan, [images]).run()
        assert same_bits(out, rows) and written(images) == images.n


def test_images_that_a_kernel_knows_by_something_else_stay_whole(c_level, images_between):
    images, rows, out, plan = images_between(1)
    seen = np.zeros((images.n, 4), np.int64)
    record = c_level.record(images.n, seen.ctypes.data, 1, 4, 1.0, (seen, images))
    plan[0][0].append(record)
    Program(plan, [images]).run()
    assert same_bits(out, rows) and written(images) == images.n and seen[:, VISITS].all()


def test_images_pass_only_where_it_was_allowed(images_between):
    images, rows, out, plan = images_between(1)
    Program(plan).run()
    assert same_bits(out, rows) and written(images) == images.n
    images, other = images_between(1)[0], images_between(1)[0]
    Program(plan, [images, other]).run()  # no task uses these
    assert written(images) == written(other) == 0


@pytest.mark.parametrize("count", THREADS)
@pytest.mark.parametrize("planes", [1, 3])
def test_rows_of_a_gradient_pass_to_their_update(threads, planes, count):
    """Only the first of them are written, by a thread at most a chunk; not where somebody else uses
    the gradient, nor where nobody has allowed it."""
    threads(count)
    rows, row = 400, 30
    rng = np.random.default_rng(0)
    grads, start = rng.normal(size=(2, planes * rows * row))
    source, indices = grads.reshape(planes * rows, row), np.arange(planes * rows)
    nowhere = np.zeros(1, np.int64)
    for allowed, users in ((True, 1), (True, 2), (False, 1)):
        params, passing = start.copy(), np.zeros_like(grads)
        gather = native.batches.gather_rows(
            source, indices, nowhere, 1.0, passing.reshape(planes * rows, row)
        )
        update = _optimizers.sgd(
            params, passing, None, np.array([0.5]), 1.0, 0.0, False, 0.0, 0.0, row
        )
        few = native.batches.gather_rows(
            source[:rows], indices, nowhere, 1.0, np.empty((rows, row))
        )  # takes a lane's rows some at a time
        tasks = [few, *(_parallel.in_planes(task, planes) for task in (gather, update))]
        finished = Finished(passing, tasks, planes=planes)
        plan = [[tasks], [[native.batches.write_rows(passing.reshape(-1, row), nowhere)]]]
        program = Program(plan[:users], [finished] if allowed else [])
        for _ in range(2):
            params[:] = start
            program.run()
            assert same_bits(params, start - 0.5 * grads)
        written = int(passing.reshape(planes * rows, row).any(axis=1).sum())
        whole = not allowed or users == 2
        assert written == planes * rows if whole else 0 < written <= planes * min(rows, 48 * count)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("planes", "count"), [(1, 1), (1, 7), (3, 1), (4, 33), (30, 144)])
def test_items_of_several_planes_at_once(threads, planes, count):
    """Item i stands for item i of each plane: every row is updated once, and no other."""
    row = 5
    rng = np.random.default_rng(planes)
    params, grads = rng.normal(size=(2, planes * count * row)).astype(np.float32)
    expected, lr = params - np.float32(0.5) * grads, np.array([0.5])
    task = _optimizers.sgd(params, grads, None, lr, 1.0, 0.0, False, 0.0, 0.0, row)
    before = _parallel.get_num_threads()
    _parallel.set_num_threads(threads)
    try:
        both = _parallel.in_planes(task, planes)
        assert both.n == count and both.work == planes * task.work
        del task  # its arguments live on
        _parallel.run(both)
    finally:
        _parallel.set_num_threads(before)
    assert np.array_equal(params, expected)


def test_planes_are_equal_parts():
    array = np.zeros(12)
    task = _optimizers.sgd(array, array, None, np.ones(1), 1.0, 0.0, False, 0.0, 0.0, 2)
    for planes in (0, -1, 4, 5, 12):
        with pytest.raises(ValueError, match=f"planes: expected a divisor of 6, got {planes}"):
            _parallel.in_planes(task, planes)


def test_rows_are_copied_to_where_they_are_wanted(threads):
    rows, place = np.random.default_rng(0).normal(size=(100, 7)), np.zeros(1, np.int64)
    task = native.batches.write_rows(rows, place)
    for count in THREADS:
        threads(count)
        result = np.full((102, 7), np.nan)
        _parallel.run(task)  # to nowhere
        place[0] = result[1:].ctypes.data
        _parallel.run(task)
        assert same_bits(result[1:-1], rows) and np.isnan(result[[0, -1]]).all()
        place[0] = 0


def test_pauses_of_a_tenth_of_a_millisecond():
    """Some nanoseconds each, on every processor so far; on a busy one they may seem longer."""
    count = _simd.pauses_in(1e-4)
    assert 10 < count < 1e6 and _simd.pauses_in(0) == 0
