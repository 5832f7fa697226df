"""Many processes that add to one number: by a method, in sections, under the standard library's lock.

The sides add unequally often, because one is hundreds of times slower; what is compared is the time of one addition.
"""

from typing import Any

from arrayhost.cli.demo.measuring import Measured, ShortfallError
from arrayhost.cli.demo.processes import Answers, ask_together

PROCESSES = 4
BOX_PROCESSES = 8
_EACH_IN_BOX = 250
_EACH_IN_SECTIONS = 20_000
_EACH_UNDER_LOCK = 250
BOX_TOTAL = BOX_PROCESSES * _EACH_IN_BOX
SECTIONS_TOTAL = PROCESSES * _EACH_IN_SECTIONS


def through_box(box: Any) -> Measured:
    """Add through a method of a class with a lock inside."""
    answers = ask_together(BOX_PROCESSES, _add_to_box, box)
    return _each(box.total(), answers, BOX_TOTAL)


def in_sections(counter: Any) -> Measured:
    """Add in place, in exclusive sections."""
    answers = ask_together(PROCESSES, _add_in_sections, counter)
    return _each(int(counter[0]), answers, SECTIONS_TOTAL)


def under_lock(counter: Any, lock: Any) -> Measured:
    """Add by reading and writing under the standard library's hosted lock.

    Raises
    ------
    ShortfallError
        The total is not exact.
    """
    answers = ask_together(PROCESSES, _add_under_lock, counter, lock)
    expected = PROCESSES * _EACH_UNDER_LOCK
    if counter[0] != expected:
        raise ShortfallError(f"{counter[0]} instead of {expected}")
    return _each(expected, answers, expected)


def _each(total: int, answers: Answers, n_additions: int) -> Measured:
    return Measured(total, answers.seconds / n_additions)


def _add_to_box(box: Any) -> None:
    for _ in range(_EACH_IN_BOX):
        box.add(1)


def _add_in_sections(counter: Any) -> None:
    for _ in range(_EACH_IN_SECTIONS):
        with counter.write() as x:
            x[0] += 1


def _add_under_lock(counter: Any, lock: Any) -> None:
    for _ in range(_EACH_UNDER_LOCK):
        with lock:
            counter[0] = counter[0] + 1
