"""The host as an engine: each call is one request over this process's session with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.finding import session_for
from arrayhost.client.functions import sendable
from arrayhost.engines.files import opened
from arrayhost.errors import HostGoneError
from arrayhost.wire.frames import Kind
from arrayhost.wire.hello import READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.client.session import Session

__all__ = ["HostEngine"]


class HostEngine:
    """A host process, reached by a session.

    Parameters
    ----------
    address : str
        ``unix:...`` or ``tcp://...``.
    authkey : bytes, optional
    mode : {"r+", "r"}
    tls : object
        As for `arrayhost.connect`.
    follows : bool
        Whether to go over to the host that comes to the address after this one has ended; not for one's own.

    Raises
    ------
    HostGoneError, NotAuthorizedError
    """

    def __init__(
        self,
        address: str,
        authkey: bytes | None = None,
        *,
        mode: str = READ_WRITE,
        tls: Any = None,
        follows: bool = True,
    ) -> None:
        self.address = address
        self.session: Session = session_for(address, authkey, mode=mode, tls=tls)
        self._authkey, self._mode, self._follows = authkey, mode, follows

    def _request(self, kind: Kind, value: Any, *, context: bool = False) -> Any:
        try:
            return self._ask(kind, value, context=context)
        except HostGoneError as error:
            if not error.nothing_sent or not self._follows:
                raise
            # Another may have come in its place; what never reached the old one can be asked again.
            self.session = session_for(self.address, self._authkey, mode=self._mode)
            return self._ask(kind, value, context=context)

    def _ask(self, kind: Kind, value: Any, *, context: bool) -> Any:
        session = self.session
        return session.request(kind, [*value, session.context()] if context else value)

    def create(self, typeid: str, args: Sequence[Any], kwargs: Mapping[str, Any], chunks: Any = None) -> Any:
        """Call what is registered as `typeid` in the host, which keeps arrays in one piece. Cost: one round trip."""
        return self._request(Kind.CREATE, [typeid, list(args), dict(kwargs)], context=True)

    def run(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a function in the host."""
        return self._request(Kind.RUN, [sendable(function), list(args), dict(kwargs)], context=True)

    def get_name(self, name: str) -> Any:
        """Return the array of a name."""
        return self._request(Kind.GET_NAME, name)

    def create_name(
        self, name: str, shape: Any, dtype: Any, order: str, fill_value: Any, exist_ok: bool, chunks: Any
    ) -> Any:
        """Make an array and name it, in one piece whatever `chunks` says."""
        return self._request(Kind.CREATE_NAME, [name, shape, dtype, order, fill_value, exist_ok], context=True)

    def converted(self, value: Any) -> Any:
        """Make what is to be hosted an ndarray."""
        return np.asarray(opened(value))

    def put_name(self, name: str, value: Any, overwrite: bool, wanted: bool, chunks: Any) -> Any:
        """Name an array or a copy of values, in one piece whatever `chunks` says."""
        return self._request(Kind.PUT_NAME, [name, value, overwrite, wanted])

    def delete_name(self, name: str) -> None:
        """Take a name away."""
        self._request(Kind.DELETE_NAME, name)

    def list_names(self) -> list[str]:
        """Return all names."""
        names: list[str] = self._request(Kind.LIST_NAMES, None)
        return names

    def flush(self) -> None:
        """Wait until the files of all named arrays are on the disk."""
        self._request(Kind.FLUSH, None)

    def statistics(self) -> dict[str, Any]:
        """Return what the host counts."""
        counts: dict[str, Any] = self._request(Kind.STATISTICS, None)
        return counts

    def records(self, name: str | None = None) -> Any:
        """Return the host's records."""
        return self._request(Kind.RECORDS, name)

    def describe(self) -> str:
        """List what is hosted."""
        text: str = self._request(Kind.DESCRIBE, None)
        return text

    def stop(self) -> None:
        """Ask the host to end."""
        self._request(Kind.SHUTDOWN, None)
