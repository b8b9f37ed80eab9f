"""What the functions that bind arrays to a task check: a kernel trusts its pointers and sizes.

The callers have checked the user's arguments and named what is wrong with them; this is the last
line behind which memory is touched.
"""


cdef inline int expect(bint fits, str what) except -1:
    if not fits:
        raise ValueError(f"{what}: sizes do not fit")
    return 0
