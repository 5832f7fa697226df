"""Share NumPy arrays between processes: one process hosts them, everybody else uses them as ndarrays."""

from __future__ import annotations

import logging
from typing import Any

import arrayhost.client.surface  # noqa: F401  # gives HostedArray what ndarray has
from arrayhost.client.array import HostedArray, locked
from arrayhost.client.dask_views import to_dask
from arrayhost.client.object import HostedObject
from arrayhost.client.strided import as_strided
from arrayhost.client.transaction import transaction
from arrayhost.core.records import ArrayRecord, ArrayStatistics, HostStatistics
from arrayhost.errors import (
    AccessError,
    ArgumentEncodingError,
    ArrayHostError,
    ChunkLostError,
    ClusterTimeoutError,
    DescriptorLimitError,
    GatherLimitError,
    HostBusyError,
    HostGoneError,
    HostMemoryError,
    LeaseLostError,
    LockError,
    LockTimeoutError,
    NoHostError,
    NotAuthorizedError,
    ProtocolError,
    ReadOnlyError,
    ReferentError,
    ReferentExistsError,
    ReferentNotFoundError,
    RemoteError,
    StaleProxyError,
    TornArrayError,
    TornArrayWarning,
    TransactionConflictError,
    TransportError,
    UnsupportedDTypeError,
    UnsupportedError,
    UnsupportedPlatformError,
    WouldDeadlock,
)
from arrayhost.hosting import current_link as _current_link
from arrayhost.manager import ArrayManager, connect

__all__ = [
    "AccessError",
    "ArgumentEncodingError",
    "ArrayHostError",
    "ArrayManager",
    "ArrayRecord",
    "ArrayStatistics",
    "ChunkLostError",
    "ClusterTimeoutError",
    "DescriptorLimitError",
    "GatherLimitError",
    "HostBusyError",
    "HostGoneError",
    "HostMemoryError",
    "HostStatistics",
    "HostedArray",
    "HostedObject",
    "LeaseLostError",
    "LockError",
    "LockTimeoutError",
    "NoHostError",
    "NotAuthorizedError",
    "ProtocolError",
    "ReadOnlyError",
    "ReferentError",
    "ReferentExistsError",
    "ReferentNotFoundError",
    "RemoteError",
    "StaleProxyError",
    "TornArrayError",
    "TornArrayWarning",
    "TransactionConflictError",
    "TransportError",
    "UnsupportedDTypeError",
    "UnsupportedError",
    "UnsupportedPlatformError",
    "WouldDeadlock",
    "arange",
    "array",
    "as_strided",
    "asarray",
    "connect",
    "empty",
    "full",
    "linspace",
    "locked",
    "ones",
    "to_dask",
    "transaction",
    "zeros",
]

# What a host has to tell goes to whoever has configured logging, and not to the terminal of a program that has not.
logging.getLogger("arrayhost").addHandler(logging.NullHandler())

__version__ = "0.1.0"


def _creator(name: str) -> Any:
    def create(*args: Any, **kwargs: Any) -> HostedArray:
        result: HostedArray = _current_link().create(f"#{name}", args, kwargs)
        return result

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f"Host an array from code that runs inside a host. As `numpy.{name}`.\n\n"
        "Raises\n------\nNoHostError\n    This process is not a host.\n\n"
        "Notes\n-----\nCost: no round trip.\n\n"
        "Returned from a hosted object's method, it reaches the caller as a proxy, not as a copy."
    )
    return create


arange = _creator("arange")
array = _creator("array")
asarray = _creator("asarray")
empty = _creator("empty")
full = _creator("full")
linspace = _creator("linspace")
ones = _creator("ones")
zeros = _creator("zeros")
