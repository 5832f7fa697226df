"""Named arrays: a manager as the mapping from names to hosted arrays."""

from __future__ import annotations

import errno
from collections.abc import ItemsView, KeysView, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from arrayhost.client.array import HostedArray
from arrayhost.client.returning import remember
from arrayhost.core.layout import check_mappable
from arrayhost.core.names import check_name
from arrayhost.errors import ReferentExistsError, ReferentNotFoundError
from arrayhost.memory.files import replaced_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import numpy.typing as npt

    from arrayhost.engines.contract import Engine

__all__ = ["NamedArrays"]

_MISSING = object()


class NamedArrays:
    """The mapping that every manager is: from names to arrays.

    A named array lives until its name is deleted or the host ends, whoever made it. Names are 1 to 255 bytes of visible
    text, no path and nothing that looks like one; see `arrayhost.core.names`.

    Notes
    -----
    All processes of a host see the same names, so that each step counts for itself: ``name in manager`` may be outdated
    when the next line runs. `create`, `put` and `setdefault` each are one step.

    Cost: one round trip for each call; iterating over values or items one more for each array.
    Safety: any thread.
    """

    def _running(self) -> Engine:
        raise NotImplementedError  # the manager's own

    # -- one name ------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> HostedArray:
        name = check_name(name)
        return _found(name, self._running().get_name(name))

    def __setitem__(self, name: str, value: Any) -> None:
        self._put_name(name, value, overwrite=True, wanted=False)

    def __delitem__(self, name: str) -> None:
        self._running().delete_name(check_name(name))

    def __contains__(self, name: object) -> bool:
        return name in self._running().list_names()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the array of that name, or `default` if there is none."""
        try:
            return NamedArrays.__getitem__(self, name)
        except ReferentNotFoundError:
            return default

    def create(
        self,
        name: str,
        shape: Any,
        dtype: npt.DTypeLike = float,
        order: str = "C",
        *,
        fill_value: Any = 0,
        exist_ok: bool = False,
        chunks: Any = None,
    ) -> HostedArray:
        """Host a new array under a name.

        Parameters
        ----------
        name : str
        shape : int or tuple of int
        dtype : dtype_like
        order : {"C", "F"}
        fill_value : scalar
            What every element is.
        exist_ok : bool
            Return the array that has the name, as it is, if it has this shape and dtype. Of several processes that
            create at once, one does and all get the same array.
        chunks : int, tuple or str, optional
            On a cluster: the pieces that it is cut into, as for `dask.array`. A host keeps an array in one piece.

        Returns
        -------
        HostedArray

        Raises
        ------
        ReferentExistsError
            The name is taken: with ``exist_ok=True``, by an array of another shape or dtype.
        HostMemoryError
            It does not fit.

        Notes
        -----
        Cost: one round trip; no memory beyond the array's.
        """
        name = check_name(name)
        kind = np.dtype(dtype)
        check_mappable(kind)
        return _found(name, self._running().create_name(name, shape, kind, order, fill_value, exist_ok, chunks))

    def put(self, name: str, values: Any, *, overwrite: bool = False, chunks: Any = None) -> HostedArray:
        """Host an array under a name, all of it at once.

        Parameters
        ----------
        name : str
        values : array_like
            A proxy of this host gives its array, or its view, one more name; anything else is copied.
        overwrite : bool
            Let the name change over to the new array, in one step: who has a proxy of the old one keeps that, who asks
            for the name gets the new one.
        chunks : int, tuple or str, optional
            As for `create`.

        Returns
        -------
        HostedArray
            The new array.

        Raises
        ------
        ReferentExistsError
            The name is taken and `overwrite` is False.
        UnsupportedDTypeError, HostMemoryError
        """
        return _found(check_name(name), self._put_name(name, values, overwrite=overwrite, wanted=True, chunks=chunks))

    def _put_name(self, name: str, value: Any, *, overwrite: bool, wanted: bool, chunks: Any = None) -> Any:
        name = check_name(name)
        if not isinstance(value, HostedArray):
            value = self._running().converted(value)
            check_mappable(value.dtype)
        return self._running().put_name(name, value, overwrite, wanted, chunks)

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        """Delete a name and return its array, which lives on for as long as somebody has a proxy."""
        try:
            array = NamedArrays.__getitem__(self, name)
            NamedArrays.__delitem__(self, name)
        except ReferentNotFoundError:
            if default is _MISSING:
                raise
            return default
        return array

    def setdefault(self, name: str, values: Any) -> HostedArray:
        """Return the array of that name; host `values` under it first if there is none."""
        while True:
            found = NamedArrays.get(self, name)
            if found is not None:
                return cast("HostedArray", found)
            try:
                return NamedArrays.put(self, name, values)
            except ReferentExistsError:
                continue  # somebody else was quicker

    # -- all names -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        return iter(self._running().list_names())

    def __len__(self) -> int:
        return len(self._running().list_names())

    def __bool__(self) -> bool:
        return True  # also without names

    def keys(self) -> KeysView[str]:
        """The names, sorted; asked for anew each time the view is used."""
        return KeysView(cast("Any", self))

    def values(self) -> ValuesView[HostedArray]:
        """The arrays, in the order of their names; what is deleted meanwhile is left out."""
        return _Values(cast("Any", self))

    def items(self) -> ItemsView[str, HostedArray]:
        """Names and arrays, in the order of the names; what is deleted meanwhile is left out."""
        return _Items(cast("Any", self))

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Host several arrays under their names, one after the other; as `dict.update`."""
        for name, values in dict(other, **named).items():
            NamedArrays.__setitem__(self, name, values)

    def flush(self) -> None:
        """Wait until all named arrays are on the disk, if the host has a directory, in case the machine crashes.

        A host or client that is killed loses nothing that was written before, also without this. Cost: one round trip.
        """
        self._running().flush()

    def snapshot(self, directory: str | os.PathLike[str]) -> Path:
        """Write all named arrays into a new directory, each as ``NAME.npy`` in one consistent state; all or none.

        Parameters
        ----------
        directory : path_like
            Must not exist, or be empty; the folder that it lies in must.

        Returns
        -------
        Path
            The directory.

        Raises
        ------
        FileExistsError
            Something is there already.
        OSError
            There is no room for it, or the folder cannot be written to; nothing is there then.
        LockTimeoutError, TornArrayError

        Notes
        -----
        Cost: one round trip for each array. While an array is written to the disk, writers of that one wait; the arrays
        are not of one moment. The directory appears under its name when all of it is durable.
        """
        target = Path(directory)
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise FileExistsError(errno.EEXIST, "a snapshot needs a new or empty directory", str(target))
        with replaced_folder(target) as folder:
            for name, array in self.items():
                array.save(folder / f"{name}.npy")
        return target


class _Items(ItemsView[str, HostedArray]):
    def __iter__(self) -> Iterator[tuple[str, HostedArray]]:
        manager: Any = self._mapping  # type: ignore[attr-defined]  # missing in the stubs
        for name in manager:
            array = NamedArrays.get(manager, name)
            if array is not None:
                yield name, array


class _Values(ValuesView[HostedArray]):
    def __iter__(self) -> Iterator[HostedArray]:
        for _, array in _Items(self._mapping):  # type: ignore[attr-defined]  # missing in the stubs
            yield array


def _found(name: str, array: Any) -> HostedArray:
    """Let a proxy know its name: by that it finds its array again if the host is started anew."""
    return cast("HostedArray", remember(name, array))
