"""The caller's line: where, outside of this package, what is being done here was asked for."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["calling_frame"]

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def calling_frame() -> FrameType:
    """Return the innermost frame that is none of this package's; the outermost of all if there is no such."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return frame
