"""Writes: carried out in the host, under the exclusive lock, whole or not at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.core.handles import Written
from arrayhost.evaluation.hosted import evaluate_hosted
from arrayhost.evaluation.operands import grouped, leaves, map_nested, map_results
from arrayhost.evaluation.operations import FUNCTION, HOSTED, METHOD, OPERATOR, Operation, apply
from arrayhost.evaluation.reading import evaluate_read, snapshot, snapshots
from arrayhost.evaluation.shadows import laid_out_copy
from arrayhost.evaluation.tables import must_copy, written_arguments
from arrayhost.host.store import Operand
from arrayhost.memory.budget import check_free
from arrayhost.sync.filelocks import EXCLUSIVE, SHARED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.sync.guards import Hold

__all__ = ["evaluate", "set_item"]

_NUMBERS = "biufc?"
# Writes that need not know what stood there before, so that they may go to an array that is torn.
_BLIND = frozenset(["setitem", "__setitem__", "fill", "put", "numpy:copyto", "numpy:put", "numpy:place",
                    "numpy:putmask", "numpy:put_along_axis", "numpy:fill_diagonal"])  # fmt: skip
_WHOLE_INDEX = ((), ..., slice(None))


def evaluate(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float) -> Any:
    """Evaluate an operation whose arguments may hold `Operand`, at any depth.

    Returns
    -------
    object
        What NumPy returns; views of hosted memory as `Operand`, the targets of a write as `Written`.

    Raises
    ------
    Exception
        What NumPy raises; `LockTimeoutError`, `WouldDeadlock`, `TornArrayError`, `HostMemoryError`.
    """
    targets = [target for target in written_arguments(operation, args, kwargs) if isinstance(target, Operand)]
    if operation.kind == HOSTED:
        return _evaluate_hosted(operation.name, args, kwargs, targets, timeout)
    if not targets:
        return evaluate_read(operation, args, kwargs, leaves(args, kwargs, Operand))
    return _Write(operation, args, kwargs, targets, timeout).run()


def _evaluate_hosted(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], targets: Sequence[Operand], timeout: float
) -> Any:
    """Evaluate what ndarray does not have; hosted indices and values are of the moment of the write."""
    sources = leaves(args[1:], {}, Operand)
    if not sources:
        return evaluate_hosted(name, args, kwargs)
    with _locked(targets, sources, timeout):
        return evaluate_hosted(name, [args[0], *_privately(args[1:])], kwargs)


def set_item(target: Operand, index: Any, value: Any, timeout: float) -> None:
    """Carry out ``target[index] = value``."""
    if not _fails_early(target, value) or (type(index) is not int and leaves((index,), {}, Operand)):
        evaluate(Operation(OPERATOR, "setitem"), (target, index, value), {}, timeout)
        return
    hold = target.guard.acquire(EXCLUSIVE, timeout, "exclusive lock")
    try:
        writer = target.writer
        hold.begin_write(None if target.guard.undo is None else target.layout.touched(index))
        try:
            writer[index] = value
        finally:
            hold.end_write()
        if target.guard.torn:
            _mend_if_whole(Operation(OPERATOR, "setitem"), (target, index, value), {}, target)
    finally:
        hold.release()


def _fails_early(target: Operand, value: Any) -> bool:
    """Whether assigning `value` raises before it writes, if it raises at all."""
    if type(value) in (int, float, bool, complex):
        return target.live.dtype.kind in _NUMBERS
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype == target.live.dtype


class _Write:
    """One write under way."""

    def __init__(
        self,
        operation: Operation,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        targets: list[Operand],
        timeout: float,
    ) -> None:
        self.operation = operation
        self.args = list(args)
        self.kwargs = dict(kwargs)
        self.targets = targets
        self.timeout = timeout
        self.memory: dict[int, npt.NDArray[Any]] = {}
        self.given: Any = None  # what was to be assigned, before it was converted

    def run(self) -> Any:
        sources = leaves(self.args, self.kwargs, Operand)
        # What hosted arrays hold is read under their locks, so that all of it is of the moment of the write; what came
        # with the request is converted before, so that others wait no longer than they must.
        reads_hosted = bool(leaves(self.args[1:], {}, Operand))
        fails = not reads_hosted and not self._convert_value()
        with _locked(self.targets, sources, self.timeout) as holds:
            for target in self.targets:
                if self.operation.name not in _BLIND:
                    target.guard.check_whole()
            if reads_hosted:
                self._take_copies_of_indices()
                fails = not self._convert_value()
            try:
                result = self._write(holds, by_copy=fails)
            except (TypeError, ValueError) as error:
                raise self._as_of_sequence(error) from None
            for target in self.targets:
                _mend_if_whole(self.operation, self.args, self.kwargs, target)
            # Values may be views of memory that is only quiet while it is locked.
            return map_results(result, self._wrap)

    def _take_copies_of_indices(self) -> None:
        """Replace hosted operands that serve as indices or counts by private copies: no index may change in use."""
        name = self.operation.name
        if self.operation.variant in ("at", "reduceat") or name in (
            "setitem", "__setitem__", "put", "numpy:put", "numpy:put_along_axis", "numpy:place"
        ):  # fmt: skip
            self.args[1:2] = _privately(self.args[1:2])

    def _convert_value(self) -> bool:
        """Convert what is assigned to the target's dtype first where the conversion itself may fail; tell if it did.

        What NumPy makes of such a value depends on the index as well, and so does its error.
        """
        if self.operation.name not in ("setitem", "__setitem__") or len(self.args) != 3:
            return True
        target, value = self.args[0], self.args[2]
        if isinstance(value, Operand):
            if value.live.dtype == target.live.dtype or (self._numeric(value.live.dtype) and not _may_raise()):
                return True
            value = snapshot(value)
        if isinstance(target, Operand) and not _fails_early(target, value):
            self.given = value
            try:
                self.args[2] = _converted(value, target.live.dtype, as_element=self._is_truth_of_one(target, value))
            except (TypeError, ValueError, OverflowError, FloatingPointError):
                return False
        return True

    def _is_truth_of_one(self, target: Operand, value: Any) -> bool:
        """Whether a list goes to one element and not to several: as a bool it is true unless it is empty."""
        if target.live.dtype.kind != "b" or not isinstance(value, (list, tuple)):
            return False
        try:
            return not isinstance(target.live[self.args[1]], np.ndarray)
        except IndexError:
            return False  # NumPy will say so when it assigns

    def _as_of_sequence(self, error: Exception) -> Exception:
        """NumPy's own error for a list that was converted here before it was assigned."""
        target, index = self.targets[0], self.args[1] if len(self.args) > 1 else None
        if not isinstance(self.given, (list, tuple)):
            return error
        try:
            part: Any = target.live[index]
            if not isinstance(part, np.ndarray):
                np.empty(1, part.dtype)[0] = self.given
            elif target.layout.indexed(index) is not None:
                np.empty_like(part)[...] = self.given
        except (TypeError, ValueError) as theirs:
            return theirs
        except IndexError:
            pass  # NumPy found the other error first
        return error

    def _numeric(self, dtype: np.dtype[Any]) -> bool:
        return dtype.kind in _NUMBERS and all(target.live.dtype.kind in _NUMBERS for target in self.targets)

    def _write(self, holds: list[Hold], *, by_copy: bool) -> Any:
        if by_copy or must_copy(self.operation, [target.live for target in self.targets], may_raise=_may_raise()):
            return self._write_by_copy(holds)
        for target in self.targets:
            self.memory[id(target)] = target.writer
        with self._writing(holds):
            return self._evaluate()

    def _write_by_copy(self, holds: list[Hold]) -> Any:
        """Let the operation write to copies; write these back only when it has succeeded."""
        check_free(sum(target.live.nbytes for target in self.targets))
        for target in self.targets:
            if not target.writer.flags.writeable:
                self.memory[id(target)] = target.writer  # NumPy will say that it cannot be written to
            else:
                self.memory[id(target)] = laid_out_copy(target)
        result = self._evaluate()
        with self._writing(holds):
            for target in self.targets:
                target.writer[...] = self.memory[id(target)]
        return result

    @contextlib.contextmanager
    def _writing(self, holds: list[Hold]) -> Iterator[None]:
        """Keep the versions odd."""
        begun: list[Hold] = []
        try:
            for hold in holds:
                hold.begin_write(None if hold.guard.undo is None else self._touched(hold))
                begun.append(hold)
            yield
        finally:
            for hold in begun:
                hold.end_write()

    def _touched(self, hold: Hold) -> tuple[int, int]:
        """Bounds of the bytes of one array that may change."""
        targets = [target for target in self.targets if target.guard is hold.guard]
        if self.operation.name in ("setitem", "__setitem__") and len(self.args) == 3 and len(targets) == 1:
            return targets[0].layout.touched(self.args[1])
        extents = [target.layout.extent() for target in targets]
        return min(start for start, _ in extents), max(end for _, end in extents)

    def _evaluate(self) -> Any:
        args = [map_nested(arg, self._substitute) for arg in self.args]
        kwargs = {key: map_nested(arg, self._substitute) for key, arg in self.kwargs.items()}
        return apply(self.operation, args, kwargs)

    def _substitute(self, leaf: Any) -> Any:
        if isinstance(leaf, Operand):
            return self.memory.get(id(leaf), leaf.live)
        return leaf

    def _wrap(self, array: npt.NDArray[Any]) -> Any:
        for number, target in enumerate(self.targets):
            if array is self.memory.get(id(target)):
                return Written(number)
        for target in self.targets:
            if array.base is not None and target.mapping.covers(array.__array_interface__["data"][0]):
                return target.viewed(array)
        return array


@contextlib.contextmanager
def _locked(targets: Sequence[Operand], sources: Sequence[Operand], timeout: float) -> Iterator[list[Hold]]:
    """Hold the locks of all operands, in the order of the slots; yield the exclusive ones, which are the targets'."""
    modes = {operand.guard.slot: (operand, SHARED) for operand in reversed(sources)}
    for target in targets:
        modes[target.guard.slot] = (target, EXCLUSIVE)
    holds: list[Hold] = []
    try:
        for slot in sorted(modes):
            operand, mode = modes[slot]
            what = "exclusive lock" if mode == EXCLUSIVE else "shared lock on an operand"
            holds.append(operand.guard.acquire(mode, timeout, what))
            if mode == SHARED:
                operand.guard.check_whole()
        yield [hold for hold in holds if hold.mode == EXCLUSIVE]
    finally:
        for hold in reversed(holds):
            hold.release()


def _may_raise() -> bool:
    """Whether a floating-point condition would end an operation in its middle."""
    return "raise" in np.geterr().values()


def _privately(args: Sequence[Any]) -> list[Any]:
    """Replace operands in arguments by copies; those of one array show one moment."""
    copies: dict[int, npt.NDArray[Any]] = {}
    for operand in leaves(args, {}, Operand):
        operand.guard.check_whole()  # also of an array whose lock is held
    for views in grouped(leaves(args, {}, Operand), lambda operand: operand.guard):
        copies.update(zip(map(id, views), snapshots(views), strict=True))
    return [map_nested(arg, lambda leaf: copies.get(id(leaf), leaf)) for arg in args]


def _converted(value: Any, dtype: np.dtype[Any], *, as_element: bool = False) -> npt.NDArray[Any]:
    """Convert a value as assigning it would, into memory of its own."""
    if as_element:
        elements = np.empty(1, dtype)
        elements[0] = value
        return elements[0, ...]
    if not isinstance(value, (np.ndarray, list, tuple)) or (dtype.names is not None and isinstance(value, tuple)):
        element = np.empty((), dtype)
        element[()] = value
        return element
    if not isinstance(value, np.ndarray):
        return np.array(value, dtype)
    check_free(value.size * dtype.itemsize)
    converted = np.empty(value.shape, dtype)
    converted[...] = value
    return converted


def _mend_if_whole(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], target: Operand) -> None:
    """Take the torn mark back after a write that set every element. The caller holds the lock."""
    if not target.guard.torn or not target.is_whole:
        return
    kind, name = operation[:2]
    if (
        (kind == METHOD and name == "fill")
        or (kind == FUNCTION and name == "numpy:copyto" and kwargs.get("where", True) is True)
        or (name in ("setitem", "__setitem__") and any(args[1] is whole or args[1] == whole for whole in _WHOLE_INDEX
                                                      if isinstance(args[1], type(whole))))
    ):  # fmt: skip
        target.guard.mend()
