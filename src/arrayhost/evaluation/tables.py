"""The two tables that decide how an operation is evaluated: what it writes to, and whether it may run on live memory.

Anything in neither table reads a private, read-only copy. A function that nobody classified and that writes to its
argument therefore fails with NumPy's "assignment destination is read-only", and never changes a copy in silence.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from arrayhost.errors import ProtocolError
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
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ALL",
    "COMPUTING_FUNCTIONS",
    "COMPUTING_METHODS",
    "COMPUTING_VARIANTS",
    "FIRST",
    "is_callers",
    "live_operands",
    "must_copy",
    "repeatable",
    "warns_by_itself",
    "written_arguments",
]

# -- what an operation writes to -----------------------------------------------------------------------------------

IN_PLACE_OPERATORS = frozenset(
    ["iadd", "iand", "ifloordiv", "ilshift", "imatmul", "imod", "imul", "ior", "ipow", "irshift", "isub", "itruediv",
     "ixor", "setitem", "delitem"]
)  # fmt: skip
WRITING_METHODS = frozenset(
    ["fill", "sort", "partition", "put", "resize", "setfield", "setflags", "__setitem__", "__delitem__", "__setstate__"]
    + [f"__{name}__" for name in IN_PLACE_OPERATORS if name.startswith("i")]
)


class Parameter(NamedTuple):
    """A parameter of a function: where it stands and what it is called."""

    position: int
    name: str

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any], default: Any = None) -> Any:
        """The argument that a call gives for it."""
        return args[self.position] if len(args) > self.position else kwargs.get(self.name, default)


class Writes(NamedTuple):
    """What a function writes to, and the flag that asks it to, if it only does so when asked."""

    target: Parameter
    flag: Parameter | None = None
    asked: bool = True

    def by(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call writes."""
        return self.flag is None or bool(self.flag.of(args, kwargs, not self.asked)) is self.asked


def _overwrites(position: int) -> Writes:
    return Writes(Parameter(0, "a"), Parameter(position, "overwrite_input"))


WRITING_FUNCTIONS = {
    "numpy:copyto": Writes(Parameter(0, "dst")),
    "numpy:put": Writes(Parameter(0, "a")),
    "numpy:place": Writes(Parameter(0, "arr")),
    "numpy:putmask": Writes(Parameter(0, "a")),
    "numpy:fill_diagonal": Writes(Parameter(0, "a")),
    "numpy:put_along_axis": Writes(Parameter(0, "arr")),
    "numpy:nan_to_num": Writes(Parameter(0, "x"), Parameter(1, "copy"), False),
    "numpy:median": _overwrites(3),
    "numpy:nanmedian": _overwrites(3),
    "numpy:percentile": _overwrites(4),
    "numpy:nanpercentile": _overwrites(4),
    "numpy:quantile": _overwrites(4),
    "numpy:nanquantile": _overwrites(4),
    "numpy.lib.recfunctions:assign_fields_by_name": Writes(Parameter(0, "dst")),
    "numpy.lib.recfunctions:recursive_fill_fields": Writes(Parameter(1, "output")),
}


# What hosted arrays have beyond ndarray; the last one takes a list of arrays.
WRITING_UPDATES = frozenset(["recover", "add", "exchange", "compare_exchange", "commit"])


def written_arguments(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments that an operation writes to, hosted or not."""
    kind, name, variant, _ = operation
    written: list[Any] = []
    if kind == FUNCTION:
        rule = WRITING_FUNCTIONS.get(name)
        if rule is not None and rule.by(args, kwargs):
            written.append(rule.target.of(args, kwargs))
    elif (
        (kind == OPERATOR and name in IN_PLACE_OPERATORS)
        or (kind == METHOD and (name in WRITING_METHODS or (name == "byteswap" and _inplace(args, kwargs))))
        or (kind == UFUNC and variant == "at")
        or kind == SET
    ):
        written += args[:1]
    if kind == HOSTED and name in WRITING_UPDATES and args:
        written += args[0] if isinstance(args[0], list) else args[:1]
    out = kwargs.get("out")
    if out is None and len(args) > 1 and kind in (FUNCTION, METHOD):
        position = _position_of_out(kind, name)
        out = args[position] if position is not None and position < len(args) else None
    if out is not None:
        written += out if isinstance(out, (tuple, list)) else [out]
    return [target for target in written if target is not None]


# C functions, whose signatures older releases of NumPy do not tell.
_KNOWN_OUT = {"numpy:concatenate": 2, "numpy:dot": 2, "numpy:busday_offset": 6, "numpy:busday_count": 5,
              "numpy:is_busday": 4}  # fmt: skip


@functools.lru_cache(1024)  # bounded: names come from peers, and need not be those of functions
def _position_of_out(kind: str, name: str) -> int | None:
    """Where a function or method takes ``out`` by position; None if nowhere.

    A method takes it where the function of its name does.
    """
    path = name if kind == FUNCTION else f"numpy:{name}"
    try:
        parameters = inspect.signature(numpy_function(path)).parameters
    except (ValueError, TypeError, ProtocolError):
        return _KNOWN_OUT.get(path)
    for position, parameter in enumerate(parameters.values()):
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            return None
        if parameter.name == "out":
            return position
    return None


def _inplace(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("inplace", args[1] if len(args) > 1 else False))


# Written in place, these cannot fail after their first byte once their arguments are converted: casts, shapes and
# indices are all checked before. Everything else that writes works on a copy, which is written back at the end.
_WHOLE_OR_NOTHING = {
    OPERATOR: IN_PLACE_OPERATORS,
    METHOD: frozenset(["fill", "sort", "partition", "byteswap", *(f"__{name}__" for name in IN_PLACE_OPERATORS)]),
    FUNCTION: frozenset(["numpy:copyto"]),
}


def must_copy(operation: Operation, targets: Sequence[np.ndarray[Any, Any]], *, may_raise: bool) -> bool:
    """Whether a write could fail midway and therefore has to run on a copy of its targets.

    Parameters
    ----------
    operation : Operation
    targets : sequence of ndarray
        What is written to.
    may_raise : bool
        The caller's ``np.errstate`` turns floating-point conditions into exceptions.
    """
    if may_raise or any(target.dtype.kind in "OV" for target in targets):
        # Comparing or converting the fields of a structured array may call code that fails.
        return operation[:2] not in ((OPERATOR, "setitem"), (METHOD, "__setitem__"), (METHOD, "fill"))
    kind, name, variant, target = operation
    if kind == UFUNC:
        return target is not None or variant not in ("__call__", "reduce", "accumulate", "at")
    return name not in _WHOLE_OR_NOTHING.get(kind, ())


# -- what only computes -------------------------------------------------------------------------------------------

# Their results never share memory with their operands, and they run no code of anybody's: so it does not matter on
# which copy of an operand they are evaluated.
COMPUTING_METHODS = frozenset(
    ["sum", "prod", "min", "max", "mean", "std", "var", "any", "all", "argmin", "argmax", "cumsum", "cumprod", "item",
     "tolist", "tobytes", "__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__neg__",
     "__abs__", "__invert__", "__divmod__", "__rdivmod__"]
)  # fmt: skip
COMPUTING_FUNCTIONS = frozenset(
    f"numpy:{name}" for name in
    ["sum", "prod", "min", "max", "amin", "amax", "mean", "std", "var", "any", "all", "argmin", "argmax", "cumsum",
     "cumprod"]
)  # fmt: skip
COMPUTING_VARIANTS = frozenset(["__call__", "reduce", "accumulate", "outer", "reduceat"])  # of ufuncs


def repeatable(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether evaluating again writes the same to ndarrays given as ``out``, whatever has been written to them."""
    kind, name, variant, _ = operation
    if kind == UFUNC:
        simple = variant in ("__call__", "reduce", "accumulate")
    else:
        simple = name in COMPUTING_FUNCTIONS or name in COMPUTING_METHODS
    if not simple or kwargs.get("where", True) is not True:
        return False
    out = kwargs.get("out")
    targets = out if isinstance(out, tuple) else (out,)
    return out is not None and not any(
        isinstance(arg, (list, tuple)) or (isinstance(arg, np.ndarray) and np.may_share_memory(target, arg))
        for arg in args
        for target in targets
        if isinstance(target, np.ndarray)
    )


# -- what may read memory that somebody writes to ------------------------------------------------------------------

FIRST = "first"  # the first argument may be live memory; all others are indices, counts or unknown
ALL = "all"  # every array argument may be live memory

_LIVE_METHODS = frozenset(
    # reductions, copies
    ["sum", "prod", "min", "max", "mean", "std", "var", "any", "all", "argmin", "argmax", "cumsum", "cumprod", "round",
     "clip", "conj", "conjugate", "copy", "astype", "tolist", "tobytes", "item", "take", "trace", "flatten", "ptp",
     "__array__", "__getitem__", "__bool__", "__int__", "__float__", "__complex__", "__index__", "__len__",
     "__contains__", "__neg__", "__pos__", "__abs__", "__invert__", "__copy__", "__deepcopy__", "__array_namespace__",
     # views: none of them looks at an element, unless it has to copy
     "view", "reshape", "ravel", "transpose", "swapaxes", "squeeze", "diagonal", "getfield"]
)  # fmt: skip
_LIVE_BINARY = frozenset(
    ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
     "lt", "le", "eq", "ne", "gt", "ge", "divmod"]
)  # fmt: skip
_LIVE_BINARY_METHODS = frozenset([f"__{p}{name}__" for name in _LIVE_BINARY for p in ("", "r")] + ["dot"])
_LIVE_OPERATORS = frozenset([*_LIVE_BINARY, "and_", "or_", "neg", "pos", "abs", "invert", "inv"])
_LIVE_FUNCTIONS = {
    f"numpy:{name}": FIRST
    for name in
    # views
    ["reshape", "ravel", "transpose", "permute_dims", "matrix_transpose", "moveaxis", "swapaxes", "rollaxis",
     "expand_dims", "squeeze", "broadcast_to", "diag", "split", "array_split", "hsplit", "vsplit", "dsplit", "unstack",
     "diagonal", "flip", "fliplr", "flipud", "rot90", "real", "imag",
     # facts that no element tells
     "shape", "ndim", "size", "iscomplexobj", "isrealobj",
     # reductions, copies
     "sum", "prod", "min", "max", "amin", "amax", "mean", "std", "var", "any", "all", "argmin", "argmax", "cumsum",
     "cumprod", "round", "clip", "copy", "ptp", "trace", "array_repr", "array_str", "array2string"]
}  # fmt: skip
_LIVE_FUNCTIONS |= {
    f"numpy:{name}": ALL
    for name in
    ["atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "concatenate", "concat", "stack", "hstack", "vstack",
     "dstack", "column_stack", "dot", "vdot", "inner", "outer", "tensordot", "shares_memory", "may_share_memory",
     "result_type", "can_cast", "min_scalar_type", "common_type", "zeros_like", "ones_like", "empty_like", "full_like"]
}  # fmt: skip
_LIVE_FUNCTIONS |= {
    "numpy.lib.stride_tricks:sliding_window_view": FIRST,
    "numpy.lib.stride_tricks:as_strided": FIRST,
    "numpy.linalg:matrix_transpose": FIRST,
    "numpy.linalg:diagonal": FIRST,
}
_LIVE_ATTRIBUTES = frozenset(
    ["T", "mT", "real", "imag", "shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "device"]
)
# Elements that are numbers: no bit pattern of theirs can lead a loop astray.
_NUMBERS = frozenset("biufcmM?")


def live_operands(operation: Operation, dtypes: Sequence[np.dtype[Any]]) -> str | None:
    """Which operands may be live memory while others write to it: `FIRST`, `ALL`, or None for none of them.

    An operation may run on live memory only if elements that change under it can make its result wrong, which the
    versions then tell, but never crash it. Indices, counts and offsets can (``np.bincount`` and fancy indexing check
    them in one pass and use them in the next).

    Parameters
    ----------
    operation : Operation
    dtypes : sequence of dtype
        Those of the hosted operands.
    """
    kind, name, variant, target = operation
    if kind == METHOD:
        if name in _LIVE_METHODS:
            return FIRST
        live = ALL if name in _LIVE_BINARY_METHODS else None
    elif kind == OPERATOR:
        if name == "getitem":
            return FIRST
        live = ALL if name in _LIVE_OPERATORS else None
    elif kind == UFUNC:
        known = target is None and variant in ("__call__", "reduce", "accumulate", "outer")
        live = ALL if known else FIRST if target is None and variant == "reduceat" else None
    elif kind == FUNCTION:
        return _LIVE_FUNCTIONS.get(name)
    else:
        return FIRST if kind == GET and name in _LIVE_ATTRIBUTES else None
    if live is not None and not all(dtype.kind in _NUMBERS for dtype in dtypes):
        return None
    return live


# Implemented in Python, and warning from there of too few elements.
_AVERAGES = frozenset(["mean", "var", "std", "numpy:mean", "numpy:var", "numpy:std"])
_DDOF = Parameter(4, "ddof")


def warns_by_itself(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], shape: Sequence[int]) -> bool:
    """Whether a read of an array of that shape may give warnings that are not about floating-point conditions.

    Such a read has to be evaluated once and no more: a warning that was given cannot be taken back.
    """
    name = operation.name
    if name not in _AVERAGES:
        return False
    freedom = 0 if name.endswith("mean") else _DDOF.of(args, kwargs, kwargs.get("correction", 0))
    return kwargs.get("where") is not None or type(freedom) is not int or freedom >= min(shape, default=1)


# -- what only the caller can evaluate -------------------------------------------------------------------------------

# They write to the caller's files, call the caller's functions, or print as the caller's settings say.
_CALLERS = frozenset(
    ["tofile", "numpy:save", "numpy:savetxt", "numpy:savez", "numpy:savez_compressed",
     "numpy:apply_along_axis", "numpy:apply_over_axes", "numpy:piecewise",
     "numpy.lib.recfunctions:apply_along_fields",
     "numpy:array2string", "numpy:array_repr", "numpy:array_str"]
)  # fmt: skip


def is_callers(operation: Operation) -> bool:
    """Whether an operation belongs into the caller's process, wherever the array is."""
    return operation.name in _CALLERS
