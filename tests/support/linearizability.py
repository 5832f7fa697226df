"""Linearizability of one register: is there an order of its operations that explains all that was seen?

The search of Wing and Gong with Lowe's memory of visited states. An operation happens at one instant between its call
and its return. One that never returned, because its process was killed, may have happened at any time after its call,
or not at all: so the host may still carry out what a dead client had asked for.

Registers are checked one by one: a history of several is linearizable if and only if that of each is (Herlihy and
Wing, 1990).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

PENDING = float("inf")


@dataclass(frozen=True)
class Op:
    """One operation on the register.

    Attributes
    ----------
    process : hashable
        Who did it; for the report only.
    kind : str
        ``get`` (result: the value), ``set`` (argument: the value), ``add`` (argument: what is added; result: the value
        before, None if nobody looked), ``cas`` (argument: expected and new value; result: whether it was set).
    argument, result
    call, end : float
        Readings of one monotonic clock; `end` is `PENDING` if the operation never returned.
    """

    process: Hashable
    kind: str
    argument: Any
    result: Any
    call: float
    end: float = PENDING


def _step(op: Op, value: Any) -> tuple[bool, Any]:
    """Let an operation happen to a register; tell whether its result fits, and the new value."""
    is_open = op.end == PENDING
    if op.kind == "get":
        return is_open or op.result == value, value
    if op.kind == "set":
        return True, op.argument
    if op.kind == "add":
        return is_open or op.result is None or op.result == value, value + op.argument
    if op.kind == "cas":
        expected, new = op.argument
        fits = value == expected
        return is_open or op.result == fits, new if fits else value
    raise ValueError(f"no operation {op.kind!r}")


def explain(history: Sequence[Op], initial: Any) -> list[Op] | None:
    """Return an order that explains a history, or None if there is none.

    Parameters
    ----------
    history : sequence of Op
        In any order.
    initial : object
        The register's first value.
    """
    # What a dead process was reading tells nothing and changes nothing.
    ops = sorted((op for op in history if not (op.kind == "get" and op.end == PENDING)), key=lambda op: op.call)
    must = sum(1 << i for i, op in enumerate(ops) if op.end != PENDING)
    done, value = 0, initial
    order: list[tuple[int, int, Any]] = []  # what was chosen, with the state before
    visited = {(done, value)}
    candidates = [_candidates(ops, done)]
    while must & ~done:
        for i in candidates[-1]:
            fits, new = _step(ops[i], value)
            state = (done | 1 << i, new)
            if fits and state not in visited:
                visited.add(state)
                order.append((i, done, value))
                done, value = state
                candidates.append(_candidates(ops, done))
                break
        else:
            candidates.pop()
            if not order:
                return None
            _, done, value = order.pop()
    return [ops[i] for i, _, _ in order]


def _candidates(ops: Sequence[Op], done: int) -> Any:
    """Operations that may be next: those called before the first return of all that are not done."""
    ready = []
    first_end = PENDING
    for i, op in enumerate(ops):
        if done >> i & 1:
            continue
        if op.call > first_end:
            break
        ready.append(i)
        first_end = min(first_end, op.end)
    return iter([i for i in ready if ops[i].call <= first_end])


def assert_linearizable(history: Sequence[Op], initial: Any, what: str = "the register") -> None:
    """Raise AssertionError, with the history, if nothing explains it."""
    if explain(history, initial) is None:
        lines = "\n".join(f"  {op}" for op in sorted(history, key=lambda op: op.call)[-200:])
        raise AssertionError(f"no order of its operations explains {what}, which began as {initial!r}:\n{lines}")
