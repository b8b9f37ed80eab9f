"""No kernel touches memory beyond its arguments, not even by reading: that would be a crash.

The operating system stands guard here; c_buffers.py guards all other tests at C level, but notices
only what has been written or used.
"""

import signal
import subprocess
import sys
from pathlib import Path

from native.c_build import environment


def run_child(c_level_path, what):
    """Run page_child.py; what it printed last is where it crashed."""
    command = [sys.executable, str(Path(__file__).with_name("page_child.py"))]
    return subprocess.run(
        [*command, str(c_level_path), what],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_nothing_is_touched_beyond_the_edge_of_a_page(c_level_path):
    child = run_child(c_level_path, "all")
    last = child.stdout.strip().rpartition("\n")[2]
    assert child.returncode == 0 and last == "done", f"ended at: {last}\n{child.stderr}"
    assert len(child.stdout.splitlines()) > 5000


def test_touching_would_be_a_crash(c_level_path):
    child = run_child(c_level_path, "over-read")
    assert -child.returncode in (signal.SIGSEGV, signal.SIGBUS), child.stderr
