"""The parameters of a network: one flat array, its twin of gradients, and views of both by name."""

from __future__ import annotations

import weakref
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from cnn_core import _memory
from cnn_core._checks import to_array

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

ALIGNMENT = 16  # elements: every parameter begins on a cache line


class Views(dict[str, Array]):
    """Arrays by name. Assigning to a name, too, changes the array that is there, in place.

    what : "params" or "grads", for messages.
    """

    def __init__(
        self,
        views: dict[str, Array],
        owner: weakref.ref[Any] | None = None,
        what: str = "params",
    ) -> None:
        super().__init__(views)
        self.owner, self.what = owner, what

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        if name not in self:
            raise KeyError(f"{self.what}: no parameter named {name!r}; there are {list(self)}")
        view, what = self[name], f"{self.what}[{name!r}]"
        if value is view:
            return
        array = to_array(what, value)
        if array.shape != view.shape:
            raise ValueError(f"{what}: expected shape {view.shape}, got {array.shape}")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{what}: expected numbers, got dtype {array.dtype}")
        view[...] = array

    def update(self, *args: Any, **kwargs: Any) -> None:
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __ior__(self, other: Any) -> Views:  # type: ignore[override, misc]
        self.update(other)
        return self

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{self.what}: a network's parameters can be changed, not taken away")

    __delitem__ = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    @staticmethod
    def owner_of(layer: Any) -> Any:
        """The living network that a layer's parameters belong to."""
        owner = getattr(getattr(layer, "params", None), "owner", None)
        return owner() if owner is not None else None


class FlatParameters:
    """What a network inherits: its parameters in one flat array, their gradients in a twin of it.

    All four stay the same objects, for plans and optimizers hold their addresses.
    """

    def _lay_out(self, initial: dict[str, Array], dtype: np.dtype[Any]) -> None:
        """Make both arrays, and give the parameters their values."""
        self.slices: dict[str, slice] = {}
        end = 0
        for name, value in initial.items():
            self.slices[name] = slice(end, end + value.size)
            end += -(-value.size // ALIGNMENT) * ALIGNMENT
        self._flat_params, self._flat_grads = (_memory.zeros(end, dtype) for _ in range(2))
        self._make_views({name: value.shape for name, value in initial.items()})
        self._params.update(initial)

    def _make_views(self, shapes: dict[str, Shape]) -> None:
        """params and grads by name, into the flat arrays."""
        parts = {name: (self.slices[name], shape) for name, shape in shapes.items()}

        def views(flat: Array) -> dict[str, Array]:
            return {name: flat[part].reshape(shape) for name, (part, shape) in parts.items()}

        self._params = Views(views(self._flat_params))
        self._grads = Views(views(self._flat_grads), what="grads")

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by name: live views of `flat_params`."""
        return self._params

    @property
    def grads(self) -> dict[str, Array]:
        """The gradients by name: live views of `flat_grads`."""
        return self._grads

    @property
    def flat_params(self) -> Array:
        """All parameters, each from a multiple of 16 elements on; between them lie zeros."""
        return self._flat_params

    @property
    def flat_grads(self) -> Array:
        """The gradients, laid out as the parameters."""
        return self._flat_grads

    @property
    def n_params(self) -> int:
        """How many numbers training can change."""
        return sum(value.size for value in self._params.values())
