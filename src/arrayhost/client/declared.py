"""What type checkers and editors take a hosted array for: an ndarray, so that they know everything that it has.

At run time `HostedArray` is none; `client.surface` gives it what is promised here.
"""

from __future__ import annotations

from types import GenericAlias
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import TypeVar  # for the defaults; comes with every type checker

    ShapeT = TypeVar("ShapeT", bound=tuple[int, ...], default=tuple[Any, ...], covariant=True)
    DTypeT = TypeVar("DTypeT", bound=np.dtype[Any], default=np.dtype[Any], covariant=True)
    Declared = np.ndarray
else:
    from typing import TypeVar

    ShapeT, DTypeT = TypeVar("ShapeT"), TypeVar("DTypeT")

    class Declared:
        """A base that can be written with a shape and a dtype in brackets, as ndarray can."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)


__all__ = ["DTypeT", "Declared", "ShapeT"]
