"""What runs chunk by chunk gives what NumPy gives; what needs all elements in one place is refused above the limit."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pexpect
import pytest

import arrayhost
from arrayhost import ArrayManager, GatherLimitError, HostedArray
from arrayhost.engines.dask.functions import DISTRIBUTED_FUNCTIONS
from tests.dask.conftest import FULL, KEPT
from tests.support import run_python

pytestmark = pytest.mark.census_ignore(KEPT, reason="Dask's client keeps threads and connections")

VALUES = np.random.default_rng(5).integers(-9, 9, (12, 8)).astype(float)
COUNTS = np.random.default_rng(6).integers(0, 5, 30)

CALLS: dict[str, Callable[[Any], Any]] = {
    "where": lambda a: np.where(a > 0, a, -1), "concatenate": lambda a: np.concatenate([a, a[:2]]),
    "stack": lambda a: np.stack([a, a], axis=1), "vstack": lambda a: np.vstack([a, a]),
    "hstack": lambda a: np.hstack([a, a]), "dstack": lambda a: np.dstack([a, a]),
    "swapaxes": lambda a: np.swapaxes(a, 0, 1), "moveaxis": lambda a: np.moveaxis(a, 0, 1),
    "rollaxis": lambda a: np.rollaxis(a, 1), "expand_dims": lambda a: np.expand_dims(a, 1),
    "squeeze": lambda a: np.squeeze(a[:, :1]), "reshape": lambda a: np.reshape(a, (8, 12)),
    "broadcast_to": lambda a: np.broadcast_to(a, (2, 12, 8)), "flip": lambda a: np.flip(a, 0),
    "rot90": np.rot90, "roll": lambda a: np.roll(a, 3, axis=0), "diff": lambda a: np.diff(a, axis=1),
    "isclose": lambda a: np.isclose(a, a + 1e-12), "allclose": lambda a: np.allclose(a, a),
    "clip": lambda a: np.clip(a, -2, 3), "tensordot": lambda a: np.tensordot(a, a, axes=([0, 1], [0, 1])),
    "dot": lambda a: np.dot(a, np.ones(8)), "vdot": lambda a: np.vdot(a[0], a[1]),
    "outer": lambda a: np.outer(a[0], a[1]), "einsum": lambda a: np.einsum("ij,ij->i", a, a),
    "average": lambda a: np.average(a, axis=0), "repeat": lambda a: np.repeat(a, 2, axis=0),
    "tile": lambda a: np.tile(a, (2, 1)), "pad": lambda a: np.pad(a, 1, mode="constant"),
    "isin": lambda a: np.isin(a, [1, 2]), "histogram": lambda a: np.histogram(a, bins=5, range=(-9, 9)),
    "zeros_like": np.zeros_like, "full_like": lambda a: np.full_like(a, 3), "nan_to_num": lambda a: np.nan_to_num(a),
    "empty_like": lambda a: np.empty_like(a) * 0, "digitize": lambda a: np.digitize(a, np.array([-3.0, 0.0, 4.0])),
    "diag": lambda a: np.diag(a[0]), "round": lambda a: np.round(a / 3, 2), "around": lambda a: np.around(a / 3, 2),
    "ptp": lambda a: np.ptp(a, axis=0), "cumsum": lambda a: np.cumsum(a, axis=0),
    "cumprod": lambda a: np.cumprod(a, axis=0), "cov": lambda a: np.cov(a), "corrcoef": lambda a: np.corrcoef(a[:3]),
}  # fmt: skip


@pytest.fixture(scope="module")
def manager(cluster: str) -> ArrayManager:
    manager = arrayhost.connect(cluster)
    manager.ones(1).sum()
    return manager


def test_functions_of_the_list(manager: ArrayManager) -> None:
    a, counts = manager.array(VALUES, chunks=(5, 3)), manager.array(COUNTS, chunks=7)
    for path in sorted(DISTRIBUTED_FUNCTIONS):
        name = path.partition(":")[2]
        print(name)  # shown if it fails
        if name == "bincount":
            check(np.bincount(counts, minlength=5), np.bincount(COUNTS, minlength=5))
        else:
            call = CALLS.get(name, getattr(np, name))
            check(call(a), call(VALUES))


def check(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            check(one, other)
        return
    assert isinstance(found, type(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, strict=True)


@pytest.fixture
def limited(manager: ArrayManager) -> Iterator[ArrayManager]:
    manager.gather_limit, before = 400, manager.gather_limit
    yield manager
    manager.gather_limit = before


def test_what_would_bring_all_elements_here_is_refused(limited: ArrayManager) -> None:
    a = limited.array(VALUES, chunks=(5, 3))
    for refused in (
        lambda: np.sort(a), lambda: a.argsort(), lambda: np.linalg.det(a[:8]), lambda: np.median(a), lambda: a.tolist(),
        lambda: np.interp(a[:, :5], [0.0, 1.0], [0.0, 1.0]), lambda: a.sort(), lambda: np.place(a, VALUES > 1, [0]),
        lambda: np.asarray(a), lambda: a.apply(np.ndarray.sort),
    ):  # fmt: skip
        with pytest.raises(GatherLimitError, match=r"768 B|512 B|480 B") as raised:
            refused()
        assert isinstance(raised.value, MemoryError)
    check(a.copy(), VALUES)
    check(a.gather(), VALUES)
    with a.read() as x:  # asked for, like a copy
        check(x.copy(), VALUES)
    with a.write() as x:
        check(x, VALUES)
    check(np.sort(a.gather()), np.sort(VALUES))
    check(a.argsort(axis=0, gather=True), VALUES.argsort(axis=0))
    a.sort(axis=0, gather=True)
    check(a.copy(), np.sort(VALUES, axis=0))
    check(np.sort(a[:5, :8]), np.sort(np.sort(VALUES, axis=0)[:5]))


def test_large_results_stay_on_the_cluster(manager: ArrayManager) -> None:
    a = manager.array(VALUES, chunks=(5, 3))
    manager.result_limit, before = 100, manager.result_limit
    try:
        b = a * 2
        c = b[b > 4]
        total = b.sum()
    finally:
        manager.result_limit = before
    assert isinstance(b, HostedArray)
    assert isinstance(c, HostedArray)
    check(b.copy(), VALUES * 2)
    check(c.copy(), (VALUES * 2)[VALUES * 2 > 4])
    check(total, (VALUES * 2).sum())
    b[0] = 1
    check(a.copy(), VALUES)


def test_dasks_side(manager: ArrayManager, tmp_path: Path) -> None:
    a = manager.array(VALUES, chunks=(5, 3))
    assert a.chunks == ((5, 5, 2), (3, 3, 2))
    lazy = a.to_dask()
    a[0] = 99
    assert isinstance(lazy, da.Array)
    check(manager.client.compute(lazy.sum(axis=0)).result(), VALUES.sum(axis=0))
    assert a.rechunk((4, 8)) is a
    assert a.chunks == ((4, 4, 4), (8,))
    assert a.persist() is a
    expected = VALUES.copy()
    expected[0] = 99
    check(a.copy(), expected)
    check(arrayhost.to_dask(a)[1:3].shape, (2, 8))
    assert "filename" in inspect.signature(a.visualize).parameters


def test_put_takes_what_arrays_are_kept_in(manager: ArrayManager, tmp_path: Path) -> None:
    np.save(tmp_path / "values.npy", VALUES)
    source = "import sys, numpy, zarr; zarr.save_array(sys.argv[2], numpy.load(sys.argv[1]))"
    run_python(source, tmp_path / "values.npy", tmp_path / "values.zarr")
    with arrayhost.ArrayManager() as host:
        hosted = host.array(VALUES)
        values = {
            "ndarray": VALUES, "list": VALUES.tolist(), "file": tmp_path / "values.npy", "hosted": hosted,
            "dask": da.from_array(VALUES, chunks=4), "cluster": manager.array(VALUES),
        }  # fmt: skip
        for name, value in values.items():
            check(manager.put(name, value, chunks=(7, 4)).copy(), VALUES)
            del manager[name]
        check(host.put("file", tmp_path / "values.npy").copy(), VALUES)
        check(hosted + manager.array(VALUES), VALUES * 2)
        hosted[...] = manager.array(VALUES + 1)
        np.add(manager.array(VALUES), 1, out=hosted)
        check(hosted.copy(), VALUES + 1)
        del hosted, value, values
    out = run_python(
        """
        import sys, pathlib, arrayhost
        if __name__ == "__main__":
            print(arrayhost.connect(sys.argv[1]).put("store", pathlib.Path(sys.argv[2])).sum())
            arrayhost.connect(sys.argv[1]).pop("store")
        """,
        manager.address, tmp_path / "values.zarr", timeout=60,
    )  # fmt: skip
    assert float(out.stdout) == VALUES.sum()


@pytest.mark.parametrize(
    ("address", "problem"),
    [("dask://", "expected"), ("dask://somewhere", "HOST:PORT"), ("dask://h:1?wurkers=2", "no option 'wurkers'"),
     ("dask://h:1?workers=0", "workers='0'"), ("dask://h:1?progress=maybe", "progress")],
)  # fmt: skip
def test_bad_addresses(address: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        arrayhost.connect(address)


def test_nobody_there() -> None:
    with pytest.raises(arrayhost.HostGoneError, match="no Dask scheduler answers"):
        arrayhost.connect("dask://127.0.0.1:9")
    with pytest.raises(ValueError, match="has to be started"):
        arrayhost.connect("dask://local")


def test_tls() -> None:
    out = run_python(
        """
        from distributed import Security
        import arrayhost
        from arrayhost import ArrayManager

        if __name__ == "__main__":
            security = Security.temporary()
            with ArrayManager("dask://local?workers=1", tls=security) as manager:
                a = manager.arange(100.0, chunks=30)
                a[0] = 50
                print(a.sum(), manager.client.scheduler.address.partition(":")[0])
                print(arrayhost.connect(manager.address).create("x", 3).sum())
        """,
        timeout=60,
    )  # fmt: skip
    assert out.stdout == "5000.0 tls\n0.0\n"


def test_a_program_that_forgets_to_shut_down() -> None:
    out = run_python(
        """
        from arrayhost import ArrayManager
        if __name__ == "__main__":
            manager = ArrayManager("dask://local?workers=1")
            manager.start()
            print(manager.ones(3).sum())
        """,
        timeout=60,
    )  # fmt: skip
    assert (out.stdout, out.stderr) == ("3.0\n", "")


@pytest.mark.skipif(not FULL, reason="seconds of waiting: ARRAYHOST_DASK=full")
def test_a_bar_for_what_takes_long(cluster: str, tmp_path: Path) -> None:
    """On a terminal only, and gone at the end."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time, arrayhost\n"
        "import dask.array as da\n"
        "def slowly(block):\n"
        "    import time\n"
        "    time.sleep(1.2)\n"
        "    return block\n"
        "if __name__ == '__main__':\n"
        "    manager = arrayhost.connect(sys.argv[1] + '?progress=1')\n"
        "    manager.put('slow', da.ones(4, chunks=2).map_blocks(slowly))\n"
        "    print(manager.pop('slow').sum())\n"
    )
    terminal = pexpect.spawn(sys.executable, [str(program), cluster], encoding="utf-8", timeout=60)
    with contextlib.closing(terminal):
        terminal.expect(r"\[#* *\] \d/2 parts, \d+ s")
        terminal.expect("4.0")
        terminal.expect(pexpect.EOF)
