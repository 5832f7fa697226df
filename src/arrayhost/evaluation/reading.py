"""Reads that are never torn: evaluate on live memory, look at the versions again, fall back to snapshots.

Called in the client, and in the host for what it evaluates itself. The caller supplies operands; this module decides
on which memory they are read. Operands may be several views of one array. These are a group, and a group is read as of
one moment: copied between two looks at the version, or by the host under one hold of the lock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from arrayhost.evaluation.operands import grouped, map_nested, map_results
from arrayhost.evaluation.operations import GET, Operation, apply
from arrayhost.evaluation.shadows import corresponding_view, laid_out_copy, placed
from arrayhost.evaluation.tables import ALL, FIRST, live_operands, warns_by_itself
from arrayhost.sync.guards import BUSY, OWNED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.memory.segments import Mapping as SegmentMapping
    from arrayhost.sync.guards import Guard

__all__ = ["Operand", "evaluate_read", "snapshot", "snapshots"]

CarryOut: TypeAlias = "Callable[[Operation, Sequence[Any], Mapping[str, Any]], Any]"

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

    def locked_copies(self, views: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Copy views of this operand's array under one hold of its shared lock, whatever that takes."""

    def viewed(self, view: npt.NDArray[Any]) -> Any:
        """Wrap a view of the same memory; the proxy is writeable as `view` is."""


def evaluate_read(
    operation: Operation,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    operands: Sequence[Operand],
    *,
    once: bool = False,
    carry_out: CarryOut = apply,
    attempt: CarryOut = apply,
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
    carry_out : callable
        Carries the operation out on ndarrays, as `apply` does.
    attempt : callable
        The same on live memory, where the result may not count. It may raise FloatingPointError for whatever somebody
        has to be told of a result that counts.

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
    return _Reading(operation, args, kwargs, operands, live, carry_out, attempt).run()


def _only_known_types(args: Sequence[Any], kwargs: Mapping[str, Any], operands: Sequence[Operand]) -> bool:
    """Whether no argument is of a type that may run code of its own on the operands."""
    known = not any(isinstance(arg, np.ndarray) and arg.dtype.hasobject for arg in (*args, *kwargs.values()))

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
        carry_out: CarryOut,
        attempt: CarryOut,
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.operands = operands
        self.live = live
        self.carry_out = carry_out
        self.attempt = attempt
        self.memory: dict[int, npt.NDArray[Any]] = {}
        self.direct = False  # whether `live` is being evaluated on hosted memory itself

    def run(self) -> Any:
        live_groups = []
        for group in grouped(self.operands, _guard_of):
            if any(self._is_live(operand) for operand in group):
                live_groups.append(group)
            else:
                self._hold_still(group)
        if live_groups:
            done, result = self._run_live(live_groups)
            if done:
                return result
            for group in live_groups:
                self._place(group, _shadows(group))
        return self._wrapped(self._evaluate())

    def _is_live(self, operand: Operand) -> bool:
        return any(operand is one for one in self.live)

    def _place(self, group: Sequence[Operand], memory: Sequence[npt.NDArray[Any]]) -> None:
        for operand, array in zip(group, memory, strict=True):
            self.memory[id(operand)] = array

    def _hold_still(self, group: Sequence[Operand]) -> None:
        """Supply memory for operands that must not change during the evaluation."""
        owned = group[0].guard.stamp() == OWNED
        self._place(group, [operand.live for operand in group] if owned else _shadows(group))

    def _run_live(self, groups: Sequence[Sequence[Operand]]) -> tuple[bool, Any]:
        """Evaluate on live memory, a few times if need be; tell whether a result counts."""
        self.direct = True
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE)
            stamps = [group[0].guard.stamp() for group in groups]
            if BUSY in stamps or not all(map(self._expose, groups, stamps)):
                continue
            try:
                done, result = self._attempt(groups, stamps)
            except FloatingPointError:
                if _unchanged(groups, stamps):
                    break  # the data's own: to be told, as the caller wishes, of a copy that holds still
                continue
            if done:
                return True, result
        self.direct = False
        return False, None

    def _expose(self, group: Sequence[Operand], stamp: int) -> bool:
        """Supply live memory for what may run on it, and copies of the same moment for the group's other operands.

        Returns
        -------
        bool
            False if somebody wrote meanwhile: the copies may be torn and must not be used.
        """
        copied = False
        for operand in group:
            if self._is_live(operand):
                # What may run on live memory never writes to it. Given the writeable view, NumPy tells by the
                # result's flags whether the hosted view is one that may be written through.
                self.memory[id(operand)] = operand.writer
            elif stamp == OWNED:
                self.memory[id(operand)] = operand.live
            else:
                self.memory[id(operand)] = _read_only(laid_out_copy(operand))
                copied = True
        return not copied or group[0].guard.unchanged(stamp)

    def _attempt(self, groups: Sequence[Sequence[Operand]], stamps: Sequence[int]) -> tuple[bool, Any]:
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
            if _unchanged(groups, stamps):
                raise
            return False, None
        return _unchanged(groups, stamps), result

    def _evaluate(self) -> Any:
        args = [map_nested(arg, self._substitute) for arg in self.args]
        kwargs = {key: map_nested(arg, self._substitute) for key, arg in self.kwargs.items()}
        return (self.attempt if self.direct else self.carry_out)(self.operation, args, kwargs)

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
    return snapshots([operand])[0]


def snapshots(group: Sequence[Operand]) -> list[npt.NDArray[Any]]:
    """Copy views of one array as of one moment, each in its own memory order.

    Raises
    ------
    TornArrayError, StaleProxyError, LockTimeoutError
    """
    copies = _quiet_copies(group, lambda operand: operand.live.copy("K"))
    return group[0].locked_copies(group) if copies is None else copies


def _shadows(group: Sequence[Operand]) -> list[npt.NDArray[Any]]:
    """Copy views of one array as of one moment, each with its strides, read-only."""
    copies = _quiet_copies(group, laid_out_copy)
    if copies is None:
        copies = [placed(copy, operand) for copy, operand in zip(group[0].locked_copies(group), group, strict=True)]
    return [_read_only(copy) for copy in copies]


def _quiet_copies(
    group: Sequence[Operand], take: Callable[[Operand], npt.NDArray[Any]]
) -> list[npt.NDArray[Any]] | None:
    """Copy views of one array while nobody writes; None if somebody does all the time."""
    guard = group[0].guard
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        stamp = guard.stamp()
        if stamp == BUSY:
            continue
        copies = [take(operand) for operand in group]
        if guard.unchanged(stamp):
            return copies
    return None


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


def _guard_of(operand: Operand) -> Guard:
    return operand.guard


def _unchanged(groups: Sequence[Sequence[Operand]], stamps: Sequence[int]) -> bool:
    return all(group[0].guard.unchanged(stamp) for group, stamp in zip(groups, stamps, strict=True))
