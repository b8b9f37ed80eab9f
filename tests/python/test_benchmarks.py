"""The benchmark's tables and its turns; no other library is needed."""

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
