"""The names by which scripts import the book's modules, given to those of this package."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_PACKAGES = ("common", "dataset")
_MODULES = (
    "common",
    "common.functions",
    "common.gradient",
    "common.layers",
    "common.multi_layer_net",
    "common.multi_layer_net_extend",
    "common.optimizer",
    "common.trainer",
    "common.util",
    "dataset",
    "dataset.mnist",
)


class _OtherModules(MetaPathFinder):
    """Finds what else lies in a folder `common` or `dataset` on sys.path, such as one's own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package not in _PACKAGES or not name:
            return None
        folders = [os.path.join(folder, package) for folder in sys.path]
        return PathFinder.find_spec(fullname, folders, target)


def install() -> None:
    """Let `common.layers`, `dataset.mnist` and the others mean the modules of `cnn_core.book`.

    From now on, in this process, wherever the book's own files lie. What a script has imported
    from those before stays as it was.
    """
    for name in _MODULES:
        sys.modules[name] = import_module(f"cnn_core.book.{name}")
    if not any(isinstance(finder, _OtherModules) for finder in sys.meta_path):
        sys.meta_path.append(_OtherModules())


def run_script(path: str | os.PathLike[str], arguments: Sequence[str] = ()) -> None:
    """Run a script as `python SCRIPT` in its folder does, its `common` and `dataset` being ours.

    The process is the script's from then on: its folder is the current one and the first on
    sys.path, sys.argv and `__main__` are its own.
    """
    script = os.path.abspath(path)
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    install()
    folder, name = os.path.split(script)
    os.chdir(folder)
    # Under `python -P` the first entry is not a folder of scripts.
    sys.path[: 0 if sys.flags.safe_path else 1] = [folder]
    sys.argv = [name, *arguments]
    main = ModuleType("__main__")
    main.__file__ = script
    sys.modules["__main__"] = main
    exec(code, main.__dict__)
