"""What workers do with one block: pure functions of blocks, by which Dask can make a lost one again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

__all__ = ["BlockWrite", "VersionGoneError", "call", "facts_of", "itself", "write_block"]


class VersionGoneError(Exception):
    """A store has newer elements than those that are looked for: ask for the newest version. Seen by no user."""


@dataclass(frozen=True)
class BlockWrite:
    """What is written to one block.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        The block's.
    local : tuple
        Index into it.
    part : tuple or None
        What to take of the value that is given, one index for each axis that `local` leaves; None for all of it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    local: tuple[Any, ...]
    part: tuple[Any, ...] | None = None

    @property
    def replaces_all(self) -> bool:
        """Whether nothing of the old block is left."""
        return all(
            (isinstance(part, slice) and len(range(*part.indices(n))) == n) or (n == 1 and isinstance(part, int))
            for part, n in zip(self.local, self.shape, strict=True)
        )


def write_block(write: BlockWrite, value: Any, old: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Make the next version of a block.

    Parameters
    ----------
    write : BlockWrite
    value : array_like
    old : ndarray, optional
        The version before, unless all of it is replaced.
    """
    new = np.empty(write.shape, write.dtype) if old is None else np.array(old, order="C")
    new[write.local] = value if write.part is None else value[write.part]
    return new


def call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function of the user's; what it returns is kept as it is."""
    result = function(*args, **kwargs)
    return np.array(result) if isinstance(result, np.generic) else result


def facts_of(result: Any) -> tuple[tuple[int, ...] | None, np.dtype[Any] | None]:
    """Shape and dtype of a result, or None for what is no array."""
    return (result.shape, result.dtype) if isinstance(result, np.ndarray) else (None, None)


def itself(value: Any) -> Any:
    """Return what is given: so that a host keeps it."""
    return value
