"""Resident memory stays flat, however often something is done."""

import sys

import pytest

import children
from cnn_core import _simd

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(
        _simd.active_isa != _simd.supported_isas()[0],
        reason="needs no repetition per instruction set",
    ),
]

ALLOWED = 2**20  # bytes in all, where a lost object per turn would be ten times as much

MEASURE = """
import gc, pathlib, resource, tempfile

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def grown(work, turns):
    \"\"\"Bytes by which the process has grown in so many turns, after a fifth of them.\"\"\"
    for turn in range(turns // 5):
        work(turn)
    before = resident()
    for turn in range(turns):
        work(turn)
    return resident() - before

net = make()
trainer = cc.Trainer(net, cc.Adam(0.001))
"""
TURNS = {
    "steps": (10_000, "trainer.step(x[:8], t[:8])"),
    "steps of many sizes": (1_000, "n = 1 + turn % 50; trainer.step(x[:n], t[:n])"),
    "predictions": (10_000, "net.predict(x[:3])"),
    "epochs": (100, "trainer.fit(x, t, batch_size=23, validation_data=(x, t), verbose=False)"),
    "networks": (300, "cc.Trainer(make(turn), cc.SGD(momentum=0.9)).step(x[:5], t[:5])"),
    "kernels": (3_000, "cc.ops.affine_backward(*np.ones((3, 9, 9))); cc.ops.softmax_forward(x)"),
    "numerical gradients": (300, "dense.numerical_gradient(x[:4, 0, 0], t[:4])"),
    "files": (200, "net.save(path); cc.fingerprint(cc.load(path))"),
    "errors": (5_000, "refused()"),
    "threads": (500, "started(lambda: net.predict(x))"),
}
HELPERS = """
dense = cc.Sequential([cc.Affine(4), cc.Tanh(), cc.Affine(5)], input_shape=(15,))
path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"

def refused():
    for wrong in (lambda: net.predict(x[:, :1]), lambda: trainer.step(x, t + 5), missing):
        try:
            wrong()
        except (ValueError, OSError):
            continue
        raise AssertionError("accepted")

def missing():
    cc.load("nowhere/net.safetensors")

def started(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize("name", TURNS)
def test_memory_stays_flat(name):
    turns, work = TURNS[name]
    code = f"def work(turn):\n    {work}\nprint(grown(work, {turns}))\n"
    ((bytes_grown,),) = children.run(MEASURE, HELPERS, code, timeout=300)
    assert int(bytes_grown) < ALLOWED


def test_a_leak_would_be_seen():
    code = "kept = []\nprint(grown(lambda turn: kept.append(bytearray(600)), 10_000))\n"
    ((bytes_grown,),) = children.run(MEASURE, code)
    assert int(bytes_grown) > ALLOWED
