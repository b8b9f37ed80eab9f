"""Builds of the native half with checks in it, each in a folder of its own, and how to run them.

    address   AddressSanitizer and UndefinedBehaviorSanitizer
    thread    ThreadSanitizer; the teams are plain POSIX threads (cnn_core/team.h)
    checked   Cython's checks of indices; what valgrind runs, too
    avx512    AVX-512 emulated, see emulate_avx512.py

A second build in the same folder compiles only what has changed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "address": {"CNN_CORE_SANITIZE": "address,undefined"},
    "thread": {"CNN_CORE_SANITIZE": "thread"},
    "checked": {"CNN_CORE_BOUNDSCHECK": "1"},
    "avx512": {},
}
#: what a process that loads such a build needs besides
RUNTIME = {
    "address": {
        # Python and NumPy keep memory until the end, and tests provoke faults and full memories.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=0:handle_sigbus=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    },
    "thread": {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:exitcode=66"},
    "checked": {},
    "avx512": {},
}
LIBRARIES = {"address": ["libasan.so", "libubsan.so"], "thread": ["libtsan.so"]}


def build(kind, folder, change=None):
    """Copy the checkout into `folder`, change(it), and build it; the environment to use it in."""
    folder = Path(folder).resolve() / kind
    copy_sources(folder)
    if change is not None:
        change(folder)
    environment = {**os.environ, **SETTINGS[kind]}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    command.append(f"--parallel={os.cpu_count() if sum(os.getloadavg()[:1]) < 4 else 1}")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{kind}: the build failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return environment_of(kind, folder)


def copy_sources(folder):
    """All files of the checkout; an unchanged one keeps its time, so that nothing is rebuilt."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        source, target = ROOT / name, folder / name
        if not source.is_file():
            continue
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def environment_of(kind, folder):
    """For children that are to run this build, and to compile modules against it."""
    flags = [f"-fsanitize={SETTINGS[kind]['CNN_CORE_SANITIZE']}"] if kind in LIBRARIES else []
    libraries = [library(name) for name in LIBRARIES.get(kind, ())]
    return {
        **os.environ,
        **RUNTIME[kind],
        "LD_PRELOAD": " ".join(libraries),
        "CFLAGS": " ".join([*flags, "-g1", "-fno-sanitize-recover=all"] if flags else ["-g1"]),
        "LDFLAGS": " ".join(flags),
        "PYTHONPATH": os.pathsep.join(str(folder / name) for name in ("python", "tests")),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def library(name):
    """The path of a library of the compiler."""
    asked = ["gcc", f"-print-file-name={name}"]
    path = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"{name}: not part of this compiler")
    return str(Path(path).resolve())


def isas(environment):
    """The instruction sets of this processor, by the build that this environment is for."""
    asked = [sys.executable, "-c", "from cnn_core._simd import supported_isas as s; print(*s())"]
    done = subprocess.run(asked, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()
