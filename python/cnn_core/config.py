"""What this build is and what it runs on."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from cnn_core import _cpus, ops

#: versions of OpenMP by the date that compilers report
_OPENMP = {
    200805: "3.0",
    201107: "3.1",
    201307: "4.0",
    201511: "4.5",
    201811: "5.0",
    202011: "5.1",
    202111: "5.2",
    202411: "6.0",
}


def version() -> str:
    """The installed version of cnn-core."""
    from importlib import metadata  # not needed to compute, so not imported before

    try:
        return metadata.version("cnn-core")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


def config() -> dict[str, Any]:
    """The build and the machine, as values that JSON can hold.

    Returns
    -------
    dict with the keys
        version, python, numpy : versions, as text
        platform : operating system and processor
        compiler : of the native half, where the build knows it
        isa, isas : instruction set in use, and all that this processor has, best first
        openmp : version and date, or None for a serial build
        threads : that a large kernel uses
        cpus : that this process may use
    """
    native = ops.native_config()
    date = int(native["openmp"])
    return {
        "version": version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "compiler": native.get("compiler"),
        "isa": native["isa"],
        "isas": list(native["isas"]),
        "openmp": f"{_OPENMP.get(date, 'version unknown')} ({date})" if date else None,
        "threads": native["threads"],
        "cpus": _cpus.count(),
    }


def format_config(values: dict[str, Any]) -> str:
    """What `show_config` prints, from what `config` returns."""
    rows = {
        "cnn-core": values["version"],
        "python": values["python"],
        "numpy": values["numpy"],
        "platform": values["platform"],
        "compiler": values["compiler"],
        "instruction set": f"{values['isa']} (available: {', '.join(values['isas'])})",
        "OpenMP": values["openmp"] or "none (serial build)",
        "threads": f"{values['threads']} (CPUs: {values['cpus']})",
    }
    return "\n".join(f"{name:<16} {value}" for name, value in rows.items() if value is not None)


def show_config() -> None:
    """Print version, compiler, instruction set, OpenMP and threads: the facts of a bug report."""
    print(format_config(config()))
