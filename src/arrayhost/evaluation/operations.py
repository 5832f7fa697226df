"""Operations: what can be asked of arrays, in a form that travels, and how each is carried out."""

from __future__ import annotations

import importlib
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy._core import umath

from arrayhost.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["FUNCTION", "GET", "HOSTED", "METHOD", "OPERATOR", "SET", "UFUNC", "Operation", "apply",
           "as_call", "function_operation", "numpy_function", "ufunc_operation"]  # fmt: skip

METHOD = "method"  # ndarray's own method: args[0].name(*args[1:])
OPERATOR = "operator"  # operator.name(*args), so that both operands' special methods have their say
UFUNC = "ufunc"  # a ufunc's method: np.add.reduce(*args)
FUNCTION = "function"  # a function that dispatches on its arguments
GET = "get"  # an attribute of args[0]
SET = "set"  # setattr(args[0], name, args[1])
HOSTED = "hosted"  # what ndarray does not have: `arrayhost.evaluation.hosted`


class Operation(NamedTuple):
    """What to do with some arguments.

    Attributes
    ----------
    kind : str
        One of the constants of this module.
    name : str
        Method, operator or attribute; ``module:name`` for a function; a NumPy ufunc's name.
    variant : str
        The ufunc's method, else empty.
    target : callable or None
        The ufunc or function itself where NumPy has none of that name; it then travels as a pickle.
    """

    kind: str
    name: str
    variant: str = ""
    target: Any = None


def ufunc_operation(ufunc: np.ufunc, method: str) -> Operation:
    """Name a ufunc's method."""
    name = ufunc.__name__
    return Operation(UFUNC, name, method, None if numpy_ufunc(name) is ufunc else ufunc)


def numpy_ufunc(name: str) -> Any:
    """Find a ufunc of NumPy's by name, also one that only functions of `numpy.strings` use; None if there is none."""
    shown = getattr(np, name, None)
    # np.clip is a function, and a ufunc of that name stands behind it.
    return shown if isinstance(shown, np.ufunc) else getattr(umath, name, None)


# Modules that show a function of another one under the name it should have: numpy.strings:_join is numpy.char.join.
_SHOWN_IN = ("numpy.char",)


_named: dict[Callable[..., Any], Operation] = {}  # functions of NumPy's, of which there are some hundred


def function_operation(function: Callable[..., Any]) -> Operation:
    """Name an array function."""
    known = _named.get(function)
    if known is not None:
        return known
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "")
    if module.partition(".")[0] == "numpy":
        for path in (f"{module}:{name}", *(f"{other}:{name.lstrip('_')}" for other in _SHOWN_IN)):
            try:
                if numpy_function(path) is function:
                    _named[function] = Operation(FUNCTION, path)
                    return _named[function]
            except ProtocolError:
                pass
    return Operation(FUNCTION, f"{module}:{name}", "", function)


_functions: dict[str, Any] = {}


def numpy_function(path: str) -> Any:
    """Find a function of NumPy's by ``module:name``.

    Raises
    ------
    ProtocolError
        There is none; nothing outside NumPy is ever imported here.
    """
    function = _functions.get(path)
    if function is None:
        module, _, name = path.partition(":")
        if module.partition(".")[0] != "numpy" or not name.isidentifier():
            raise ProtocolError(f"no function of NumPy's: {path[:100]!r}")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ProtocolError(f"NumPy {np.__version__} has no {path[:100]!r}") from error
        if not callable(function):
            raise ProtocolError(f"{path!r} is not a function")
        _functions[path] = function
    return function


def apply(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Carry an operation out on ndarrays.

    Raises
    ------
    Exception
        Whatever NumPy raises for it.
    """
    function, args, kwargs = as_call(operation, args, kwargs)
    return function(*args, **kwargs)


Call = tuple["Callable[..., Any]", "Sequence[Any]", "Mapping[str, Any]"]


def as_call(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Return what carries an operation out: a function, and the arguments to call it with."""
    kind, name, variant, target = operation
    if kind == OPERATOR:
        return getattr(operator, name), args, {}
    if kind == METHOD:
        return getattr(args[0], name), args[1:], kwargs
    if kind == UFUNC:
        ufunc = target if target is not None else numpy_ufunc(name)
        if target is None and not isinstance(ufunc, np.ufunc):  # other libraries' (numba's) need not be of that type
            raise ProtocolError(f"NumPy {np.__version__} has no ufunc {name[:100]!r}")
        return getattr(ufunc, variant), args, kwargs
    if kind == FUNCTION:
        return (target if target is not None else numpy_function(name)), args, kwargs
    if kind == GET:
        return getattr, (args[0], name), {}
    if kind == SET:
        return setattr, (args[0], name, args[1]), {}
    raise ProtocolError(f"an operation of unknown kind {kind!r}")
