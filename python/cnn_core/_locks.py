"""Locks that a forked child can take: the thread that held one does not exist there."""

from __future__ import annotations

import os
import threading
import weakref

_all: weakref.WeakSet[threading.RLock] = weakref.WeakSet()


def new() -> threading.RLock:
    """A lock that one thread may take several times; after a fork nobody else holds it."""
    lock = threading.RLock()
    _all.add(lock)
    return lock


def _open_in_child() -> None:
    for lock in list(_all):
        if lock.acquire(blocking=False):  # free, or held by the thread that forked
            lock.release()
        else:
            lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_in_child)
