"""Calls of NumPy in which a warning is a TypeError, and told to nobody.

NumPy names the innermost line of Python as the place of a warning. Here that would be one of this module's, so that
whoever calls from here evaluates again, in the general way, where the line of the caller is the innermost one. It costs
nothing as long as there is nothing to warn of: no filter is changed, no setting, nothing that another thread sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call", "call_binary", "call_swapped", "call_unary"]

# Where Python notes what it has warned of in a module; before it looks at any filter, it refuses what is no dictionary.
# Nothing else may be done in this module, or an unrelated warning would end it.
__warningregistry__ = "a warning from here would name the wrong line"


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
