"""CNN_CORE_ISA: each instruction set can be forced, and its results agree with the reference."""

import os
import subprocess
import sys

import pytest

from cnn_core import ops

SUPPORTED = ops.native_config()["isas"]
KNOWN = ("avx512", "avx2", "baseline")

# Every kind of kernel, at sizes with whole vectors, rests of vectors, and more than one block.
AGREES = """
import sys

import numpy as np

import cnn_core as cc
import reference
from reference import assert_close

assert cc.ops.native_config()["isa"] == sys.argv[1]
rng = np.random.default_rng(0)


def check(name, args, size, **options):
    actual = getattr(cc.ops, name)(*args, **options)
    expected = getattr(reference, name)(*args, **options)
    for one, two in zip(*(r if isinstance(r, tuple) else (r,) for r in (actual, expected))):
        note = f"{name} {[a.shape for a in args]}"
        magnitude = np.full(np.shape(two), float(size))
        assert_close(np.asarray(one, dtype), two, dtype, magnitude=magnitude, note=note)


for dtype in ("float32", "float64"):
    for n, i, o in ((1, 1, 1), (7, 129, 65), (50, 300, 10), (13, 17, 131)):
        x, W, b, dout = (
            rng.uniform(-1, 1, shape).astype(dtype) for shape in ((n, i), (i, o), o, (n, o))
        )
        for activation in (None, "sigmoid", "tanh", "relu", "leaky_relu"):
            check("affine_forward", (x, W, b), i + 1, activation=activation)
        check("affine_backward", (dout, x, W), i + o + n)
        y = reference.softmax_forward(dout).astype(dtype)
        check("softmax_forward", (dout,), 1)
        check("softmax_backward", (dout, y), 2)
        for name in ("sigmoid", "tanh", "relu", "leaky_relu"):
            check(f"{name}_forward", (dout,), 1)
            check(f"{name}_backward", (dout, y), 1)
        check("softmax_cross_entropy", (dout, rng.integers(0, o, n)), 9)
        for name in ("softmax_cross_entropy", "binary_cross_entropy", "sum_squared_error"):
            check(name, (dout, y), 9 * o)
        p, v = W.ravel().copy(), W.ravel().copy()
        rule = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "velocity": v.copy()}
        expected, _ = reference.sgd_update(p, v, 0.1, **rule)
        cc.ops.sgd_update(p, v, 0.1, **rule)
        assert_close(p, expected, dtype, magnitude=np.full(p.size, 4.0), note="sgd_update")
    rows = rng.uniform(-1, 1, (9, 37)).astype(dtype)
    check("gather_rows", (rows, rng.integers(0, 9, 5)), 1, scale=1 / 255)
print("agrees")
"""


def run_python(code, *args, isa):
    """A child with CNN_CORE_ISA=isa, without it for None."""
    return run_command([sys.executable, "-c", code, *args], isa)


def run_command(command, isa):
    environment = {key: value for key, value in os.environ.items() if key != "CNN_CORE_ISA"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if isa is not None:
        environment["CNN_CORE_ISA"] = isa
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_the_sets_are_known_and_the_best_comes_first():
    assert list(SUPPORTED) == [isa for isa in KNOWN if isa in SUPPORTED]
    assert SUPPORTED[-1] == "baseline", "what every processor has is missing"
    wanted = os.environ.get("CNN_CORE_ISA") or SUPPORTED[0]
    assert ops.native_config()["isa"] == wanted


@pytest.mark.parametrize("isa", SUPPORTED)
def test_each_set_can_be_forced_and_agrees_with_the_reference(isa):
    done = run_python(AGREES, isa, isa=isa)
    assert done.stdout == "agrees\n", done.stderr


@pytest.mark.parametrize("isa", [None, ""])
def test_the_best_set_is_the_default(isa):
    code = "import cnn_core.ops as ops; print(ops.native_config()['isa'])"
    done = run_python(code, isa=isa)
    assert done.stdout == f"{SUPPORTED[0]}\n", done.stderr


UNAVAILABLE = [isa for isa in KNOWN if isa not in SUPPORTED]


@pytest.mark.parametrize("isa", [*UNAVAILABLE, "avx1024", "AVX2", " baseline", "sse2,avx2", "0"])
def test_an_unavailable_set_is_an_error_that_names_the_choices(isa):
    code = "try:\n    import cnn_core\nexcept ImportError as error:\n    print(type(error), error)"
    done = run_python(code, isa=isa)
    assert done.stdout.startswith("<class 'ImportError'> ") and repr(isa) in done.stdout
    assert all(choice in done.stdout.split("expected")[1] for choice in SUPPORTED), done.stdout


SCRIPT = "import sys\nfrom cnn_core.cli import main\nsys.exit(main())\n"


@pytest.mark.parametrize("how", ["module", "script"])
def test_the_command_line_ends_with_one_line(how, tmp_path):
    script = tmp_path / "cnn-core"  # what pip makes of the entry point
    script.write_text(SCRIPT)
    start = ["-m", "cnn_core"] if how == "module" else [str(script)]
    done = run_command([sys.executable, *start, "info"], "avx1024")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cnn-core: error: CNN_CORE_ISA='avx1024' is not available")
    assert len(done.stderr.splitlines()) == 1


def test_a_script_of_the_users_gets_the_import_error(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    done = run_command([sys.executable, str(script), "info"], "avx1024")
    assert done.returncode == 1 and "ImportError: CNN_CORE_ISA='avx1024'" in done.stderr
