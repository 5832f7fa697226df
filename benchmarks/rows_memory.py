"""Memory of four processes that read one large array."""

from __future__ import annotations

import os
import pickle
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Budget, Case, Measurement, Scale
from benchmarks.hosts import both, stdlib_pid
from benchmarks.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

READERS = 4

_held: list[object] = []
"""In a reader: what it keeps alive until it ends."""


def measure_memory(scale: Scale) -> Measurement:
    """Growth of the summed proportional set size (PSS) of host, readers and this process; N is one array's bytes.

    This process counts too: were it to map the array, part of the PSS would be booked on it. Each process's PSS before
    the array existed is subtracted, since readers share the pages of the interpreter and of libraries as well.
    """
    with both() as (ours, stdlib):
        samples = {
            "ours": [grown(ours.ones, hold_ours, ours.statistics().pid, scale)],
            "S": [grown(stdlib.ones, hold_stdlib, stdlib_pid(stdlib), scale)],
            "N": [float(scale.nbytes)],
        }
    return Measurement(samples, unit="B")


def grown(make: Callable[[tuple[int]], Any], hold: Callable[[bytes], float], host: int, scale: Scale) -> float:
    """Bytes that hosting one array and reading it in `READERS` processes takes."""
    with ExitStack() as stack:
        readers = [stack.enter_context(Worker()) for _ in range(READERS)]
        for reader in readers:
            reader.call(prepare)
        pids = [os.getpid(), host, *(reader.pid for reader in readers)]
        before = sum(pss(pid) for pid in pids)
        a = make((scale.elements,))
        for reader in readers:
            total = reader.call(hold, pickle.dumps(a))
            if total != scale.elements:
                raise ValueError(f"a reader summed {scale.elements:,} ones to {total}")
        return float(sum(pss(pid) for pid in pids) - before)


def prepare() -> None:
    """Import, in a reader, what the reading functions need, which is this module."""


def hold_ours(payload: bytes) -> float:
    """Read every element and keep the proxy."""
    a = pickle.loads(payload)
    _held.append(a)
    return float(a.sum())


def hold_stdlib(payload: bytes) -> float:
    """Fetch the array, read every element and keep it."""
    x = pickle.loads(payload)._getvalue()
    _held.append(x)
    return float(x.sum())


def pss(pid: int) -> int:
    """Return a process's proportional set size in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Pss in /proc/{pid}/smaps_rollup")


CASES = (Case("memory", "memory of 4 readers (PSS)", measure_memory, Budget("ours/N", 1.05, "copies")),)
