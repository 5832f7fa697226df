"""Copies that are streamed from an array's memory as it stands, and confirmed afterwards.

To copy first and send then would take twice as long. Memory that was written to while it was sent is sent again, from
a consistent copy; the receiver is told which of the two counts. No lock is held while the network is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.evaluation.operations import METHOD
from arrayhost.evaluation.reading import snapshot
from arrayhost.host.store import Operand
from arrayhost.sync.guards import BUSY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from arrayhost.evaluation.operations import Operation

__all__ = ["LiveCopy", "live_copy"]

# A smaller array is copied in less time than another frame takes.
_STREAM_FROM = 1024 * 1024
_COPY_ARGUMENTS = [(), ("K",)]


class LiveCopy(NamedTuple):
    """What stands for the copy of an array until its memory has been sent.

    Attributes
    ----------
    operand : Operand
    stamp : int
        See `Guard.stamp`.
    """

    operand: Operand
    stamp: int

    @property
    def values(self) -> npt.NDArray[Any]:
        """The memory itself."""
        return self.operand.live

    def confirmed(self) -> npt.NDArray[Any] | None:
        """Return None if what was sent is what the array was; else a consistent copy.

        Raises
        ------
        TornArrayError, StaleProxyError, LockTimeoutError
        """
        return None if self.operand.guard.unchanged(self.stamp) else snapshot(self.operand)


def live_copy(operation: Operation, args: Sequence[Any]) -> LiveCopy | None:
    """Return what is to be streamed for an operation, if it copies one large array in the order of its memory.

    Raises
    ------
    TornArrayError, StaleProxyError
    """
    if operation.kind != METHOD or operation.name != "copy" or tuple(args[1:]) not in _COPY_ARGUMENTS:
        return None
    operand = args[0]
    if not isinstance(operand, Operand) or operand.live.nbytes < _STREAM_FROM:
        return None
    flags = operand.live.flags
    in_order = flags.forc if len(args) > 1 else flags.c_contiguous
    if not in_order:
        return None
    stamp = operand.guard.stamp()
    return None if stamp == BUSY else LiveCopy(operand, stamp)
