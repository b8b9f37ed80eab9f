"""Forked and spawned processes, and systems that grant few threads: it works, and never hangs."""

import os
import sys

import pytest

import children
from cnn_core import _cpus, _parallel, _simd

pytestmark = pytest.mark.skipif(
    _simd.active_isa != _simd.supported_isas()[0], reason="needs no repetition per instruction set"
)
needs_threads = pytest.mark.skipif(
    not _parallel.openmp_support(), reason="a serial build has one thread"
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")


# ---- fork ----------------------------------------------------------------------------------------

FORK = """
def forked(work):
    \"\"\"0 if the work of a child is true. A child that hangs is killed.\"\"\"
    child = os.fork()
    if not child:
        code = 1
        try:
            import signal
            signal.alarm(20)
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@needs_fork
def test_a_child_after_use_computes_the_same_on_one_thread():
    """The threads of the parent do not exist in the child, which must not wait for them."""
    code = """
    expected = train()  # the team of threads exists from here on

    def work():
        alone = cc.get_num_threads() == 1
        cc.set_num_threads(2)  # may be asked for, but there are no threads to be had
        return alone and train() == expected and forked(lambda: train() == expected) == 0

    print(*[forked(work) for _ in range(3)])
    print(cc.get_num_threads(), train() == expected)
    """
    assert children.run(FORK, code) == [["0"] * 3, ["2", "True"]]


@needs_fork
def test_a_child_takes_the_locks_that_other_threads_held():
    """A thread is predicting at the moment of the fork; in the child nobody will end that."""
    code = """
    net = make()
    expected, going = net.predict(x).tobytes(), True
    many = np.concatenate([x] * 40)

    def predict():
        while going:
            net.predict(many)

    other = threading.Thread(target=predict)
    other.start()
    print(*[forked(lambda: net.predict(x).tobytes() == expected) for _ in range(25)])
    going = False
    other.join()
    print(net.predict(x).tobytes() == expected)
    """
    assert children.run(FORK, code) == [["0"] * 25, ["True"]]


@needs_fork
def test_a_fork_inside_a_step_and_inside_a_callback():
    """The child goes on with the training of the parent, from the middle of it."""
    code = """
    class Forks(cc.Layer):
        def forward(self, x, training=False):
            if len(trainers) == 2 and trainers[1].iteration == 4 and not results[1:]:
                results.append(forked(lambda: trainers[1].network.predict(x[:3]) is not None))
            return x

        def backward(self, dout):
            return dout

    class ForksToo(cc.Callback):
        def on_step_end(self, trainer):
            if trainer.iteration == 2:
                results.append(forked(lambda: finish(trainer)))

    def finish(trainer):
        while trainer.iteration < 6:
            trainer.step(x, t)
        return cc.fingerprint(trainer.network) == prints[0]

    trainers, prints, results = [], [], []
    for callbacks in ([], [ForksToo()]):
        layers = [cc.Flatten(), Forks(), cc.Affine(5)]
        net = cc.Sequential(layers, input_shape=(3, 17, 15))
        trainers.append(cc.Trainer(net, cc.SGD(0.1), callbacks=callbacks))
        trainers[-1].fit(x, t, epochs=6, batch_size=64, sampling="sequential", verbose=False)
        prints.append(cc.fingerprint(net))
    print(prints[0] == prints[1], *results)
    """
    assert children.run(FORK, code) == [["True", "0", "0"]]


@needs_fork
def test_workers_forked_before_the_first_request(tmp_path):
    """As gunicorn does: load and warm up once, fork, then answer in threads."""
    code = """
    import multiprocessing
    from concurrent.futures import ThreadPoolExecutor

    net = make()
    expected = net.predict(x).tobytes()

    def serve(pipe):
        with ThreadPoolExecutor(4) as pool:
            while rows := pipe.recv():
                parts = pool.map(lambda row: net.predict(x[row : row + 1]).tobytes(), range(rows))
                pipe.send(b"".join(parts))

    context = multiprocessing.get_context("fork")
    workers = []
    for _ in range(3):
        here, there = context.Pipe()
        workers.append((context.Process(target=serve, args=(there,), daemon=True), here))
        workers[-1][0].start()
    for _ in range(5):
        for _, pipe in workers:
            pipe.send(len(x))
        print(net.predict(x).tobytes() == expected, *[p.recv() == expected for _, p in workers])
    for worker, pipe in workers:
        pipe.send(0)
        worker.join(20)
        print(worker.exitcode)
    """
    answers = children.run(code, path=tmp_path / "server.py")
    assert answers == [["True"] * 4] * 5 + [["0"]] * 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_multiprocessing(tmp_path, method):
    code = f"""
    if __name__ == "__main__":
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        if "{method}" not in multiprocessing.get_all_start_methods():
            print("missing")
            sys.exit()
        expected = [train(seed) for seed in range(4)]
        context = multiprocessing.get_context("{method}")
        with context.Pool(2) as pool:
            print(pool.map_async(train, range(4)).get(50) == expected)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            print(list(pool.map(train, range(4), timeout=50)) == expected)
    """
    answers = children.run(code, path=tmp_path / "pools.py", timeout=120)
    if answers == [["missing"]]:
        pytest.skip(f"{method}: not on this system")
    assert answers == [["True"]] * 2


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_backends_of_joblib(tmp_path, backend):
    pytest.importorskip("joblib")
    code = f"""
    if __name__ == "__main__":
        import joblib

        expected = [train(seed) for seed in range(4)]
        parallel = joblib.Parallel(n_jobs=2, backend="{backend}", timeout=50)
        print(parallel(joblib.delayed(train)(seed) for seed in range(4)) == expected)
        if "{backend}" == "loky":
            joblib.externals.loky.get_reusable_executor().shutdown()
    """
    assert children.run(code, path=tmp_path / "jobs.py", timeout=120) == [["True"]]


# ---- threads that the system does not grant ------------------------------------------------------

ALONE = """
cc.set_num_threads(1)
expected = train()
"""
TEAM = """
cc.set_num_threads(8)
same = train() == expected
print(cc.get_num_threads(), same)
"""


@needs_threads
@needs_limits
@pytest.mark.parametrize("limit", ["address space", "processes"])
def test_threads_that_cannot_be_made_are_done_without(limit):
    """OpenMP itself would end the process."""
    limits = {
        "address space": """
    import resource
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 40 * 2**20,) * 2)
    """,
        "processes": """
    import resource
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    if os.geteuid() == 0:  # whom the limit does not hold
        os.setuid(65534)
    """,
    }
    after = """
    cc.set_num_threads(0)  # tries again
    print(cc.get_num_threads())
    """
    assert children.run(ALONE, limits[limit], TEAM, after) == [["1", "True"], ["2"]]


@needs_threads
@needs_limits
def test_limits_that_come_later_are_met_by_the_threads_of_later_callers():
    """A second Python thread has a team of its own, which must be possible then."""
    code = """
    import resource

    expected, results = train(), []
    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
    cc.set_num_threads(2)
    caller = threading.Thread(target=lambda: results.append(train() == expected))
    caller.start()
    caller.join()
    if os.geteuid() == 0:
        os.setuid(65534)
    cc.set_num_threads(9)
    print(train() == expected, *results, cc.get_num_threads())
    """
    assert children.run(code) == [["True", "True", "1"]]


@needs_threads
@needs_limits
@pytest.mark.parametrize("size", ["16k", "1000000G", "512 m", "nonsense"])
def test_any_size_of_stack_for_openmp(size):
    (threads, same), *_ = children.run(ALONE, TEAM, OMP_STACKSIZE=size)
    assert same == "True" and threads == ("1" if size == "1000000G" else "8")


@needs_limits
def test_small_stacks_of_all_threads():
    """The kernels need a few kilobytes; what Python needs is more."""
    code = """
    import resource, subprocess
    resource.setrlimit(resource.RLIMIT_STACK, (256 * 1024,) * 2)
    code = "import cnn_core as cc; net = cc.models.lenet5(); cc.set_num_threads(4);"
    code += "print(net.predict([[[[0.0] * 28] * 28]] * 9).shape)"
    print(subprocess.run([sys.executable, "-c", code], stdout=-1, text=True).stdout)
    threading.stack_size(128 * 1024)
    expected, results = train(), []
    caller = threading.Thread(target=lambda: results.append(train() == expected))
    caller.start()
    caller.join()
    print(results)
    """
    assert children.run(code) == [["(9,", "10)"], [], ["[True]"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("16", 2**14), ("16k", 2**14), (" 3 M ", 3 << 20), ("1g", 1 << 30), ("64B", 64)),
        *(("", 0), ("-5", 0), ("4 MB", 0), ("much", 0)),
    ],
)
def test_sizes_of_stacks_as_openmp_reads_them(text, expected):
    assert _parallel.stack_size({"OMP_STACKSIZE": text}) == expected
    assert _parallel.stack_size({"GOMP_STACKSIZE": text}) == expected
    assert _parallel.stack_size({"OMP_STACKSIZE": "1", "GOMP_STACKSIZE": text}) == 1024


# ---- how many threads by default -----------------------------------------------------------------


@needs_threads
@pytest.mark.parametrize("asked", [None, "1", "3"])
def test_affinity_is_the_default_unless_openmp_is_told_otherwise(asked):
    """As taskset and cpusets do it: before the library is loaded."""
    code = """
    import subprocess
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    program = [sys.executable, "-c", "import cnn_core as cc; print(cc.get_num_threads())"]
    print(subprocess.run(program, stdout=-1, text=True).stdout)
    """
    if asked is None and not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    assert children.run(code, OMP_NUM_THREADS=asked)[0] == [asked or "1"]


@needs_threads
@pytest.mark.parametrize("asked", [None, "2"])
def test_a_share_of_the_processors_time_is_the_default(asked):
    code = """
    import subprocess
    program = "import os; os.sched_getaffinity = lambda _: {7};"
    program += "import cnn_core as cc; print(cc.get_num_threads())"
    print(subprocess.run([sys.executable, "-c", program], stdout=-1, text=True).stdout)
    """
    assert children.run(code, OMP_NUM_THREADS=asked)[0] == [asked or "1"]


V2, V1 = "0::/a/b\n", "9:name=systemd:/\n3:cpuset:/\n2:cpu,cpuacct:/a/b\n1:memory:/c\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (None, {}, 12),
        ("", {}, 12),
        (V2, {}, 12),
        (V2, {"a/b/cpu.max": "max 100000"}, 12),
        (V2, {"a/b/cpu.max": "300000 100000"}, 3),
        (V2, {"a/b/cpu.max": "150000 100000"}, 2),
        (V2, {"a/b/cpu.max": "10000 100000"}, 1),
        (V2, {"a/b/cpu.max": "9900000 100000"}, 12),
        (V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
        (V2, {"a/b/cpu.max": "800000 100000", "a/cpu.max": "500000 100000"}, 5),
        (V2, {"cpu.max": "200000 100000"}, 2),  # in a container that sees its own group only
        ("0::/../../a\n", {"cpu.max": "200000 100000", "../cpu.max": "100000 100000"}, 2),
        (V2, {"a/b/cpu.max": "much 100000"}, 12),
        (V2, {"a/b/cpu.max": "100000"}, 12),
        (V2, {"a/b/cpu.max": ""}, 12),
        (V2, {"a/b/cpu.max": "100000 0"}, 12),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, 12),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "250000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "50000"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "25000"}, 2),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "250000"}, 12),
    ],
)
def test_processors_by_affinity_and_cgroups(tmp_path, monkeypatch, groups, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    assert _cpus.count(tmp_path) == expected


def test_processors_without_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for known, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda known=known: known)
        assert _cpus.count(tmp_path) == expected
