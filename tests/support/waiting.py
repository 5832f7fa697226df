"""Waiting for a condition, with an end."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Call `predicate` until its result is true, and return that result.

    This is how a test waits for another process when no message tells it: the condition itself is asked, so a slow
    machine only makes the test slower. Raises AssertionError naming `what` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while not (result := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}; the last answer was {result!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return result
