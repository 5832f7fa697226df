"""What a host met while it worked for a caller, told as the caller's ``np.errstate`` and filters say.

Settings that name an object of the caller's (``call``, ``log``) or its standard error (``print``) cannot travel. Their
conditions come back as the text of a warning, and what was asked for is done here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.wire.failures import warn_caller

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TRAVELLING", "report"]

# What the host is asked to do instead.
TRAVELLING = {"call": "warn", "print": "warn", "log": "warn"}
# NumPy's words for a condition: the setting for it, and its flag.
_CONDITIONS = {"divide by zero": ("divide", 1), "overflow": ("over", 2), "underflow": ("under", 4),
               "invalid value": ("invalid", 8)}  # fmt: skip


def report(warned: Sequence[Sequence[str]]) -> None:
    """Tell the caller of a request's warnings: pairs of a category's name and a text."""
    settings: dict[str, Any] = dict(np.geterr())
    if not TRAVELLING.keys().isdisjoint(settings.values()):
        warned = [(category, text) for category, text in warned if not _told(text, settings, warned)]
    warn_caller(warned)


def _told(text: str, settings: dict[str, Any], warned: Sequence[Sequence[str]]) -> bool:
    """Tell of a condition in the way that the caller has set, unless it is a warning."""
    condition, _, place = text.partition(" encountered in ")
    how = settings[_CONDITIONS[condition][0]] if place and condition in _CONDITIONS else None
    if how == "call":
        handler: Any = np.geterrcall()
        handler(condition, _flags(place, warned))
    elif how == "log":
        log: Any = np.geterrcall()
        log.write(f"Warning: {text}\n")
    elif how == "print":
        sys.stderr.write(f"Warning: {text}\n")
    return how in TRAVELLING


def _flags(place: str, warned: Sequence[Sequence[str]]) -> int:
    """The flags of all conditions in one operation, as NumPy hands them over with each."""
    met = {text.partition(" encountered in ")[0] for _, text in warned if text.endswith(f" encountered in {place}")}
    return sum(_CONDITIONS[condition][1] for condition in met if condition in _CONDITIONS)
