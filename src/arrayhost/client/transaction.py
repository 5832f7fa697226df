"""`transaction`: several arrays changed all at once or not at all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from arrayhost.client.array import HostedArray
from arrayhost.client.evaluating import evaluate_in_host
from arrayhost.errors import WouldDeadlock
from arrayhost.evaluation.operations import HOSTED, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Transaction", "transaction"]

_COMMIT = Operation(HOSTED, "commit")
_ATTEMPTS = 5
_PAUSE = 1e-3


def transaction(*arrays: HostedArray, timeout: float | None = None) -> Transaction:
    """Change several arrays all at once or not at all: ``with transaction(a, b) as (x, y):``.

    Parameters
    ----------
    *arrays : HostedArray
        Of one host, each once; of an array and its views only one may take part.
    timeout : float, optional
        Seconds to wait for all locks at the end; None waits as long as the host's ``lock_timeout``.

    Returns
    -------
    Transaction
        Its ``with`` target is a tuple of private ndarrays, copies of the arrays at one moment. At the end of the block
        those that were changed are written back.

    Raises
    ------
    TransactionConflictError
        At the end of the block: one of the arrays was written to since the block began, also one that the block
        only read. Nothing was written; try again.
    LockTimeoutError, TornArrayError, StaleProxyError
        Nothing was written.
    ValueError
        The arrays have more than one host, or one is given twice.
    WouldDeadlock
        This thread is inside a section on one of them.

    Notes
    -----
    If the block raises, or the process dies inside it, nothing is written: what is written is one request, which the
    host carries out under all the locks. No lock is held during the block, so nobody waits for it. A conflict is any
    write to one of the *arrays*, whatever elements it changed.

    Cost: a copy of every array on entry; one round trip, and the bytes of the changed arrays, at the end.

    Examples
    --------
    >>> with transaction(accounts, log) as (balance, entries):
    ...     balance[payer] -= 10
    ...     balance[payee] += 10
    ...     entries[-1] = 10
    """
    if not arrays:
        raise TypeError("transaction() needs at least one hosted array")
    for array in arrays:
        if not isinstance(array, HostedArray):
            raise TypeError(f"transaction() takes hosted arrays, not a {type(array).__name__}")
    if len({array._source.link.host_id for array in arrays}) > 1:
        raise ValueError("the arrays of a transaction must have one host: nobody could write to two at once")
    if len({array._source.ident for array in arrays}) < len(arrays):
        raise ValueError("an array takes part in a transaction once, as a whole or by one of its views")
    return Transaction(arrays, max(array._timeout(timeout) for array in arrays))


class Transaction:
    """What `transaction` returns; entered once."""

    def __init__(self, arrays: Sequence[HostedArray], timeout: float) -> None:
        self._arrays = arrays
        self._timeout = timeout
        self._versions: list[int] = []
        self._values: list[npt.NDArray[Any]] = []
        self._copies: list[npt.NDArray[Any] | None] = []

    def __enter__(self) -> tuple[npt.NDArray[Any], ...]:
        if self._values:
            raise RuntimeError("this transaction has begun already; call transaction() anew for each 'with'")
        for array in self._arrays:
            if array._source.hold() is not None:
                raise WouldDeadlock(
                    "this thread is inside a section on an array of the transaction, and its end would wait for the "
                    "section; change the arrays inside arrayhost.locked(a, b) instead"
                )
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * attempt)
            self._versions = [array.version for array in self._arrays]
            self._values = [array._private_copy() for array in self._arrays]
            if self._versions == [array.version for array in self._arrays]:
                break
        # Else the copies may show different moments, and the end of the block will find a conflict.
        self._copies = [
            None if array.mapped else value.copy("K") for array, value in zip(self._arrays, self._values, strict=True)
        ]
        return tuple(self._values)

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None:
            changed = [
                None if _bytes_equal(before, value) else value
                for before, value in zip(self._before(), self._values, strict=True)
            ]
            evaluate_in_host(_COMMIT, (list(self._arrays), self._versions, changed, self._timeout), {})

    def _before(self) -> list[npt.NDArray[Any]]:
        """What the block was given: second copies, or the memory itself.

        If that has been changed meanwhile, comparing with it tells nothing, but then the versions do.
        """
        return [array.live if copy is None else copy for array, copy in zip(self._arrays, self._copies, strict=True)]


def _bytes_equal(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether two arrays of one dtype hold the same bytes: -0.0 is not 0.0 here, and a NaN is itself."""
    as_bytes = f"V{one.dtype.itemsize}"
    return one.dtype.itemsize == 0 or bool((one.view(as_bytes) == other.view(as_bytes)).all())
