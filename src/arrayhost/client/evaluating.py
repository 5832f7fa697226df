"""Where an operation on proxies is evaluated: reads where the memory is mapped, the rest in the host."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from arrayhost.client.attributing import apply_for_caller
from arrayhost.client.returning import asked, follow
from arrayhost.client.untold import apply_untold
from arrayhost.core.handles import Written
from arrayhost.errors import ArgumentEncodingError, UnsupportedError, WouldDeadlock
from arrayhost.evaluation.hosted import evaluate_hosted
from arrayhost.evaluation.operands import foreign_as_ndarrays, grouped, leaves, map_nested, map_results
from arrayhost.evaluation.operations import HOSTED, OPERATOR
from arrayhost.evaluation.reading import evaluate_read, snapshots
from arrayhost.evaluation.shadows import place_of
from arrayhost.evaluation.tables import is_callers, repeatable, written_arguments
from arrayhost.memory.control import ROW_WORDS
from arrayhost.sync.filelocks import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.client.links import Source
    from arrayhost.core.layout import Layout
    from arrayhost.evaluation.operations import Operation
    from arrayhost.memory.segments import Mapping as SegmentMapping
    from arrayhost.sync.guards import Guard, Hold

__all__ = ["ArrayProxy", "evaluate", "evaluate_in_host", "travelling"]


class ArrayProxy:
    """What evaluation has to know of a proxy of an array, mapped or not.

    Attributes
    ----------
    mapped : bool
        Whether reads are evaluated in this process.
    evaluator : callable or None
        For arrays of another engine than a host: its `evaluate`, which is given every operation that has one of them.
    """

    __slots__ = ("__weakref__", "_source")
    mapped: ClassVar[bool]
    evaluator: ClassVar[Any] = None
    _source: Source
    # The array's row of the control table, where it is at hand.
    _row: Sequence[int] = (0,) * ROW_WORDS

    @property
    def layout(self) -> Layout:
        """Where the view lies in its segment."""
        raise NotImplementedError  # each kind's own

    @property
    def on_host(self) -> ArrayProxy:
        """The same view, evaluated in the host."""
        raise NotImplementedError  # each kind's own

    def _private_copy(self) -> npt.NDArray[Any]:
        """Copy the elements consistently, in their own memory order."""
        raise NotImplementedError  # each kind's own

    def _steady(self) -> npt.NDArray[Any] | None:
        """Return a consistent private copy that took next to nothing to make, or None: see `client.steady`."""
        return None

    def _with_layout(self, layout: Layout) -> ArrayProxy:
        """Make the proxy of another view of the same array."""
        raise NotImplementedError  # each kind's own

    def _shown(self, like: npt.NDArray[Any], offset: int, strides: tuple[int, ...]) -> ArrayProxy:
        """Make the proxy of a view with an ndarray's shape and dtype, so many bytes behind this one's first element."""
        own = self.layout
        return self._with_layout(
            replace(own, shape=like.shape, dtype=like.dtype, offset=own.offset + offset, strides=strides)
        )

    def _move(self, source: Source, layout: Layout) -> None:
        """Stand for the same view of another array from now on."""
        raise NotImplementedError  # each kind's own

    # -- an operand of `evaluation.reading`, where this process has mapped the array -------------------------------

    @property
    def guard(self) -> Guard:
        """The array's lock and sequence word in this process."""
        return self._source.reach().guard

    @property
    def mapping(self) -> SegmentMapping:
        """The mapping, in this process, of the array's segment."""
        return self._source.reach().mapping

    @property
    def live(self) -> npt.NDArray[Any]:
        """The memory itself, as a read-only ndarray that changes when somebody writes."""
        raise NotImplementedError  # each kind's own

    @property
    def writer(self) -> npt.NDArray[Any]:
        """The memory itself, writeable where NumPy's own view would be. For this package's use, under a lock."""
        raise NotImplementedError  # each kind's own

    def viewed(self, view: npt.NDArray[Any]) -> ArrayProxy:
        """Make the proxy of a view of the same memory, writeable as `view` is."""
        raise NotImplementedError  # each kind's own

    def locked_copies(self, views: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Copy views of this array under its shared lock, taken once, by the host. Cost: one round trip."""
        raise NotImplementedError  # each kind's own


def evaluate(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Evaluate an operation on proxies: reads here if all of them are mapped, everything else in a host.

    Returns
    -------
    object
        What NumPy returns: views of hosted memory as proxies, targets of a write as the proxies that were passed. A
        view is an `on_host` proxy if one of the operands was.
    """
    operands = leaves(args, kwargs, ArrayProxy)
    for operand in operands:
        if operand.evaluator is not None:
            return operand.evaluator(operation, args, kwargs)
        if operand._source.named is not None:
            follow(operand)
    written = written_arguments(operation, args, kwargs)
    targets = [target for target in written if isinstance(target, ArrayProxy)]
    # Whoever is inside a section evaluates here: the host would wait for the section to end.
    away = [operand for operand in operands if not operand.mapped and operand._source.hold() is None]
    if not targets:
        if not away:
            once = bool(written) and not repeatable(operation, args, kwargs)
            return evaluate_read(
                operation, args, kwargs, operands, once=once, carry_out=apply_for_caller, attempt=apply_untold
            )
        if written or is_callers(operation):
            return _evaluate_copies(operation, args, kwargs)
        return _ask(operation, args, kwargs, away[0], targets)
    holds = [target._source.hold() for target in targets]
    if any(holds):
        return _write_direct(operation, args, kwargs, targets, holds)
    result = _ask(operation, args, kwargs, targets[0], targets)
    return result if len(targets) == len(written) else _filled(kwargs["out"], result)


def _filled(out: Sequence[Any], results: Sequence[Any]) -> tuple[Any, ...]:
    """Fill ndarrays of the caller's that were outputs of a ufunc beside hosted ones."""
    for target, values in zip(out, results, strict=True):
        if isinstance(target, np.ndarray):
            target[...] = values
    return tuple(values if target is None else target for target, values in zip(out, results, strict=True))


def evaluate_in_host(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Evaluate in the host of the first argument, unless this thread holds a lock that the host would wait for."""
    proxy = args[0][0] if isinstance(args[0], list) else args[0]
    if proxy.evaluator is not None:
        return proxy.evaluator(operation, args, kwargs)
    if proxy._source.hold() is not None:
        if operation.kind == HOSTED:
            substitute = _substitution(leaves(args[1:], {}, ArrayProxy))
            return evaluate_hosted(
                operation.name, [args[0], *(map_nested(arg, substitute) for arg in args[1:])], kwargs
            )
        return evaluate(operation, args, kwargs)
    targets = [target for target in written_arguments(operation, args, kwargs) if isinstance(target, ArrayProxy)]
    return _ask(operation, args, kwargs, proxy, targets)


def _evaluate_copies(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Evaluate here on copies of what is not mapped here. Cost: one round trip for each array."""
    operands = leaves(args, kwargs, ArrayProxy)
    substitute = _substitution(operands)
    copies = [substitute(operand) for operand in operands]
    for copy in copies:
        copy.flags.writeable = False  # what is written there would be lost in silence
    real_kwargs = {key: map_nested(arg, substitute) for key, arg in kwargs.items()}
    result = apply_for_caller(operation, [map_nested(arg, substitute) for arg in args], real_kwargs)

    def wrap(array: npt.NDArray[Any]) -> Any:
        if array.flags.writeable:
            return array
        for operand, copy in zip(operands, copies, strict=True):
            place = place_of(array, copy, operand.layout.strides)
            if place is not None:
                return operand._shown(array, *place)
        return array.copy("K") if any(np.may_share_memory(array, copy) for copy in copies) else array

    return map_results(result, wrap)


def _write_copies(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], targets: list[ArrayProxy]
) -> Any:
    """Write to copies of remote arrays that are fetched, locked, and written back whole, unless that fails.

    Cost: three round trips for each array.
    """
    sources = {(target._source.link.host_id, target._source.slot): target._source for target in targets}
    with contextlib.ExitStack() as stack:
        for _, source in sorted(sources.items(), key=lambda item: item[0]):
            guard: Any = source.reach().guard
            hold = guard.acquire(EXCLUSIVE, source.link.lock_timeout, "exclusive lock")
            stack.callback(hold.release)
            stack.push(lambda kind, *_, hold=hold: hold.discard() if kind is not None else None)
        return _write_direct(operation, args, kwargs, targets, [target._source.hold() for target in targets])


def _substitution(operands: Sequence[ArrayProxy]) -> Callable[[Any], Any]:
    """Copy operands, all views of one array as of one moment; return what replaces each by its copy."""
    copies: dict[int, npt.NDArray[Any]] = {}
    for views in grouped(operands, lambda operand: operand._source):
        copies.update(zip(map(id, views), _private_copies(views), strict=True))
    return lambda leaf: copies.get(id(leaf), leaf)


def _with_values_of_others(
    host: bytes, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Replace what other hosts own by its values, views of one array as of one moment: a host does not ask another."""
    operands = leaves(args, kwargs, ArrayProxy)
    others = [one for one in operands if one.evaluator is None and one._source.link.host_id != host]
    if not others:
        return args, kwargs
    substitute = _substitution(others)
    return [map_nested(arg, substitute) for arg in args], {
        key: map_nested(arg, substitute) for key, arg in kwargs.items()
    }


def travelling(proxy: ArrayProxy, values: Sequence[Any]) -> Sequence[Any]:
    """Return values as they are sent to a proxy's host: other libraries' arrays and other hosts' as ndarrays."""
    values = [foreign_as_ndarrays(value) for value in values]
    return _with_values_of_others(proxy._source.link.host_id, values, {})[0]


def _private_copies(views: Sequence[ArrayProxy]) -> list[npt.NDArray[Any]]:
    """Copy views of one array as of one moment. Cost: at most one round trip, but inside a section none."""
    if len(views) == 1 or views[0]._source.hold() is not None:
        return [view._private_copy() for view in views]
    return snapshots(views) if all(view.mapped for view in views) else views[0].locked_copies(views)


def _ask(
    operation: Operation,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    proxy: ArrayProxy,
    targets: Sequence[ArrayProxy],
) -> Any:
    """Have a proxy's host evaluate."""
    if operation.kind != OPERATOR:
        # Operators first ask the other operand's type, which must be what it was.
        args, kwargs = foreign_as_ndarrays(list(args)), foreign_as_ndarrays(dict(kwargs))
    host = proxy._source.link.host_id
    if any(target._source.link.host_id != host for target in targets):
        raise UnsupportedError(
            "one operation cannot write to arrays of two hosts: give it ndarrays for the results and assign these, or "
            "open arrayhost.locked(a, b) on both"
        )
    args, kwargs = _with_values_of_others(host, args, kwargs)
    operands = leaves(args, kwargs, ArrayProxy)
    try:
        result = asked(operands, lambda: proxy._source.link.evaluate(operation, args, kwargs))
    except ArgumentEncodingError as error:
        # A function, an object of another library's, or a result that is one: none of them travels, but values do.
        if not targets and proxy._source.link.is_remote:
            return _evaluate_copies(operation, args, kwargs)
        if not error.nothing_sent or not all(target._source.link.is_remote for target in targets):
            raise
        return _write_copies(operation, args, kwargs, list(targets))

    def received(leaf: Any) -> Any:
        if isinstance(leaf, Written):
            return targets[leaf.number]
        if isinstance(leaf, ArrayProxy) and not proxy.mapped:
            return leaf.on_host
        return leaf

    return map_nested(result, received)


def _write_direct(
    operation: Operation,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    targets: list[ArrayProxy],
    holds: Sequence[Hold | None],
) -> Any:
    """Write to arrays whose lock this thread holds."""
    if not all(hold is not None and hold.mode == EXCLUSIVE for hold in holds):
        raise WouldDeadlock(
            "this thread is inside a.read() on an array that is to be written, or holds only some of the arrays: "
            "open a.write(), or arrayhost.locked(a, b, ...) for all of them"
        )
    memory: dict[int, Any] = {id(target): target.writer for target in targets}
    others: list[ArrayProxy] = []
    for operand in leaves(args, kwargs, ArrayProxy):
        if id(operand) not in memory:
            hold = operand._source.hold()
            if hold is not None and hold.mode == EXCLUSIVE:
                memory[id(operand)] = operand.live
            else:
                others.append(operand)
    copied = _substitution(others)

    def substitute(leaf: Any) -> Any:
        return memory[id(leaf)] if id(leaf) in memory else copied(leaf)

    real_args = [map_nested(arg, substitute) for arg in args]
    real_kwargs = {key: map_nested(arg, substitute) for key, arg in kwargs.items()}
    begun: list[Hold] = []
    try:
        for hold in holds:
            if hold is not None:
                hold.begin_write()
                begun.append(hold)
        result = apply_for_caller(operation, real_args, real_kwargs)
    finally:
        for hold in begun:
            hold.end_write()
    for target in targets:
        if result is memory[id(target)]:
            return target
    return result
