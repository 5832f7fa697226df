"""Arrays on a Dask cluster; the rows beside are plain Dask's own, on the same cluster in the same run."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Budget, Case, Measurement, Scale, interleave, once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WORKERS = 2
_CHUNKS = 10  # of a large array


class Both:
    """A manager of ours and a plain Dask client, both connected to one trial cluster."""

    def __init__(self, manager: Any, client: Any, elements: int) -> None:
        self.manager, self.client = manager, client
        self.elements, self.chunk = elements, -(-elements // _CHUNKS)
        self._values = itertools.count(1.0)

    def ours(self) -> Any:
        """A new large array of ours, of values that no array had before: Dask knows equal ones by their names."""
        start = next(self._values)
        return self.manager.arange(start, start + self.elements, chunks=self.chunk)

    def plain(self) -> Any:
        """A new large array of Dask's, computed and kept by the workers."""
        import dask.array as da
        from distributed import wait

        start = next(self._values)
        array = self.client.persist(da.arange(start, start + self.elements, chunks=self.chunk))
        wait(array)
        return array


@contextlib.contextmanager
def both(scale: Scale) -> Iterator[Both]:
    """Start a trial cluster, and connect to it in both ways."""
    from distributed import Client

    from arrayhost import ArrayManager

    with ArrayManager(f"dask://local?workers={_WORKERS}") as manager:
        place = str(manager.address).removeprefix("dask://").partition("?")[0]
        with Client(f"tcp://{place}") as client:
            pair = Both(manager, client, scale.elements)
            pair.ours().sum(), pair.plain().sum().compute()  # workers import what they need
            yield pair


def measure_create(scale: Scale) -> Measurement:
    """Make a large array and wait until it is there."""
    with both(scale) as pair:
        contenders = {"ours": once(pair.ours, settle=0.3), "Dask": once(pair.plain, settle=0.3)}
        return Measurement(interleave(contenders, scale.slow))


def measure_sum(scale: Scale) -> Measurement:
    """Sum a large array."""
    with both(scale) as pair:
        a, x = pair.ours(), pair.plain()
        contenders = {"ours": once(a.sum), "Dask": once(lambda: x.sum().compute())}
        return Measurement(interleave(contenders, scale.fast))


def measure_slice(scale: Scale) -> Measurement:
    """Fetch a thousand elements."""
    with both(scale) as pair:
        a, x = pair.ours(), pair.plain()
        parts = itertools.count(1000)

        def ours() -> object:
            start = next(parts)
            return a[start : start + 1000].copy()

        def plain() -> object:
            start = next(parts)
            return x[start : start + 1000].compute()

        return Measurement(interleave({"ours": once(ours), "Dask": once(plain)}, scale.fast * 2))


def measure_set(scale: Scale) -> Measurement:
    """Set one element, and wait until it is set."""
    from distributed import wait

    with both(scale) as pair:
        a = pair.ours()
        state = {"x": pair.plain()}
        values = itertools.count(7.0)

        def ours() -> None:
            a[5] = next(values)

        def plain() -> None:
            new = state["x"].copy()
            new[5] = next(values)
            state["x"] = pair.client.persist(new)
            wait(state["x"])

        return Measurement(interleave({"ours": _timed(ours), "Dask": _timed(plain)}, scale.fast))


def measure_publish(scale: Scale) -> Measurement:
    """Give an array a name and read an element of it through another connection."""
    from distributed import Client

    from arrayhost import connect

    with both(scale) as pair:
        a, x = pair.ours(), pair.plain()
        other = connect(str(pair.manager.address), mode="r")  # a connection of its own
        with Client(pair.client.scheduler.address, set_as_default=False) as far:

            def ours() -> object:
                name = uuid.uuid4().hex
                pair.manager[name] = a
                return other[name][17]

            def plain() -> object:
                name = uuid.uuid4().hex
                pair.client.publish_dataset(x, name=name)
                return far.compute(far.get_dataset(name)[17]).result()

            try:
                return Measurement(interleave({"ours": once(ours), "Dask": once(plain)}, scale.fast * 2))
            finally:
                other.client.close()


def _timed(work: Callable[[], None]) -> Callable[[], float]:
    def sample() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return sample


_BUDGET = Budget("ours/Dask", 1.3, "Dask")
CASES = (
    Case("dask-create", "on a cluster: making a large array", measure_create, _BUDGET),
    Case("dask-sum", "on a cluster: its sum", measure_sum, _BUDGET),
    Case("dask-slice", "on a cluster: 1,000 elements of it", measure_slice, _BUDGET),
    Case("dask-set", "on a cluster: setting one element", measure_set, _BUDGET),
    Case("dask-publish", "on a cluster: naming it, and an element elsewhere", measure_publish, _BUDGET),
)
