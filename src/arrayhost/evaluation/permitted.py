"""What a peer may ask for: everything, only reading, or only what runs no code but NumPy's arithmetic.

A peer on the same machine that runs as the same user may ask for anything: it could do as much without a host. A
read-only session may not change anything. A peer that is not trusted with pickles is not trusted with Python either:
an operation travels by name, and names lead to ``np.save``, ``operator.call`` and ``ndarray.tofile`` as well. It is
given what is listed here.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.errors import NotAuthorizedError, ReadOnlyError
from arrayhost.evaluation.operations import (
    FUNCTION,
    GET,
    HOSTED,
    METHOD,
    OPERATOR,
    SET,
    UFUNC,
    Operation,
    numpy_function,
    numpy_ufunc,
)
from arrayhost.evaluation.tables import written_arguments
from arrayhost.wire.frames import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["check_call_reads_only", "check_evaluation_reads_only", "check_reads_only", "check_untrusted",
           "refuse_code"]  # fmt: skip

# -- sessions that only read ---------------------------------------------------------------------------------------

_WRITING_KINDS = {
    int(Kind.SET_ITEM): "assignment destination is read-only",
    int(Kind.CREATE): "arrays and objects cannot be created",
    int(Kind.APPLY): "assignment destination is read-only",
    int(Kind.RUN): "functions cannot be run in the host",
    int(Kind.PUT_NAME): "names cannot be given",
    int(Kind.CREATE_NAME): "names cannot be given",
    int(Kind.DELETE_NAME): "names cannot be taken away",
    int(Kind.SHUTDOWN): "the host cannot be shut down",
}
# Whether a method of a user's class changes anything, nobody can tell.
_READING_CALLS = frozenset(["#GETVALUE", "__repr__", "__str__", "__getattribute__", "__getattr__"])


def check_reads_only(kind: int) -> None:
    """Raise if a request of this kind changes something; two kinds, calls and evaluations, may or may not.

    Raises
    ------
    ReadOnlyError
    """
    what = _WRITING_KINDS.get(kind)
    if what is not None:
        raise ReadOnlyError(what)


def check_call_reads_only(name: str) -> None:
    """Raise unless a call on a hosted object reads an attribute, or all of it.

    Raises
    ------
    ReadOnlyError
    """
    if name not in _READING_CALLS:
        raise ReadOnlyError(f"method {name!r} of a hosted object, which may change it, cannot be called")


def check_evaluation_reads_only(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], is_array: Callable[[Any], bool]
) -> None:
    """Raise if an operation writes to a hosted array.

    Raises
    ------
    ReadOnlyError
    """
    if operation[:2] == (HOSTED, "recover"):
        raise ReadOnlyError("what a dead writer left cannot be accepted")
    if any(map(is_array, written_arguments(operation, args, kwargs))):
        raise ReadOnlyError


# -- peers that are not trusted ------------------------------------------------------------------------------------

_OPERATORS = frozenset(
    ["add", "and_", "concat", "contains", "delitem", "eq", "floordiv", "ge", "getitem", "gt", "index", "inv", "invert",
     "le", "lshift", "lt", "matmul", "mod", "mul", "ne", "neg", "not_", "or_", "pos", "pow", "rshift", "setitem", "sub",
     "truediv", "truth", "xor", "abs"]
    + [f"i{name}" for name in ("add", "and", "floordiv", "lshift", "matmul", "mod", "mul", "or", "pow", "rshift",
                               "sub", "truediv", "xor")]
)  # fmt: skip
# Special methods with a meaning for elements; all others are Python's business.
_SPECIAL_METHODS = frozenset(
    ["__array__", "__bool__", "__complex__", "__contains__", "__copy__", "__deepcopy__", "__divmod__", "__float__",
     "__getitem__", "__setitem__", "__delitem__", "__index__", "__int__", "__len__", "__neg__", "__pos__", "__abs__",
     "__invert__", "__rdivmod__"]
    + [f"__{prefix}{name}__" for name in ("add", "and", "floordiv", "lshift", "matmul", "mod", "mul", "or", "pow",
                                          "rshift", "sub", "truediv", "xor") for prefix in ("", "r", "i")]
    + [f"__{name}__" for name in ("eq", "ge", "gt", "le", "lt", "ne")]
)  # fmt: skip
# Public methods and attributes of ndarray that reach files, addresses or pickles.
_NOT_METHODS = frozenset(["dump", "dumps", "tofile", "to_device", "setflags"])
_ATTRIBUTES = frozenset(["T", "mT", "real", "imag", "shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"])
_SETTABLE = frozenset(["real", "imag", "flat"])
# Importing a module runs it, so these alone are looked into.
_MODULES = frozenset(
    ["numpy", "numpy.char", "numpy.fft", "numpy.lib.recfunctions", "numpy.lib.scimath", "numpy.lib.stride_tricks",
     "numpy.linalg", "numpy.polynomial.polynomial", "numpy.strings"]
)  # fmt: skip
# What NumPy calls functions of arrays although they write files, or reach any memory whatever.
_NOT_FUNCTIONS = frozenset(["save", "savez", "savez_compressed", "savetxt", "as_strided"])
_UFUNC_METHODS = frozenset(["__call__", "reduce", "accumulate", "reduceat", "outer", "at"])
_DISPATCHED: type = type(np.sum)


def check_untrusted(operation: Operation, args: Sequence[Any], is_array: Callable[[Any], bool]) -> None:
    """Raise unless an operation is one that NumPy carries out on arrays, and nothing else.

    Parameters
    ----------
    operation : Operation
    args : sequence
        The operation's arguments, as they were decoded.
    is_array : callable
        Whether an argument stands for a hosted array.

    Raises
    ------
    NotAuthorizedError
    """
    kind, name, variant, target = operation
    permitted = _PERMITTED.get(kind)
    if target is not None or permitted is None or not permitted(name, variant):
        raise NotAuthorizedError(f"this host does not carry out {kind[:20]} {name[:60]!r} for other machines")
    first = args[0] if len(args) else None
    arrays = first if kind == HOSTED and isinstance(first, list) and first else [first]
    if kind in (METHOD, GET, SET, HOSTED) and not all(map(is_array, arrays)):
        raise NotAuthorizedError(f"{name[:60]!r} of something that is no hosted array")


def refuse_code() -> None:
    """Refuse to run a function that a peer names or sends.

    Raises
    ------
    NotAuthorizedError
    """
    raise NotAuthorizedError("this host runs functions of their own only for this user's processes on its own machine")


def _is_method(name: str, _: Any) -> bool:
    if name.startswith("_"):
        return name in _SPECIAL_METHODS
    return name not in _NOT_METHODS and callable(getattr(np.ndarray, name, None))


def _is_ufunc(name: str, variant: Any) -> bool:
    return isinstance(numpy_ufunc(name), np.ufunc) and variant in _UFUNC_METHODS


def _is_function(path: str, _: Any) -> bool:
    """Whether a function is one of those that NumPy lets other arrays take over: functions of arrays, that is."""
    module, _, name = path.partition(":")
    return module in _MODULES and name not in _NOT_FUNCTIONS and isinstance(numpy_function(path), _DISPATCHED)


_PERMITTED: dict[str, Callable[[str, Any], bool]] = {
    OPERATOR: lambda name, _: name in _OPERATORS and hasattr(operator, name),
    METHOD: _is_method,
    UFUNC: _is_ufunc,
    FUNCTION: _is_function,
    GET: lambda name, _: name in _ATTRIBUTES,
    SET: lambda name, _: name in _SETTABLE,
    HOSTED: lambda name, _: True,  # these are ours
}
