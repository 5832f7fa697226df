"""Attributes, and who made an array when, outlive their host; what makes no sense is told, and the array is served."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager
from tests.faults.harness import count
from tests.support import assert_same, child, wait_until

ATTRIBUTES = {"unit": "m", "days": [1, 2.5, None], "größe": {"x": True}}


@contextmanager
def hosted(folder: Path) -> Iterator[ArrayManager]:
    with ArrayManager(directory=folder) as manager:
        yield manager


def kept(folder: Path, name: str) -> Path:
    return folder / ".arrayhost-attributes" / name


def test_they_outlive_their_host(tmp_path: Path) -> None:
    with hosted(tmp_path) as manager:
        a = manager.create("a", 3)
        a.attrs.update(ATTRIBUTES)
        a[1:].attrs["view"] = 1
        manager["plain"] = np.ones(2)
        record, plain = manager.inspect_array("a"), manager.inspect_array("plain")
    begun = time.time()
    with hosted(tmp_path) as manager:
        for name, before in (("a", record), ("plain", plain)):
            now = manager.inspect_array(name)
            assert (now.attrs, now.created, now.creator) == (before.attrs, before.created, before.creator)
            assert now.created < begun
        assert dict(manager["a"].attrs) == {**ATTRIBUTES, "view": 1}
        assert record.creator.pid == os.getpid()
        del manager["a"].attrs["view"]
        manager["a"].attrs["unit"] = "km"
    with hosted(tmp_path) as manager:
        assert dict(manager["a"].attrs) == {**ATTRIBUTES, "unit": "km"}
        manager["a"].attrs.clear()
        assert not kept(tmp_path, "a").exists()
        assert dict(manager["plain"].attrs) == {}


def test_they_stay_with_their_array_and_pass_to_no_other(tmp_path: Path) -> None:
    with hosted(tmp_path) as manager:
        manager["a"] = np.ones(2)
        old = manager["a"]
        old.attrs["unit"] = "m"
        manager.put("a", np.zeros(3), overwrite=True)
        assert dict(manager["a"].attrs) == {}
        assert dict(old.attrs) == {"unit": "m"}
        old.attrs["unit"] = "km"  # an array without a name by now
        manager["b"] = old  # a copy, as is all that is named there
        assert dict(manager["b"].attrs) == {"unit": "km"}
        manager["deleted"] = np.ones(1)
        manager["deleted"].attrs["x"] = 1
        del manager["deleted"]
        manager["deleted"] = np.ones(1)
    with hosted(tmp_path) as manager:
        assert {name: dict(manager[name].attrs) for name in manager} == {"a": {}, "b": {"unit": "km"}, "deleted": {}}


def test_a_copy_of_the_directory_has_them_and_another_file_has_not(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with hosted(first) as manager:
        for name in ("a", "b"):
            manager[name] = np.arange(3)
            manager[name].attrs["unit"] = "m"
        created = manager.inspect_array("a").created
    shutil.copytree(first, second)
    with hosted(second) as manager:
        assert dict(manager["a"].attrs) == {"unit": "m"}
        assert manager.inspect_array("a").created == created
    np.save(tmp_path / "new.npy", np.ones(4))
    os.replace(tmp_path / "new.npy", first / "b.npy")
    os.utime(first / "b.npy", (1e9, 1e9))
    with hosted(first) as manager:
        assert dict(manager["a"].attrs) == {"unit": "m"}
        assert_same(manager["b"].copy(), np.ones(4))
        record = manager.inspect_array("b")
        assert (record.attrs, record.created, record.creator.pid) == ({}, 1e9, 0)


BROKEN: dict[str, Any] = {
    "empty": b"",
    "no JSON": b"{",
    "other JSON": b"[1, 2]",
    "no inode": b'{"attrs": {}}',
    "no attributes": b'{"inode": %d, "attrs": {"x": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}}',
    "not finite": b'{"inode": %d, "attrs": {"x": NaN}}',
    "too large": b'{"inode": %d, "attrs": {"x": "' + b"x" * 300_000 + b'"}}',
    "nested": b"[" * 100_000,
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("how", [*BROKEN, "link", "folder"])
def test_a_broken_file_is_told_and_left_alone(tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("arrayhost").addHandler(handler := logging.StreamHandler())
    try:
        with hosted(tmp_path) as manager:
            manager["a"] = np.arange(3)
            manager["a"].attrs["unit"] = "m"
        file, inode = kept(tmp_path, "a"), os.stat(tmp_path / "a.npy").st_ino
        file.unlink()
        if how == "link":
            (tmp_path / "target").write_text(json.dumps({"inode": inode, "attrs": {"x": 1}}))
            file.symlink_to(tmp_path / "target")
        elif how == "folder":
            file.mkdir()
        else:
            file.write_bytes(BROKEN[how].replace(b"%d", str(inode).encode()))
        capfd.readouterr()
        with hosted(tmp_path) as manager:
            assert_same(manager["a"].copy(), np.arange(3))
            assert dict(manager["a"].attrs) == {}
        assert "attributes/a is left alone" in capfd.readouterr().err
        assert os.path.lexists(file)
    finally:
        logging.getLogger("arrayhost").removeHandler(handler)


def test_a_link_in_the_place_of_their_folder(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "arrays", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / ".arrayhost-attributes").symlink_to(elsewhere)
    with hosted(folder) as manager:
        manager["a"] = np.ones(2)
        with pytest.raises(OSError, match="is a link"):
            manager["a"].attrs["x"] = 1
        assert dict(manager["a"].attrs) == {}
        del manager["a"]
    assert os.listdir(elsewhere) == []


STATES = [
    "",
    "[]",
    '{"control": 1, "folder": 2, "rows": {}}',
    '{"control": "x", "folder": 1}',
    '{"control": "../../etc", "folder": 1, "rows": {"a": [1, 2], "b": 7}}',
    '{"control": "", "folder": 1, "rows": {"a": [-1, 1, 1, 1.0, [1, "", ""]]}}',
]


@pytest.mark.parametrize("text", STATES)
def test_a_broken_state_is_told_and_the_arrays_are_served(tmp_path: Path, text: str) -> None:
    with hosted(tmp_path) as manager:
        manager["a"] = np.arange(3)
        manager["a"].attrs["unit"] = "m"
    (tmp_path / ".arrayhost-state").write_text(text)
    with hosted(tmp_path) as manager:
        assert_same(manager["a"].copy(), np.arange(3))
        assert dict(manager["a"].attrs) == {"unit": "m"}


CHANGING = """
    import sys
    from arrayhost import ArrayManager

    if __name__ == "__main__":
        manager = ArrayManager(directory=sys.argv[1])
        manager.start()
        a = manager.create("a", 3) if "a" not in manager else manager["a"]
        print("host", manager.statistics().pid, flush=True)
        k = a.attrs.get("k", 0)
        told = open(sys.argv[2], "w")
        while True:
            k += 1
            try:
                a.attrs.update(k=k, text=str(k) * 1000)
            except ConnectionError:
                break
            print(k, file=told, flush=True)
"""


@pytest.mark.slow
@pytest.mark.watchdog(900)
def test_a_kill_leaves_the_old_ones_or_the_new_ones(tmp_path: Path, rng: np.random.Generator) -> None:
    folder, told = tmp_path / "arrays", tmp_path / "told"
    for _ in range(count(3, 200)):
        with child(CHANGING, folder, told, timeout=30) as changer:
            host = int(changer.expect("host"))
            wait_until(lambda: told.exists() and told.stat().st_size, what="the first change")
            time.sleep(rng.uniform(0, 0.05))  # no synchronisation: the moment is to be any
            os.kill(host, 9)
            changer.wait()
        done = int(told.read_text().split()[-1])
        told.unlink()
        with hosted(folder) as manager:
            attrs = dict(manager["a"].attrs)
        assert attrs["text"] == str(attrs["k"]) * 1000
        assert done <= attrs["k"] <= done + 1
