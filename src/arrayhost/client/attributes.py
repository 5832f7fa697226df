"""`Attributes`: the mapping of text to plain values that a hosted array carries with it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from arrayhost.core.attributes import check_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arrayhost.client.array import HostedArray

__all__ = ["Attributes"]

_MISSING = object()


class Attributes(MutableMapping[str, Any]):
    """The attributes of one hosted array, and of all its views; kept by the host for as long as the array lives.

    Keys are text, values what JSON has: text, finite numbers, booleans, None, lists and dicts of these; NumPy's scalars
    become numbers. All together may take 64 KiB.

    Notes
    -----
    Cost: one round trip for each call; ``copy()`` fetches everything with one. Every change, `update` with many keys
    too, happens whole or not at all, and is seen by all processes from then on. Values are copies: changing a list that
    was read changes nothing until it is assigned again. Safety: any thread.

    Examples
    --------
    >>> a.attrs["unit"] = "EUR"
    >>> a.attrs.update(source="exchange", days=[1, 2])
    >>> sorted(a.attrs)
    ['days', 'source', 'unit']
    """

    __slots__ = ("_array",)

    def __init__(self, array: HostedArray) -> None:
        self._array = array

    def _change(self, changes: dict[str, Any], removed: tuple[str, ...] = (), mode: str = "update") -> dict[str, Any]:
        """Change several at once; return what there was before."""
        return self._array._attributes(check_attributes(changes), removed, mode)

    def copy(self) -> dict[str, Any]:
        """Fetch all attributes as a dict of one moment."""
        return self._change({}, mode="read")

    def replace(self, values: dict[str, Any]) -> None:
        """Set all attributes at once; others than these are gone. As ``a.attrs = values``."""
        self._change(values, mode="replace")

    def __getitem__(self, key: str) -> Any:
        return self.copy()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._change({key: value})

    def __delitem__(self, key: str) -> None:
        if key not in self._change({}, (key,)):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set several attributes in one step; as `dict.update`."""
        self._change(dict(other, **kwargs))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set an attribute unless it is there; return what it is then. One step for everybody."""
        before = self._change({key: default}, mode="add")
        return before[key] if key in before else check_attributes({key: default})[key]

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Take an attribute away and return it; of several that do so at once, one gets it."""
        before = self._change({}, (key,))
        if key in before:
            return before[key]
        if default is _MISSING:
            raise KeyError(key)
        return default

    def clear(self) -> None:
        """Take all attributes away."""
        self._change({}, mode="replace")

    def __repr__(self) -> str:
        return f"Attributes({self.copy()!r})"
