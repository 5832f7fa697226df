"""A host with a directory: plain files, found again after any kill; torn writes reported; others' files left alone."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arrayhost import ArrayManager, ProtocolError, ReferentExistsError, ReferentNotFoundError, TornArrayError
from tests.faults.harness import count
from tests.support import assert_same, child, wait_until

UNWISE = ["../x", "/abs", "a/b", "..", ".", ".hidden", "a\0b", "x" * 10_000, "a\nb", "", "a\\b", "\u2215etc",
          "x\u200by", "\u0430dmin", "con\u202etxt", " ", "a\u00ad", "y" * 253, "\ud800", ".arrayhost-lock"]  # fmt: skip


def visible(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def test_named_arrays_are_files_that_anyone_can_open(tmp_path: Path) -> None:
    values = {"a": np.arange(12.0).reshape(3, 4), "f": np.arange(6).reshape(2, 3).T, "none": np.zeros((0, 3)),
              "one": np.array(5, "i2"), "text": np.array([b"x", b"yz"])}  # fmt: skip
    with ArrayManager(directory=tmp_path) as manager:
        for name, array in values.items():
            manager[name] = array
            assert_same(manager[name].copy("K"), array.copy("K"))
        assert visible(tmp_path) == [f"{name}.npy" for name in sorted(values)]
        other = np.load(tmp_path / "a.npy", mmap_mode="r")
        manager["a"][1, 2] = 77
        with manager["a"].write() as x:
            x[0] = -1
        assert other[1, 2] == 77
        assert (other[0] == -1).all()
        made = manager.create("made", (3,), "f4", fill_value=2)
        made += 1
        del manager["one"]
        manager.flush()
        version = manager["a"].version
    values["a"][1, 2], values["a"][0], values["made"] = 77, -1, np.full(3, 3, "f4")
    del values["one"]
    with ArrayManager(directory=tmp_path) as manager:
        assert sorted(manager) == sorted(values)
        for name, array in values.items():
            assert_same(manager[name].copy("K"), array.copy("K"))
        assert manager["a"].version > version
        manager["a"].fill(4)
        assert (np.load(tmp_path / "a.npy") == 4).all()


def test_overwriting_swaps_and_readers_keep_the_old_one(tmp_path: Path) -> None:
    with ArrayManager(directory=tmp_path) as manager:
        manager["a"] = np.arange(3)
        old, mapped = manager["a"], np.load(tmp_path / "a.npy", mmap_mode="r")
        with pytest.raises(ReferentExistsError):
            manager.put("a", np.ones(5), overwrite=False)
        manager.put("a", np.ones(5), overwrite=True)
        old[0] = 9
        assert mapped[0] == 9
        assert_same(np.load(tmp_path / "a.npy"), np.ones(5))
        assert_same(manager["a"].copy(), np.ones(5))
        manager["b"] = manager["a"]
        manager["b"][0] = 5
        assert manager["a"][0] == 1
        assert manager.statistics().n_bytes == 0


def test_an_array_without_elements_shows_nothing_of_its_file(tmp_path: Path) -> None:
    with ArrayManager(directory=tmp_path) as manager:
        manager["x"] = np.zeros(0, "u1")
        a = manager["x"]
        before = (tmp_path / "x.npy").read_bytes()
        forged = a.on_host._with_layout(replace(a.layout, shape=(8,), strides=(1,)))
        with pytest.raises(ProtocolError, match="of an array that has none"):
            forged[0] = 0
        with pytest.raises(ProtocolError, match="of an array that has none"):
            forged.copy()
        assert (tmp_path / "x.npy").read_bytes() == before


def test_two_hosts_on_one_directory(tmp_path: Path) -> None:
    with ArrayManager(directory=tmp_path) as manager:
        host = manager.statistics().pid
        with pytest.raises(OSError, match=f"process {host} uses this directory"):
            ArrayManager(directory=tmp_path).start()
        manager["a"] = np.ones(3)
        assert manager["a"].sum() == 3
    with ArrayManager(directory=tmp_path) as manager:
        assert manager["a"].sum() == 3


def test_what_is_no_array_is_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.arange(5))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-8])
    (tmp_path / "foreign.npy").write_bytes(b"not an array")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "link.npy").symlink_to(tmp_path / "good.npy")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.npy")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with ArrayManager(directory=tmp_path) as manager:
        assert list(manager) == ["good"]
        for name in ("objects", "cut", "foreign", "empty", "link", "folder", "pipe"):
            with pytest.raises(ReferentNotFoundError):
                manager[name]
            with pytest.raises(ReferentExistsError, match="move it away"):
                manager[name] = np.ones(3)
            assert os.path.lexists(tmp_path / f"{name}.npy")
    assert {path: path.read_bytes() for path in before} == before


def test_names_nobody_should_use(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    with ArrayManager(directory=folder) as manager:
        for name in UNWISE:
            with pytest.raises((ValueError, TypeError)):
                manager[name] = np.ones(3)
            with pytest.raises((ValueError, TypeError)):
                manager.create(name, 3)
        assert list(manager) == []
        assert visible(folder) == []
    assert os.listdir(tmp_path) == ["inside"]


def test_a_section_that_dies_with_its_host_leaves_the_array_torn(tmp_path: Path) -> None:
    with child(KILLED, tmp_path, timeout=30) as process:
        host = int(process.expect("host"))
        os.kill(host, signal.SIGKILL)
        process.kill()
    wait_until(lambda: not Path(f"/proc/{host}/cmdline").exists() or not Path(f"/proc/{host}/cmdline").read_bytes(),
               what="the host to end")  # fmt: skip
    with ArrayManager(directory=tmp_path) as manager:
        assert_same(manager["whole"].copy(), np.full(4, 3.0))
        with pytest.raises(TornArrayError) as caught:
            manager["half"].copy()
        assert caught.value.pid == process.pid
        manager["half"].recover()
        assert manager["half"][0] == 1
    with ArrayManager(directory=tmp_path) as manager:
        assert manager["half"][1] == 0


KILLED = """
    import sys, time
    import numpy as np
    from arrayhost import ArrayManager

    if __name__ == "__main__":
        manager = ArrayManager(directory=sys.argv[1])
        manager.start()
        manager["whole"] = np.zeros(4)
        manager["half"] = np.zeros(4)
        manager["whole"].fill(3)
        section = manager["half"].write()
        x = section.__enter__()
        x[0] = 1
        print("host", manager.statistics().pid)
        time.sleep(60)
"""

WRITER = """
    import sys
    import numpy as np
    from arrayhost import ArrayManager

    if __name__ == "__main__":
        manager = ArrayManager(directory=sys.argv[1])
        manager.start()
        a = manager["a"] if "a" in manager else manager.create("a", 4_000_000)
        try:
            a.fill(int(sys.argv[2]))
        except ConnectionError:
            pass
        print("host", manager.statistics().pid, flush=True)
        told = open(sys.argv[3], "w")
        for k in range(int(sys.argv[2]), 10**9):
            if k % 5 == 0 or "b" not in manager:
                manager.put("b", np.full(1000, float(k)), overwrite=True)
            a.fill(k)
            print("done", k, file=told, flush=True)
"""


@pytest.mark.slow
@pytest.mark.watchdog(900)
def test_a_host_killed_at_any_moment_loses_no_completed_write(tmp_path: Path, rng: np.random.Generator) -> None:
    n_kills, n_torn, last = count(5, 200), 0, 1
    folder, told = tmp_path / "arrays", tmp_path / "told"
    for _ in range(n_kills):
        with child(WRITER, folder, last, told, timeout=30) as writer:
            host = int(writer.expect("host"))
            wait_until(lambda: told.exists() and told.stat().st_size, what="the first write")
            time.sleep(rng.uniform(0, 0.1))  # no synchronisation: the moment is to be any
            os.kill(host, signal.SIGKILL)
            writer.wait()
        last = int(told.read_text().splitlines()[-1].split()[1])
        told.unlink()
        with ArrayManager(directory=folder) as manager:
            b = manager["b"].copy()
            assert (b == b[0]).all()
            assert b[0] >= last // 5 * 5 - 5
            try:
                a = manager["a"].copy()
                assert (a == a[0]).all()
                assert a[0] >= last
            except TornArrayError:
                n_torn += 1
                manager["a"].fill(last)
        last += 2
    print(f"{n_kills} kills of the host, {n_torn} cut a write short and were reported, none lost or mixed unnoticed")
