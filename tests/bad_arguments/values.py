"""Kinds of arguments. A kind knows, from a good value, what is bad in its place, and other forms of
the same value."""

from dataclasses import dataclass

import numpy as np

from reference import lay_out

HUGE = 2**70  # does not fit into 64 bits


class Opaque:
    """An object that is nothing in particular."""

    def __repr__(self):
        return "Opaque()"


class ArrayLike:
    """An object that NumPy can make an array of, as other libraries' tensors are."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class Broken:
    """An object that says it is an array and is none."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array")


class Subclass(np.ndarray):
    """An array of a class of one's own."""


def no_arrays():
    """Objects that are no arrays of numbers."""
    yield "a text", "text"
    yield "bytes", b"12"
    yield "a set", {1, 2}
    yield "a generator", (i for i in range(3))
    yield "a dict", {"a": 1}
    yield "a function", print
    yield "a class", float
    yield "an object", Opaque()
    yield "a broken array", Broken()
    yield "a ragged list", [[1.0], [2.0, 3.0]]
    yield "texts", ["a", "b"]
    yield "None in a list", [None, 1.0]
    yield "an enormous integer", HUGE


def other_types(array):
    """The same values in dtypes that no kernel takes."""
    yield "complex", array.astype(complex)
    yield "object", array.astype(object)
    yield "text", array.astype(str)
    yield "dates", np.zeros(array.shape, "datetime64[s]")
    yield "records", np.zeros(array.shape, [("a", "f4"), ("b", "f4")])


def other_float(array):
    return array.astype(np.float64 if array.dtype == np.float32 else np.float32)


def masked(array):
    mask = np.zeros(array.shape, bool)
    mask.flat[0] = True
    return np.ma.masked_array(array, mask)


def one_more(array, axis):
    """The array with one more element along an axis."""
    return np.concatenate([array, array.take([0], axis)], axis)


def forms(array):
    """Other ways of storing the same values."""
    for layout in ("fortran", "reversed", "strided", "columns", "unaligned", "readonly"):
        yield layout, lay_out(array, layout)
    yield "a subclass", array.copy().view(Subclass)
    yield "nothing masked", np.ma.masked_array(array)
    yield "something like an array", ArrayLike(array)
    if array.ndim == 2:
        yield "a matrix", array.view(np.matrix)


@dataclass(kw_only=True)
class Kind:
    """What an argument may be.

    optional : whether None stands for something.
    named : other arguments that the message may name in its place, where two of them do not fit
        together; "" where Python words it itself.
    """

    optional: bool = False
    named: tuple = ()

    def bad(self, value):
        """Label and value of what must be refused."""
        if not self.optional:
            yield "None", None

    def same(self, value):
        """Label and value of what means the same."""
        yield from ()


@dataclass
class Floats(Kind):
    """An array of floats, in the dtype of the others.

    lone : whether there are no others. any_shape : whether, besides, any shape will do.
    tied : axes whose length others fix; all by default.
    """

    any_shape: bool = False
    tied: tuple | None = None
    lone: bool = False

    def bad(self, value):
        yield from super().bad(value)
        yield from no_arrays()
        yield from other_types(value)
        yield "float16", value.astype("f2")
        yield "big endian", value.astype(value.dtype.newbyteorder(">"))
        yield "integers", value.astype(int)
        yield "booleans", value.astype(bool)
        yield "a masked element", masked(value)
        if self.any_shape:
            return
        if not self.lone:
            yield "another dtype", other_float(value)
        yield "one axis more", value[np.newaxis]
        yield "no axis", value.flat[0]
        yield "too many axes", value.reshape((1,) * (32 - value.ndim) + value.shape)
        for axis in range(value.ndim) if self.tied is None else self.tied:
            yield f"longer along axis {axis}", one_more(value, axis)
            yield f"empty along axis {axis}", value.take([], axis)

    def same(self, value):
        yield from forms(value)


@dataclass
class Changed(Floats):
    """A float array that is changed where it lies."""

    def bad(self, value):
        yield from super().bad(value)
        for layout in ("strided", "unaligned", "readonly"):
            yield layout, lay_out(value, layout)

    def same(self, value):
        yield "a subclass", value.copy().view(Subclass)


@dataclass
class Source(Floats):
    """Rows of any shape: floats or bytes."""

    any_shape: bool = True

    def bad(self, value):
        yield from super().bad(value)
        yield "no axis", value.flat[0]


@dataclass
class Targets(Floats):
    """Numbers of any real type, in the shape of the scores."""

    def bad(self, value):
        for label, wrong in super().bad(value):
            if label not in ("float16", "big endian", "integers", "booleans", "another dtype"):
                yield label, wrong


@dataclass
class Samples(Floats):
    """Input of a network: numbers of any type, samples of a fixed shape."""

    whole: bool = True  # whether integers mean the same

    def bad(self, value):
        yield from Kind.bad(self, value)
        yield from no_arrays()
        yield from other_types(value)
        yield "a masked element", masked(value)
        yield "no axis", value.flat[0]
        yield "one sample without N", value[0] if value.ndim == 2 else value[0, 0]
        yield "longer samples", one_more(value, value.ndim - 1)
        yield "empty samples", value.take([], value.ndim - 1)
        yield "too many axes", value.reshape((1,) * (32 - value.ndim) + value.shape)

    def same(self, value):
        yield from forms(value)
        yield "float64", value.astype("f8")
        yield "big endian", value.astype(">f4")
        if (value == value.astype(np.int8)).all():
            yield "int8", value.astype(np.int8)
            yield "int64", value.astype(np.int64)
            yield "float16", value.astype("f2")
            yield "a list", value.tolist()


@dataclass
class Labels(Kind):
    """Integers in 0..classes - 1, one per row; or row numbers where `free`."""

    classes: int = 0
    free: bool = False

    def bad(self, value):
        yield from super().bad(value)
        yield from no_arrays()
        yield from other_types(value)
        for wrong in (-1, self.classes, -(2**63), 2**63 - 1):
            changed = value.astype(np.int64)
            changed[-1] = wrong
            yield f"the label {wrong}", changed
        yield "a large unsigned label", np.full(value.shape, 2**63, np.uint64)
        yield "floats", value.astype(float)
        yield "NaN", np.full(value.shape, np.nan)
        yield "booleans", value.astype(bool)
        yield "a masked label", masked(value)
        yield "two axes", np.stack([value, value])
        yield "no axis", value[0]
        if not self.free:
            yield "one more", one_more(value, 0)
            yield "one less", value[:-1]
            yield "none", value[:0]

    def same(self, value):
        yield from forms(value)
        yield "a list", value.tolist()
        for dtype in ("i1", "u1", ">i4", "u8", "i8"):
            yield dtype, value.astype(dtype)


@dataclass
class Out(Kind):
    """Where the result goes; value: a result."""

    optional: bool = True

    def bad(self, value):
        yield "a list", value.tolist()
        yield "a text", "out"
        yield "a scalar", 1.0
        yield "an object", Opaque()
        yield "a masked array", np.ma.masked_array(value)
        yield "integers", value.astype(int)
        yield "complex", value.astype(complex)
        yield "another dtype", other_float(value)
        yield "big endian", value.astype(value.dtype.newbyteorder(">"))
        yield "one axis more", value[np.newaxis]
        yield "another shape", one_more(value, 0)
        for layout in ("reversed", "strided", "unaligned", "readonly"):
            yield layout, lay_out(value, layout)
        yield "stride 0", np.broadcast_to(value.flat[0], value.shape)

    def same(self, value):
        yield "given", np.full_like(value, np.nan)
        yield "a subclass", np.full_like(value, np.nan).view(Subclass)


@dataclass
class Outs(Kind):
    """Several results in a tuple, each an array or None; value: of the results."""

    optional: bool = True

    def bad(self, value):
        yield "an array", value[0]
        yield "a number", 3
        yield "a text", "out"
        yield "one too few", (None,) * (len(value) - 1)
        yield "one too many", (None,) * (len(value) + 1)
        for place, array in enumerate(value):
            for label, wrong in Out().bad(array):
                yield (
                    f"[{place}] {label}",
                    tuple(wrong if i == place else None for i in range(len(value))),
                )

    def same(self, value):
        yield "given", tuple(np.full_like(array, np.nan) for array in value)
        yield "a list with None", [np.full_like(value[0], np.nan), *(None for _ in value[1:])]


@dataclass
class Initial(Floats):
    """An initializer, or numbers in the parameter's shape; value: an array."""

    optional: bool = True

    def bad(self, value):
        for label, wrong in super().bad(value):
            if label not in ("float16", "big endian", "integers", "another dtype", "no axis"):
                yield label, wrong
        yield "a class", np.ndarray
        yield "NaN", np.full_like(value, np.nan)
        yield "infinity", np.full_like(value, np.inf)
        yield "too large", np.full(value.shape, 1e300)

    def same(self, value):
        for label, other in super().same(value):
            if label != "a matrix":
                yield label, other
        yield "a list", value.tolist()
        yield "float64", value.astype(np.float64)


@dataclass
class Weights(Kind):
    """Finite numbers, one per row."""

    optional: bool = True

    def bad(self, value):
        yield from no_arrays()
        yield from other_types(value)
        yield "NaN", np.where(value > 0, np.nan, value)
        yield "infinity", np.full(value.shape, np.inf)
        yield "one more", one_more(value, 0)
        yield "one less", value[:-1]
        yield "two axes", value[np.newaxis]
        yield "no axis", value[0]
        yield "a masked element", masked(value)

    def same(self, value):
        yield from forms(value)
        yield "a list", value.tolist()
