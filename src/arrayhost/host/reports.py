"""Warnings raised while a request is served: collected, to be raised again in the caller.

``warnings.catch_warnings`` changes the state of the whole process, which a host with many threads cannot afford. Here
the process is changed once, and each thread has a list of its own.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

__all__ = ["collect_warnings", "collected_warnings", "install", "uninstall"]


class _Collected(threading.local):
    found: list[tuple[type[Warning], str]] | None = None


_collected = _Collected()
_before: tuple[Any, Any] | None = None


def install() -> None:
    """Route this process's warnings through the threads' lists; outside of a request they are shown as before."""
    global _before
    if _before is None:
        _before = (warnings.showwarning, warnings.filters[:])
        warnings.showwarning = _show
        # The caller's filters decide what is shown; here, everything has to come through every time.
        warnings.simplefilter("always")


def uninstall() -> None:
    """Undo `install`."""
    global _before
    if _before is not None:
        warnings.showwarning, warnings.filters = _before
        _before = None


def collect_warnings() -> None:
    """Start to collect in this thread."""
    _collected.found = []


def collected_warnings() -> list[tuple[type[Warning], str]]:
    """Stop to collect; return what came."""
    found, _collected.found = _collected.found, None
    return found or []


def _show(
    message: Any, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    if _collected.found is not None:
        _collected.found.append((category, str(message)))
    elif _before is not None:
        _before[0](message, category, filename, lineno, file, line)
