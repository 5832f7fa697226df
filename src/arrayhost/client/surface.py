"""What ndarray has and `HostedArray` therefore has too: operators, methods, attributes, from a few tables.

Nothing here knows how anything is evaluated; each name becomes an `Operation`.
"""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.array import HostedArray
from arrayhost.client.attributing import call_for_caller
from arrayhost.client.buffers import METHODS as BUFFER_METHODS
from arrayhost.client.evaluating import evaluate
from arrayhost.client.libraries import METHODS as LIBRARY_METHODS
from arrayhost.client.mapped import MappedArray
from arrayhost.client.protocols import METHODS as PROTOCOL_METHODS
from arrayhost.client.steady import MISSED, steady_arguments, steady_binary
from arrayhost.client.unmapped import UnmappedArray
from arrayhost.client.untold import call, call_swapped, call_unary, is_warning
from arrayhost.core.layout import check_mappable
from arrayhost.evaluation.operations import GET, METHOD, OPERATOR, SET, Operation
from arrayhost.evaluation.tables import COMPUTING_METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HostedFlat"]

_BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift", "lt", "le", "eq",
           "ne", "gt", "ge"]  # fmt: skip
_LOGICAL = {"and": "and_", "or": "or_", "xor": "xor"}
_COMPARISONS = frozenset(["lt", "le", "eq", "ne", "gt", "ge"])
_UNARY = ["neg", "pos", "abs", "invert"]
_IN_PLACE = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift", "and", "or", "xor"]
_CONVERSIONS = ["__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__copy__",
                "__deepcopy__"]  # fmt: skip
_FACTS = ["shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"]
_VIEWS = ["T", "mT", "real", "imag"]
_NOT_METHODS = frozenset(["copy", "dump", "dumps", "resize", "to_device"])


class HostedFlat:
    """What ``a.flat`` gives: the array as one sequence of elements.

    Notes
    -----
    Reading goes by a consistent copy of the array; assigning is one atomic write in the host.
    """

    def __init__(self, base: HostedArray) -> None:
        self.base = base

    def __getitem__(self, index: Any) -> Any:
        return self.base.copy("K").flat[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice) and index == slice(None):
            evaluate(Operation(SET, "flat"), (self.base, value), {})
            return
        positions = np.arange(self.base.size)[index]
        if not np.size(positions):
            return
        evaluate(Operation(METHOD, "put"), (self.base, positions, value), {})

    def __len__(self) -> int:
        return int(self.base.size)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.base.copy("K").flat)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.base.copy("K").flat, dtype)

    def copy(self) -> np.ndarray[Any, Any]:
        """Return the elements as a 1-D ndarray."""
        return self.base.copy("K").flatten()


def _defers(other: Any) -> bool:
    """Whether an operand asks to be given the operation, as ndarray's own operators check."""
    return getattr(type(other), "__array_ufunc__", _defers) is None


def _binary(name: str, function_name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    operation = Operation(OPERATOR, function_name)
    compute = getattr(operator, function_name)

    def forward(self: HostedArray, other: Any) -> Any:
        result = steady_binary(compute, self, other)
        if result is not MISSED:
            return result
        if _defers(other):
            return NotImplemented
        return evaluate(operation, (self, other), {})

    def backward(self: HostedArray, other: Any) -> Any:
        result = steady_binary(compute, self, other, call_swapped)
        if result is not MISSED:
            return result
        if _defers(other):
            return NotImplemented
        return evaluate(operation, (other, self), {})

    return forward, backward


def _in_place(name: str) -> Callable[..., Any]:
    operation = Operation(OPERATOR, f"i{name}")

    def method(self: HostedArray, other: Any) -> Any:
        return evaluate(operation, (self, other), {})

    return method


def _method(name: str) -> Callable[..., Any]:
    if name in COMPUTING_METHODS:
        return _computing_method(name)
    operation = Operation(METHOD, name)

    def method(self: HostedArray, *args: Any, **kwargs: Any) -> Any:
        return evaluate(operation, (self, *args), kwargs)

    return method


def _computing_method(name: str) -> Callable[..., Any]:
    operation = Operation(METHOD, name)
    compute = getattr(np.ndarray, name)

    def method(self: HostedArray, *args: Any, **kwargs: Any) -> Any:
        try:
            if not args and not kwargs:
                mine = self._steady()
                if mine is not None:
                    return call_unary(compute, mine)
            else:
                values = steady_arguments((self,), args, kwargs)
                if values is not None:
                    return call(getattr(values[0], name), *values[1:], **kwargs)
        except TypeError as error:
            if not is_warning(error):
                raise
        return evaluate(operation, (self, *args), kwargs)

    return method


def _power() -> Callable[..., Any]:
    forward, _ = _binary("pow", "pow")

    def power(self: HostedArray, other: Any, modulus: Any = None) -> Any:
        return NotImplemented if modulus is not None else forward(self, other)

    return power


def _fact(name: str) -> tuple[property, property]:
    """What no element tells, for both kinds of proxies."""

    def from_view(self: MappedArray) -> Any:
        return getattr(self._view, name)

    def from_layout(self: UnmappedArray) -> Any:
        return getattr(self._layout, name)

    doc = getattr(np.ndarray, name).__doc__
    put = _SETTABLE.get(name)
    return property(from_view, put, doc=doc), property(from_layout, put, doc=doc)


def _view(name: str, *, settable: bool) -> property:
    getting, setting = Operation(GET, name), Operation(SET, name)

    def get(self: HostedArray) -> Any:
        return evaluate(getting, (self,), {})

    def put(self: HostedArray, value: Any) -> None:
        evaluate(setting, (self, value), {})

    return property(get, put if settable else None, doc=getattr(np.ndarray, name).__doc__)


def _setting(name: str) -> Callable[[HostedArray, Any], None]:
    """Make what sets a proxy's shape or dtype; other proxies of the array keep theirs, as views of an ndarray do."""

    def put(self: HostedArray, value: Any) -> None:
        form = self.layout.phantom()
        # Raises where that would need a copy or makes no sense, and warns where NumPy deprecates it.
        call_for_caller(setattr, form, name, value)
        check_mappable(form.dtype)
        _take_form(self, form)

    return put


_SETTABLE = {name: _setting(name) for name in ("shape", "dtype")}


def _take_form(self: HostedArray, form: np.ndarray[Any, Any]) -> None:
    layout = replace(self.layout, shape=form.shape, strides=form.strides, dtype=form.dtype)
    self._become(self._with_layout(layout))


def _resize(self: HostedArray, *new_shape: Any, refcheck: bool = True) -> None:
    """Give this proxy another shape of the same size; no other, since a hosted array lies where it was made.

    Raises
    ------
    ValueError
        As `numpy.ndarray.resize` for an array that does not own its data.
    """
    if not new_shape or new_shape == (None,):
        return
    sizes = new_shape[0] if len(new_shape) == 1 and np.iterable(new_shape[0]) else new_shape
    shape = tuple(operator.index(n) for n in sizes)
    if any(n < 0 for n in shape):
        raise ValueError("negative dimensions not allowed")
    if not self.flags.forc:
        raise ValueError("resize only works on single-segment arrays")
    if math.prod(shape) != self.size:
        raise ValueError("cannot resize this array: it does not own its data")
    _take_form(self, self.layout.phantom().reshape(shape, order="C" if self.flags.c_contiguous else "F"))


def _get_base(self: HostedArray) -> HostedArray | None:
    """The proxy of the whole segment's array that this is a view of; None for a whole array."""
    whole = self._source.whole
    if whole is None or self.layout.nbytes == whole.nbytes:
        return None
    return self._with_layout(whole)


def _get_flags(self: HostedArray) -> Any:
    return self.writer.flags if self.mapped else self.layout.phantom().flags


def _get_flat(self: HostedArray) -> HostedFlat:
    return HostedFlat(self)


def _set_flat(self: HostedArray, value: Any) -> None:
    evaluate(Operation(SET, "flat"), (self, value), {})


def _get_live(name: str) -> property:
    def get(self: HostedArray) -> Any:
        return getattr(np.asarray(self), name)

    return property(get, doc=f"``ndarray.{name}`` of the live memory, read-only.")


def _install(name: str, value: Any) -> None:
    if callable(value):
        value.__name__ = name
        value.__qualname__ = f"HostedArray.{name}"
        value.__doc__ = getattr(getattr(np.ndarray, name, None), "__doc__", None)
    setattr(HostedArray, name, value)


def _install_all() -> None:
    for name, function_name in {**dict(zip(_BINARY, _BINARY, strict=True)), **_LOGICAL}.items():
        forward, backward = _binary(name, function_name)
        _install(f"__{name}__", forward)
        if name not in _COMPARISONS:
            _install(f"__r{name}__", backward)
    _install("__pow__", _power())
    for name in _UNARY:
        _install(f"__{name}__", _method(f"__{name}__"))
    for name in _IN_PLACE:
        _install(f"__i{name}__", _in_place(name))
    for name in ("__divmod__", "__rdivmod__"):
        _install(name, _method(name))
    for name in _CONVERSIONS:
        _install(name, _method(name))
    for name in dir(np.ndarray):
        attribute = getattr(np.ndarray, name)
        if not name.startswith("_") and callable(attribute) and name not in _NOT_METHODS:
            _install(name, _method(name))
    for name in _FACTS:
        for kind, fact in zip((MappedArray, UnmappedArray), _fact(name), strict=True):
            setattr(kind, name, fact)
    for name in _VIEWS:
        if hasattr(np.ndarray, name):
            setattr(HostedArray, name, _view(name, settable=name in ("real", "imag")))
    for name in ("ctypes", "data"):
        setattr(HostedArray, name, _get_live(name))
    others: dict[str, Any] = {
        "resize": _resize,
        "flags": property(_get_flags, doc=np.ndarray.flags.__doc__),
        "flat": property(_get_flat, _set_flat, doc=np.ndarray.flat.__doc__),
        "base": property(_get_base, doc=_get_base.__doc__),
        "device": property(lambda self: "cpu", doc="``'cpu'``, as ndarray's."),
    }
    for name, attribute in {**others, **LIBRARY_METHODS, **PROTOCOL_METHODS, **BUFFER_METHODS}.items():
        setattr(HostedArray, name, attribute)


_install_all()
