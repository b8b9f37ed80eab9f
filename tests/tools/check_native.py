"""Runs tests on a build of the native half that checks itself: python check_native.py KIND.

    address   out of bounds, use after free, undefined behaviour: the native tests
    thread    data races: tests of threads, on teams of plain POSIX threads
    checked   indices of Cython's arrays: all tests
    memory    valgrind's memcheck, reads of memory that nobody has written: a small run

A kind first has to find the faults in planted.pyx, and nothing in its clean part.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import builds

HERE = Path(__file__).parent
FOUND = {
    "address": {"beyond": "heap-buffer-overflow", "overflow": "signed integer overflow"},
    "thread": {"race": "data race"},
    "checked": {"index": "IndexError"},
    "memory": {"beyond": "InvalidWrite", "uninitialised": "UninitCondition"},
}
NATIVE = ["tests/native"]
THREADED = [
    *("tests/native/test_parallel.py", "tests/python/test_threads.py"),
    "tests/python/test_reproducibility.py",
]
SUITES = {"address": NATIVE, "thread": THREADED, "checked": ["tests"], "memory": []}
#: valgrind 3 knows no AVX-512
ISAS = {"memory": ["avx2", "baseline"], "checked": ["avx2"], "thread": ["avx2"]}


def memory_errors(path):
    """What valgrind has written of errors in our modules: kinds and the innermost functions."""
    for error in ElementTree.parse(path).getroot().iter("error"):
        frames = [
            (frame.findtext("obj", ""), frame.findtext("fn", "?")) for frame in error.iter("frame")
        ]
        if any("cnn_core" in obj or "planted" in obj for obj, _ in frames):
            yield error.findtext("kind"), [name for _, name in frames[:4]]


def run(kind, environment, arguments, capture=False):
    """The exit code of Python with these arguments, and what the tool has reported."""
    command = [sys.executable, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        if kind == "memory":
            options = ["--xml=yes", f"--xml-file={report}", "--max-stackframe=8000000"]
            command = ["valgrind", "--quiet", *options, *command]
        done = subprocess.run(command, env=environment, capture_output=capture, text=True)
        text = f"{done.stdout}\n{done.stderr}"
        if kind == "memory":
            errors = list(memory_errors(report))
            return done.returncode or bool(errors), "\n".join(map(str, errors))
        return done.returncode, text


def check_planted(kind, environment):
    """The tool finds what has been planted, and nothing where nothing has."""
    with tempfile.TemporaryDirectory() as folder:
        program = [str(HERE / "planted.py"), folder]
        subprocess.run([sys.executable, *program, "none"], env=environment, check=True)
        code, text = run(kind, environment, [*program, "none"], capture=True)
        if code:
            sys.exit(f"{kind}: the clean part of planted.pyx is not clean\n{text}")
        for name, expected in FOUND[kind].items():
            code, text = run(kind, environment, [*program, name], capture=True)
            if not code or expected not in text:
                sys.exit(f"{kind}: {name} was not found, exit code {code}\n{text}")
            print(f"{kind}: planted fault found: {name} ({expected})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=SUITES)
    parser.add_argument("--folder", default=str(builds.ROOT / "build" / "checks"))
    parser.add_argument("--isa", action="append", help="all of this processor by default")
    parser.add_argument("pytest", nargs="*", help="instead of the kind's own tests")
    options = parser.parse_args()
    begin = time.monotonic()
    built = "checked" if options.kind == "memory" else options.kind
    environment = builds.build(built, options.folder)
    os.chdir(Path(options.folder) / built)
    check_planted(options.kind, environment)
    for isa in options.isa or ISAS.get(options.kind) or builds.isas():
        if options.kind == "memory":
            arguments = [str(HERE / "small_run.py")]
        else:
            tests = options.pytest or SUITES[options.kind]
            arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        code, text = run(options.kind, {**environment, "CNN_CORE_ISA": isa}, arguments)
        if code:
            sys.exit(f"{options.kind} on {isa}: exit code {code}\n{text}")
        print(f"{options.kind} on {isa}: passed, {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
