"""Runs the native tests of AVX-512 on an x86 processor without it: python emulate_avx512.py.

Its instructions are those of emulated_avx512.h there, in a build of a copy of the checkout. That
takes minutes to compile and says nothing of speed. A processor that has them needs no such build.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import builds

KIND = "avx512"
#: what the copy has in place of the checkout's lines
CHANGES = {
    "setup.py": {'"-O3"': '"-O1", "-Wno-psabi"'},
    "cnn_core/simd/avx512.c": {
        '"avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"': '"avx2,fma"',
        '#include "kernels.h"': '#include "emulated_avx512.h"\n#include "kernels.h"',
    },
    "cnn_core/simd/sparse.h": {'    __asm__("" : "+v"(none));\n': ""},
    "cnn_core/simd/select.c": {
        f'__builtin_cpu_supports("{name}")': "1"
        for name in ("avx512f", "avx512bw", "avx512dq", "avx512vl")
    },
}


def change(folder: Path) -> None:
    """Let the build in this copy emulate AVX-512."""
    for name, lines in CHANGES.items():
        text = (builds.ROOT / name).read_text()
        for old, new in lines.items():
            if old not in text:
                sys.exit(f"{name} has no {old.strip()}")
            text = text.replace(old, new)
        if (folder / name).read_text() != text:
            (folder / name).write_text(text)
    header = folder / "cnn_core/simd/emulated_avx512.h"
    header.write_bytes((builds.ROOT / "tests/tools/emulated_avx512.h").read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", default=str(builds.ROOT / "build" / "checks"))
    options = parser.parse_args()
    begin = time.monotonic()
    environment = builds.build(KIND, options.folder, change)
    if KIND not in builds.isas(environment):
        sys.exit("the build has no AVX-512")
    os.chdir(Path(options.folder) / KIND)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/native"]
    code = subprocess.run(
        [*command, "-k", KIND], env={**environment, "CNN_CORE_ISA": KIND}, check=False
    ).returncode
    print(f"{KIND}: {time.monotonic() - begin:.0f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()
