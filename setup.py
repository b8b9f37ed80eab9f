"""The table of extension modules and how they are compiled; all else is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

NATIVE = Path("cnn_core")
SIMD = [str(NATIVE / "simd" / name) for name in ("select.c", "baseline.c", "avx2.c", "avx512.c")]
MODULES = {
    "_simd": SIMD,
    "_parallel": [],
    "_gemm": [],
    "_nonzeros": [],
    "_affine": [],
    "_affine_gradient": [],
    "_affine_images": [],
    "_affine_seen": [],
    "_sparse": [],
    "_activations": [],
    "_losses": [],
    "_batches": [],
    "_optimizers": [],
    "_gradient_check": [],
    "_images": [],
    "_seen": [],
    "_conv2d": [],
    "_conv2d_gradient": [],
    "_conv2d_spans": [],
    "_conv2d_pooled": [],
    "_conv2d_pooled_gradient": [],
    "_conv2d_windows": [],
    "_winograd": [],
    "_winograd_rows": [],
    "_pooling": [],
    "_dropout": [],
    "_batch_norm": [],
}
MOST_COMPILERS = 4  # at once: each takes up to half a gigabyte
COMPILE = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-g0", "-fvisibility=hidden"]
COMPILE += ["-falign-functions=64"]  # a product's speed varies by a tenth else
OPENMP = {"darwin": (["-Xpreprocessor", "-fopenmp"], ["-lomp"])}.get(
    sys.platform, (["-fopenmp"], ["-fopenmp"])
)
SHARED = "cnn_core._cython_shared"


def has_openmp() -> bool:
    """Whether the C compiler builds and links a program with OpenMP."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }")
        program = str(source.with_suffix(""))
        command = [*compiler, *OPENMP[0], str(source), *OPENMP[1], "-o", program]
        try:
            return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
        except OSError:
            return False


# For tests/tools: checks of indices in Cython code, sanitizers ("address,undefined" or "thread").
BOUNDSCHECK = bool(os.environ.get("CNN_CORE_BOUNDSCHECK"))
SANITIZE = os.environ.get("CNN_CORE_SANITIZE")

GENERATED = Path("build/cython")
STAMP = GENERATED / "settings"  # with which the C code was made, and when


def keep_only(settings: str) -> None:
    """Make all again where it was made with others."""
    if not STAMP.exists() or STAMP.read_text() != settings:
        shutil.rmtree(GENERATED, ignore_errors=True)
        GENERATED.mkdir(parents=True)
        STAMP.write_text(settings)
        os.utime(STAMP, (0, 0))  # older than all sources


def is_generated() -> bool:
    """Whether the C code is that of the sources. Cython compares it with its own files, too, which
    are newer in each of pip's build environments: all would be compiled for each of README's
    commands."""
    sources = [Path("setup.py"), *NATIVE.glob("*.p*"), *NATIVE.glob("**/*.h")]
    return max(source.stat().st_mtime for source in sources) < STAMP.stat().st_mtime


def extensions() -> list[Extension]:
    compile_args, link_args = list(COMPILE), ["-Wl,-s"] if sys.platform == "linux" else []
    if SANITIZE:
        compile_args += ["-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
        compile_args += [f"-fsanitize={SANITIZE}"]
        link_args = [f"-fsanitize={SANITIZE}"]
    if SANITIZE == "thread":
        compile_args += ["-DCNN_CORE_PTHREADS"]  # it does not see what happens inside OpenMP
    elif os.environ.get("CNN_CORE_NO_OPENMP"):
        print("cnn-core: CNN_CORE_NO_OPENMP is set: building without threads", file=sys.stderr)
    elif has_openmp():
        compile_args += OPENMP[0]
        link_args += OPENMP[1]
    else:
        print(
            "cnn-core: WARNING: the C compiler has no OpenMP: building without threads",
            file=sys.stderr,
        )
    common = {
        "include_dirs": [str(NATIVE)],
        "extra_compile_args": compile_args,
        "extra_link_args": link_args,
        "py_limited_api": True,
        "define_macros": [("Py_LIMITED_API", "0x030B0000"), ("CYTHON_LIMITED_API", "1")],
        "depends": [str(path) for path in sorted(NATIVE.glob("**/*.h"))],
    }
    variables = [os.environ.get(name) for name in ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS")]
    keep_only(f"{Cython.__version__}, {BOUNDSCHECK=}, {compile_args}, {link_args}, {variables}")
    fresh = is_generated()
    folder, suffix = (GENERATED / NATIVE, "c") if fresh else (NATIVE, "pyx")
    modules = [
        Extension(f"cnn_core.{name}", [str(folder / f"{name}.{suffix}"), *sources], **common)
        for name, sources in MODULES.items()
    ]
    modules.append(Extension(SHARED, [str(folder / "_cython_shared.c")], **common))
    if fresh:
        return modules
    modules = cythonize(
        modules,
        build_dir=str(GENERATED),
        shared_utility_qualified_name=SHARED,
        compiler_directives={
            "language_level": 3,
            "boundscheck": BOUNDSCHECK,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": BOUNDSCHECK,
        },
    )
    STAMP.touch()
    return modules


class BuildPy(build_py):
    """Also carries the declarations, so that other Cython code can cimport the C level."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source in [*NATIVE.glob("*.pxd"), *NATIVE.glob("*.h"), *NATIVE.glob("simd/*.h")]:
            target = Path(self.build_lib) / source
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


setup(
    ext_modules=extensions(),
    cmdclass={"build_py": BuildPy},
    options={
        "bdist_wheel": {"py_limited_api": "cp311"},
        "build_ext": {"parallel": min(os.cpu_count() or 1, MOST_COMPILERS)},
    },
)
