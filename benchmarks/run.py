"""How fast cnn-core is, beside other libraries: python benchmarks/run.py

Prints tables in Markdown; --json writes every round of everything to a file. The libraries take
turns, each in a process of its own, and the medians of the rounds are shown. A library that is not
installed is left out. Needs: pip install '.[bench]'
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import cnn_core as cc
import machine
from peers import PEERS
from sections import SECTIONS, Run
from workloads import WORKLOADS


def known(name: str) -> str:
    if name not in WORKLOADS and name not in SECTIONS:
        raise argparse.ArgumentTypeError(f"no workload or section named {name!r}")
    return name


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    opt_in = [name for name, (*_, always) in SECTIONS.items() if not always]
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        type=known,
        help=f"of workloads ({', '.join(WORKLOADS)}: their training) and of sections"
        f" ({', '.join(SECTIONS)}); default: all but {', '.join(opt_in)}",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one round of one library")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--trainings", type=int, default=1, help="of to99, with seeds 0, 1, ...")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    options.workloads = [name for name in WORKLOADS if name in options.names] or list(WORKLOADS)
    options.sections = [name for name in SECTIONS if name in options.names]
    if not options.sections:
        only = any(name in WORKLOADS for name in options.names)
        options.sections = ["training"] if only else [n for n in SECTIONS if n not in opt_in]
    return options


def save_mnist(folder: str) -> None:
    """As arrays of bytes, for the libraries' processes."""
    train, test = cc.datasets.load_mnist(normalize=False)
    for (x, t), end in ((train, ""), (test, "_test")):
        np.save(Path(folder) / f"x{end}.npy", x)
        np.save(Path(folder) / f"t{end}.npy", t)


def peaks(threads: int) -> dict[str, Any]:
    try:
        return machine.peak(threads)
    except RuntimeError as reason:
        return {"skipped": str(reason)}


def main() -> None:
    options = parse()
    facts = machine.facts(options.threads, options.dtype)
    facts["peak"] = peaks(options.threads)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    document: dict[str, Any] = {"machine": facts, "options": vars(options), "sections": {}}
    with tempfile.TemporaryDirectory() as folder:
        save_mnist(folder)
        run = Run(options, folder)
        try:
            for name in options.sections:
                title, section, _ = SECTIONS[name]
                began = time.perf_counter()
                try:
                    text, figures = section(run)
                except RuntimeError as reason:
                    text, figures = f"Skipped: {reason}", {"skipped": str(reason)}
                print(f"\n## {title}\n\n{text}", flush=True)
                document["sections"][name] = figures
                print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        finally:
            run.children.close()
        document["versions"] = {n: child.versions for n, child in run.children.running.items()}
        document["skipped"] = run.children.skipped
    print(f"\nVersions: {versions(document['versions'])}")
    for name, reason in document["skipped"].items():
        print(f"Without {name}: {reason}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1, default=str) + "\n")


def versions(found: dict[str, dict[str, str]]) -> str:
    each = {package: v for packages in found.values() for package, v in packages.items()}
    return ", ".join(f"{package} {v}" for package, v in sorted(each.items()))


if __name__ == "__main__":
    main()
