"""What can be asked of a hosted array that ndarray does not have; evaluated where its lock and memory are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrayhost.errors import ProtocolError
from arrayhost.evaluation import updates
from arrayhost.memory.control import TORN_PID, VERSION
from arrayhost.sync.sections import ArrayLock
from arrayhost.sync.watching import wait_changed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.evaluation.reading import Operand
    from arrayhost.sync.guards import Guard

__all__ = ["evaluate_hosted", "recover", "row", "state"]


def state(operand: Operand) -> list[Any]:
    """Return the row of the control table that belongs to an operand's array."""
    return row(operand.guard)


def row(guard: Guard) -> list[Any]:
    """Return an array's row of the control table: the fields of `arrayhost.ArrayStatistics`, in order."""
    words, base = guard.words, guard.base
    writing = bool(words[base + VERSION] & 1)
    return [
        guard.slot, guard.generation, guard.version, writing, guard.torn, words[base + TORN_PID], guard.writer_pid,
    ]  # fmt: skip


def recover(operand: Operand, timeout: float) -> None:
    """Take back an array's torn mark, under its exclusive lock."""
    guard = operand.guard
    with ArrayLock(guard, timeout):
        guard.mend()


_LONGEST_WAIT = 10.0  # seconds; whoever wants more asks again, and whoever has gone does not


def wait(operand: Operand, since: int, timeout: float) -> int:
    """Wait until the array's version is another than `since`; return it, or `since` when the time is over.

    No longer than ten seconds, whatever `timeout` says.
    """
    return wait_changed(operand.guard, since, min(timeout, _LONGEST_WAIT))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "state": state,
    "recover": recover,
    "wait": wait,
    "add": updates.add,
    "exchange": updates.exchange,
    "compare_exchange": updates.compare_exchange,
    "commit": updates.commit,
}


def evaluate_hosted(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Evaluate one of the functions above, by name; hosted arrays among what it is given beside its own are copied.

    Raises
    ------
    ProtocolError
        There is none of that name.
    """
    try:
        function = _FUNCTIONS[name]
    except KeyError:
        raise ProtocolError(f"hosted arrays have no operation {name[:100]!r}") from None
    return function(*args, **kwargs)
