"""The parameters of a network or a layer by name."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Views(dict[str, Array]):
    """Arrays by name. Assigning to a name, too, changes the array that is there, in place."""

    def __init__(self, views: dict[str, Array], owner: weakref.ref[Any] | None = None) -> None:
        super().__init__(views)
        self.owner = owner

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        if name not in self:
            raise KeyError(f"params: no parameter named {name!r}; there are {list(self)}")
        view = self[name]
        if np.shape(value) != view.shape:
            shapes = f"expected shape {view.shape}, got {np.shape(value)}"
            raise ValueError(f"params[{name!r}]: {shapes}")
        if value is not view:
            view[...] = value

    def update(self, *args: Any, **kwargs: Any) -> None:
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    @staticmethod
    def owner_of(layer: Any) -> Any:
        """The living network that a layer's parameters belong to."""
        owner = getattr(getattr(layer, "params", None), "owner", None)
        return owner() if owner is not None else None
