"""Guards: two processes' worth of lock files in one, dead writers, and the parity of the version."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from arrayhost.errors import LockTimeoutError, StaleProxyError, TornArrayError, WouldDeadlock
from arrayhost.memory.control import GENERATION, ROW_WORDS, TORN, VERSION, WAITER, ControlTable
from arrayhost.sync import guards
from arrayhost.sync.filelocks import EXCLUSIVE, SHARED, LockFiles, create_lock_files
from arrayhost.sync.guards import BUSY, OWNED, Guard, caller_holds, held_here

SLOT = 37
GEN = 5


class Pair:
    """One row, seen by two parties that know nothing of each other, as two processes would."""

    def __init__(self) -> None:
        fd, self.table = ControlTable.create(64)
        os.close(fd)
        self.table.words[ROW_WORDS * SLOT + GENERATION] = GEN
        files = create_lock_files()
        self.files = [files, LockFiles([os.dup(fd) for fd in files.fds()])]
        self.mine, self.theirs = (self.guard(n) for n in range(2))

    def guard(self, n: int, slot: int = SLOT) -> Guard:
        return Guard(self.table, self.files[n], slot, GEN)

    def word(self, field: int) -> int:
        return self.table.words[ROW_WORDS * SLOT + field]

    def set_word(self, field: int, value: int) -> None:
        self.table.words[ROW_WORDS * SLOT + field] = value

    def die(self, *, writing: bool) -> None:
        """Somebody takes the exclusive lock, perhaps begins a write, and is no more."""
        hold = self.theirs.acquire(EXCLUSIVE, 1.0, "lock")
        if writing:
            hold.begin_write()
        self.files[1].after_fork()  # closes the descriptions: the kernel frees the lock, as at a process's end
        hold.file = None
        hold.guard.exclusive = None
        guards._active.pop(id(hold))


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    for hold in held_here():
        hold.free()
    vars(pair).clear()  # pytest keeps the pair itself until after the census
    gc.collect()


def acquire(guard: Guard, mode: int = EXCLUSIVE, timeout: float = 0.05) -> Any:
    return guard.acquire(mode, timeout, "lock")


def test_exclusive_excludes_everybody(pair: Pair) -> None:
    hold = acquire(pair.mine)
    for mode in (EXCLUSIVE, SHARED):
        with pytest.raises(LockTimeoutError) as caught:
            acquire(pair.theirs, mode)
        assert caught.value.holder_pid == os.getpid()
    hold.release()
    acquire(pair.theirs).release()


def test_shared_excludes_writers_only(pair: Pair) -> None:
    first, second = acquire(pair.mine, SHARED), acquire(pair.theirs, SHARED)
    thread = _in_thread(lambda: acquire(pair.mine, EXCLUSIVE))
    assert isinstance(thread, LockTimeoutError)
    first.release()
    second.release()
    acquire(pair.mine).release()


def test_rows_do_not_disturb_each_other(pair: Pair) -> None:
    other = SLOT + 16  # the same lock file, another byte
    pair.table.words[ROW_WORDS * other + GENERATION] = GEN
    hold, elsewhere = acquire(pair.mine), acquire(pair.guard(1, other))
    hold.release()
    elsewhere.release()


def test_threads_of_one_process_exclude_each_other(pair: Pair) -> None:
    hold = acquire(pair.mine)
    assert isinstance(_in_thread(lambda: acquire(pair.mine)), LockTimeoutError)
    hold.release()
    assert _in_thread(lambda: acquire(pair.mine).release()) is None


def test_a_lock_nests_and_the_last_release_frees(pair: Pair) -> None:
    outer = acquire(pair.mine)
    assert acquire(pair.mine) is outer
    assert acquire(pair.mine, SHARED) is outer
    for _ in range(2):
        outer.release()
        with pytest.raises(LockTimeoutError):
            acquire(pair.theirs)
    outer.release()
    outer.release()  # once more does nothing
    acquire(pair.theirs).release()


def test_a_reader_that_wants_to_write_is_told(pair: Pair) -> None:
    hold = acquire(pair.mine, SHARED)
    with pytest.raises(WouldDeadlock, match=r"a\.read\(\)"):
        acquire(pair.mine)
    hold.release()


def test_a_function_called_from_inside_a_section_is_told(pair: Pair) -> None:
    caller_holds({SLOT: EXCLUSIVE})
    try:
        with pytest.raises(WouldDeadlock, match="caller"):
            acquire(pair.mine)
    finally:
        caller_holds({})


def test_a_task_does_not_block_its_siblings_loop(pair: Pair) -> None:
    async def both() -> None:
        held, done = asyncio.Event(), asyncio.Event()

        async def holder() -> None:
            hold = acquire(pair.mine)
            held.set()
            await done.wait()
            hold.release()

        task = asyncio.create_task(holder())
        await held.wait()
        with pytest.raises(WouldDeadlock, match="async with"):
            acquire(pair.mine)
        done.set()
        await task

    asyncio.run(both())


def test_the_version_is_odd_only_while_somebody_writes(pair: Pair) -> None:
    before = pair.mine.version
    hold = acquire(pair.mine)
    assert pair.word(VERSION) == before
    hold.begin_write()
    assert pair.word(VERSION) == before + 1
    assert pair.mine.version == pair.theirs.version == before
    hold.begin_write()
    hold.end_write()
    assert pair.word(VERSION) == before + 1
    hold.end_write()
    assert pair.word(VERSION) == before + 2
    hold.begin_write()
    hold.release()  # a section left by an exception ends its write
    assert pair.word(VERSION) == before + 4


def test_stamps(pair: Pair) -> None:
    stamp = pair.mine.stamp()
    assert pair.mine.unchanged(stamp)
    hold = acquire(pair.theirs)
    assert pair.mine.unchanged(stamp)
    hold.begin_write()
    assert pair.theirs.stamp() == OWNED
    assert pair.theirs.unchanged(OWNED)
    assert pair.mine.stamp() == BUSY
    assert not pair.mine.unchanged(stamp)
    hold.end_write()
    hold.release()
    assert not pair.mine.unchanged(stamp)
    assert pair.mine.stamp() == stamp + 2


@pytest.mark.parametrize("mode", [EXCLUSIVE, SHARED])
def test_a_writer_that_died_leaves_a_torn_array(pair: Pair, mode: int) -> None:
    pair.die(writing=True)
    assert pair.mine.stamp() == BUSY
    acquire(pair.mine, mode).release()
    assert pair.word(VERSION) % 2 == 0
    assert pair.mine.torn
    for read in (pair.mine.stamp, pair.mine.check_whole):
        with pytest.raises(TornArrayError) as caught:
            read()
        assert caught.value.pid == os.getpid()
    hold = acquire(pair.mine)
    pair.mine.mend()
    hold.release()
    assert not pair.mine.torn
    pair.mine.check_whole()
    assert pair.mine.unchanged(pair.mine.stamp())


def test_a_holder_that_died_without_writing_harms_nothing(pair: Pair) -> None:
    pair.die(writing=False)
    acquire(pair.mine).release()
    assert not pair.word(TORN)


def test_a_reused_row_is_noticed(pair: Pair) -> None:
    stamp = pair.mine.stamp()
    pair.set_word(GENERATION, GEN + 1)
    pair.set_word(VERSION, pair.word(VERSION) + 2)  # as whoever frees a row does
    assert not pair.mine.unchanged(stamp)
    for use in (pair.mine.stamp, lambda: acquire(pair.mine)):
        with pytest.raises(StaleProxyError):
            use()
    pair.mine.generation = GEN + 1
    acquire(pair.mine).release()  # the failed attempt left no lock


def test_a_waiter_in_vain_leaves_no_word(pair: Pair) -> None:
    hold = acquire(pair.mine)
    with pytest.raises(LockTimeoutError):
        acquire(pair.theirs)
    assert pair.word(WAITER) == 0
    hold.release()


def test_increments_of_two_parties_are_exact(pair: Pair) -> None:
    total = [0]

    def work(guard: Guard) -> None:
        for _ in range(200):
            hold = acquire(guard, timeout=20.0)
            hold.begin_write()
            seen = total[0]
            os.sched_yield()
            total[0] = seen + 1
            hold.end_write()
            hold.release()

    before = pair.mine.version
    threads = [threading.Thread(target=work, args=(guard,)) for guard in (pair.mine, pair.theirs, pair.mine)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [600]
    assert pair.mine.version == before + 1200


def _in_thread(work: Any) -> Any:
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(work())
        except LockTimeoutError as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]
