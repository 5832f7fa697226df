"""What is used again and again does not grow: descriptors, threads, memory, rows of the control table."""

import pickle
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection

import pytest

from arrayhost import ArrayManager
from arrayhost.client.session import Session
from arrayhost.client.ways import UnixWay
from arrayhost.wire.frames import Kind
from tests.faults.harness import Run, Victim, count, flat, in_fresh_process, report, scaled, victims
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.watchdog(240)]

BATCH = 50


def _attach_and_drop(work: Connection) -> None:
    """Attach what comes, read it, drop it."""
    while (handles := work.recv()) is not None:
        arrays = [pickle.loads(handle) for handle in handles]
        work.send(sum(float(array[0]) for array in arrays))
        del arrays


def cycle(run: Run) -> None:
    """Create arrays here, attach them in another process, drop them in both."""
    with ArrayManager(ctx=get_context("spawn"), handle_grace=0.0) as manager, victims() as alive:
        ours, theirs = Pipe()
        alive.append(Victim(_attach_and_drop, theirs))

        def turn() -> None:
            arrays = [manager.ones(64) for _ in range(BATCH)]
            ours.send([pickle.dumps(array) for array in arrays])
            assert ours.recv() == BATCH

        for _ in scaled(run, run.n // 4 // BATCH).rounds():
            turn()
        wait_until(lambda: not manager.statistics().n_arrays, what="the last of them to be freed")
        report(f"  {run.n:,} create/attach/drop cycles:")
        with flat(manager, run.n):
            for _ in scaled(run, run.n // BATCH).rounds():
                turn()
        ours.send(None)
        assert alive.pop().wait() == 0
        ours.close()
        theirs.close()


def test_create_attach_drop(seed: int) -> None:
    in_fresh_process(cycle, count(2_000, 100_000), seed)


def reconnect(run: Run) -> None:
    """Connect, ask something, hang up."""
    with ArrayManager(ctx=get_context("spawn")) as manager:
        address = str(manager.address)

        def turn() -> None:
            session = Session(UnixWay(address))
            session.open()
            assert session.request(Kind.STATISTICS, None)["n_sessions"] >= 2
            session.close()

        for _ in scaled(run, run.n // 4).rounds():
            turn()
        report(f"  {run.n:,} connects:")
        with flat(manager, run.n):
            for _ in run.rounds():
                turn()


def test_connects(seed: int) -> None:
    in_fresh_process(reconnect, count(200, 10_000), seed)
