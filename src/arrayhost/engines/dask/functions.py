"""What runs distributed: the list of operations whose results on Dask's arrays are NumPy's, chunk by chunk.

All others need every element in one place, and are evaluated so: up to a limit, or when asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.evaluation.operations import FUNCTION, METHOD, OPERATOR, UFUNC, Operation, numpy_ufunc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["DISTRIBUTED_FUNCTIONS", "DISTRIBUTED_METHODS", "OTHER_SCALARS", "READ_ONLY_RESULTS", "distributed_form"]

_BINARY = frozenset(
    ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
     "lt", "le", "eq", "ne", "gt", "ge"]
)  # fmt: skip
_OPERATORS = (_BINARY - {"and", "or"}) | {"and_", "or_", "neg", "pos", "abs", "invert", "getitem"}

_REDUCTIONS = frozenset(["sum", "prod", "min", "max", "mean", "std", "var", "any", "all", "argmin", "argmax"])
DISTRIBUTED_METHODS = (
    _REDUCTIONS
    | {"cumsum", "cumprod", "round", "clip", "conj", "astype", "reshape", "ravel", "flatten", "dot", "trace", "repeat"}
    | {f"__{name}__" for name in ("neg", "pos", "abs", "invert")}
    | {f"__{side}{name}__" for name in _BINARY for side in ("", "r") if side == "" or name not in ("lt", "le", "eq",
                                                                                              "ne", "gt", "ge")}
)  # fmt: skip
DISTRIBUTED_FUNCTIONS = frozenset(
    f"numpy:{name}"
    for name in [
        *_REDUCTIONS, "amin", "amax", "nansum", "nanprod", "nanmin", "nanmax", "nanmean", "nanstd", "nanvar",
        "cumsum", "cumprod", "round", "clip", "around", "where", "concatenate", "stack", "vstack", "hstack", "dstack",
        "transpose", "swapaxes", "moveaxis", "rollaxis", "expand_dims", "squeeze", "ravel", "reshape", "broadcast_to",
        "flip", "fliplr", "flipud", "rot90", "roll", "diff", "isclose", "allclose", "tensordot", "dot", "vdot",
        "outer", "einsum", "bincount", "count_nonzero", "ptp", "average", "repeat", "tile", "pad", "tril",
        "triu", "diagonal", "diag", "real", "imag", "angle", "nan_to_num", "isin", "histogram", "cov", "corrcoef",
        "zeros_like", "ones_like", "full_like", "empty_like", "digitize", "atleast_1d", "atleast_2d", "atleast_3d",
    ]
)  # fmt: skip

# Where NumPy gives views, what comes back here is a copy that may not be written to: it would change nothing.
READ_ONLY_RESULTS = frozenset(
    ["reshape", "ravel", "T", "real", "imag", "getitem"]
    + [f"numpy:{name}" for name in
       ["transpose", "swapaxes", "moveaxis", "rollaxis", "expand_dims", "squeeze", "ravel", "reshape", "broadcast_to",
        "flip", "fliplr", "flipud", "rot90", "diagonal", "diag", "real", "imag", "atleast_1d", "atleast_2d",
        "atleast_3d"]]
)  # fmt: skip
# Where NumPy returns no scalar of its own.
OTHER_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "numpy:allclose": bool,
    "numpy:count_nonzero": type(np.count_nonzero(np.ones(1))),  # not the same in all releases
    "numpy:tensordot": np.asarray,
}

_REDUCING_UFUNCS = {
    "add": "sum", "multiply": "prod", "minimum": "min", "maximum": "max", "logical_and": "all", "logical_or": "any"
}  # fmt: skip
# Beyond these, what stands where differs between NumPy and Dask.
_MAX_POSITIONAL = {"reshape": 64, "clip": 3, "astype": 2, "repeat": 3}
_REDUCTION_OPTIONS = frozenset(["axis", "dtype", "keepdims", "ddof"])
_NOT_DASKS = frozenset(["order", "casting", "subok", "out", "initial", "correction", "mode"])


def distributed_form(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Operation | None:
    """The operation as Dask carries it out; None if it does not, or not as NumPy does."""
    kind, name, variant, target = operation
    if any(option in _NOT_DASKS and value not in (None, "K", "C") for option, value in kwargs.items()):
        return None
    if kind == OPERATOR:
        return operation if name in _OPERATORS else None
    if kind == UFUNC:
        if variant == "reduce" and target is None and name in _REDUCING_UFUNCS and len(args) == 1:
            return _as_function(name, kwargs)
        known = target is None and isinstance(getattr(np, name, None), np.ufunc) and numpy_ufunc(name).nout <= 2
        return operation if known and variant == "__call__" and "where" not in kwargs else None
    if kind == METHOD:
        fits = name in DISTRIBUTED_METHODS and len(args) - 1 <= _MAX_POSITIONAL.get(name, 2)
        return operation if fits and _options_fit(name, kwargs) else None
    if kind == FUNCTION:
        return operation if name in DISTRIBUTED_FUNCTIONS and _options_fit(name, kwargs) else None
    return operation if name in ("real", "imag") else None


def _options_fit(name: str, kwargs: Mapping[str, Any]) -> bool:
    return name.removeprefix("numpy:") not in _REDUCTIONS or set(kwargs) <= _REDUCTION_OPTIONS


def _as_function(name: str, kwargs: Mapping[str, Any]) -> Operation | None:
    """A ufunc's reduction as the function of the same meaning: it differs in the axis that is the default."""
    if "axis" not in kwargs or not set(kwargs) <= {"axis", "keepdims"}:
        return None
    return Operation(FUNCTION, f"numpy:{_REDUCING_UFUNCS[name]}")
