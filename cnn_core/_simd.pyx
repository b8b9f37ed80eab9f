"""Chooses the instruction set when it is imported; CNN_CORE_ISA forces one."""

import os
import time


cdef extern from "simd/simd.h" nogil:
    const simd_isa* simd_supported()
    const char* __VERSION__


cdef extern from "pause.h" nogil:
    void pause_briefly()


cdef enum:
    PAUSES = 1000    # at once


isas = simd_supported()


def supported_isas():
    """Names of the instruction sets that this build has and this processor runs, best first."""
    names = []
    cdef const simd_isa* isa = isas
    while isa.name != NULL:
        names.append((<bytes>isa.name).decode("ascii"))
        isa += 1
    return names


def _choose():
    global f32, f64
    names = supported_isas()
    wanted = os.environ.get("CNN_CORE_ISA") or names[0]
    if wanted not in names:
        raise ImportError(
            f"CNN_CORE_ISA={wanted!r} is not available: expected one of {', '.join(names)}"
        )
    cdef const simd_isa* isa = isas + <Py_ssize_t>names.index(wanted)
    f32 = isa.f32
    f64 = isa.f64
    return wanted


def pauses_in(seconds):
    """How often a thread that waits in a loop pauses in so long: from 10 to 50 ns each."""
    cdef int _i
    shortest = 1.0
    for _ in range(3):
        began = time.perf_counter()
        for _i in range(PAUSES):
            pause_briefly()
        shortest = min(shortest, time.perf_counter() - began)
    return int(seconds / max(shortest, 1e-6) * PAUSES)


active_isa = _choose()
compiler = (<bytes>__VERSION__).decode("ascii", "replace")
