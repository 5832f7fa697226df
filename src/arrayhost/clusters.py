"""What a manager of arrays on a cluster has beside what all managers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrayhost.errors import UnsupportedError

if TYPE_CHECKING:
    from arrayhost.engines.contract import Engine

__all__ = ["ClusterSettings"]


class ClusterSettings:
    """The Dask client of a manager whose arrays lie on a cluster, and the limits for what is brought here unasked."""

    def _running(self) -> Engine:
        raise NotImplementedError  # the manager's own

    def _link(self) -> Any:
        link = getattr(self._running(), "link", None)
        if link is None:
            raise UnsupportedError("this manager's arrays are in a host, and not on a cluster (dask://...)")
        return link

    @property
    def client(self) -> Any:
        """The `distributed.Client` of this process, to compute with what `HostedArray.to_dask` gives.

        Raises
        ------
        UnsupportedError
            The manager's arrays are in a host.
        """
        return self._link().client

    @property
    def gather_limit(self) -> int:
        """Bytes that an operation which needs all elements in one place may bring to this process unasked."""
        return int(self._link().gather_limit)

    @gather_limit.setter
    def gather_limit(self, n_bytes: int) -> None:
        self._link().gather_limit = int(n_bytes)

    @property
    def result_limit(self) -> int:
        """Bytes up to which a result comes to this process; a larger one stays on the cluster as another array."""
        return int(self._link().result_limit)

    @result_limit.setter
    def result_limit(self, n_bytes: int) -> None:
        self._link().result_limit = int(n_bytes)
