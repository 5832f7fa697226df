"""Random sequences of what one does to arrays, on a hosted array and an ndarray side by side, by two clients in turn.

One client is this process; the other a process of its own that is sent every second step. After
each both must see what NumPy has. ``ARRAYHOST_STATEFUL_STEPS`` asks for more steps than the default.
"""

import multiprocessing
import operator
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from arrayhost import ArrayManager, HostedArray
from tests.conformance.outcomes import public
from tests.support import assert_same
from tests.support.remote import ALL_REMOTE, MAPPED

N_STEPS = int(os.environ.get("ARRAYHOST_STATEFUL_STEPS", "10000"))
_STEPS_EACH = 50  # a run on one array

# -- what a step is: a name and arguments that can be sent; the array it works on is a view of the whole ---------------

IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("iadd", "isub", "imul", "iand", "ior", "ixor")
}
READS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: x.sum(),
    "sum of rows": lambda x: x.sum(axis=0) if x.ndim else None,
    "max": lambda x: x.max(),
    "argmin": lambda x: x.argmin(),
    "sorted": lambda x: np.sort(x, axis=None),
    "unique": lambda x: np.unique(x),
    "twice": lambda x: x + x,
    "compared": lambda x: x == x.T if x.shape == x.T.shape else x == 1,
    "nonzero": lambda x: np.nonzero(x) if x.ndim else None,
    "list": lambda x: x.tolist(),
    "text": lambda x: np.array_str(x),
    "any": lambda x: bool(x.any()),
    "first": lambda x: x.flat[0] if x.size else None,
    "concatenated": lambda x: np.concatenate([x, x]) if x.ndim else None,
    "cumulative": lambda x: np.cumsum(x),
}
WRITES: dict[str, Callable[[Any, int], Any]] = {
    "fill": lambda x, n: x.fill(n),
    "sort": lambda x, n: x.sort() if x.ndim else None,
    "put": lambda x, n: np.put(x, [n % x.size, -1], [n, 1]) if x.size else None,
    "mask": lambda x, n: operator.setitem(x, x > n, n),
    "list of indices": lambda x, n: operator.setitem(x, [0, -1], n) if x.ndim and len(x) else None,
    "copyto": lambda x, n: np.copyto(x, n, where=x < n),
    "ufunc.at": lambda x, n: np.maximum.at(x, ..., n),
    "out": lambda x, n: np.minimum(x, n, out=x),
    "row onto rows": lambda x, n: operator.setitem(x, slice(1, None), x[:-1]) if x.ndim else None,
    "flat": lambda x, n: setattr(x, "flat", n),
    "byteswap": lambda x, n: x.byteswap(inplace=True) if x.dtype.kind in "iu" else None,
    "reversed": lambda x, n: operator.setitem(x, ..., x[::-1]) if x.ndim else None,
}
VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda x: x,
    "T": lambda x: x.T,
    "ravel": lambda x: x.reshape(-1),
    "backwards": lambda x: x[::-1] if x.ndim else x,
    "every second": lambda x: x[..., ::2] if x.ndim else x,
    "real": lambda x: x.real,
    "last": lambda x: x[-1:] if x.ndim else x,
}


def carry_out(base: Any, step: tuple[Any, ...]) -> Any:
    """One step on an ndarray or a proxy; its result, or its error in a form that compares."""
    kind, view, index, name, value = step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            array = VIEWS[view](base)
            if kind == "get":
                return plain(array[index])
            if kind == "set":
                array[index] = value
                return None
            if kind == "in place":
                part = array[index]
                if isinstance(part, np.ndarray | HostedArray):
                    array[index] = IN_PLACE[name](part, value)
                return None
            if kind == "write":
                return plain(WRITES[name](array, value))
            return plain(READS[name](array))
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            return [public(type(error)).__name__, str(error)]


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | HostedArray):
        return value.copy()
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


# -- the other client ----------------------------------------------------------------------------------------------


def serve(pipe: Connection) -> None:
    hosted: Any = None
    while (message := pipe.recv()) is not None:
        if isinstance(message, HostedArray):
            hosted = message
            pipe.send(None)
        else:
            # Earlier protocols forget an array's byte order, in NumPy itself.
            pipe.send_bytes(pickle.dumps((carry_out(hosted, message), plain(hosted)), protocol=5))


@pytest.fixture(scope="module")
def other_client(manager: ArrayManager) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()
    ours.send(manager.zeros(1))
    ours.recv()
    yield ours
    ours.send(None)
    process.join()
    ours.close()


# -- the sequences -------------------------------------------------------------------------------------------------

DTYPES = ["f8", ">f4", "i4", ">i2", "u1", "?", "c16", "e", "i8"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES, elements=st.integers(0, 1)))
INDICES = st.one_of(
    st.sampled_from([..., (), None, slice(None), slice(None, None, -1), (..., 0), (slice(None), 0), (0, slice(1, 3)),
                     (slice(None, None, 2), slice(1, None)), (0, 1), [0, -1], (slice(1), ..., None), 9, slice(3, 1)]),
    st.integers(-5, 4),
    st.slices(5),
    st.tuples(st.integers(-3, 2), st.slices(5)),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(-3, 300), st.sampled_from([0.5, -1.25, True, 2 + 1j, np.float32(3), np.int8(-1)]))
VALUES = st.one_of(NUMBERS, st.sampled_from([[1, 2], [[1], [2]], np.arange(3.0), np.ones((2, 1), ">i4"), "x"]))


class TwoClients(RuleBasedStateMachine):
    """A hosted array, the ndarray that it must equal, and whose turn it is."""

    manager: ArrayManager
    other_client: Connection
    n_steps = 0

    @initialize(array=ARRAYS)
    def begin(self, array: np.ndarray) -> None:
        self.array = array
        self.hosted = self.manager.array(array)
        self.other_client.send(self.hosted)
        self.other_client.recv()
        self.others_turn = False

    def step(self, *what: Any) -> None:
        type(self).n_steps += 1
        if self.others_turn:
            self.other_client.send(what)
            result, seen = pickle.loads(self.other_client.recv_bytes())
        else:
            result, seen = carry_out(self.hosted, what), plain(self.hosted)
        self.others_turn = not self.others_turn
        expected = carry_out(self.array, what)
        assert_same(result, expected)
        assert_same(seen, plain(self.array))

    @rule(view=st.sampled_from(list(VIEWS)), index=INDICES)
    def get(self, view: str, index: Any) -> None:
        self.step("get", view, index, None, None)

    @rule(view=st.sampled_from(list(VIEWS)), index=INDICES, value=VALUES)
    def set(self, view: str, index: Any, value: Any) -> None:
        self.step("set", view, index, None, value)

    @rule(view=st.sampled_from(list(VIEWS)), index=INDICES, name=st.sampled_from(list(IN_PLACE)), value=NUMBERS)
    def change(self, view: str, index: Any, name: str, value: Any) -> None:
        self.step("in place", view, index, name, value)

    @rule(view=st.sampled_from(list(VIEWS)), name=st.sampled_from(list(WRITES)), n=st.integers(-3, 300))
    def write(self, view: str, name: str, n: int) -> None:
        self.step("write", view, None, name, n)

    @rule(view=st.sampled_from(list(VIEWS)), name=st.sampled_from(list(READS)))
    def read(self, view: str, name: str) -> None:
        self.step("read", view, None, name, None)


@pytest.mark.slow
@pytest.mark.watchdog(max(120, N_STEPS / 50))
def test_two_clients(manager: ArrayManager, link: str, other_client: Connection, seed: int) -> None:
    n_steps = N_STEPS if link == MAPPED or ALL_REMOTE else N_STEPS // 20
    TwoClients.manager, TwoClients.other_client, TwoClients.n_steps = manager, other_client, 0
    how = settings(max_examples=100, stateful_step_count=_STEPS_EACH, suppress_health_check=list(HealthCheck),
                   phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))  # fmt: skip
    n_rounds = 0
    while TwoClients.n_steps < n_steps:
        run_state_machine_as_test(reproducible(TwoClients, seed + n_rounds), settings=how)
        n_rounds += 1
    print(f"{TwoClients.n_steps} steps in {n_rounds} rounds")


def reproducible(machine: type[TwoClients], number: int) -> type[TwoClients]:
    """Begin from a seed of our own, which a failure shows."""
    return hypothesis.seed(number)(machine)
