"""The benchmark's tables and its turns; no other library is needed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn_core as cc

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    """The benchmark's own modules, which stand beside its program, not in a package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("measure", "tables", "workloads")
    found = {name: __import__(name) for name in names}
    yield found
    for name in names:
        sys.modules.pop(name, None)


def test_the_ratio_is_to_the_fastest_library_round_by_round(modules):
    measure, tables = modules["measure"], modules["tables"]
    rounds = {
        "cnn-core": [1e-4, 2e-4, 1e-4],
        "cnn-core avx2": [5e-5, 5e-5, 5e-5],
        "A": [3e-4, 3e-4, 4e-4],
        "B": [1e-3, 1e-4, 1e-3],
    }
    result = measure.Result(rounds, {"A": "whole"}, {})
    assert result.fastest() == "A"
    lines = tables.comparison({"W1": result}, ["cnn-core", "A", "B", "C"], {"W1": 2.5}).splitlines()
    assert lines[0] == "| µs | cnn-core | A | B | ratio to the fastest (rounds) | wanted |"
    assert lines[2] == "| W1 | 100 | **300** | 1,000 | 3.00 (1.50 to 4.00) | 2.5 |"
    assert tables.notes({"W1": result}) == "* W1: A: whole"
    alone = measure.Result({"cnn-core": [1e-5]}, {}, {})
    assert tables.comparison({"W2": alone}, ["cnn-core", "A"], {}).splitlines()[2] == (
        "| W2 | 10.0 |  |  |"
    )


def test_a_child_works_in_turns_and_says_what_it_cannot_do(modules, tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (200, 784), np.uint8))
    np.save(tmp_path / "t.npy", rng.integers(0, 10, 200))
    measure = modules["measure"]
    children = measure.Children(1, str(tmp_path))
    try:
        found = children.get(["cnn-core"])
        job = {"kind": "training", "workload": "W1", "rows": 200, "dtype": "float32"}
        result = measure.compare(found, 2, 0.01, **job)
        assert len(result.rounds["cnn-core"]) == 2 and result.median("cnn-core") > 0
        job["kind"] = "flying"
        assert measure.compare(found, 1, 0.01, **job).skipped == {
            "cnn-core": "no flying with this library"
        }
    finally:
        children.close()


def test_the_workloads_are_the_networks_of_the_books(modules):
    workloads = modules["workloads"].WORKLOADS
    for name, model in (("W5", "grokking"), ("W6", "simple"), ("W8", "deep")):
        kinds = {cc.Conv2D: "conv", cc.MaxPool2D: "pool"}
        net = getattr(cc.models, f"{model}_conv_net")()
        expected = [kinds.get(type(layer), type(layer).__name__.lower()) for layer in net.layers]
        assert [layer[0] for layer in workloads[name].layers] == expected


def test_the_scripts_of_a_book_take_turns_with_ours(tmp_path):
    """A book of two scripts whose own modules say the same as ours, or not."""
    files = {
        "common/functions.py": "def identity_function(x): return x\ndef sigmoid(x): return x\n",
        "dataset/mnist.py": "def init_mnist(): pass\n",
        "ch03/same.py": "from common.functions import identity_function as f\nprint(f(0.25), 'a')",
        "ch03/other.py": "from common.functions import sigmoid\nprint(sigmoid(1.0))",
        "ch03/alone.py": "raise SystemExit('uses neither')",
        "ch04/two_layer_net.py": "import common.functions\nraise SystemExit('a module')",
    }
    path = "import os, sys; sys.path.append(os.pardir)\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(path + text)
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "book.py"), str(tmp_path), "--rounds", "1"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [(row[0], row[-1]) for row in rows] == [
        ("| `ch03/other.py`", "1 numbers to 3e-01 |"),
        ("| `ch03/same.py`", "1 numbers the same |"),
    ]
