"""A host killed in the middle of small writes: the next one shows each array as before the write or after it."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from arrayhost import ArrayManager, TornArrayError
from tests.faults.harness import count
from tests.support import assert_same, child, wait_until

# Every element of "fill", "set", "add" and "atomic" is the number of the last round; "sort" is a permutation in one of
# two orders. "part" counts in its second half only; "large" is above the limit.
WRITER = """
    import sys
    import numpy as np
    from arrayhost import ArrayManager

    if __name__ == "__main__":
        manager = ArrayManager(directory=sys.argv[1], undo_bytes=2_000_000)
        manager.start()
        k = int(sys.argv[2])
        for name in ("fill", "set", "add", "atomic", "part", "large"):
            if name not in manager:
                manager.create(name, 1_000_000 if name == "large" else 200_000)
        if "sort" not in manager:
            manager["sort"] = np.arange(200_000.0)[::-1]
        a = {name: manager[name] for name in manager}
        for name in ("fill", "set", "add", "atomic", "large"):
            a[name].fill(k)
        a["part"][100_000:] = k
        print("host", manager.statistics().pid, flush=True)
        done = open(sys.argv[3], "w")
        while True:
            k += 1
            a["fill"].fill(k)
            print("fill", k, file=done, flush=True)
            a["set"][:] = k
            print("set", k, file=done, flush=True)
            a["add"] += 1
            print("add", k, file=done, flush=True)
            a["atomic"].atomic.add(slice(None), 1)
            print("atomic", k, file=done, flush=True)
            a["part"][100_000:] = k
            print("part", k, file=done, flush=True)
            a["sort"].sort() if k % 2 else a["sort"].__setitem__(slice(None), np.arange(200_000.0)[::-1])
            a["large"].fill(k)
            print("large", k, file=done, flush=True)
"""


def settled(values: np.ndarray, last: int) -> None:
    assert (values == values[0]).all(), np.unique(values)
    assert last <= values[0] <= last + 1, (values[0], last)


@pytest.mark.slow
@pytest.mark.watchdog(900)
def test_small_writes_are_whole_after_a_kill_at_any_moment(tmp_path: Path, rng: np.random.Generator) -> None:
    n_kills, n_torn, n_undone, start = count(5, 200), 0, 0, 0
    folder, done = tmp_path / "arrays", tmp_path / "done"
    for _ in range(n_kills):
        done.unlink(missing_ok=True)
        with child(WRITER, folder, start, done, timeout=30) as writer:
            host = int(writer.expect("host"))
            wait_until(lambda: done.exists() and done.stat().st_size > 0, what="the first writes")
            time.sleep(rng.uniform(0, 0.06))  # no synchronisation: the moment is to be any
            os.kill(host, signal.SIGKILL)
            writer.wait()
        lines = [line.split() for line in done.read_text().splitlines()] if done.exists() else []
        last = dict.fromkeys(("fill", "set", "add", "atomic", "part", "large"), start)
        last |= {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[0] in last}
        rows = odd_rows(folder)
        with ArrayManager(directory=folder, undo_bytes=2_000_000) as manager:
            for name in ("fill", "set", "add", "atomic"):
                settled(manager[name].copy(), last[name])
            part = manager["part"].copy()
            assert (part[:100_000] == 0).all()
            settled(part[100_000:], last["part"])
            ordered = manager["sort"].copy()
            assert (ordered == np.arange(200_000.0)).all() or (ordered == np.arange(200_000.0)[::-1]).all()
            try:
                settled(manager["large"].copy(), last["large"])
                n_undone += rows
            except TornArrayError:
                n_torn += 1
        start = max(last.values()) + 1
    print(f"{n_kills} kills: {n_undone} cut a small write short, which was undone; {n_torn} a large one, reported torn")


def odd_rows(folder: Path) -> int:
    """How many arrays are in the middle of a write, as the control table of a dead host says."""
    from arrayhost.memory.control import ROW_WORDS, VERSION

    (control,) = folder.glob(".arrayhost-control-*")
    rows = np.fromfile(control, np.uint64, count=100 * ROW_WORDS).reshape(-1, ROW_WORDS)
    return int((rows[:, VERSION] & np.uint64(1)).sum())


@pytest.mark.parametrize("n", [5, 50_000])  # in the file for all small ones, and in one of its own
def test_a_record_that_cannot_be_written_keeps_the_old_state(tmp_path: Path, n: int) -> None:
    with ArrayManager(directory=tmp_path) as manager:
        manager["a"] = np.arange(float(n))
        a = manager["a"]
        (control,) = tmp_path.glob(".arrayhost-control-*")
        record = tmp_path / f".arrayhost-undo-{control.name.rpartition('-')[2]}{'' if n == 5 else '-0'}"
        record.symlink_to("/dev/full")  # refused: a record is never written through a link
        with pytest.raises(OSError, match=r"cannot write the undo record.*the array is as it was"):
            a[:] = 7
        assert_same(a.copy(), np.arange(float(n)))
        assert not a.statistics().torn
        if n == 5:
            record.unlink()
        a[0] = 2  # a large record's obstacle was taken away
        assert a[0] == 2
    with ArrayManager(directory=tmp_path, undo_bytes=0) as manager:
        manager["a"][0] = 3
        assert not list(tmp_path.glob(".arrayhost-undo-*"))


def test_sizes_of_records() -> None:
    with pytest.raises(ValueError, match="undo_bytes"):
        ArrayManager(undo_bytes=-1)


DIES = """
    import os, sys
    import numpy as np
    from arrayhost import ArrayManager
    from arrayhost.sync.guards import Hold

    if __name__ == "__main__":
        parent = os.getpid()
        complete = Hold.end_write

        def end_write(hold):
            if os.getpid() != parent and hold.guard.slot == 0 and os.path.exists(sys.argv[2]):
                os.kill(os.getpid(), 9)
            complete(hold)

        Hold.end_write = end_write
        manager = ArrayManager(directory=sys.argv[1], undo_bytes=int(sys.argv[3]))
        manager.start()
        manager["a"] = np.arange(5.0)
        manager["a"][1] = 7
        open(sys.argv[2], "w").close()
        try:
            manager["a"][1:4] = -1
        except ConnectionError:
            print("killed", flush=True)
"""


@pytest.mark.parametrize("undo_bytes", [24, 23])
def test_a_write_that_had_changed_everything_is_undone_or_beyond_the_limit_torn(
    tmp_path: Path, undo_bytes: int
) -> None:
    folder = tmp_path / "arrays"
    with child(DIES, folder, tmp_path / "now", undo_bytes, timeout=30) as writer:
        writer.expect("killed")
    assert odd_rows(folder) == 1
    with ArrayManager(directory=folder) as manager:
        if undo_bytes == 24:
            assert manager["a"].tolist() == [0, 7, 2, 3, 4]
        else:
            with pytest.raises(TornArrayError):
                manager["a"].copy()
