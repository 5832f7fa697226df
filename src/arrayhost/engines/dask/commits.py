"""Commits: the next version of the chunks that a write touches, published if nobody has published one meanwhile.

A write is tried on the newest version. Its chunks are computed and waited for; then the catalogue makes them the next
version, unless there is one already: then all is done again. A process that was stopped in between, for however long,
can therefore never put an old state in the place of a newer one. Whoever has met another writer takes the array's lock
for the next try, so that tries do not multiply; the lock's loss changes nothing.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arrayhost.engines.dask import checkpoints
from arrayhost.engines.dask.computing import fetched
from arrayhost.errors import ChunkLostError, LeaseLostError, LockTimeoutError, StaleProxyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed import Future

    from arrayhost.engines.dask.link import ClusterLink
    from arrayhost.engines.dask.snapshots import ClusterSource, Snapshot

__all__ = ["LEASE_SECONDS", "Update", "commit", "publish"]

LEASE_SECONDS = 10.0
_ATTEMPTS = 3


@dataclass
class Update:
    """What a write makes of one array.

    Attributes
    ----------
    source : ClusterSource
    base : Snapshot
        What it was made from.
    blocks : dict of int to Future
        The next version of the blocks that differ.
    chunks : tuple of tuple of int, optional
        New sizes of the blocks.
    fragile : bool
        Some elements exist only in the workers' memory: nothing could make them again.
    """

    source: ClusterSource
    base: Snapshot
    blocks: dict[int, Future] = field(default_factory=dict)
    chunks: Any = None
    fragile: bool = False

    def to_wire(self) -> dict[str, Any]:
        """As the catalogue takes it."""
        return {
            "ident": self.base.ident, "base": self.base.version, "chunks": self.chunks, "lock": self.source.held,
            "changes": [(number, future.key) for number, future in self.blocks.items()],
        }  # fmt: skip


def commit(link: ClusterLink, attempt: Callable[[], tuple[list[Update], Any]]) -> Any:
    """Carry out a write: try it on the newest versions until one is published.

    Parameters
    ----------
    attempt : callable
        Makes the updates from the newest versions, and the write's result.

    Returns
    -------
    object
        The result of the attempt that was published.

    Raises
    ------
    LockTimeoutError
        Others were quicker, or in a section, for all of `lock_timeout`.
    """
    link.check_writable()
    deadline = time.monotonic() + link.lock_timeout
    turn: _Turn | None = None
    lost = 0
    try:
        while True:
            updates, result = attempt()
            try:
                answer = publish(link, updates, deadline - time.monotonic())
            except ChunkLostError:
                # What it was made from went with a worker in between; the newest version may be made again, or not.
                lost += 1
                if lost == _ATTEMPTS:
                    raise
                continue
            if answer["refused"] is None:
                return result
            if time.monotonic() >= deadline:
                raise LockTimeoutError("turn to write", link.lock_timeout)
            if turn is None and len(updates) == 1 and updates[0].source.held is None:
                turn = _Turn(updates[0].source, deadline)
    finally:
        if turn is not None:
            turn.end()


class _Turn:
    """The array's lock while one write is tried again. Only to save tries: without it they go on all the same."""

    def __init__(self, source: ClusterSource, deadline: float) -> None:
        self._source = source
        token = uuid.uuid4().hex
        seconds = max(0.0, min(LEASE_SECONDS, deadline - time.monotonic()))
        taken = source.link.call(
            "lock", seconds=seconds, ident=source.ident, token=token, timeout=seconds, lease=LEASE_SECONDS
        )
        if taken:
            source.held = token

    def end(self) -> None:
        token, self._source.held = self._source.held, None
        if token is not None:
            self._source.link.call("unlock", ident=self._source.ident, token=token)


def publish(link: ClusterLink, updates: Sequence[Update], seconds: float) -> dict[str, Any]:
    """Wait for an update's chunks and ask the catalogue to make them the next version.

    Returns
    -------
    dict
        ``refused`` says why it was not done.

    Raises
    ------
    StaleProxyError
        The cluster was started anew since the base was read.
    LeaseLostError
        The lock that this thread held has gone to somebody else.
    ChunkLostError
        What the update was made from is lost.
    """
    fetched(
        [update.source for update in updates],
        lambda: link.wait([future for update in updates for future in update.blocks.values()]),
        attempts=1,
    )
    answer: dict[str, Any] = link.call(
        "commit", seconds=max(0.0, seconds), epoch=updates[0].base.epoch, token=uuid.uuid4().hex,
        parts=[update.to_wire() for update in updates], deadline=max(0.0, seconds),
    )  # fmt: skip
    if answer["refused"] == "epoch":
        raise StaleProxyError("the scheduler was started anew: what this write was made from is gone")
    if answer["refused"] == "lock":
        raise LeaseLostError(LEASE_SECONDS)
    if answer["refused"] is None:
        sources = {update.source.ident: update for update in updates}
        for told in answer["arrays"]:
            update = sources[told["ident"]]
            checkpoints.after_commit(update.source, update.source.learn(told), at_once=update.fragile)
    else:
        for update in updates:
            update.source.forget()
    return answer
