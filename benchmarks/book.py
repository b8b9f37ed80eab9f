"""The book's scripts with the book's modules and with ours: python benchmarks/book.py FOLDER

FOLDER is a clone of its repository. Prints a table in Markdown: seconds by the clock and of the
processor, the best of some rounds in turns, and how far printed figures, plotted arrays and written
parameters differ. Needs: pip install '.[book]'
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cnn_core.book import load_params
from cnn_core.book.dataset import mnist
from measure import environment

NETWORKS = "two_layer_net", "simple_convnet", "deep_convnet"  # modules, on `common` themselves
USES_THEM = re.compile(rf"^from (common|dataset|{'|'.join(NETWORKS)})\b", re.MULTILINE)
#: Trainings of hours: one epoch instead of 20, one of them of 10,000 images.
SHORTER = {
    "ch07/train_convnet.py": [("max_epochs = 20", "max_epochs = 1")],
    "ch08/train_deepnet.py": [
        ("epochs=20", "epochs=1"),
        (
            "load_mnist(flatten=False)",
            "load_mnist(flatten=False)\nx_train, t_train = x_train[:10000], t_train[:10000]",
        ),
    ],
}
SEED = "import numpy; numpy.random.seed(0)\n"
PLOTTED = """
import matplotlib.pyplot
def show():
    numbers = matplotlib.pyplot.get_fignums()
    axes = [axis for number in numbers for axis in matplotlib.pyplot.figure(number).axes]
    arrays = [line.get_xydata() for axis in axes for line in axis.lines]
    arrays += [image.get_array() for axis in axes for image in axis.images]
    numpy.savez("plotted", *[numpy.asarray(array) for array in arrays])
matplotlib.pyplot.show = show
"""
HEADS = "original, s", "here, s", "original, processor s", "here, processor s"
ADDRESS = re.compile(r" at 0x[0-9A-F]+")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)")


def shorter(name: str, text: str) -> str:
    for old, new in SHORTER.get(name, []):
        if old not in text:
            raise SystemExit(f"{name}: expected {old!r} in it")
        text = text.replace(old, new)
    return text


def copy_of(book: Path, folder: Path, edit: Callable[[str, str], str] = shorter) -> Path:
    """A copy with the data in its place, seeds and saved plots; edit : of a script's name, text."""
    shutil.copytree(book, folder, ignore=shutil.ignore_patterns(".git", "*.ipynb"))
    for name in mnist.key_file.values():
        shutil.copy(Path(mnist.dataset_dir) / name, folder / "dataset" / name)
    for name in (path.relative_to(folder) for path in folder.glob("ch0[3-8]/*.py")):
        text = edit(name.as_posix(), (folder / name).read_text(encoding="utf-8"))
        prologue = SEED + (PLOTTED if "pyplot" in text else "")
        (folder / name).write_text(prologue + text, encoding="utf-8")
    command = [sys.executable, "-c", "from dataset.mnist import init_mnist; init_mnist()"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def run(script: Path, ours: bool, threads: int) -> tuple[float, float, str, dict[str, Any]]:
    """Seconds by the clock and of the processor, what was printed, and arrays by name."""
    names = environment("", threads) | {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    (script.parent / "plotted.npz").unlink(missing_ok=True)
    command = [sys.executable, *(["-m", "cnn_core.book"] if ours else []), script.name]
    wall, before, began = time.time(), os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=script.parent, env=names, capture_output=True, text=True)
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise SystemExit(f"{script}: exit code {done.returncode}\n{done.stderr}")
    processor = sum(after[2:4]) - sum(before[2:4])
    arrays: dict[str, Any] = {}
    for path in script.parent.glob("*.pkl"):
        if path.stat().st_mtime >= wall:
            arrays |= {f"{path.name} {name}": value for name, value in load_params(path).items()}
    for path in script.parent.glob("plotted.npz"):
        arrays |= dict(np.load(path))
    return seconds, processor, ADDRESS.sub("", done.stdout), arrays


def difference(one: Any, other: Any) -> float:
    """The largest, relative to the largest value."""
    one, other = np.asarray(one, float), np.asarray(other, float)
    if one.shape != other.shape or not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    largest = float(np.abs(np.nan_to_num(one)).max(initial=0.0)) or 1.0
    return float(np.abs(np.nan_to_num(one - other)).max(initial=0.0)) / largest


def compared(original: str, ours: str, arrays: dict[str, Any], our_arrays: dict[str, Any]) -> str:
    """What the table says of the figures."""
    if NUMBER.sub("#", original).split() != NUMBER.sub("#", ours).split():
        return "other text"
    pairs = list(zip(NUMBER.findall(original), NUMBER.findall(ours), strict=True))
    text = max((difference(float(a), float(b)) for a, b in pairs), default=0.0)
    words = [said(f"{len(pairs):,} numbers", text)] if original else []
    if arrays.keys() != our_arrays.keys():
        return "other arrays"
    if arrays:
        most = max(difference(arrays[name], our_arrays[name]) for name in arrays)
        words.append(said(f"{len(arrays)} arrays", most))
    return ", ".join(words)


def said(what: str, apart: float) -> str:
    return f"{what} to {apart:.0e}" if apart else f"{what} the same"


def cell(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of scripts, ch07/train_convnet.py; default: all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    book = options.folder.resolve()
    scripts = [
        path.relative_to(book).as_posix()
        for path in sorted(book.glob("ch0[3-8]/*.py"))
        if path.stem not in NETWORKS and USES_THEM.search(path.read_text(encoding="utf-8"))
    ]
    print("| script |", " | ".join(HEADS), "| figures |")
    print("|---|---:|---:|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copies = [copy_of(book, Path(folder) / side) for side in ("original", "ours")]
        for name in options.names or scripts:
            runs = [
                [run(copy / name, ours, options.threads) for ours, copy in enumerate(copies)]
                for _ in range(options.rounds)
            ]
            best = [cell(min(r[side][k] for r in runs)) for k in (0, 1) for side in (0, 1)]
            (_, _, text, arrays), (_, _, our_text, our_arrays) = runs[-1]
            figures = compared(text, our_text, arrays, our_arrays)
            print(f"| `{name}` |", " | ".join([*best, figures]), "|", flush=True)


if __name__ == "__main__":
    main()
