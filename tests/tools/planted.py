"""python planted.py FOLDER FAULT: builds planted.pyx there and runs a fault; "none" is clean."""

import sys
import sysconfig
from pathlib import Path

import numpy as np

import cnn_core as cc
from cnn_core import _losses
from cnn_core._parallel import Program
from native import c_build


def stages(module):
    """The sums wait for the values: two stages."""
    values, sums = np.zeros(1000), np.zeros(1000)
    write, read = module.write(values, len(values)), module.read(values, sums)
    return [[write]], [[read]]


def none(module):
    Program([*stages(module)]).run()


def race(module):
    """The same at the same time: two lanes of one stage."""
    Program([[lane for stage in stages(module) for lane in stage]]).run()


def beyond(module):
    values = np.zeros(1000)
    Program([[[module.write(values, len(values) + 1)]]]).run()


def overflow(module):
    module.overflow(7)


def uninitialised(module):
    module.uninitialised()


def index(module):
    """The address of the first element of an empty array."""
    _losses.total(np.empty(0), None, 1.0, 1.0, np.zeros(4))


FAULTS = {f.__name__: f for f in (none, race, beyond, overflow, uninitialised, index)}


def load(folder):
    """The module, compiled in `folder` unless it is there already."""
    path = Path(folder) / f"planted{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not path.exists():
        source = Path(__file__).with_name("planted.pyx").read_text()
        path = c_build.build("planted", source, folder)
    return c_build.load("planted", path)


if __name__ == "__main__":
    cc.set_num_threads(4)
    FAULTS[sys.argv[2]](load(sys.argv[1]))
