"""python -m cnn_core.book SCRIPT.py [arguments]"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from cnn_core.book._modules import run_script


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cnn_core.book",
        description="Run a script of Saito's Deep Learning from Scratch, in its folder, with the"
        " compiled kernels of cnn-core behind its modules common and dataset.",
    )
    parser.add_argument("script", help="the Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what sys.argv[1:] will be")
    options = parser.parse_args(arguments)
    if not os.path.isfile(options.script):
        parser.error(f"script: expected a Python file, got {options.script!r}")
    run_script(options.script, options.arguments)


if __name__ == "__main__":
    main()
