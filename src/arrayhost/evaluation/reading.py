"""Reads that are never torn: evaluate on live memory, look at the versions again, fall back to snapshots.

Called in the client, and in the host for what it evaluates itself. The caller supplies operands; this module decides
on which memory they are read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from arrayhost.evaluation.operands import map_nested, map_results
from arrayhost.evaluation.operations import GET, Operation, apply
from arrayhost.evaluation.shadows import corresponding_view, laid_out_copy, placed
from arrayhost.evaluation.tables import ALL, FIRST, live_operands, warns_by_itself
from arrayhost.sync.guards import BUSY, OWNED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.memory.segments import Mapping as SegmentMapping
    from arrayhost.sync.guards import Guard

__all__ = ["Operand", "evaluate_read", "snapshot"]

_ATTEMPTS = 3
_PAUSE = 30e-6
_RAISING = {"warn": "raise", "print": "raise", "call": "raise", "log": "raise"}


class Operand(Protocol):
    """A hosted array, or a view of one, as far as reading it goes."""

    @property
    def guard(self) -> Guard:
        """The array's guard."""

    @property
    def mapping(self) -> SegmentMapping:
        """The mapping that `live` lies in."""

    @property
    def live(self) -> npt.NDArray[Any]:
        """The array on mapped memory, read-only."""

    @property
    def writer(self) -> npt.NDArray[Any]:
        """The same, writeable where NumPy's own view would be."""

    def locked_copy(self) -> npt.NDArray[Any]:
        """Copy the array under its shared lock, whatever that takes."""

    def viewed(self, view: npt.NDArray[Any]) -> Any:
        """Wrap a view of the same memory; the proxy is writeable as `view` is."""


def evaluate_read(
    operation: Operation,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    operands: Sequence[Operand],
    *,
    once: bool = False,
) -> Any:
    """Evaluate a read whose arguments may hold hosted arrays, at any depth.

    Parameters
    ----------
    operation : Operation
    args, kwargs
        Its arguments.
    operands : sequence of Operand
        The hosted arrays in them.
    once : bool
        Do not try on live memory first, which may have to be repeated: an ndarray of the caller's is written to.

    Returns
    -------
    object
        What NumPy returns, with views of hosted memory wrapped by their operand's `viewed`.

    Raises
    ------
    Exception
        What NumPy raises; `TornArrayError`, `StaleProxyError`, `LockTimeoutError`.
    """
    mode = None if once else live_operands(operation, [operand.live.dtype for operand in operands])
    if mode == FIRST:
        lead = args[0] if args else next(iter(kwargs.values()), None)
        live = [operand for operand in operands if operand is lead]
        if not live and len(operands) == 1:
            # The array was passed by keyword, or inside a list: it is still the only one.
            live = [] if args and operands[0] is not lead else list(operands)
        if live and warns_by_itself(operation, args, kwargs, live[0].live.shape):
            live = []
    elif mode == ALL and _only_known_types(args, kwargs, operands):
        live = list(operands)
    else:
        live = []
    return _Reading(operation, args, kwargs, operands, live).run()


def _only_known_types(args: Sequence[Any], kwargs: Mapping[str, Any], operands: Sequence[Operand]) -> bool:
    """Whether no argument is of a type that may run code of its own on the operands."""
    known = True

    def look(leaf: Any) -> Any:
        nonlocal known
        known = known and (any(leaf is operand for operand in operands) or isinstance(leaf, (np.generic, np.dtype)))
        return leaf

    for value in [*args, *kwargs.values()]:
        map_nested(value, look)
    return known


class _Reading:
    """One read under way."""

    def __init__(
        self,
        operation: Operation,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        operands: Sequence[Operand],
        live: list[Operand],
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.operands = operands
        self.live = live
        self.memory: dict[int, npt.NDArray[Any]] = {}
        self.direct = False  # whether `live` is being evaluated on hosted memory itself

    def run(self) -> Any:
        for operand in self.operands:
            if not any(operand is one for one in self.live):
                self.memory[id(operand)] = self._private(operand)
        if self.live:
            for attempt in range(_ATTEMPTS):
                if attempt:
                    time.sleep(_PAUSE)
                stamps = [operand.guard.stamp() for operand in self.live]
                if BUSY in stamps:
                    continue
                for operand in self.live:
                    # What may run on live memory never writes to it. Given the writeable view, NumPy tells by the
                    # result's flags whether the hosted view is one that may be written through.
                    self.memory[id(operand)] = operand.writer
                self.direct = True
                try:
                    done, result = self._attempt(stamps)
                except FloatingPointError:
                    if self._unchanged(stamps):
                        break  # the data's own: to be told, as the caller wishes, of a copy that holds still
                    continue
                if done:
                    return result
            self.direct = False
            for operand in self.live:
                self.memory[id(operand)] = _shadow(operand)
        return self._wrapped(self._evaluate())

    def _private(self, operand: Operand) -> npt.NDArray[Any]:
        """Memory for an operand that must not change during the evaluation."""
        if operand.guard.stamp() == OWNED:
            return operand.live
        return _shadow(operand)

    def _attempt(self, stamps: list[int]) -> tuple[bool, Any]:
        """Evaluate on live memory; tell whether the result counts."""
        if self.operation.kind == GET:
            return True, self._wrapped(self._evaluate())
        settings = np.geterr()
        strict: dict[str, Any] = {kind: _RAISING.get(str(how), how) for kind, how in settings.items()}
        try:
            # A floating-point condition may come from torn data, so nobody is told of it yet: the evaluation on a
            # snapshot, under the caller's own settings, will do that.
            with np.errstate(**strict):
                # Wrapping copies structured scalars out, so it belongs to what the versions must cover.
                result = self._wrapped(self._evaluate())
        except FloatingPointError:
            raise
        except Exception:
            if self._unchanged(stamps):
                raise
            return False, None
        return self._unchanged(stamps), result

    def _unchanged(self, stamps: list[int]) -> bool:
        return all(operand.guard.unchanged(stamp) for operand, stamp in zip(self.live, stamps, strict=True))

    def _evaluate(self) -> Any:
        args = [map_nested(arg, self._substitute) for arg in self.args]
        kwargs = {key: map_nested(arg, self._substitute) for key, arg in self.kwargs.items()}
        return apply(self.operation, args, kwargs)

    def _substitute(self, leaf: Any) -> Any:
        return self.memory.get(id(leaf), leaf)

    def _wrapped(self, result: Any) -> Any:
        return map_results(result, self._wrap)

    def _wrap(self, array: npt.NDArray[Any]) -> Any:
        """Tell a view of an operand's memory, or of its private copy, from a value."""
        if array.base is None and not any(array is memory for memory in self.memory.values()):
            return array
        address, readonly = array.__array_interface__["data"]
        for operand in self.operands:
            if self.direct and operand.mapping.covers(address) and any(operand is one for one in self.live):
                return operand.viewed(array)
            view = corresponding_view(array, self.memory[id(operand)], operand)
            if view is not None:
                return operand.viewed(view)
        # Part of a private copy, for want of a view of the same shape, or because it has no element.
        return array.copy("K") if readonly and self._shadowed(array) else array

    def _shadowed(self, array: npt.NDArray[Any]) -> bool:
        shadows = [self.memory[id(operand)] for operand in self.operands]
        return any(np.may_share_memory(array, shadow) for shadow in shadows) or (not array.size and bool(shadows))


def snapshot(operand: Operand) -> npt.NDArray[Any]:
    """Copy an operand consistently, in its own memory order.

    Raises
    ------
    TornArrayError, StaleProxyError, LockTimeoutError
    """
    copy = _quiet_copy(operand, lambda: operand.live.copy("K"))
    return operand.locked_copy() if copy is None else copy


def _shadow(operand: Operand) -> npt.NDArray[Any]:
    """Copy an operand consistently, with its strides, read-only."""
    copy = _quiet_copy(operand, lambda: laid_out_copy(operand))
    if copy is None:
        copy = placed(operand.locked_copy(), operand)
    copy.flags.writeable = False
    return copy


def _quiet_copy(operand: Operand, take: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Copy while nobody writes; None if somebody does all the time."""
    guard = operand.guard
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        stamp = guard.stamp()
        if stamp == BUSY:
            continue
        copy = take()
        if guard.unchanged(stamp):
            return copy
    return None
