"""Check that a wheel is what was promised: one for CPython 3.11 and newer, complete, small."""

import sys
import zipfile
from pathlib import Path

CODE_LIMIT = 3_000_000
NEEDED = (
    "cnn_core/__init__.pxd",
    "cnn_core/_simd.pxd",
    "cnn_core/_gemm.pxd",
    "cnn_core/simd/simd.h",
    "cnn_core/py.typed",
    "cnn_core/datasets/mnist_data/LICENSE",
    "cnn_core/datasets/mnist_data/train-images-idx3-ubyte.gz",
)


def main(path: Path) -> None:
    if "-cp311-abi3-" not in path.name:
        sys.exit(f"{path.name}: expected a cp311-abi3 wheel")
    with zipfile.ZipFile(path) as wheel:
        names = {entry.filename: entry.compress_size for entry in wheel.infolist()}
    missing = [name for name in NEEDED if name not in names]
    if missing:
        sys.exit(f"{path.name}: lacks {missing}")
    strange = [name for name in names if name.endswith((".c", ".pyx", ".o"))]
    if strange:
        sys.exit(f"{path.name}: holds sources that nobody needs there: {strange}")
    code = sum(size for name, size in names.items() if "/mnist_data/" not in name)
    print(f"{path.name}: {len(names)} files, {code / 1e6:.2f} MB besides the data")
    if code > CODE_LIMIT:
        sys.exit(f"{path.name}: more than {CODE_LIMIT / 1e6} MB besides the data")


main(Path(sys.argv[1]))
