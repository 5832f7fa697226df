"""NumPy's warnings at the caller's line, for what is evaluated in the caller's process.

NumPy warns of the line that called it, which would be one of this package's, and by that line Python decides what to
show, how often, and what to raise. So NumPy is called by a function that has the caller's file, line and module.
Nothing has to be collected or issued again, and what other threads do is no matter.
"""

from __future__ import annotations

import functools
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from arrayhost.core.callers import calling_frame
from arrayhost.evaluation.operations import as_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.evaluation.operations import Operation

__all__ = ["apply_for_caller", "call_for_caller"]

_CALLING = (lambda function, args, kwargs: function(*args, **kwargs)).__code__.replace(
    co_name="called_by_arrayhost", co_qualname="called_by_arrayhost"  # what tracebacks show
)  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _code_at(filename: str, line: int) -> CodeType:
    return _CALLING.replace(co_filename=filename, co_firstlineno=line)


def _call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    frame = calling_frame()
    code = _code_at(frame.f_code.co_filename, frame.f_lineno or 1)
    return FunctionType(code, frame.f_globals)(function, args, kwargs)


def call_for_caller(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of NumPy's so that its warnings name the caller's line."""
    return _call(function, args, kwargs)


def apply_for_caller(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Carry an operation out, as `evaluation.operations.apply`, so that its warnings name the caller's line."""
    return _call(*as_call(operation, args, kwargs))
