"""What a manager needs from the place where its arrays live: the contract that every engine keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Engine"]


class Engine(Protocol):
    """A place where arrays live, as a manager uses it.

    Two keep this contract: `engines.host.HostEngine`, a host process, and `engines.dask.engine.DaskEngine`, a cluster.
    What it returns for an array is a `HostedArray` that pickles to a handle. Names have been checked and arguments
    converted by the manager. `arrayhost.testing` holds the tests that both pass.

    Notes
    -----
    Safety: any thread; a forked child may go on using it.
    """

    @property
    def address(self) -> str:
        """Where other processes find it."""

    def create(self, typeid: str, args: Sequence[Any], kwargs: Mapping[str, Any], chunks: Any = None) -> Any:
        """Call what is registered as `typeid`, or the creator ``#name``, there; return the proxy of its result.

        Parameters
        ----------
        chunks : object
            How the array is cut, as `dask.array` takes it, where the engine cuts arrays.

        Raises
        ------
        ReferentNotFoundError
            Nothing is registered as that.
        """

    def run(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a function there; return the proxy of its result."""

    # -- names -----------------------------------------------------------------------------------------------------

    def get_name(self, name: str) -> Any:
        """Return the array of a name.

        Raises
        ------
        ReferentNotFoundError
        """

    def create_name(
        self, name: str, shape: Any, dtype: Any, order: str, fill_value: Any, exist_ok: bool, chunks: Any
    ) -> Any:
        """Make an array and name it, in one step; see `NamedArrays.create`.

        Raises
        ------
        ReferentExistsError
        """

    def converted(self, value: Any) -> Any:
        """Make what is to be hosted an ndarray, or another array that `put_name` takes; no hosted array is given.

        Parameters
        ----------
        value : array_like or path_like
            A path names a ``.npy`` file or a Zarr store.
        """

    def put_name(self, name: str, value: Any, overwrite: bool, wanted: bool, chunks: Any) -> Any:
        """Name an array, or a copy of values, in one step; return it if it is wanted.

        Raises
        ------
        ReferentExistsError
        """

    def delete_name(self, name: str) -> None:
        """Take a name away.

        Raises
        ------
        ReferentNotFoundError
        """

    def list_names(self) -> list[str]:
        """Return all names, sorted."""

    # -- the place itself ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Wait until all named arrays are on the disk, if there is one for them."""

    def statistics(self) -> dict[str, Any]:
        """Return the fields of `HostStatistics`."""

    def records(self, name: str | None = None) -> Any:
        """Describe everything in plain values, or one named array; see `core.records`."""

    def describe(self) -> str:
        """List what is there, as text."""

    def stop(self) -> None:
        """End the place itself, for everybody."""
