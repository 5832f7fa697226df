"""The checker of histories: it finds the order where there is one, and says so where there is none."""

import random
import threading
import time

import pytest

from tests.support.linearizability import PENDING, Op, assert_linearizable, explain


def op(process: int, kind: str, argument: object, result: object, call: float, end: float = PENDING) -> Op:
    return Op(process, kind, argument, result, call, end)


GOOD = {
    "empty": [],
    "in turn": [op(1, "set", 5, None, 0, 1), op(2, "get", None, 5, 2, 3)],
    "overlapping, new value": [op(1, "set", 5, None, 0, 9), op(2, "get", None, 5, 2, 3)],
    "overlapping, old value": [op(1, "set", 5, None, 0, 9), op(2, "get", None, 0, 2, 3)],
    "old, then new": [
        op(1, "set", 5, None, 0, 9),
        op(2, "get", None, 0, 1, 2),
        op(2, "get", None, 5, 3, 4),
    ],
    "two adds": [op(1, "add", 1, 1, 0, 5), op(2, "add", 1, 0, 0, 5), op(1, "get", None, 2, 6, 7)],
    "cas after set": [op(1, "set", 5, None, 0, 9), op(2, "cas", (5, 6), True, 1, 2), op(3, "get", None, 6, 10, 11)],
    "cas that fails": [op(1, "cas", (3, 4), False, 0, 1), op(1, "get", None, 0, 2, 3)],
    "a dead process's set is seen": [op(1, "set", 5, None, 0), op(2, "get", None, 5, 7, 8)],
    "a dead process's set is not seen": [op(1, "set", 5, None, 0), op(2, "get", None, 0, 7, 8)],
    "a dead process's set is seen late": [
        op(1, "set", 5, None, 0),
        op(2, "get", None, 0, 7, 8),
        op(2, "get", None, 5, 9, 10),
    ],
    "a dead process's get": [op(1, "get", None, None, 0)],
}
BAD = {
    "stale read": [op(1, "set", 5, None, 0, 1), op(2, "get", None, 0, 2, 3)],
    "value from nowhere": [op(2, "get", None, 7, 2, 3)],
    "new, then old": [
        op(1, "set", 5, None, 0, 9),
        op(2, "get", None, 5, 1, 2),
        op(2, "get", None, 0, 3, 4),
    ],
    "lost add": [op(1, "add", 1, None, 0, 5), op(2, "add", 1, None, 0, 5), op(1, "get", None, 1, 6, 7)],
    "both adds from one value": [op(1, "add", 1, 0, 0, 5), op(2, "add", 1, 0, 0, 5)],
    "two successes of one cas": [op(1, "cas", (0, 1), True, 0, 5), op(2, "cas", (0, 2), True, 0, 5)],
    "read before it was written": [op(2, "get", None, 5, 0, 1), op(1, "set", 5, None, 2, 3)],
    "a dead process's set, unseen again": [
        op(1, "set", 5, None, 0),
        op(2, "get", None, 5, 7, 8),
        op(2, "get", None, 0, 9, 10),
    ],
    "a dead process's set, before it was asked for": [op(2, "get", None, 5, 0, 1), op(1, "set", 5, None, 2)],
}


@pytest.mark.parametrize("name", GOOD)
def test_histories_that_can_be_explained(name: str) -> None:
    order = explain(GOOD[name], 0)
    assert order is not None
    assert {id(one) for one in GOOD[name] if one.end != PENDING} <= {id(one) for one in order}


@pytest.mark.parametrize("name", BAD)
def test_histories_that_cannot(name: str) -> None:
    assert explain(BAD[name], 0) is None
    with pytest.raises(AssertionError, match="no order"):
        assert_linearizable(BAD[name], 0)


def _record(n_threads: int, n_ops: int, seed: int, *, is_atomic: bool) -> list[Op]:
    """Threads on one register, with a lock around each operation or with a gap in each add."""
    register = [0]
    lock = threading.Lock()
    history: list[Op] = []

    def work(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        for _ in range(n_ops):
            kind = rng.choice(["get", "set", "add"])
            value = rng.randrange(100)
            call = time.monotonic_ns()
            result = None
            if is_atomic:
                lock.acquire()
            before = register[0]
            if kind == "add":
                time.sleep(0)  # lets others in
                register[0] = before + value
            elif kind == "set":
                register[0] = value
            else:
                result = before
            if is_atomic:
                lock.release()
            history.append(Op(number, kind, value, result, call, time.monotonic_ns()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return history


def test_a_register_under_a_lock_passes(seed: int) -> None:
    for k in range(5):
        assert_linearizable(_record(5, 40, seed + k, is_atomic=True), 0)


def test_a_register_without_one_is_caught(seed: int) -> None:
    assert any(explain(_record(5, 40, seed + k, is_atomic=False), 0) is None for k in range(20))
