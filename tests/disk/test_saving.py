"""Files written whole or not at all: save, snapshot, a full disk, a kill at any moment."""

import errno
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager
from arrayhost.memory.files import save_npy
from tests.faults.harness import count
from tests.support import assert_same, child


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        yield running


CASES: list[Any] = [
    np.arange(24.0).reshape(2, 3, 4), np.arange(6.0).reshape(2, 3).T,
    np.arange(60).reshape(6, 10)[::-2, 1::3], np.array(5),
    np.zeros((3, 0)), np.array([b"ab", b"c"]), np.array(["2020-01-01"], "M8[D]"), np.arange(3, dtype=">i4"),
    np.array([(1, 2.5), (3, 4.5)], [("a", "i1"), ("b", "f8")]),
]  # fmt: skip


@pytest.mark.parametrize("values", CASES, ids=lambda values: f"{values.dtype.str}{values.shape}")
def test_what_is_saved_is_what_numpy_loads(values: np.ndarray, tmp_path: Path, manager: ArrayManager) -> None:
    save_npy(tmp_path / "plain.npy", values)
    assert_same(np.load(tmp_path / "plain.npy"), values.copy("K"))
    hosted = manager.array(values)
    for number, proxy in enumerate((hosted, hosted.on_host)):
        file = proxy.save(tmp_path / f"hosted{number}")
        assert file == tmp_path / f"hosted{number}.npy"
        mapped = np.load(file, mmap_mode="r") if values.size else np.load(file)
        assert_same(np.array(mapped), values.copy("A"))
    assert sorted(os.listdir(tmp_path)) == ["hosted0.npy", "hosted1.npy", "plain.npy"]


def test_pieces_of_a_large_array(tmp_path: Path) -> None:
    large = np.arange(5_000_000.0)
    for values in (large, large.reshape(1000, 5000)[:, ::2], large.reshape(1000, 5000).T):
        save_npy(tmp_path / "x.npy", values)
        assert np.array_equal(np.load(tmp_path / "x.npy"), values)


def test_a_snapshot_holds_every_named_array(tmp_path: Path, manager: ArrayManager) -> None:
    for name, values in (
        ("a", np.arange(3)),
        ("x.npy", np.ones((2, 2))),
        ("größe 1", np.array(4.5)),
        ("b" * 240, np.ones(1)),
    ):
        manager[name] = values
    folder = manager.snapshot(tmp_path / "copy")
    assert sorted(os.listdir(tmp_path)) == ["copy"]
    assert sorted(os.listdir(folder)) == sorted(f"{name}.npy" for name in manager)
    for name in manager:
        assert_same(np.load(folder / f"{name}.npy"), manager[name].copy())
    for taken in (folder, folder / "a.npy"):
        with pytest.raises(FileExistsError, match="new or empty"):
            manager.snapshot(taken)
    (tmp_path / "empty").mkdir()
    manager.snapshot(tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        manager.snapshot(tmp_path / "link")


def test_a_snapshot_that_fails_leaves_nothing(tmp_path: Path, manager: ArrayManager) -> None:
    manager["a"] = np.arange(3)
    manager["b" * 255] = np.arange(3)  # too long for a file with its ending
    with pytest.raises(OSError, match="name too long"):
        manager.snapshot(tmp_path / "copy")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, manager: ArrayManager) -> None:
    """The limit of a file's size stands for the full disk: the same call fails, in the same place."""
    file = manager.array(np.arange(10.0)).save(tmp_path / "x.npy")
    large = manager.ones(1_000_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"needs 7\.6 MiB.*nothing was changed") as caught:
            large.save(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    print(caught.value)
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert os.listdir(tmp_path) == ["x.npy"]
    assert_same(np.load(file), np.arange(10.0))


WRITER = """
    import sys
    import numpy as np
    from arrayhost import ArrayManager

    if __name__ == "__main__":
        with ArrayManager() as manager:
            manager["a"] = np.zeros(300_000)
            a = manager["a"]
            print("ready")
            for k in range(1, 1_000_000):
                a.fill(k)
                a.save(sys.argv[1])
                manager.snapshot(f"{sys.argv[2]}{k % 50}")
"""


@pytest.mark.slow
@pytest.mark.watchdog(900)
def test_a_kill_at_any_moment_leaves_whole_files(tmp_path: Path, rng: np.random.Generator) -> None:
    n_kills = count(5, 200)
    file, highest, n_snapshots = tmp_path / "x.npy", 0.0, 0
    for number in range(n_kills):
        with child(WRITER, file, tmp_path / f"copy{number}-", timeout=30) as writer:
            writer.expect("ready")
            time.sleep(rng.uniform(0, 0.3))  # no synchronisation: the moment is to be any
            writer.kill()
        if file.exists():
            values = np.load(file)
            assert (values == values[0]).all()
            highest = max(highest, float(values[0]))
        for folder in tmp_path.glob(f"copy{number}-*"):
            values = np.load(folder / "a.npy")
            assert (values == values[0]).all()
            assert values.shape == (300_000,)
            n_snapshots += 1
    print(f"{n_kills} kills, {n_snapshots} snapshots, the file written up to {highest:g} times: all whole")
    assert n_snapshots > 0
