"""Recording what a process does to an array, in memory that a SIGKILL does not take back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from tests.faults.harness import shared_words
from tests.support.linearizability import PENDING, Op

KINDS = ["get", "get", "get", "set", "fill", "section", "add", "section add", "cas", "atomic add", "atomic cas"]
_WHOLE = ("fill", "section")
_FIELDS = 6  # kind, element, value, result, call, end


class Recorder:
    """The operations of one process, in the order in which it did them."""

    def __init__(self, process: int, most: int) -> None:
        self.process = process
        self._rows = shared_words(most * _FIELDS).reshape(most, _FIELDS)

    @property
    def n(self) -> int:
        """Operations begun."""
        return int(np.count_nonzero(self._rows[:, 4]))

    @property
    def has_room(self) -> bool:
        return not self._rows[-2:, 4].any()

    @contextmanager
    def operation(self, kind: str, element: int, value: int) -> Iterator[Callable[[int], None]]:
        """Note that an operation begins; the function that is passed on notes its result and its end.

        One that ends with an error has not been done: those who use this know that of the errors they let pass.
        """
        row = self._rows[self.n]
        row[:4] = KINDS.index(kind), element, value, 0
        row[4] = time.monotonic_ns()

        def done(result: int) -> None:
            row[3] = result
            row[5] = time.monotonic_ns()

        try:
            yield done
        except Exception:
            row[5] = -1
            raise

    def ops(self) -> Iterator[tuple[str, int, int, int, int, float]]:
        for kind, element, value, result, call, end in self._rows[: self.n].tolist():
            if end >= 0:
                yield KINDS[kind], element, value, result, call, end or PENDING


def histories(recorders: list[Recorder], n_elements: int, last: np.ndarray | None, end: int) -> list[list[Op]]:
    """One history for each element; what is there in the end is seen by one more read."""
    found: list[list[Op]] = [[] for _ in range(n_elements)]
    for recorder in recorders:
        for kind, element, value, result, call, ended in recorder.ops():
            for i in range(n_elements) if kind in _WHOLE else [element]:
                found[i].append(_op(recorder.process, kind, value, result, call, ended))
    if last is not None:
        for i, history in enumerate(found):
            history.append(Op("afterwards", "get", None, int(last[i]), end - 1, end))
    return found


def _op(process: int, kind: str, value: int, result: int, call: int, end: float) -> Op:
    if kind == "get":
        return Op(process, "get", None, result, call, end)
    if kind in ("set", *_WHOLE):
        return Op(process, "set", value, None, call, end)
    if kind.endswith("add"):
        return Op(process, "add", value, None if result == -1 else result, call, end)
    return Op(process, "cas", (value % 3, value), bool(result), call, end)
