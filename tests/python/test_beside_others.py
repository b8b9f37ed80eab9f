"""In one process with NumPy, SciPy, scikit-learn and PyTorch, and under threadpoolctl."""

import importlib.util

import pytest

import children
from cnn_core import _parallel, _simd

pytestmark = pytest.mark.skipif(
    _simd.active_isa != _simd.supported_isas()[0], reason="needs no repetition per instruction set"
)

# What each library does between our steps: something that starts threads of its own.
WORK = {
    "numpy": """
import numpy
def use_numpy():
    return float((lambda a: a @ a)(numpy.ones((300, 300))).sum())
""",
    "scipy": """
import scipy.linalg
def use_scipy():
    return float(scipy.linalg.lu_factor(scipy.linalg.hilbert(200))[0].sum())
""",
    "sklearn": """
import sklearn.cluster
import sklearn.ensemble
def use_sklearn():
    import numpy
    points = numpy.random.default_rng(0).random((300, 4))
    found = sklearn.cluster.KMeans(4, n_init=1, random_state=0).fit(points)
    grown = sklearn.ensemble.HistGradientBoostingClassifier(max_iter=3).fit(points, found.labels_)
    return float(grown.predict(points).sum())
""",
    "torch": """
import torch
def use_torch():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 16, 3)
    loss = layer(torch.ones(16, 3, 32, 32)).square().mean()
    loss.backward()
    return float(layer.weight.grad.sum())
""",
}

TURNS = """
cc.set_num_threads(2)

def turns():
    net = make()
    trainer = cc.Trainer(net, cc.Adam(0.01))
    for step in range(6):
        trainer.step(x, t)
        for use in others if step % 3 == 1 else ():
            use()
    return cc.fingerprint(net)

alone = train()
print(turns() == alone)
threads = [threading.Thread(target=turns, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(120)
print(not any(thread.is_alive() for thread in threads), turns() == alone, flush=True)
if hasattr(os, "fork"):
    child = os.fork()
    if not child:
        import signal
        signal.alarm(30)
        os._exit(0 if train() == alone else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0)
"""


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("name", ["torch", "sklearn", "all"])
def test_steps_in_turns_with_another_library(tmp_path, name, order):
    """`order`: when our library is imported. In turns, in threads, and in a child afterwards."""
    names = [n for n in WORK if name in (n, "all") and importlib.util.find_spec(n)]
    if not names:
        pytest.skip(f"no {name}")
    (tmp_path / "theirs.py").write_text("".join(WORK[n] for n in names))
    theirs = "import theirs\n"
    others = "others = [" + ", ".join(f"theirs.use_{n}" for n in names) + "]\n"
    pieces = [others, TURNS] if order == "last" else [theirs, others, TURNS]
    before = theirs if order == "last" else ""
    lines = children.run(*pieces, before=before, path=tmp_path / "turns.py", timeout=300)
    assert lines[:2] == [["True"], ["True", "True"]] and lines[2:] in ([["True"]], [])


# ---- threadpoolctl -------------------------------------------------------------------------------


@pytest.mark.skipif(not _parallel.openmp_support(), reason="a serial build has one thread")
@pytest.mark.parametrize("asked", [0, 2, 6])
def test_threadpoolctl_sees_and_limits_our_threads(asked):
    pytest.importorskip("threadpoolctl")
    code = f"""
    import threadpoolctl

    def limited(limit):
        with threadpoolctl.threadpool_limits(limit):
            return cc.get_num_threads(), train() == expected

    def elsewhere():
        found.append(cc.get_num_threads())

    pools = threadpoolctl.threadpool_info()
    print("openmp" in [pool["user_api"] for pool in pools])
    cc.set_num_threads({asked})
    expected, before, found = train(), cc.get_num_threads(), []
    print(before, *limited(1), *limited(2), *limited({{"openmp": 1}}), cc.get_num_threads())
    with threadpoolctl.threadpool_limits(1):
        threading.Thread(target=elsewhere).start()
        cc.set_num_threads(3)  # said later, and so it holds
        print(cc.get_num_threads())
    print(cc.get_num_threads())
    """
    first, *rest = children.run(code, OMP_NUM_THREADS="4")
    count = str(asked or 4)
    assert first == ["True"]
    one, two = ["1", "True"], ["2", "True"]
    assert rest == [[count, *one, *two, *one, count], ["3"], ["3"]]
