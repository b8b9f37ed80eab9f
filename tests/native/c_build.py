"""Builds Cython modules against the declarations of the installed package."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SETUP = """
from pathlib import Path

from cnn_core._include import get_include
from Cython.Build import cythonize
from setuptools import Extension, setup

include = Path(get_include())
module = Extension("{name}", ["{name}.pyx"], include_dirs=[str(include)])
module.extra_compile_args = ["-O1"]
setup(ext_modules=cythonize([module], include_path=[str(include.parent)]))
"""


def missing_tool():
    """What is not there of that which compiling needs, or None."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    for package in ("Cython", "setuptools"):
        if importlib.util.find_spec(package) is None:
            return f"no {package}"
    return None


def build(name, source, folder, setup=SETUP):
    """Compile the text of a .pyx in a folder of its own; the path of the module."""
    folder = Path(folder)
    (folder / f"{name}.pyx").write_text(source)
    (folder / "setup.py").write_text(setup.replace("{name}", name))
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"
    return folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"


def environment(**changes):
    """The environment of a child that imports what this process imports, from any folder."""
    paths = [str(Path(path).resolve()) for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}


def load(name, path):
    """Import the module at `path` under `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
