"""Hosted arrays on the worker processes of a Dask cluster: mapped where that can be done, over TCP elsewhere."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.consumers.on_workers import BLOCK, BLOCKS, LARGE, SHAPE, values
from tests.support import child, run_python

ROOT = Path(__file__).parents[2]
MB = 10**6
PROGRAM = """
    from tests.consumers.on_workers import main

    if __name__ == "__main__":
        main()
"""
N_BLOCKS = (SHAPE[0] // BLOCKS[0]) * (SHAPE[1] // BLOCKS[1])
Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Have a function of `on_workers.py` run in a process that has a cluster, and return what it returns."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    with child(PROGRAM, timeout=50, env={"PYTHONPATH": path}) as program:
        program.expect("ready")

        def answer(name: str) -> Any:
            program.send(name)
            told = json.loads(program.read_line())
            assert "error" not in told, told["error"]
            return told["result"]

        yield answer


@pytest.mark.slow
def test_a_large_array_is_mapped_and_not_sent(ask: Ask) -> None:
    told = ask("large")
    assert told["sums"] == [LARGE, LARGE + 4]  # the second one sees what was written after the first
    assert told["warnings"] == []
    assert told["graph"] < 8_000
    assert len(told["grown"]) == 2
    # At any time, by the figure that Dask itself judges its workers by; a block of the array is resident meanwhile.
    assert max(told["grown"].values()) < 20 * MB
    assert max(told["kept"].values()) < 8 * BLOCK
    assert len(set(told["names"])) == 2


def test_workers_get_read_only_views_of_the_memory(ask: Ask) -> None:
    blocks = ask("blocks")
    assert len(blocks) == N_BLOCKS
    for kind, writeable, file, written in blocks:
        assert (kind, writeable) == ("ndarray", "False")
        assert "memfd:arrayhost" in file
        assert "read-only" in written


def test_results_that_are_kept_do_not_stand_for_later_ones(ask: Ask) -> None:
    size = SHAPE[0] * SHAPE[1]
    assert ask("kept_results") == [size, size + 10]


def test_results_equal_those_for_an_ndarray(ask: Ask) -> None:
    assert [name for name, same in ask("equal").items() if not same] == []


def test_xarray(ask: Ask) -> None:
    told = ask("by_xarray")
    assert told["equal"]
    assert told["graph"] < 8_000


def test_joblib(ask: Ask) -> None:
    told = ask("by_joblib")
    assert [kind for kind, _, _ in told["told"]] == ["HostedArray"] * 4
    assert all("memfd:arrayhost" in file for _, file, _ in told["told"])
    assert [total for _, _, total in told["told"]] == [250.0] * 4
    assert told["total"] == 1000


def test_storing_writes_each_block_in_one_step(ask: Ask) -> None:
    told = ask("store")
    for name in ("locked", "unlocked", "returned"):
        assert told[name] == [True, N_BLOCKS], name
    assert told["what is returned"]
    assert told["regions"]


@pytest.mark.slow
def test_workers_that_cannot_reach_the_socket_are_served_over_tcp(ask: Ask) -> None:
    told = ask("over_tcp")
    total = values().sum()
    assert told["sums"] == [total, -total, total]
    tcp, unix = told["addresses"]
    assert tcp.startswith("tcp://127.0.0.1:")
    assert unix.startswith("unix:/")
    address, mapped, negative = told["proxies"]
    assert (address, mapped, negative) == (tcp, False, -total)
    assert len(told["blocks"]) == N_BLOCKS
    for kind, writeable, file, written in told["blocks"]:
        assert (kind, writeable) == ("ndarray", "False")
        assert "memfd:arrayhost:array" not in file
        assert "read-only" in written


def test_workers_without_the_key_are_told_what_is_missing(ask: Ask) -> None:
    told = ask("without_the_key")
    assert told["refused"].startswith("NotAuthorizedError: the host has another key; give connect()")
    assert told["sums"] == [values().sum()] * 2


def test_dask_is_named_where_it_is_missing() -> None:
    source = """
        import sys
        import arrayhost
        sys.modules["dask.array"] = None
        with arrayhost.ArrayManager() as manager:
            try:
                arrayhost.to_dask(manager.ones(3))
            except ImportError as error:
                print(error)
    """
    assert "pip install 'arrayhost[dask]'" in run_python(source).stdout
