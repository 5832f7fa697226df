"""A full disk, which is a small file system with a host on it: errors are clear, and the old state stays."""

import os
import sys
from pathlib import Path

import pytest

from tests.support import run_python

FULL = """
    import sys
    from tests.support.smalldisk import mount_small_disk

    if not mount_small_disk(sys.argv[1], "8m"):
        print("no mount")
        raise SystemExit

    import errno, os
    from pathlib import Path
    import numpy as np
    from arrayhost import ArrayManager, ReferentNotFoundError

    folder, arrays = Path(sys.argv[1]), Path(sys.argv[1]) / "arrays"

    def visible(path):
        return sorted(name for name in os.listdir(path) if not name.startswith(".arrayhost"))

    def refused(what, text, call):
        before = visible(folder), visible(arrays)
        try:
            call()
        except OSError as error:
            assert error.errno == errno.ENOSPC and text in str(error), error
            print(what, "refused:", error)
        else:
            raise AssertionError(f"{what} was not refused")
        assert (visible(folder), visible(arrays)) == before, visible(arrays)

    def fill():
        # Whole pages first, and then what is left of the last one and of names.
        with open(folder / "junk", "ab", buffering=0) as junk:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        junk.write(bytes(size))
                except OSError:
                    pass

    def write(a, values):
        a[...] = values

    values = np.arange(100_000.0)
    with ArrayManager(directory=arrays) as manager:
        manager["a"] = values
        manager["small"] = np.arange(5.0)
        a, small = manager["a"], manager["small"]
        a.attrs["unit"] = "m"
        saved = a.save(folder / "saved.npy")
        refused("put", "nothing was changed", lambda: manager.put("a", np.ones(1_000_000), overwrite=True))
        refused("create", "nothing was changed", lambda: manager.create("b", 1_000_000))
        fill()
        refused("write", "no room for the undo record", lambda: a.fill(7))
        refused("element", "no room for the undo record", lambda: small.__setitem__(0, 7))
        refused("part", "no room for the undo record", lambda: a.__setitem__(slice(10, 90_000), 7))
        refused("another put", "", lambda: manager.put("a", np.ones(100_000), overwrite=True))
        refused("a small put", "", lambda: manager.put("c", np.ones(600)))
        refused("save", "saved.npy", lambda: a.save(saved))
        refused("snapshot", "", lambda: manager.snapshot(folder / "copy"))
        refused("attributes", "a cannot be written, and is as it was", lambda: a.attrs.update(x="x" * 5000))
        assert (a == values).all() and (manager["a"] == values).all() and not a.statistics().torn
        assert small.tolist() == [0, 1, 2, 3, 4] and not small.statistics().torn
        assert dict(a.attrs) == {"unit": "m"}
        assert list(manager) == ["a", "small"]
        with a.write() as x:  # needs no room
            x[0] = -1
        values[0] = -1
        del manager["small"]  # neither does this
        os.unlink(folder / "junk")
        a[1] = -2
        values[1] = -2
        a.attrs["unit"] = "km"
        a.save(saved)
        manager.snapshot(folder / "copy")
    with ArrayManager(directory=folder / "copy") as manager:
        assert (manager["a"] == values).all()
    with ArrayManager(directory=arrays) as manager:
        assert list(manager) == ["a"]
        assert (manager["a"] == values).all()
        assert dict(manager["a"].attrs) == {"unit": "km"}
    assert (np.load(saved) == values).all() and (np.load(folder / "copy" / "a.npy") == values).all()
    print("all is there")
"""


@pytest.mark.slow
def test_a_host_on_a_small_file_system(tmp_path: Path) -> None:
    done = run_python(FULL, tmp_path, env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    print(done.stdout)
    if "no mount" in done.stdout:
        pytest.skip("neither mounts nor user namespaces are allowed here")
    assert "all is there" in done.stdout
