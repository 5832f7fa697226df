"""Calls of NumPy in which a warning is an error, and told to nobody.

NumPy names the innermost line of Python as the place of a warning. Here that would be one of this module's, so that
whoever calls from here evaluates again, in the general way, where the line of the caller is the innermost one. It costs
nothing as long as there is nothing to warn of: no filter is changed, no setting, nothing that another thread sees.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from arrayhost.evaluation.operations import as_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.evaluation.operations import Operation

__all__ = ["apply_untold", "call", "call_binary", "call_swapped", "call_unary", "is_warning"]

# Where Python notes what it has warned of in a module; before it looks at any filter, it refuses what is no dictionary.
# Nothing that may warn of something else may be done in this module.
__warningregistry__ = "a warning from here would name the wrong line"
try:
    warnings.warn_explicit("", UserWarning, "", 0, registry=__warningregistry__)  # type: ignore[call-overload]  # refused
except TypeError as refusal:
    _REFUSED = refusal.args


def is_warning(error: TypeError) -> bool:
    """Whether an error of the calls below stands for a warning."""
    return error.args == _REFUSED


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of NumPy's."""
    return function(*args, **kwargs)


def call_binary(function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """Call a function with two arguments."""
    return function(left, right)


def call_swapped(function: Callable[[Any, Any], Any], right: Any, left: Any) -> Any:
    """Call a function with two arguments that come in the other order."""
    return function(left, right)


def call_unary(function: Callable[[Any], Any], value: Any) -> Any:
    """Call a function with one argument."""
    return function(value)


def apply_untold(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Carry an operation out, as `evaluation.operations.apply`.

    Raises
    ------
    FloatingPointError
        There is something to warn of, whatever it is.
    """
    function, args, kwargs = as_call(operation, args, kwargs)
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        if is_warning(error):
            raise FloatingPointError from None
        raise
