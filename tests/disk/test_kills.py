"""Hosts killed at any moment of flushes, snapshots, saves and all that they keep on disk: everything is old or new."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from arrayhost import ArrayManager, TornArrayError
from tests.faults.harness import count, report
from tests.support import child, is_running, wait_until

# "large" is above the limit of what is undone, and so may be torn; "small" never. Each is the number of one round.
WRITER = """
    import sys
    import numpy as np
    from arrayhost import ArrayManager

    if __name__ == "__main__":
        folder, copies, k, told = sys.argv[1], sys.argv[2], int(sys.argv[3]), open(sys.argv[4], "w")
        manager = ArrayManager(directory=folder, undo_bytes=1_000_000)
        manager.start()
        for name, n in (("small", 50_000), ("large", 300_000)):
            if name not in manager:
                manager.create(name, n)
            manager[name].fill(k)
        small, large = manager["small"], manager["large"]
        print("host", manager.statistics().pid, flush=True)
        try:
            while True:
                k += 1
                small.fill(k)
                print("small", k, file=told, flush=True)
                small.attrs["k"] = k
                print("attrs", k, file=told, flush=True)
                large.fill(k)
                manager.flush()
                print("flushed", k, file=told, flush=True)
                manager.snapshot(f"{copies}/{k}")
                print("snapshot", k, file=told, flush=True)
                manager.put("replaced", np.full(20_000, float(k)), overwrite=True)
                print("replaced", k, file=told, flush=True)
                small.save(f"{copies}/saved.npy")
                print("saved", k, file=told, flush=True)
        except ConnectionError:
            pass
"""


def uniform(values: np.ndarray) -> float:
    assert (values == values[0]).all(), "mixed"
    return float(values[0])


@pytest.mark.slow
@pytest.mark.watchdog(900)
def test_everything_on_disk_is_old_or_new(tmp_path: Path, rng: np.random.Generator) -> None:
    folder, copies, lines = tmp_path / "arrays", tmp_path / "copies", tmp_path / "told"
    copies.mkdir()
    n_kills, n_torn, n_snapshots, last, saved, at = count(5, 200), 0, 0, 0, 0.0, dict[str, int]()
    for _ in range(n_kills):
        with child(WRITER, folder, copies, last, lines, timeout=30) as writer:
            host = int(writer.expect("host"))
            wait_until(lambda: lines.exists() and lines.stat().st_size, what="the first write")
            time.sleep(rng.uniform(0, 0.15))  # no synchronisation: the moment is to be any
            # The host dies in the middle of what it was asked for, or with it the process that writes the copies.
            for pid in (host, *([writer.pid] if rng.random() < 0.5 else [])):
                os.kill(pid, signal.SIGKILL)
            writer.wait()
            wait_until(lambda: not is_running(host), what="the host to end")  # noqa: B023  # asked at once
        told = [line.split() for line in lines.read_text().splitlines()]
        lines.unlink()
        done = {line[0]: int(line[1]) for line in told if len(line) == 2}
        at[told[-1][0] if told else "small"] = at.get(told[-1][0] if told else "small", 0) + 1
        with ArrayManager(directory=folder, undo_bytes=1_000_000) as manager:
            assert not manager["small"].statistics().torn
            small = uniform(manager["small"].copy())
            assert max(done.get("small", last + 1), last + 1) <= small <= done.get("small", last + 1) + 1
            attrs = manager["small"].attrs.get("k", 0)
            assert done.get("attrs", 0) <= attrs <= small
            if "replaced" in done:
                assert uniform(manager["replaced"].copy()) >= done["replaced"]
            try:
                assert uniform(manager["large"].copy()) >= done.get("flushed", last)
            except TornArrayError:
                n_torn += 1
        for copy in copies.glob("[0-9]*"):
            assert int(copy.name) <= small
            assert uniform(np.load(copy / "small.npy")) == int(copy.name) == uniform(np.load(copy / "large.npy"))
            n_snapshots += 1
            shutil.rmtree(copy)
        if (copies / "saved.npy").exists():
            before, saved = saved, uniform(np.load(copies / "saved.npy"))
            assert max(before, done.get("saved", 0)) <= saved <= small
        last = int(small) + 1
    after = ", ".join(f"{n} after {what!r}" for what, n in sorted(at.items()))
    report(
        f"  {n_kills} kills in the middle of writes, flushes, snapshots and saves ({after}): {n_torn} large writes cut "
        f"short and told, {n_snapshots} snapshots, all whole"
    )
