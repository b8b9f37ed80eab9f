"""Kinds of arguments that are no arrays: numbers, texts, objects, files."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bad_arguments.values import HUGE, Kind, Opaque, no_arrays


@dataclass
class Number(Kind):
    """A finite number in low..high, its ends included unless `open_low` or `open_high`."""

    low: float = -np.inf
    high: float = np.inf
    open_low: bool = False
    open_high: bool = False

    def bad(self, value):
        yield from super().bad(value)
        for wrong in (np.nan, np.inf, -np.inf, 10**400, -(10**400)):
            yield f"{wrong:.3}" if isinstance(wrong, float) else "beyond floats", wrong
        yield "a text", "0.5"
        yield "bytes", b"0.5"
        yield "complex", 0.5 + 0j
        yield "a list", [0.5]
        yield "an array of one", np.array([0.5])
        yield "an object", Opaque()
        yield "a function", print
        if self.low > -np.inf:
            yield "too small", self.low if self.open_low else np.nextafter(self.low, -np.inf)
            yield "far too small", self.low - 1e30
        if self.high < np.inf:
            yield "too large", self.high if self.open_high else np.nextafter(self.high, np.inf)
            yield "far too large", self.high + 1e30

    def same(self, value):
        yield "float64", np.float64(value)
        yield "an array without axes", np.array(float(value))
        yield "a fraction", Fraction(value)


@dataclass
class Whole(Kind):
    """An integer in least..most; most=None where any will do."""

    least: int = 1
    most: int | None = HUGE - 1

    def bad(self, value):
        yield from super().bad(value)
        yield "too small", self.least - 1
        yield "far too small", -HUGE
        if self.most is not None:
            yield "too large", self.most + 1
        yield "a float", float(value)
        yield "a fraction of one", value + 0.5
        yield "NaN", np.nan
        yield "a text", str(value)
        yield "a list", [value]
        yield "an array", np.array([value, value])
        yield "complex", value + 0j
        yield "an object", Opaque()

    def same(self, value):
        yield "int64", np.int64(value)
        yield "an array without axes", np.array(value)


@dataclass
class Pixels(Whole):
    """A number of pixels, or a pair of them."""

    def bad(self, value):
        yield from (pair for pair in super().bad(value) if pair[0] != "a list")
        yield "too many", [value] * 9
        yield "none", ()
        yield "a set", {value}
        for label, wrong in super().bad(value):
            if label not in ("a list", "an array"):
                yield f"{label} in a pair", (value, wrong)

    def same(self, value):
        yield "a pair", (value, value)
        yield "a list", [np.int32(value), value]


@dataclass
class Choice(Kind):
    """One of some texts."""

    def bad(self, value):
        yield from super().bad(value)
        yield "another text", "nonsense"
        yield "empty", ""
        yield "bytes", b"mean"
        yield "a number", 3
        yield "a list", [value]
        yield "a dict", {}
        yield "texts", np.array(["a", "b"])
        yield "an object", Opaque()


@dataclass
class Dtype(Kind):
    """float32 or float64."""

    def bad(self, value):
        yield from super().bad(value)
        for wrong in ("float16", "int32", "nonsense", ">f4", "", 3, [1], complex, object, Opaque()):
            yield repr(wrong), wrong

    def same(self, value):
        yield "a dtype", np.dtype(value)
        yield "a type", np.dtype(value).type


@dataclass
class Sizes(Kind):
    """A tuple of integers >= 1."""

    def bad(self, value):
        yield from super().bad(value)
        yield from no_arrays()
        for wrong in (0, -1, 1.5, np.nan, "3", None, [1], HUGE, Opaque()):
            yield f"{wrong!r} inside", (*value[:-1], wrong)
        yield "none", ()
        yield "more elements than there can be", (2**49,) * len(value)

    def same(self, value):
        yield "a list", list(value)
        yield "an array", np.array(value)


@dataclass
class Instance(Kind):
    """An object of a class."""

    def bad(self, value):
        yield from super().bad(value)
        yield "its class", type(value)
        for wrong in (3, "text", [], {}, np.zeros(3), Opaque()):
            yield repr(wrong), wrong


@dataclass
class Path(Kind):
    """A file; what is no path is a TypeError, which Python words itself."""

    named: tuple = ("",)

    def bad(self, value):
        yield from super().bad(value)
        for wrong in (3, 1.5, [], {}, Opaque(), print):
            yield repr(wrong), wrong


class Flag(Kind):
    """Anything that is true or false."""

    def bad(self, value):
        yield from ()


@dataclass
class Function(Kind):
    """What can be called."""

    def bad(self, value):
        yield from super().bad(value)
        for wrong in (3, "text", [], {}, Opaque()):
            yield repr(wrong), wrong


@dataclass
class Listed(Kind):
    """A list of objects of one kind, each as `inner` says."""

    inner: Kind | None = None

    def bad(self, value):
        yield from super().bad(value)
        yield "a number", 3
        yield "an object", Opaque()
        for label, wrong in self.inner.bad(value[0]):
            yield f"{label} inside", [*value[:-1], wrong]

    def same(self, value):
        yield "a tuple", tuple(value)
        yield "a generator", (item for item in value)
