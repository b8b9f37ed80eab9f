"""Runs tests on a build of the native half that checks itself: python check_native.py KIND.

    address   out of bounds, use after free, undefined behaviour: the native tests
    thread    data races: tests of threads, on teams of plain POSIX threads
    checked   indices of Cython's arrays: all tests of modules
    memory    valgrind's memcheck, reads of memory that nobody has written: a small run

A kind first has to find the faults in planted.pyx, and nothing in its clean part.
"""

import argparse
import os
import re
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
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
SMALL = [str(HERE / "small_run.py")]
CASES = ["tests/reproducibility.py", "3", "float32", "float64"]
RUNS = {
    "address": [SMALL, [*PYTEST, "tests/native"]],
    "thread": [CASES, [*PYTEST, "tests/native/test_parallel.py", "tests/python/test_threads.py"]],
    "checked": [SMALL, [*PYTEST, "tests/native", "tests/python"]],
    "memory": [SMALL],
}
#: valgrind 3 knows no AVX-512
ISAS = {"memory": ["avx2", "baseline"], "checked": ["avx2"], "thread": ["avx2"]}


def memory_errors(path):
    """What valgrind has written of errors in our modules: kinds and the innermost functions.

    Not of leaks, which it always looks for when it writes XML: test_leaks.py counts those.
    """
    for error in ElementTree.parse(path).getroot().iter("error"):
        if error.findtext("kind", "").startswith("Leak_"):
            continue
        frames = [
            (frame.findtext("obj", ""), frame.findtext("fn", "?")) for frame in error.iter("frame")
        ]
        if any("cnn_core" in obj or "planted" in obj for obj, _ in frames):
            yield error.findtext("kind"), [name for _, name in frames[:4]]


def run(kind, environment, arguments):
    """The exit code of Python with these arguments, and what it and the tool have said."""
    command = [sys.executable, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        if kind == "memory":
            command = ["valgrind", "--quiet", "--xml=yes", f"--xml-file={report}", *command]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        errors = list(memory_errors(report)) if kind == "memory" else []
    text = "\n".join([done.stdout, done.stderr, *map(str, errors)])
    return done.returncode or bool(errors), text


def check_planted(kind, environment):
    """The tool finds what has been planted, and nothing where nothing has."""
    with tempfile.TemporaryDirectory() as folder:
        program = [str(HERE / "planted.py"), folder]
        subprocess.run([sys.executable, *program, "none"], env=environment, check=True)
        code, text = run(kind, environment, [*program, "none"])
        if code:
            sys.exit(f"{kind}: the clean part of planted.pyx is not clean\n{text}")
        for name, expected in FOUND[kind].items():
            code, text = run(kind, environment, [*program, name])
            if not code or expected not in text:
                sys.exit(f"{kind}: {name} was not found, exit code {code}\n{text}")
            print(f"{kind}: planted fault found: {name} ({expected})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=RUNS)
    parser.add_argument("--folder", default=str(builds.ROOT / "build" / "checks"))
    parser.add_argument("--isa", action="append", help="all of this processor by default")
    parser.add_argument("--small", action="store_true", help="the first run of the kind only")
    options = parser.parse_args()
    begin = time.monotonic()
    built = "checked" if options.kind == "memory" else options.kind
    environment = builds.build(built, options.folder)
    os.chdir(Path(options.folder) / built)
    check_planted(options.kind, environment)
    for isa in options.isa or ISAS.get(options.kind) or builds.isas(environment):
        for arguments in RUNS[options.kind][: 1 if options.small else None]:
            code, text = run(options.kind, {**environment, "CNN_CORE_ISA": isa}, arguments)
            if code:
                sys.exit(f"{options.kind} on {isa}: exit code {code}\n{text[-20000:]}")
            counted = re.findall(r"^\d+ passed.*", text, re.MULTILINE)
            name = " ".join([Path(arguments[0]).name, *arguments[1:]])
            print(f"{options.kind} on {isa}: {name}: clean", *counted, flush=True)
    print(f"{options.kind}: {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
