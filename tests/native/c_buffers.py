"""Memory for calls at C level that shows, or makes a crash of, what lies beyond the arguments."""

import ctypes
import mmap

import numpy as np

GUARD = 80  # elements on either side: more than the widest block of the micro-kernels
SENTINEL = 0xFF  # every byte of the guards; four or eight of them are a NaN that no sum makes
ALIGNMENT = 64


class Guarded:
    """A copy of `values` amid bytes that nobody may change; `gap` such elements between its rows.

    The first element stands at a multiple of its own size and of nothing larger.
    """

    def __init__(self, values, gap=0):
        values = np.asarray(values)
        columns, item = (values.shape[-1] if values.ndim else 1), values.itemsize
        self.row = columns + gap
        count = values.size // columns * self.row if columns else 0
        self.bytes = np.full((count + 2 * GUARD) * item + 2 * ALIGNMENT, SENTINEL, np.uint8)
        start = GUARD * item + (item - self.bytes.ctypes.data - GUARD * item) % ALIGNMENT
        self.array = self._view(self.bytes, start, values)
        self.array[...] = values
        self.address = self.array.ctypes.data
        guards = np.ones(len(self.bytes), np.uint8)
        self._view(guards, start, values).view(np.uint8)[...] = 0
        self.guards = np.flatnonzero(guards)

    def _view(self, store, start, like):
        strides = (*(self.row * like.itemsize,) * (like.ndim - 1), like.itemsize)[: like.ndim]
        return np.ndarray(like.shape, like.dtype, store, start, strides)

    def check(self):
        """Fail if a byte beyond the values has changed."""
        touched = self.guards[self.bytes[self.guards] != SENTINEL]
        begin = self.array.ctypes.data - self.bytes.ctypes.data
        where = f"at bytes {touched - begin} of an array of {self.array.shape}"
        assert not len(touched), f"written outside, {where}"

    def free(self):
        """Nothing to do: NumPy's memory."""


class PageGuarded:
    """A copy of `values` right before a page that cannot be touched (and after one, somewhere).

    Reading or writing one element past the end ends the process with a signal.
    """

    c_level = None  # the compiled test module
    at_end = True  # else the values stand right after the page before them

    def __init__(self, values, gap=0):
        values = np.asarray(values)
        columns = values.shape[-1] if values.ndim else 1
        self.row = columns + gap
        used = (values.size // columns * self.row - gap if columns else 0) * values.itemsize
        self.size = max(-(-used // mmap.PAGESIZE), 1) * mmap.PAGESIZE
        self.start = self.c_level.map_pages(self.size, mmap.PAGESIZE)
        store = np.frombuffer((ctypes.c_uint8 * self.size).from_address(self.start), np.uint8)
        store[...] = SENTINEL
        offset = self.size - used if self.at_end and used > 0 else 0
        strides = (*(self.row * values.itemsize,) * (values.ndim - 1), values.itemsize)
        self.array = np.ndarray(values.shape, values.dtype, store, offset, strides[: values.ndim])
        self.array[...] = values
        self.address = self.start + (offset if used > 0 else self.size if self.at_end else 0)

    def check(self):
        """Nothing to do: what is beyond would have crashed."""

    def free(self):
        self.c_level.unmap_pages(self.start, self.size, mmap.PAGESIZE)


class Memory:
    """The buffers of one call; on leaving it, guards and inputs must be as they were."""

    def __init__(self, store=Guarded):
        self.store, self.buffers, self.inputs = store, [], []

    def __enter__(self):
        return self

    def input(self, values, gap=0):
        """A buffer that the call may read only."""
        buffer = self.inout(values, gap)
        self.inputs.append((buffer, buffer.array.tobytes()))
        return buffer

    def inout(self, values, gap=0):
        """A buffer that the call reads and writes."""
        self.buffers.append(self.store(values, gap))
        return self.buffers[-1]

    def output(self, shape, dtype, gap=0):
        """A buffer that the call must fill: it holds NaN."""
        return self.inout(np.full(shape, np.nan).astype(dtype), gap)

    def __exit__(self, kind, error, traceback):
        if kind is None:
            for buffer in self.buffers:
                buffer.check()
            for buffer, before in self.inputs:
                assert buffer.array.tobytes() == before, "an input has been written to"
        for buffer in self.buffers:
            buffer.array = np.array(buffer.array)
            buffer.free()


def address(buffer):
    return 0 if buffer is None else buffer.address
